"""Which rows leave together, and when: pure decisions over a queue, with the clock passed in by ``scheduler``.

Rows of similar length wait in one class: a bucket where shapes are static, else lengths within an eighth of an
octave, so that little is padded. Each class is first come, first served. Requests that must be alone in a worker
(suspects) have a line of their own, and leave when none that came before them still waits.
"""

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, TypeVar

from neuronbert.backends.base import ThroughputPlan
from neuronbert.runner.requests import WHOLE_BATCH, Request

# Reasons for a batch to leave, counted in the runner's statistics.
FULL, WAITED, IDLE, WHOLE, SUSPECT = "full", "waited", "idle", "whole", "suspect"
REASONS = (FULL, WAITED, IDLE, WHOLE, SUSPECT)

# A dynamic batch may also take rows that are a little shorter than its class: a quarter of padding at most.
SHORTEST_BESIDE = 0.75

MOST_STALE = 1024  # rows of dropped requests that may stand in the lines, before others are more

LONGEST_ROW = 512  # tokens of most models' longest window: a batch size that was asked for holds for it too


class QueuedRow(NamedTuple):
    """One row of a request, in the queue since the request's ``since``."""

    request: Request
    row_index: int  # among the request's rows, or WHOLE_BATCH
    length: int  # in tokens; 0 of what goes as it is


class NextBatch(NamedTuple):
    """Rows that leave together, and why now."""

    rows: List[QueuedRow]
    reason: str

    @property
    def row_count(self) -> int:
        """Rows for the model, entries of a block: those that go as they are, are one QueuedRow."""
        first = self.rows[0]
        return first.request.size if first.row_index == WHOLE_BATCH else len(self.rows)


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
    is_block: bool = False  # the worker makes batches of it
    reduced_rows: Sequence[int] = ()  # numbers of the rows of whose outputs the worker sends what is wanted
    began: Optional[float] = None  # when the worker had a stream for it, or last told of it; None: it waits there

    def distinct_requests(self) -> List[Request]:
        """The requests that have rows in it, in order."""
        return list({id(row.request): row.request for row in self.rows}.values())

    def open_requests(self) -> List[Request]:
        """Those of them that have no outcome yet."""
        return [request for request in self.distinct_requests() if not request.over]


Item = TypeVar("Item")


class Batcher:
    """The queue. ``plan`` gives the rows and tokens of a batch, and the buckets if there are any."""

    def __init__(self, plan: ThroughputPlan):
        self.plan = plan
        self._classes: Dict[int, Deque[QueuedRow]] = {}
        self._whole: Deque[Request] = deque()  # leave as they are, in a batch of their own
        self._suspects: Dict[int, Request] = {}  # by number
        self._stale = 0  # rows in a line at most, of requests that are dropped

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits. What was taken or dropped a moment ago may still count."""
        return not (self._classes or self._whole or self._suspects)

    # ---- in

    def add(self, request: Request) -> None:
        """Queue all of a request, behind what came before it."""
        if request.whole is not None:
            self._whole.append(request)
            return
        for index in sorted(request.waiting):
            row = self._row(request, index)
            self._classes.setdefault(self.class_of(row.length), deque()).append(row)

    def add_again(self, request: Request, rows: Sequence[int]) -> None:
        """Queue ``rows`` that left and came to no result, or are read after others: by the request's ``since``."""
        request.waiting.update(rows)
        if request.alone:
            self._suspects[request.id] = request
        elif request.whole is not None:
            _insert(self._whole, request, request.since, lambda other: other.since)
        else:
            for index in reversed(rows):
                row = self._row(request, index)
                waiting = self._classes.setdefault(self.class_of(row.length), deque())
                _insert(waiting, row, request.since, lambda other: other.request.since)

    def drop(self, request: Request) -> None:
        """Forget the request's rows; those that are still in a line are skipped when their turn comes."""
        self._suspects.pop(request.id, None)
        self._stale += len(request.waiting)
        request.waiting.clear()
        if self._stale > MOST_STALE and 2 * self._stale > self._standing():
            self._clean()

    def _standing(self) -> int:
        return len(self._whole) + sum(map(len, self._classes.values()))

    def _clean(self) -> None:
        """Take out what is dropped: while no worker can take anything, more and more may come and go."""
        for key, line in self._classes.items():
            self._classes[key] = deque(row for row in line if not _is_out_of_line(row.request))
        self._whole = deque(request for request in self._whole if not _is_out_of_line(request))
        self._stale = 0

    @staticmethod
    def _row(request: Request, index: int) -> QueuedRow:
        return QueuedRow(request, index, len(request.rows[index].input_ids))

    # ---- sizes

    def class_of(self, length: int) -> int:
        """The upper bound, in tokens, of the class that ``length`` belongs to."""
        if self.plan.lengths:
            return self.plan.lengths[min(bisect_left(self.plan.lengths, length), len(self.plan.lengths) - 1)]
        step = 1 << max(0, max(length, 1).bit_length() - 4)  # an eighth of the octave that it lies in
        return -(-length // step) * step

    def capacity(self, length: int) -> int:
        """Rows in a full batch of ``length`` tokens."""
        return max(1, min(self.plan.rows, self.plan.tokens // max(length, 1)))

    # ---- out

    def take(self, now: float, idle: bool, wait_s: float) -> Optional[NextBatch]:
        """The next batch, or None while it is better to wait for more rows. ``idle``: a worker has nothing to do.

        Never of a suspect: those are taken with ``next_suspect`` and ``take_suspect``.
        """
        heads = sorted(self._heads(), key=lambda head: head[0].request.since)
        whole = self._first_whole()
        if whole is not None and (not heads or whole.since <= heads[0][0].request.since):
            return self._leave_whole(self._whole.popleft(), WHOLE)
        for head, key in heads:
            reason = self._reason(head, key, now, idle, wait_s)
            if reason is not None:
                return NextBatch(self._collect(key), reason)
        return None

    def due_in(self, now: float, wait_s: float) -> Optional[float]:
        """Seconds until the oldest row has waited ``wait_s``; None when nothing waits."""
        oldest = min((head.request.since for head, _ in self._heads()), default=None)
        return None if oldest is None else max(0.0, oldest + wait_s - now)

    def next_suspect(self) -> Optional[Request]:
        """The suspect whose turn it is; None while others wait that came before it, or where there is none."""
        if not self._suspects:
            return None
        suspect = min(self._suspects.values(), key=lambda request: (request.since, request.id))
        others = [head.request.since for head, _ in self._heads()]
        whole = self._first_whole()
        if whole is not None:
            others.append(whole.since)
        return suspect if suspect.since <= min(others, default=suspect.since) else None

    def take_suspect(self, request: Request) -> Optional[NextBatch]:
        """The next batch of a suspect's rows; None when none of them waits."""
        if not request.waiting:
            return None
        if request.whole is not None:
            return self._leave_whole(request, SUSPECT)
        rows = [self._row(request, index) for index in sorted(request.waiting)]
        batch = rows[: self.capacity(max(row.length for row in rows))]
        request.waiting.difference_update(row.row_index for row in batch)
        if not request.waiting:
            del self._suspects[request.id]
        return NextBatch(batch, SUSPECT)

    def _reason(self, head: QueuedRow, key: int, now: float, idle: bool, wait_s: float) -> Optional[str]:
        if len(self._classes[key]) >= self.capacity(key):
            return FULL
        if now - head.request.since >= wait_s:
            return WAITED
        return IDLE if idle else None

    def _heads(self) -> Iterator[Tuple[QueuedRow, int]]:
        """The oldest row of every class that may leave with others, and the class."""
        for key in list(self._classes):
            waiting = self._classes[key]
            while waiting and _is_out_of_line(waiting[0].request):
                waiting.popleft()
            if waiting:
                yield waiting[0], key
            else:
                del self._classes[key]

    def _first_whole(self) -> Optional[Request]:
        while self._whole and _is_out_of_line(self._whole[0]):
            self._whole.popleft()
        return self._whole[0] if self._whole else None

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
            if not _is_out_of_line(row.request):
                row.request.waiting.remove(row.row_index)
                rows.append(row)
        return rows

    def _leave_whole(self, request: Request, reason: str) -> NextBatch:
        self.drop(request)
        return NextBatch([QueuedRow(request, WHOLE_BATCH, 0)], reason)


def _is_out_of_line(request: Request) -> bool:
    """Whether its rows are passed over: it has its outcome, or became a suspect while they waited."""
    return request.over or request.alone


def _insert(line: Deque[Item], item: Item, since: float, since_of: Callable[[Item], float]) -> None:
    """Put ``item`` before the first that came later. Near the front, for it has left before."""
    earlier: List[Item] = []
    while line and since_of(line[0]) < since:
        earlier.append(line.popleft())
    line.appendleft(item)
    line.extendleft(reversed(earlier))


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
