"""The gate: a variant is kept only if it answers as the FP32 reference does; compiler asks it before it saves."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from neuronbert.backends import Batch, Logits, Session, ThroughputPlan
from neuronbert.benchmark.evaluation import mean_f1
from neuronbert.engine.engine import infer_windows, max_difference
from neuronbert.errors import CheckpointError, UsageError
from neuronbert.tasks.question_answering.answers import AnswerOptions, rank_answers
from neuronbert.tasks.question_answering.squad import SquadQuestion
from neuronbert.tasks.question_answering.windows import Example, Window, collate

MIN_QUESTIONS = 500
SELFTEST_ROWS = 4
NOT_FINITE = "its logits hold NaN or Inf"
# FP32 variants compute the same function: only the order of additions differs.
FP32_MAX_ABS_DIFF = 1e-3
FP32_MIN_TOP1_AGREEMENT = 0.99
# MLPerf inference's rule for reduced precision: 99 % of the FP32 accuracy.
DEFAULT_MIN_F1_RATIO = 0.99
DEFAULT_MIN_ANSWER_F1 = 0.90


@dataclass(frozen=True)
class GateLimits:
    """What a reduced-precision variant must reach; UsageError for what is not a number from 0 to 1."""

    min_f1_ratio: float = DEFAULT_MIN_F1_RATIO
    min_answer_f1: float = DEFAULT_MIN_ANSWER_F1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 <= value <= 1):  # false for NaN too
                raise UsageError(
                    f"{name} must be a number from 0 to 1, not {value!r}",
                    hint=f"{name}={getattr(GateLimits, name):g}, or leave it out",
                )


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

    def as_dict(self) -> Dict[str, Any]:
        """The figures for JSON, which has no NaN or Inf: null stands for them."""
        figures = {**asdict(self), "f1_ratio": self.f1_ratio}
        return {name: value if np.isfinite(value) else None for name, value in figures.items()}


@dataclass(frozen=True)
class Answered:
    """The gate's questions answered by one session: logits per window, the best answer per question."""

    logits: List[Logits]
    spans: List[Tuple[int, int]]
    texts: List[str]


def infer_concurrently(session: Session, windows: Sequence[Window], plan: ThroughputPlan, pad_id: int) -> List[Logits]:
    """``infer_windows`` with as many batches at once as the session allows: one would leave its other streams idle."""
    if session.concurrency == 1:
        return infer_windows(session, windows, plan, pad_id)
    with ThreadPoolExecutor(session.concurrency) as pool:
        return infer_windows(session, windows, plan, pad_id, pool)


class Gate:
    """The gate's questions and what the FP32 reference says of them, computed once for all variants."""

    def __init__(
        self, questions: Sequence[SquadQuestion], examples: Sequence[Example], pad_id: int, reference: Session
    ):
        self.questions = questions
        self.examples = examples
        self.windows = [window for example in examples for window in example.windows]
        self.pad_id = pad_id
        self.options = AnswerOptions(handle_impossible_answer=any(question.is_impossible for question in questions))
        # One row at a time: the reference must not depend on how rows are batched or padded.
        self.reference = self.answered(reference, ThroughputPlan(streams=1, rows=1, tokens=1))
        if not all(np.isfinite(side).all() for logits in self.reference.logits for side in logits):
            raise CheckpointError(
                "the checkpoint gives NaN or Inf in FP32 already",
                hint="train or download it again: its weights are damaged",
            )

    def answered(self, session: Session, plan: ThroughputPlan) -> Answered:
        """Answer every question of the gate with ``session``."""
        logits = infer_concurrently(session, self.windows, plan, self.pad_id)
        best = []
        first = 0
        for example in self.examples:
            own = logits[first : first + len(example.windows)]
            first += len(example.windows)
            best.append(_best(example, own, self.options))
        return Answered(logits, [(one["start"], one["end"]) for one in best], [one["answer"] for one in best])

    def compare(self, session: Session, plan: ThroughputPlan) -> Agreement:
        """Answer every question with ``session`` and compare with the reference."""
        answered = self.answered(session, plan)
        golds = [question.answers or ("",) for question in self.questions]
        return Agreement(
            n=len(self.questions),
            max_abs_diff=_max_abs_diff(answered.logits, self.reference.logits),
            top1_agreement=float(np.mean([a == b for a, b in zip(answered.spans, self.reference.spans)])),
            f1=100 * mean_f1(answered.texts, golds),
            reference_f1=100 * mean_f1(self.reference.texts, golds),
            answer_f1=mean_f1(answered.texts, [(text,) for text in self.reference.texts]),
        )


def _best(example: Example, logits: Sequence[Logits], options: AnswerOptions) -> Dict[str, Any]:
    if not all(np.isfinite(side).all() for one in logits for side in one):
        return {"start": -1, "end": -1, "answer": ""}
    answers = rank_answers(example, [one.start for one in logits], [one.end for one in logits], options)
    return answers[0] if answers else {"start": 0, "end": 0, "answer": ""}


def _max_abs_diff(actual: Sequence[Logits], expected: Sequence[Logits]) -> float:
    differences = [np.abs(a - b).max() for one, other in zip(actual, expected) for a, b in zip(one, other)]
    return float(np.max(differences))


def refusals(precision: str, agreement: Agreement, limits: GateLimits = GateLimits()) -> List[str]:
    """Why the gate refuses a variant, in words; empty if it passes."""
    if not np.isfinite(agreement.max_abs_diff):
        return [NOT_FINITE]
    return _fp32_refusals(agreement) if precision == "fp32" else _reduced_refusals(agreement, limits)


def nan_refusals(logits: Logits) -> List[str]:
    """What is left to refuse where nothing can be compared: weights that mean nothing still give finite logits."""
    return [] if all(np.isfinite(side).all() for side in logits) else [NOT_FINITE]


def _fp32_refusals(agreement: Agreement) -> List[str]:
    reasons = []
    if agreement.max_abs_diff > FP32_MAX_ABS_DIFF:
        reasons.append(
            f"its logits differ from the FP32 reference by {agreement.max_abs_diff:.2g}, "
            f"more than {FP32_MAX_ABS_DIFF:g}"
        )
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


def selftest_arrays(examples: Sequence[Example], reference: Session, pad_id: int) -> Dict[str, np.ndarray]:
    """Inputs (the shortest windows, padded to one length) and their FP32 logits, as ``selftest.npz`` stores them."""
    windows = sorted((window for example in examples for window in example.windows), key=lambda one: len(one.input_ids))
    batch = collate(windows[:SELFTEST_ROWS], pad_id)
    logits = reference.run(batch)
    return {**batch._asdict(), "start_logits": logits.start, "end_logits": logits.end}


def selftest_batch(arrays: Mapping[str, np.ndarray]) -> Batch:
    """The inputs among what ``selftest_arrays`` made."""
    return Batch(*(arrays[name] for name in Batch._fields))


def selftest_tolerance(arrays: Mapping[str, np.ndarray], session: Session) -> float:
    """How far a load's self-test may be from the FP32 reference, given what ``session`` gives where it was compiled.

    Twice the difference measured here and a twentieth of the logits' range leave room for another CPU's kernels; a
    dead runtime, with constant outputs, is off by the range itself.
    """
    batch = selftest_batch(arrays)
    expected = Logits(arrays["start_logits"], arrays["end_logits"])
    real = batch.attention_mask.astype(bool)
    spread = min(float(np.ptp(side[real])) for side in expected)
    return 2 * max_difference(session.run(batch), expected, batch.attention_mask) + spread / 20
