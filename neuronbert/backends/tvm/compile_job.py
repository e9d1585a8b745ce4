"""Makes the files of one shape in a child process: schedules that it measures, and a library.

The parent (backend.py) exports the model with torch, starts this module on it (backends/child.py) and waits. Whatever
TVM starts, writes or prints is the child's, in a folder that goes when it ends.
"""

import contextlib
import json
import os
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Sequence, TextIO

from neuronbert.backends.base import Recipe
from neuronbert.backends.cache import cache_folder
from neuronbert.backends.child import start_child
from neuronbert.backends.tvm.cpu import cpu_of
from neuronbert.errors import BackendFailed, in_words
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.machine import cpu_flags, library_version
from neuronbert.hardware.own_places import own_folder

BIND_THREADS, NUM_THREADS = "TVM_BIND_THREADS", "TVM_NUM_THREADS"
EXPORTED, JOB, REPORT, ERROR, LOG = "model.pt2", "job.json", "report.json", "error.txt", "compile.log"
LIBRARY, WORKLOADS, RECORDS = "model.so", "workloads.json", "records.json"
FILES = (LIBRARY, WORKLOADS, RECORDS)  # what stays of a job
# Reading the model, building and linking it, around the tuning's own time; of BERT-large they take two minutes here.
AROUND_THE_TUNING_S = 1800

Told = Callable[[int], None]  # called with the number of candidates measured so far


class Report(NamedTuple):
    """What a job says of its tuning, for the manifest."""

    trials: int  # candidates that were measured
    tuned_s: float
    mcpu: str


def run_job(job: Path, recipe: Recipe, told: Told) -> Report:
    """Make ``FILES`` in the folder ``job`` of the model that torch.export saved there as ``EXPORTED``.

    BackendFailed with TVM's own words where it cannot, or where the child ends otherwise or does not end.
    """
    job = job.absolute()  # the child works in it: the working directory is a user's
    arguments = {"recipe": dict(recipe), "earlier": str(_earlier(recipe))}
    (job / JOB).write_text(json.dumps(arguments), encoding="utf-8")
    reading, writing = os.pipe()
    with open(job / LOG, "wb") as log, os.fdopen(reading, "r") as counts:
        try:
            child = start_child(
                "neuronbert.backends.tvm.compile_job",
                job,
                writing,
                stdout=log,
                stderr=log,
                environment=_environment(job, recipe),
                pass_fds=[writing],
                new_session=True,  # so that the linker ends with it
            )
        finally:
            os.close(writing)
        # Killed where it neither goes on nor ends.
        watch = threading.Timer(60 * recipe["tuning_minutes"] + AROUND_THE_TUNING_S, child.kill)
        watch.start()
        try:
            for count in counts:
                told(int(count))
            code = child.wait()
        finally:
            watch.cancel()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if code != 0:
        raise BackendFailed(
            f"tvm cannot compile this model for {recipe['batch_size']} × {recipe['sequence_length']} tokens: "
            f"{_failure(job, code)}",
            hint="--backend openvino or onnxruntime",
        )
    return Report(*json.loads((job / REPORT).read_text(encoding="utf-8")))


def _earlier(recipe: Recipe) -> Path:
    """The folder of what was measured under the same conditions."""
    conditions = f"{library_version('apache-tvm')}-{cpu_of(cpu_flags()).mcpu or 'any'}-{recipe['threads']}-threads"
    return own_folder(cache_folder("tvm") / conditions)


def _environment(job: Path, recipe: Recipe) -> Dict[str, str]:
    return {
        **os.environ,
        BIND_THREADS: "0",
        NUM_THREADS: str(recipe["threads"]),
        "TMPDIR": str(job),
        "TVM_FFI_DISABLE_TORCH_C_DLPACK": "1",  # else it compiles an extension of torch into the home folder
    }


def _failure(job: Path, code: int) -> str:
    if code < 0:
        return f"its process was ended by signal {-code}\n{_tail(job / LOG)}"
    try:
        return (job / ERROR).read_text(encoding="utf-8")
    except OSError:
        return _tail(job / LOG)


def _tail(path: Path, characters: int = 3000) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-characters:]


# ---------------------------------------------------------------------------- the child


def main(arguments: Sequence[str]) -> int:
    """Do the job in the folder ``arguments[0]``, writing counts to the file descriptor ``arguments[1]``.

    The exit code; a failure goes to ERROR in words, and with its traceback to stderr.
    """
    job = Path(arguments[0])
    os.chdir(job)
    try:
        with os.fdopen(int(arguments[1]), "w") as counts:
            report = _compile(job, counts)
    except Exception as error:
        traceback.print_exc()
        (job / ERROR).write_text(in_words(error), encoding="utf-8")
        return 1
    (job / REPORT).write_text(json.dumps(list(report)), encoding="utf-8")
    return 0


@optional_imports("tvm")
def _compile(job: Path, counts: TextIO) -> Report:
    from tvm.target import Target

    from neuronbert.backends.tvm.program import fused_program, save_library
    from neuronbert.backends.tvm.tuning import Tuner

    arguments = json.loads((job / JOB).read_text(encoding="utf-8"))
    recipe = arguments["recipe"]
    cpu = cpu_of(cpu_flags())
    target = Target(cpu.target(recipe["threads"]))
    program = fused_program(job / EXPORTED, target)
    tuner = Tuner(
        program,
        cpu,
        target,
        recipe["threads"],
        workloads=job / WORKLOADS,
        records=job / RECORDS,
        earlier=Path(arguments["earlier"]),
    )
    started = time.monotonic()
    # A parent that is gone closes its end: the next count ends this process too.
    tuner.tune(started + 60 * recipe["tuning_minutes"], lambda trials: print(trials, file=counts, flush=True))
    tuned_s = time.monotonic() - started
    tuner.remember()
    save_library(program, tuner.best(), target, job / LIBRARY)
    return Report(tuner.measured, round(tuned_s, 1), cpu.mcpu)
