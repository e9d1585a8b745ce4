"""Lets requests into the queue or refuses them, in the caller's thread; ``dispatcher`` takes them from there."""

import functools
import os
from concurrent.futures import Future
from typing import Any, List, Optional

from neuronbert.errors import Overloaded, RunnerClosed
from neuronbert.runner.counters import Statistics
from neuronbert.runner.dispatcher import Dispatcher
from neuronbert.runner.futures import forked_from, waits_for_itself
from neuronbert.runner.inbox import Accept, Cancel
from neuronbert.runner.requests import Prepared, Request, now_s
from neuronbert.runner.room import Ticket


class Admission:
    """The door of the runner: open until ``close``."""

    def __init__(self, dispatcher: Dispatcher, statistics: Statistics):
        self._dispatcher = dispatcher
        self._statistics = statistics
        self._closed = False
        self._process = os.getpid()

    def close(self) -> None:
        """Refuse what comes from now on."""
        self._closed = True

    def refuse_elsewhere(self) -> None:
        """Raise RunnerClosed in a process that was forked from the runner's."""
        if self.is_elsewhere:
            raise forked_from(self._process)

    def refuse_to_wait(self) -> None:
        """Raise UsageError in the runner's own thread, where callbacks are called, and as ``refuse_elsewhere`` does."""
        self.refuse_elsewhere()
        if self._dispatcher.is_here():
            raise waits_for_itself()

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process is not the one in which the runner was made."""
        return os.getpid() != self._process

    def refuse_early(self, timeout_s: Optional[float]) -> None:
        """Raise RunnerClosed or Overloaded before any work is spent on a request that cannot be let in."""
        self.refuse_closed()
        if not self._statistics.room.is_open:
            raise self._overloaded("the queue is full")
        if timeout_s is not None and self._statistics.would_be_late(timeout_s):
            raise self._overloaded(f"the queue is too long for timeout_s={timeout_s:.3g}")

    def refuse_closed(self) -> None:
        """Raise RunnerClosed, or what ended the runner."""
        self.refuse_elsewhere()
        broken = self._dispatcher.broken
        if broken is not None:
            raise broken.again()
        if self._closed:
            raise RunnerClosed("this runner is closed, or closing", hint="make a new one, or ask inside its with block")

    def admit(self, prepared: Prepared, wait: bool = False) -> "List[Future[Any]]":
        """Hand all requests to the runner's thread, or raise why none; gives their futures.

        ``wait``: in the line, where the queue is full. Several have one ticket: to the queue they are as one that has
        the rows of all.
        """
        if wait:
            self.refuse_to_wait()
        else:
            self.refuse_elsewhere()
        unable = self._dispatcher.unable
        if unable is not None:
            raise unable
        requests, rows, timeout_s = prepared.take(), prepared.rows, prepared.timeout_s
        if timeout_s is not None:
            for request in requests:
                request.deadline = request.submitted + timeout_s
            read = rows - sum([request.unread for request in requests])
            if requests and self._statistics.would_be_late(requests[0].deadline - now_s(), read):
                raise self._overloaded(f"{read} windows more are too many for timeout_s={timeout_s:.3g}")
        ticket = Ticket(rows)
        try:
            self._enter(ticket, wait)
            accepted = now_s()
            for request in requests:
                request.accepted = request.since = accepted
                request.future.is_runner_here = self._dispatcher.is_here
                request.future.add_done_callback(functools.partial(self._cancelled, request))
            self._statistics.accepted(len(requests))
            self._dispatcher.inbox.put(Accept(requests))
        except Overloaded:
            prepared.give_back(requests)
            raise
        except BaseException:  # Ctrl-C: whoever asked has no futures, whether or not the runner has the requests by now
            for request in requests:
                request.future.cancel()
            if ticket.is_in:
                self._dispatcher.inbox.put(Cancel(requests))
            raise
        finally:
            self._dispatcher.sweep()
        return [request.future for request in requests]

    def _enter(self, ticket: Ticket, wait: bool) -> None:
        room = self._statistics.room
        if not wait and not room.enter(ticket):
            raise self._overloaded("the queue is full")
        if wait and not room.wait_and_enter(ticket, self._has_closed):
            raise RunnerClosed("the runner was closed while this request waited for its place in the queue")

    def _has_closed(self) -> bool:
        return self._closed or self._dispatcher.has_ended

    def _overloaded(self, what: str) -> Overloaded:
        statistics = self._statistics
        statistics.refused()
        wait_s = statistics.predicted_wait_s()
        wait = "" if wait_s is None else f", which take about {wait_s:.3g} s"
        return Overloaded(
            f"{what}: {statistics.room.rows} of {statistics.max_queue} rows wait{wait}",
            hint="ask again later, or more workers",
            wait_s=wait_s,
        )

    def _cancelled(self, request: Request, future: "Future[object]") -> None:
        if future.cancelled() and not self.is_elsewhere:
            self._dispatcher.inbox.put(Cancel((request,)))
