"""The line of progress on stderr while a model is trained."""

import sys
import time
from typing import Sequence


class Progress:
    """One line on stderr: step, loss, speed and the time left; redrawn on a terminal, every 10 s in a log."""

    def __init__(self, steps: int, first_step: int, steps_per_epoch: int):
        self._steps, self._first, self._per_epoch = steps, first_step, steps_per_epoch
        self._began = self._last_shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def update(self, step: int, losses: Sequence[float]) -> None:
        now = time.monotonic()
        done = step == self._steps
        if not done and now - self._last_shown < (0.5 if self._terminal else 10.0):
            return
        self._last_shown = now
        steps_per_s = (step - self._first) / max(now - self._began, 1e-9)
        left_s = int((self._steps - step) / steps_per_s)
        epoch = min((step - 1) // self._per_epoch + 1, self._steps // self._per_epoch)
        recent = losses[-50:]
        line = (
            f"epoch {epoch}/{self._steps // self._per_epoch}  step {step}/{self._steps}"
            f"  loss {sum(recent) / len(recent):.3f}  {steps_per_s:.2f} steps/s"
            f"  ETA {left_s // 3600}:{left_s // 60 % 60:02d}:{left_s % 60:02d}"
        )
        end = "\n" if done or not self._terminal else ""
        print(("\r\x1b[K" if self._terminal else "") + line, end=end, file=sys.stderr, flush=True)
