"""The signals that end a command: an interrupt while its verb runs, nothing while it ends, the end where it hangs."""

import atexit
import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, NoReturn, Optional

EXIT_INTERRUPTED = 130
ENDING_S = 1.0  # for which a process may take to end; Python's own end is a tenth of it


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
        self._ended_at: Optional[float] = None
        self._exit_code: Optional[int] = None

    def take(self) -> None:
        """Raise Interrupted where a signal comes."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)

    def take_to_the_end(self) -> None:
        """As ``take``, of a process that ends with ``exit``: where that hangs, a signal ends it."""
        self._exit_code = EXIT_INTERRUPTED
        atexit.register(self._ignore)  # called last of all: Python then gives its handlers up and takes modules apart
        self.take()

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Within this; after it they change nothing."""
        try:
            yield
        finally:
            self.end()

    def end(self) -> None:
        """Let them change nothing from now on."""
        self._ended_at = time.monotonic()

    def exit(self, code: int) -> NoReturn:
        """Exit with ``code``, whichever signals come."""
        self._exit_code = code
        raise SystemExit(code)

    def give_back(self) -> None:
        """Leave them as they were before ``take``."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ignore(self) -> None:
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, _: object) -> None:
        if self._ended_at is None:
            self.received.append(number)
            if len(self.received) == 1 or number == signal.SIGINT:
                raise Interrupted
        elif self._exit_code is not None and time.monotonic() - self._ended_at > ENDING_S:
            os._exit(self._exit_code)  # whoever reads has stopped, or a thread of a library hangs
