"""What the runner and its workers say to each other, a type for each message; ``frames`` carries them."""

from typing import TYPE_CHECKING, List, NamedTuple, Optional, Union

import numpy as np

from neuronbert.artifact.signatures import PublicKey
from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import Outputs
from neuronbert.errors import NeuronBertError

if TYPE_CHECKING:  # a worker imports what an engine needs while it loads, and can then say what is missing
    from neuronbert.runner.blocks import Block, Part

# ---------------------------------------------------------------------- to a worker


class LoadOrder(NamedTuple):
    """The first message: what to load, and on what."""

    artifact: str
    digest: str  # of the manifest that the runner has: the worker takes no other artifact
    signed_by: Optional[PublicKey]  # the trusted key with which the runner verified it
    variant: Optional[str]
    streams: Optional[int]
    threads: int
    cpus: Optional[List[int]]  # to which the process is pinned; None: as it was started


class BatchOrder(NamedTuple):
    """Run this batch. Of some rows only what is ``wanted`` of their outputs is sent (tasks/base.py, Reduction)."""

    number: int
    batch: Batch
    # Of each of those rows, in order, its number in the batch, and what is wanted: int64, shape [rows, 1 + numbers].
    # None: there is no such row.
    wanted: Optional[np.ndarray] = None

    @property
    def reduced_rows(self) -> List[int]:
        """The numbers of those rows."""
        return [] if self.wanted is None else self.wanted[:, 0].tolist()


class BlockOrder(NamedTuple):
    """Answer these entries of a job, in batches of your own."""

    number: int
    block: "Block"


# ---------------------------------------------------------------------- from a worker


class WorkerReady(NamedTuple):
    """Its answer to the LoadOrder: the engine is loaded and tested."""

    pid: int
    variant: str
    plan: ThroughputPlan
    concurrency: int  # batches that it runs at once
    parallel: int  # batches that make progress at once
    load_s: float


class LoadFailed(NamedTuple):
    """Its other answer to the LoadOrder; the process ends."""

    error: NeuronBertError


class BatchDone(NamedTuple):
    """The result of a batch: the model's outputs, as wide as the batch, and what was wanted of other rows.

    Each of its rows in order: of those in the order's ``wanted``, and of the rest, where there are such.
    """

    number: int
    outputs: Outputs
    device_s: float


class BlockStep(NamedTuple):
    """One batch of a block is done: the worker is alive, and this is what it did."""

    number: int  # of the block
    rows: int
    width: int  # tokens of each, with padding
    tokens: int  # that count
    device_s: float
    share: float  # of the block's rows that are done


class BlockDone(NamedTuple):
    """The block's part of the output."""

    number: int
    part: "Part"


class BatchFailed(NamedTuple):
    """The session raised, or a block cannot be answered as a whole; the worker goes on."""

    number: int
    error: NeuronBertError


ToWorker = Union[LoadOrder, BatchOrder, BlockOrder]
FromWorker = Union[WorkerReady, LoadFailed, BatchDone, BlockStep, BlockDone, BatchFailed]
