"""What the runner counts. Its thread writes; others read snapshots. ``room`` counts the rows that wait."""

import threading
from collections import Counter, deque
from typing import Deque, Optional

from neuronbert.runner.batching import REASONS
from neuronbert.runner.documents import Snapshot
from neuronbert.runner.room import Room

# Weight of the newest measurement in a moving average: some ten batches are remembered.
SMOOTHING = 0.1
RECENT = 1000  # latencies that are kept
MARGIN = (0.05, 0.25)  # bounds of what is added to the mean round trip, as shares of that mean
LONGEST = 4.0  # times the mean: the most that one batch counts for

COUNTS = (
    "submitted",
    "completed",
    "failed",
    "refused",
    "expired",
    "cancelled",
    "poisoned",
    "retried",
    "deaths",
    "restarts",
)


class RoundTrip:
    """A batch's time from leaving the queue to its answers, and how much that varies, as TCP does (RFC 6298)."""

    def __init__(self) -> None:
        self._mean_s: Optional[float] = None
        self._deviation_s = 0.0

    def add(self, measured_s: float) -> None:
        """Add one batch. A single very long one (a slow callback, a stopped process) does not set a new pace."""
        if self._mean_s is None:
            self._mean_s, self._deviation_s = measured_s, measured_s / 2
            return
        measured_s = min(measured_s, LONGEST * self._mean_s)
        self._deviation_s += (abs(measured_s - self._mean_s) - self._deviation_s) / 4
        self._mean_s += (measured_s - self._mean_s) / 8

    @property
    def expected_s(self) -> float:
        """Upper estimate of a round trip: mean plus four deviations, bounded. 0 before anything was measured.

        The bound is there because batches of short and of long texts may differ by more than their mean: without it,
        requests would be refused that might well have been in time.
        """
        if self._mean_s is None:
            return 0.0
        least, most = (share * self._mean_s for share in MARGIN)
        return self._mean_s + min(max(4 * self._deviation_s, least), most)


class Statistics:
    """Counters since the start, moving averages, and what they predict for the rows that wait in ``room``."""

    def __init__(self, max_queue: int):
        self.max_queue = max_queue
        self.room = Room(max_queue)
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self.batches: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.unread_rows = 0  # of those in ``room``: they are held, and nobody has asked for them (yet)
        self.rows = self.capacity = self.tokens = self.computed_tokens = 0
        self.service_s: Optional[float] = None  # of a batch on the device
        self.round_trip = RoundTrip()  # of a batch, its wait for the one that its worker runs included
        self.row_s: Optional[float] = None  # between two rows coming out while others wait
        self.latencies_s: Deque[float] = deque(maxlen=RECENT)
        self._last_done: Optional[float] = None
        self._lock = threading.RLock()  # a signal's handler may submit while this thread does

    # ---- any thread

    def accepted(self, requests: int) -> None:
        """Count requests that were let in."""
        with self._lock:
            self.counts["submitted"] += requests

    def refused(self) -> None:
        """Count a request that was refused, or several that were refused as one."""
        with self._lock:
            self.counts["refused"] += 1

    def would_be_late(self, timeout_s: float, rows: int = 1) -> bool:
        """Whether a request of ``rows`` that came now could only be late.

        Never while nothing waits: then it is tried, for an estimate that keeps everybody out would never be mended.
        """
        waiting = self.waiting_rows
        if not waiting:
            return False
        last_row_s = (waiting + rows - 1) * (self.row_s or 0.0)
        return last_row_s + self.round_trip.expected_s > timeout_s

    def predicted_wait_s(self) -> Optional[float]:
        """How long a row that came now would wait for its turn; None before anything was measured."""
        return None if self.row_s is None else self.waiting_rows * self.row_s

    @property
    def waiting_rows(self) -> int:
        """Rows in ``room`` that a worker is to read."""
        return max(0, self.room.rows - self.unread_rows)

    # ---- the runner's thread

    def count(self, name: str) -> None:
        """Add one to one of ``COUNTS``."""
        self.counts[name] += 1

    def left_queue(self, reason: str) -> None:
        """Count a batch, or a block."""
        self.batches[reason] += 1

    def rows_sent(self, rows: int, capacity: int, tokens: int, computed_tokens: int) -> None:
        """Count the rows of a batch, or those of a block once they are known."""
        self.rows += rows
        self.capacity += capacity
        self.tokens += tokens
        self.computed_tokens += computed_tokens

    def batch_done(self, now: float, rows: int, device_s: float, backlog: bool) -> None:
        """Count a batch that came back; ``backlog``: rows were waiting, so its pace is the fastest possible."""
        self.service_s = _smoothed(self.service_s, device_s)
        pace_s = (device_s if self._last_done is None else now - self._last_done) / rows
        if not self.row_s:
            self.row_s = pace_s
        elif self._last_done is not None:
            # A gap, such as the time without a worker after a death, does not set a new pace.
            self.row_s = _smoothed(self.row_s, min(pace_s, LONGEST * self.row_s))
        self._last_done = now if backlog else None

    def request_done(self, latency_s: float) -> None:
        """Count a request that has its result."""
        self.counts["completed"] += 1
        self.latencies_s.append(latency_s)

    def snapshot(self) -> Snapshot:
        """All counts and averages as plain JSON data."""
        latencies = sorted(self.latencies_s)
        return {
            "queue": {
                "rows": self.room.rows,
                "max_rows": self.max_queue,
                "predicted_wait_s": self.predicted_wait_s(),
            },
            "requests": dict(self.counts),
            "batches": dict(self.batches),
            "rows": self.rows,
            "fill": self.rows / self.capacity if self.capacity else None,
            "padding": 1 - self.tokens / self.computed_tokens if self.computed_tokens else None,
            "batch_service_ms": None if self.service_s is None else self.service_s * 1000,
            "latency_ms": {
                f"p{share}": latencies[min(len(latencies) - 1, len(latencies) * share // 100)] * 1000
                for share in (50, 95, 99)
                if latencies
            },
        }


def _smoothed(before: Optional[float], new: float) -> float:
    return new if before is None else before + SMOOTHING * (new - before)
