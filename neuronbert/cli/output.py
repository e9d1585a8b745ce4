"""What the verbs print: results on stdout, as text or one JSON document; lines about them (``progress``) on stderr."""

import json
import sys
from typing import Callable, Optional

import click

from neuronbert.cli.progress import harmless, is_terminal, progress_hidden


def show(as_json: bool, document: object, text: Callable[[], str]) -> None:
    """A verb's result on stdout: one JSON document, or text for a person."""
    put(to_json(document, indent=2) if as_json else text())


def put(text: str) -> None:
    """A result on stdout; a character that its encoding does not have (half a surrogate pair) is escaped.

    On a terminal, so is what would move the cursor or do more: manifests and texts may hold anything.
    """
    encoding = stdout_encoding()
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    if is_terminal(sys.stdout):
        with progress_hidden():
            click.echo(harmless(text))
    else:
        click.echo(text)


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
