"""Turns a checkpoint into an artifact: export with each backend, compare with FP32 on the CPU, time, save."""

import json
import shutil
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Union

import numpy as np

from neuronbert.artifact.files import new_folder, refuse_existing
from neuronbert.artifact.manifest import (
    SELFTEST_NAME,
    Artifact,
    PathLike,
    load_artifact,
    manifest_of,
    sha256_of,
    write_manifest,
)
from neuronbert.backends import Batch, ExportResult, Session, ThroughputPlan, load_backend
from neuronbert.backends.buckets import BucketedSession
from neuronbert.backends.isolated import load_isolated
from neuronbert.backends.neuron.failures import NumericalError, PipelineRefused
from neuronbert.backends.neuron.target import (
    AUTO,
    AUTO_CAST_TYPES,
    DEFAULT_AUTO_CAST,
    DEFAULT_BATCH_SIZE,
    DEFAULT_INSTANCE_TYPE,
    DEFAULT_SEQUENCE_LENGTH,
    NeuronTarget,
    Numbers,
    one_step_smaller,
)
from neuronbert.backends.reference import ReferenceSession, quietly_walked
from neuronbert.checkpoint.loading import Checkpoint, load_checkpoint
from neuronbert.compiler.candidates import Candidate, Names, Trial, choose_candidates, names, time_trials
from neuronbert.compiler.gate import (
    DEFAULT_MIN_ANSWER_F1,
    DEFAULT_MIN_F1_RATIO,
    FP32_MAX_ABS_DIFF,
    MIN_QUESTIONS,
    NOT_FINITE,
    Agreement,
    Gate,
    GateLimits,
    nan_refusals,
    refusals,
    selftest_arrays,
    selftest_batch,
    selftest_tolerance,
)
from neuronbert.engine.engine import load_variants
from neuronbert.errors import (
    BackendFailed,
    BackendUnavailable,
    GateRefused,
    InputError,
    NeuronBertError,
    UsageError,
    positive,
)
from neuronbert.hardware.cores import DATA_PARALLEL
from neuronbert.hardware.machine import compute_threads, environment
from neuronbert.tasks.question_answering.samples import calibration_path, gate_path
from neuronbert.tasks.question_answering.squad import SquadQuestion, load_squad
from neuronbert.tasks.question_answering.windows import (
    Example,
    Tokenizer,
    Window,
    WindowOptions,
    collate,
    encode_examples,
)

Progress = Callable[[str], None]

GATE_HINT = (
    "--precision fp32, or --calibration-data with questions of your own domain; --min-f1-ratio and --min-answer-f1 set "
    "what is accepted, and --skip-gate is for weights that mean nothing"
)


def compile_checkpoint(
    checkpoint: Any,
    output: PathLike,
    *,
    backend: Names = "auto",
    precision: Names = "auto",
    min_f1_ratio: float = DEFAULT_MIN_F1_RATIO,
    min_answer_f1: float = DEFAULT_MIN_ANSWER_F1,
    calibration_data: Optional[PathLike] = None,
    gate_data: Optional[PathLike] = None,
    skip_gate: bool = False,
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
    compiler_timeout: Optional[int] = None,
    threads: Optional[int] = None,
    progress: Progress = lambda line: None,
) -> Artifact:
    """Compile ``checkpoint`` (hub id, folder, ``"demo"`` or (model, tokenizer)) into the folder ``output``.

    ``backend`` and ``precision`` are names, lists of names, or ``"auto"``. Where both are named, every combination is
    built and kept, fastest first; with an ``"auto"`` only the fastest that passes the gate on this machine is.

    The gate compares each variant with the FP32 reference over ``gate_data`` (SQuAD format, filled up to 500 questions
    from the shipped sample); a variant asked for by name that fails it raises GateRefused. ``calibration_data`` (SQuAD
    format) feeds int8 quantisation. ``threads`` are CPU threads, by default machine.compute_threads.

    From ``batch_size`` to ``compiler_timeout`` (seconds) the options are those of ``backend="neuron"``, whose compiled
    models take one shape each: every batch size with every sequence length (tokens) is a bucket, for the layout that
    ``mode`` and ``neuroncore_pipeline_cores`` give ``instance_type``. ``auto_cast`` and ``auto_cast_type`` say what
    becomes 16 bits; the default is the most accurate there is (neuron_target.py). The other backends take any shape.

    Nothing is left at ``output`` after an error.
    """
    refuse_existing(Path(output))
    limits = GateLimits(min_f1_ratio, min_answer_f1)
    threads = positive("threads", threads) or compute_threads()
    target = NeuronTarget.of(
        batch_size,
        sequence_length,
        instance_type,
        mode,
        neuroncore_pipeline_cores,
        auto_cast,
        auto_cast_type or _cast_type_of(names(precision)),
        compiler_timeout,
    )
    candidates = choose_candidates(backend, precision, target.precision)
    static = any(load_backend(candidate.backend).STATIC_SHAPES for candidate in candidates)
    progress("reading the checkpoint")
    source = load_checkpoint(
        checkpoint, revision=revision, token=token, local_files_only=local_files_only, allow_pickle=allow_pickle
    )
    calibration = load_squad(calibration_data or calibration_path())
    questions = gate_questions(gate_data, calibration)
    if not skip_gate:
        refuse_few(questions, gate_data)
    with new_folder(output) as folder:
        save_checkpoint_files(source, folder)
        bench = Bench(
            source,
            folder,
            calibration,
            questions,
            limits,
            skip_gate,
            threads,
            progress,
            target if static else None,
            data_entry(gate_data, calibration_data, questions, skip_gate),
        )
        with bench:
            trials = [bench.build(candidate) for candidate in candidates]
            kept = bench.choose(trials)
        save_selftest(folder / SELFTEST_NAME, bench.selftest)
        write_manifest(folder, bench.manifest(kept, trials))
    return load_artifact(output)


def _cast_type_of(precisions: Sequence[str]) -> Optional[str]:
    """``--precision fp16`` is a way to say ``--auto-cast-type fp16``."""
    cast_types = [precision for precision in precisions if precision in AUTO_CAST_TYPES]
    return cast_types[0] if len(cast_types) == 1 else None


def gate_questions(gate_data: Optional[PathLike], calibration: Sequence[SquadQuestion]) -> List[SquadQuestion]:
    """The gate's questions: the given ones, filled up from the shipped sample, none from a paragraph of calibration."""
    seen = {question.context for question in calibration}
    shipped = [question for question in load_squad(gate_path()) if question.context not in seen]
    if gate_data is None:
        return shipped
    given = [question for question in load_squad(gate_data) if question.context not in seen]
    twice = {(question.question, question.context) for question in given}
    more = [question for question in shipped if (question.question, question.context) not in twice]
    return given + more[: max(0, MIN_QUESTIONS - len(given))]


def refuse_few(questions: Sequence[SquadQuestion], gate_data: Optional[PathLike]) -> None:
    """InputError when calibration leaves the gate fewer questions than it needs to mean something."""
    if len(questions) < MIN_QUESTIONS:
        own = f"{Path(gate_data).name} and " if gate_data else ""
        raise InputError(
            f"{len(questions)} questions are left for the gate, which needs {MIN_QUESTIONS}: "
            f"the others of {own}the shipped sample are about paragraphs of the calibration data",
            hint="--calibration-data with other paragraphs, or --gate-data with more questions",
        )


def data_entry(
    gate_data: Optional[PathLike],
    calibration_data: Optional[PathLike],
    questions: Sequence[SquadQuestion],
    skip_gate: bool,
) -> Dict[str, Any]:
    """For the manifest: how many questions the gate asks (``n``) and the files that they and calibration's are from."""
    given = {(question.question, question.context) for question in load_squad(gate_data)} if gate_data else set()
    filled = any((question.question, question.context) not in given for question in questions)
    asked = [Path(gate_data)] if gate_data else []
    files = [] if skip_gate else asked + ([gate_path()] if filled else [])
    return {
        "n": 0 if skip_gate else len(questions),
        "data": [_file_entry(path) for path in files],
        "calibration_data": _file_entry(Path(calibration_data or calibration_path())),
    }


def _file_entry(path: Path) -> Dict[str, str]:
    return {"name": path.name, "sha256": sha256_of(path)}


class Bench:
    """One compilation under way: the checkpoint, its FP32 reference, the gates, and the folder being filled.

    As a context manager it closes every session that is still open when the block ends, however that happens.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        folder: Path,
        calibration: Sequence[SquadQuestion],
        questions: Sequence[SquadQuestion],
        limits: GateLimits,
        skip_gate: bool,
        threads: int,
        progress: Progress,
        target: Optional[NeuronTarget],
        data: Mapping[str, Any],
    ):
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self.input_names = checkpoint.input_names
        self.folder = folder
        self.limits = limits
        self.skip_gate = skip_gate
        self.threads = threads
        self.progress = progress
        self.target = target
        self.data = data
        self.tokenizer = Tokenizer.from_files(folder)
        self._refuse_long_buckets()
        self._calibration = calibration
        self._questions = questions
        self._model = checkpoint.torch_model()
        self._reference = ReferenceSession(self._model, threads=threads)
        self._gates: Dict[Optional[int], Gate] = {}
        self._trials: List[Trial] = []
        # The shipped questions, whatever the gate's and calibration's are: the same text in every artifact.
        self._shipped = load_squad(gate_path())
        shortest = self._encode(self._shipped, min(target.sequence_lengths) if target else None)
        self.selftest = selftest_arrays(shortest, self._reference, self.tokenizer.pad_id)

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: Any) -> None:
        with ExitStack() as stack:
            stack.callback(self._reference.close)
            for trial in self._trials:
                if trial.session is not None:
                    stack.callback(trial.session.close)

    def _refuse_long_buckets(self) -> None:
        positions = self.tokenizer.max_positions
        if self.target is not None and positions is not None and max(self.target.sequence_lengths) > positions:
            raise UsageError(
                f"--sequence-length {max(self.target.sequence_lengths)} is more than the model's {positions} positions",
                hint=f"--sequence-length {positions}",
            )

    def _encode(self, questions: Sequence[SquadQuestion], length: Optional[int] = None) -> List[Example]:
        """Windows of the questions, of at most ``length`` tokens where one is given (a bucket's)."""
        options = WindowOptions(max_seq_len=length, max_question_len=length // 2 if length else None)
        return encode_examples(
            self.tokenizer, [(question.question, question.context) for question in questions], options
        )

    def gate(self, length: Optional[int]) -> Optional[Gate]:
        """The gate for windows of at most ``length`` tokens (None: the default), its reference computed once."""
        if not self.skip_gate and length not in self._gates:
            cut = f" in windows of {length} tokens" if length else ""
            self.progress(f"answering {len(self._questions)} questions{cut} in FP32, the reference")
            examples = self._encode(self._questions, length)
            self._warn_of_cuts(examples, length)
            self._gates[length] = Gate(self._questions, examples, self.tokenizer.pad_id, self._reference)
        return self._gates.get(length)

    def _warn_of_cuts(self, examples: Sequence[Example], length: Optional[int]) -> None:
        """The gate compares like with like, and so does not see what short windows cost FP32 itself."""
        longest = self.target is not None and length == max(self.target.sequence_lengths)
        cut = sum(len(example.windows) > 1 for example in examples)
        if longest and 10 * cut > len(examples):
            self.progress(
                f"note: {cut / len(examples):.0%} of the gate's questions do not fit one window of {length} tokens; a "
                f"longer --sequence-length beside it answers them better"
            )

    # What backends ask for while they export (backends.ExportSource).

    def torch_model(self) -> Any:
        """The FP32 reference model."""
        return self._model

    def calibration(self) -> List[Batch]:
        """Unpadded single-row batches of the calibration questions."""
        windows = [window for example in self._encode(self._calibration) for window in example.windows]
        return [collate([window], self.tokenizer.pad_id) for window in windows]

    @contextmanager
    def _guarded(self, trial: Trial) -> Iterator[None]:
        """What breaks a candidate while it is made, timed or compared: raised for one asked for by name.

        Of an ``auto`` it is recorded, and what there was of the candidate is thrown away.
        """
        try:
            yield
        except (BackendUnavailable, BackendFailed) as error:
            self._discard(trial)
            if trial.candidate.explicit:
                raise
            self.progress(f"{trial.candidate.name}: {error.message}")
            before = f"{trial.why}; then: " if trial.outcome == "refused" else ""
            trial.outcome, trial.why = trial.outcome or "not built", before + error.message
            trial.variants, trial.agreements, trial.windows_per_s = [], [], []

    def build(self, candidate: Candidate) -> Trial:
        """Export a candidate with the first of its backend's recipes that does not break, and load it."""
        trial = Trial(candidate)
        self._trials.append(trial)
        with self._guarded(trial):
            backend = load_backend(candidate.backend)
            backend.check_available(candidate.precision)
            if not candidate.explicit and not backend.batch_invariant(candidate.precision):
                raise BackendUnavailable(
                    "its logits for a row depend on the other rows of the batch; "
                    f"ask for it with --backend {candidate.backend} --precision {candidate.precision}"
                )
            trial.recipes = list(backend.recipes(candidate.precision))
            self._export(trial)
        return trial

    def _export(self, trial: Trial) -> None:
        """Build and load the trial with the next of its recipes that does not break; what the last one raises."""
        while True:
            recipe = trial.recipes.pop(0)
            try:
                self._export_recipe(trial, recipe)
                return
            except BackendFailed as error:
                if not trial.recipes:
                    raise
                self.progress(f"{trial.candidate.name}: {error.message}; trying the next recipe")
                self._discard(trial)

    def _export_recipe(self, trial: Trial, recipe: Mapping[str, Any]) -> None:
        trial.variants, trial.agreements = [], []
        if load_backend(trial.candidate.backend).STATIC_SHAPES:
            trial.session = self._export_buckets(trial, recipe)
        else:
            self._export_variant(trial, trial.candidate.name, recipe)
            folders = [self._folder_of(variant) for variant in trial.variants]
            trial.session, trial.plan = load_variants(folders, trial.variants, threads=self.threads, streams=None)
        if trial.session.precision != trial.candidate.precision:
            raise BackendFailed(
                f"{trial.candidate.backend} runs {trial.candidate.name} in {trial.session.precision}",
                hint="neuronbert doctor, or another --precision",
            )

    def _export_variant(self, trial: Trial, name: str, recipe: Mapping[str, Any], words: str = "") -> None:
        self.progress(f"{name}: compiling" + (f" ({words or _recipe_words(recipe)})" if recipe else ""))
        backend = load_backend(trial.candidate.backend)
        folder = self.folder / "variants" / name
        folder.mkdir(parents=True)
        trial.folders.append(folder)
        started = time.perf_counter()
        with quietly_walked():
            result = backend.export(self, trial.candidate.precision, recipe, folder)
        trial.variants.append(variant_entry(trial.candidate, name, result, time.perf_counter() - started))

    def _export_buckets(self, trial: Trial, recipe: Mapping[str, Any]) -> BucketedSession:
        """Every bucket of the target, at the first number of pipeline cores that the compiler takes for all of them."""
        assert self.target is not None
        refused: List[int] = []
        while True:
            plan = self.target.plan(self.checkpoint.encoder_parameters, refused)
            for line in plan.sentences():
                self.progress(line)
            try:
                for bucket in plan.buckets:
                    whole = {**recipe, **self.target.recipe(plan, bucket)}
                    name = f"{trial.candidate.backend}-{bucket.name}"
                    self._export_variant(trial, name, whole, " ".join(whole["compiler_args"]))
                break
            except PipelineRefused as error:
                if not self.target.asks_for_auto_cores or plan.layout.cores_per_model == 1:
                    raise
                refused.append(plan.layout.cores_per_model)
                self.progress(f"{error.message}\ntrying {one_step_smaller(refused[-1])} pipeline cores instead")
                self._discard(trial)
                trial.variants = []
        folders = [self._folder_of(variant) for variant in trial.variants]
        session = load_isolated(folders, trial.variants, threads=self.threads)
        trial.plan = session.plan()
        return session

    def _folder_of(self, variant: Mapping[str, Any]) -> Path:
        return self.folder / "variants" / str(variant["name"])

    def _discard(self, trial: Trial) -> None:
        if trial.session is not None:
            trial.session.close()
            trial.session = None
        for folder in trial.folders:
            shutil.rmtree(folder, ignore_errors=True)
        trial.folders = []

    def _timed_windows(self) -> List[Window]:
        """The gate's windows, short enough for every bucket there is."""
        length = max(self.target.sequence_lengths) if self.target else None
        questions = self._questions or self._shipped  # none are left to a skipped gate when calibration has them all
        return [window for example in self._encode(questions, length) for window in example.windows]

    def choose(self, trials: Sequence[Trial]) -> List[Trial]:
        """Ask the gate about the fastest first; the trials that are kept, fastest first.

        Of the candidates of an ``auto``, those slower than one that passed are dropped without being asked about. One
        that is refused comes back with its next recipe, at the speed that it has then.
        """
        waiting = [trial for trial in trials if trial.session is not None]
        if len(waiting) > 1:
            self.progress(f"timing {', '.join(trial.candidate.name for trial in waiting)} in turns")
            time_trials(waiting, self._timed_windows(), self.tokenizer.pad_id, guard=self._guarded)
            waiting = [trial for trial in waiting if trial.session is not None]
        kept: List[Trial] = []
        while waiting:
            waiting.sort(key=lambda trial: -trial.speed)
            trial = waiting.pop(0)
            if kept and not trial.candidate.explicit:
                trial.outcome = "slower"
                trial.why = f"{kept[0].candidate.name} is {kept[0].speed / trial.speed:.2f} times as fast"
                self._discard(trial)
                continue
            with self._guarded(trial):
                if self._passes(trial):
                    kept.append(trial)
                elif self._rebuild(trial):
                    waiting.append(trial)
        if not kept:
            raise _nothing_left(trials)
        return kept

    def _passes(self, trial: Trial) -> bool:
        """Whether the gate lets every variant of the trial through; what it measured goes into them either way."""
        assert trial.session is not None
        reasons: List[str] = []
        if isinstance(trial.session, BucketedSession):
            for variant, session in trial.session.parts():
                found = self._examine(trial, variant, session, session.plan())
                reasons += [f"{variant['name']}: {reason}" for reason in found]
        else:
            reasons = self._examine(trial, trial.variants[0], trial.session, trial.plan)
        passed = "" if self.skip_gate else "it passes the gate"
        trial.outcome, trial.why = ("refused", "; ".join(reasons)) if reasons else ("kept", passed)
        return not reasons

    def _examine(self, trial: Trial, variant: Any, session: Session, plan: ThroughputPlan) -> List[str]:
        """Why the gate refuses a variant; empty if it passes. The variant gets its figures."""
        gate = self.gate(variant["sequence_length"])
        self.progress(f"{variant['name']}: {'comparing with the reference' if gate else 'self-test'}")
        agreement: Optional[Agreement] = None
        try:
            if gate is not None:
                agreement = gate.compare(session, plan)
                reasons = refusals(variant["precision"], agreement, self.limits)
            else:
                reasons = nan_refusals(session.run(selftest_batch(self.selftest)))
            exact = variant["precision"] == "fp32" and gate is not None
            tolerance = FP32_MAX_ABS_DIFF if exact else selftest_tolerance(self.selftest, session)
            variant["selftest_tolerance"] = tolerance
            reasons = reasons or ([] if np.isfinite(tolerance) else [NOT_FINITE])
        except NumericalError as error:
            reasons = [f"{NOT_FINITE} ({error.hint})"]
        variant.update(agreement_entry(agreement))
        trial.agreements += [agreement] if agreement else []
        return reasons

    def _rebuild(self, trial: Trial) -> bool:
        """Try a refused trial's next recipe; False, or GateRefused for an explicit one, when there is none left."""
        self.progress(f"{trial.candidate.name}: refused: {trial.why}")
        self._discard(trial)
        if trial.recipes:
            self._export(trial)
            time_trials([trial], self._timed_windows(), self.tokenizer.pad_id)
            return True
        if trial.candidate.explicit:
            raise GateRefused(f"the gate refuses {trial.candidate.name}: {trial.why}", hint=GATE_HINT)
        return False

    def manifest(self, kept: Sequence[Trial], trials: Sequence[Trial]) -> Dict[str, Any]:
        """The manifest, still without checksums."""
        source = self.checkpoint
        return manifest_of(
            {
                "source": source.source,
                "revision": source.revision,
                "fingerprint": source.fingerprint,
                "architecture": source.architecture,
                "parameters": source.parameters,
                "encoder_parameters": source.encoder_parameters,
            },
            [variant for trial in kept for variant in trial.variants],
            environment(),
            gate={"skipped": self.skip_gate, "limits": vars(self.limits), **self.data},
            selection=[record for trial in trials for record in trial.records()],
        )


def variant_entry(candidate: Candidate, name: str, result: ExportResult, compile_s: float) -> Dict[str, Any]:
    """A variant as the manifest lists it, before it was compared with the reference."""
    return {
        "name": name,
        "backend": candidate.backend,
        "precision": candidate.precision,
        "batch_size": result.batch_size,
        "sequence_length": result.sequence_length,
        "pipeline_cores": result.pipeline_cores,
        "compiler_args": list(result.compiler_args),
        "emulated": result.emulated,
        "percent_compiled": result.percent_compiled,
        "batch_invariant": result.batch_invariant,
        "requires": result.requires,
        "recipe": result.recipe,
        "compile_s": round(compile_s, 3),
        "versions": result.versions,
        "files": {},
    }


def agreement_entry(agreement: Optional[Agreement]) -> Dict[str, Any]:
    """The manifest's ``agreement`` and ``accuracy``; null where the gate was skipped."""
    if agreement is None:
        return {"agreement": None, "accuracy": None}
    figures = agreement.as_dict()
    return {
        "agreement": {key: figures.pop(key) for key in ("max_abs_diff", "top1_agreement", "n")},
        "accuracy": figures,
    }


def save_checkpoint_files(checkpoint: Checkpoint, folder: Path) -> None:
    """config.json and the tokenizer's files, as transformers reads them."""
    (folder / "config.json").write_text(json.dumps(dict(checkpoint.config), indent=2) + "\n")
    for name, data in checkpoint.tokenizer_files().items():
        (folder / name).write_bytes(data)


def save_selftest(path: Path, arrays: Mapping[str, Any]) -> None:
    """Inputs and FP32 logits, as a load compares itself with them."""
    np.savez(path, **arrays)


def _recipe_words(recipe: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in recipe.items())


def _nothing_left(trials: Sequence[Trial]) -> NeuronBertError:
    lines = "\n".join(f"  {trial.candidate.name} {trial.outcome}: {trial.why}" for trial in trials)
    kind = GateRefused if any(trial.outcome == "refused" for trial in trials) else BackendUnavailable
    return kind(f"no variant is left:\n{lines}", hint="neuronbert doctor, or --backend and --precision by name")
