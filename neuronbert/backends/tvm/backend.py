"""TVM on the CPU: compiles the FP32 model for one static shape, tuned on this machine, and runs the library it makes.

A compiled model takes one shape; backends/buckets.py puts several together. TVM's threads belong to the thread that
calls it, so a session has threads of its own, which run everything.
"""

import io
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import (
    Batch,
    Bucket,
    ExportResult,
    ExportSource,
    Recipe,
    ThroughputPlan,
    Variant,
    engine_errors,
)
from neuronbert.backends.outputs import Output, Outputs, named
from neuronbert.backends.quiet import import_tvm_runtime, variable_set
from neuronbert.backends.tracing import disk_errors, example_inputs, model_bytes
from neuronbert.backends.tvm.compile_job import (
    BIND_THREADS,
    EXPORTED,
    FILES,
    LIBRARY,
    LINKER_HINT,
    Report,
    run_job,
)
from neuronbert.backends.tvm.cpu import cpu_of
from neuronbert.checkpoint.families import family_of, size_of
from neuronbert.errors import BackendFailed, BackendUnavailable, counted
from neuronbert.hardware.libraries import install_command, optional_imports, require_libraries
from neuronbert.hardware.machine import c_compiler, cpu_flags, library_version, library_versions
from neuronbert.hardware.requirements import version_meets

PRECISIONS: Tuple[str, ...] = ("fp32",)
STATIC_SHAPES = True
REQUIREMENTS: Mapping[str, str] = {"apache-tvm": ">=0.27"}
DEVICE = "cpu"
AUTO_RANK: Optional[int] = None  # what it made could only be loaded by name
BY_NAME_ONLY = True  # a shared library: loading it runs its code
HOST_BOUND = False
PRECISION_OF = {"float32": "fp32", "float16": "fp16"}
BROKEN_FFI = "==0.1.15.*"
_BIG_CORES = 1  # how runtime.config_threadpool calls the default
# Token ids below this are in every vocabulary: a warm-up knows nothing of the model but its shape.
_WARM_UP_TOKEN = 1


def check_available(precision: str) -> None:
    """Raise BackendUnavailable unless apache-tvm and a linker are installed and ``precision`` is fp32."""
    if precision not in PRECISIONS:
        raise BackendUnavailable(f"tvm has no precision {precision!r}", hint="--precision fp32, or --backend openvino")
    require_libraries("tvm")
    bridge = library_version("apache-tvm-ffi")
    if bridge is not None and version_meets(bridge, BROKEN_FFI):
        raise BackendUnavailable(
            f"apache-tvm-ffi {bridge} ends the process where TVM looks for schedules", hint=install_command("tvm")
        )
    if c_compiler() is None:
        raise BackendUnavailable("tvm needs a C compiler to link what it compiles, and there is none", hint=LINKER_HINT)


def batch_invariant(precision: str) -> bool:
    """True: FP32 matrix products treat rows alike."""
    return True


def throughput_plan(threads: int) -> ThroughputPlan:
    """One batch at a time on all threads, which is what schedules are measured with; sessions know their buckets."""
    return ThroughputPlan(streams=1, rows=1, tokens=512)


def recipes(precision: str) -> Sequence[Recipe]:
    """A single empty recipe, to which the compiler adds shape, threads and minutes of tuning."""
    return [{}]


# ---------------------------------------------------------------------------- compiling


def export(source: ExportSource, precision: str, recipe: Recipe, folder: Path) -> ExportResult:
    """Tune and compile one bucket in a child process, and write its library and the records of tuning into ``folder``.

    The recipe has ``batch_size``, ``sequence_length``, ``threads`` and ``tuning_minutes``. Raises BackendFailed where
    torch or TVM cannot take the model, OSError on a full disk.
    """
    check_available(precision)
    size = 2 * model_bytes(source.torch_model())  # as torch exports it, and in the library
    with disk_errors(folder, size), tempfile.TemporaryDirectory(dir=str(folder)) as scratch:
        job = Path(scratch)
        _export_torch(source, recipe, job / EXPORTED)
        report = run_job(job, recipe, _told(source, recipe["tuning_minutes"]))
        _tell(source, recipe, report)
        for name in FILES:
            os.replace(job / name, folder / name)
    versions = library_versions(("torch", "transformers", "apache-tvm", "apache-tvm-ffi"))
    return ExportResult(
        batch_invariant=True,
        requires={
            "cpu_flags": list(cpu_of(cpu_flags()).flags),
            # A library is for the release that made it.
            "libraries": {"apache-tvm": f"=={'.'.join(str(versions['apache-tvm']).split('.')[:2])}.*"},
            "device": "cpu",
        },
        versions=versions,
        recipe={
            **recipe,
            "inputs": list(source.input_names),
            "mcpu": report.mcpu,
            "trials": report.trials,
            "tuned_s": report.tuned_s,
        },
        batch_size=recipe["batch_size"],
        sequence_length=recipe["sequence_length"],
    )


@optional_imports()
def _export_torch(source: ExportSource, recipe: Recipe, path: Path) -> None:
    import torch

    family = family_of(source.config, "config.json")
    vocabulary = size_of(source.config, family, "vocab_size")
    arrays = example_inputs(vocabulary, recipe["batch_size"], recipe["sequence_length"])
    inputs = tuple(torch.from_numpy(arrays[name]) for name in source.input_names)
    what = "torch cannot export this model"
    with engine_errors(what, hint="--backend openvino"), torch.no_grad():
        exported = torch.export.export(source.torch_model(), inputs)
        saved = io.BytesIO()  # given a path, torch's own writer ends the process when the disk is full
        torch.export.save(exported, saved)
    path.write_bytes(saved.getbuffer())


def _tell(source: ExportSource, recipe: Recipe, report: Report) -> None:
    """Say what came of the tuning."""
    if recipe["tuning_minutes"]:
        failed = f", {report.failed} more that TVM could not compile" if report.failed else ""
        more = "" if report.trials else ": the schedules are those of earlier compiles, or unmeasured; --tuning-minutes"
        source.progress(f"{counted(report.trials, 'candidate')} measured in {report.tuned_s:.0f} s{failed}{more}")
    if report.fault:
        source.progress(f"what was measured is not all kept for later compiles: {report.fault}")


def _told(source: ExportSource, minutes: float) -> Any:
    """What is called with each count of trials: it shows the seconds that are over, of those there are."""
    started, total = time.monotonic(), int(60 * minutes)

    def told(trials: int) -> None:
        source.on_step("seconds of tuning", min(int(time.monotonic() - started), total), total)

    return told


# ---------------------------------------------------------------------------- loading


def load(folder: Path, variant: Variant, *, outputs: Sequence[Output], threads: int, streams: int) -> "TvmSession":
    """Load one bucket's library, for ``streams`` batches at once on ``threads // streams`` threads each, and warm up.

    Raises MissingLibrary without apache-tvm, BackendFailed for a library that it cannot load or run.
    """
    tvm = import_tvm_runtime()
    with engine_errors(f"tvm cannot load {folder / LIBRARY}", hint="compile the artifact again"):
        library = tvm.runtime.load_module(str(folder / LIBRARY))
        return TvmSession(tvm, library, variant, outputs, max(1, threads // streams), streams)


_starting = threading.Lock()


class TvmSession:
    """A library of one shape on threads of its own, one for each batch at a time."""

    copies = 1

    def __init__(self, tvm: Any, library: Any, variant: Variant, outputs: Sequence[Output], threads: int, streams: int):
        self._tvm = tvm
        self.name = str(variant["name"])
        self.shape = Bucket(variant["batch_size"], variant["sequence_length"], None)
        self.concurrency = streams
        self._inputs: List[str] = variant["recipe"]["inputs"]
        self._outputs = tuple(outputs)
        self._library = library
        self._threads = threads
        self._of_thread = threading.local()
        self._process = os.getpid()
        self._runners: Optional[ThreadPoolExecutor] = ThreadPoolExecutor(streams, f"tvm {self.name}")
        try:
            self.precision = self._warm_up()
        except BaseException:
            self.close()
            raise

    def _warm_up(self) -> str:
        """Run once; the precision of what that gave."""
        rows = np.full((self.shape.batch_size, self.shape.sequence_length), _WARM_UP_TOKEN, dtype=np.int64)
        types = {str(array.dtype) for array in self.run(Batch(rows, rows, np.zeros_like(rows))).values()}
        return "/".join(sorted(PRECISION_OF.get(name, name) for name in types))

    def run(self, batch: Batch, copy: Optional[int] = None) -> Outputs:
        """The outputs of a batch of ``shape``. Raises BackendFailed when the library refuses it, or is closed."""
        runners = self._runners
        if runners is None:
            raise BackendFailed("this session is closed")
        if os.getpid() != self._process:  # its threads are in the other process, and would be waited for
            raise BackendFailed("this process was forked after tvm had loaded its model", hint="load it after the fork")
        what = f"tvm failed on a batch of shape {batch.input_ids.shape}"
        with engine_errors(what, hint="neuronbert doctor, or another variant"):
            return runners.submit(self._run, batch).result()

    def _run(self, batch: Batch) -> Outputs:
        machine = self._machine()
        fields = batch._asdict()
        arguments = [self._tvm.runtime.tensor(np.ascontiguousarray(fields[name])) for name in self._inputs]
        return named(self._outputs, [array.numpy() for array in machine["main"](*arguments)])

    def _machine(self) -> Any:
        """This thread's virtual machine: none takes two batches at once, and threads are those of its thread."""
        if not hasattr(self._of_thread, "machine"):
            # Only as many run as there are names of processors, which nothing reads as long as threads are not bound.
            processors = [str(number) for number in range(self._threads)]
            with _starting, variable_set(BIND_THREADS, os.environ.get(BIND_THREADS, "0")):
                self._tvm.get_global_func("runtime.config_threadpool")(_BIG_CORES, self._threads, processors)
            self._of_thread.machine = self._tvm.runtime.vm.VirtualMachine(self._library, self._tvm.cpu())
        return self._of_thread.machine

    def close(self) -> None:
        """Release the library; runs that are under way end as usual."""
        runners, self._runners = self._runners, None
        if runners is not None and os.getpid() == self._process:
            runners.shutdown()
        self._library = None
