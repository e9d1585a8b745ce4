"""AWS Inferentia 1: traces the model with torch_neuron for one static shape, and runs it on the cores of this process.

A compiled model takes one shape; backends/buckets.py puts several together. One ``torch.jit.load`` takes one core
group, so a session holds a module for each group that it uses.
"""

import importlib
import os
import shutil
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import Batch, Bucket, ExportResult, ExportSource, Recipe, ThroughputPlan, Variant
from neuronbert.backends.neuron.core_groups import CoreGroups, core_variables, cores_given
from neuronbert.backends.neuron.failures import NumericalError, explained, known_failure, without_interpreter
from neuronbert.backends.neuron.known_failures import RUNTIME_FAILURES
from neuronbert.backends.neuron.target import recorded_layout
from neuronbert.backends.neuron.tracing import import_torch_neuron
from neuronbert.backends.outputs import Output, Outputs, all_finite, equal, named
from neuronbert.backends.quiet import stdout_to_stderr
from neuronbert.backends.tracing import example_inputs
from neuronbert.checkpoint.families import TorchModel
from neuronbert.errors import BackendFailed, BackendUnavailable, counted
from neuronbert.hardware.cores import MAX_CORES, MAX_HOST_THREADS, NUM_CORES, environment_set
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.machine import library_version, library_versions
from neuronbert.hardware.neuron import FIRST_REAL_NEURON

PRECISIONS: Tuple[str, ...] = ("bf16", "fp16")
STATIC_SHAPES = True
REQUIREMENTS: Mapping[str, str] = {"torch-neuron": FIRST_REAL_NEURON}
DEVICE = "neuron"
AUTO_RANK: Optional[int] = 0
# Its files are TorchScript too, and so programs. On an inf1 machine there is nothing else to load: a name that is typed
# always would protect nobody. SECURITY.md says so, and a signature is the answer to it.
BY_NAME_ONLY = False
HOST_BOUND = False
FILE_NAME = "model.neuron"
LOG_NAME = "compile.log"
EMULATED = "+emulated"  # how the version of an emulated torch_neuron ends

# Token ids below this are in every vocabulary: a warm-up knows nothing of the model but its shape.
WARM_UP_VOCABULARY = 30


def check_available(precision: str) -> None:
    """Raise BackendUnavailable unless torch_neuron can be imported and ``precision`` is one that a NeuronCore has."""
    if precision not in PRECISIONS:
        raise BackendUnavailable(
            f"neuron has no precision {precision!r}: a NeuronCore multiplies in 16 bits",
            hint="--precision fp16 or bf16 (neither is fp32; --auto-cast matmul --auto-cast-type fp16 is the closest)",
        )
    import_torch_neuron()


def batch_invariant(precision: str) -> bool:
    """True: the compiled program treats rows alike."""
    return True


def throughput_plan(threads: int) -> ThroughputPlan:
    """As many requests at once as any layout takes; a loaded session knows how many its cores really take."""
    return ThroughputPlan(streams=2 * MAX_CORES, rows=1, tokens=512)


def recipes(precision: str) -> Sequence[Recipe]:
    """A single empty recipe, to which the target (target.py) adds the shape and the compiler's arguments."""
    return [{}]


# ---------------------------------------------------------------------------- compiling


def export(source: ExportSource, precision: str, recipe: Recipe, folder: Path) -> ExportResult:
    """Compile one bucket in a child process, or take it from the cache, and write it with its log into ``folder``.

    Raises PipelineRefused when neuron-cc refuses the number of cores, BackendFailed when it fails otherwise or
    leaves work for the device on the CPU, BackendUnavailable without torch-neuron and neuron-cc.
    """
    from neuronbert.backends.neuron.compile_job import compile_bucket

    versions = compiler_versions()
    compiled = compile_bucket(source, recipe, versions)
    shutil.copyfile(compiled.model, folder / FILE_NAME)
    shutil.copyfile(compiled.log, folder / LOG_NAME)
    emulated = versions["torch-neuron"].endswith(EMULATED)
    return ExportResult(
        batch_invariant=True,
        requires={"device": "neuron-emulated" if emulated else "neuron"},
        versions=versions,
        recipe={**recipe, "inputs": list(source.input_names), **compiled.report._asdict()},
        batch_size=recipe["batch_size"],
        sequence_length=recipe["sequence_length"],
        pipeline_cores=recipe["pipeline_cores"],
        compiler_args=tuple(recipe["compiler_args"]),
        emulated=emulated,
        percent_compiled=compiled.report.percent_compiled,
    )


def compiler_versions() -> Dict[str, str]:
    """The versions of all libraries that the compiled file depends on."""
    versions = library_versions(("torch", "transformers"))
    versions["torch-neuron"] = str(import_torch_neuron().__version__)
    try:
        module = importlib.import_module("neuron_cc")
        compiler = getattr(module, "__version__", None) or library_version("neuron-cc")
    except ImportError:
        compiler = None
    return {**versions, "neuron-cc": str(compiler)} if compiler else versions


# ---------------------------------------------------------------------------- loading


class _Process(NamedTuple):
    """The Neuron runtime of this process once it is up: what it was started with, and how many cores that gave it."""

    module: Any  # torch_neuron, real or emulated
    variables: Dict[str, str]
    cores: int


_process: Optional[_Process] = None
_groups: Dict[Tuple[int, int, int], CoreGroups] = {}
_loading = threading.Lock()


def load(folder: Path, variant: Variant, *, outputs: Sequence[Output], threads: int, streams: int) -> "NeuronSession":
    """Load one bucket onto every core group of this process (onto as many as ``streams`` requests need), and warm up.

    The cores are those that NEURON_RT_VISIBLE_CORES, NEURON_RT_NUM_CORES or NEURONCORE_GROUP_SIZES give the process.
    Where none is set, it asks for as many free ones as the artifact's layout needs instead of taking them all.
    Raises BackendUnavailable or BackendFailed with the runtime's own words and what to do about them.
    """
    module = import_torch_neuron()
    _refuse_foreign(variant, str(module.__version__))
    with _loading:
        return _load(module, folder, variant, outputs, threads, streams)


def _load(
    module: Any, folder: Path, variant: Variant, outputs: Sequence[Output], threads: int, streams: int
) -> "NeuronSession":
    global _process
    with optional_imports():
        import torch

    in_flight = recorded_layout(variant).in_flight_per_group
    variables = core_variables(os.environ)
    cores = _cores(module, variant, variables, -(-streams // in_flight))
    copies = min(cores // variant["pipeline_cores"], -(-streams // in_flight))
    groups = _groups.setdefault((id(module), variant["pipeline_cores"], copies), CoreGroups(copies, in_flight))
    # For the host's part of requests: those in flight at once share the threads.
    in_flight_at_once = min(streams, copies * in_flight)
    torch.set_num_threads(max(1, min(MAX_HOST_THREADS, threads // in_flight_at_once)))
    # Set for this load only: a child of this process must not ask for these cores too.
    requested = {} if variables else {NUM_CORES: str(cores)}
    with _explained(f"cannot load {variant['name']} from {folder}"), environment_set(requested):
        session = _tried_again(lambda: NeuronSession(folder / FILE_NAME, variant, outputs, groups))
    _process = _Process(module, variables, cores)
    session.check_inputs_matter()
    return session


def _tried_again(load: Callable[[], "NeuronSession"]) -> "NeuronSession":
    """What ``load`` gives, at a second try where the first failure is one that comes and goes (known_failures.py)."""
    try:
        return load()
    except RuntimeError as error:
        failure = known_failure(str(error), RUNTIME_FAILURES)
        if failure is None or not failure.comes_and_goes:
            raise
    # Out of the handler, which keeps what the first try has put on the device.
    try:
        return load()
    except RuntimeError as error:
        raise RuntimeError(f"{without_interpreter(str(error))}\n(so at both of two tries)") from error


def _cores(module: Any, variant: Variant, variables: Dict[str, str], wanted_groups: int) -> int:
    """How many cores this process has, or will ask for."""
    width = variant["pipeline_cores"]
    if _process is not None and _process.module is module:
        if variables != _process.variables:
            raise BackendFailed(
                f"the Neuron runtime of this process was started with {_listed(_process.variables)} and keeps its "
                f"{counted(_process.cores, 'core')}; {_listed(variables)} now has no effect",
                hint="set the variables before the first load, and restart the process (in a notebook: the kernel)",
            )
        cores = _process.cores
    else:
        chosen = cores_given(variables)
        cores = min(recorded_layout(variant).used_cores, wanted_groups * width) if chosen is None else chosen
    if cores < width:
        raise BackendUnavailable(
            f"{variant['name']} runs over {width} cores, and {_listed(variables)} gives this process {cores}",
            hint='eval "$(neuronbert env ARTIFACT)", or compile with fewer --neuroncore-pipeline-cores',
        )
    return cores


def _listed(variables: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in variables.items()) or "no core variable set"


def _refuse_foreign(variant: Variant, version: str) -> None:
    """Raise BackendUnavailable where an emulator would run what neuron-cc compiled, or a NeuronCore what it wrote."""
    if variant["emulated"] and not version.endswith(EMULATED):
        raise BackendUnavailable(
            f"{variant['name']} was compiled by an emulator ({variant['versions'].get('torch-neuron')}), and this is "
            f"torch-neuron {version}",
            hint="compile the checkpoint again on this machine: neuronbert compile CHECKPOINT OUTPUT --backend neuron",
        )
    if not variant["emulated"] and version.endswith(EMULATED):
        raise BackendUnavailable(
            f"{variant['name']} was compiled for NeuronCores, and torch_neuron is emulated here ({version})",
            hint="load it on an inf1 instance, or compile another artifact for the emulator",
        )


class NeuronSession:
    """One bucket on the core groups of this process; ``run`` takes batches of exactly ``shape``."""

    def __init__(self, path: Path, variant: Variant, outputs: Sequence[Output], groups: CoreGroups):
        with optional_imports():
            import torch

        self._torch = torch
        self._outputs = tuple(outputs)
        self.name = str(variant["name"])
        self.shape = Bucket(variant["batch_size"], variant["sequence_length"], variant["pipeline_cores"])
        self.precision = str(variant["precision"])
        self.concurrency = groups.count * groups.in_flight
        self.copies = groups.count
        self._groups = groups
        self._inputs: List[str] = list(variant["recipe"]["inputs"])
        self._modules: List[TorchModel] = []
        # torch.jit.load puts a module onto the least used cores (aws-neuron-sdk issue 718; older releases do so at the
        # first inference, issue 369). Loaded and run one after another, the modules fill the groups in order.
        for copy in range(groups.count):
            self._modules.append(torch.jit.load(str(path)))
            self._call(copy, self._example())

    def run(self, batch: Batch, copy: Optional[int] = None) -> Outputs:
        """The outputs of a batch of ``shape``, from the least busy core group, or from ``copy``.

        Raises NumericalError for NaN and Inf, BackendFailed for what the runtime says.
        """
        if not self._modules:
            raise BackendFailed("this session is closed")
        if batch.input_ids.shape != self.shape[:2]:
            raise BackendFailed(
                f"{self.name} takes batches of {self.shape.batch_size} × {self.shape.sequence_length} tokens, "
                f"not of shape {batch.input_ids.shape}"
            )
        try:
            with self._groups.taken(copy) as group:
                outputs = self._call(group, batch)
        except (RuntimeError, IndexError) as error:
            raise explained(str(error), RUNTIME_FAILURES, f"{self.name} failed on the device") from error
        if not all_finite(outputs):
            raise NumericalError(
                f"{self.name} gives NaN or Inf", hint="neuronbert doctor; compile again with --auto-cast-type bf16"
            )
        return outputs

    def check_inputs_matter(self) -> None:
        """Raise BackendFailed unless swapping two inputs changes the outputs, on every core group."""
        example = self._example()
        first, second = self._inputs[-2:]
        swapped = example._replace(**{first: getattr(example, second), second: getattr(example, first)})
        for copy in range(self.copies):
            try:
                before, after = self._call(copy, example), self._call(copy, swapped)
            except (RuntimeError, IndexError):
                continue  # refused as a token type that the model does not have: so its inputs do matter
            if equal(after, before):
                raise BackendFailed(
                    f"{self.name} gives the same logits when {first} and {second} change places: either the runtime "
                    "is not running and its numbers mean nothing, or the model ignores its inputs",
                    hint="neuronbert doctor; sudo modprobe neuron; then restart the process",
                )

    def _call(self, copy: int, batch: Batch) -> Outputs:
        tensors = [self._torch.from_numpy(np.ascontiguousarray(getattr(batch, name))) for name in self._inputs]
        with self._torch.no_grad():
            results = self._modules[copy](*tensors)
        return named(self._outputs, [tensor.numpy() for tensor in results])

    def _example(self) -> Batch:
        return Batch(**example_inputs(WARM_UP_VOCABULARY, self.shape.batch_size, self.shape.sequence_length))

    def close(self) -> None:
        """Take the modules off the device; the cores stay this process's until it ends."""
        self._modules = []


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn what fails inside the block into our error, with what the runtime wrote to stderr or stdout meanwhile.

    AWS's nrt-troubleshoot page has its lines on stdout, which is for a command's result.
    """
    with _captured_stderr() as written:
        try:
            with stdout_to_stderr():
                yield
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, (BackendFailed, BackendUnavailable)):
                raise
            raise explained(str(error), RUNTIME_FAILURES, doing, also=written(forget=True)) from error


@contextmanager
def _captured_stderr() -> Iterator[Callable[..., str]]:
    """Capture what is written to stderr, by C code too, and pass it on at the end unless it was taken (``forget``)."""
    with tempfile.TemporaryFile() as file:
        taken = []

        def written(forget: bool = False) -> str:
            sys.stderr.flush()
            file.seek(0)
            taken.append(forget)
            return file.read().decode("utf-8", errors="replace")

        stream, saved = sys.stderr, os.dup(2)
        stream.flush()
        os.dup2(file.fileno(), 2)
        # Python's own stream may not be descriptor 2 (a notebook's is not).
        sys.stderr = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
        try:
            yield written
        finally:
            text = written()
            sys.stderr.close()
            sys.stderr = stream
            os.dup2(saved, 2)
            os.close(saved)
            if text and not any(taken):
                stream.write(text)
