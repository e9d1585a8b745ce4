"""What torch-neuron, neuron-cc, the Neuron runtime and their installation are known to say when they fail. Pure data.

The texts are those of AWS's guides and of users' reports; tests/data/neuron-logs quotes each with its source, and
docs/neuron-errors.md lists them. In each table the first that matches counts: the specific ones come first, and what
only follows from others comes last. A log has lines of other software too: a pattern names what only Neuron's says.
"""

from typing import Tuple

from neuronbert.backends.neuron.failures import Failure, NumericalError, PipelineRefused
from neuronbert.errors import BackendFailed, BackendUnavailable
from neuronbert.hardware.neuron import NEURON_INSTALL

IN_ITS_PYTHON = f"with Python 3.8 to 3.10: {NEURON_INSTALL}"
AFRESH = f"in a new virtual environment, {IN_ITS_PYTHON}"
OTHER_SHAPE = "another --auto-cast, --batch-size or --sequence-length"
RELOAD_DRIVER = "sudo rmmod neuron && sudo modprobe neuron"
LARGE_HOST = (
    "compile on a machine with 32 GiB or more (a c5.4xlarge or larger, with --no-device, will do); the artifact can be "
    "copied to inf1"
)
# What follows a status of the runtime, in torch-neuron's words or TensorFlow's: systemd has a status= too.
SAID = r"(?:, error)? message="

# Said by apt, yum, pip and docker, before anything of neuronbert runs: `neuronbert doctor --log` knows them.
INSTALL_FAILURES: Tuple[Failure, ...] = (
    Failure(
        "driver-in-container",
        r"belongs to a chroot's host",
        BackendUnavailable,
        "the driver is a part of the host's kernel, it cannot be installed in a container",
        "on the host: {install_driver}; and give the container its device: --device=/dev/neuron0",
    ),
    Failure(
        "host-without-driver",
        r'gathering device information while adding custom device "/dev/neuron\d+"',
        BackendUnavailable,
        "the host has no such device: its driver is not installed, or it is no inf1 instance",
        "on the host: {install_driver}; then: ls /dev/neuron*",
    ),
    Failure(
        "driver-build",
        r"(Bad return status for module build|Module build) (on|for) kernel|pre_install failed"
        r"|[Nn]o [Pp]ackage aws-neuron-dkms available",
        BackendUnavailable,
        "the driver was not built: it is the old package aws-neuron-dkms, or it is older than the kernel, or the "
        "kernel's headers are missing",
        "{remove_old_driver}; {install_headers}; {install_driver}",
    ),
    Failure(
        "no-wheel",
        r"(Could not find a version that satisfies the requirement|No matching distribution found for) "
        r"(torch-neuron|neuronx?-cc|[Tt]ensor[Ff]low\S*1\.15)",
        BackendUnavailable,
        "pip finds no wheel: another Python than 3.8 to 3.10, or AWS's index was not named",
        IN_ITS_PYTHON,
    ),
    Failure(
        "tools-too-new",
        r"version `GLIBC_[\d.]+' not found \(required by /opt/aws/neuron/",
        BackendUnavailable,
        "these Neuron tools are newer than this system's C library",
        "{install_tools}",
    ),
)

IMPORT_FAILURES: Tuple[Failure, ...] = (
    Failure(
        "placeholder",
        r"WRONG PACKAGE",
        BackendUnavailable,
        "the package is PyPI's placeholder of this name, the real one is on AWS's own index",
        f"python -m pip uninstall -y torch-neuron neuron-cc; {IN_ITS_PYTHON}",
    ),
    Failure(
        "torch-version",
        r"Invalid dependency version torch==(?:.*Expected torch==(?P<torch>\d+(?:\.\d+)*))?",
        BackendUnavailable,
        "torch is not the release that torch-neuron was built for",
        'python -m pip install "torch=={torch}"',
        unsaid={"torch": "1.13.1"},
    ),
    Failure(
        "protobuf-version",
        r"Descriptors cannot (not )?be created directly|google/protobuf/pyext/descriptor\.cc",
        BackendUnavailable,
        "protobuf does not fit TensorFlow 1.15, upon which neuron-cc is built",
        'python -m pip install "protobuf==3.20.1"; where it is that already: import tensorflow before torch',
    ),
    Failure(
        "numpy-version",
        r"module 'numpy' has no attribute '(object|bool|int|float|complex|str|typeDict)'"
        r"|module compiled against API version 0x\w+ but this version of numpy is",
        BackendUnavailable,
        "numpy is too new for TensorFlow 1.15, upon which neuron-cc is built, or too old for neuron-cc",
        'python -m pip install "numpy==1.22.2"',
    ),
    Failure(
        "tensorflow-version",
        r"No module named 'tensorflow|module 'tensorflow' has no attribute"
        r"|torch\.neuron\.trace error: data type not understood",
        BackendUnavailable,
        "TensorFlow is missing or is not 1.15, upon which neuron-cc is built",
        f"python -m pip uninstall -y tensorflow tensorflow-neuron; {IN_ITS_PYTHON}",
    ),
    Failure(
        "mixed-releases",
        r"(neuron|walrus|tensorflow_core)\S* undefined symbol: |undefined symbol: nrt_",
        BackendUnavailable,
        "libraries of different releases are mixed in this environment",
        AFRESH,
    ),
)

COMPILER_FAILURES: Tuple[Failure, ...] = (
    Failure(
        "pipeline-refused",
        r"neuroncore-pipeline-cores \(\d+\) may not be suitable",
        PipelineRefused,
        "neuron-cc refuses this number of pipeline cores",
        "--neuroncore-pipeline-cores auto, which tries the next smaller one",
    ),
    Failure(
        "compiler-missing",
        r"check (that )?neuron-cc is installed|No module named 'neuron_?cc'",
        BackendUnavailable,
        "neuron-cc is not installed, or PyPI's placeholder of this name is; or it is, and failed before this line",
        f"python -m pip uninstall -y neuron-cc; {IN_ITS_PYTHON}; where it was installed so: the log's lines before",
    ),
    Failure(
        "compiler-killed",
        r"[Cc]ompile command returned: -9\b|compiler\) process was killed \(SIG_?KILL\)|neuronx?-cc failed with -9\b"
        r"|compiling process was ended by signal 9\b|[Oo]ut of memory: Killed process \d+ \((neuron|walrus)\S*\)"
        r"|\[neuron-cc\]:.*(MemoryError|std::bad_alloc)|^MemoryError\b|^\s*what\(\): +std::bad_alloc",
        BackendFailed,
        "neuron-cc was killed, most likely for memory",
        LARGE_HOST,
    ),
    Failure(
        "compiler-process-ended",
        r"\[neuron-cc\]: Error (message|class): .*(process pool was terminated abruptly|BrokenProcessPool)",
        BackendFailed,
        "a process of neuron-cc ended: it was killed for memory, or libraries of different releases are mixed",
        f"{LARGE_HOST}; if that has enough: {AFRESH}",
    ),
    Failure(
        "compiler-timeout",
        r"(neuron-cc\b.*|compiling process) timed out after (?P<seconds>[\d.]+) seconds",
        BackendFailed,
        "neuron-cc took longer than the {seconds} s it was given",
        f"{OTHER_SHAPE}; or more time: --compiler-timeout SECONDS, 0 for no limit (it has hung for ever, with 100 GB)",
        unsaid={"seconds": "…"},
    ),
    Failure(
        "model-too-large",
        r"Error parsing message with type 'tensorflow\.GraphDef'",
        BackendFailed,
        "the model is larger than the 2 GB that neuron-cc reads",
        "a smaller checkpoint",
    ),
    Failure(
        "unsupported-operator",
        r"Operator \S+ is not supported|Please implement \S+ in native_ops",
        BackendFailed,
        "the model has an operator that this neuron-cc does not know",
        f"the newest one: {IN_ITS_PYTHON}; or another checkpoint",
    ),
    Failure(
        "compiler-crashed",
        r"compiler\) (process aborted|crashed) \((SIG_?ABORT|SIG_?SEGV|SEGFAULT)\)"
        r"|[Cc]ompile command returned: -(6|11)\b|compiling process was ended by signal (6|11)\b",
        BackendFailed,
        "neuron-cc crashed on this model",
        f"{OTHER_SHAPE} may compile; if it is short of memory: {LARGE_HOST}",
    ),
    Failure(
        "compiler-internal-error",
        r"An Internal Compiler Error has occurred|CompilerInternalError",
        BackendFailed,
        "neuron-cc failed inside itself on this model",
        f"{OTHER_SHAPE} may compile; the log's line 'Error message' says what it stumbled over",
    ),
    Failure(
        "conversion-failed",
        r"PyTorch to TF conversion failed to resolve function",
        BackendFailed,
        "an operator was not converted: TensorFlow is not 1.15, or this torch-neuron does not know the operator so",
        f"{AFRESH}; where TensorFlow is 1.15: another checkpoint",
    ),
    Failure(
        "nothing-compiled",
        r"No operations were successfully partitioned|No operator is placed on Neuron runtime",
        BackendFailed,
        "nothing of this model was compiled",
        "read the compiler's log; neuron-cc's reason is there",
    ),
    Failure(
        "partly-compiled",
        r"falling back to native python function call|neuron-cc failed with the following command line call"
        r"|was unable to compile > 50% of the operators",
        BackendFailed,
        "not all of this model was compiled",
        f"read the compiler's log, neuron-cc's reason is there; {OTHER_SHAPE} may compile",
    ),
)

RUNTIME_FAILURES: Tuple[Failure, ...] = (
    Failure(
        "cores-taken",
        r"NeuronCore\(s\) not available|Requested number of NCs: \d+ exceeds|NERR_RESOURCE_NC"
        r"|insufficent NCs for the requested operation",
        BackendUnavailable,
        "another process holds NeuronCores that this one asked for; they are free again when it ends",
        "neuronbert doctor says who holds them; or give each process its own: "
        'eval "$(neuronbert env ARTIFACT --worker 0)"',
    ),
    Failure(
        "loaded-before-fork",
        r"NRT_STATE_CHILD",
        BackendUnavailable,
        "the model was loaded before this process was forked, and NeuronCores stay with the parent",
        "load it after the fork; neuronbert serve and neuronbert.Runner start their workers so",
    ),
    Failure(
        "driver-unreachable",
        r"Unable to determine Neuron Driver version|Unable to read compatible Driver version",
        BackendUnavailable,
        "the Neuron driver is not installed, or this container was not given the device, or this is no inf1 instance",
        "{install_driver}; in a container --device=/dev/neuron0",
    ),
    Failure(
        "no-device",
        r"No neuron device available|This instance has no neuron devices|NMGR:kmgr_init_mlas\] No devices specified"
        r"|Could not open the device index",
        BackendUnavailable,
        "this process sees no Inferentia chip: the container was not given one, another process has it, or this is no "
        "inf1 instance",
        "docker run --device=/dev/neuron0 …, in Kubernetes the resource aws.amazon.com/neuron: 1; neuronbert doctor",
    ),
    Failure(
        "devices-with-gaps",
        r"Could not open the nd\d+|[Cc]ores are not contiguous",
        BackendUnavailable,
        "this process needs neighbouring chips and cores: it asks for one that is not there, or its numbers have gaps",
        'docker run --device=/dev/neuron0 --device=/dev/neuron1 … without gaps; and eval "$(neuronbert env ARTIFACT)"',
    ),
    Failure(
        "driver-too-new",
        r"Architecture not found 1\b|tdrv_get_number_devices_on_instance",
        BackendUnavailable,
        "this runtime or driver is newer than the last that drives Inferentia 1",
        f"{{remove_runtime}}; {{install_driver}}; {RELOAD_DRIVER}",
    ),
    Failure(
        "driver-mismatch",
        r"requires Neuron Driver version|is not compatible with the installed aws-neuronx?-dkms"
        r"|Installed aws-neuronx?-dkms supports Runtime compatibility|failed programming the engine",
        BackendUnavailable,
        "the Neuron driver and this runtime do not fit each other",
        f"{{remove_old_driver}}; {{install_driver}}; then end what uses the driver, and {RELOAD_DRIVER}",
    ),
    Failure(
        "device-left-running",
        r"Timestamp program stop timeout|Failed to stop neuron core|Failed to initialize devices, error:5\b",
        BackendUnavailable,
        "a process that ended left the device running",
        RELOAD_DRIVER,
    ),
    Failure(
        "daemon-missing",
        r"Neuron Runtime GRPC server at address|Is neuron-rtd running",
        BackendUnavailable,
        "this torch-neuron is of before SDK 1.16 and needs the daemon neuron-rtd",
        f"a newer one needs none; {IN_ITS_PYTHON}",
    ),
    Failure(
        "groups-too-large",
        r"requires \S+ NeuronCores, but there are only \S+ cores available",
        BackendUnavailable,
        "NEURONCORE_GROUP_SIZES asks for more NeuronCores than this process has",
        'unset NEURONCORE_GROUP_SIZES; eval "$(neuronbert env ARTIFACT)"',
    ),
    Failure(
        "too-few-cores",
        r"Could not find VNC id|Insufficient number of VNCs",
        BackendUnavailable,
        "the model needs more NeuronCores than this process sees",
        'eval "$(neuronbert env ARTIFACT)", or compile again with fewer --neuroncore-pipeline-cores',
    ),
    Failure(
        "compiled-by-newer",
        rf"NEFF version mismatch|status=10{SAID}|Unsupported hardware operator code",
        BackendFailed,
        "the model was compiled by a neuron-cc that is newer than this runtime",
        f"the same versions here as where it was compiled: {NEURON_INSTALL}",
    ),
    Failure(
        "transfer-lists-full",
        r"No more pages for ring type",
        BackendFailed,
        "the runtime has no place left for the model's lists of transfers (DMA rings); device memory is not full",
        f"a torch-neuron of SDK 1.17.0 or newer, which mended one such case: {NEURON_INSTALL}; "
        "or a smaller --batch-size or --sequence-length",
    ),
    Failure(
        "device-memory-full",
        rf"status=4{SAID}|Failed to alloc DEVICE memory|NERR_RESOURCE\b|TDRAM \S+ has no free space"
        r"|neuron:mc_alloc: device mempool",
        BackendFailed,
        "device memory is full",
        "fewer --sequence-length buckets or copies (fewer visible cores), or --mode pipeline over more cores",
        comes_and_goes=True,  # aws-neuron-sdk#625: with memory left, loads fail at random, and succeed if tried again
    ),
    Failure(
        "numerical",
        rf"status=1003{SAID}|INFER_ERROR_SUBTYPE_NUMERICAL",
        NumericalError,
        "the device computed NaN or Inf",
        "compile again with --auto-cast-type bf16, whose range is that of fp32",
    ),
    Failure(
        "faulty-memory",
        r"Uncorrectable memory error is detected",
        BackendFailed,
        "the chip's memory has an error that cannot be corrected: results may be wrong, and the chip is likely faulty",
        "stop the instance and start it again, which moves it to other hardware, or terminate it",
    ),
    Failure(
        "device-error",
        rf"status=1004{SAID}|infer_wait\] error: 1004\b|Inference completed with err: 1004\b|INFER_ERROR_SUBTYPE_\w+",
        BackendFailed,
        "the device stopped with an error in the middle of an inference",
        f"restart the process; if it happens again: {RELOAD_DRIVER}, then compile the artifact again",
    ),
    Failure(
        "timeout",
        rf"status=5{SAID}|inference timeout \(\d+ ms\)|Missing infer_status notification",
        BackendFailed,
        "an inference took longer than NEURON_RT_EXEC_TIMEOUT",
        f"restart the process; if it happens again: {RELOAD_DRIVER}, and the driver's lines in dmesg",
    ),
    Failure(
        "wrong-shape",
        rf"status=1002{SAID}",
        BackendFailed,
        "the runtime got another shape than the model was compiled for",
        "compile the artifact again",
    ),
    Failure(
        "dynamic-batch",
        r"Inconsistent batch sizes found on inputs"
        r"|The size of tensor a \(\S+\) must match the size of tensor b \(\S+\) at non-singleton dimension 0\b",
        BackendFailed,
        "a BERT on NeuronCores takes the batch that it was compiled for, dynamic batches and DataParallel fail",
        "neuronbert compile --batch-size 1,4: smaller batches are padded to the next of them",
    ),
    Failure(
        "refused-model",
        rf"status=2{SAID}",
        BackendFailed,
        "the runtime refuses the model",
        f"compile the artifact again with the versions of this machine, or: {NEURON_INSTALL}",
    ),
    Failure(
        "operators-not-registered",
        r"Unknown builtin op: neuron::|Unknown type name '__torch__\.torch\.classes\.neuron\.",
        BackendUnavailable,
        "the operators of torch_neuron are not registered in this process",
        "import torch_neuron before torch.jit.load; neuronbert's own loader does",
    ),
    Failure(
        "runtime-does-not-start",
        r"Neuron [Rr]untime could not be initialized|TDRV not initialized|InitTongas\] Failed to initialize devices",
        BackendUnavailable,
        "the Neuron runtime does not start: no device, cores taken, no driver, or variables that contradict each other",
        "neuronbert doctor, and the driver's lines: sudo dmesg | grep -i neuron",
    ),
    Failure(
        "copy-failed",
        r"Caught RuntimeError on neuroncore \d+",
        BackendFailed,
        "torch.neuron.DataParallel passes on what failed on one of its NeuronCores; the reason stands below it",
        "neuronbert doctor --log FILE with the lines below; "
        "a BERT takes only the batch it was compiled for: neuronbert compile --batch-size 1,4",
    ),
)

# Of a whole log, whose place is not known: the reason of a start that failed stands beside its consequences.
ALL_FAILURES = INSTALL_FAILURES + IMPORT_FAILURES + COMPILER_FAILURES + RUNTIME_FAILURES
