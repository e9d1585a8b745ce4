"""Turns a checkpoint into an artifact, for artifact's loader to read: export, compare with FP32, time, save."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from neuronbert.artifact.files import new_folder, refuse_existing, refuse_inputs
from neuronbert.artifact.manifest import (
    Artifact,
    Manifest,
    PathLike,
    manifest_of,
    signed_artifact,
    write_manifest,
)
from neuronbert.backends import load_backend
from neuronbert.backends.base import Steps
from neuronbert.backends.neuron.target import (
    AUTO,
    AUTO_CAST_TYPES,
    DEFAULT_AUTO_CAST,
    DEFAULT_BATCH_SIZE,
    DEFAULT_COMPILER_TIMEOUT_S,
    DEFAULT_INSTANCE_TYPE,
    DEFAULT_SEQUENCE_LENGTH,
    NeuronTarget,
    Numbers,
)
from neuronbert.backends.outputs import Output
from neuronbert.backends.tvm.budget import DEFAULT_TUNING_MINUTES, checked_minutes
from neuronbert.checkpoint.config import write_config
from neuronbert.checkpoint.loading import Checkpoint, Source, needed_libraries
from neuronbert.compiler.candidates import (
    Candidate,
    Names,
    Trial,
    choose_candidates,
    names,
    refuse_unavailable,
    unusable_gpu,
)
from neuronbert.compiler.exporter import Exporter
from neuronbert.compiler.ladder import EXACTNESS, Ladder, is_for_throughput
from neuronbert.compiler.row_selection import RowSelectionTrial
from neuronbert.compiler.selection import Selection, keep_unloaded
from neuronbert.compiler.self_test import save_self_test
from neuronbert.compiler.small_model import load_student
from neuronbert.compiler.source import CompileSource, Progress
from neuronbert.errors import UsageError, positive, refuse_no_path
from neuronbert.hardware.cores import DATA_PARALLEL
from neuronbert.hardware.libraries import require_libraries
from neuronbert.hardware.machine import compute_threads, environment
from neuronbert.hardware.untrusted import sha256_of
from neuronbert.tasks import load_task
from neuronbert.tasks.base import Document, GateQuestions, asked_limits
from neuronbert.tasks.checkpoints import load_checkpoint


def compile_checkpoint(
    checkpoint: Source,
    output: PathLike,
    *,
    task: Optional[str] = None,
    pooling: Optional[str] = None,
    select_windows: Optional[int] = None,
    backend: Names = "auto",
    precision: Names = "auto",
    optimize_for: str = EXACTNESS,
    student: Optional[Source] = None,
    min_f1_ratio: Optional[float] = None,
    min_answer_f1: Optional[float] = None,
    calibration_data: Optional[PathLike] = None,
    gate_data: Optional[PathLike] = None,
    skip_gate: bool = False,
    no_device: bool = False,
    revision: Optional[str] = None,
    token: Optional[str] = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
    batch_size: Numbers = DEFAULT_BATCH_SIZE,
    sequence_length: Numbers = DEFAULT_SEQUENCE_LENGTH,
    instance_type: str = DEFAULT_INSTANCE_TYPE,
    mode: str = DATA_PARALLEL,
    neuroncore_pipeline_cores: Union[int, str] = AUTO,
    auto_cast: str = DEFAULT_AUTO_CAST,
    auto_cast_type: Optional[str] = None,
    compiler_timeout: Optional[int] = DEFAULT_COMPILER_TIMEOUT_S,
    tuning_minutes: float = DEFAULT_TUNING_MINUTES,
    threads: Optional[int] = None,
    progress: Progress = lambda line: None,
    on_step: Steps = lambda what, done, total: None,
) -> Artifact:
    """Compile ``checkpoint`` (hub id, folder, ``"demo"`` or (model, tokenizer)) into the folder ``output``.

    ``task`` is the name of a task; without it, that of the checkpoint's head (tasks/checkpoints.py). ``pooling`` is for
    checkpoints without one: how an embedding is made of a text's tokens, ``"auto"`` as the checkpoint's files say.
    ``select_windows`` makes an artifact that reads only so many of a long context's windows at first, where a caller
    does not say otherwise (tasks/base.py:RowSelection); what that costs is measured, and refused where it is
    more than ``min_f1_ratio`` allows.
    ``backend`` and ``precision`` are names, lists of names, or ``"auto"``. Where both are named, every combination is
    built and kept, fastest first; with an ``"auto"`` only the fastest that passes the gate on this machine is.

    With ``optimize_for="throughput"`` parts of the encoder are then removed from the fastest, more and more of them,
    until what is left does not keep ``min_f1_ratio`` of FP32's accuracy; the fastest is taken (compiler/ladder.py).
    ``student``, a smaller checkpoint with the same task and tokenizer, is tried before, and taken on the same terms;
    of a hub id it is the newest revision.

    The gate compares each variant with the FP32 reference over ``gate_data`` (a file in the task's data format, the one
    that ``evaluate_artifact`` reads; filled up from the shipped sample); a variant asked for by name that fails it
    raises GateRefused. Without ``min_f1_ratio`` and ``min_answer_f1`` the gate has the limits of its task.
    ``calibration_data`` (the same format) feeds int8 quantisation. ``threads`` are CPU threads, by default
    machine.compute_threads.

    The models of ``backend="neuron"`` and ``"tvm"`` take one shape each: every ``batch_size`` with every
    ``sequence_length`` (tokens) is a bucket. The other backends take any shape. ``tuning_minutes`` is how long
    ``"tvm"`` looks for fast schedules on this machine's ``threads``, for all buckets together; 0 takes some unmeasured.

    From ``instance_type`` to ``compiler_timeout`` (seconds, 0 or None for no limit) the options are those of
    ``backend="neuron"``: the layout that ``mode`` and ``neuroncore_pipeline_cores`` give ``instance_type``, and with
    ``auto_cast`` and ``auto_cast_type`` what becomes 16 bits; the default is the most accurate there is
    (backends/neuron/target.py).

    ``progress`` gets a line for each stage, ``on_step`` within one what is counted, how much is done, and of how much.
    Nothing is left at ``output`` after an error.

    With ``no_device`` neuron-cc compiles on a machine without Inferentia: nothing is loaded, so there is no gate, and
    the first load on an inf1 instance is the first test.
    """
    refuse_no_path("output", output)
    folders = [None if isinstance(given, (tuple, list)) else given for given in (checkpoint, student)]
    refuse_inputs([Path(output)], [*folders, calibration_data, gate_data])
    refuse_existing(Path(output))
    if task is not None:
        load_task(task)  # refuses a name that is none
    limits = asked_limits(min_f1_ratio, min_answer_f1)
    first_rows = positive("select_windows", select_windows)
    threads = positive("threads", threads) or compute_threads()
    tuning_minutes = checked_minutes(tuning_minutes)
    cast_type = auto_cast_type or _cast_type_of(names(precision))
    cores = neuroncore_pipeline_cores
    target = NeuronTarget.of(
        batch_size, sequence_length, instance_type, mode, cores, auto_cast, cast_type, compiler_timeout
    )
    candidates = choose_candidates(backend, precision, target.precision)
    if no_device:
        refuse_loading_backends(candidates)
    reduces = is_for_throughput(optimize_for, candidates, skip_gate or no_device, student is not None)
    compilation = Compilation(
        candidates,
        target,
        limits,
        reduces,
        skip_gate or no_device,
        no_device,
        gate_data,
        calibration_data,
        first_rows,
        threads,
        tuning_minutes,
        progress,
        on_step,
    )
    require_libraries(*needed_libraries(checkpoint))
    refuse_unavailable(candidates)
    left_alone = unusable_gpu() if names(backend) == ["auto"] else None
    if left_alone is not None:
        progress(left_alone)
    progress("reading the checkpoint")
    reading: Dict[str, Any] = {"token": token, "local_files_only": local_files_only, "allow_pickle": allow_pickle}
    source = load_checkpoint(checkpoint, task=task, revision=revision, pooling=pooling, **reading)
    if source.pooling is not None:
        why = "the weights have no head of another task: " if task is None else ""
        progress(f"{why}{source.head.task}, pooling {source.pooling}")
    compilation.run(source, output, None if student is None else load_student(student, source, **reading))
    return signed_artifact(output, ())  # nobody has signed it yet


@dataclass(frozen=True)
class Compilation:
    """The checked options of one compilation, whatever the checkpoint and wherever the artifact goes."""

    candidates: Sequence[Candidate]
    target: NeuronTarget
    limits: Mapping[str, float]  # those that a person asks for; the others are the gate's own
    reduces: bool  # the fastest, as long as that makes it faster
    skip_gate: bool
    no_device: bool
    gate_data: Optional[PathLike]
    calibration_data: Optional[PathLike]
    first_rows: Optional[int]  # that a long input's reading begins with; None: all are read
    threads: int
    tuning_minutes: float
    progress: Progress
    on_step: Steps

    @property
    def static_target(self) -> Optional[NeuronTarget]:
        """The target, if a candidate has static shapes; else None: nobody would use its buckets."""
        static = any(load_backend(candidate.backend).STATIC_SHAPES for candidate in self.candidates)
        return self.target if static else None

    def run(self, checkpoint: Checkpoint, output: PathLike, student: Optional[Checkpoint] = None) -> None:
        """Write the artifact of ``checkpoint`` into the new folder ``output``; nothing is left there after an error.

        ``student`` is a smaller one to be tried.
        """
        task = load_task(checkpoint.head.task)
        task_gate = task.gate(checkpoint.config)
        questions = task_gate.questions(self.gate_data, self.calibration_data, self.skip_gate)
        limits = replace(task_gate.LIMITS, **self.limits)
        asked = [] if self.skip_gate else questions.asked
        selection = None if self.first_rows is None else RowSelectionTrial(task, task_gate, self.first_rows, asked)
        # The files are hashed as they were read, before hours may pass.
        gate = {"skipped": self.skip_gate, "limits": vars(limits), **gate_entry(questions, self.skip_gate)}
        with new_folder(output) as folder:
            save_checkpoint_files(checkpoint, folder)
            source = CompileSource(
                checkpoint,
                task,
                folder,
                questions,
                self.static_target,
                skip_gate=self.skip_gate,
                threads=self.threads,
                progress=self.progress,
                on_step=self.on_step,
            )
            exporter = Exporter(
                source,
                folder,
                threads=self.threads,
                tuning_minutes=self.tuning_minutes,
                progress=self.progress,
                load=not self.no_device,
            )

            def accepts(trial: Trial) -> None:
                if selection is not None:
                    selection.measure(source, trial, limits)

            with source, exporter:
                trials = [exporter.build(candidate) for candidate in self.candidates]
                if self.no_device:
                    kept = keep_unloaded(source, trials)
                else:
                    kept = Selection(source, exporter, limits, self.progress).choose(trials)
                accepts(kept[0])
                if self.reduces:
                    ladder = Ladder(source, exporter, kept[0], limits, self.limits, self.progress, accepts, student)
                    ladder.walk()
                    kept, trials = [ladder.best, *kept[1:]], [*trials, *ladder.rungs]
            save_self_test(folder, source.selftest, checkpoint.config)
            more = {} if selection is None else {"row_selection": selection.as_dict(kept[0])}
            write_manifest(folder, new_manifest(checkpoint, source.outputs, kept, trials, gate, more))


def refuse_loading_backends(candidates: Sequence[Candidate]) -> None:
    """UsageError for a candidate whose export needs what it runs on: only neuron-cc compiles for another machine."""
    others = [candidate.backend for candidate in candidates if load_backend(candidate.backend).DEVICE != "neuron"]
    if others:
        raise UsageError(
            f"--no-device is for what is compiled for Inferentia, not for {', '.join(dict.fromkeys(others))}",
            hint="--backend neuron, or leave out --no-device",
        )


def _cast_type_of(precisions: Sequence[str]) -> Optional[str]:
    """The cast type that ``--precision`` asks for: fp16 there means ``--auto-cast-type fp16``."""
    cast_types = [precision for precision in precisions if precision in AUTO_CAST_TYPES]
    return cast_types[0] if len(cast_types) == 1 else None


def gate_entry(questions: GateQuestions, skipped: bool) -> Document:
    """For the manifest: how many questions the gate asks (``n``), and the files of the gate and of calibration."""
    return {
        "n": 0 if skipped else len(questions.asked),
        "data": [_file_entry(path) for path in questions.asked_files],
        "calibration_data": _file_entry(questions.calibration_file),
    }


def outputs_entry(outputs: Sequence[Output]) -> List[Document]:
    """For the manifest: what the model returns."""
    return [{"name": output.name, "per": output.per} for output in outputs]


def _file_entry(path: Path) -> Dict[str, str]:
    return {"name": path.name, "sha256": sha256_of(path)}


def new_manifest(
    checkpoint: Checkpoint,
    outputs: Sequence[Output],
    kept: Sequence[Trial],
    trials: Sequence[Trial],
    gate: Document,
    more: Document,
) -> Manifest:
    """The manifest, still without checksums."""
    return manifest_of(
        checkpoint.head.task,
        checkpoint.as_dict(),
        [variant for trial in kept for variant in trial.variants],
        environment(),
        outputs=outputs_entry(outputs),
        **({} if checkpoint.pooling is None else {"pooling": checkpoint.pooling}),
        gate=gate,
        **more,
        selection=[record for trial in trials for record in trial.records()],
    )


def save_checkpoint_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Write config.json and the tokenizer's files, as transformers reads them."""
    write_config(folder, checkpoint.config)
    for name, data in checkpoint.tokenizer_files().items():
        (folder / name).write_bytes(data)
