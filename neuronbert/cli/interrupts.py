"""The signals that end a command: an exception while the verb runs, nothing once it has ended."""

import signal
import threading
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List


class Interrupted(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP. A subclass: Python ends by the signal itself when a plain KeyboardInterrupt passes
    exec().
    """


class Interrupts:
    """What becomes of SIGINT, SIGTERM and SIGHUP between ``take`` and ``give_back``; under nohup SIGHUP stays ignored.

    A service manager stops with SIGTERM what a person stops with Ctrl-C, or by closing the terminal (SIGHUP): all of
    them must leave nothing half-made. They often come together, so what cleans up is interrupted by none but another
    Ctrl-C; and once the verb has ended, by none at all: how it ended is still to be said, and its exit code with it.
    """

    def __init__(self) -> None:
        self.received: List[int] = []  # for libraries that make an error of their own of an interrupt
        self._before: Dict[int, Any] = {}  # signal → its handler; none where this is not the main thread

    def take(self) -> None:
        """Raise Interrupted where a signal comes."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._interrupt)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Within this; after it they change nothing."""
        try:
            yield
        finally:
            self.ignore()

    def ignore(self) -> None:
        """Let them change nothing from now on. A program leaves it so: Python's own end takes a tenth of a second."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def give_back(self) -> None:
        """Leave them as they were before ``take``."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, _: object) -> None:
        self.received.append(number)
        if len(self.received) == 1 or number == signal.SIGINT:
            raise Interrupted
