"""Has an event loop take the turns of a runner's thread, so that nobody changes threads where a loop asks the runner.

Two threads of one interpreter take turns at it: a request that is made in a loop's thread and answered in the runner's
waits for the interpreter twice, and each batch wakes a thread (docs/measurements.md, "The server").
"""

import asyncio
import os
import threading
from contextlib import suppress
from typing import Callable, Optional

from neuronbert.runner.inbox import Inbox
from neuronbert.runner.requests import now_s

LOOK_S = 0.5  # how often the thread, which sleeps, looks whether the loop still runs

# One turn, which does not wait: the seconds until the next, or None where the runner's thread has to go on.
QuickTurn = Callable[[], Optional[float]]


class LoopTurns:
    """Turns in the thread of ``loop``. Either that thread takes them or the runner's own, never both."""

    def __init__(self, loop: asyncio.AbstractEventLoop, inbox: Inbox, descriptor: int, turn: QuickTurn):
        self._loop = loop
        self._inbox = inbox
        self._descriptor = descriptor  # readable when there is something to do
        self._turn = turn
        self._lock = threading.RLock()  # held during a turn
        self._given_back = threading.Event()
        self._error: Optional[BaseException] = None
        self._timer: Optional[asyncio.TimerHandle] = None
        self._due = 0.0  # when that calls
        self._is_called = False  # the loop will take a turn when it comes to it
        self._process = os.getpid()
        self._thread: Optional[threading.Thread] = None  # the loop's, while the turns are taken there

    @property
    def is_possible(self) -> bool:
        """Whether the loop still can."""
        return self._loop.is_running()

    def are_here(self) -> bool:
        """Whether the turns are taken in this thread: once its loop has ended, the runner's own takes them back."""
        return threading.current_thread() is self._thread and self._loop.is_running()

    def stay(self) -> None:
        """Until the runner's thread, which calls this, has to go on; raises what a turn in the loop raised."""
        self._given_back.clear()
        try:
            self._loop.call_soon_threadsafe(self._begin)
        except RuntimeError:  # it was closed
            return
        while not self._given_back.wait(LOOK_S):
            if not self._loop.is_running():
                self._take_back()
        if self._error is not None:
            raise self._error

    def _take_back(self) -> None:
        """From a loop that stands still; if it runs once more, it forgets what it looked at first."""
        with self._lock:
            self._thread = None
            self._inbox.wake = self._inbox.write_wake_up
            self._given_back.set()
        with suppress(RuntimeError):  # it was closed
            self._loop.call_soon_threadsafe(self._leave)

    # ---- in the loop's thread

    def _begin(self) -> None:
        with self._lock:
            if self._given_back.is_set():  # the thread took them back before
                return
            self._thread = threading.current_thread()
        self._loop.add_reader(self._descriptor, self._take_turn)
        self._inbox.wake = self._wake
        self._take_turn()

    def _wake(self) -> None:
        """What the inbox calls in any thread, in place of writing to its pipe."""
        if not self._loop.is_running():
            self._take_back()
        elif threading.current_thread() is not self._thread:
            self._inbox.write_wake_up()
        elif not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._is_called = False
        if os.getpid() != self._process:  # a fork's loop: the runner is its parent's
            return
        with self._lock:
            if self._given_back.is_set():
                self._leave()
                return
            try:
                due_in_s = self._turn()
            except BaseException as error:  # a bug: the runner's thread ends it for everybody
                self._error, due_in_s = error, None
            if due_in_s is None:
                self._leave()
                self._given_back.set()
                return
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
        self._timer = self._loop.call_later(due_in_s, self._timer_calls)

    def _timer_calls(self) -> None:
        self._timer = None
        self._take_turn()

    def _leave(self) -> None:
        self._thread = None
        self._inbox.wake = self._inbox.write_wake_up
        self._loop.remove_reader(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
