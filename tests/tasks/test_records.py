"""neuronbert.tasks.records: what Python's own csv and json write is read back, and what is broken is named."""

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any, Dict, List

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neuronbert.errors import InputError
from neuronbert.tasks import records
from neuronbert.tasks.records import Record, field, read_records, refuse_without

HINT = "a file of texts"
BOM = b"\xef\xbb\xbf"
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(path: Path) -> List[Dict[str, Any]]:
    return [record.fields for record in read_records(path, HINT)]


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_records(path, HINT)
    return caught.value.message


# ---- what other programs write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), newline=st.sampled_from(["\n", "\r\n"]))
@example(rows=[('say "hi",\nor\r\nnot\r', ",")], newline="\r\n")
@example(rows=[("\u2028\x85\x0b\x1c", "\ufeff")], newline="\n")  # what str.splitlines takes for the end of a line
def test_a_csv_file_holds_what_was_written(folder: Path, rows: List[Any], newline: str) -> None:
    text = io.StringIO(newline="")
    # Python quotes a lone \r only where that is in its line ends.
    writer = csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL if newline == "\n" else csv.QUOTE_MINIMAL)
    writer.writerows([("text", "label"), *rows])
    path = write(folder, "written.csv", text.getvalue())
    assert [tuple(row.values()) for row in rows_of(path)] == rows
    assert all(list(row) == ["text", "label"] for row in rows_of(path))


@given(
    rows=st.lists(st.dictionaries(CELL, st.one_of(CELL, st.integers(), st.booleans(), st.lists(CELL))), min_size=1),
    ascii_only=st.booleans(),
)
@example(rows=[{"text": "\u2028 is no end of a line", "label": 1}], ascii_only=False)
def test_json_lines_hold_what_was_written(folder: Path, rows: List[Any], ascii_only: bool) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    assert rows_of(write(folder, "written.jsonl", lines)) == rows


def test_a_tsv_file_quotes_nothing(tmp_path: Path) -> None:
    """As in GLUE: a quotation mark is one, wherever it is, and never begins a field of several lines."""
    path = write(tmp_path, "train.tsv", 'sentence\tlabel\n"Quoted" he said\t1\nan "odd one\t0\n"\t1\n')
    assert [row["sentence"] for row in rows_of(path)] == ['"Quoted" he said', 'an "odd one', '"']


def test_a_field_of_several_lines_is_one(tmp_path: Path) -> None:
    path = write(tmp_path, "train.csv", 'text,label\n"two\nlines",a\r\n"a ""quote"", a comma",b\n\n"  ",c\n')
    assert read_records(path, HINT) == [
        Record(2, {"text": "two\nlines", "label": "a"}),
        Record(4, {"text": 'a "quote", a comma', "label": "b"}),
        Record(6, {"text": "  ", "label": "c"}),
    ]


@pytest.mark.parametrize("bom", [b"", BOM])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.csv", ["text,label", "é,1", "中,2"]),
        ("a.TSV", ["text\tlabel", "é\t1", "中\t2"]),
        ("a.jsonl", ['{"text": "é", "label": "1"}', '{"text": "中", "label": "2"}']),
    ],
)
def test_marks_and_line_ends_of_other_systems(
    tmp_path: Path, bom: bytes, newline: str, name: str, lines: List[str]
) -> None:
    for end in (newline, ""):  # with and without one behind the last line
        path = write(tmp_path, name, bom + (newline.join(lines) + end).encode())
        assert rows_of(path) == [{"text": "é", "label": "1"}, {"text": "中", "label": "2"}]


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    assert [one.line_number for one in read_records(write(tmp_path, "a.csv", "\ntext\n\na\n\nb\n"), HINT)] == [4, 6]
    assert [one.line_number for one in read_records(write(tmp_path, "a.jsonl", '\n \n{}\n\n{"a": 1}'), HINT)] == [3, 5]


def test_names_of_columns_lose_the_spaces_around_them(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path, "a.csv", " text , label\n a ,b\n")) == [{"text": " a ", "label": "b"}]


def test_a_text_of_many_lines_is_no_problem(tmp_path: Path) -> None:
    long = "word " * 20_000
    assert rows_of(write(tmp_path, "a.csv", f'text,label\n"{long}",1\n'))[0]["text"] == long
    assert rows_of(write(tmp_path, "a.jsonl", json.dumps({"text": long * 5})))[0]["text"] == long * 5


# ---- what is broken


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\na,1\nb\n", "line 3: 1 column, where the header has 2"),
        ("a.csv", "text,label\na,1,x\n", "line 2: 3 columns, where the header has 2"),
        ("a.csv", 'text,label\n"two\nlines",1\nb\n', "line 4: 1 column, where the header has 2"),
        ("a.tsv", "text\tlabel\na,1\n", "line 2: 1 column, where the header has 2"),
        ("a.csv", "text,label,text\na,1,b\n", " has the column 'text' twice"),
        ("a.csv", "text, text\na,1\n", " has the column 'text' twice"),
        ("a.csv", 'text,label\n"a" b,1\n', "line 2: "),  # text behind a closing quotation mark
        ("a.csv", 'text,label\na,1\n"never closed,1\nb,2\n', "line 3: "),
        ("a.csv", "", " holds no record"),
        ("a.csv", "text,label\n", " holds no record"),
        ("a.csv", "text,label\n\n\n", " holds no record"),
        ("a.csv", BOM, " holds no record"),
        ("a.jsonl", "", " holds no record"),
        ("a.jsonl", "\n \n", " holds no record"),
        ("a.jsonl", '{"text": "a"}\n{"text": ', "line 2 is no JSON that can be read"),
        ("a.jsonl", '{"text": "a"}\n[1]\n', "line 2 holds [1], not a JSON object"),
        ("a.jsonl", '{"text": "a", "text": "b"}', "line 1 is no JSON that can be read"),
        ("a.jsonl", '{"text": "\\ud800"}', "line 1 is no JSON that can be read"),
        ("a.jsonl", '{"label": NaN}', "line 1 is no JSON that can be read"),
        ("a.jsonl", '{"a": ' * 5000 + "1" + "}" * 5000, "line 1 is no JSON that can be read"),
        ("a.csv", b"text,label\na,1\nb\xff,2\n", "line 3: not UTF-8 text (byte 0xff)"),
        ("a.csv", BOM + b"text,label\na,1\nb\xfe,2\n", "line 3: not UTF-8 text (byte 0xfe)"),
        ("a.jsonl", BOM + b'{"text": "a"}\n\xe9\n', "line 2: not UTF-8 text (byte 0xe9)"),
        ("a.csv", b"text,label\n\0,1\n", " is binary, not text"),
        ("a.csv", gzip.compress(b"text,label\na,1\n", mtime=0), " is gzip-compressed"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), " is UTF-16, not UTF-8"),
        ("a.tsv", b"\xfe\xff" + "text\na".encode("utf-16-be"), " is UTF-16, not UTF-8"),
        ("a.csv", "text\na\n".encode("utf-16-le"), " is binary, not text"),  # without a mark
        ("a.json", "[]", " is none of .csv, .tsv, .jsonl"),
        ("a.csv.gz", "text,label\n", " is none of .csv, .tsv, .jsonl"),
        ("texts", "text,label\n", " is none of .csv, .tsv, .jsonl"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_the_line(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = write(tmp_path, name, content)
    said = refused(path)
    assert said.startswith(str(path)) and message in said.replace(f"{path},", "").replace(str(path), "")


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "missing.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder, not a file" in refused(tmp_path / "folder.csv")
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "is a named pipe, not a file" in refused(tmp_path / "pipe.jsonl")
    (tmp_path / "link.tsv").symlink_to("nowhere.tsv")
    assert "a symbolic link to 'nowhere.tsv', which is not there" in refused(tmp_path / "link.tsv")


def test_a_file_of_any_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", 10)
    assert "has 12 bytes, and more than 10 make no sense" in refused(write(tmp_path, "a.csv", "text\na\nb\nc\n\n"))


def test_every_error_has_the_callers_hint(tmp_path: Path) -> None:
    for name, content in (("a.csv", "text,label\na\n"), ("a.json", ""), ("a.jsonl", "[]"), ("a.csv", b"\0")):
        with pytest.raises(InputError) as caught:
            read_records(write(tmp_path, name, content), HINT)
        assert caught.value.hint == HINT
    with pytest.raises(InputError) as caught:
        read_records(tmp_path / "missing.csv", HINT)
    assert caught.value.hint == f"check the path; {HINT}"


# ---- fields


def test_the_first_name_that_has_a_value_counts() -> None:
    record = Record(1, {"label": "", "category": None, "score": 0, "intent": "x"})
    assert field(record, ("label", "category", "score", "intent")) == 0
    assert field(record, ("intent", "score")) == "x"
    assert field(record, ("label", "other")) is None
    assert field(Record(1, {"label": False, "labels": []}), ("label",)) is False
    assert field(Record(1, {"labels": []}), ("label", "labels")) == []


def test_a_missing_column_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "utterance,intent\na,b\n")
    with pytest.raises(InputError) as caught:
        refuse_without(read_records(path, HINT), ("text", "sentence"), path, HINT)
    assert caught.value.message == f"{path} has no column 'text'; it has 'utterance', 'intent'"
    refuse_without(read_records(path, HINT), ("text", "utterance"), path, HINT)
