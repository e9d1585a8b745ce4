"""What compiler/gate.py measures of question answering: F1 against gold answers, and agreement with the reference."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.outputs import Outputs, all_finite
from neuronbert.errors import InputError
from neuronbert.tasks.agreement import for_json, largest_difference, logits_refusals
from neuronbert.tasks.base import NOT_FINITE, Document, GateLimits, GateQuestions, PathLike
from neuronbert.tasks.question_answering.answers import Answer, rank_answers
from neuronbert.tasks.question_answering.lines import Pair
from neuronbert.tasks.question_answering.long_documents import long_documents
from neuronbert.tasks.question_answering.metrics import mean_f1
from neuronbert.tasks.question_answering.options import RANKINGS, AnswerOptions
from neuronbert.tasks.question_answering.squad import SquadQuestion, load_squad
from neuronbert.tasks.question_answering.windows import Example
from neuronbert.tasks.samples import calibration_path, gate_path

MIN_QUESTIONS = 500
FP32_MIN_TOP1_AGREEMENT = 0.99
LONG_QUESTIONS = 100
LONG_WORDS = 2500  # of a document: some 14 windows


@dataclass(frozen=True)
class Agreement:
    """How a variant compares with the FP32 reference over ``n`` questions.

    F1 figures are percentages against gold answers; ``answer_f1`` (0 to 1) is the token F1 of the variant's answers
    against the reference's.
    """

    n: int
    max_abs_diff: float
    top1_agreement: float
    f1: float
    reference_f1: float
    answer_f1: float

    @property
    def f1_ratio(self) -> float:
        return self.f1 / self.reference_f1 if self.reference_f1 else float("nan")

    @property
    def known(self) -> int:
        """Questions with answers: all of the gate's."""
        return self.n

    def as_dict(self) -> Document:
        """The figures for JSON, which has no NaN or Inf: null stands for them."""
        return for_json({**asdict(self), "f1_ratio": self.f1_ratio})

    def entry(self) -> Document:
        """The manifest's ``agreement`` and ``accuracy``."""
        figures = self.as_dict()
        return {
            "agreement": {key: figures.pop(key) for key in ("max_abs_diff", "top1_agreement", "n")},
            "accuracy": figures,
        }


class Judged(NamedTuple):
    """The gate's questions answered by one session: logits per window, the best answer per question."""

    outputs: Sequence[Outputs]
    spans: List[Tuple[int, int]]
    texts: List[str]


class QuestionAnsweringGate:
    """The gate of question answering (tasks.base.TaskGate)."""

    LIMITS = GateLimits()

    def questions(
        self, gate_data: Optional[PathLike], calibration_data: Optional[PathLike], skipped: bool
    ) -> GateQuestions:
        """The questions of the user's SQuAD files; the gate's are filled up to 500 from the shipped sample."""
        calibration = load_squad(calibration_data or calibration_path())
        asked = gate_questions(gate_data, calibration)
        if not skipped:
            refuse_few(asked, gate_data)
        own = {(item.question, item.context) for item in load_squad(gate_data)} if gate_data else set()
        filled = any((item.question, item.context) not in own for item in asked)
        files = [Path(gate_data)] if gate_data else []
        return GateQuestions(
            calibration,
            asked,
            load_squad(gate_path()),
            Path(calibration_data or calibration_path()),
            [] if skipped else files + ([gate_path()] if filled else []),
        )

    def inputs(self, labelled: Sequence[SquadQuestion]) -> List[Pair]:
        """Questions and contexts."""
        return [Pair(item.question, item.context) for item in labelled]

    def judge(
        self, labelled: Sequence[SquadQuestion], examples: Sequence[Example], outputs: Sequence[Outputs]
    ) -> Judged:
        """The best answer to each question; the empty answer competes if any question has no answer."""
        return self._judge(examples, outputs, self.decode_options(labelled))

    def judge_whole(
        self, labelled: Sequence[SquadQuestion], examples: Sequence[Example], outputs: Sequence[Outputs]
    ) -> List[Judged]:
        """As ``judge``, by each ranking: over many windows the two find different answers."""
        options = self.decode_options(labelled)
        return [self._judge(examples, outputs, replace(options, ranking=ranking)) for ranking in RANKINGS]

    def _judge(self, examples: Sequence[Example], outputs: Sequence[Outputs], options: AnswerOptions) -> Judged:
        best = []
        first = 0
        for example in examples:
            windows = outputs[first : first + len(example.windows)]
            first += len(example.windows)
            best.append(_best(example, windows, options))
        return Judged(
            outputs, [(answer["start"], answer["end"]) for answer in best], [answer["answer"] for answer in best]
        )

    def decode_options(self, labelled: Sequence[SquadQuestion]) -> AnswerOptions:
        """The empty answer competes if any question has none."""
        return AnswerOptions(handle_impossible_answer=any(item.is_impossible for item in labelled))

    def long_inputs(self, labelled: Sequence[SquadQuestion]) -> List[SquadQuestion]:
        """At most LONG_QUESTIONS of the gate's, evenly spread, about documents of LONG_WORDS.

        InputError where all of their text is less.
        """
        together = long_documents(labelled, LONG_WORDS)
        if not together or len(together[0].context.split()) < LONG_WORDS:
            raise InputError(
                f"the gate's text is too little to put a document of {LONG_WORDS} words together, which is what "
                "selecting windows is measured on",
                hint="--gate-data with more paragraphs, or select_windows where a question is asked",
            )
        return together[:: -(-len(together) // LONG_QUESTIONS)]

    def accuracy(self, labelled: Sequence[SquadQuestion], judged: Judged) -> float:
        """F1 against the gold answers, in percent."""
        return 100 * mean_f1(judged.texts, [item.answers or ("",) for item in labelled])

    def compare(self, labelled: Sequence[SquadQuestion], judged: Judged, reference: Judged) -> Agreement:
        """Answers against gold answers and the reference's answers, logits against the reference's logits."""
        return Agreement(
            n=len(labelled),
            max_abs_diff=largest_difference(judged.outputs, reference.outputs),
            top1_agreement=float(np.mean([span == expected for span, expected in zip(judged.spans, reference.spans)])),
            f1=self.accuracy(labelled, judged),
            reference_f1=self.accuracy(labelled, reference),
            answer_f1=mean_f1(judged.texts, [(answer,) for answer in reference.texts]),
        )

    def refusals(self, precision: str, agreement: Agreement, limits: GateLimits) -> List[str]:
        """FP32 must give the reference's logits, a reduced precision its accuracy."""
        return refusals(precision, agreement, limits)


def _best(example: Example, outputs: Sequence[Outputs], options: AnswerOptions) -> Answer:
    if not all(map(all_finite, outputs)):
        return {"start": -1, "end": -1, "answer": ""}
    answers = rank_answers(example, outputs, options)
    return answers[0] if answers else {"start": 0, "end": 0, "answer": ""}


def refusals(precision: str, agreement: Agreement, limits: GateLimits = GateLimits()) -> List[str]:
    """The reasons why the gate refuses a variant; empty if it passes."""
    if not np.isfinite(agreement.max_abs_diff):
        return [NOT_FINITE]
    return _fp32_refusals(agreement) if precision == "fp32" else _reduced_refusals(agreement, limits)


def _fp32_refusals(agreement: Agreement) -> List[str]:
    reasons = logits_refusals(agreement.max_abs_diff)
    if agreement.top1_agreement < FP32_MIN_TOP1_AGREEMENT:
        reasons.append(
            f"only {agreement.top1_agreement:.1%} of its answers equal the reference's, "
            f"less than {FP32_MIN_TOP1_AGREEMENT:.0%}"
        )
    return reasons


def _reduced_refusals(agreement: Agreement, limits: GateLimits) -> List[str]:
    reasons = []
    if not agreement.reference_f1:
        reasons.append("the FP32 reference itself scores F1 0 on the gate's questions, so the gate means nothing")
    elif agreement.f1_ratio < limits.min_f1_ratio:
        reasons.append(
            f"its F1 is {agreement.f1:.2f}, {agreement.f1_ratio:.2%} of the reference's {agreement.reference_f1:.2f} "
            f"and less than {limits.min_f1_ratio:.2%}"
        )
    if agreement.answer_f1 < limits.min_answer_f1:
        reasons.append(
            f"its answers' token F1 against the reference's is {agreement.answer_f1:.3f}, "
            f"less than {limits.min_answer_f1:.3f}"
        )
    return reasons


def gate_questions(gate_data: Optional[PathLike], calibration: Sequence[SquadQuestion]) -> List[SquadQuestion]:
    """The gate's questions: the user's, filled up from the shipped sample, none about a paragraph of calibration."""
    seen = {question.context for question in calibration}
    shipped = [question for question in load_squad(gate_path()) if question.context not in seen]
    if gate_data is None:
        return shipped
    own = [question for question in load_squad(gate_data) if question.context not in seen]
    asked = {(question.question, question.context) for question in own}
    more = [question for question in shipped if (question.question, question.context) not in asked]
    return own + more[: max(0, MIN_QUESTIONS - len(own))]


def refuse_few(questions: Sequence[SquadQuestion], gate_data: Optional[PathLike]) -> None:
    """InputError when calibration leaves the gate fewer questions than it needs to mean something."""
    if len(questions) < MIN_QUESTIONS:
        own = f"{Path(gate_data).name} and " if gate_data else ""
        raise InputError(
            f"{len(questions)} questions are left for the gate, which needs {MIN_QUESTIONS}: "
            f"the others of {own}the shipped sample are about paragraphs of the calibration data",
            hint="--calibration-data with other paragraphs, or --gate-data with more questions",
        )
