"""Every accepted request until its one outcome: queued, retried, finished, failed or dropped. Runner's thread only.

``scheduler`` takes rows from the queue that this module fills; ``worker_pool`` says which batches were lost.
"""

import heapq
import itertools
import math
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from neuronbert.errors import DeadlineExceeded, NeuronBertError, PoisonRequest
from neuronbert.runner.batching import Batcher, BatchInFlight
from neuronbert.runner.counters import Statistics
from neuronbert.runner.events import Report, traceback_text
from neuronbert.runner.requests import Answered, Request, now_s

MAX_DEATHS = 2  # of workers, with one request


class OpenRequests:
    """The requests without an outcome, their queue and their deadlines."""

    def __init__(self, statistics: Statistics, report: Report):
        self.queue: Optional[Batcher] = None  # until a worker has said how large its batches are
        self._statistics = statistics
        self._report = report
        self._by_id: Dict[int, Request] = {}
        self._deadlines: List[Tuple[float, int, Request]] = []  # a heap; the number keeps equal ones in order
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._by_id)

    # ---- into the queue

    def accept(self, request: Request) -> None:
        """Queue a request that was let in."""
        self._by_id[request.id] = request
        if request.future.cancelled():
            self.cancel(request)
            return
        self._enqueue(request, request.accepted)

    def try_again(self, request: Request, batch: BatchInFlight) -> None:
        """Queue again the rows that went in ``batch``, which came to no result."""
        if request.over:
            return
        now = now_s()
        if request.deadline <= now:
            self._drop_late(request)
            return
        self._enqueue(request, now, missing=[row.row_index for row in batch.rows if row.request is request])

    def lost(self, batches: Sequence[BatchInFlight], running: int) -> None:
        """A worker died with ``batches``. Only the first ``running`` are suspected; the others had not begun."""
        for position, batch in enumerate(batches):
            for request in batch.open_requests():
                if position < running:
                    request.deaths += 1
                    request.alone = True
                if request.deaths >= MAX_DEATHS:
                    self._statistics.count("poisoned")
                    self._report("poison", request=request.id, deaths=request.deaths)
                    self.fail(request, _poison(request))
                else:
                    self._statistics.count("retried")
                    self.try_again(request, batch)

    def _enqueue(self, request: Request, now: float, missing: Optional[List[int]] = None) -> None:
        if request.deadline < math.inf:
            heapq.heappush(self._deadlines, (request.deadline, next(self._order), request))
        assert self.queue is not None
        self.queue.add(request, now, missing)

    # ---- deadlines

    @property
    def next_deadline(self) -> Optional[float]:
        """The earliest deadline; None when no request has one."""
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self, latest: float) -> None:
        """Drop what is due by ``latest``, before it takes room in a batch. Rows with a worker are waited for."""
        while self._deadlines and self._deadlines[0][0] <= latest:
            request = heapq.heappop(self._deadlines)[2]
            if not request.over and request.queued == request.size:  # none of it is with a worker
                self._drop_late(request)

    def _drop_late(self, request: Request) -> None:
        self._statistics.count("expired")
        waited_s = now_s() - request.submitted
        self.fail(
            request,
            DeadlineExceeded(
                f"request {request.id} could not be answered within its {request.deadline - request.submitted:.3g} s "
                f"(after {waited_s:.3g} s it was dropped before it cost device time)",
                hint="a longer timeout_s, fewer requests at once, or more workers",
            ),
        )

    # ---- outcomes

    def finish(self, request: Request) -> None:
        """All its rows are answered: its future gets the result."""
        began = now_s()
        try:
            result = request.finish([outputs for outputs in request.outputs if outputs is not None])
        except Exception as error:
            self.fail(request, error)
            return
        done = now_s()
        self._statistics.request_done(done - request.submitted)
        if request.wants_breakdown:
            result = Answered(result, request.breakdown(done, done - began))
        self._close(request)
        self._deliver(request, lambda: request.future.set_result(result))

    def fail(self, request: Request, error: BaseException) -> None:
        """Its future gets ``error``, unless it has its outcome already."""
        if request.over:
            return
        self._statistics.count("failed")
        self._close(request)
        if request.future.running() or request.future.set_running_or_notify_cancel():
            self._deliver(request, lambda: request.future.set_exception(error))

    def _deliver(self, request: Request, give: Callable[[], None]) -> None:
        def report(error: BaseException) -> None:
            why = f"{type(error).__name__}: {error}"
            self._report("callback_raised", request=request.id, why=why, traceback=traceback_text(error))

        request.future.deliver(give, report)

    def fail_all(self, error: NeuronBertError) -> int:
        """Fail every open request; returns how many there were."""
        requests = list(self._by_id.values())
        for request in requests:
            self.fail(request, error)
        return len(requests)

    def cancel(self, request: Request) -> None:
        """Its future was cancelled before its rows were with a worker."""
        if not request.over:
            self._statistics.count("cancelled")
            self._close(request)

    def leave_queue(self, request: Request) -> None:
        """Give the room that it had in the queue to others."""
        if request.admitted:
            request.admitted = False
            self._statistics.left_queue(request)

    def _close(self, request: Request) -> None:
        request.over = True
        self.leave_queue(request)
        self._by_id.pop(request.id, None)
        if self.queue is not None:
            self.queue.drop(request)
        request.forget()


def _poison(request: Request) -> NeuronBertError:
    return PoisonRequest(
        f"request {request.id} was with {request.deaths} workers when they died, and is not tried again",
        hint="look at its text; the events of the runner say how the workers died",
    )
