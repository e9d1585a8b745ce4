"""Which request is due next (pure): ``open_requests`` drops those whose deadline has passed."""

import heapq
import itertools
import math
from typing import Iterator, List, Optional, Tuple

from neuronbert.runner.requests import Request

FEWEST = 64  # entries that are kept without a look at whether anybody still needs them


class Deadlines:
    """Open requests by deadline. Those that have their outcome are forgotten soon: a deadline may be hours away."""

    def __init__(self) -> None:
        self._heap: List[Tuple[float, int, Request]] = []  # the number keeps equal ones in order
        self._order = itertools.count()
        self._most = FEWEST  # entries, before the next look

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next(self) -> Optional[float]:
        """The earliest deadline; None when no open request has one."""
        while self._heap and self._heap[0][2].over:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def add(self, request: Request) -> None:
        """Watch the request's deadline, if it has one."""
        if request.deadline == math.inf:
            return
        if len(self._heap) >= self._most:
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapq.heapify(self._heap)
            self._most = max(FEWEST, 2 * len(self._heap))
        heapq.heappush(self._heap, (request.deadline, next(self._order), request))

    def due(self, latest: float) -> Iterator[Request]:
        """Take those out that are due by ``latest``."""
        while self._heap and self._heap[0][0] <= latest:
            request = heapq.heappop(self._heap)[2]
            if not request.over:
                yield request
