"""Has an event loop take the turns of a runner's thread, so that nobody changes threads where a loop asks the runner.

Two threads of one interpreter take turns at it: a request that is made in a loop's thread and answered in the runner's
waits for the interpreter twice, and each batch wakes a thread (docs/measurements.md, "The server").
"""

import asyncio
import os
import selectors
import threading
from contextlib import suppress
from typing import Callable, Optional

from neuronbert.runner.inbox import Inbox
from neuronbert.runner.requests import now_s

LOOK_S = 0.5  # how often the thread, which sleeps, looks whether the loop takes its turns

# One turn, which does not wait: the seconds until the next, or None where the runner's thread has to go on.
QuickTurn = Callable[[], Optional[float]]


class LoopTurns:
    """Turns in the thread of ``loop``. Either that thread takes them or the runner's own, never both.

    ``selector`` has something to read where there is something to do, and can be waited for itself.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, inbox: Inbox, selector: selectors.BaseSelector, turn: QuickTurn
    ):
        self.loop = loop
        self._inbox = inbox
        self._selector = selector
        self._descriptor: int = selector.fileno()  # type: ignore[attr-defined]
        self._turn = turn
        self._lock = threading.RLock()  # held during a turn
        self._given_back = threading.Event()
        self._has_left = True  # the loop looks at nothing of ours, and will not call us
        self._error: Optional[BaseException] = None
        self._timer: Optional[asyncio.TimerHandle] = None
        self._due = 0.0  # when that calls
        self._is_called = False  # the loop will take a turn when it comes to it
        self._is_in_turn = False
        self._count = 0  # of turns
        self._process = os.getpid()
        self._thread: Optional[threading.Thread] = None  # the loop's, while the turns are taken there

    @property
    def is_possible(self) -> bool:
        """Whether the loop runs; one from which the turns were taken must first have shown that it goes on."""
        return self._has_left and self.loop.is_running()

    def is_here(self) -> bool:
        """Whether a turn is being taken in this thread."""
        return self._is_in_turn and threading.current_thread() is self._thread

    def stay(self) -> None:
        """Until the runner's thread, which calls this, has to go on; raises what a turn in the loop raised."""
        self._given_back.clear()
        self._has_left = False
        try:
            self.loop.call_soon_threadsafe(self._begin)
        except RuntimeError:  # it was closed
            return
        seen = self._count
        while not self._given_back.wait(LOOK_S):
            if not self.loop.is_running() or (seen == self._count and self._has_work()):
                self._take_back()
            seen = self._count
        if self._error is not None:
            raise self._error

    def _has_work(self) -> bool:
        """Whether there is something to do, and nobody is doing it."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return bool(self._inbox) or bool(self._selector.select(0))
        finally:
            self._lock.release()

    def _take_back(self) -> None:
        """From a loop that ended, stands still or is blocked; where it goes on, it first forgets what it looked at."""
        with self._lock:
            if not self._given_back.is_set():
                self._let_go()
                with suppress(RuntimeError):  # it was closed
                    self.loop.call_soon_threadsafe(self._leave)
                self._given_back.set()

    def _let_go(self) -> None:
        self._thread = None
        self._inbox.wake = self._inbox.write_wake_up

    # ---- in the loop's thread

    def _begin(self) -> None:
        with self._lock:
            if self._given_back.is_set():  # the thread took them back before
                return
            try:
                self.loop.add_reader(self._descriptor, self._take_turn)
            except BaseException:  # a loop that cannot: the thread goes on by itself
                self._given_back.set()
                raise
            self._thread = threading.current_thread()
            self._inbox.wake = self._wake
        self._take_turn()

    def _wake(self) -> None:
        """What the inbox calls in any thread, in place of writing to its pipe."""
        if not self.loop.is_running():
            self._take_back()
        elif threading.current_thread() is not self._thread:
            self._inbox.write_wake_up()
        elif not self._is_called:
            self._is_called = True
            self.loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_called = False
        # A fork's loop: the runner is its parent's. A loop inside a callback: the turn goes on behind it.
        if os.getpid() != self._process or self._is_in_turn:
            return
        with self._lock:
            if self._given_back.is_set():  # ``_leave`` is called as well
                return
            self._is_in_turn = True
            self._count += 1
            try:
                due_in_s = self._turn()
            except BaseException as error:  # a bug: the runner's thread ends it for everybody
                self._error, due_in_s = error, None
                if not isinstance(error, Exception):  # or Ctrl-C, which is the loop's to hear of
                    raise
            finally:
                self._is_in_turn = False
                if self._error is not None or due_in_s is None:
                    self._leave()
                    self._given_back.set()
        if due_in_s is not None:
            self._call_again(due_in_s)

    def _call_again(self, due_in_s: float) -> None:
        if not self._inbox.may_sleep():
            self._wake()
            return
        due = now_s() + due_in_s
        if self._timer is not None:
            if self._due <= due:  # a turn too early costs less than a timer
                return
            self._timer.cancel()
        self._due = due
        self._timer = self.loop.call_later(due_in_s, self._timer_calls)

    def _timer_calls(self) -> None:
        self._timer = None
        self._take_turn()

    def _leave(self) -> None:
        self._let_go()
        self.loop.remove_reader(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._has_left = True
