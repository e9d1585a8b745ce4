"""What the verbs print: results on stdout, as text or one JSON document; lines about them (``progress``) on stderr."""

import json
import sys
from contextlib import nullcontext, suppress
from typing import Callable, Optional

import click

from neuronbert.cli.progress import progress_hidden


def note(line: str) -> None:
    """A line on stderr, above the progress that is shown there; where stderr is gone, nobody is left to tell."""
    with progress_hidden(), suppress(OSError):
        click.echo(line, err=True)


def show(as_json: bool, document: object, text: Callable[[], str]) -> None:
    """A verb's result on stdout: one JSON document, or text for a person."""
    put(to_json(document, indent=2) if as_json else text())


def put(text: str) -> None:
    """A result on stdout; a character that its encoding does not have (half a surrogate pair) is escaped."""
    encoding = stdout_encoding()
    with progress_hidden() if sys.stdout.isatty() else nullcontext():
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
