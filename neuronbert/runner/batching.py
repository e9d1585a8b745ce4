"""Which rows leave together, and when: pure decisions over a queue, with the clock passed in.

Rows of similar length wait in one class: a bucket where shapes are static, else lengths within an eighth of an
octave, so that little is padded. Each class is first come, first served.
"""

import math
from bisect import bisect_left
from collections import deque
from typing import Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple

from neuronbert.backends.base import ThroughputPlan
from neuronbert.runner.requests import Request

# Reasons for a batch to leave, counted in the runner's statistics.
FULL, WAITED, IDLE, WHOLE, SUSPECT = "full", "waited", "idle", "whole", "suspect"
REASONS = (FULL, WAITED, IDLE, WHOLE, SUSPECT)

# A dynamic batch may also take rows that are a little shorter than its class: a quarter of padding at most.
SHORTEST_BESIDE = 0.75


WHOLE_BATCH = -1  # in place of a row's number: all of the request's batch


class Item(NamedTuple):
    """One row of a request, in the queue since ``since``."""

    request: Request
    row: int
    length: int
    since: float


class Leaving(NamedTuple):
    """Rows that go together, and why now."""

    items: List[Item]
    reason: str


class Batcher:
    """The queue. ``plan`` gives the rows and tokens of a batch, and the buckets where there are any."""

    def __init__(self, plan: ThroughputPlan):
        self.plan = plan
        self.rows = 0  # that wait
        self._classes: Dict[int, Deque[Item]] = {}
        self._whole: Deque[Request] = deque()  # leave as they are, in a batch of their own
        self._suspects: Deque[List[Item]] = deque()  # of one request each

    def add(self, request: Request, now: float, missing: Optional[List[int]] = None) -> None:
        """Queue a request, or again the ``missing`` rows of one that lost its worker: those go to the front."""
        if request.alone and request.batch is None:
            numbers = list(range(len(request.rows))) if missing is None else missing
            self._suspects.extend(self._cut(request, numbers, now))
            added = len(numbers)
        elif request.batch is not None:
            (self._whole.appendleft if missing is not None else self._whole.append)(request)
            added = request.size
        else:
            numbers = list(range(len(request.rows))) if missing is None else missing
            for row in numbers:
                length = len(request.rows[row].input_ids)
                waiting = self._classes.setdefault(self.class_of(length), deque())
                item = Item(request, row, length, now)
                (waiting.append if missing is None else waiting.appendleft)(item)
            added = len(numbers)
        # Of a request that comes back others may never have left.
        request.queued += added
        self.rows += added

    def drop(self, request: Request) -> None:
        """Its rows no longer count; those still queued are passed over when their turn comes."""
        self.rows -= request.queued
        request.queued = 0

    def class_of(self, length: int) -> int:
        """The longest length of the class that ``length`` belongs to, in tokens."""
        if self.plan.lengths:
            return self.plan.lengths[min(bisect_left(self.plan.lengths, length), len(self.plan.lengths) - 1)]
        step = max(1, 2 ** (max(length, 1).bit_length() - 4))  # an eighth of the octave that it lies in
        return -(-length // step) * step

    def capacity(self, length: int) -> int:
        """Rows in a full batch of ``length`` tokens."""
        return max(1, min(self.plan.rows, self.plan.tokens // max(length, 1)))

    def take(self, now: float, idle: bool, wait_s: float) -> Optional[Leaving]:
        """The next batch, or None while it is better to wait for more rows. ``idle``: a worker has nothing to do."""
        while idle and self._suspects:
            items = self._suspects.popleft()
            if not items[0].request.over:
                items[0].request.queued -= len(items)
                self.rows -= len(items)
                return Leaving(items, SUSPECT)
        while self._whole and self._whole[0].over:
            self._whole.popleft()
        heads = sorted(self._heads(), key=lambda head: head[0].since)
        if self._whole and (not heads or self._whole[0].accepted <= heads[0][0].since):
            return self._leave_whole(self._whole.popleft())
        for head, key in heads:
            reason = self._reason(head, key, now, idle, wait_s)
            if reason is not None:
                return Leaving(self._collect(key), reason)
        return None

    def due_in(self, now: float, wait_s: float) -> Optional[float]:
        """Seconds until the oldest row has waited ``wait_s``; None when nothing waits."""
        oldest = min((head.since for head, _ in self._heads()), default=None)
        return None if oldest is None else max(0.0, oldest + wait_s - now)

    def _reason(self, head: Item, key: int, now: float, idle: bool, wait_s: float) -> Optional[str]:
        if len(self._classes[key]) >= self.capacity(key):
            return FULL
        if now - head.since >= wait_s:
            return WAITED
        return IDLE if idle else None

    def _heads(self) -> Iterator[Tuple[Item, int]]:
        """The oldest row of every class that still has an asker, and the class."""
        for key in list(self._classes):
            waiting = self._classes[key]
            while waiting and waiting[0].request.over:
                waiting.popleft()
            if waiting:
                yield waiting[0], key
            else:
                del self._classes[key]

    def _collect(self, key: int) -> List[Item]:
        """Up to a batch of the class's rows; where shapes are dynamic, filled with somewhat shorter ones."""
        room = self.capacity(key)
        items = self._pop(key, room)
        if not self.plan.lengths:
            shorter = sorted((one for one in self._classes if key * SHORTEST_BESIDE <= one < key), reverse=True)
            for one in shorter:
                items += self._pop(one, room - len(items))
        return items

    def _pop(self, key: int, count: int) -> List[Item]:
        items: List[Item] = []
        waiting = self._classes[key]
        while waiting and len(items) < count:
            item = waiting.popleft()
            if not item.request.over:
                item.request.queued -= 1
                self.rows -= 1
                items.append(item)
        return items

    def _leave_whole(self, request: Request) -> Leaving:
        assert request.batch is not None
        self.drop(request)
        return Leaving([Item(request, WHOLE_BATCH, request.batch.input_ids.shape[1], request.accepted)], WHOLE)

    def _cut(self, request: Request, numbers: List[int], now: float) -> Iterator[List[Item]]:
        """A suspect's rows as batches of their own."""
        items = [Item(request, row, len(request.rows[row].input_ids), now) for row in numbers]
        rows = self.capacity(max(item.length for item in items))
        return (items[first : first + rows] for first in range(0, len(items), rows))


def adaptive_wait_s(max_wait_s: float, service_s: Optional[float]) -> float:
    """How long a row waits for company while every worker is busy: half of what a batch takes, ``max_wait_s`` at most.

    A batch that waits less than the one before it runs costs nothing; one that came at a random moment finds half of
    that left on average.
    """
    return max_wait_s if service_s is None else min(max_wait_s, service_s / 2)


def fill_of(rows: int, capacity: int) -> float:
    """Share of a batch's rows that are somebody's."""
    return min(1.0, rows / capacity)


def padding_of(lengths: List[int], width: int, rows: int) -> float:
    """Share of the tokens computed, ``rows`` of ``width``, that are nobody's."""
    computed = rows * width
    return 0.0 if not computed else max(0.0, 1.0 - math.fsum(lengths) / computed)
