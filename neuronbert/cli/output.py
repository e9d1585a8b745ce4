"""What the verbs print: results on stdout, as text or one JSON document; progress on stderr."""

import json
import sys
from contextlib import ExitStack, contextmanager
from itertools import repeat
from typing import TYPE_CHECKING, Callable, Iterator, List, Optional

import click

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar


def note(line: str) -> None:
    """Progress, on stderr."""
    click.echo(line, err=True)


def note_beside_bar(line: str) -> None:
    """Progress while a bar is on the screen: the line takes its place, and the bar is redrawn below."""
    note(("\r\033[K" if sys.stderr.isatty() else "") + line)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on stderr, from the first call of what it yields, with (done, total)."""
    with ExitStack() as stack:
        bars: List[ProgressBar[int]] = []

        def show(done: int, total: int) -> None:
            if not bars:
                bar = click.progressbar(length=total, label=label, file=sys.stderr, show_pos=True)
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].pos)

        yield show


@contextmanager
def bytes_bar(label: str) -> Iterator[Callable[[int, Optional[int], int], None]]:
    """A bar with the time left on stderr; yields what is called with (bytes done, bytes in all or None, lines)."""
    with click.progressbar(repeat(0), label=label, file=sys.stderr, item_show_func=_lines_done) as bar:

        def show(done: int, total: Optional[int], lines: int) -> None:
            bar.length = total
            bar.update(done - bar.pos, lines)

        yield show


def _lines_done(lines: Optional[int]) -> Optional[str]:
    return None if lines is None else f"{lines:,} lines"


def show(as_json: bool, document: object, text: Callable[[], str]) -> None:
    """A verb's result on stdout: one JSON document, or text for a person."""
    put(to_json(document, indent=2) if as_json else text())


def put(text: str) -> None:
    """A result on stdout; a character that its encoding does not have (half a surrogate pair) is escaped."""
    encoding = stdout_encoding()
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def to_json(document: object, indent: Optional[int] = None) -> str:
    """JSON with its characters as they are, or escaped where stdout does not have one of them."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    try:
        text.encode(stdout_encoding())
    except UnicodeEncodeError:
        return json.dumps(document, indent=indent)
    return text


def stdout_encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"
