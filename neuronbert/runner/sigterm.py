"""SIGTERM finishes what was accepted, then ends the process as usual; ``Runner`` installs this inside ``with``."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Callable, Optional

AGAIN_S = 1.0


class SigtermHandler:
    """Drains at the first SIGTERM, and ends the process at the second.

    refuse_new: called in the handler, so it must be short. close: called in a thread; returns when all is finished.
    """

    def __init__(self, refuse_new: Callable[[], None], close: Callable[[], None]):
        self._refuse_new = refuse_new
        self._close = close
        self._process = os.getpid()
        self._count = 0
        self._is_installed = False

    @property
    def was_received(self) -> bool:
        """Whether a SIGTERM came while this was installed."""
        return self._count > 0

    def install(self) -> None:
        """Handle SIGTERM from now on, if this is the main thread and nobody else handles it."""
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_signal)
            self._is_installed = True

    def restore(self) -> None:
        """Leave SIGTERM as it was before ``install``."""
        if self._is_installed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._is_installed = False

    def _on_signal(self, number: int, frame: Optional[FrameType]) -> None:
        """The first SIGTERM drains; the second, ours or an impatient sender's, ends the process."""
        if os.getpid() != self._process:  # a fork of it, in which nothing was accepted
            end_process()
        self._count += 1
        if self._count > 1:
            end_process()
        self._refuse_new()
        threading.Thread(target=self._drain_and_signal, name="neuronbert-sigterm", daemon=True).start()

    def _drain_and_signal(self) -> None:
        self._close()
        # Only the main thread may change handlers, and so end the process: it is sent the second signal, and again if
        # that came just before it began to wait for something, which Python does not interrupt then.
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(AGAIN_S)


def end_process() -> None:
    """End this process as SIGTERM does where nobody handles it. In the main thread only."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
