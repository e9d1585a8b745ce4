"""What torch-neuron, neuron-cc, the Neuron runtime and their installation are known to say when they fail. Pure data.

The texts are those of AWS's guides and of users' reports; tests/data/neuron-logs quotes each with its source, and
docs/neuron-errors.md lists them. In each table the first that matches counts: the specific ones come first.
"""

from typing import Tuple

from neuronbert.backends.neuron.failures import Failure, NumericalError, PipelineRefused
from neuronbert.errors import BackendFailed, BackendUnavailable
from neuronbert.hardware.neuron import DRIVER_INSTALL, NEURON_INSTALL, OLD_DRIVER_REMOVAL

IN_ITS_PYTHON = f"with Python 3.8 to 3.10: {NEURON_INSTALL}"
AFRESH = f"in a new virtual environment, {IN_ITS_PYTHON}"
OTHER_SHAPE = "another --auto-cast, --batch-size or --sequence-length"
RELOAD_DRIVER = "sudo rmmod neuron && sudo modprobe neuron"
LARGE_HOST = (
    "compile on a machine with 32 GiB or more (a c5.4xlarge or larger will do); the artifact can be copied to inf1"
)

# Said by apt, yum, pip and docker, before anything of neuronbert runs: `neuronbert doctor --log` knows them.
INSTALL_FAILURES: Tuple[Failure, ...] = (
    Failure(
        "driver-in-container",
        r"belongs to a chroot's host",
        BackendUnavailable,
        "the driver is a part of the host's kernel, it cannot be installed in a container",
        f"on the host: {DRIVER_INSTALL}; and give the container its device: --device=/dev/neuron0",
    ),
    Failure(
        "host-without-driver",
        r'gathering device information while adding custom device "/dev/neuron\d+"',
        BackendUnavailable,
        "the host has no such device: its driver is not installed, or it is no inf1 instance",
        f"on the host: {DRIVER_INSTALL}; then: ls /dev/neuron*",
    ),
    Failure(
        "driver-build",
        r"(Bad return status for module build|Module build) (on|for) kernel|pre_install failed"
        r"|[Nn]o [Pp]ackage aws-neuron-dkms available",
        BackendUnavailable,
        "the driver was not built: it is the old package aws-neuron-dkms, or the kernel's headers are missing",
        f"{OLD_DRIVER_REMOVAL}; sudo apt-get install -y linux-headers-$(uname -r) && {DRIVER_INSTALL}",
    ),
    Failure(
        "no-wheel",
        r"Could not find a version that satisfies the requirement"
        r"|No matching distribution found for (torch-neuron|neuron-cc|tensorflow)",
        BackendUnavailable,
        "pip finds no wheel: another Python than 3.8 to 3.10, or AWS's index was not named",
        IN_ITS_PYTHON,
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
        r"Invalid dependency version torch==",
        BackendUnavailable,
        "torch is not the release that torch-neuron was built for",
        'python -m pip install "torch==1.13.1"',
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
        "numpy does not fit TensorFlow 1.15, upon which neuron-cc is built",
        'python -m pip install "numpy<=1.22.2"',
    ),
    Failure(
        "tensorflow-version",
        r"No module named 'tensorflow|module 'tensorflow' has no attribute|data type not understood"
        r"|PyTorch to TF conversion failed to resolve function",
        BackendUnavailable,
        "TensorFlow is missing or is not 1.15, upon which neuron-cc is built",
        f"python -m pip uninstall -y tensorflow tensorflow-neuron; {IN_ITS_PYTHON}",
    ),
    Failure(
        "mixed-releases",
        r"undefined symbol: ",
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
        "neuron-cc is not installed",
        IN_ITS_PYTHON,
    ),
    Failure(
        "compiler-killed",
        r"returned: -9\b|SIG_?KILL|ended by signal 9\b|MemoryError|std::bad_alloc|BrokenProcessPool"
        r"|process in the process pool was terminated abruptly",
        BackendFailed,
        "neuron-cc was killed, most likely for memory",
        LARGE_HOST,
    ),
    Failure(
        "compiler-timeout",
        r"TimeoutExpired|timed out after",
        BackendFailed,
        "neuron-cc took longer than it was given",
        f"{OTHER_SHAPE}; or more time: --compiler-timeout SECONDS, 0 for no limit (it has hung for ever, with 100 GB)",
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
        r"SIG_ABORT|SIG_?SEGV|SEGFAULT|returned: -(6|11)\b|ended by signal (6|11)\b",
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
        "the Neuron driver is not installed, or this container was not given the device",
        f"{DRIVER_INSTALL}; in a container --device=/dev/neuron0",
    ),
    Failure(
        "no-device",
        r"No neuron device available",
        BackendUnavailable,
        "this process sees no Inferentia chip: the container was not given one, or another process has it",
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
        f"sudo apt-get remove -y aws-neuronx-runtime-lib aws-neuronx-collectives; {DRIVER_INSTALL}",
    ),
    Failure(
        "driver-mismatch",
        r"requires Neuron Driver version|is not compatible with the installed aws-neuronx?-dkms"
        r"|Installed aws-neuronx?-dkms supports Runtime compatibility|failed programming the engine",
        BackendUnavailable,
        "the Neuron driver and this runtime do not fit each other",
        f"{OLD_DRIVER_REMOVAL}; {DRIVER_INSTALL}; then end what uses the driver, and {RELOAD_DRIVER}",
    ),
    Failure(
        "device-left-running",
        r"TDRV not initialized|Failed to initialize devices|Timestamp program stop timeout|Failed to stop neuron core",
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
        "too-few-cores",
        r"Could not find VNC id|Insufficient number of VNCs",
        BackendUnavailable,
        "the model needs more NeuronCores than this process sees",
        'eval "$(neuronbert env ARTIFACT)", or compile again with fewer --neuroncore-pipeline-cores',
    ),
    Failure(
        "compiled-by-newer",
        r"NEFF version mismatch|status=10\b|Unsupported hardware operator code",
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
        r"status=4\b|Allocation Failure|Failed to alloc DEVICE memory|NERR_RESOURCE\b|has no free space"
        r"|mc_alloc: device mempool",
        BackendFailed,
        "device memory is full",
        "fewer --sequence-length buckets or copies (fewer visible cores), or --mode pipeline over more cores",
        comes_and_goes=True,  # aws-neuron-sdk#625: with memory left, loads fail at random, and succeed if tried again
    ),
    Failure(
        "numerical",
        r"status=1003\b|Numerical Error|INFER_ERROR_SUBTYPE_NUMERICAL",
        NumericalError,
        "the device computed NaN or Inf",
        "compile again with --auto-cast-type bf16, whose range is that of fp32",
    ),
    Failure(
        "timeout",
        r"status=5\b|Timeout Exceeded|inference timeout \(\d+ ms\)|Missing infer_status notification",
        BackendFailed,
        "an inference took longer than NEURON_RT_EXEC_TIMEOUT",
        f"restart the process; if it happens again: {RELOAD_DRIVER}, and the driver's lines in dmesg",
    ),
    Failure(
        "device-error",
        r"status=1004\b|error: 1004\b|Inference completed with err: 1004\b|INFER_ERROR_SUBTYPE_\w+",
        BackendFailed,
        "the device stopped with an error in the middle of an inference",
        f"restart the process; if it happens again: {RELOAD_DRIVER}, then compile the artifact again",
    ),
    Failure(
        "wrong-shape",
        r"status=1002\b|Incorrect Input",
        BackendFailed,
        "the runtime got another shape than the model was compiled for",
        "compile the artifact again",
    ),
    Failure(
        "dynamic-batch",
        r"Inconsistent batch sizes found on inputs|Caught RuntimeError on neuroncore \d+"
        r"|The size of tensor a \(\S+\) must match the size of tensor b",
        BackendFailed,
        "a BERT on NeuronCores takes the batch that it was compiled for, dynamic batches and DataParallel fail",
        "neuronbert compile --batch-size 1,4: smaller batches are padded to the next of them",
    ),
    Failure(
        "refused-model",
        r"status=2\b|message=Invalid",
        BackendFailed,
        "the runtime refuses the model",
        f"compile the artifact again with the versions of this machine, or: {NEURON_INSTALL}",
    ),
    Failure(
        "operators-not-registered",
        r"Unknown builtin op: neuron::",
        BackendUnavailable,
        "the operators of torch_neuron are not registered in this process",
        "import torch_neuron before torch.jit.load; neuronbert's own loader does",
    ),
    Failure(
        "runtime-does-not-start",
        r"Neuron [Rr]untime could not be initialized",
        BackendUnavailable,
        "the Neuron runtime does not start: cores taken, no driver, or variables that contradict each other",
        "neuronbert doctor, and the driver's lines: sudo dmesg | grep -i neuron",
    ),
)

# Of a whole log, whose place is not known: the reason of a start that failed stands beside its consequences.
ALL_FAILURES = INSTALL_FAILURES + IMPORT_FAILURES + COMPILER_FAILURES + RUNTIME_FAILURES
