"""Walks up from the fastest variant that selection.py kept: more and more of the encoder removed, each rung measured.

A rung is the same backend, precision and recipe with a larger share of attention heads and feed-forward columns gone
(pruned_source.py). It is taken if it is faster than the rung below and still has the accuracy that is asked for.
"""

from dataclasses import replace
from statistics import median
from typing import Callable, List, Mapping, Sequence

from neuronbert.backends import OFFERED, backend_module
from neuronbert.compiler.candidates import Candidate, Trial
from neuronbert.compiler.exporter import Exporter
from neuronbert.compiler.pruned_source import Pruner
from neuronbert.compiler.selection import Selection
from neuronbert.compiler.source import CompileSource, Progress
from neuronbert.compiler.timing import time_trials
from neuronbert.errors import UsageError, shown_value
from neuronbert.tasks import load_figures
from neuronbert.tasks.base import GateLimits

EXACTNESS, THROUGHPUT = "exactness", "throughput"
OPTIMIZE_FOR = (EXACTNESS, THROUGHPUT)
STEP_PERCENT = 10
MOST_PERCENT = 90
# Less is what two timings of one and the same model differ by.
MIN_GAIN = 1.03


def is_for_throughput(optimize_for: str, candidates: Sequence[Candidate], ungated: bool) -> bool:
    """Whether the ladder is asked for; UsageError for what is no such word, and where it cannot be walked."""
    if optimize_for not in OPTIMIZE_FOR:
        raise UsageError(
            f"optimize_for must be one of {', '.join(OPTIMIZE_FOR)}, not {shown_value(optimize_for)}",
            hint=f"optimize_for={EXACTNESS}, or leave it out",
        )
    if optimize_for != THROUGHPUT:
        return False
    others = [candidate.backend for candidate in candidates if not _can_be_pruned(candidate.backend)]
    if others:
        raise UsageError(
            f"--optimize-for throughput removes parts of models for CPUs that take any shape, not for "
            f"{', '.join(dict.fromkeys(others))}",
            hint=f"--backend {' or '.join(filter(_can_be_pruned, OFFERED))}, or leave out --optimize-for",
        )
    if ungated:
        raise UsageError(
            "--optimize-for throughput goes by the gate's figures, and the gate is skipped",
            hint="leave out --skip-gate, or --optimize-for",
        )
    return True


def _can_be_pruned(backend: str) -> bool:
    module = backend_module(backend)
    return module.DEVICE == "cpu" and not module.STATIC_SHAPES


def climb(passes: Callable[[int], bool], most_percent: int) -> None:
    """Ask for one percentage after the other until one does not pass, and then for the one halfway to it."""
    passed = 0
    for percent in range(STEP_PERCENT, min(most_percent, MOST_PERCENT) + 1, STEP_PERCENT):
        if not passes(percent):
            passes((passed + percent) // 2)
            return
        passed = percent


def rung_limits(limits: GateLimits, asked: Mapping[str, float], has_accuracy: bool) -> GateLimits:
    """What a rung must reach. Where its accuracy is measured that counts, and other answers than FP32's are no fault.

    ``asked``: the limits that a person asks for, which count in any case.
    """
    return limits if "min_answer_f1" in asked or not has_accuracy else replace(limits, min_answer_f1=0.0)


class Ladder:
    """The rungs above ``best``, a trial that was kept; then ``best`` is the highest that was taken."""

    def __init__(
        self,
        source: CompileSource,
        exporter: Exporter,
        best: Trial,
        limits: GateLimits,
        asked: Mapping[str, float],
        progress: Progress,
    ):
        self._source = source
        self._exporter = exporter
        self._progress = progress
        own = rung_limits(limits, asked, best.variants[0]["accuracy"] is not None)
        self._selection = Selection(source, exporter, own, progress)
        self.best = best
        self.rungs: List[Trial] = []

    def walk(self) -> None:
        """Try the rungs."""
        pruner = Pruner(self._source)
        climb(lambda percent: self._passes(pruner, percent), pruner.most_percent)

    def _passes(self, pruner: Pruner, percent: int) -> bool:
        """Build, time and compare a rung, and take it where it is faster; whether the gate lets it pass."""
        pruned = pruner.source(percent)
        candidate = self.best.candidate._replace(explicit=False, percent_removed=percent)
        rung = self._exporter.build_like(self.best, candidate, pruned)
        self.rungs.append(rung)
        passed = False
        with self._exporter.guarded(rung):
            if rung.session is not None:
                rung.variants[0]["recipe"] = {**rung.variants[0]["recipe"], "pruned": pruned.recipe}
                gain = self._gain(rung)
                passed = self._selection.passes(rung)
                self._place(rung, gain, passed)
        if rung.outcome == "not built":
            self._progress(f"rung {percent} % of the encoder removed: not built: {rung.why}")
        return passed

    def _gain(self, rung: Trial) -> float:
        """How many times as fast as the best so far the rung is."""
        source = self._source
        time_trials([self.best, rung], source.timed_rows(), source.outputs, source.tokenizer.pad_id)
        return median(ours / theirs for ours, theirs in zip(rung.windows_per_s, self.best.windows_per_s))

    def _place(self, rung: Trial, gain: float, passed: bool) -> None:
        """Take the rung in place of the best so far, or leave it out."""
        below = self.best
        speed = f"{gain:.2f} times as fast as {below.candidate.name}"
        verdict = f"refused: {rung.why}"
        if passed:
            rung.why = f"it passes the gate, and is {speed}"
            verdict = "taken"
        if passed and gain < MIN_GAIN:
            rung.outcome, verdict = "slower", f"not taken: {MIN_GAIN:g} times as fast is the least that counts"
        figures = load_figures(self._source.task.NAME).agreement_text(rung.agreements[0].as_dict())
        percent = rung.candidate.percent_removed
        self._progress(f"rung {percent} % of the encoder removed: {figures}, {speed}: {verdict}")
        if rung.outcome == "kept":
            below.outcome, below.why = "slower", f"{rung.candidate.name} is {gain:.2f} times as fast"
            self.best = rung
        self._exporter.discard(rung if self.best is below else below)
