"""Each documented failure becomes our error, its own words kept, with the advice that mends it."""

import pytest

from neuronbert.backends.neuron import failures
from neuronbert.backends.neuron.failures import NumericalError, PipelineRefused, explained
from neuronbert.backends.neuron.known_failures import COMPILER_FAILURES, IMPORT_FAILURES, RUNTIME_FAILURES
from neuronbert.engine.engine import Engine
from neuronbert.errors import BackendFailed, BackendUnavailable

NOT_INITIALIZED = (
    "The PyTorch Neuron Runtime could not be initialized. Neuron Driver issues are logged to your system logs."
)
NO_DRIVER = "Unable to determine Neuron Driver version. Please check aws-neuron-dkms package is installed."
OLD_DRIVER = "This runtime requires Neuron Driver version 2.0 or greater. Please upgrade aws-neuron-dkms package."
OTHER_DRIVER = "This Neuron Runtime (compatibility id: 5) is not compatible with the installed aws-neuron-dkms package"
NEW_NAME = OTHER_DRIVER.replace("aws-neuron-dkms", "aws-neuronx-dkms")  # what the package is called since 2022
TAKEN = "ERROR   NRT:nrt_allocate_neuron_cores  NeuronCore(s) not available - Requested:nc1-nc1 Available:0"
TOO_MANY = "Requested number of NCs: 8 exceeds the total available number: 4"
TOO_WIDE = "TDRV:db_vtpb_get_mla_and_tpb  Could not find VNC id 4"
TOO_LARGE = "NEURONCORE_GROUP_SIZES=1,1,1,1 requires 4 NeuronCores, but there are only 2 cores available"  # placer.cc
NEWER = "NEFF version mismatch supported: 1.1 received: 2.0"
LOAD, EXECUTE = "Could not load the model status=", "Failed to execute the model status="

# text of the exception, what the runtime wrote besides, our class, a word of what it means, a word of the advice
RUNTIME = [
    (NOT_INITIALIZED, TAKEN, BackendUnavailable, "another process holds NeuronCores", "neuronbert env"),
    (TOO_MANY, "", BackendUnavailable, "another process", "doctor"),
    (NOT_INITIALIZED, TOO_LARGE, BackendUnavailable, "NEURONCORE_GROUP_SIZES asks for more", "neuronbert env"),
    (NOT_INITIALIZED, NO_DRIVER, BackendUnavailable, "driver is not installed", "aws-neuronx-dkms"),
    (NOT_INITIALIZED, OLD_DRIVER, BackendUnavailable, "do not fit each other", "aws-neuronx-dkms"),
    (NOT_INITIALIZED, OTHER_DRIVER, BackendUnavailable, "do not fit each other", "aws-neuronx-dkms"),
    (NOT_INITIALIZED, NEW_NAME, BackendUnavailable, "do not fit each other", "aws-neuronx-dkms"),
    (LOAD + "2 message=Invalid", TOO_WIDE, BackendUnavailable, "needs more NeuronCores", "--neuroncore-pipeline-cores"),
    (LOAD + "4 message=Allocation Failure", "", BackendFailed, "device memory is full", "buckets"),
    (LOAD + "2 message=Invalid", "", BackendFailed, "refuses the model", "compile the artifact again"),
    (LOAD + "10 message=Unsupported NEFF Version", NEWER, BackendFailed, "newer than this", "torch-neuron==1.13.1"),
    (EXECUTE + "5 message=Timeout Exceeded", "", BackendFailed, "NEURON_RT_EXEC_TIMEOUT", "restart"),
    (EXECUTE + "1003 message=Numerical Error", "", NumericalError, "NaN or Inf", "--auto-cast-type bf16"),
    (EXECUTE + "1002 message=Incorrect Input", "", BackendFailed, "another shape", "compile"),
    ("Unknown builtin op: neuron::forward_1.", "", BackendUnavailable, "not registered", "import torch_neuron"),
    (NOT_INITIALIZED, "", BackendUnavailable, "does not start", "neuronbert doctor"),
    ("something nobody has seen", "", BackendFailed, "cannot load it", "neuronbert doctor"),
]

PIPELINE = "The requested number of neuroncore-pipeline-cores (4) may not be suitable for this network"
NOTHING = "No operations were successfully partitioned and compiled to neuron for this model - aborting trace!"
COMPILER = [
    (PIPELINE, PipelineRefused, "auto"),
    ("Please check that neuron-cc is installed and working properly.", BackendUnavailable, "pip install"),
    ("INFO:Neuron:Compile command returned: -9", BackendFailed, "32 GiB"),
    ("the compiling process was ended by signal 9", BackendFailed, "32 GiB"),
    ("The neuron-cc (neuron compiler) process was killed (SIG_KILL).", BackendFailed, "32 GiB"),
    ("TimeoutExpired: Command neuron-cc timed out after 3 seconds", BackendFailed, "--compiler-timeout"),
    ("the compiling process timed out after 4200 seconds", BackendFailed, "--compiler-timeout"),
    ("MemoryError: Unable to allocate 3.05 GiB", BackendFailed, "a c5.4xlarge or larger, with --no-device"),
    (NOTHING, BackendFailed, "log"),
]


@pytest.mark.parametrize(("text", "also", "kind", "meaning", "advice"), RUNTIME)
def test_what_the_runtime_says(text, also, kind, meaning, advice):
    error = explained(text, RUNTIME_FAILURES, "cannot load it", also=also)
    assert type(error) is kind
    assert meaning in error.message and text in error.message and also in error.message
    assert advice in error.hint


@pytest.mark.parametrize(("text", "kind", "advice"), COMPILER)
def test_what_the_compiler_says(text, kind, advice):
    error = explained(text, COMPILER_FAILURES, "cannot compile")
    assert type(error) is kind
    assert text in error.message and advice in error.hint


def test_what_the_text_says_is_in_the_words():
    """torch-neuron: ``Expected torch=={version}``, of the release that is installed (aws-neuron-sdk#686)."""
    text = "Invalid dependency version torch==1.13.1. Expected torch==1.12.1"
    assert explained(text, IMPORT_FAILURES, "cannot go on").hint == 'python -m pip install "torch==1.12.1"'
    unsaid = explained("Invalid dependency version torch==2.0.1", IMPORT_FAILURES, "cannot go on")
    assert unsaid.hint == 'python -m pip install "torch==1.13.1"'
    slow = explained("Command 'neuron-cc compile x' timed out after 3600 seconds", COMPILER_FAILURES, "cannot compile")
    assert slow.message.splitlines()[0] == "cannot compile: neuron-cc took longer than the 3600 s it was given"


@pytest.mark.parametrize(("manager", "command"), [("apt", "apt-get install"), ("yum", "yum install")])
def test_the_advice_is_for_the_package_manager_of_this_system(monkeypatch, manager, command):
    monkeypatch.setattr(failures, "package_manager", lambda: manager)
    hint = explained(NO_DRIVER, RUNTIME_FAILURES, "cannot load it").hint
    assert command in hint and hint.endswith("; in a container --device=/dev/neuron0") and "{" not in hint


def test_the_frames_of_the_interpreter_are_left_out():
    text = (
        "The following operation failed in the TorchScript interpreter.\n"
        "Traceback of TorchScript (most recent call last):\n"
        '  File "code/__torch__.py", line 31, in forward\n'
        "/site-packages/torch/_ops.py(1279): __call__\n"
        "RuntimeError: RuntimeError: Could not load the model status=4 message=Allocation Failure\n\n"
        "At:\n  /runtime.py(217): x\n"
    )
    error = explained(text, RUNTIME_FAILURES, "cannot load it")
    assert error.message.splitlines()[1:] == ["    Could not load the model status=4 message=Allocation Failure"]


def test_a_very_long_text_keeps_its_end():
    error = explained("x" * 9000 + "the reason", COMPILER_FAILURES, "cannot compile")
    assert len(error.message) < 5000 and error.message.endswith("the reason")


def test_a_load_that_fails_at_random_is_tried_again(start_emulator, data_parallel_artifact):
    """aws-neuron-sdk#625: loads fail at random with status=4, with memory left; whoever retried got his model."""
    start_emulator(faults="device-memory:once")
    with Engine(data_parallel_artifact, streams=1) as engine:
        assert engine.answer([("who was jim henson?", "jim henson was a nice puppet")])
    start_emulator(faults="device-memory")
    with pytest.raises(BackendFailed, match=r"device memory is full(.|\n)*\(so at both of two tries\)"):
        Engine(data_parallel_artifact, streams=1)


def test_a_load_that_fails_for_a_reason_is_not(start_emulator, data_parallel_artifact):
    start_emulator(faults="invalid-model:once")
    with pytest.raises(BackendFailed, match="the runtime refuses the model"):
        Engine(data_parallel_artifact, streams=1)
