"""Keeps the fastest schedules of each function for later compiles, whatever model they are of; for compile_job.py.

A file for each function: a digest, and the lines of TVM's own database, the function and its records. TVM ends the
process over some lines that are none of its own, so it sees what the digest is of. Nothing depends on the files: one
that is damaged is passed over, and written anew.
"""

import hashlib
import math
import os
import tempfile
from pathlib import Path
from typing import Any, List, Sequence

from neuronbert.errors import in_words
from neuronbert.hardware.libraries import optional_imports

with optional_imports("tvm"):
    from tvm.s_tir import meta_schedule

KEPT = 4  # records of a function


class KeptRecords:
    """The records in ``folder``, of one CPU, number of threads and release of TVM."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.fault = ""  # why some were not kept, or not read

    def of(self, module: Any) -> List[Any]:
        """The records of the function in ``module``; none where there is no file, or one that is damaged."""
        path = self._path(module)
        try:
            digest, _, data = path.read_bytes().partition(b"\n")
            if digest != _digest(data):
                raise OSError("it is damaged")
            with tempfile.TemporaryDirectory() as scratch:
                function, records = _parts(Path(scratch))
                first, _, rest = data.partition(b"\n")
                function.write_bytes(first + b"\n")
                records.write_bytes(rest)
                found = top_records(_database(scratch), module, KEPT)
        except FileNotFoundError:
            return []
        except OSError as error:
            self.fault = f"{path} cannot be read: {in_words(error)}"
            return []
        return [record for record in found if 0 < seconds_of(record) < math.inf]

    def keep(self, module: Any, records: Sequence[Any]) -> None:
        """Keep these of a function, in place of what was kept; ``fault`` says why where that cannot be."""
        path = self._path(module)
        try:
            with tempfile.TemporaryDirectory(dir=str(self._folder)) as scratch:
                database = _database(scratch)
                workload = database.commit_workload(module)
                for record in records:
                    database.commit_tuning_record(
                        meta_schedule.database.TuningRecord(
                            record.trace, workload, record.run_secs, record.target, record.args_info
                        )
                    )
                data = b"".join(part.read_bytes() for part in _parts(Path(scratch)))
                if data.count(b"\n") != 1 + len(records):  # TVM does not look what became of its writing
                    raise OSError("not all was written: is the disk full?")
                whole = Path(scratch, path.name)
                whole.write_bytes(_digest(data) + b"\n" + data)
                os.replace(whole, path)
        except OSError as error:
            self.fault = f"{path} cannot be written: {in_words(error)}"

    def _path(self, module: Any) -> Path:
        return self._folder / f"{meta_schedule.utils.shash2hex(module)}.records"


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _parts(folder: Path) -> List[Path]:
    return [folder / "workloads.json", folder / "records.json"]


def _database(folder: str) -> Any:
    return meta_schedule.database.JSONDatabase(*map(str, _parts(Path(folder))))


def top_records(database: Any, module: Any, count: int) -> List[Any]:
    """The fastest records of a function, at most ``count``."""
    if not database.has_workload(module):
        return []
    return list(database.get_top_k(database.commit_workload(module), count))


def seconds_of(record: Any) -> float:
    """Seconds of a run; infinite where a record has none."""
    return min((float(seconds) for seconds in record.run_secs or ()), default=math.inf)
