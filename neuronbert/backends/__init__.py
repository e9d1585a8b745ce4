"""The engines that a variant can run on: one module or folder each, one Protocol (``base``), one table.

``tasks`` and everything above may import the modules here and the table; a backend itself is imported on use.
"""

import importlib
import os
from typing import TYPE_CHECKING, cast

from neuronbert.errors import UsageError

if TYPE_CHECKING:  # the command line's help reads the table below, and must not wait for numpy
    from neuronbert.backends.base import Backend

BACKENDS = {
    "neuron": "neuronbert.backends.neuron.backend",
    "cuda": "neuronbert.backends.cuda.backend",
    "openvino": "neuronbert.backends.openvino.backend",
    "onnxruntime": "neuronbert.backends.onnxruntime",
    "torchscript": "neuronbert.backends.torchscript",
    "tvm": "neuronbert.backends.tvm.backend",
    "echo": "neuronbert.backends.echo",
}
# What is offered to users: echo answers nothing, it is for tests and for measuring the runner.
OFFERED = tuple(name for name in BACKENDS if name != "echo")


def backend_module(name: str) -> "Backend":
    """The module of the backend in the table called ``name``, for the constants that describe it; loads no engine."""
    return cast("Backend", importlib.import_module(BACKENDS[name]))


def load_backend(name: str) -> "Backend":
    """The backend module called ``name``, ready for use; UsageError if there is none."""
    if name not in BACKENDS:
        raise UsageError(f"there is no backend {name!r}", hint=f"one of {', '.join(OFFERED)}, or auto")
    if name == "neuron" and os.environ.get("NEURONBERT_EMULATE"):
        # The backend does not know what is behind torch_neuron: the emulator takes its place here if it is asked for.
        from neuronbert.emulator import use_environment

        use_environment()
    return backend_module(name)
