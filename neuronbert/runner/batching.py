"""Which rows leave together, and when: pure decisions over a queue, with the clock passed in by ``scheduler``.

Rows of similar length wait in one class: a bucket where shapes are static, else lengths within an eighth of an
octave, so that little is padded. Each class is first come, first served.
"""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple

from neuronbert.backends.base import ThroughputPlan
from neuronbert.runner.requests import Request

# Reasons for a batch to leave, counted in the runner's statistics.
FULL, WAITED, IDLE, WHOLE, SUSPECT = "full", "waited", "idle", "whole", "suspect"
REASONS = (FULL, WAITED, IDLE, WHOLE, SUSPECT)

# A dynamic batch may also take rows that are a little shorter than its class: a quarter of padding at most.
SHORTEST_BESIDE = 0.75

LONGEST_ROW = 512  # tokens of most models' longest window: a batch size that was asked for holds for it too

WHOLE_BATCH = -1  # in place of a row's index: all of the request's batch


class QueuedRow(NamedTuple):
    """One row of a request, in the queue since ``since``."""

    request: Request
    row_index: int  # among the request's rows
    length: int  # in tokens
    since: float


class NextBatch(NamedTuple):
    """Rows that leave together, and why now."""

    rows: List[QueuedRow]
    reason: str


class BatchSize(NamedTuple):
    """What a batch holds and what it costs."""

    row_count: int  # those of a whole batch are one QueuedRow
    capacity: int  # rows that there was room for
    tokens: int  # that count
    computed_tokens: int  # padding included

    @property
    def fill(self) -> float:
        """Share of the rows that belong to a request."""
        return self.row_count / self.capacity

    @property
    def padding(self) -> float:
        """Share of the tokens computed that belong to no request."""
        return max(0.0, 1.0 - self.tokens / self.computed_tokens) if self.computed_tokens else 0.0


@dataclass(eq=False)
class BatchInFlight:
    """A batch that a worker holds."""

    number: int
    rows: List[QueuedRow]
    size: BatchSize
    reason: str
    sent: float

    def distinct_requests(self) -> List[Request]:
        """The requests that have rows in it, in order."""
        return list({id(row.request): row.request for row in self.rows}.values())

    def open_requests(self) -> List[Request]:
        """Those of them that have no outcome yet."""
        return [request for request in self.distinct_requests() if not request.over]


class Batcher:
    """The queue. ``plan`` gives the rows and tokens of a batch, and the buckets if there are any."""

    def __init__(self, plan: ThroughputPlan):
        self.plan = plan
        self.rows = 0  # waiting
        self._classes: Dict[int, Deque[QueuedRow]] = {}
        self._whole: Deque[Request] = deque()  # leave as they are, in a batch of their own
        self._suspects: Deque[List[QueuedRow]] = deque()  # of one request each

    def add(self, request: Request, now: float, missing: Optional[List[int]] = None) -> None:
        """Queue a request, or again the ``missing`` rows of one that lost its worker: those go to the front."""
        if request.alone and request.batch is None:
            indices = list(range(len(request.rows))) if missing is None else missing
            self._suspects.extend(self._cut(request, indices, now))
            added = len(indices)
        elif request.batch is not None:
            (self._whole.appendleft if missing is not None else self._whole.append)(request)
            added = request.size
        else:
            indices = list(range(len(request.rows))) if missing is None else missing
            for index in indices:
                length = len(request.rows[index].input_ids)
                waiting = self._classes.setdefault(self.class_of(length), deque())
                row = QueuedRow(request, index, length, now)
                (waiting.append if missing is None else waiting.appendleft)(row)
            added = len(indices)
        # Added, not set: other rows of a request that comes back may still be in the queue.
        request.queued += added
        self.rows += added

    def drop(self, request: Request) -> None:
        """Stop counting the request's rows; those still queued are skipped when their turn comes."""
        self.rows -= request.queued
        request.queued = 0

    def class_of(self, length: int) -> int:
        """The upper bound, in tokens, of the class that ``length`` belongs to."""
        if self.plan.lengths:
            return self.plan.lengths[min(bisect_left(self.plan.lengths, length), len(self.plan.lengths) - 1)]
        step = 1 << max(0, max(length, 1).bit_length() - 4)  # an eighth of the octave that it lies in
        return -(-length // step) * step

    def capacity(self, length: int) -> int:
        """Rows in a full batch of ``length`` tokens."""
        return max(1, min(self.plan.rows, self.plan.tokens // max(length, 1)))

    def take(self, now: float, idle: bool, wait_s: float) -> Optional[NextBatch]:
        """The next batch, or None while it is better to wait for more rows. ``idle``: a worker has nothing to do."""
        while idle and self._suspects:
            rows = self._suspects.popleft()
            if not rows[0].request.over:
                rows[0].request.queued -= len(rows)
                self.rows -= len(rows)
                return NextBatch(rows, SUSPECT)
        while self._whole and self._whole[0].over:
            self._whole.popleft()
        heads = sorted(self._heads(), key=lambda head: head[0].since)
        if self._whole and (not heads or self._whole[0].accepted <= heads[0][0].since):
            return self._leave_whole(self._whole.popleft())
        for head, key in heads:
            reason = self._reason(head, key, now, idle, wait_s)
            if reason is not None:
                return NextBatch(self._collect(key), reason)
        return None

    def due_in(self, now: float, wait_s: float) -> Optional[float]:
        """Seconds until the oldest row has waited ``wait_s``; None when nothing waits."""
        oldest = min((head.since for head, _ in self._heads()), default=None)
        return None if oldest is None else max(0.0, oldest + wait_s - now)

    def _reason(self, head: QueuedRow, key: int, now: float, idle: bool, wait_s: float) -> Optional[str]:
        if len(self._classes[key]) >= self.capacity(key):
            return FULL
        if now - head.since >= wait_s:
            return WAITED
        return IDLE if idle else None

    def _heads(self) -> Iterator[Tuple[QueuedRow, int]]:
        """The oldest row of every class whose request is still open, and the class."""
        for key in list(self._classes):
            waiting = self._classes[key]
            while waiting and waiting[0].request.over:
                waiting.popleft()
            if waiting:
                yield waiting[0], key
            else:
                del self._classes[key]

    def _collect(self, key: int) -> List[QueuedRow]:
        """Up to a batch of the class's rows; where shapes are dynamic, filled up with slightly shorter ones."""
        room = self.capacity(key)
        rows = self._pop(key, room)
        if not self.plan.lengths:
            least = key * SHORTEST_BESIDE
            shorter = sorted((length for length in self._classes if least <= length < key), reverse=True)
            for length in shorter:
                rows += self._pop(length, room - len(rows))
        return rows

    def _pop(self, key: int, count: int) -> List[QueuedRow]:
        rows: List[QueuedRow] = []
        waiting = self._classes[key]
        while waiting and len(rows) < count:
            row = waiting.popleft()
            if not row.request.over:
                row.request.queued -= 1
                self.rows -= 1
                rows.append(row)
        return rows

    def _leave_whole(self, request: Request) -> NextBatch:
        assert request.batch is not None
        self.drop(request)
        return NextBatch([QueuedRow(request, WHOLE_BATCH, request.batch.input_ids.shape[1], request.accepted)], WHOLE)

    def _cut(self, request: Request, indices: List[int], now: float) -> Iterator[List[QueuedRow]]:
        """A suspect's rows as batches of their own."""
        rows = [QueuedRow(request, index, len(request.rows[index].input_ids), now) for index in indices]
        size = self.capacity(max(row.length for row in rows))
        return (rows[first : first + size] for first in range(0, len(rows), size))


def resized_plan(plan: ThroughputPlan, rows: Optional[int]) -> ThroughputPlan:
    """The plan with batches of ``rows``; static shapes have their own."""
    if rows is None or plan.lengths:
        return plan
    return plan._replace(rows=rows, tokens=rows * max(plan.tokens // plan.rows, LONGEST_ROW))


def adaptive_wait_s(max_wait_s: float, service_s: Optional[float]) -> float:
    """How long a row waits for others while every worker is busy: half a batch's time, ``max_wait_s`` at most.

    Waiting costs nothing while the batch before it still runs, and a row that comes at a random moment finds half of
    that batch left on average.
    """
    return max_wait_s if service_s is None else min(max_wait_s, service_s / 2)
