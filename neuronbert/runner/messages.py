"""What the runner and its workers say to each other, a type for each message; ``frames`` carries them."""

from typing import List, NamedTuple, Optional, Union

from neuronbert.artifact.signatures import PublicKey
from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import Outputs
from neuronbert.errors import NeuronBertError

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
    """Run this batch."""

    number: int
    batch: Batch


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
    """The result of a batch: the model's outputs, as wide as the batch."""

    number: int
    outputs: Outputs
    device_s: float


class BatchFailed(NamedTuple):
    """The session raised; the worker goes on."""

    number: int
    error: NeuronBertError


ToWorker = Union[LoadOrder, BatchOrder]
FromWorker = Union[WorkerReady, LoadFailed, BatchDone, BatchFailed]
