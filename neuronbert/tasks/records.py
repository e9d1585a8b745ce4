"""Records of the data files that tasks evaluate and calibrate with: CSV, TSV and JSON lines. lines.py reads inputs."""

import io
from itertools import chain
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Sequence, Tuple

from neuronbert.errors import InputError
from neuronbert.hardware.untrusted import Refusal, json_object, read_given
from neuronbert.tasks.base import Document, PathLike
from neuronbert.tasks.csv_rows import DIALECTS, Dialect, read_table
from neuronbert.tasks.lines import refuse_binary, wrong_byte

MOST_BYTES = 1 << 30
SUFFIXES = (".csv", ".tsv", ".jsonl")


class Record(NamedTuple):
    """What one line of a file says (of a table a row, which may have several lines), and where it begins."""

    line_number: int  # from 1
    fields: Document  # of a table, strings


def read_records(path: PathLike, hint: str) -> List[Record]:
    """The records of a .csv or .tsv file with a header, or of a .jsonl file; blank lines are skipped.

    InputError, with ``hint``, for another kind of file, one that cannot be read, and one without a record.
    """
    name, kind = str(path), Path(path).suffix.lower()
    if kind not in SUFFIXES:
        raise InputError(f"{name} is none of {', '.join(SUFFIXES)}", hint=hint)
    raw = read_given(Path(path), Refusal(InputError, f"check the path; {hint}"), MOST_BYTES)
    refuse_binary(raw, name, hint=hint)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = wrong_byte(error)
        raise InputError(f"{name}, line {line}: not UTF-8 text ({byte})", hint=hint) from None
    dialect = DIALECTS.get(kind[1:])
    records = list(_lines(text, name, hint) if dialect is None else _table(text, dialect, name, hint))
    if not records:
        raise InputError(f"{name} holds no record", hint=hint)
    return records


def _lines(text: str, name: str, hint: str) -> Iterator[Record]:
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if line.strip():
            yield Record(number, json_object(line.encode(), f"{name}, line {number}", Refusal(InputError, hint)))


def _table(text: str, dialect: Dialect, name: str, hint: str) -> Iterator[Record]:
    header, rows = read_table(enumerate(io.StringIO(text, newline=""), start=1), dialect)
    for row in chain([header], rows):
        if row.fault is not None:
            raise InputError(f"{name}, line {row.line_number}: {row.fault}", hint=hint)
        if row is not header and row.cells:
            yield Record(row.line_number, dict(zip(header.cells, row.cells)))


def field(record: Record, names: Tuple[str, ...]) -> Any:
    """The value under the first of ``names`` that the record has; None where it has none of them."""
    return next((record.fields[name] for name in names if record.fields.get(name) not in (None, "")), None)


def refuse_without(records: Sequence[Record], names: Tuple[str, ...], path: PathLike, hint: str) -> None:
    """InputError naming the columns that there are, for a file whose first record has none of ``names``."""
    fields = records[0].fields
    if not any(name in fields for name in names):
        raise InputError(f"{path} has no column {names[0]!r}; it has {', '.join(map(repr, fields))}", hint=hint)
