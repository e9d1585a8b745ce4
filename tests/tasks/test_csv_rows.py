"""Rows of CSV and TSV: those that other programs write, those that are written here, and what is broken."""

import csv
import io
from typing import Any, List, Optional, Sequence, Tuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neuronbert.tasks import lines as tasks_lines
from neuronbert.tasks.csv_rows import DIALECTS, Row, read_rows, read_table, row_text
from neuronbert.tasks.lines import BoundedLines

CSV, TSV = DIALECTS["csv"], DIALECTS["tsv"]
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ODD_CELL = st.one_of(CELL, st.text('",\n\r\t a', max_size=6))
ROWS = st.lists(st.lists(ODD_CELL, min_size=2, max_size=4), max_size=6)


def rows_of(data: bytes, dialect: Any = CSV) -> List[Row]:
    return list(read_rows(BoundedLines(io.BytesIO(data)).numbered(), dialect))


def cells_of(data: bytes, dialect: Any = CSV) -> List[List[str]]:
    rows = rows_of(data, dialect)
    assert [row.fault for row in rows] == [None] * len(rows)
    return [row.cells for row in rows]


def table_of(data: bytes, dialect: Any = CSV) -> Tuple[Row, List[Row]]:
    header, rows = read_table(BoundedLines(io.BytesIO(data)).numbered(), dialect)
    return header, list(rows)


# ---- what Python's csv writes and reads


@given(rows=ROWS, newline=st.sampled_from(["\n", "\r\n"]), last=st.booleans())
@example(rows=[['say "hi",\nor\r\nnot\r', "\u2028\x85\x0b\x1c"], ["", ""]], newline="\n", last=False)
def test_what_csv_writes_is_read_with_the_lines_where_it_begins(
    rows: List[List[str]], newline: str, last: bool
) -> None:
    written = []
    for row in rows:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL).writerow(row)
        written.append(text.getvalue())
    data = "".join(written).encode()
    found = rows_of(data if last or not data else data[: -len(newline)])
    assert [row.cells for row in found] == rows
    begins = [1 + "".join(written[:number]).count("\n") for number in range(len(rows))]
    assert [row.line_number for row in found] == begins


@given(st.text('ab,"\n\r', max_size=60))
@example('"a" b,c\n"d\ne",f\n')
@example('a"b,5" wide\n"never,closed\n')
@example('a\rb\n"c"\r\n""\n')
def test_a_row_is_what_csv_takes_for_one(text: str) -> None:
    """Broken ones too: behind each csv goes on with the next line."""
    theirs: List[Optional[List[str]]] = []
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    while True:
        try:
            theirs.append(next(reader))
        except csv.Error:
            theirs.append(None)
        except StopIteration:
            break
    assert [row.cells if row.fault is None else None for row in rows_of(text.encode())] == theirs


@given(ROWS)
def test_what_is_written_is_read_back(rows: List[List[str]]) -> None:
    text = "".join(row_text(row, CSV) for row in rows)
    assert cells_of(text.encode()) == rows
    # By others as well, whose lines may end otherwise.
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == rows


@given(ROWS)
def test_where_nothing_is_quoted_a_row_is_a_line(rows: List[List[str]]) -> None:
    text = "".join(row_text(row, TSV) for row in rows)
    plain = [[cell.replace("\t", " ").replace("\n", " ").replace("\r", " ") for cell in row] for row in rows]
    assert text == "".join("\t".join(row) + "\n" for row in plain)
    assert [row.cells for row in rows_of(text.encode(), TSV)] == plain


def test_a_mark_in_a_tsv_file_is_one() -> None:
    assert cells_of(b'"a\t5" b\n"\t""\n', TSV) == [['"a', '5" b'], ['"', '""']]


def test_a_cell_may_be_longer_than_csv_takes_of_itself() -> None:
    long = "word, " * 100_000
    assert cells_of(f'"{long}",b\n'.encode()) == [[long, "b"]]
    assert cells_of(f"{long}\tb\n".encode(), TSV) == [[long, "b"]]


@pytest.mark.parametrize("blank", ["\n", "  \n", "\r\n", " "])
def test_blank_lines_are_rows_without_cells(blank: str) -> None:
    assert rows_of(f"a,b\n{blank}".encode()) == [Row(1, ["a", "b"]), Row(2, [])]


def test_what_is_quoted_or_separated_is_no_blank_line() -> None:
    assert cells_of(b'""\n" "\n,\n') == [[""], [" "], ["", ""]]
    assert cells_of(b"\t\n", TSV) == [["", ""]]


@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_byte_order_mark_is_no_part_of_the_first_cell(mark: str) -> None:
    assert cells_of(f'{mark}"a",b\r\n\ufeffc,d\r\n'.encode()) == [["a", "b"], ["\ufeffc", "d"]]


# ---- the header


def test_the_names_of_columns_lose_the_spaces_around_them() -> None:
    header, rows = table_of(b"\n\n a , b\nc,d\n")
    assert header == Row(3, ["a", "b"]) and rows == [Row(4, ["c", "d"])]


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_a_file_without_a_header_has_no_rows(data: bytes) -> None:
    header, rows = table_of(data)
    assert (header.cells, header.fault) == ([], None) and not [row for row in rows if row.cells or row.fault]


def test_two_columns_of_one_name_are_told() -> None:
    assert table_of(b"a,b, a\n")[0].fault == "the header has the column 'a' twice"
    assert table_of(b",a,\n1,2,3\n") == (Row(1, ["", "a", ""]), [Row(2, ["1", "2", "3"])])  # they have none


def test_a_row_has_as_many_cells_as_the_header() -> None:
    _, rows = table_of(b"a,b\n1\n\n1,2,3\n1,2\n")
    assert [row.fault for row in rows] == [
        "1 column, where the header has 2", None, "3 columns, where the header has 2", None,
    ]  # fmt: skip


# ---- what is broken


@pytest.mark.parametrize(
    ("data", "faults"),
    [
        (b'"a" b,c\nd,e\n', ["no row of a table (',' expected after '\"')", None]),
        (b'"a\nb\n"c,d\ne,f\n', ["no row of a table (',' expected after '\"'), in line 3", None]),
        (b'a,b\nc,"', [None, "a quotation mark is opened and never closed"]),
        (b"a\rb,c\nd,e\n", ["no row of a table (a carriage return that is not quoted)", None]),
        (b"a,\xff\nb,c\n", ["not UTF-8 text (byte 0xff)", None]),
        (b'a,"\n\xff"\nb,c\n', ["not UTF-8 text (byte 0xff), in line 2", None]),  # it ends where it would anyway
        (b'a,"\n\n\xe9\n\xff"\nb,c\n', ["not UTF-8 text (byte 0xe9), in line 3", None]),
        (b"a,\0\nb,c\n", ["a NUL byte at column 3, which no text holds", None]),
        (b'a,"\nb\0"\nb,c\n', ["a NUL byte at column 2, which no text holds, in line 2", None]),
    ],
)
def test_a_broken_row_says_what_is_wrong_and_the_next_one_is_read(data: bytes, faults: Sequence[Optional[str]]) -> None:
    rows, lines = rows_of(data), io.BytesIO(data).readlines()
    assert [row.fault for row in rows] == faults
    for row in rows:
        assert row.fault is None or (row.cells == [] and row.raw == lines[row.line_number - 1])


def test_behind_a_row_that_is_too_long_none_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_lines, "MAX_LINE_BYTES", 10)
    assert cells_of(b'a,"34\n78"\nb,c\n') == [["a", "34\n78"], ["b", "c"]]  # ten bytes
    source = BoundedLines(io.BytesIO(b'a,b\nc,"456\n89"\n' + b"d,e\n" * 9))
    first, second = read_rows(source.numbered(), CSV)
    assert first.cells == ["a", "b"] and (second.line_number, second.is_endless) == (2, True)
    assert second.fault == "a row of more than 0 MiB: is a quotation mark never closed?" and source.count == 3
    (row,) = rows_of(b"longer than that,\nb,c\n")
    assert row.is_endless


def test_behind_a_mark_that_is_never_closed_none_is_lost_silently() -> None:
    first, second = rows_of(b'a,b\n"c,d\ne,f\ng,h\n')
    assert first.cells == ["a", "b"] and second.fault == "a quotation mark is opened and never closed"
    assert second.is_endless and second.line_number == 2
    (_, last) = rows_of(b'a,b\nc,"')
    assert not last.is_endless


def test_a_line_that_is_too_long_is_a_broken_row_where_a_row_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_lines, "MAX_LINE_BYTES", 10)
    long, short = rows_of(b"longer than\tthat\nb\tc\n", TSV)
    assert long.fault == "longer than 0 MiB: is it text?" and not long.is_endless and short.cells == ["b", "c"]


def test_a_row_without_an_end_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_lines, "MAX_LINE_BYTES", 1000)
    with open("/dev/zero", "rb") as file:
        (row,) = read_rows(BoundedLines(file).numbered(), CSV)
        assert row.is_endless and len(row.raw) == 1001


def test_a_row_that_memory_does_not_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(csv, "reader", exhausted)
    (row,) = rows_of(b"a,b\nc,d\n")
    assert row == Row(1, [], "it needs more memory than there is", b"a,b\n", is_endless=True)
