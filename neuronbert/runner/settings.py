"""What the runner's thread is told when it is made: ``Runner`` fills it in, ``dispatcher`` and its parts read it."""

from dataclasses import dataclass
from typing import Any, Callable, Mapping, NamedTuple, Optional, Sequence

from neuronbert.artifact.manifest import Artifact
from neuronbert.artifact.signatures import PublicKey
from neuronbert.backends.outputs import Output
from neuronbert.errors import above_zero, count_of, not_below_zero, positive
from neuronbert.runner.messages import LoadOrder
from neuronbert.runner.placement import Placement
from neuronbert.runner.supervision import WorkerPlace


@dataclass(frozen=True)
class Limits:
    """The numbers among the options of a Runner, which says what each means; UsageError for one that cannot be."""

    in_flight_per_group: Optional[int]
    batch_size: Optional[int]
    max_queue: int
    max_windows_per_request: int
    max_wait_ms: float
    hang_timeout_s: float
    start_timeout_s: float
    drain_timeout_s: float

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "in_flight_per_group": positive,
    "batch_size": positive,
    "max_queue": count_of,
    "max_windows_per_request": count_of,
    "max_wait_ms": not_below_zero,
    "hang_timeout_s": above_zero,
    "start_timeout_s": above_zero,
    "drain_timeout_s": not_below_zero,
}


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
    busy_wait: bool = False  # idle processors stay awake
    digest: str = ""  # of the artifact's manifest
    signed_by: Optional[PublicKey] = None  # the trusted key of the artifact's signature

    def load_order(self, place: WorkerPlace) -> LoadOrder:
        """The first message to the worker at ``place``."""
        return LoadOrder(
            self.artifact, self.digest, self.signed_by, self.variant, self.streams, place.threads, place.cpus
        )


class RowFormat(NamedTuple):
    """What the artifact's tokenizer and task say of every row: its padding, and the model's outputs, in order.

    reduced: what a worker sends in place of them, of a row of which little is wanted.
    """

    pad_id: int
    outputs: Sequence[Output]
    reduced: Sequence[Output] = ()


def settings_of(
    artifact: Artifact,
    variant: Optional[str],
    placement: Placement,
    limits: Limits,
    busy_wait: bool,
) -> Settings:
    """The settings of a runner with these options."""
    return Settings(
        artifact=str(artifact.folder),
        variant=variant,
        streams=placement.streams,
        places=placement.places,
        in_flight=limits.in_flight_per_group or placement.in_flight,
        batch_size=limits.batch_size,
        max_wait_s=limits.max_wait_ms / 1000,
        hang_timeout_s=limits.hang_timeout_s,
        start_timeout_s=limits.start_timeout_s,
        busy_wait=busy_wait,
        digest=artifact.manifest["digest"],
        signed_by=artifact.signed_by,
    )
