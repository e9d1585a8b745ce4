"""What a command that takes long says of itself on stderr, beside the lines of ``output``: done, rate, time left."""

import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import Callable, Iterator, List, NamedTuple, Optional, TextIO

import click

DELAY_S = 2.0  # what is over sooner says nothing
REDRAW_S = 0.2  # on a terminal, where one line is written over and over
LINE_S = 5.0  # elsewhere, where every one stays: between two of them at least
LONGEST_LINE_S = 60.0  # and at most; a tenth of the time so far lies between
ERASE = "\r\033[K"
_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


class Reading(NamedTuple):
    """How far something was at a time. ``done`` and ``total`` are counts of one unit; None: nobody knows."""

    at_s: float
    done: Optional[int] = None
    total: Optional[int] = None


def harmless(text: str) -> str:
    """``text`` for a terminal: control characters, which names and manifests may hold, are escaped as JSON does it."""
    return text.translate(_CONTROLS)


def progress_text(label: str, unit: str, first: Reading, last: Reading, now_s: float) -> str:
    """One line: the share, the rate since ``first`` (where there is a ``unit``) and the time left, if it can be known.

    The rate is that from ``first`` to ``last``, so that the time left goes down between two readings.
    """
    parts = [] if last.done is None else [_count(last.done, last.total, unit)]
    rate = _rate(first, last)
    if rate and unit:
        parts.append(f"{rate:,.1f}/s" if rate < 100 else f"{rate:,.0f}/s")
    if rate and last.total is not None and last.done is not None:
        parts.append(f"about {duration((last.total - last.done) / rate - (now_s - last.at_s))} left")
    else:
        parts.append(duration(now_s - first.at_s))
    return f"{label}: {', '.join(parts)}"


def _count(done: int, total: Optional[int], unit: str) -> str:
    of_all = "" if total is None else f" of {total:,}"
    share = f" ({done / total:.0%})" if total and unit else ""
    return f"{done:,}{of_all}{unit and ' '}{unit}{share}"


def _rate(first: Reading, last: Reading) -> Optional[float]:
    """What is done in a second; None while that is unknown."""
    if last.done is None or first.done is None or last.at_s <= first.at_s or last.done <= first.done:
        return None
    return (last.done - first.done) / (last.at_s - first.at_s)


def duration(seconds: float) -> str:
    """Such as 0:07 or 2:03:07."""
    minutes, rest = divmod(int(max(seconds, 0) + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Called with (done, total) from any thread; ``about`` begins another part of the work.

    A thread of its own writes, so the time left goes down however long a step takes.
    """

    def __init__(self, label: str, unit: str = ""):
        self.about(label, unit)
        self._lock = threading.RLock()  # of what is on the screen
        self._over = threading.Event()
        self._is_shown = False
        self._thread = threading.Thread(target=self._run, name="neuronbert-progress", daemon=True)

    def about(self, label: str, unit: str = "") -> None:
        """What is done from now on, in which unit; without one the steps are too unequal for a rate."""
        self._label, self._unit = label, unit
        self._first = self._last = Reading(time.monotonic())

    def __call__(self, done: int, total: Optional[int] = None) -> None:
        """So many are done, those of earlier runs included, of so many in all."""
        self._last = Reading(time.monotonic(), done, None if total is None else max(done, total))
        if self._first.done is None:
            self._first = self._last

    def then(self, label: str, unit: str) -> Callable[[int, Optional[int]], None]:
        """What counts the next part of the work, which begins when it is first called."""
        begun: List[bool] = []

        def count(done: int, total: Optional[int]) -> None:
            if not begun:
                begun.append(True)
                self.about(label, unit)
            self(done, total)

        return count

    def __enter__(self) -> "Progress":
        _shown.append(self)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with self.hidden():
            _shown.remove(self)
        self._thread.join()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Nothing of it is on the screen in the block."""
        with self._lock:
            if self._is_shown:
                self._is_shown = False
                with suppress(OSError, ValueError):
                    click.echo(ERASE, err=True, nl=False)
            yield

    def _run(self) -> None:
        began, pause_s = time.monotonic(), DELAY_S
        with suppress(OSError, ValueError):  # stderr is gone: nobody is left to tell
            while not self._over.wait(pause_s):
                width = terminal_width()
                self._write(width)
                so_far_s = time.monotonic() - began
                pause_s = REDRAW_S if width else min(max(LINE_S, so_far_s / 10), LONGEST_LINE_S)

    def _write(self, width: Optional[int]) -> None:
        text = harmless(progress_text(self._label, self._unit, self._first, self._last, time.monotonic()))
        with self._lock:
            if self._over.is_set():
                return
            if width is None:
                click.echo(text, err=True)
            else:
                click.echo(ERASE + text[: width - 1], err=True, nl=False)
                self._is_shown = True


class Stages:
    """Work that says in a line what it does next, and counts within some of its stages."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._counted: Optional[str] = None  # what is being counted and not yet done

    def line(self, text: str) -> None:
        """A line that stays, and what is going on from now on, unless a count is under way."""
        note(text)
        if self._counted is None:
            self._progress.about(text.splitlines()[0].partition(" (")[0])

    def step(self, what: str, done: int, total: int) -> None:
        """How much is done of what takes long."""
        if what != self._counted:
            self._progress.about(what)
        self._counted = what if done < total else None
        self._progress(done, total)


_shown: List[Progress] = []  # the innermost last


@contextmanager
def progress_hidden() -> Iterator[None]:
    """A block that writes to the terminal itself."""
    if not _shown:
        yield
        return
    with _shown[-1].hidden():
        yield


def note(line: str) -> None:
    """A line on stderr, above the progress that is shown there; where stderr is gone, nobody is left to tell.

    Control characters, such as a name in it may have, are escaped.
    """
    with progress_hidden(), suppress(OSError):
        click.echo(harmless(line), err=True)


def is_terminal(stream: Optional[TextIO]) -> bool:
    """Whether a person sees what is written to it; None is a standard stream that the caller closed."""
    return stream is not None and stream.isatty()


def terminal_width() -> Optional[int]:
    """Columns of the terminal that stderr is; None where it is none, or one that cannot write over a line."""
    if not is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
        return None
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
