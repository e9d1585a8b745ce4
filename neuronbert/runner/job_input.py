"""The input of an offline job, in blocks of whole entries, with how far it was read; ``job`` answers the blocks."""

import hashlib
import os
import stat
from contextlib import contextmanager
from typing import BinaryIO, Iterator, List, NamedTuple

from neuronbert.artifact.manifest import PathLike
from neuronbert.artifact.resumable import Record, anew, partial_path
from neuronbert.errors import InputError, OutputError, counted
from neuronbert.hardware.untrusted import blocks_of
from neuronbert.tasks.base import LineForm
from neuronbert.tasks.line_formats import LineFormat
from neuronbert.tasks.lines import BoundedLines, Entry, open_lines, reading

# A block is as long as all that is done before it, up to these: what is lost by a kill is at most half of the work, and
# never more than seconds of it. Longer blocks would save little: with 256 lines 2.5 % of a batch is padding (XQuAD,
# batches of 8), with 512 lines 1.6 %, with 64 lines 9 %. Part of what an unfinished job was begun with: a release that
# changes any of them must not go on with it.
FIRST_LINES, BLOCK_LINES = 8, 256
FIRST_BYTES, BLOCK_BYTES = 1 << 14, 1 << 19


class JobInput:
    """The input in blocks of whole entries; ``bytes``, ``lines`` and ``sha256`` say how far it was read, and
    ``total`` how many lines there were when it was opened (None: nobody knows).

    It may grow while it is read, but not become shorter: then what is left of it is another input.
    """

    def __init__(self, file: BinaryIO, path: PathLike):
        self.resumable = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        self.kind = "file" if self.resumable else "stream"
        with reading(file):
            self._begun_with = _extent(file) if self.resumable else None
        self.total = self._begun_with.lines if self._begun_with else None
        self.bytes = 0
        self._entries: Iterator[Entry] = iter(())
        self._path = path
        self._file = file
        self._source = BoundedLines(file, self._count)
        self._sha = hashlib.sha256()

    @property
    def lines(self) -> int:
        """How many lines were read."""
        return self._source.count

    @property
    def sha256(self) -> str:
        """The digest of what was read so far."""
        return self._sha.hexdigest()

    @property
    def is_inside(self) -> bool:
        """Whether the last line is too long, and its end was not read."""
        return self._source.is_inside

    @property
    def is_ended(self) -> bool:
        """Whether the last block was cut short by the end of the input: with more lines it would be another."""
        return self._source.is_ended

    def begin(self, line_format: LineFormat, form: LineForm) -> None:
        """Read what stands before the first entry. InputError if such inputs cannot come after it."""
        self._entries = line_format.entries(self._source.numbered(), form)

    def skip(self, record: Record, output: PathLike) -> None:
        """Skip what an earlier run did, once begun. OutputError if the input no longer begins with it."""
        if not record.input_lines:
            return
        with reading(self._file):
            for block in blocks_of(self._file, record.input_bytes - self.bytes):
                self._count(block)
        if self.sha256 != record.input_sha256:
            raise OutputError(
                f"{partial_path(output)} was begun with another input: the first {record.input_bytes:,} bytes of this "
                "one are others",
                hint=f"the same input, or {anew(output)}",
            )
        self._source.count = record.input_lines

    def block(self) -> List[Entry]:
        """The next entries; none at the end. A line that is too long is the last of its block (see ``pass_over``).

        InputError where the input ends before the end that it had.
        """
        entries: List[Entry] = []
        last_line = self.lines + min(max(FIRST_LINES, self.lines), BLOCK_LINES)
        end = self.bytes + min(max(FIRST_BYTES, self.bytes), BLOCK_BYTES)
        while self.lines < last_line and self.bytes < end and not self._source.is_inside:
            try:
                entry = next(self._entries, None)
            except InputError:
                self._refuse_shorter()  # which is why it is broken
                raise
            if entry is None:
                break
            entries.append(entry)
        self._refuse_shorter()
        return entries

    def pass_over(self) -> None:
        """Read on to the end of a line that is too long, so that what was read ends with a line."""
        self._source.pass_over()
        self._refuse_shorter()

    def _refuse_shorter(self) -> None:
        before = self._begun_with
        if before is not None and self.is_ended and self.bytes < before.bytes:
            raise InputError(
                f"{self._path} was changed while it was read: it had {counted(before.bytes, 'byte')} in "
                f"{counted(before.lines, 'line')}, and now ends behind {counted(self.bytes, 'byte')} in "
                f"{counted(self.lines, 'line')}",
                hint="put it back as it was, and give the same command again",
            )

    def _count(self, data: bytes) -> None:
        self._sha.update(data)
        self.bytes += len(data)


class _Extent(NamedTuple):
    bytes: int
    lines: int


def _extent(file: BinaryIO) -> _Extent:
    """What there is from here on; the file is read from here again."""
    begin, size, ends, last = file.tell(), 0, 0, b"\n"
    for block in blocks_of(file):
        size += len(block)
        ends += block.count(b"\n")
        last = block[-1:]
    file.seek(begin)
    return _Extent(size, ends + (last != b"\n"))


@contextmanager
def open_input(path: PathLike) -> Iterator[JobInput]:
    """The file at ``path``, or stdin for "-"; InputError for a file that cannot be opened."""
    with open_lines(path, hint="a .jsonl, .csv or .tsv file, or - for stdin") as file:
        yield JobInput(file, "stdin" if path == "-" else path)
