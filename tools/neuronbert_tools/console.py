"""What the tools' command lines have in common: options on the way in; documents and progress on the way out."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import List, Mapping, Optional


def new_parser(description: Optional[str]) -> argparse.ArgumentParser:
    """A parser whose help begins with a module's docstring, line breaks kept."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """--json: the ``copy`` of ``print_document``."""
    parser.add_argument("--json", type=_report_path, help="also write the report to this file")


def _report_path(text: str) -> Path:
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder, and not a file in one")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}: make it, or choose another")
    return path


def whole_numbers(text: str) -> List[int]:
    """The type of an option that takes numbers with commas between them."""
    return [int(number) for number in text.split(",")]


def one_or_more(text: str) -> int:
    """The type of an option that counts what there has to be."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def above_zero(text: str) -> float:
    """The type of an option that is a time."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no time above 0")
    return number


def print_message(text: str) -> None:
    """For a person; stdout is for the document."""
    print(text, file=sys.stderr, flush=True)


def print_document(document: Mapping[str, object], copy: Optional[Path] = None, indent: Optional[int] = None) -> None:
    """One JSON document on stdout as a line; ``copy`` is a file that gets it too, with ``indent``.

    Each gets it whatever becomes of the other. OutputError where the file cannot be written.
    """
    try:
        print(json.dumps(document))
    finally:
        if copy is not None:
            _write(json.dumps(document, indent=indent) + "\n", copy)


def _write(text: str, path: Path) -> None:
    # Here, for the peers' processes print messages in environments without neuronbert.
    from neuronbert.artifact.files import output_errors, replace_file

    with output_errors(path):
        if path.exists() and not path.is_file():  # a pipe, or /dev/stderr
            path.write_text(text, encoding="utf-8")
        else:
            replace_file(path.resolve(), text)
