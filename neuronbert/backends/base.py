"""What a backend must provide, and the data that it takes and gives: the Protocols behind the table of backends.

A backend turns a checkpoint into files (``export``) and files into a ``Session`` (``load``). Everything around the one
device call (rows, batching, results) is the same for all of them; the task says which arrays the model returns.
"""

from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Protocol, Sequence, Tuple

import numpy as np

from neuronbert.backends.outputs import Output, Outputs
from neuronbert.checkpoint.families import Config, Head, TorchModel
from neuronbert.errors import BackendFailed, NeuronBertError

Variant = Mapping[str, Any]  # a variant's entry in the manifest: JSON
Steps = Callable[[str, int, int], None]  # what is done, how much of it is, of how much
Recipe = Mapping[str, Any]  # how a variant is made, as the manifest records it: JSON with the keys of its backend


class Batch(NamedTuple):
    """Rows of tokens, padded to one length: three int64 arrays of shape [rows, tokens]."""

    input_ids: np.ndarray
    attention_mask: np.ndarray
    token_type_ids: np.ndarray


class Bucket(NamedTuple):
    """The one shape that a compiled model with static shapes takes, and the number of NeuronCores it runs over."""

    batch_size: int
    sequence_length: int  # tokens
    pipeline_cores: Optional[int]  # None: it runs on the CPU

    @property
    def name(self) -> str:
        shape = f"b{self.batch_size}-s{self.sequence_length}"
        return shape if self.pipeline_cores is None else f"{shape}-p{self.pipeline_cores}"


@contextmanager
def engine_errors(what: str, hint: str) -> Iterator[None]:
    """Turn whatever an engine raises inside the block into BackendFailed: ``what`` failed, and how.

    Engines raise classes of their own, and over a file that none of them wrote anything at all.
    """
    try:
        yield
    except NeuronBertError:
        raise
    except Exception as error:
        raise BackendFailed(f"{what}: {error or type(error).__name__}", hint=hint) from error


class Session(Protocol):
    """A loaded variant. ``run`` may be called from ``concurrency`` threads at once."""

    precision: str  # read back from the engine, not repeated from the request
    concurrency: int

    def run(self, batch: Batch) -> Outputs:
        """The model's outputs by name, float32; BackendFailed when the engine refuses the batch."""

    def close(self) -> None: ...


class StaticSession(Session, Protocol):
    """A session that takes batches of one shape, on one or several copies of its model."""

    name: str
    shape: Bucket
    copies: int

    def run(self, batch: Batch, copy: Optional[int] = None) -> Outputs:
        """As Session.run for a batch of ``shape``, on the least busy copy or on the one numbered ``copy``."""


class ThroughputPlan(NamedTuple):
    """How to keep a number of threads busy when many rows wait."""

    streams: int  # batches that run at once
    rows: int  # of one batch, at most
    tokens: int  # of one batch, at most, counted with padding
    lengths: Tuple[int, ...] = ()  # static shapes: the buckets' lengths; a batch has rows of one bucket only


class ExportResult(NamedTuple):
    """What an export adds to the manifest; the fields with defaults belong to backends with static shapes."""

    batch_invariant: bool  # a row's outputs do not depend on the other rows of its batch
    requires: Dict[str, Any]  # {"cpu_flags": [...], "libraries": {"openvino": ">=2024.4"}, "device": "cpu"}
    versions: Dict[str, str]  # of the libraries that made the files
    recipe: Recipe  # as it was applied: quantisation preset, SmoothQuant alpha, ignored layers, compiler arguments
    batch_size: Optional[int] = None  # the one shape that the files take
    sequence_length: Optional[int] = None
    pipeline_cores: Optional[int] = None  # NeuronCores that one copy runs over
    compiler_args: Tuple[str, ...] = ()
    emulated: bool = False
    percent_compiled: Optional[float] = None


class ExportSource(Protocol):
    """What a backend may ask the compiler for while it exports."""

    @property
    def config(self) -> Config:
        """The checkpoint's config.json."""

    @property
    def input_names(self) -> Tuple[str, ...]:
        """The model's inputs among Batch's fields, in forward order."""

    @property
    def head(self) -> Head:
        """What the task adds to the encoder."""

    @property
    def outputs(self) -> Tuple[Output, ...]:
        """What forward returns, in order."""

    def torch_model(self) -> TorchModel:
        """The FP32 model in eval mode: forward(input_ids, attention_mask, token_type_ids) → a tuple of outputs."""

    @property
    def on_step(self) -> Steps:
        """To be called while something takes seconds."""

    @property
    def progress(self) -> Callable[[str], None]:
        """To be called with a line for the user."""

    def calibration(self) -> List[Batch]:
        """Unpadded single-row batches of real text, none of it among the gate's."""


class Backend(Protocol):
    """A backend module.

    With ``STATIC_SHAPES`` a variant takes batches of one shape: its recipe says which, ``load`` gives a StaticSession,
    and buckets.py makes one Session of several. The compiler loads such variants in a child (isolated.py): a NeuronCore
    belongs to a process until that ends.
    """

    PRECISIONS: Tuple[str, ...]
    STATIC_SHAPES: bool
    REQUIREMENTS: Mapping[str, str]  # the libraries that load what export wrote: {"openvino": ">=2024.4"}
    DEVICE: str  # what it runs on: "cpu", "neuron" or "cuda"
    AUTO_RANK: Optional[int]  # its position among those that ``--backend auto`` tries on its device; None: never tried
    # Whether what export wrote is a program that could do anything when it is loaded: then no variant of this backend
    # is loaded unless somebody asked for it (artifact/variants.py).
    BY_NAME_ONLY: bool
    # Whether one process that tokenises and ranks cannot keep it busy: then an offline job's text is answered inside
    # the workers (runner/job.py), several of which share a GPU.
    HOST_BOUND: bool

    def check_available(self, precision: str) -> None:
        """Raise BackendUnavailable, with the command that helps, unless this machine can run ``precision``."""

    def batch_invariant(self, precision: str) -> bool:
        """Whether a row's outputs are independent of the other rows of its batch (up to rounding)."""

    def throughput_plan(self, threads: int) -> ThroughputPlan:
        """The streams and batch sizes that were measured fastest."""

    def recipes(self, precision: str) -> Sequence[Recipe]:
        """What to try, in order, until one passes the gate; one entry for the exact precisions."""

    def export(self, source: ExportSource, precision: str, recipe: Recipe, folder: Path) -> ExportResult:
        """Write the variant's files into the empty ``folder``."""

    def load(self, folder: Path, variant: Variant, *, outputs: Sequence[Output], threads: int, streams: int) -> Session:
        """Load what ``export`` wrote: a model of ``outputs``, in that order; ``streams`` runs share the ``threads``."""
