"""What compiler/gate.py measures of classifiers: accuracy where there are labels, and agreement with the reference."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.outputs import Outputs, all_finite
from neuronbert.checkpoint.families import Config
from neuronbert.errors import InputError
from neuronbert.tasks.agreement import largest_difference, logits_refusals
from neuronbert.tasks.base import NOT_FINITE, Document, GateLimits, GateQuestions, PathLike
from neuronbert.tasks.rows import TextOrPair, TextPair
from neuronbert.tasks.samples import calibration_path, gate_path, shipped_texts
from neuronbert.tasks.scoring import spearman
from neuronbert.tasks.text_classification.data import Label, LabelledText, labelled, load_raw
from neuronbert.tasks.text_classification.decisions import Decision, decide, score_of
from neuronbert.tasks.text_classification.inputs import Example
from neuronbert.tasks.text_classification.problem import REGRESSION, Problem, problem_of
from neuronbert.tasks.text_classification.results import LOGITS

MIN_TEXTS = 500
FP32_MIN_AGREEMENT = 0.99


@dataclass(frozen=True)
class Agreement:
    """How a variant compares with the FP32 reference over ``n`` texts.

    agreement: share of the texts with the same decision, 0 to 1 (of scores: Spearman's correlation). accuracy: of the
    ``labelled`` texts, the share decided as labelled (of scores: Spearman's correlation with the labels, 0 where they
    are all alike or no numbers); None where fewer than two have a label, or all labels are the same score.
    """

    n: int
    labelled: int
    max_abs_diff: float
    agreement: float
    accuracy: Optional[float]
    reference_accuracy: Optional[float]

    @property
    def known(self) -> int:
        """Texts with labels."""
        return 0 if self.accuracy is None else self.labelled

    def as_dict(self) -> Document:
        """The figures for JSON, which has no NaN or Inf: null stands for them."""
        return {name: value if value is None or np.isfinite(value) else None for name, value in asdict(self).items()}

    def entry(self) -> Document:
        """The manifest's ``agreement`` and ``accuracy``."""
        figures = self.as_dict()
        accuracy = {key: figures[key] for key in ("accuracy", "reference_accuracy", "labelled")}
        return {
            "agreement": {key: figures[key] for key in ("max_abs_diff", "agreement", "n")},
            "accuracy": accuracy if self.accuracy is not None else None,
        }


class Judged(NamedTuple):
    """The gate's texts classified by one session: what it says of each, None where that is no number."""

    outputs: Sequence[Outputs]
    decisions: List[Optional[Decision]]


class ClassificationGate:
    """The gate of text classification (tasks.base.TaskGate) for one checkpoint's labels."""

    LIMITS = GateLimits()

    def __init__(self, problem: Problem):
        self._problem = problem

    @classmethod
    def of(cls, config: Config) -> "ClassificationGate":
        """The gate for a checkpoint with this config.json."""
        return cls(problem_of(config))

    def questions(
        self, gate_data: Optional[PathLike], calibration_data: Optional[PathLike], skipped: bool
    ) -> GateQuestions:
        """The texts of the user's files; the gate's are filled up to 500 with shipped ones, without labels."""
        calibration = self._load(calibration_data) if calibration_data else _shipped(calibration_path())
        seen = {item.asked for item in calibration}
        own = [item for item in self._load(gate_data) if item.asked not in seen] if gate_data else []
        shipped = _shipped(gate_path())
        asked = {item.asked for item in own}
        more = [item for item in shipped if item.asked not in asked and item.asked not in seen]
        filled = more[: max(0, MIN_TEXTS - len(own))] if gate_data else more
        if not skipped and len(own) + len(filled) < MIN_TEXTS:
            raise InputError(
                f"{len(own) + len(filled)} texts are left for the gate, which needs {MIN_TEXTS}: the others are those "
                "of the calibration data",
                hint="--calibration-data with other texts, or --gate-data with more",
            )
        files = ([Path(gate_data)] if gate_data else []) + ([gate_path()] if filled else [])
        calibration_file = Path(calibration_data or calibration_path())
        return GateQuestions(calibration, own + filled, shipped, calibration_file, [] if skipped else files)

    def _load(self, path: PathLike) -> List[LabelledText]:
        return [labelled(raw, self._problem, path) for raw in load_raw(path)]

    def inputs(self, labelled: Sequence[LabelledText]) -> List[TextOrPair]:
        """The texts and pairs."""
        return [item.asked for item in labelled]

    def judge(
        self, labelled: Sequence[LabelledText], examples: Sequence[Example], outputs: Sequence[Outputs]
    ) -> Judged:
        """What the logits say of each text: every example is one row."""
        decisions = [decide(row[LOGITS], self._problem) if all_finite(row) else None for row in outputs]
        return Judged(outputs, decisions)

    def compare(self, labelled: Sequence[LabelledText], judged: Judged, reference: Judged) -> Agreement:
        """Decisions against the reference's and against the labels, logits against the reference's logits."""
        golds = [(number, item.label) for number, item in enumerate(labelled) if item.label is not None]
        return Agreement(
            n=len(labelled),
            labelled=len(golds),
            max_abs_diff=largest_difference(judged.outputs, reference.outputs),
            agreement=self._agreement(judged.decisions, reference.decisions),
            accuracy=self._accuracy(judged.decisions, golds),
            reference_accuracy=self._accuracy(reference.decisions, golds),
        )

    def _agreement(self, decisions: Sequence[Optional[Decision]], others: Sequence[Optional[Decision]]) -> float:
        if self._problem.kind != REGRESSION:
            return float(np.mean([ours == theirs for ours, theirs in zip(decisions, others)]))
        if None in decisions:
            return 0.0
        ours, theirs = [[score_of(each) for each in side] for side in (decisions, others)]
        # Scores that never differ have no order to agree on.
        correlation = spearman(ours, theirs)
        return float(ours == theirs) if np.isnan(correlation) else correlation

    def _accuracy(self, decisions: Sequence[Optional[Decision]], golds: Sequence[Tuple[int, Label]]) -> Optional[float]:
        if len(golds) < 2:
            return None
        if self._problem.kind != REGRESSION:
            return float(np.mean([decisions[number] == label for number, label in golds]))
        found = [decisions[number] for number, _ in golds]
        if None in found:
            return 0.0
        scores = [score_of(label) for _, label in golds]
        if len(set(scores)) == 1:
            return None
        correlation = spearman([score_of(each) for each in found], scores)
        return 0.0 if np.isnan(correlation) else correlation

    def refusals(self, precision: str, agreement: Agreement, limits: GateLimits) -> List[str]:
        """FP32 must give the reference's logits; a reduced precision its accuracy and its decisions."""
        if not np.isfinite(agreement.max_abs_diff):
            return [NOT_FINITE]
        return _fp32_refusals(agreement) if precision == "fp32" else _reduced_refusals(agreement, limits)


def _fp32_refusals(agreement: Agreement) -> List[str]:
    return logits_refusals(agreement.max_abs_diff) + _disagreement(agreement, FP32_MIN_AGREEMENT)


def _reduced_refusals(agreement: Agreement, limits: GateLimits) -> List[str]:
    return _inaccuracy(agreement, limits.min_f1_ratio) + _disagreement(agreement, limits.min_answer_f1)


def _disagreement(agreement: Agreement, least: float) -> List[str]:
    if agreement.agreement >= least:
        return []
    return [f"it agrees with the FP32 reference on {agreement.agreement:.1%} of the texts, less than {least:.1%}"]


def _inaccuracy(agreement: Agreement, least_ratio: float) -> List[str]:
    ours, theirs = agreement.accuracy, agreement.reference_accuracy
    if ours is None or theirs is None:
        return []
    if not theirs > 0:
        return [
            f"the FP32 reference's own accuracy on the {agreement.labelled} labelled texts is {theirs:.1%}, "
            "so the gate means nothing"
        ]
    if ours / theirs >= least_ratio:
        return []
    return [
        f"its accuracy is {ours:.2%}, {ours / theirs:.2%} of the reference's {theirs:.2%} "
        f"and less than {least_ratio:.2%}"
    ]


def _shipped(path: Path) -> List[LabelledText]:
    """Shipped questions, and questions with their paragraphs: nobody knows whether the model is for texts or pairs."""
    pairs = shipped_texts(path)
    texts: List[TextOrPair] = [pair.question for pair in pairs[0::2]]
    both: List[TextOrPair] = [TextPair(*pair) for pair in pairs[1::2]]
    mixed = [each for pair in zip(texts, both) for each in pair]
    return [LabelledText(asked, None) for asked in dict.fromkeys(mixed)]
