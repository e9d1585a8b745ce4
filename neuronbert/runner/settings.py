"""What the runner's thread is told when it is made: ``Runner`` fills it in, ``dispatcher`` and its parts read it."""

from dataclasses import dataclass
from typing import Optional, Sequence

from neuronbert.backends.outputs import Output
from neuronbert.runner.messages import LoadOrder
from neuronbert.runner.supervision import WorkerPlace


@dataclass(frozen=True)
class Settings:
    """What every worker loads and where it runs, the size of its batches, and how long things may take."""

    artifact: str
    variant: Optional[str]
    streams: Optional[int]  # of each worker's engine; None: as its cores allow
    places: Sequence[WorkerPlace]
    in_flight: Optional[int]  # batches that a worker holds; None: one more than it runs at once
    batch_size: Optional[int]  # rows at most, where shapes are dynamic; None: as the backend runs fastest
    max_wait_s: float
    hang_timeout_s: float
    start_timeout_s: float
    pad_id: int
    outputs: Sequence[Output]  # of the model, in order

    def load_order(self, place: WorkerPlace) -> LoadOrder:
        """The first message to the worker at ``place``."""
        return LoadOrder(self.artifact, self.variant, self.streams, place.threads, place.cpus)
