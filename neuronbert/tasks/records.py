"""Records of the data files that tasks evaluate and calibrate with: CSV, TSV and JSON lines. lines.py reads inputs."""

import csv
import io
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from neuronbert.errors import InputError, counted
from neuronbert.hardware.untrusted import Refusal, json_object, read_given
from neuronbert.tasks.base import Document, PathLike
from neuronbert.tasks.lines import refuse_binary

MOST_BYTES = 1 << 30
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl")


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
        # The place counts from behind the byte order mark, where there is one.
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise InputError(f"{name}, line {line}: not UTF-8 text (byte 0x{byte:02x})", hint=hint) from None
    records = list(_table(text, DELIMITERS[kind], name, hint) if kind in DELIMITERS else _lines(text, name, hint))
    if not records:
        raise InputError(f"{name} holds no record", hint=hint)
    return records


def _lines(text: str, name: str, hint: str) -> Iterator[Record]:
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if line.strip():
            yield Record(number, json_object(line.encode(), f"{name}, line {number}", Refusal(InputError, hint)))


def _table(text: str, delimiter: str, name: str, hint: str) -> Iterator[Record]:
    # A tab-separated file, as GLUE's are, quotes nothing: a quotation mark is one.
    source = io.StringIO(text, newline="")
    if delimiter == ",":
        rows = csv.reader(source, strict=True)
    else:
        rows = csv.reader(source, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    began = 1
    header: Optional[List[str]] = None
    try:
        for row in rows:
            place, began = began, rows.line_num + 1
            if not row:
                continue
            if header is None:
                header = _header(row, name, hint)
            elif len(row) != len(header):
                raise InputError(
                    f"{name}, line {place}: {counted(len(row), 'column')}, where the header has {len(header)}",
                    hint=hint,
                )
            else:
                yield Record(place, dict(zip(header, row)))
    except csv.Error as error:
        raise InputError(f"{name}, line {began}: {error}", hint=hint) from None


def _header(row: Sequence[str], name: str, hint: str) -> List[str]:
    columns = [column.strip() for column in row]
    doubled = sorted({column for column in columns if columns.count(column) > 1})
    if doubled:
        raise InputError(f"{name} has the column {doubled[0]!r} twice", hint=hint)
    return columns


def field(record: Record, names: Tuple[str, ...]) -> Any:
    """The value under the first of ``names`` that the record has; None where it has none of them."""
    return next((record.fields[name] for name in names if record.fields.get(name) not in (None, "")), None)


def refuse_without(records: Sequence[Record], names: Tuple[str, ...], path: PathLike, hint: str) -> None:
    """InputError naming the columns that there are, for a file whose first record has none of ``names``."""
    fields = records[0].fields
    if not any(name in fields for name in names):
        raise InputError(f"{path} has no column {names[0]!r}; it has {', '.join(map(repr, fields))}", hint=hint)
