"""A child of the tests: keeps records of a compile and reads them again, whole and damaged."""

import sys
import types
from pathlib import Path
from typing import Sequence

from neuronbert.backends.tvm.compile_job import RECORDS, WORKLOADS

DAMAGED = [b"", b"[1, 2", b"\x80\x00", b"0\n{}\n{}\n"]


def main(arguments: Sequence[str]) -> int:
    """Of the compile in the folder ``arguments[0]``; files go to ``arguments[1]``."""
    sys.modules.setdefault("tvm.s_tir.tensor_intrin", types.ModuleType("tvm.s_tir.tensor_intrin"))  # as program.py
    from neuronbert.backends.tvm.records import KeptRecords, meta_schedule, top_records

    compiled, folder = Path(arguments[0]), Path(arguments[1]) / "kept"
    folder.mkdir()
    database = meta_schedule.database.JSONDatabase(str(compiled / WORKLOADS), str(compiled / RECORDS))
    module = database.get_all_tuning_records()[0].workload.mod
    kept = KeptRecords(folder)
    assert kept.of(module) == [] and not kept.fault
    records = top_records(database, module, 2)
    kept.keep(module, records)
    assert [str(found.trace) for found in kept.of(module)] == [str(record.trace) for record in records]
    assert not kept.fault
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for content in [*DAMAGED, whole[:-1], whole + b"x", whole.replace(b"[", b"(", 1)]:
        path.write_bytes(content)
        assert kept.of(module) == [] and str(path) in kept.fault, content
        kept.fault = ""
    kept.keep(module, records)
    assert path.read_bytes() == whole
    path.unlink()
    path.mkdir()
    assert kept.of(module) == [] and "cannot be read" in kept.fault
    kept.keep(module, records)
    assert "cannot be written" in kept.fault and list(folder.iterdir()) == [path]
    return 0
