"""What compiler/gate.py measures of token classification: agreement with the reference, and F1 on labelled text."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.outputs import Outputs
from neuronbert.errors import InputError
from neuronbert.tasks.agreement import for_json, largest_difference, logits_refusals
from neuronbert.tasks.base import NOT_FINITE, Document, GateLimits, GateQuestions, PathLike
from neuronbert.tasks.samples import calibration_path, gate_path
from neuronbert.tasks.token_classification.data import (
    LabelledText,
    load_marked,
    read_texts,
    shipped_paragraphs,
    with_labels,
)
from neuronbert.tasks.token_classification.entity_f1 import count_entities, overall, shared_f1
from neuronbert.tasks.token_classification.tagging import Found, equal_labels, found_in
from neuronbert.tasks.token_classification.windows import Example, TextInput

MIN_TEXTS = 200
MIN_ENTITIES = 100  # of labelled data: of fewer, one entity is more than the 1 % of F1 that decides
FP32_MIN_EQUAL_LABELS = 0.99


@dataclass(frozen=True)
class Agreement:
    """How a variant compares with the FP32 reference over ``n`` texts.

    ``equal_labels`` is the share of tokens with the same best label, ``entity_f1`` (0 to 1) the F1 of the variant's
    entities against the reference's. ``f1`` and ``reference_f1`` are percentages against the labels of the data; None
    where no text was labelled.
    """

    n: int
    max_abs_diff: float
    equal_labels: float
    entity_f1: float
    f1: Optional[float]
    reference_f1: Optional[float]

    @property
    def f1_ratio(self) -> Optional[float]:
        """The variant's F1 as a share of the reference's; None where there is none, or it is 0."""
        return self.f1 / self.reference_f1 if self.f1 is not None and self.reference_f1 else None

    @property
    def known(self) -> int:
        """Texts of data with labels."""
        return 0 if self.f1 is None else self.n

    def as_dict(self) -> Document:
        """The figures for JSON, which has no NaN or Inf: null stands for them."""
        return for_json({**asdict(self), "f1_ratio": self.f1_ratio})

    def entry(self) -> Document:
        """The manifest's ``agreement`` and ``accuracy``."""
        figures = self.as_dict()
        agreement = {key: figures.pop(key) for key in ("max_abs_diff", "equal_labels", "entity_f1", "n")}
        return {"agreement": agreement, "accuracy": None if self.f1 is None else figures}


class Judged(NamedTuple):
    """The gate's texts read by one session: the outputs of each window, and what was found in each text."""

    outputs: Sequence[Outputs]
    found: List[Found]


class TokenClassificationGate:
    """The gate of token classification (tasks.base.TaskGate), for a checkpoint with these labels."""

    LIMITS = GateLimits()

    def __init__(self, labels: Sequence[str]):
        self._labels = tuple(labels)

    def questions(
        self, gate_data: Optional[PathLike], calibration_data: Optional[PathLike], skipped: bool
    ) -> GateQuestions:
        """The labelled texts of the user's file, filled up to 200 with shipped ones, which nobody has labelled.

        Calibration takes texts with or without labels.
        """
        calibration = _unlabelled(
            read_texts(calibration_data) if calibration_data else shipped_paragraphs(calibration_path())
        )
        shipped = _unlabelled(shipped_paragraphs(gate_path()))
        own = [] if gate_data is None else with_labels(load_marked(gate_data), self._labels, str(gate_data))
        seen = {item.text for item in calibration}
        own = [item for item in own if item.text not in seen]
        more = [item for item in shipped if item.text not in seen]
        if gate_data is not None:
            more = more[: max(0, MIN_TEXTS - len(own))]
        if not skipped:
            _refuse_few(own, more, gate_data)
        files = ([] if gate_data is None else [Path(gate_data)]) + ([gate_path()] if more else [])
        return GateQuestions(
            calibration, own + more, shipped, Path(calibration_data or calibration_path()), [] if skipped else files
        )

    def inputs(self, labelled: Sequence[LabelledText]) -> List[TextInput]:
        """The texts, with their words where those have tags."""
        return [item.input for item in labelled]

    def judge(
        self, labelled: Sequence[LabelledText], examples: Sequence[Example], outputs: Sequence[Outputs]
    ) -> Judged:
        """The labels and entities of each text."""
        found = []
        first = 0
        for example in examples:
            found.append(found_in(example, outputs[first : first + len(example.windows)]))
            first += len(example.windows)
        return Judged(outputs, found)

    def compare(self, labelled: Sequence[LabelledText], judged: Judged, reference: Judged) -> Agreement:
        """Labels, entities and logits against the reference's, entities against those of the data."""
        pairs = list(zip(judged.found, reference.found))
        f1, reference_f1 = _f1_pair(labelled, judged.found, reference.found)
        return Agreement(
            n=len(labelled),
            max_abs_diff=largest_difference(judged.outputs, reference.outputs),
            equal_labels=equal_labels(pairs),
            entity_f1=shared_f1([ours.entities for ours, _ in pairs], [theirs.entities for _, theirs in pairs]),
            f1=f1,
            reference_f1=reference_f1,
        )

    def refusals(self, precision: str, agreement: Agreement, limits: GateLimits) -> List[str]:
        """FP32 must give the reference's logits, a reduced precision its entities."""
        return refusals(precision, agreement, limits)


def _unlabelled(texts: Iterable[str]) -> List[LabelledText]:
    """Each text once, without what is right."""
    return [LabelledText(text) for text in dict.fromkeys(texts)]


def _f1_pair(
    labelled: Sequence[LabelledText], found: Sequence[Found], reference: Sequence[Found]
) -> Tuple[Optional[float], Optional[float]]:
    """Entity F1 of both sides in percent over the labelled texts; None where there are none."""
    numbers = [number for number, item in enumerate(labelled) if item.entities is not None]
    if not numbers:
        return None, None
    golds = [labelled[number].entities or frozenset() for number in numbers]
    ours, theirs = (
        100 * overall(count_entities(golds, [side[number].entities for number in numbers])).f1
        for side in (found, reference)
    )
    return ours, theirs


def refusals(precision: str, agreement: Agreement, limits: GateLimits = GateLimits()) -> List[str]:
    """The reasons why the gate refuses a variant; empty if it passes."""
    if not np.isfinite(agreement.max_abs_diff):
        return [NOT_FINITE]
    return _fp32_refusals(agreement) if precision == "fp32" else _reduced_refusals(agreement, limits)


def _fp32_refusals(agreement: Agreement) -> List[str]:
    reasons = logits_refusals(agreement.max_abs_diff)
    if agreement.equal_labels < FP32_MIN_EQUAL_LABELS:
        reasons.append(
            f"only {agreement.equal_labels:.1%} of its tokens have the reference's label, "
            f"less than {FP32_MIN_EQUAL_LABELS:.0%}"
        )
    return reasons


def _reduced_refusals(agreement: Agreement, limits: GateLimits) -> List[str]:
    reasons = []
    if agreement.reference_f1 == 0:
        reasons.append("the FP32 reference itself scores F1 0 on the gate's data, so the gate means nothing")
    elif agreement.f1_ratio is not None and agreement.f1_ratio < limits.min_f1_ratio:
        reasons.append(
            f"its F1 is {agreement.f1:.2f}, {agreement.f1_ratio:.2%} of the reference's {agreement.reference_f1:.2f} "
            f"and less than {limits.min_f1_ratio:.2%}"
        )
    if agreement.equal_labels < limits.min_answer_f1:
        reasons.append(
            f"only {agreement.equal_labels:.1%} of its tokens have the reference's label, "
            f"less than {limits.min_answer_f1:.1%}"
        )
    if agreement.entity_f1 < limits.min_answer_f1:
        reasons.append(
            f"its entities' F1 against the reference's is {agreement.entity_f1:.3f}, "
            f"less than {limits.min_answer_f1:.3f}"
        )
    return reasons


def _refuse_few(own: Sequence[LabelledText], more: Sequence[LabelledText], gate_data: Optional[PathLike]) -> None:
    """InputError when the gate has fewer texts, or labelled data fewer entities, than it needs to mean something."""
    entities = sum(len(item.entities or ()) for item in own)
    if gate_data is not None and entities < MIN_ENTITIES:
        raise InputError(
            f"{gate_data} has {entities} entities that calibration does not see, and the gate needs {MIN_ENTITIES}",
            hint="--gate-data with more labelled text, or without it: then only agreement with FP32 is measured",
        )
    if len(own) + len(more) < MIN_TEXTS:
        raise InputError(
            f"{len(own) + len(more)} texts are left for the gate, which needs {MIN_TEXTS}: the calibration data has "
            f"the others",
            hint="--calibration-data with other texts, or --gate-data with more",
        )
