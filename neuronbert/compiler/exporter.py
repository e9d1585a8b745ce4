"""Builds and loads a candidate: one variant, or one for each bucket of static shapes; selection.py decides on it."""

import shutil
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import ContextManager, Iterator, List, Optional

from neuronbert import emulator
from neuronbert.backends import load_backend
from neuronbert.backends.base import ExportResult, Recipe, Session
from neuronbert.backends.buckets import BucketedSession
from neuronbert.backends.isolated import load_isolated
from neuronbert.backends.neuron.failures import PipelineRefused
from neuronbert.backends.neuron.target import NeuronPlan, NeuronTarget, one_step_smaller
from neuronbert.backends.quiet import silence_tracing_warnings
from neuronbert.backends.tracing import traces_forgotten
from neuronbert.compiler.candidates import Candidate, Trial, VariantEntry
from neuronbert.compiler.self_test import save_self_test
from neuronbert.compiler.source import CompileSource, Progress
from neuronbert.engine.loading import load_variants
from neuronbert.errors import BackendFailed, BackendUnavailable
from neuronbert.hardware.machine import memory_bytes


class Exporter:
    """Fills the folder of an artifact with variants. As a context manager it closes every session still open.

    Without ``load`` variants are built only: the machine has no device for them.
    """

    def __init__(
        self,
        source: CompileSource,
        folder: Path,
        *,
        threads: int,
        tuning_minutes: float,
        progress: Progress,
        load: bool = True,
    ):
        self._source = source
        self._folder = folder
        self._threads = threads
        self._tuning_minutes = tuning_minutes
        self._progress = progress
        self._load = load
        self._trials: List[Trial] = []

    def __enter__(self) -> "Exporter":
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            for trial in self._trials:
                if trial.session is not None:
                    stack.callback(trial.session.close)

    @contextmanager
    def guarded(self, trial: Trial) -> Iterator[None]:
        """Catch what breaks a candidate while it is built, timed or compared; raise it if it was asked for by name.

        For a candidate of ``auto`` the reason is recorded, and its files are removed.
        """
        try:
            yield
        except (BackendUnavailable, BackendFailed) as error:
            self.discard(trial)
            if trial.candidate.explicit:
                raise
            self._progress(f"{trial.candidate.name}: {error.message}")
            earlier = f"{trial.why}; then: " if trial.outcome == "refused" else ""
            trial.outcome, trial.why = trial.outcome or "not built", earlier + error.message
            trial.variants, trial.agreements, trial.windows_per_s = [], [], []

    def build(self, candidate: Candidate) -> Trial:
        """Export a candidate with the first of its backend's recipes that works, and load it where that is wanted."""
        trial = Trial(candidate)
        self._trials.append(trial)
        with self.guarded(trial):
            backend = load_backend(candidate.backend)
            backend.check_available(candidate.precision)
            if not candidate.explicit and not backend.batch_invariant(candidate.precision):
                raise BackendUnavailable(
                    "its logits for a row depend on the other rows of the batch; "
                    f"ask for it with --backend {candidate.backend} --precision {candidate.precision}"
                )
            trial.recipes = list(backend.recipes(candidate.precision))
            self.export(trial)
        return trial

    def build_of(self, trial: Trial, source: CompileSource) -> None:
        """Export ``source`` as the trial, with the next of its recipes that works, and load it; raises what fails.

        Its folder gets a self-test of that model: the checkpoint's own would tell nothing of it.
        """
        self._trials.append(trial)
        trial.source, trial.selftest = source, source.selftest
        try:
            self.export(trial)
            save_self_test(trial.folders[0], source.selftest, source.config)
        finally:
            trial.source = None  # its model is as large as the checkpoint's

    def export(self, trial: Trial) -> None:
        """Build and load the trial with the next of its recipes that works; raises what the last one raises."""
        while True:
            recipe = trial.recipes.pop(0)
            try:
                self._export_recipe(trial, recipe)
                return
            except BackendFailed as error:
                if not trial.recipes:
                    raise
                self._progress(f"{trial.candidate.name}: {error.message}; trying the next recipe")
                self.discard(trial)

    def _export_recipe(self, trial: Trial, recipe: Recipe) -> None:
        trial.variants, trial.agreements, trial.recipe = [], [], recipe
        outputs = self._source.outputs
        if load_backend(trial.candidate.backend).STATIC_SHAPES:
            trial.session = self._export_buckets(trial, recipe)
        else:
            self._export_variant(trial, trial.candidate.name, recipe)
            trial.session, trial.plan = load_variants(
                trial.folders, trial.variants, outputs, threads=self._threads, streams=None
            )
        if trial.session is not None and trial.session.precision != trial.candidate.precision:
            raise BackendFailed(
                f"{trial.candidate.backend} runs {trial.candidate.name} in {trial.session.precision}",
                hint="neuronbert doctor, or another --precision",
            )

    def _export_variant(self, trial: Trial, name: str, recipe: Recipe, words: str = "") -> None:
        self._progress(f"{name}: compiling" + (f" ({words or _recipe_words(recipe)})" if recipe else ""))
        backend = load_backend(trial.candidate.backend)
        folder = self._folder / "variants" / name
        folder.mkdir(parents=True)
        trial.folders.append(folder)
        started = time.perf_counter()
        with silence_tracing_warnings(), traces_forgotten():
            result = backend.export(trial.source or self._source, trial.candidate.precision, recipe, folder)
        trial.variants.append(variant_entry(trial.candidate, name, result, time.perf_counter() - started))

    def _export_buckets(self, trial: Trial, recipe: Recipe) -> Optional[BucketedSession]:
        """Every bucket of the target, loaded in a child where that is wanted."""
        target = self._source.target
        assert target is not None
        if load_backend(trial.candidate.backend).DEVICE == "neuron":
            self._export_for_cores(trial, recipe, target)
        else:
            self._export_tuned(trial, recipe, target)
        if not self._load:
            return None
        session = load_isolated(trial.folders, trial.variants, self._source.outputs, threads=self._threads)
        trial.plan = session.plan()
        return session

    def _export_tuned(self, trial: Trial, recipe: Recipe, target: NeuronTarget) -> None:
        """Every bucket for the CPU's threads, in equal parts of the minutes that there are for tuning."""
        buckets = target.buckets()
        minutes = self._tuning_minutes / len(buckets)
        for bucket in buckets:
            bucket_recipe = {
                **recipe,
                "batch_size": bucket.batch_size,
                "sequence_length": bucket.sequence_length,
                "threads": self._threads,
                "tuning_minutes": minutes,
            }
            words = f"tuning for {minutes:g} minutes" if minutes else "untuned"
            self._export_variant(trial, f"{trial.candidate.backend}-{bucket.name}", bucket_recipe, words)

    def _export_for_cores(self, trial: Trial, recipe: Recipe, target: NeuronTarget) -> None:
        """Every bucket with the first number of pipeline cores that the compiler accepts for all."""
        refused: List[int] = []
        while True:
            plan = target.plan(self._source.checkpoint.encoder_parameters, refused)
            try:
                self._export_each_bucket(trial, recipe, target, plan)
                break
            except PipelineRefused as error:
                cores = plan.layout.cores_per_model
                if not target.asks_for_auto_cores or cores == 1:
                    raise
                refused.append(cores)
                self._progress(f"{error.message}\ntrying {one_step_smaller(cores)} pipeline cores instead")
                self.discard(trial)
                trial.variants = []

    def _export_each_bucket(self, trial: Trial, recipe: Recipe, target: NeuronTarget, plan: NeuronPlan) -> None:
        # The emulator's compiler takes little memory.
        for line in plan.sentences(0 if emulator.state() else memory_bytes()):
            self._progress(line)
        for number, bucket in enumerate(plan.buckets):
            self._source.on_step("shapes compiled", number, len(plan.buckets))
            bucket_recipe = {**recipe, **target.recipe(plan, bucket)}
            name = f"{trial.candidate.backend}-{bucket.name}"
            words = " ".join(bucket_recipe["compiler_args"]) or "neuron-cc's defaults"
            self._export_variant(trial, name, bucket_recipe, words)
        self._source.on_step("shapes compiled", len(plan.buckets), len(plan.buckets))

    def alone(self, trial: Trial) -> ContextManager[Session]:
        """The trial's one variant, loaded once more with a single stream."""
        outputs = self._source.outputs
        session, _ = load_variants(trial.folders, trial.variants, outputs, threads=self._threads, streams=1)
        return closing(session)

    def discard(self, trial: Trial) -> None:
        """Close the trial's session and remove its files."""
        if trial.session is not None:
            trial.session.close()
            trial.session = None
        for folder in trial.folders:
            shutil.rmtree(folder, ignore_errors=True)
        trial.folders = []


def variant_entry(candidate: Candidate, name: str, result: ExportResult, compile_s: float) -> VariantEntry:
    """A variant as the manifest lists it, before it is compared with the reference."""
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


def _recipe_words(recipe: Recipe) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in recipe.items())
