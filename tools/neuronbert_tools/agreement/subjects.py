"""Everything that answers windows: variants of artifacts, the FP32 reference, and both fresh from an export."""

import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Callable, ContextManager, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from neuronbert import compile_checkpoint
from neuronbert.artifact.manifest import Artifact, load_artifact
from neuronbert.backends import BACKENDS, backend_module, load_backend
from neuronbert.backends.base import Session, ThroughputPlan, Variant
from neuronbert.backends.quiet import silence_tracing_warnings
from neuronbert.backends.reference import ROW_BY_ROW, ReferenceSession, one_thread_each
from neuronbert.checkpoint.config import read_config
from neuronbert.compiler.candidates import Candidate, VariantEntry
from neuronbert.compiler.compilation import save_checkpoint_files
from neuronbert.compiler.exporter import variant_entry
from neuronbert.compiler.source import CompileSource
from neuronbert.engine.loading import load_variants
from neuronbert.errors import BackendUnavailable
from neuronbert.tasks import load_task
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert_tools.console import print_message

REFERENCE = "reference"
ONE_BY_ONE = "reference, all threads on a row"  # as neuronbert 0.1 computed it
AFTER_EXPORT = "reference after the export of "
EXPORTED = "exported "
UNTRACED = ("echo", "neuron", "tvm")  # no engine at all; engines of static shapes


class Opened(NamedTuple):
    """A loaded session, how to keep it busy, and how many batches may run at once."""

    session: Session
    plan: ThroughputPlan
    streams: int


Opener = Callable[[int, int], ContextManager[Opened]]  # of (threads, streams)


def available() -> List[Tuple[str, str]]:
    """Every (backend, precision) for plain CPUs that this machine runs."""
    found = []
    for name in sorted(set(BACKENDS) - set(UNTRACED)):
        backend = backend_module(name)
        for precision in backend.PRECISIONS:
            try:
                backend.check_available(precision)
            except BackendUnavailable as error:
                print_message(f"left out: {name} {precision}: {error.message}")
            else:
                found.append((name, precision))
    return found


def compiled(checkpoint: str, folder: Path) -> List[Artifact]:
    """An artifact for each backend, with all its precisions; those that ``folder`` holds already are used again."""
    pairs = available()
    artifacts = []
    for backend in dict.fromkeys(name for name, _ in pairs):
        output = folder / backend
        if not output.exists():
            print_message(f"compiling {checkpoint} with {backend}")
            precisions = [precision for name, precision in pairs if name == backend]
            compile_checkpoint(checkpoint, output, backend=backend, precision=precisions, skip_gate=True)
        artifacts.append(load_artifact(output))
    return artifacts


def subjects(checkpoint: str, artifacts: Sequence[Artifact]) -> Dict[str, Opener]:
    """Name → how it is opened: each variant, each exact one fresh from its export, and the reference in its forms."""
    found: Dict[str, Opener] = {
        REFERENCE: partial(_reference, checkpoint, True),
        ONE_BY_ONE: partial(_reference, checkpoint, False),
    }
    for artifact in artifacts:
        for variant in artifact.variants:
            found[variant["name"]] = partial(_loaded, artifact, variant)
            if variant["precision"] == "fp32":
                candidate = Candidate(variant["backend"], "fp32", explicit=True)
                found[EXPORTED + candidate.name] = partial(_exported, checkpoint, candidate)
                found[AFTER_EXPORT + candidate.name] = partial(_after_export, checkpoint, candidate)
    return found


@contextmanager
def _loaded(artifact: Artifact, variant: Variant, threads: int, streams: int) -> Iterator[Opened]:
    folder = artifact.variant_folder(variant)
    outputs = load_task(artifact.task).outputs(read_config(artifact.folder) or {})
    session, plan = load_variants([folder], [variant], outputs, threads=threads, streams=streams)
    try:
        yield Opened(session, plan, streams)
    finally:
        session.close()


@contextmanager
def _reference(checkpoint: str, side_by_side: bool, threads: int, streams: int) -> Iterator[Opened]:
    loaded = load_checkpoint(checkpoint)
    with _torch_threads(1 if side_by_side else threads):
        streams = streams if side_by_side else 1
        session = ReferenceSession(
            loaded.torch_model(), load_task(loaded.head.task).outputs(loaded.config), threads=streams
        )
        yield Opened(session, ROW_BY_ROW, streams)
        session.close()


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    with one_thread_each():  # which puts back what was set before
        torch.set_num_threads(threads)
        yield


@contextmanager
def _compiling(checkpoint: str) -> Iterator[Tuple[CompileSource, Path]]:
    """What compile exports from, with its torch model in memory, and an empty folder."""
    loaded = load_checkpoint(checkpoint)
    task = load_task(loaded.head.task)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoint_files(loaded, folder)
        questions = task.gate(loaded.config).questions(None, None, True)
        source = CompileSource(loaded, task, folder, questions, None, skip_gate=True, threads=1, progress=print_message)
        with source:
            yield source, folder


def _export(source: CompileSource, candidate: Candidate, folder: Path) -> VariantEntry:
    backend = load_backend(candidate.backend)
    output = folder / candidate.name
    output.mkdir()
    with silence_tracing_warnings():
        result = backend.export(source, candidate.precision, backend.recipes(candidate.precision)[0], output)
    return variant_entry(candidate, candidate.name, result, compile_s=0.0)


@contextmanager
def _exported(checkpoint: str, candidate: Candidate, threads: int, streams: int) -> Iterator[Opened]:
    """As compile asks the gate: exported, written and loaded by the process that still holds the torch model."""
    with _compiling(checkpoint) as (source, folder):
        variant = _export(source, candidate, folder)
        folders = [folder / candidate.name]
        session, plan = load_variants(folders, [variant], source.outputs, threads=threads, streams=streams)
        try:
            yield Opened(session, plan, streams)
        finally:
            session.close()


@contextmanager
def _after_export(checkpoint: str, candidate: Candidate, threads: int, streams: int) -> Iterator[Opened]:
    """The reference as the gate asks it: its model was traced and converted before."""
    with _compiling(checkpoint) as (source, folder), one_thread_each():
        _export(source, candidate, folder)
        yield Opened(ReferenceSession(source.torch_model(), source.outputs, threads=streams), ROW_BY_ROW, streams)
