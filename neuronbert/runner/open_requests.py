"""Every accepted request until its one outcome: queued, retried, finished, failed or dropped. Runner's thread only.

``scheduler`` takes rows from the queue that this module fills; ``worker_pool`` says which batches were lost, and
``suspicion`` what follows from it.
"""

from collections import deque
from functools import partial
from typing import Deque, Dict, Optional, Sequence

from neuronbert.errors import DeadlineExceeded, NeuronBertError, PoisonRequest, in_words
from neuronbert.runner.batching import Batcher, BatchInFlight, NextBatch
from neuronbert.runner.counters import Statistics
from neuronbert.runner.deadlines import Deadlines
from neuronbert.runner.decoding import Decoder, Order
from neuronbert.runner.events import Report, traceback_text
from neuronbert.runner.inbox import Decoded
from neuronbert.runner.losses import losses
from neuronbert.runner.requests import Answered, MoreRows, Request, now_s
from neuronbert.runner.suspicion import Doer


class OpenRequests:
    """The requests without an outcome, their queue and their deadlines."""

    def __init__(self, statistics: Statistics, report: Report, decoder: Decoder):
        self.queue: Optional[Batcher] = None  # until a worker has said how large its batches are
        self._statistics = statistics
        self._report = report
        self._by_id: Dict[int, Request] = {}
        self._deadlines = Deadlines()
        self._decoder = decoder
        self._at_decoder: Optional[Request] = None
        self._undecoded: Deque[Request] = deque()  # behind it; their rows count as waiting, so that they cannot pile up

    def __len__(self) -> int:
        return len(self._by_id)

    # ---- into the queue

    def accept(self, request: Request) -> None:
        """Queue a request that was let in."""
        self._by_id[request.id] = request
        self._statistics.unread_rows += request.unread
        if request.future.cancelled():
            self.cancel(request)
            return
        self._deadlines.add(request)
        assert self.queue is not None
        self.queue.add(request)

    def try_again(self, request: Request, rows: Sequence[int]) -> None:
        """Queue ``rows`` of a request that was let in before: again, or beside those that were read."""
        if request.over:
            return
        if request.deadline <= now_s():
            self._drop_late(request)
            return
        self._deadlines.add(request)
        assert self.queue is not None
        before, unread = request.queued, request.unread
        if request.whole is None:
            request.asked.update(rows)
        self.queue.add_again(request, rows)
        self._statistics.unread_rows += request.unread - unread
        self._statistics.room.come_back(request.queued - before)

    def lost(self, batches: Sequence[BatchInFlight], running: int, doer: Doer) -> None:
        """A worker died with ``batches``, oldest first; it had begun with ``running`` of them."""
        for loss in losses(batches, 0 if doer is Doer.RUNNER else running):
            request = loss.request
            request.deaths += loss.is_suspect
            request.alone = request.alone or loss.is_suspect
            if loss.was_alone:
                request.blame = request.blame.plus(doer)
                # What kills one worker after the other must not keep everybody else waiting.
                request.since = now_s()
            if request.blame.is_proof:
                self._statistics.count("poisoned")
                self._report("poison", request=request.id, deaths=request.deaths)
                self.fail(request, _poison(request))
            else:
                self._statistics.count("retried")
                self.try_again(request, loss.rows)

    # ---- out of the queue

    def left_queue(self, batch: NextBatch) -> None:
        """Give the room that the rows of ``batch`` had in the queue to others."""
        self._statistics.room.leave(batch.row_count)

    # ---- deadlines

    @property
    def next_deadline(self) -> Optional[float]:
        """The earliest deadline; None when no request has one."""
        return self._deadlines.next

    def expire(self, latest: float) -> None:
        """Drop what is due by ``latest``, before it takes room in a batch. What is with workers whole is waited for."""
        for request in self._deadlines.due(latest):
            if request.waiting:
                self._drop_late(request)

    def _drop_late(self, request: Request) -> None:
        self._statistics.count("expired")
        waited_s = now_s() - request.submitted
        self.fail(
            request,
            DeadlineExceeded(
                f"request {request.id} could not be answered within its {request.deadline - request.submitted:.3g} s "
                f"(after {waited_s:.3g} s it was dropped before it cost {'more ' if request.sent_first else ''}"
                "device time)",
                hint="a longer timeout_s, fewer requests at once, or more workers",
            ),
        )

    # ---- outcomes

    def finish(self, request: Request) -> None:
        """All its rows are answered: its future gets the result, at once or once it is ``decoded``."""
        if not request.is_slow_to_decode:
            self._deliver(Order.of(request).decoded())
        elif self._at_decoder is None:
            self._begin_decoding(request)
        else:
            before = request.queued
            request.awaits_decoding = True
            self._statistics.room.come_back(request.queued - before)
            self._undecoded.append(request)

    def finish_with(self, request: Request, result: object) -> None:
        """Its future gets the result that a worker made."""
        self._deliver(Decoded(request, result, None, 0.0))

    def decoded(self, done: Decoded) -> None:
        """The decoder has made a result: it is delivered, and the next one begun."""
        self._at_decoder = None
        while self._undecoded and self._at_decoder is None:
            request = self._undecoded.popleft()
            if not request.over:
                before = request.queued
                request.awaits_decoding = False
                self._statistics.room.leave(before - request.queued)
                self._begin_decoding(request)
        self._deliver(done)

    def _begin_decoding(self, request: Request) -> None:
        self._at_decoder = request
        self._decoder.begin(request)

    def _deliver(self, made: Decoded) -> None:
        request, result = made.request, made.result
        if made.error is not None:
            self.fail(request, made.error)
            return
        if request.over:  # failed while its result was made
            return
        if isinstance(result, MoreRows):
            self.try_again(request, result.numbers)
            return
        done = now_s()
        self._statistics.request_done(done - request.submitted)
        if request.wants_breakdown:
            result = Answered(result, request.breakdown(done, made.decode_s))
        self._close(request)
        request.future.deliver(result, partial(self._callback_raised, request))

    def fail(self, request: Request, error: BaseException) -> None:
        """Its future gets ``error``, unless it has its outcome already."""
        if request.over:
            return
        self._statistics.count("failed")
        self._close(request)
        if request.future.begin():
            request.future.deliver_error(error, partial(self._callback_raised, request))

    def _callback_raised(self, request: Request, error: BaseException) -> None:
        why = in_words(error)
        self._report("callback_raised", request=request.id, why=why, traceback=traceback_text(error))

    def fail_all(self, error: NeuronBertError) -> int:
        """Fail every open request; returns how many there were."""
        requests = list(self._by_id.values())
        for request in requests:
            self.fail(request, error.again())
        return len(requests)

    def cancel(self, request: Request) -> None:
        """Its future was cancelled before its rows were with a worker."""
        if not request.over:
            self._statistics.count("cancelled")
            self._close(request)
            request.future.begin()  # tells those that wait for it

    def _close(self, request: Request) -> None:
        request.over = True
        self._statistics.room.leave(request.queued)
        if self._by_id.pop(request.id, None) is not None:
            self._statistics.unread_rows -= request.unread
        if self.queue is not None:
            self.queue.drop(request)
        request.forget()


def _poison(request: Request) -> NeuronBertError:
    return PoisonRequest(
        f"request {request.id} was with {request.deaths} workers when they died, at last with nothing else beside it, "
        "and is not tried again",
        hint="look at its text; the events of the runner say how the workers died",
    )
