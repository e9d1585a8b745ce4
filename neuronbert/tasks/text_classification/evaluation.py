"""Evaluates a classifier on labelled texts (data.py): accuracy, macro F1, Matthews' correlation; or correlations."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.families import Config
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, positive
from neuronbert.tasks.agreement import for_json
from neuronbert.tasks.base import Document, PathLike, Table
from neuronbert.tasks.labels import first_labels
from neuronbert.tasks.report_text import shortened
from neuronbert.tasks.rows import TextOrPair
from neuronbert.tasks.scoring import accuracy, macro_f1, matthews, multilabel_f1, pearson, spearman, subset_accuracy
from neuronbert.tasks.text_classification.data import Label, LabelledText, RawText, labelled, load_labelled
from neuronbert.tasks.text_classification.decisions import Decision, decide, score_of
from neuronbert.tasks.text_classification.inputs import Example, encode_examples, problem_for
from neuronbert.tasks.text_classification.options import LabelOptions, RowOptions
from neuronbert.tasks.text_classification.problem import MULTI_LABEL, REGRESSION, Problem
from neuronbert.tasks.text_classification.results import LOGITS, apply_function, chosen_function

SHOWN_CHANGES = 100  # in the table for a person; JSON has all of them
SHOWN_CHARACTERS = 50  # of a text there


class Reading(NamedTuple):
    """What the model decided about one text, and the score of that."""

    decision: Decision
    score: float
    truncated: bool


@dataclass(frozen=True)
class ChangedLabel:
    """A text that two models decide differently about."""

    text: str
    gold: str
    label: str
    score: float
    against_label: str
    against_score: float


@dataclass(frozen=True)
class Comparison:
    """How the decisions differ from those of ``against``."""

    against: str
    metrics: Dict[str, float]  # of ``against``, as EvaluationReport.metrics
    equal: float  # share of the texts decided alike, 0 to 1; of scores, Spearman's correlation
    changed: Tuple[ChangedLabel, ...]

    def as_dict(self) -> Document:
        """Every figure, for JSON."""
        return for_json({**asdict(self), "metrics": for_json(self.metrics)})


@dataclass(frozen=True)
class EvaluationReport:
    """What an artifact scores on a file of labelled texts."""

    data: str
    kind: str  # of problem.py
    texts: int
    truncated: int  # texts that were longer than a row
    artifact: str
    variant: str
    metrics: Dict[str, float]
    seconds: float  # from text to labels, loading not counted
    predictions: List[str]
    environment: Document
    comparison: Optional[Comparison] = None

    @property
    def texts_per_s(self) -> float:
        return self.texts / self.seconds

    def as_dict(self) -> Document:
        """Every figure, for JSON, which has no NaN: null stands for it."""
        comparison = None if self.comparison is None else self.comparison.as_dict()
        figures = {"metrics": for_json(self.metrics), "comparison": comparison, "texts_per_s": self.texts_per_s}
        return {**asdict(self), **figures}

    def tables(self) -> List[Union[str, Table]]:
        """Lines and tables for a person: the figures, and in a comparison what changed."""
        cut = f", {self.truncated} of them cut to the model's length" if self.truncated else ""
        facts = [
            ("artifact", f"{self.artifact} ({self.variant})"),
            ("data", f"{self.data}: {self.texts} texts{cut}"),
            *((name, f"{value:.4f}") for name, value in self.metrics.items()),
            ("texts/s", f"{self.texts_per_s:.1f} (from text to labels, loading not counted)"),
        ]
        compared = [] if self.comparison is None else ["", *_comparison(self.comparison)]
        return [Table(facts), *compared]


def _comparison(comparison: Comparison) -> Iterator[Union[str, Table]]:
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in comparison.metrics.items())
    yield f"against {comparison.against}: {comparison.equal:.2%} alike; its own {metrics}"
    rows = [
        [
            shortened(each.text, SHOWN_CHARACTERS),
            f"{each.against_label} ({each.against_score:.2f})",
            f"{each.label} ({each.score:.2f})",
            each.gold,
        ]
        for each in comparison.changed[:SHOWN_CHANGES]
    ]
    if rows:
        yield Table(rows, ("text", "was", "is", "gold"))
    if len(comparison.changed) > SHOWN_CHANGES:
        yield f"and {len(comparison.changed) - SHOWN_CHANGES} more; --json has all"


class ClassificationEvaluation:
    """One evaluation on labelled texts (tasks.base.TaskEvaluation); the artifact's labels are known from its reader."""

    def __init__(self, name: str, raw: Sequence[RawText], row_options: RowOptions, label_options: LabelOptions):
        self.name = name
        self._raw = raw
        self._row_options = row_options
        self._label_options = label_options
        self._problem: Optional[Problem] = None
        self._texts: List[LabelledText] = []

    @classmethod
    def of(
        cls, path: PathLike, limit: Optional[int], row_options: RowOptions, label_options: LabelOptions
    ) -> "ClassificationEvaluation":
        """The evaluation on a file's first ``limit`` texts; InputError for a text without a label."""
        raw = load_labelled(path, positive("limit", limit))
        return cls(str(path), raw, row_options, label_options)

    @property
    def inputs(self) -> List[TextOrPair]:
        """The texts and pairs."""
        return [text.asked for text in self._raw]

    def options_for(self, tokenizer: Tokenizer) -> RowOptions:
        """The row length that an artifact can read. InputError for a label that its checkpoint lacks."""
        self._problem = problem_for(tokenizer)
        self._texts = [labelled(raw, self._problem, self.name) for raw in self._raw]
        return self._row_options

    def for_other(self, config: Config, options: RowOptions) -> Tuple["ClassificationEvaluation", RowOptions]:
        """The same: what is compared with reads the same rows."""
        return self, options

    def refuse(self, tokenizer: Tokenizer, first: int, count: int, options: RowOptions) -> None:
        """Raise InputError naming the line of the first of ``count`` texts from ``first`` on that cannot be encoded."""
        for raw in self._raw[first : first + count]:
            try:
                encode_examples(tokenizer, [raw.asked], options)
            except InputError as error:
                raise InputError(f"{self.name}, line {raw.line_number}: {error.message}", hint=error.hint) from None

    def read(self, example: Example, outputs: Sequence[Outputs]) -> Reading:
        """What the model decides, and its best score."""
        logits, problem = outputs[0][LOGITS], example.problem
        self._refuse_other_labels(problem)
        function = chosen_function(self._label_options, problem.function)
        score = float(apply_function(logits, function).max())
        return Reading(decide(logits, problem), score, example.truncated[0])

    def report(self, readings: Sequence[Reading], **facts: Any) -> EvaluationReport:
        """The figures; ``facts`` are the report's fields that no decision changes."""
        problem = self._known_problem()
        return EvaluationReport(
            data=self.name,
            kind=problem.kind,
            texts=len(readings),
            truncated=sum(reading.truncated for reading in readings),
            metrics=self._metrics(readings),
            predictions=[shown_decision(reading.decision, problem) for reading in readings],
            **facts,
        )

    def compared(
        self, report: EvaluationReport, readings: Sequence[Reading], against: str, against_readings: Sequence[Reading]
    ) -> EvaluationReport:
        """The report, with every text that ``against`` decides differently."""
        problem = self._known_problem()
        changed = tuple(
            ChangedLabel(
                text=text.asked if isinstance(text.asked, str) else " | ".join(text.asked),
                gold="" if text.label is None else shown_decision(text.label, problem),
                label=shown_decision(ours.decision, problem),
                score=ours.score,
                against_label=shown_decision(theirs.decision, problem),
                against_score=theirs.score,
            )
            for text, ours, theirs in zip(self._texts, readings, against_readings)
            if problem.kind != REGRESSION and ours.decision != theirs.decision
        )
        if problem.kind == REGRESSION:
            equal = spearman(_scores(readings), _scores(against_readings))
        else:
            equal = 1 - len(changed) / len(readings)
        return replace(report, comparison=Comparison(against, self._metrics(against_readings), equal, changed))

    def _refuse_other_labels(self, problem: Problem) -> None:
        """InputError for a model that is compared with and decides something else: numbers would be compared."""
        own = self._known_problem()
        if (problem.kind, problem.labels) != (own.kind, own.labels):
            raise InputError(
                f"the models cannot be compared: one decides {_decided(own)}, the other {_decided(problem)}",
                hint="--against a model with the same labels, in the same order",
            )

    def _known_problem(self) -> Problem:
        assert self._problem is not None, "options_for comes before every result"
        return self._problem

    def _metrics(self, readings: Sequence[Reading]) -> Dict[str, float]:
        return metrics_of(
            self._known_problem(),
            [reading.decision for reading in readings],
            [text.label for text in self._texts if text.label is not None],
        )


def metrics_of(problem: Problem, decisions: Sequence[Decision], golds: Sequence[Label]) -> Dict[str, float]:
    """The figures of a kind of problem by name: shares and correlations, none in percent."""
    if problem.kind == REGRESSION:
        ours, theirs = list(map(score_of, decisions)), list(map(score_of, golds))
        return {"pearson": pearson(ours, theirs), "spearman": spearman(ours, theirs)}
    if problem.kind == MULTI_LABEL:
        width = len(problem.labels)
        ours_held, theirs_held = _held(decisions, width), _held(golds, width)
        f1 = multilabel_f1(ours_held, theirs_held)
        return {"accuracy": subset_accuracy(ours_held, theirs_held), "macro_f1": f1.macro, "micro_f1": f1.micro}
    labels = [int(score_of(each)) for each in decisions], [int(score_of(each)) for each in golds]
    return {"accuracy": accuracy(*labels), "macro_f1": macro_f1(*labels), "matthews": matthews(*labels)}


def _held(decisions: Sequence[Decision], width: int) -> np.ndarray:
    """Which labels hold: booleans [texts, labels]."""
    held = np.zeros((len(decisions), width), dtype=bool)
    for row, decision in enumerate(decisions):
        held[row, list(decision) if isinstance(decision, tuple) else [int(decision)]] = True
    return held


def _scores(readings: Sequence[Reading]) -> List[float]:
    return [score_of(reading.decision) for reading in readings]


def _decided(problem: Problem) -> str:
    return f"{problem.kind} of {first_labels(problem.labels)}"


def shown_decision(decision: Decision, problem: Problem) -> str:
    """A decision, or a label of the data, in words."""
    if isinstance(decision, tuple):
        return "|".join(problem.labels[number] for number in decision)
    return f"{decision:.6g}" if problem.kind == REGRESSION else problem.labels[int(decision)]
