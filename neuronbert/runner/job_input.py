"""The input of an offline job, in blocks of whole lines, with how far it was read; ``job`` answers the blocks."""

import hashlib
import os
import stat
from contextlib import contextmanager
from typing import BinaryIO, Iterator, List

from neuronbert.artifact.manifest import PathLike
from neuronbert.artifact.resumable import Record, anew, partial_path
from neuronbert.errors import OutputError
from neuronbert.hardware.untrusted import blocks_of
from neuronbert.tasks.lines import BoundedLines, open_lines

# A block is as long as all that is done before it, up to these: what is lost by a kill is at most half of the work, and
# never more than seconds of it. Longer blocks would save little: with 256 lines 2.5 % of a batch is padding (XQuAD,
# batches of 8), with 512 lines 1.6 %, with 64 lines 9 %. Part of what an unfinished job was begun with: a release that
# changes any of them must not go on with it.
FIRST_LINES, BLOCK_LINES = 8, 256
FIRST_BYTES, BLOCK_BYTES = 1 << 14, 1 << 19


class JobInput:
    """The input in blocks of whole lines; ``bytes``, ``lines`` and ``sha256`` say how far it was read, and
    ``total`` how many lines there were when it was opened (None: nobody knows)."""

    def __init__(self, file: BinaryIO):
        self.resumable = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        self.kind = "file" if self.resumable else "stream"
        self.total = _count_lines(file) if self.resumable else None
        self.bytes = self.lines = 0
        self._file = file
        self._source = BoundedLines(file, self._count)
        self._sha = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The digest of what was read so far."""
        return self._sha.hexdigest()

    def skip(self, record: Record, output: PathLike) -> None:
        """Skip what an earlier run did. OutputError if the input no longer begins with it."""
        for block in blocks_of(self._file, record.input_bytes - self.bytes):
            self._count(block)
        if self.sha256 != record.input_sha256:
            raise OutputError(
                f"{partial_path(output)} was begun with another input: the first {record.input_bytes:,} bytes of this "
                "one are others",
                hint=f"the same input, or {anew(output)}",
            )
        self.lines = record.input_lines

    def block(self) -> List[bytes]:
        """The next lines; none at the end. A line that is too long is the last of its block (see ``pass_over``)."""
        lines: List[bytes] = []
        most_lines = min(max(FIRST_LINES, self.lines), BLOCK_LINES)
        end = self.bytes + min(max(FIRST_BYTES, self.bytes), BLOCK_BYTES)
        while len(lines) < most_lines and self.bytes < end and not self._source.is_inside:
            line = self._source.next()
            if not line:
                break
            lines.append(line)
        self.lines += len(lines)
        return lines

    def pass_over(self) -> None:
        """Read on to the end of a line that is too long, so that what was read ends with a line."""
        self._source.pass_over()

    def _count(self, data: bytes) -> None:
        self._sha.update(data)
        self.bytes += len(data)


def _count_lines(file: BinaryIO) -> int:
    """The lines from here on; the file is read from here again."""
    begin, count, last = file.tell(), 0, b"\n"
    for block in blocks_of(file):
        count += block.count(b"\n")
        last = block[-1:]
    file.seek(begin)
    return count + (last != b"\n")


@contextmanager
def open_input(path: PathLike) -> Iterator[JobInput]:
    """The file at ``path``, or stdin for "-"; InputError for a file that cannot be opened."""
    with open_lines(path, hint="a file of JSON lines, or - for stdin") as file:
        yield JobInput(file)
