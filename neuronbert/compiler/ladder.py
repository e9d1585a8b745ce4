"""Walks up from the fastest variant that selection.py kept: models that compute less and less, each rung measured.

A rung is the same backend, precision and recipe with another model: the student, if there is one, and then what is best
with a larger and larger share of attention heads and feed-forward columns gone (pruner.py). It is taken if it is
clearly faster than the rung below and still has the accuracy that is asked for.
"""

from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert.backends import OFFERED, backend_module
from neuronbert.checkpoint.loading import Checkpoint
from neuronbert.compiler.candidates import Candidate, Trial
from neuronbert.compiler.exporter import Exporter
from neuronbert.compiler.pruner import Pruner
from neuronbert.compiler.selection import Selection
from neuronbert.compiler.source import CompileSource, Progress
from neuronbert.compiler.timing import time_trials
from neuronbert.errors import BackendFailed, GateRefused, NeuronBertError, UsageError, in_words, shown_value
from neuronbert.tasks import load_figures
from neuronbert.tasks.base import Document, GateLimits

EXACTNESS, THROUGHPUT = "exactness", "throughput"
OPTIMIZE_FOR = (EXACTNESS, THROUGHPUT)
STEP_PERCENT = 10
MOST_PERCENT = 90
# Less is what two timings of one and the same model differ by.
MIN_GAIN = 1.03

Accepts = Callable[[Trial], None]  # raises GateRefused for a rung that is not good enough in other ways than the gate's
Reduced = Callable[[], Tuple[CompileSource, Document]]  # makes what a rung exports, and what its recipe says of it


def is_for_throughput(optimize_for: str, candidates: Sequence[Candidate], ungated: bool, has_student: bool) -> bool:
    """Whether the ladder is asked for; UsageError for what is no such word, and where it cannot be walked."""
    if optimize_for not in OPTIMIZE_FOR:
        raise UsageError(
            f"optimize_for must be one of {', '.join(OPTIMIZE_FOR)}, not {shown_value(optimize_for)}",
            hint=f"optimize_for={EXACTNESS}, or leave it out",
        )
    if optimize_for != THROUGHPUT:
        if has_student:
            raise UsageError(
                "--student is a model to take where it is faster and good enough, and the checkpoint's own is wanted",
                hint=f"--optimize-for {THROUGHPUT}, or compile the student by itself",
            )
        return False
    others = [candidate.backend for candidate in candidates if not _can_be_pruned(candidate.backend)]
    if others:
        raise UsageError(
            f"--optimize-for throughput makes models smaller for CPUs that take any shape, not for "
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
    passed, most = 0, min(most_percent, MOST_PERCENT)
    steps = [*range(STEP_PERCENT, most, STEP_PERCENT), *([most] if most > 0 else [])]
    for percent in steps:
        if not passes(percent):
            halfway = (passed + percent) // 2
            if halfway > passed:
                passes(halfway)
            return
        passed = percent


def rung_limits(limits: GateLimits, asked: Mapping[str, float], known: int) -> GateLimits:
    """What a rung must reach.

    Where the right results of enough inputs are known that one of them more or less is no step over ``min_f1_ratio``,
    accuracy decides, and other results than FP32's are no fault; else as large a share of FP32's results has to stay.
    ``asked``: the limits that a person asks for, which count in any case.
    """
    if "min_answer_f1" in asked:
        return limits
    if known * (1 - limits.min_f1_ratio) >= 1:
        return replace(limits, min_answer_f1=0.0)
    return replace(limits, min_answer_f1=max(limits.min_answer_f1, limits.min_f1_ratio))


class Gain(NamedTuple):
    """How many times as fast one variant is as another, by rounds of both."""

    times: float  # the median of the rounds' ratios
    in_all_rounds: bool  # whether it was the faster in each of them

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> "Gain":
        """From what both did in a second, in each round."""
        ratios = [own / other for own, other in zip(ours, theirs)]
        return cls(float(median(ratios)), min(ratios) > 1)

    @property
    def is_clear(self) -> bool:
        """Whether it is worth taking."""
        return self.in_all_rounds and self.times >= MIN_GAIN

    def over(self, name: str) -> str:
        """In words, over the variant of that name."""
        doubt = "" if self.in_all_rounds or self.times <= 1 else ", but not in every round"
        return f"{self.times:.2f} times as fast as {name}{doubt}"


class Ladder:
    """The rungs above ``best``, a trial that was kept; then ``best`` is the highest that was taken.

    A rung is a try: whatever goes wrong with one, what was kept before stays.
    """

    def __init__(
        self,
        source: CompileSource,
        exporter: Exporter,
        best: Trial,
        limits: GateLimits,
        asked: Mapping[str, float],
        progress: Progress,
        accepts: Accepts = lambda trial: None,
        student: Optional[Checkpoint] = None,
    ):
        self._source = self._whole = source  # what is compiled, and what rungs remove parts of
        self._student = student
        self._of_whole: Document = {}  # what recipes say of it
        self._exporter = exporter
        self._progress = progress
        self._accepts = accepts
        self._limits = rung_limits(limits, asked, best.agreements[0].known)
        self._selection = Selection(source, exporter, self._limits, progress)
        self._timed_rows = source.timed_rows()
        self._passed: Dict[str, bool] = {}  # by what is left
        self.best = best
        self.rungs: List[Trial] = []

    def walk(self) -> None:
        """Try the rungs."""
        first = self.best
        if self._student is not None:
            self._try_student(self._student)
        self._prune()
        self._progress(f"{self.best.candidate.name} is kept" + (": no rung is better" if self.best is first else ""))

    def _try_student(self, student: Checkpoint) -> None:
        source: List[CompileSource] = []
        told = {"student": {"checkpoint": student.as_dict(), "limits": vars(self._limits)}}

        def reduced() -> Tuple[CompileSource, Document]:
            source.append(self._source.with_model(student.torch_model(), student))
            return source[0], told

        self._tries(self.best.candidate._replace(explicit=False, is_student=True), reduced)
        if self.best.candidate.is_student:
            self._whole, self._of_whole = source[0], told

    def _prune(self) -> None:
        try:
            pruner = Pruner(self._whole)
            most = pruner.most_percent
        except Exception as error:
            rung = Trial(self._pruned_candidate(STEP_PERCENT))
            self.rungs.append(rung)
            self._give_up(rung, error)
            return
        if most < 1:
            self._progress("nothing of this encoder can be removed: a layer keeps a head and some columns")
            return
        climb(lambda percent: self._passes(pruner, percent), most)

    def _pruned_candidate(self, percent: int) -> Candidate:
        return self.best.candidate._replace(explicit=False, percent_removed=percent)

    def _passes(self, pruner: Pruner, percent: int) -> bool:
        """Whether the gate lets the rung of a percentage pass."""
        candidate, left = self._pruned_candidate(percent), pruner.left(percent)
        if left in self._passed:
            self._progress(f"{_words(candidate)}: what is left is as of another rung")
            return self._passed[left]

        def reduced() -> Tuple[CompileSource, Document]:
            source, cut = pruner.source(percent)
            return source, {**self._of_whole, "pruned": {**cut, "limits": vars(self._limits)}}

        passes = self._tries(candidate, reduced)
        if passes is not None:
            self._passed[left] = passes
        return bool(passes)

    def _tries(self, candidate: Candidate, reduced: Reduced) -> Optional[bool]:
        """Whether the gate lets a rung pass, None for one that cannot be built; a faster one that passes is taken."""
        rung = Trial(candidate, recipes=[self.best.recipe])
        speeds = list(self.best.windows_per_s)
        self.rungs.append(rung)
        try:
            self._build(rung, reduced)
            gain = self._gain(rung)
            passes = self._selection.passes(rung) and self._is_accepted(rung)
            self._place(rung, gain, passes)
            return passes
        except Exception as error:
            if self.best is rung:  # what was below it is gone
                raise
            self.best.windows_per_s = speeds
            self._give_up(rung, error)
            return None

    def _give_up(self, rung: Trial, error: Exception) -> None:
        self._exporter.discard(rung)
        rung.outcome, rung.why = "not built", error.message if isinstance(error, NeuronBertError) else in_words(error)
        rung.variants, rung.agreements, rung.windows_per_s = [], [], []
        self._progress(f"{_words(rung.candidate)}: not built: {rung.why}")

    def _build(self, rung: Trial, reduced: Reduced) -> None:
        source, told = reduced()
        self._exporter.build_of(rung, source)
        rung.variants[0]["recipe"] = {**rung.variants[0]["recipe"], **told}

    def _gain(self, rung: Trial) -> Gain:
        """Over the best so far."""
        source = self._source
        time_trials([self.best, rung], self._timed_rows, source.outputs, source.tokenizer.pad_id, guard=_named)
        return Gain.of(rung.windows_per_s, self.best.windows_per_s)

    def _is_accepted(self, rung: Trial) -> bool:
        try:
            self._accepts(rung)
        except GateRefused as error:
            rung.outcome, rung.why = "refused", error.message
            return False
        return True

    def _place(self, rung: Trial, gain: Gain, passed: bool) -> None:
        """Take the rung in place of the best so far, or leave it out."""
        below = self.best
        compared = gain.over(below.candidate.name)
        is_taken = passed and gain.is_clear
        if passed and not is_taken:
            rung.outcome = "slower"
            rung.why = f"it passes the gate, and is {compared}, where {MIN_GAIN} times in every round is the least"
        figures = load_figures(self._source.task.NAME).agreement_text(rung.agreements[0].as_dict())
        self._progress(
            f"{_words(rung.candidate)}: {figures}, {compared}: {'taken' if is_taken else f'{rung.outcome}: {rung.why}'}"
        )
        if is_taken:
            rung.why = f"it passes the gate, and is {compared}"
            below.outcome, below.why = "slower", f"{rung.candidate.name} is {gain.times:.2f} times as fast"
            self.best = rung
        self._exporter.discard(below if is_taken else rung)


def _words(candidate: Candidate) -> str:
    """What a rung is, for its lines of progress."""
    if not candidate.percent_removed:
        return "the student"
    return f"rung {candidate.percent_removed} % of the {'student' if candidate.is_student else 'encoder'} removed"


@contextmanager
def _named(trial: Trial) -> Iterator[None]:
    """Say which of two failed while both were timed."""
    try:
        yield
    except BackendFailed as error:
        raise BackendFailed(f"{trial.candidate.name}: {error.message}", hint=error.hint) from error
