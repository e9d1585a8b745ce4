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
TEARDOWN_S = 30.0  # for which Python may take modules apart, with every signal ignored


class Interrupted(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP. A subclass: Python ends by the signal itself when a plain KeyboardInterrupt passes
    exec().
    """


class Interrupts:
    """What becomes of SIGINT, SIGTERM and SIGHUP from ``heeded`` to ``give_back``; under nohup SIGHUP stays ignored.

    A service manager stops with SIGTERM what a person stops with Ctrl-C, or by closing the terminal (SIGHUP): all of
    them must leave nothing half-made. They often come together, so what cleans up is interrupted by none but another
    Ctrl-C; and once the verb has ended, by none at all: how it ended is still to be said, and its exit code with it.
    """

    def __init__(self) -> None:
        self.received: List[int] = []  # for libraries that make an error of their own of an interrupt
        self._before: Dict[int, Any] = {}  # signal → its handler; none where this is not the main thread
        self._ended_at: Optional[float] = None
        self._exit_code: Optional[int] = None

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Raise Interrupted where one comes within this; after it they change nothing."""
        try:
            self._take()
            yield
        finally:
            self.end()

    def end(self) -> None:
        """Let them change nothing from now on."""
        self._ended_at = time.monotonic()

    def give_back(self) -> None:
        """Leave them as they were."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def keep(self) -> None:
        """Instead of ``give_back``: the process is to end with ``exit``. Where that hangs, a signal ends it."""
        self._exit_code = EXIT_INTERRUPTED  # where it hangs in saying how it ended
        atexit.register(self._ignore)  # before libraries register theirs, so called after those

    def exit(self, code: int) -> NoReturn:
        """Exit with ``code``, whichever signals come."""
        self._exit_code = code
        raise SystemExit(code)

    def _take(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.getsignal(number)
                signal.signal(number, self._on_signal)

    def _ignore(self) -> None:
        """For the rest of the process, in which Python gives its handlers up: as they were, a signal would end it."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, TEARDOWN_S)  # a module that hangs then could only be killed

    def _on_signal(self, number: int, _: object) -> None:
        if self._ended_at is None:
            self.received.append(number)
            if len(self.received) == 1 or number == signal.SIGINT:
                raise Interrupted
        elif self._exit_code is not None and time.monotonic() - self._ended_at > ENDING_S:
            os._exit(self._exit_code)  # whoever reads has stopped, or a thread of a library hangs
