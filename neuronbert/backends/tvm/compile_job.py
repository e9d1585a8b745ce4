"""Makes the files of one shape in a child process: schedules that it measures, and a library.

The parent (backend.py) exports the model with torch, starts this module on it (backends/child.py) and waits. Whatever
TVM starts, writes or prints is the child's, in a folder that goes when it ends.
"""

import contextlib
import json
import os
import re
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Sequence, TextIO

from neuronbert.backends.base import Recipe
from neuronbert.backends.cache import cache_folder
from neuronbert.backends.child import start_child
from neuronbert.backends.quiet import NO_TORCH_EXTENSION, NO_TVM_COMPILER
from neuronbert.backends.tvm.cpu import cpu_of
from neuronbert.errors import BackendFailed, BackendUnavailable, NeuronBertError, in_words
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.machine import cpu_flags, cpu_model, library_version

BIND_THREADS, NUM_THREADS = "TVM_BIND_THREADS", "TVM_NUM_THREADS"
LINKER_HINT = "sudo apt install gcc libc6-dev, or CC=a compiler; what is compiled then runs on machines without one"
EXPORTED, JOB, REPORT, ERROR, LOG = "model.pt2", "job.json", "report.json", "error.json", "compile.log"
LIBRARY, WORKLOADS, RECORDS = "model.so", "workloads.json", "records.json"
FILES = (LIBRARY, WORKLOADS, RECORDS)  # what stays of a job
# What ends a process that runs the wrong code, such as a schedule that is not whole.
FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
# Reading the model, building and linking it, around the tuning's own time; of BERT-large they take two minutes here.
AROUND_THE_TUNING_S = 1800

Told = Callable[[int], None]  # called with the number of candidates measured so far


class Report(NamedTuple):
    """What a job says of its tuning."""

    trials: int  # candidates that were measured
    failed: int  # candidates of which TVM could make no library
    tuned_s: float
    mcpu: str
    fault: str  # why some of the records are not kept for later compiles


def run_job(job: Path, recipe: Recipe, told: Told) -> Report:
    """Make ``FILES`` in the folder ``job`` of the model that torch.export saved there as ``EXPORTED``.

    BackendFailed with TVM's own words where it cannot, or where the child ends otherwise or does not end;
    BackendUnavailable where there is no linker that works.
    """
    job = job.absolute()  # the child works in it: the working directory is a user's
    arguments = {"recipe": dict(recipe), "kept": str(_kept(recipe))}
    (job / JOB).write_text(json.dumps(arguments), encoding="utf-8")
    longest_s = 60 * recipe["tuning_minutes"] + AROUND_THE_TUNING_S
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
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            child.kill()

        watch = threading.Timer(longest_s, end)
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
        late = f"it did not end within {longest_s / 60:.0f} minutes" if overdue.is_set() else ""
        raise _failure(job, recipe, code, late)
    return Report(*json.loads((job / REPORT).read_text(encoding="utf-8")))


def _kept(recipe: Recipe) -> Path:
    """The folder of what was measured under the same conditions."""
    cpu = re.sub(r"[^A-Za-z0-9]+", "-", f"{cpu_model()} {cpu_of(cpu_flags()).mcpu}").strip("-")
    return cache_folder(f"tvm/{library_version('apache-tvm')}-{cpu}-{recipe['threads']}-threads")


def _environment(job: Path, recipe: Recipe) -> Dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != NO_TVM_COMPILER}
    return {
        **inherited,
        BIND_THREADS: "0",
        NUM_THREADS: str(recipe["threads"]),
        "TMPDIR": str(job),
        NO_TORCH_EXTENSION: "1",
    }


def _failure(job: Path, recipe: Recipe, code: int, late: str) -> NeuronBertError:
    what = f"tvm cannot compile this model for {recipe['batch_size']} × {recipe['sequence_length']} tokens"
    elsewhere = "--backend openvino or onnxruntime"
    if late or code < 0:
        why = late or f"its process was ended by signal {-code}"
        again = "fewer --threads, or a larger machine, if memory ran out; what was measured is kept"
        if -code in FAULTS:
            again = "compile again: another of the schedules that are tried comes first, and what was measured is kept"
        return BackendFailed(f"{what}: {why}\n{_tail(job / LOG)}".rstrip(), hint=elsewhere if late else again)
    try:
        told = json.loads((job / ERROR).read_text(encoding="utf-8"))
    except OSError:
        return BackendFailed(f"{what}: {_tail(job / LOG)}", hint=elsewhere)
    if told["no_linker"]:
        return BackendUnavailable(f"tvm needs a C compiler that links: {told['words']}", hint=LINKER_HINT)
    return BackendFailed(f"{what}: {told['words']}", hint=elsewhere)


def _tail(path: Path, characters: int = 3000) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-characters:]


# ---------------------------------------------------------------------------- the child


class NoLinker(Exception):
    """Nothing can be linked."""


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
        told = {"words": in_words(error), "no_linker": isinstance(error, NoLinker)}
        (job / ERROR).write_text(json.dumps(told), encoding="utf-8")
        return 1
    (job / REPORT).write_text(json.dumps(list(report)), encoding="utf-8")
    return 0


@optional_imports("tvm")
def _compile(job: Path, counts: TextIO) -> Report:
    from tvm.target import Target

    from neuronbert.backends.tvm.program import fused_program, save_library
    from neuronbert.backends.tvm.records import KeptRecords
    from neuronbert.backends.tvm.tuning import Tuner

    _try_linker(job)
    arguments = json.loads((job / JOB).read_text(encoding="utf-8"))
    recipe = arguments["recipe"]
    cpu = cpu_of(cpu_flags())
    target = Target(cpu.target(recipe["threads"]))
    program = fused_program(job / EXPORTED, target)
    kept = KeptRecords(Path(arguments["kept"]))
    tuner = Tuner(program, cpu, target, recipe["threads"], workloads=job / WORKLOADS, records=job / RECORDS, kept=kept)
    started = time.monotonic()
    # A parent that is gone closes its end: the next count ends this process too.
    tuner.tune(started + 60 * recipe["tuning_minutes"], lambda trials: print(trials, file=counts, flush=True))
    tuned_s = time.monotonic() - started
    save_library(program, tuner.best(), target, job / LIBRARY)
    return Report(tuner.measured, tuner.failed, round(tuned_s, 1), cpu.mcpu, kept.fault)


@optional_imports("tvm")
def _try_linker(job: Path) -> None:
    """Link nothing, with what TVM links with: before minutes of tuning rather than behind them."""
    from tvm.support import cc

    source = job / "empty.c"
    source.write_text("", encoding="utf-8")
    try:
        cc.create_shared(str(job / "empty.so"), [str(source)])
    except Exception as error:
        raise NoLinker(in_words(error)) from error
