"""What a runner says of itself, as plain JSON data: ``Runner.stats``, and what ``publishing`` makes of it."""

from typing import Dict, List, Optional, TypedDict


class QueueState(TypedDict):
    """The queue, in rows."""

    rows: int
    max_rows: int
    predicted_wait_s: Optional[float]


class WorkerState(TypedDict):
    """One worker, through all its restarts."""

    worker: int
    state: str
    pid: Optional[int]
    cores: str
    in_flight: int  # batches
    rows: int
    batches: int
    device_s: float  # of its batches: their sum, though several run at once
    busy_s: float  # while it held a batch or more: up_s at most
    up_s: float  # while it was ready
    restarts: int
    unable: Optional[str]  # why it last could not start


class Snapshot(TypedDict):
    """Counts since the start and moving averages."""

    queue: QueueState
    requests: Dict[str, int]  # one of counters.COUNTS → how many
    batches: Dict[str, int]  # the reason for which they left → how many
    rows: int
    fill: Optional[float]
    padding: Optional[float]
    batch_service_ms: Optional[float]
    latency_ms: Dict[str, float]  # "p50", "p95", "p99" → value; empty before the first result


class RunnerStatistics(Snapshot):
    """What ``Runner.stats`` gives."""

    emulated: bool
    workers: List[WorkerState]


class Work(TypedDict):
    """What a job that has a runner is doing, in its own unit rather than in requests."""

    unit: str  # "lines"
    done: int
    total: Optional[int]  # None: nobody knows
    skipped: int  # of those that are done: they have an error in place of a result
    kept: int  # what a kill now would not lose
    output: str


class PublishedWorker(WorkerState):
    """A worker with its rates over the last seconds."""

    rows_per_s: Optional[float]
    busy: Optional[float]  # share of the time, from 0 to 1
    batch_ms: Optional[float]  # mean time of a batch on the device


class Reading(TypedDict):
    """What rates are taken from two of."""

    at: float  # Unix time in seconds
    workers: List[WorkerState]


class Rates(TypedDict):
    """What happened between two readings."""

    rows_per_s: Optional[float]
    workers: List[PublishedWorker]


class PublishedRunner(Snapshot):
    """What ``neuronbert top`` reads of one runner."""

    at: float  # Unix time in seconds, as is started_at
    pid: Optional[int]  # None: of a process on another machine
    process_started: Optional[int]  # the kernel's ticks since boot
    artifact: str
    variant: str
    emulated: bool
    started_at: float
    rows_per_s: Optional[float]
    workers: List[PublishedWorker]
    work: Optional[Work]  # of a runner that was made for a job
