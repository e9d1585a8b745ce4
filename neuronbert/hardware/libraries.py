"""The libraries: which extra of setup.cfg has each, and the guard that every import of an optional one stands in.

``machine`` reads which versions are installed. Where a library is missing, whoever meets it says which and how to
install it; tests/test_optional_imports.py finds an import that nobody guards.
"""

import importlib.util
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterable, Iterator, NamedTuple, Optional, Sequence

from neuronbert.errors import MissingLibrary, quoted
from neuronbert.hardware.machine import library_version
from neuronbert.hardware.neuron import NEURON_INDEX


class Library(NamedTuple):
    """A distribution by the name that pip knows, and the extra that installs it for its usual purpose."""

    distribution: str
    extra: str


# By the name that is imported.
LIBRARIES: Dict[str, Library] = {
    "cachetools": Library("cachetools", "serve"),
    "cryptography": Library("cryptography", "sign"),
    "httptools": Library("httptools", "serve"),
    "huggingface_hub": Library("huggingface_hub", "compile"),
    "matplotlib": Library("matplotlib", "plan"),
    "mlperf_loadgen": Library("mlcommons-loadgen", "loadgen"),
    "msgspec": Library("msgspec", "serve"),
    "nncf": Library("nncf", "compile"),
    "neuron_cc": Library("neuron-cc", "inf1"),
    "neuronbert_demo": Library("neuronbert-demo", "demo"),
    "onnx": Library("onnx", "compile"),
    "onnxruntime": Library("onnxruntime", "onnxruntime"),
    "opentelemetry": Library("opentelemetry-exporter-otlp-proto-http", "trace"),
    "openvino": Library("openvino", "openvino"),
    "prometheus_client": Library("prometheus-client", "serve"),
    "pyarrow": Library("pyarrow", "parquet"),
    "psutil": Library("psutil", "emulator"),
    "pynvml": Library("nvidia-ml-py", "cuda"),
    "redis": Library("redis", "serve-redis"),
    "rich": Library("rich", "top"),
    "safetensors": Library("safetensors", "emulator"),
    "simpy": Library("simpy", "plan"),
    "starlette": Library("starlette", "serve"),
    "torch": Library("torch", "compile"),
    "torch_neuron": Library("torch-neuron", "inf1"),
    "transformers": Library("transformers", "compile"),
    "tvm": Library("apache-tvm", "tvm"),
    "uvicorn": Library("uvicorn", "serve"),
    "uvloop": Library("uvloop", "serve"),
}
# What neuronbert itself requires: there wherever pip installed it.
BASE = {name: Library(name, "") for name in ("click", "fastjsonschema", "numpy", "tokenizers")}
# What each extra is for.
PURPOSES = {
    "": "by neuronbert itself",
    "openvino": "to answer with OpenVINO",
    "onnxruntime": "to answer with ONNX Runtime",
    "tvm": "to tune models for a CPU with TVM",
    "cuda": "to use NVIDIA GPUs",
    "compile": "to compile checkpoints and to compare with them",
    "demo": 'for the checkpoint "demo"',
    "top": "to watch runners live",
    "emulator": "to emulate an inf1 instance",
    "inf1": "to use AWS Inferentia 1",
    "parquet": "to write Parquet files",
    "plan": "to simulate queues and to draw plans",
    "serve": "to answer over HTTP",
    "serve-redis": "to share cached answers among servers",
    "sign": "to sign artifacts and to verify signatures",
    "loadgen": "to measure with MLPerf LoadGen",
    "trace": "to send traces",
}
_ALL = {**LIBRARIES, **BASE}
_DEMO = Path("examples") / "demo-checkpoint"
DEMO_IN_CLONE = Path(__file__).resolve().parents[2] / _DEMO  # there only where neuronbert runs from a clone


@contextmanager
def optional_imports(extra: Optional[str] = None, *, otherwise: Optional[str] = None) -> Iterator[None]:
    """A block, or as a decorator a function, that imports optional libraries: MissingLibrary where one cannot be.

    ``extra`` is the one that the caller needs, of a library that several have. ``otherwise`` is what helps, too.
    """
    try:
        yield
    except ImportError as error:
        # What every command needs is explained where commands end: in tools/ something else helps.
        missing = None if _top(error) in BASE else explained(error, extra, otherwise)
        if missing is None:
            raise
        raise missing from error


def explained(
    error: ImportError, extra: Optional[str] = None, otherwise: Optional[str] = None
) -> Optional[MissingLibrary]:
    """The error to show instead of ``error``; None where it is one already, or is about none of our libraries."""
    top = _top(error)
    if isinstance(error, MissingLibrary) or top not in _ALL:
        return None
    if not _is_there(top):
        return _missing([top], extra, otherwise)
    # It lacks what is asked for, as an old release does, or something that it is built upon.
    name = _ALL[top].distribution
    return MissingLibrary(
        f"{name} {library_version(name) or ''} is installed and cannot be used: {error}",
        hint=f'{_python()} -m pip install --upgrade --force-reinstall "{name}"',
    )


def require_libraries(*names: str) -> None:
    """MissingLibrary, for all of them at once, unless the modules ``names`` could be imported; imports none."""
    absent = [name for name in names if not _is_there(name)]
    if absent:
        raise _missing(absent)


def install_command(*extras: str) -> str:
    """What to type to get ``extras``, for the Python that runs."""
    wanted = ["inf1" if extra == "compile" and library_version("torch-neuron") else extra for extra in extras]
    if "compile" in wanted and os.environ.get("NEURONBERT_EMULATE"):
        wanted.append("emulator")
    in_clone = "demo" in wanted and DEMO_IN_CLONE.is_dir()
    named = ",".join(extra for extra in wanted if extra and not (in_clone and extra == "demo"))
    package = f'"neuronbert[{named}]"' if named else "neuronbert" if "" in wanted else ""
    parts = [_python(), "-m pip install", package]
    parts += [quoted(DEMO_IN_CLONE) if in_clone else "", NEURON_INDEX if "inf1" in wanted else ""]
    command = " ".join(filter(None, parts))
    if "demo" in wanted and not in_clone:
        command += f", or for demo the folder {_DEMO} of a clone"
    return command


def extras_with(distributions: Iterable[str]) -> Iterator[str]:
    """The extras, each once, that have the distributions."""
    extras = {library.distribution: library.extra for library in LIBRARIES.values()}
    return iter(dict.fromkeys(extras[name] for name in distributions if name in extras))


def _is_there(name: str) -> bool:
    """Whether the module ``name`` could be imported, or has been."""
    if name in sys.modules:  # transformers 4.6 has no __spec__ once it is imported, and find_spec raises ValueError
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


def _top(error: ImportError) -> str:
    """The package that could not be imported, or something of it."""
    return (error.name or "").partition(".")[0]


def _missing(names: Sequence[str], extra: Optional[str] = None, otherwise: Optional[str] = None) -> MissingLibrary:
    distributions = [_ALL[name].distribution for name in names]
    extras = [extra] if extra else [*dict.fromkeys(_ALL[name].extra for name in names)]
    verb = "is" if len(distributions) == 1 else "are"
    purposes = ", ".join(PURPOSES[extra] for extra in extras)
    hint = install_command(*extras) + (f", or {otherwise}" if otherwise else "")
    return MissingLibrary(f"{', '.join(distributions)} {verb} not installed: needed {purposes}", hint=hint)


def _python() -> str:
    """``python`` where that is this one: the virtual environment need not be active."""
    found = shutil.which("python")
    return "python" if found and Path(found).parent == Path(sys.executable).parent else quoted(sys.executable)
