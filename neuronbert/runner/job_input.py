"""The input of an offline job, in blocks of whole lines, with how far it was read; ``job`` answers the blocks."""

import hashlib
import os
import stat
from contextlib import contextmanager
from typing import BinaryIO, Iterator, List, Optional

from neuronbert.artifact.manifest import PathLike
from neuronbert.artifact.resumable import Record, anew, partial_path
from neuronbert.engine.engine import CHUNK_INPUTS
from neuronbert.errors import OutputError
from neuronbert.tasks.lines import BoundedLines, open_lines

# Part of what an unfinished job was begun with: a release that changes either must not go on with it.
BLOCK_LINES = CHUNK_INPUTS
BLOCK_BYTES = 8 << 20
READ_BYTES = 1 << 20


class JobInput:
    """The input in blocks of whole lines; ``bytes``, ``lines`` and ``sha256`` say how far it was read."""

    def __init__(self, file: BinaryIO):
        self.resumable = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        self.kind = "file" if self.resumable else "stream"
        self.left: Optional[int] = os.fstat(file.fileno()).st_size if self.resumable else None
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
        while self.bytes < record.input_bytes:
            data = self._file.read(min(READ_BYTES, record.input_bytes - self.bytes))
            if not data:
                break
            self._count(data)
        if self.sha256 != record.input_sha256:
            raise OutputError(
                f"{partial_path(output)} was begun with another input: the first {record.input_bytes:,} bytes of this "
                "one are others",
                hint=f"the same input, or {anew(output)}",
            )
        self.lines = record.input_lines
        if self.left is not None:
            self.left -= self.bytes

    def block(self) -> List[bytes]:
        """The next lines; none at the end. A line that is too long is the last of its block (see ``pass_over``)."""
        lines: List[bytes] = []
        before = self.bytes
        while len(lines) < BLOCK_LINES and self.bytes - before < BLOCK_BYTES and not self._source.is_inside:
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


@contextmanager
def open_input(path: PathLike) -> Iterator[JobInput]:
    """The file at ``path``, or stdin for "-"; InputError for a file that cannot be opened."""
    with open_lines(path, hint="a file of JSON lines, or - for stdin") as file:
        yield JobInput(file)
