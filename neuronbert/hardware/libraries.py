"""The optional libraries: which extra of setup.cfg has each, and the one way in which they are imported.

``machine`` reads which versions are installed; what runs without a library must not import it.
"""

import shlex
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Optional

from neuronbert.errors import MissingLibrary
from neuronbert.hardware.machine import library_version
from neuronbert.hardware.neuron import NEURON_INDEX

# What each extra is for, as the end of a sentence: "torch is not installed: ... needs it".
PURPOSES = {
    "openvino": "the engine openvino",
    "onnxruntime": "the engine onnxruntime",
    "compile": "compiling, or comparing with, a checkpoint",
    "demo": 'the checkpoint "demo"',
    "top": "the live view",
    "emulator": "the emulator of an inf1 instance",
    "inf1": "AWS Inferentia 1",
    "plan": "the simulation of queues",
    "loadgen": "--loadgen",
    "sign": "a signature",
}


class Library(NamedTuple):
    """A distribution by the name that pip knows, and the extra that installs it for its usual purpose."""

    distribution: str
    extra: str


# By the name that is imported.
LIBRARIES: Dict[str, Library] = {
    "cryptography": Library("cryptography", "sign"),
    "huggingface_hub": Library("huggingface_hub", "compile"),
    "mlperf_loadgen": Library("mlcommons-loadgen", "loadgen"),
    "nncf": Library("nncf", "compile"),
    "neuron_cc": Library("neuron-cc", "inf1"),
    "neuronbert_demo": Library("neuronbert-demo", "demo"),
    "onnx": Library("onnx", "compile"),
    "onnxruntime": Library("onnxruntime", "onnxruntime"),
    "openvino": Library("openvino", "openvino"),
    "psutil": Library("psutil", "emulator"),
    "rich": Library("rich", "top"),
    "safetensors": Library("safetensors", "emulator"),
    "simpy": Library("simpy", "plan"),
    "torch": Library("torch", "compile"),
    "torch_neuron": Library("torch-neuron", "inf1"),
    "transformers": Library("transformers", "compile"),
}
DEMO = "examples/demo-checkpoint"
DEMO_IN_CLONE = Path(__file__).resolve().parents[2] / DEMO  # where neuronbert runs from a clone


@contextmanager
def optional_imports(extra: Optional[str] = None) -> Iterator[None]:
    """Inside stands an import of an optional library: where it is missing, MissingLibrary says how to install it.

    ``extra`` is for a library that several extras have, and is the one that this caller needs.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = missing_library(error, extra)
        if missing is None:
            raise
        raise missing from error


def missing_library(error: ModuleNotFoundError, extra: Optional[str] = None) -> Optional[MissingLibrary]:
    """The error to show instead of ``error``; None where what is missing is no library of an extra."""
    library = LIBRARIES.get((error.name or "").partition(".")[0])
    # Of a library that is installed only a part is missing: then its release is the wrong one, which is another matter.
    if library is None or isinstance(error, MissingLibrary):
        return None
    extra = extra or library.extra
    return MissingLibrary(
        f"{library.distribution} is not installed: {PURPOSES[extra]} needs it", hint=install_command(extra)
    )


def require_libraries(*names: str, extra: Optional[str] = None) -> None:
    """MissingLibrary for the first of the modules ``names`` whose distribution is not installed; imports none."""
    for name in names:
        if library_version(LIBRARIES[name].distribution) is None:
            missing = missing_library(ModuleNotFoundError(name=name), extra)
            assert missing is not None
            raise missing


def install_command(extra: str) -> str:
    """What to type to get ``extra``, for the Python that runs."""
    if extra == "demo" and DEMO_IN_CLONE.is_dir():
        return f"{_python()} -m pip install {shlex.quote(str(DEMO_IN_CLONE))}"
    if extra == "compile" and library_version("torch-neuron") is not None:
        extra = "inf1"
    rest = {"inf1": f" {NEURON_INDEX}", "demo": f", or from a clone ./{DEMO}"}.get(extra, "")
    return f'{_python()} -m pip install "neuronbert[{extra}]"{rest}'


def _python() -> str:
    """``python`` where that is this one: a virtual environment need not be active."""
    found = shutil.which("python")
    return "python" if found and Path(found).parent == Path(sys.executable).parent else shlex.quote(sys.executable)
