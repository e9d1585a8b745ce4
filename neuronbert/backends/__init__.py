"""The engines a variant can run on: one module each, one Protocol, one table, imported on use.

A backend turns a checkpoint into files (``export``) and files into a ``Session`` (``load``).
Everything around the one device call (windows, batching, answers) is the same for all of them.
"""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Protocol, Sequence, Tuple

from neuronbert.errors import UsageError

if TYPE_CHECKING:  # the command line's help reads the table below and must not wait for numpy
    import numpy as np

BACKENDS = {
    "neuron": "neuronbert.backends.neuron.backend",
    "openvino": "neuronbert.backends.openvino.backend",
    "onnxruntime": "neuronbert.backends.onnxruntime",
    "torchscript": "neuronbert.backends.torchscript",
    "echo": "neuronbert.backends.echo",
}


class Batch(NamedTuple):
    """Rows of tokens, padded to one length: three int64 arrays of shape [rows, tokens]."""

    input_ids: "np.ndarray"
    attention_mask: "np.ndarray"
    token_type_ids: "np.ndarray"


class Logits(NamedTuple):
    """What the model says of each token: two float32 arrays of shape [rows, tokens]."""

    start: "np.ndarray"
    end: "np.ndarray"


class Session(Protocol):
    """A loaded variant. ``run`` may be called from ``concurrency`` threads at once."""

    precision: str  # read back from the engine, not repeated from the request
    concurrency: int

    def run(self, batch: Batch) -> Logits: ...

    def close(self) -> None: ...


class ThroughputPlan(NamedTuple):
    """How to keep a number of threads busy when many windows wait."""

    streams: int  # batches that run at once
    rows: int  # of one batch, at most
    tokens: int  # of one batch, at most, counted with padding
    lengths: Tuple[int, ...] = ()  # static shapes: the buckets' lengths; a batch has windows of one bucket only


class ExportResult(NamedTuple):
    """What an export adds to the manifest; the fields with defaults belong to backends with static shapes."""

    batch_invariant: bool  # a row's logits do not depend on the other rows of its batch
    requires: Dict[str, Any]  # {"cpu_flags": [...], "libraries": {"openvino": ">=2024.4"}, "device": "cpu"}
    versions: Dict[str, str]  # of the libraries that made the files
    recipe: Dict[str, Any]  # how: quantisation preset, SmoothQuant alpha, ignored layers, compiler arguments
    batch_size: Optional[int] = None  # the one shape that the files take
    sequence_length: Optional[int] = None
    pipeline_cores: Optional[int] = None  # NeuronCores that one copy runs over
    compiler_args: Tuple[str, ...] = ()
    emulated: bool = False
    percent_compiled: Optional[float] = None


class ExportSource(Protocol):
    """What a backend may ask of the compiler while it exports."""

    config: Mapping[str, Any]  # the checkpoint's config.json
    input_names: Tuple[str, ...]  # the model's inputs among Batch's fields, in forward order

    def torch_model(self) -> Any:
        """The FP32 model in eval mode: forward(input_ids, attention_mask, token_type_ids) → (start, end)."""

    def calibration(self) -> List[Batch]:
        """Unpadded single-row batches of real text that the gate does not see."""


class Backend(Protocol):
    """A backend module.

    With ``STATIC_SHAPES`` a variant takes batches of one shape: its recipe says which, its session has it as ``shape``
    (neuron_target.Bucket) and the number of its ``copies``, and buckets.py makes one session of several. Its device
    is a process's own until that ends, so the compiler loads it in a child (isolated.py).
    """

    PRECISIONS: Tuple[str, ...]
    STATIC_SHAPES: bool
    REQUIREMENTS: Mapping[str, str]  # the libraries that load what export wrote: {"openvino": ">=2024.4"}
    DEVICE: str  # what it runs on: "cpu" or "neuron"
    AUTO_RANK: Optional[int]  # its place among those that ``--backend auto`` tries on its device; None: never tried

    def check_available(self, precision: str) -> None:
        """Raise BackendUnavailable, with the command that mends it, unless this machine can run it."""

    def batch_invariant(self, precision: str) -> bool:
        """Whether a row's logits are independent of the other rows of its batch (up to rounding)."""

    def throughput_plan(self, threads: int) -> ThroughputPlan:
        """Streams and batch size that were measured fastest; the reasons stand beside the constants."""

    def recipes(self, precision: str) -> Sequence[Mapping[str, Any]]:
        """What to try, in order, until one passes the gate; one entry for the exact precisions."""

    def export(self, source: ExportSource, precision: str, recipe: Mapping[str, Any], folder: Path) -> ExportResult:
        """Write the variant's files into the empty ``folder``."""

    def load(self, folder: Path, variant: Mapping[str, Any], *, threads: int, streams: int) -> Session:
        """Load what ``export`` wrote (``variant`` is its manifest entry); ``streams`` runs share the ``threads``."""


def backend_module(name: str) -> Any:
    """The module of the backend in the table called ``name``, for what it states of itself; loads no engine."""
    return importlib.import_module(BACKENDS[name])


def load_backend(name: str) -> Any:
    """The backend module called ``name``; UsageError if there is none."""
    if name not in BACKENDS:
        raise UsageError(f"there is no backend {name!r}", hint=f"one of {', '.join(BACKENDS)}, or auto")
    if name == "neuron" and os.environ.get("NEURONBERT_EMULATE"):
        # The backend does not know what stands behind torch_neuron: whoever asks for a stand-in gets it here.
        from neuronbert.emulator import use_environment

        use_environment()
    return backend_module(name)
