"""How far an offline job is, in lines of its input: the same numbers for ``job``'s caller and `neuronbert top`."""

from typing import Callable, Optional

from neuronbert.artifact.manifest import PathLike
from neuronbert.artifact.resumable import Record
from neuronbert.runner.documents import Work

# Called with the lines that are done, those of earlier runs included, and how many there are (None: nobody knows).
Progress = Callable[[int, Optional[int]], None]


class JobProgress:
    """Counts of one job. The job writes; ``work`` may be called from any thread."""

    def __init__(self, output: PathLike, total: Optional[int], tell: Progress):
        self._total = total
        self._tell = tell
        self._work: Work = {"unit": "lines", "done": 0, "total": total, "skipped": 0, "kept": 0, "output": str(output)}

    def recorded(self, record: Record) -> None:
        """So much is on the disk."""
        self._set(record.input_lines, kept=record.input_lines, skipped=record.skipped)

    def beyond(self, record: Record, lines: int, share: float) -> None:
        """Of the ``lines`` behind what is recorded, this share of their rows is answered."""
        self._set(record.input_lines + int(lines * share), kept=record.input_lines, skipped=record.skipped)

    def _set(self, done: int, kept: int, skipped: int) -> None:
        total = None if self._total is None else max(done, self._total)  # lines may be added to the input meanwhile
        # One assignment: a reader sees the old counts or the new ones.
        self._work = {**self._work, "done": done, "total": total, "skipped": skipped, "kept": kept}
        self._tell(done, total)

    def work(self) -> Work:
        """The counts, as plain JSON data."""
        return self._work
