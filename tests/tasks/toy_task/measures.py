"""What is measured of the toy task: by compile's gate, and by an evaluation."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from neuronbert.backends.outputs import Outputs, all_finite
from neuronbert.checkpoint.families import Config
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, positive
from neuronbert.tasks.base import FP32_MAX_ABS_DIFF, NOT_FINITE, GateLimits, GateQuestions, Table
from toy_task.data import CALIBRATION, SAMPLE, Sentence, load_sentences
from toy_task.labels import Sample, encode_texts, label_of
from toy_task.options import CutOptions, LabelOptions


@dataclass(frozen=True)
class LabelAgreement:
    """How a variant's labels and scores compare with the reference's."""

    n: int
    max_abs_diff: float
    equal_labels: float  # share, 0 to 1

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)

    def entry(self) -> Dict[str, Any]:
        return {"agreement": self.as_dict(), "accuracy": None}


class Judged(NamedTuple):
    """One session's outputs of every sentence, and the labels they say."""

    outputs: Sequence[Outputs]
    labels: List[str]


class LabelGate:
    """The gate of the toy task (tasks.base.TaskGate): every sentence is one row."""

    LIMITS = GateLimits()

    def questions(self, gate_data: Any, calibration_data: Any, skipped: bool) -> GateQuestions:
        asked = load_sentences(gate_data or SAMPLE)
        calibration_file = Path(calibration_data or CALIBRATION)
        if not skipped and len(asked) < 4:
            raise InputError(f"{len(asked)} sentences say nothing", hint="--gate-data with 4 or more")
        files = [] if skipped else [Path(gate_data or SAMPLE)]
        return GateQuestions(load_sentences(calibration_file), asked, load_sentences(SAMPLE), calibration_file, files)

    def inputs(self, labelled: Sequence[Sentence]) -> List[str]:
        return [sentence.text for sentence in labelled]

    def judge(self, labelled: Sequence[Sentence], examples: Sequence[Sample], outputs: Sequence[Outputs]) -> Judged:
        return Judged(outputs, [_label(sample, own) for sample, own in zip(examples, outputs)])

    def compare(self, labelled: Sequence[Sentence], judged: Judged, reference: Judged) -> LabelAgreement:
        differences = [np.abs(a[name] - b[name]).max() for a, b in zip(judged.outputs, reference.outputs) for name in b]
        equal = [a == b for a, b in zip(judged.labels, reference.labels)]
        return LabelAgreement(len(labelled), float(np.max(differences)), float(np.mean(equal)))

    def refusals(self, precision: str, agreement: LabelAgreement, limits: GateLimits) -> List[str]:
        if not np.isfinite(agreement.max_abs_diff):
            return [NOT_FINITE]
        if precision == "fp32" and agreement.max_abs_diff > FP32_MAX_ABS_DIFF:
            return [f"its scores differ by {agreement.max_abs_diff:.2g}"]
        if agreement.equal_labels < limits.min_answer_f1:
            return [f"only {agreement.equal_labels:.0%} of its labels are the reference's"]
        return []


def _label(sample: Sample, outputs: Outputs) -> str:
    return label_of(sample, [outputs], LabelOptions())["label"] if all_finite(outputs) else ""


@dataclass(frozen=True)
class LabelReport:
    """What an artifact scores on a file of sentences."""

    artifact: str
    variant: str
    accuracy: float  # 0 to 1
    labels: Sequence[str]
    seconds: float
    environment: Dict[str, Any]
    equal_to_other: Optional[float] = None

    def as_dict(self) -> Dict[str, Any]:
        return asdict(self)

    def tables(self) -> List[Union[str, Table]]:
        return [f"accuracy {self.accuracy:.1%}", Table([[label] for label in self.labels], ["label"])]


class LabelEvaluation:
    """One evaluation (tasks.base.TaskEvaluation)."""

    def __init__(self, data: Any, limit: Optional[int], cut: CutOptions, decode_options: LabelOptions):
        self.sentences = load_sentences(data)[: positive("limit", limit)]
        self.cut = cut
        self.decode_options = decode_options

    @property
    def inputs(self) -> List[str]:
        return [sentence.text for sentence in self.sentences]

    def options_for(self, tokenizer: Tokenizer) -> CutOptions:
        return self.cut

    def for_other(self, config: Config, options: CutOptions) -> Tuple["LabelEvaluation", CutOptions]:
        return self, options

    def refuse(self, tokenizer: Tokenizer, first: int, count: int, options: CutOptions) -> None:
        for number, sentence in enumerate(self.sentences[first : first + count], start=first + 1):
            try:
                encode_texts(tokenizer, [sentence.text], options)
            except InputError as error:
                raise InputError(f"sentence {number}: {error.message}", hint=error.hint) from None

    def read(self, example: Sample, outputs: Sequence[Outputs]) -> str:
        return str(label_of(example, outputs, self.decode_options)["label"])

    def report(self, read: Sequence[str], **facts: Any) -> LabelReport:
        right = [label == sentence.label for label, sentence in zip(read, self.sentences)]
        return LabelReport(accuracy=float(np.mean(right)), labels=list(read), **facts)

    def compared(self, report: LabelReport, read: Sequence[str], against: str, other: Sequence[str]) -> LabelReport:
        return replace(report, equal_to_other=float(np.mean([a == b for a, b in zip(read, other)])))
