"""What a job writes: lines as in line_formats.py, or the numbers of embeddings, as .npy or Parquet.

A file grows in parts, which a job appends as they are done. The lines are the file; .npy and Parquet say at their
beginning or end how long they are, so they are made of the parts when all of those are there.
"""

from typing import Any, BinaryIO, Callable, Iterator, List, Mapping, Optional, Protocol, Sequence, Tuple

import numpy as np

from neuronbert.errors import UsageError
from neuronbert.hardware.libraries import optional_imports
from neuronbert.tasks.base import Columns, ColumnType, Document, PathLike
from neuronbert.tasks.line_formats import FORMATS, LineFormat, cell_text, chosen_format

FLOAT = np.dtype("<f4")
COPIED_BYTES = 1 << 20  # at a time
GROUP_ROWS = 1 << 14  # of a Parquet file, which is read a group at a time

MakeWhole = Callable[[BinaryIO, BinaryIO], None]  # reads the parts, writes the file


class ResultFile(Protocol):
    """How a job's results are written in a file."""

    @property
    def name(self) -> str: ...

    def check(self, columns: Columns) -> None:
        """UsageError for results that such a file cannot hold; MissingLibrary where it cannot be written here."""

    def check_line(self, columns: Columns, of_line: Columns) -> None:
        """UsageError for results of a line that such a file cannot hold beside those of ``columns``."""

    def head(self, columns: Columns) -> bytes:
        """What stands before the first part."""

    def part(self, documents: Sequence[Document], columns: Columns) -> bytes:
        """Results and errors, in the order of their lines."""

    def unsaid(self, document: Document) -> Optional[str]:
        """What a result says that the file has no place for; None: nothing."""

    def made_of(self, columns: Columns) -> Optional[MakeWhole]:
        """What makes the file of its parts; None: one after another they are the file."""


class LinesFile:
    """Lines, or rows of a table."""

    def __init__(self, lines: LineFormat):
        self.name = lines.name
        self._lines = lines

    def check(self, columns: Columns) -> None:
        """Lines hold any result."""

    def check_line(self, columns: Columns, of_line: Columns) -> None:
        """Beside any other."""

    def head(self, columns: Columns) -> bytes:
        """The header of a table."""
        return self._lines.head([*columns]).encode("utf-8")

    def part(self, documents: Sequence[Document], columns: Columns) -> bytes:
        """A line each."""
        names = [*columns]
        return "".join(self._lines.line(document, names) for document in documents).encode("utf-8")

    def unsaid(self, document: Document) -> Optional[str]:
        """Nothing: every key has its place."""
        return None

    def made_of(self, columns: Columns) -> Optional[MakeWhole]:
        """The parts are the file."""
        return None


class NpyFile:
    """One float32 array [texts, width] for ``numpy.load``: a row for each line that is not blank.

    A line without a result has a row of NaN.
    """

    name = "npy"

    def check(self, columns: Columns) -> None:
        """One embedding of each text."""
        _vector(columns)

    def check_line(self, columns: Columns, of_line: Columns) -> None:
        """An embedding as wide as all others."""
        (_, width), (_, own) = _vector(columns), _vector(of_line)
        if own != width:
            raise UsageError(
                f"its embedding would have {own:,} numbers, and a row of the .npy file has {width:,}",
                hint="no truncate_dim in a line; or --output-format jsonl, csv or parquet",
            )

    def head(self, columns: Columns) -> bytes:
        """Nothing: it says how many rows there are."""
        return b""

    def part(self, documents: Sequence[Document], columns: Columns) -> bytes:
        """The rows' numbers."""
        name, width = _vector(columns)
        rows = np.full((len(documents), width), np.nan, FLOAT)
        for row, document in zip(rows, documents):
            if name in document:
                row[:] = document[name]
        return rows.tobytes()

    def unsaid(self, document: Document) -> Optional[str]:
        """That a text was cut."""
        if document.get("truncated"):
            return "the text is longer than the model reads, and its end was left out, which .npy has no place to say"
        return None

    def made_of(self, columns: Columns) -> Optional[MakeWhole]:
        """A header, which says how many rows there are, before them."""
        _, width = _vector(columns)

        def make(parts: BinaryIO, whole: BinaryIO) -> None:
            rows = parts.seek(0, 2) // (FLOAT.itemsize * width)
            parts.seek(0)
            header = {"descr": FLOAT.str, "fortran_order": False, "shape": (rows, width)}
            np.lib.format.write_array_header_1_0(whole, header)
            for data in iter(lambda: parts.read(COPIED_BYTES), b""):
                whole.write(data)

        return make


class ParquetFile:
    """A row for each line that is not blank, in typed columns: ``line``, ``id`` (as text), the results', ``error``.

    Embeddings are lists of float32; what is a list of objects in a line of JSON is that JSON, as text. A part is a
    stream of Arrow's IPC format.
    """

    name = "parquet"

    def check(self, columns: Columns) -> None:
        """Any results, where pyarrow is there."""
        with optional_imports():
            import pyarrow.parquet  # noqa: F401

    def check_line(self, columns: Columns, of_line: Columns) -> None:
        """Embeddings of any width."""

    def head(self, columns: Columns) -> bytes:
        """Nothing: every part has the names of its columns."""
        return b""

    @optional_imports()
    def part(self, documents: Sequence[Document], columns: Columns) -> bytes:
        """A stream of one batch."""
        import pyarrow

        schema = _schema(columns)
        arrays = [
            pyarrow.array([_arrow_value(document.get(field.name), field.type) for document in documents], field.type)
            for field in schema
        ]
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, schema) as stream:
            stream.write_batch(pyarrow.record_batch(arrays, schema=schema))
        return bytes(sink.getvalue())

    def unsaid(self, document: Document) -> Optional[str]:
        """Nothing: every key has its column."""
        return None

    def made_of(self, columns: Columns) -> Optional[MakeWhole]:
        """The batches in larger groups."""

        @optional_imports()
        def make(parts: BinaryIO, whole: BinaryIO) -> None:
            import pyarrow
            from pyarrow import parquet

            schema = _schema(columns)
            with parquet.ParquetWriter(whole, schema) as writer:
                for group in _groups(_batches(parts)):
                    writer.write_table(pyarrow.Table.from_batches(group, schema), row_group_size=GROUP_ROWS)

        return make


RESULT_FILES: Mapping[str, ResultFile] = {
    **{name: LinesFile(lines) for name, lines in FORMATS.items()},
    NpyFile.name: NpyFile(),
    ParquetFile.name: ParquetFile(),
}


def result_file(option: str, name: Optional[str], path: PathLike) -> ResultFile:
    """The one called ``name``, the value of ``option``; without one that of the suffix of ``path``, or JSON lines.

    UsageError for a name that none has.
    """
    return chosen_format(RESULT_FILES, option, name, path)


# ---------------------------------------------------------------------------- .npy


def _vector(columns: Columns) -> Tuple[str, int]:
    """The name and the width of the one embedding that results have; UsageError where they have none."""
    found = [(name, column.width) for name, column in columns.items() if column.type is ColumnType.VECTOR]
    if len(found) != 1:
        raise UsageError(
            f"an .npy file holds one embedding of each text, and these results have {', '.join(columns)}",
            hint="--output-format jsonl, csv or parquet",
        )
    return found[0]


# ---------------------------------------------------------------------------- Parquet


def _schema(columns: Columns) -> Any:
    with optional_imports():
        import pyarrow

    numbers = pyarrow.list_(pyarrow.float32())
    types = {
        ColumnType.TEXT: pyarrow.string(),
        ColumnType.NUMBER: pyarrow.float64(),
        ColumnType.WHOLE: pyarrow.int64(),
        ColumnType.FLAG: pyarrow.bool_(),
        ColumnType.OBJECTS: pyarrow.string(),
        ColumnType.VECTOR: numbers,
        ColumnType.VECTORS: pyarrow.list_(numbers),
    }
    return pyarrow.schema(
        [
            ("line", pyarrow.int64()),
            ("id", pyarrow.string()),
            *((name, types[column.type]) for name, column in columns.items()),
            ("error", pyarrow.string()),
        ]
    )


def _arrow_value(value: Any, arrow_type: Any) -> Any:
    """A value of a document as pyarrow takes it for a column of that type."""
    return value if value is None or str(arrow_type) != "string" else cell_text(value)


def _batches(parts: BinaryIO) -> Iterator[Any]:
    """The batches of streams that stand one behind another."""
    with optional_imports():
        import pyarrow

    end = parts.seek(0, 2)
    parts.seek(0)
    while parts.tell() < end:
        with pyarrow.ipc.open_stream(parts) as stream:
            yield from stream


def _groups(batches: Iterator[Any]) -> Iterator[List[Any]]:
    group: List[Any] = []
    for batch in batches:
        group.append(batch)
        if sum(each.num_rows for each in group) >= GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group
