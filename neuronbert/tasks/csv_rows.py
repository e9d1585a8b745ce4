"""Rows of tables, CSV and TSV, by Python's csv; line_formats.py makes inputs of them, records.py labelled data.

A row ends where csv says that it ends, so one with quoted line ends has several lines. A table is read line by line, in
bounded memory, whatever is broken in it.
"""

import csv
import io
from itertools import chain
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

from neuronbert.errors import counted
from neuronbert.tasks import lines as tasks_lines
from neuronbert.tasks.lines import BrokenLine, NumberedLines, Raw, line_text

# csv refuses a longer cell, of 128 KiB unless told otherwise. The limit is the process's, so it is only ever raised.
csv.field_size_limit(max(csv.field_size_limit(), tasks_lines.MAX_LINE_BYTES))


class Dialect(NamedTuple):
    """How the cells of a row are told apart."""

    delimiter: str
    quotes: bool  # whether quotation marks are around a cell that holds a delimiter, a line's end or such a mark


DIALECTS = {
    "csv": Dialect(",", quotes=True),
    "tsv": Dialect("\t", quotes=False),  # as GLUE's files: a quotation mark is one
}


class Row(NamedTuple):
    """The cells of a row, and the number of the line where it begins, from 1."""

    line_number: int
    cells: List[str]  # none of a blank line
    fault: Optional[str] = None  # why it is broken
    raw: Raw = b""  # of a broken one, its first line
    is_endless: bool = False  # it is so long that nothing behind it is read: nobody knows where it ends


def read_table(lines: NumberedLines, dialect: Dialect) -> Tuple[Row, Iterator[Row]]:
    """The header, with the names of the columns, and the rows behind it; a header without cells where there is none.

    A row is broken if it has more cells than the header or fewer, the header if two columns have one name. Behind a
    broken row the next one is read, unless it is endless.
    """
    rows = read_rows(lines, dialect)
    header = next((row for row in rows if row.cells or row.fault), Row(1, []))
    columns = [column.strip() for column in header.cells]
    doubled = next((column for column in columns if column and columns.count(column) > 1), None)
    if doubled is not None:
        header = header._replace(fault=f"the header has the column {doubled!r} twice")
    return header._replace(cells=columns), (_of_width(row, len(columns)) for row in rows)


def read_rows(lines: NumberedLines, dialect: Dialect) -> Iterator[Row]:
    """Every row and blank line, in order."""
    for number, raw in lines:
        row = _row(number, raw, lines, dialect)
        yield row
        if row.is_endless:
            return


def _row(number: int, raw: Raw, lines: NumberedLines, dialect: Dialect) -> Row:
    texts = _RowTexts(number, chain([(number, raw)], lines), dialect)
    cells: List[str] = []
    try:
        first = next(texts)
        if first.strip(" \r\n"):
            cells = next(_reader(chain([first], texts), dialect))
        fault = texts.fault
    except _TooLong as reason:
        return Row(number, [], str(reason), raw, is_endless=True)
    except csv.Error as error:
        if texts.is_ended:  # behind one line, or instead of all that follow it
            return Row(number, [], "a quotation mark is opened and never closed", raw, is_endless=texts.has_lines)
        fault = texts.placed(_in_words(error))
    except MemoryError:  # csv takes many times the bytes of a cell
        return Row(number, [], "it needs more memory than there is", raw, is_endless=True)
    return Row(number, cells) if fault is None else Row(number, [], fault, raw)


def _reader(texts: Iterator[str], dialect: Dialect) -> Iterator[List[str]]:
    if dialect.quotes:
        return csv.reader(texts, delimiter=dialect.delimiter, strict=True)
    return csv.reader(texts, delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE, strict=True)


def _in_words(error: csv.Error) -> str:
    # What csv says of it is for whoever opened the file.
    is_return = str(error).startswith("new-line character")
    return f"no row of a table ({'a carriage return that is not quoted' if is_return else error})"


class _TooLong(Exception):
    """A row that may have lines has too many bytes."""


class _RowTexts:
    """The lines of one row as csv asks for them; _TooLong where they have too many bytes.

    Of one that is no text, ``fault`` says so, and csv gets what can be read: the row ends where it would anyway.
    """

    def __init__(self, number: int, lines: NumberedLines, dialect: Dialect):
        self.fault: Optional[str] = None
        self.is_ended = False  # whether csv asked for more than there are
        self._first = self._last = number
        self._size = 0
        self._lines = lines
        self._may_have_lines = dialect.quotes

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            self._last, raw = next(self._lines)
        except StopIteration:
            self.is_ended = True
            raise
        self._size += len(raw)
        if self._may_have_lines and self._size > tasks_lines.MAX_LINE_BYTES:
            most = tasks_lines.MAX_LINE_BYTES >> 20
            raise _TooLong(f"a row of more than {most} MiB: is a quotation mark never closed?")
        try:
            return line_text(self._last, raw)
        except BrokenLine as reason:
            self.fault = self.fault or self.placed(str(reason))
            return (raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw).replace("\0", "\ufffd")

    @property
    def has_lines(self) -> bool:
        """Whether more than one was asked for."""
        return self._last != self._first

    def placed(self, fault: str) -> str:
        """``fault``, with the number of the line that was read last where that is not the row's."""
        return f"{fault}, in line {self._last}" if self.has_lines else fault


def _of_width(row: Row, columns: int) -> Row:
    if not row.cells or len(row.cells) == columns:
        return row
    return row._replace(fault=f"{counted(len(row.cells), 'column')}, where the header has {columns}")


# What a cell cannot hold where nothing is quoted.
_BLANKS = str.maketrans("\t\r\n", "   ")


def row_text(cells: Sequence[str], dialect: Dialect) -> str:
    """A row as text with its line's end, of two cells or more.

    ``read_rows`` reads the same cells back; where nothing is quoted, a tab and a line's end in a cell become spaces.
    """
    if not dialect.quotes:
        return dialect.delimiter.join(cell.translate(_BLANKS) for cell in cells) + "\n"
    text = io.StringIO()
    # Only what is in its line ends is quoted: a lone carriage return ends a row too.
    csv.writer(text, delimiter=dialect.delimiter, lineterminator="\r\n").writerow(cells)
    return text.getvalue()[: -len("\r\n")] + "\n"
