"""Formats of files of inputs and of results: JSON lines (lines.py), and the tables of csv_rows.py.

engine and runner know them through LineFormat alone, whatever the task.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Protocol, Sequence, TypeVar

from neuronbert.errors import InputError, UsageError, shown_value
from neuronbert.hardware.untrusted import json_value
from neuronbert.tasks.base import Document, LineForm, PathLike
from neuronbert.tasks.csv_rows import DIALECTS, Dialect, Row, read_table, row_text
from neuronbert.tasks.lines import Entry, NumberedLines, json_entries, json_line, refuse_binary

Format = TypeVar("Format")


class LineFormat(Protocol):
    """How inputs and results are written in a file."""

    @property
    def name(self) -> str: ...

    def hint(self, form: LineForm) -> str:
        """What a file of a task's inputs looks like."""

    def entries(self, lines: NumberedLines, form: LineForm) -> Iterator[Entry]:
        """The entries of a file, one for each blank line too; what stands before the first is read at once.

        ``lines`` may go on behind entries that were read before. InputError for a file that holds no such inputs.
        """

    def head(self, columns: Sequence[str]) -> str:
        """What stands before the first result; ``columns`` are the keys that results may have, as the task says."""

    def line(self, document: Document, columns: Sequence[str]) -> str:
        """The result or the error of one entry, with its line's end; UTF-8 has all of its characters."""


class JsonLines:
    """A JSON object a line."""

    name = "jsonl"

    def hint(self, form: LineForm) -> str:
        """The form of a line, and what to say of a table."""
        return f"{form.hint}, or --input-format csv for a table"

    def entries(self, lines: NumberedLines, form: LineForm) -> Iterator[Entry]:
        """An entry a line."""
        return json_entries(lines)

    def head(self, columns: Sequence[str]) -> str:
        """Nothing: a line has its own keys."""
        return ""

    def line(self, document: Document, columns: Sequence[str]) -> str:
        """The document as JSON."""
        return json_line(document)


@dataclass(frozen=True)
class Table:
    """A header, and a row for each input or result; its columns are the keys of a JSON line.

    A cell is a text. One of a number, a switch or a list of texts is JSON, where it is that; an empty one is as if the
    key were not there.
    """

    name: str
    dialect: Dialect

    def hint(self, form: LineForm) -> str:
        """The columns."""
        names = ", or ".join(" and ".join(keys) for keys in form.needs)
        separated = "commas" if self.dialect.delimiter == "," else "tabs"
        return f'a header with the columns {names} ("id" if you like), separated by {separated}, and a row for each'

    def entries(self, lines: NumberedLines, form: LineForm) -> Iterator[Entry]:
        """An entry a row; InputError for a header without the columns that the task needs."""
        header, rows = read_table(lines, self.dialect)
        place, hint = f"line {header.line_number}", self.hint(form)
        if header.fault is not None:
            refuse_binary(header.raw, f"{place} of the input", hint=hint)
            raise InputError(f"{place}: {header.fault}", hint=hint)
        missing = _missing_column(header.cells, form)
        if header.cells and missing is not None:
            there = ", ".join(map(shown_value, header.cells))
            raise InputError(f"{place}: there is no column {missing!r} in the header, which has {there}", hint=hint)
        return self._entries(header, rows, form)

    def _entries(self, header: Row, rows: Iterator[Row], form: LineForm) -> Iterator[Entry]:
        for row in rows:
            if row.is_endless:  # there is no next row to go on with
                hint = "close the quotation mark, or cut the row"
                raise InputError(f"line {row.line_number}: {row.fault}", hint=hint)
            yield _entry(row, header.cells, form)

    def head(self, columns: Sequence[str]) -> str:
        """The header."""
        return row_text(_result_columns(columns), self.dialect)

    def line(self, document: Document, columns: Sequence[str]) -> str:
        """A row; what is neither text nor nothing is JSON in its cell."""
        row: Dict[str, Any] = dict.fromkeys(_result_columns(columns))
        unknown = sorted(document.keys() - row.keys())
        if unknown:
            raise ValueError(f"a result has {unknown}, for which there is no column in {list(row)}")
        row.update(document)
        return row_text(["" if value is None else cell_text(value) for value in row.values()], self.dialect)


JSON_LINES = JsonLines()
FORMATS: Mapping[str, LineFormat] = {
    JSON_LINES.name: JSON_LINES,
    **{name: Table(name, dialect) for name, dialect in DIALECTS.items()},
}


def line_format(option: str, name: Optional[str], path: PathLike) -> LineFormat:
    """The format called ``name``, the value of ``option``; without one that of the suffix of ``path``, or JSON lines.

    UsageError for a name that no format has.
    """
    return chosen_format(FORMATS, option, name, path)


def chosen_format(formats: Mapping[str, Format], option: str, name: Optional[str], path: PathLike) -> Format:
    """The one of ``formats`` that ``line_format`` describes."""
    if name is None:
        return formats.get(Path(path).suffix.lower()[1:], formats[JSON_LINES.name])
    if not isinstance(name, str) or name not in formats:
        raise UsageError(f"{option} is {shown_value(name)}, and no such format is known", hint=", ".join(formats))
    return formats[name]


# ---------------------------------------------------------------------------- cells


def _missing_column(columns: Sequence[str], form: LineForm) -> Optional[str]:
    """The first column that is missing for the inputs of which most are there; None: some inputs have all of theirs."""
    missing = [[key for key in keys if key not in columns] for keys in form.needs]
    # Of two that lack as many, the one that has more.
    nearest, _ = min(zip(missing, form.needs), key=lambda each: (len(each[0]), -len(each[1])))
    return nearest[0] if nearest else None


def _entry(row: Row, columns: Sequence[str], form: LineForm) -> Entry:
    if row.fault is not None or not row.cells:
        return Entry(row.line_number, None, row.fault, row.raw)
    cells = {name: cell for name, cell in zip(columns, row.cells) if cell}
    return Entry(row.line_number, {name: _value(name, cell, form) for name, cell in cells.items()})


def _value(name: str, cell: str, form: LineForm) -> Any:
    """A cell as the value of its key. One that is not what it should be stays a text, which is then refused as such."""
    kind = form.keywords.get(name, str)
    if kind is str and name not in form.lists:
        return cell
    try:
        return json_value(cell.lower() if kind is bool else cell)  # spreadsheets write TRUE
    except (ValueError, RecursionError, MemoryError):
        return cell


def _result_columns(columns: Sequence[str]) -> Sequence[str]:
    return ("line", "id", *columns, "error")


_to_json = json.JSONEncoder(ensure_ascii=False).encode


def cell_text(value: Any) -> str:
    """A result's value, which is not None, as the text of a cell: itself, or JSON. UTF-8 has all of its characters."""
    text = value if isinstance(value, str) else _to_json(value)
    # Half of a surrogate pair is only in a reason, which may quote anything.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
