"""Lets a request into the queue or refuses it, in the caller's thread; ``dispatcher`` takes it from there."""

import functools
import os
import threading
from concurrent.futures import Future
from typing import Optional

from neuronbert.errors import InputError, Overloaded, RunnerClosed
from neuronbert.runner.counters import Statistics
from neuronbert.runner.dispatcher import Dispatcher
from neuronbert.runner.futures import forked_from, waits_for_itself
from neuronbert.runner.inbox import Accept, Cancel
from neuronbert.runner.requests import Request, now_s
from neuronbert.runner.room import Ticket


class Admission:
    """The door of the runner: open until ``close``."""

    def __init__(self, dispatcher: Dispatcher, statistics: Statistics, max_windows_per_request: int):
        self._dispatcher = dispatcher
        self._statistics = statistics
        self._max_windows = max_windows_per_request
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
        if threading.current_thread() is self._dispatcher.thread:
            raise waits_for_itself()

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process is not the one in which the runner was made."""
        return os.getpid() != self._process

    def refuse_early(self, timeout_s: Optional[float]) -> None:
        """Raise RunnerClosed or Overloaded before any work is spent on a request that cannot be let in."""
        self.refuse_elsewhere()
        broken = self._dispatcher.broken
        if broken is not None:
            raise broken.again()
        if self._closed:
            raise RunnerClosed("this runner is closed, or closing", hint="make a new one, or ask inside its with block")
        if not self._statistics.room.is_open:
            raise self._overloaded("the queue is full")
        if timeout_s is not None and self._statistics.would_be_late(timeout_s):
            raise self._overloaded(f"the queue is too long for timeout_s={timeout_s:.3g}")

    def admit(self, request: Request, timeout_s: Optional[float], wait: bool = False) -> None:
        """Hand the request to the runner's thread, or raise why not. ``wait``: in the line, where the queue is full."""
        if wait:
            self.refuse_to_wait()
        else:
            self.refuse_elsewhere()
        unable = self._dispatcher.unable
        if unable is not None:
            raise unable
        if request.whole is None and request.size > self._max_windows:
            raise InputError(
                f"this request needs {request.size} windows, and the runner takes {self._max_windows}",
                hint="a shorter context, a smaller doc_stride, or Runner(..., max_windows_per_request=N, max_queue=N)",
            )
        if timeout_s is not None:
            request.deadline = request.submitted + timeout_s
            if self._statistics.would_be_late(request.deadline - now_s(), request.size):
                raise self._overloaded(f"{request.size} windows more are too many for timeout_s={timeout_s:.3g}")
        request.future.runner_thread = self._dispatcher.thread
        ticket = Ticket(request.size)
        try:
            self._enter(ticket, wait)
            request.accepted = request.since = now_s()
            request.future.add_done_callback(functools.partial(self._cancelled, request))
            self._statistics.accepted()
            self._dispatcher.inbox.put(Accept(request))
        except BaseException:  # Ctrl-C: whoever asked has no future, whether or not the runner has the request by now
            request.future.cancel()
            if ticket.is_in:
                self._dispatcher.inbox.put(Cancel(request))
            raise
        finally:
            self._dispatcher.sweep()

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
            self._dispatcher.inbox.put(Cancel(request))
