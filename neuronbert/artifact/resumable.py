"""The output of a long job (runner/job.py) until it is complete: a partial file, and a record of how far it is.

Killing the process at any point loses at most the last step: a step's bytes are on the disk before the record that
counts them, the record is replaced as a whole, and bytes that no record counts are cut off when the job is resumed.
No record counts the step at the input's end, so that a job whose input grew goes on as if it had been so long before.
The record has a checksum of itself and of those bytes: what anybody changed is refused, not gone on with.
"""

import fcntl
import hashlib
import json
import os
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, Mapping, NamedTuple, Optional

from neuronbert.artifact.files import (
    output_errors,
    parents_of,
    refuse_existing,
    refuse_inputs,
    remove_leftovers,
    replace_file,
    replaced_file,
)
from neuronbert.artifact.manifest import PathLike
from neuronbert.artifact.manifest_schema import SHA256
from neuronbert.errors import OutputError, quoted
from neuronbert.hardware.own_places import open_own
from neuronbert.hardware.schema import FLAG, Schema, whole
from neuronbert.hardware.schema import record as record_form
from neuronbert.hardware.untrusted import (
    DOCUMENT_BYTES,
    Refusal,
    blocks_of,
    document_of,
    sha256_of,
    sha256_of_stream,
)

NOTHING_SHA256 = hashlib.sha256().hexdigest()
MOST = 1 << 62  # bytes or lines: more than any disk holds

_COUNT = whole(0, MOST)
_SCHEMA = Schema(
    **record_form(
        {
            "job": {"type": "object"},
            "resumable": FLAG,
            "input_sha256": SHA256,
            "input_bytes": _COUNT,
            "input_lines": _COUNT,
            "answered": _COUNT,
            "skipped": _COUNT,
            "output_sha256": SHA256,
            "output_bytes": _COUNT,
            "made_sha256": SHA256,
            "digest": SHA256,
        }
    )
)

Job = Mapping[str, Any]  # JSON


class Record(NamedTuple):
    """How far a job is. ``job`` holds what must not change until it is resumed: artifact, options, kind of input."""

    job: Job
    resumable: bool  # False: the input can be read only once
    input_sha256: str = NOTHING_SHA256  # of the input's first ``input_bytes``
    input_bytes: int = 0
    input_lines: int = 0
    answered: int = 0
    skipped: int = 0
    output_sha256: str = NOTHING_SHA256  # of the partial file's first ``output_bytes``
    output_bytes: int = 0
    made_sha256: str = NOTHING_SHA256  # of the output, where it was made of the partial file

    def digest(self) -> str:
        """The checksum of the record itself."""
        return hashlib.sha256(json.dumps(self._asdict(), sort_keys=True).encode("ascii")).hexdigest()


def partial_path(output: PathLike) -> Path:
    """The file that grows until it becomes ``output``."""
    return Path(f"{os.fspath(output)}.partial")


def record_path(output: PathLike) -> Path:
    """The file that records how far ``output`` is."""
    return Path(f"{os.fspath(output)}.partial.json")


def read_record(output: PathLike) -> Optional[Record]:
    """The record beside ``output``; None if there is none. OutputError for one that cannot be read, or was changed."""
    path = record_path(output)
    refusal = Refusal(OutputError, f"another --output, or move {quoted(path)} away")
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            raw = file.read(DOCUMENT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise refusal.of(f"{path} cannot be read: {error.strerror}") from None
    facts = document_of(raw[:DOCUMENT_BYTES], str(path), _SCHEMA, refusal)
    record = Record(**{name: facts[name] for name in Record._fields})
    if record.digest() != facts["digest"]:
        raise refusal.of(f"{path} does not match its own digest: it was changed after it was written")
    return record


def anew(output: PathLike) -> str:
    """The hint that gives up what an earlier run did."""
    return f"begin anew: rm {quoted(partial_path(output))} {quoted(record_path(output))}"


class ResumableOutput:
    """An output that grows in steps; made by ``resumable_output``."""

    def __init__(self, output: Path, file: FileIO):
        self.output = output
        self._file = file
        self._sha = hashlib.sha256()  # of what is in it
        self._saved: Record  # the one on the disk

    def begin(self, job: Job, resumable: bool) -> Record:
        """How far an earlier run of the same ``job`` came; a record of nothing done where none can be resumed.

        Raises OutputError if what is there was begun by another ``job``, was changed since it was written, or no record
        says what it holds.
        """
        record = read_record(self.output)
        if record is None and os.fstat(self._file.fileno()).st_size:
            raise OutputError(
                f"{partial_path(self.output)} exists already, and no record beside it says what it holds",
                hint="another --output, or move it away",
            )
        if record is None or not record.input_lines or not record.resumable:
            record = Record(job, resumable)
            self._cut(0)
            self._save(record)
        else:
            self._saved = record
            self._refuse_other_job(record.job, job)
            self._refuse_other_bytes(record)
            self._cut(record.output_bytes)
        return record

    def append(self, data: bytes, record: Record, *, is_end: bool = False) -> Record:
        """Add one step; ``record`` is how far the job is after it. Returns the record with what the output then holds.

        ``is_end``: the step was cut short by the end of the input. No record counts it, so a later run makes it anew,
        of what the input then holds. Raises OutputError if it cannot be written.
        """
        with output_errors(self.output):
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        self._sha.update(data)
        record = record._replace(output_bytes=self._file.tell(), output_sha256=self._sha.hexdigest())
        if not is_end:
            self._save(record)
        return record

    def finish(self, make_whole: Optional[Callable[[BinaryIO, BinaryIO], None]] = None) -> None:
        """Give the complete output its name; with ``make_whole`` it is what that makes of the partial file.

        ``make_whole`` reads the one and writes the other.
        """
        refuse_existing(self.output)
        partial, record = partial_path(self.output), record_path(self.output)
        with output_errors(self.output):
            if make_whole is None:
                os.rename(partial, self.output)
            else:
                self._make(partial, make_whole)
            record.unlink(missing_ok=True)  # another process may have seen that all is done
            remove_leftovers(record)

    def _make(self, partial: Path, make_whole: Callable[[BinaryIO, BinaryIO], None]) -> None:
        """Put what ``make_whole`` makes of the partial file in the output's place; the record knows it before."""
        remove_leftovers(self.output)  # of a kill, and as large as the output
        with open(open_own(partial, os.O_RDONLY), "rb") as parts, replaced_file(self.output) as whole:
            make_whole(parts, whole)
            whole.flush()
            os.fsync(whole.fileno())
            refuse_existing(self.output)  # it took its time
            whole.seek(0)
            self._save(self._saved._replace(made_sha256=sha256_of_stream(whole)))
        partial.unlink(missing_ok=True)

    def tidy(self) -> None:
        """After an error: remove what no later run could resume, and nobody else wrote."""
        try:
            # From the disk: an interrupt can come as soon as it is there, before any variable says so.
            record = read_record(self.output)
        except OSError:  # it is no record
            record = None
        if record is None:
            is_wanted = os.fstat(self._file.fileno()).st_size > 0
        else:
            is_wanted = record.resumable and record.input_lines > 0
        if not is_wanted:
            for path in (partial_path(self.output), *([record_path(self.output)] if record else [])):
                with suppress(OSError):
                    path.unlink()
            remove_leftovers(record_path(self.output))

    def _refuse_other_job(self, before: Job, now: Job) -> None:
        for name in now:
            if before.get(name) != now[name]:
                raise OutputError(
                    f"{partial_path(self.output)} was begun by another job: its {name} was "
                    f"{json.dumps(before.get(name), ensure_ascii=False)}, and is now "
                    f"{json.dumps(now[name], ensure_ascii=False)}",
                    hint=f"the same again, or {anew(self.output)}",
                )

    def _refuse_other_bytes(self, record: Record) -> None:
        """Bytes behind those that are recorded are of a step that was killed; the others are as they were written."""
        self._file.seek(0)
        for block in blocks_of(self._file, record.output_bytes):
            self._sha.update(block)
        if self._file.tell() != record.output_bytes or self._sha.hexdigest() != record.output_sha256:
            raise OutputError(
                f"{partial_path(self.output)} was changed since an earlier run wrote its first "
                f"{record.output_bytes:,} bytes",
                hint=anew(self.output),
            )

    def _cut(self, size: int) -> None:
        with output_errors(self.output):
            self._file.truncate(size)
            self._file.seek(size)

    def _save(self, record: Record) -> None:
        self._saved = record
        with output_errors(self.output):
            replace_file(record_path(self.output), json.dumps({**record._asdict(), "digest": record.digest()}))


@contextmanager
def resumable_output(output: PathLike, input: Optional[PathLike] = None) -> Iterator[ResumableOutput]:
    """The partial file of ``output``, locked for this process. After an error in the block, what was recorded stays.

    Raises OutputError if ``output`` exists, cannot be written, is being written by another process, or if one of its
    three names is that of ``input`` ("-": stdin).
    """
    target = Path(output)
    refuse_inputs((target, partial_path(target), record_path(target)), [input])
    _refuse_finished(target)
    with parents_of(target):
        with output_errors(target):
            # Unbuffered: bytes that a full disk refused must not be written again when the file is closed.
            file = open(open_own(partial_path(target), mode=0o666), "r+b", buffering=0)
        with file:
            _lock(file, target)
            growing = ResumableOutput(target, file)
            try:
                yield growing
            except BaseException:
                growing.tidy()
                raise


def _refuse_finished(target: Path) -> None:
    """OutputError if ``target`` exists; what a run left there that was killed after its output was complete goes."""
    if os.path.lexists(target):
        with suppress(OutputError):
            record = read_record(target)
            if record is not None and (not os.path.lexists(partial_path(target)) or _is_made(target, record)):
                partial_path(target).unlink(missing_ok=True)
                record_path(target).unlink(missing_ok=True)
    refuse_existing(target)


def _is_made(target: Path, record: Record) -> bool:
    """Whether the file in the output's place is the one that the record says was made for it."""
    return record.made_sha256 != NOTHING_SHA256 and target.is_file() and sha256_of(target) == record.made_sha256


def _lock(file: FileIO, target: Path) -> None:
    """Lock the file until it is closed or the process ends. Raises OutputError if another process holds it."""
    path = partial_path(target)
    held = False
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held = True
    except OSError:
        pass  # a file system without locks
    # The process that held it may have finished, and renamed the file, since this one opened it.
    refuse_existing(target)
    if held or not path.exists() or not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
        raise OutputError(f"another process is writing {path}", hint="wait for it, or another --output")


def as_job(**facts: Any) -> Dict[str, Any]:
    """``facts`` as plain JSON data, as a record that was read back holds them."""
    return dict(json.loads(json.dumps(facts)))
