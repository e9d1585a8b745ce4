"""What a job writes: parts that are the file, and parts that a file is made of."""

import io
import json
from typing import Any, Dict, List, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import MissingLibrary, UsageError
from neuronbert.tasks import result_files
from neuronbert.tasks.base import Column, Columns, ColumnType
from neuronbert.tasks.line_formats import FORMATS
from neuronbert.tasks.result_files import RESULT_FILES, ResultFile, result_file

WIDTH = 3
EMBEDDINGS: Columns = {"embedding": Column(ColumnType.VECTOR, WIDTH), "truncated": Column(ColumnType.FLAG)}
TOKENS: Columns = {"token_embeddings": Column(ColumnType.VECTORS), "truncated": Column(ColumnType.FLAG)}
ANSWERS: Columns = {
    "answer": Column(ColumnType.TEXT),
    "score": Column(ColumnType.NUMBER),
    "start": Column(ColumnType.WHOLE),
    "answers": Column(ColumnType.OBJECTS),
}
NPY, PARQUET = RESULT_FILES["npy"], RESULT_FILES["parquet"]
FLOATS = st.floats(width=32, allow_nan=False)
DOCUMENTS = st.one_of(
    st.fixed_dictionaries({"embedding": st.lists(FLOATS, min_size=WIDTH, max_size=WIDTH)}),
    st.fixed_dictionaries({"embedding": st.just([0.5] * WIDTH), "truncated": st.just(True), "id": st.integers()}),
    st.fixed_dictionaries({"error": st.text(max_size=5)}, optional={"id": st.text(max_size=5)}),
)
PARTS = st.lists(st.lists(DOCUMENTS, max_size=4), max_size=4)


def written(kind: ResultFile, parts: Sequence[Sequence[Dict[str, Any]]], columns: Columns) -> bytes:
    """The file that a job of these steps leaves."""
    kind.check(columns)
    grown = io.BytesIO(kind.head(columns) + b"".join(kind.part(part, columns) for part in parts))
    make = kind.made_of(columns)
    if make is None:
        return grown.getvalue()
    whole = io.BytesIO()
    make(grown, whole)
    return whole.getvalue()


def numbered(parts: Sequence[Sequence[Dict[str, Any]]]) -> List[List[Dict[str, Any]]]:
    lines = iter(range(1, 1000))
    return [[{"line": next(lines), **document} for document in part] for part in parts]


# ---- lines


@pytest.mark.parametrize("name", list(FORMATS))
def test_parts_of_lines_are_the_file(name: str) -> None:
    documents = [{"line": 1, "answer": "é", "score": 0.5}, {"line": 2, "error": "half \udc80"}]
    lines = FORMATS[name]
    expected = lines.head([*ANSWERS]) + "".join(lines.line(document, [*ANSWERS]) for document in documents)
    assert written(RESULT_FILES[name], [documents[:1], documents[1:]], ANSWERS) == expected.encode("utf-8")


# ---- .npy


@given(parts=PARTS)
def test_npy_has_a_row_for_each_line_and_nan_for_an_error(parts: List[List[Dict[str, Any]]]) -> None:
    array = np.load(io.BytesIO(written(NPY, numbered(parts), EMBEDDINGS)))
    documents = [document for part in parts for document in part]
    assert array.dtype == np.float32 and array.shape == (len(documents), WIDTH)
    for row, document in zip(array, documents):
        np.testing.assert_array_equal(row, np.float32(document.get("embedding", [np.nan] * WIDTH)))


def test_npy_refuses_results_without_one_embedding_each() -> None:
    for columns in (ANSWERS, TOKENS):
        with pytest.raises(UsageError, match="one embedding of each text, and these results have") as caught:
            NPY.check(columns)
        assert "parquet" in str(caught.value.hint)


def test_npy_refuses_a_line_of_another_width() -> None:
    narrow = {**EMBEDDINGS, "embedding": Column(ColumnType.VECTOR, 2)}
    with pytest.raises(UsageError, match="^its embedding would have 2 numbers, and a row of the .npy file has 3"):
        NPY.check_line(EMBEDDINGS, narrow)
    for name, kind in RESULT_FILES.items():
        kind.check_line(EMBEDDINGS, EMBEDDINGS if name == "npy" else narrow)


def test_npy_cannot_say_that_a_text_was_cut() -> None:
    cut, whole = {"line": 1, "embedding": [0.0] * WIDTH, "truncated": True}, {"line": 2, "embedding": [0.0] * WIDTH}
    assert "longer than the model reads" in str(NPY.unsaid(cut)) and NPY.unsaid(whole) is None
    assert all(RESULT_FILES[name].unsaid(cut) is None for name in RESULT_FILES if name != "npy")


# ---- Parquet


def rows_of(data: bytes) -> List[Dict[str, Any]]:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows: List[Dict[str, Any]] = parquet.read_table(io.BytesIO(data)).to_pylist()
    return rows


@given(parts=PARTS)
def test_parquet_has_every_key_of_every_line(parts: List[List[Dict[str, Any]]]) -> None:
    pytest.importorskip("pyarrow")
    documents = [document for part in numbered(parts) for document in part]
    rows = rows_of(written(PARQUET, numbered(parts), EMBEDDINGS))
    for row, document in zip(rows, documents):
        expected = dict.fromkeys(("line", "id", *EMBEDDINGS, "error"))
        expected.update(document)
        assert row == {**expected, "id": None if "id" not in document else str(document["id"])}
    assert len(rows) == len(documents)


def test_parquet_of_tokens_and_of_lists() -> None:
    pytest.importorskip("pyarrow")
    tokens = [{"line": 1, "token_embeddings": [[0.5, 1.0], [2.0, 3.0]]}, {"line": 2, "error": "broken"}]
    assert [row["token_embeddings"] for row in rows_of(written(PARQUET, [tokens], TOKENS))] == [
        [[0.5, 1.0], [2.0, 3.0]],
        None,
    ]
    answers = [
        {"line": 1, "answer": "é", "score": 0.25, "start": 3},
        {"line": 2, "id": 5, "answers": [{"answer": "è"}]},
        {"line": 3, "error": "half \udc80"},
    ]
    first, second, third = rows_of(written(PARQUET, [answers[:1], answers[1:]], ANSWERS))
    assert (first["answer"], first["score"], first["start"], first["answers"]) == ("é", 0.25, 3, None)
    assert json.loads(second["answers"]) == [{"answer": "è"}] and second["id"] == "5" and second["score"] is None
    assert third["error"] == "half \\udc80"


def test_parquet_has_its_columns_and_their_types_whatever_the_results() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    schemas = [
        parquet.read_schema(io.BytesIO(written(PARQUET, parts, EMBEDDINGS)))
        for parts in ([], [[{"line": 1, "error": "x"}]], [[{"line": 1, "embedding": [1.0] * WIDTH}]])
    ]
    assert schemas[0].names == ["line", "id", "embedding", "truncated", "error"]
    assert schemas[0] == schemas[1] == schemas[2]


def test_parts_become_larger_groups_of_a_parquet_file(monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(result_files, "GROUP_ROWS", 4)
    parts = [[{"embedding": [float(number)] * WIDTH}, {"embedding": [0.0] * WIDTH}] for number in range(5)]
    data = written(PARQUET, numbered(parts), EMBEDDINGS)
    metadata = parquet.ParquetFile(io.BytesIO(data)).metadata
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [4, 4, 2]
    assert [row["embedding"][0] for row in rows_of(data)[::2]] == [0, 1, 2, 3, 4]


def test_parquet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingLibrary, match="pyarrow is not installed: needed to write Parquet files") as caught:
        PARQUET.check(EMBEDDINGS)
    assert "neuronbert[parquet]" in str(caught.value.hint)


# ---- which one


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        (None, "a.npy", "npy"), (None, "b/a.Parquet", "parquet"), (None, "a.csv", "csv"), (None, "a.TSV", "tsv"),
        (None, "a.jsonl", "jsonl"), (None, "a.txt", "jsonl"), (None, "npy", "jsonl"), ("npy", "a.csv", "npy"),
        ("jsonl", "a.npy", "jsonl"),
    ],
)  # fmt: skip
def test_a_file_is_named_or_is_that_of_the_suffix(name: Any, path: str, expected: str) -> None:
    assert result_file("output_format", name, path).name == expected


@pytest.mark.parametrize("name", ["xlsx", "NPY", "", 5])
def test_an_unknown_one_is_refused_with_those_that_there_are(name: Any) -> None:
    with pytest.raises(UsageError, match="^output_format is ") as caught:
        result_file("output_format", name, "a.csv")
    assert caught.value.hint == "jsonl, csv, tsv, npy, parquet"
