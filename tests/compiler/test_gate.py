"""The gate refuses what does not answer as the FP32 reference does."""

import threading
from typing import Dict

import numpy as np
import pytest
from logits import logits as logits_of

from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.compiler.gate import Gate
from neuronbert.compiler.self_test import selftest_arrays, selftest_tolerance
from neuronbert.engine.batches import plan_batches
from neuronbert.errors import CheckpointError, UsageError
from neuronbert.tasks.question_answering.gate import Agreement, GateLimits, QuestionAnsweringGate, refusals
from neuronbert.tasks.question_answering.squad import load_squad
from neuronbert.tasks.question_answering.task import OUTPUTS
from neuronbert.tasks.question_answering.windows import encode_examples
from neuronbert.tasks.samples import gate_path

GOOD = Agreement(n=500, max_abs_diff=1e-5, top1_agreement=1.0, f1=80.0, reference_f1=80.0, answer_f1=1.0)
PLAN = ThroughputPlan(streams=1, rows=4, tokens=2000)


def changed(**figures) -> Agreement:
    return Agreement(**{**vars(GOOD), **figures})


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_agreement_passes(precision):
    assert refusals(precision, GOOD) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_nan_and_inf_are_refused_in_every_precision(precision, value):
    assert refusals(precision, changed(max_abs_diff=value)) == ["its logits hold NaN or Inf"]


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"max_abs_diff": 0.0011}, "differ from the FP32 reference by 0.0011"),
        ({"top1_agreement": 0.98}, "only 98.0% of its answers"),
    ],
)
def test_fp32_must_compute_the_same_function(figures, words):
    assert words in refusals("fp32", changed(**figures))[0]


def test_fp32_is_refused_for_every_reason_at_once():
    assert len(refusals("fp32", changed(max_abs_diff=1.0, top1_agreement=0.0))) == 2


def test_reduced_precision_may_flip_near_ties_but_not_lose_f1():
    assert refusals("int8", changed(max_abs_diff=3.0, top1_agreement=0.9, f1=79.3, answer_f1=0.92)) == []
    assert "79.00, 98.75% of the reference's 80.00" in refusals("int8", changed(f1=79.0))[0]


def test_reduced_precision_must_give_the_reference_s_answers():
    assert "against the reference's is 0.890, less than 0.900" in refusals("int8", changed(answer_f1=0.89))[0]


def test_the_limits_are_the_user_s():
    assert refusals("int8", changed(f1=70.0, answer_f1=0.6), GateLimits(min_f1_ratio=0.8, min_answer_f1=0.5)) == []


def test_a_reference_without_any_right_answer_is_no_reference():
    assert "means nothing" in refusals("int8", changed(f1=0.0, reference_f1=0.0))[0]


def test_figures_for_the_manifest_hold_no_nan():
    assert changed(f1=0.0, reference_f1=0.0).as_dict()["f1_ratio"] is None
    assert GOOD.as_dict()["f1_ratio"] == 1.0
    for value in (float("nan"), float("inf")):
        assert changed(max_abs_diff=value).as_dict() == {**GOOD.as_dict(), "max_abs_diff": None}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01, "0.5", None, True])
@pytest.mark.parametrize("name", ["min_f1_ratio", "min_answer_f1"])
def test_a_limit_that_refuses_nothing_or_everything_is_no_limit(name, value):
    with pytest.raises(UsageError, match=f"{name} must be a number from 0 to 1"):
        GateLimits(**{name: value})


@pytest.mark.parametrize("value", [0, 0.0, 1, 0.99])
def test_the_ends_of_the_range_are_limits(value):
    assert GateLimits(min_f1_ratio=value, min_answer_f1=value).min_f1_ratio == value


def compared(gate: Gate, session, plan: ThroughputPlan = PLAN):
    return gate.agreement(gate.answers(session, plan))


class Bag:
    """Logits that depend on the token alone, with something added."""

    precision = "fp32"
    concurrency = 1

    def __init__(self, noise: float = 0.0):
        self.noise = noise

    def run(self, batch: Batch) -> Outputs:
        start = (batch.input_ids * 7919 % 1009 / 100).astype(np.float32)
        end = (batch.input_ids * 104729 % 1013 / 100).astype(np.float32)
        return logits_of(start + np.float32(self.noise) * end, end)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def questions():
    return load_squad(gate_path())[:40]


@pytest.fixture(scope="module")
def tokenizer(echo_artifact):
    return Tokenizer.from_files(echo_artifact.folder)


@pytest.fixture(scope="module")
def examples(questions, tokenizer):
    return encode_examples(tokenizer, [(question.question, question.context) for question in questions])


@pytest.fixture(scope="module")
def gate(questions, examples, tokenizer):
    return Gate(QuestionAnsweringGate(), OUTPUTS, questions, examples, tokenizer.pad_id, Bag())


def test_the_reference_agrees_with_itself_in_batches(gate):
    agreement = compared(gate, Bag())
    assert (agreement.n, agreement.max_abs_diff, agreement.top1_agreement, agreement.answer_f1) == (40, 0.0, 1.0, 1.0)
    assert agreement.f1 == agreement.reference_f1


def test_the_gate_keeps_every_stream_busy(gate):
    class Meeting(Bag):
        """Batches that wait for each other: one after another they would never be done."""

        concurrency = 2
        together = threading.Barrier(2, timeout=60)

        def run(self, batch: Batch) -> Outputs:
            self.together.wait()
            return super().run(batch)

    lengths = [len(row.input_ids) for row in gate.rows]
    rows = next(n for n in range(4, 12) if len(plan_batches(lengths, even(n))) % 2 == 0)
    assert compared(gate, Meeting(), even(rows)).max_abs_diff == 0.0


def even(rows: int) -> ThroughputPlan:
    return ThroughputPlan(streams=2, rows=rows, tokens=100_000)


def test_the_gate_says_how_far_it_is(questions, examples, tokenizer):
    told: list = []
    asked = Gate(
        QuestionAnsweringGate(), OUTPUTS, questions, examples, tokenizer.pad_id, Bag(), lambda *step: told.append(step)
    )
    windows = len(asked.rows)
    assert told == [("windows answered", done, windows) for done in range(windows + 1)]
    told.clear()
    compared(asked, Bag())
    assert (told[0][1], told[-1][1]) == (0, windows)
    assert [step[1] for step in told] == sorted({step[1] for step in told})


def test_a_disturbed_session_is_measured(gate):
    agreement = compared(gate, Bag(noise=0.5))
    assert agreement.max_abs_diff > 1
    assert agreement.top1_agreement < 1
    assert agreement.answer_f1 < 1


def test_nan_in_one_logit_is_found(gate):
    class OneNan(Bag):
        def run(self, batch: Batch) -> Outputs:
            logits = super().run(batch)
            logits["start_logits"][0, 0] = np.nan
            return logits

    assert refusals("int8", compared(gate, OneNan())) == ["its logits hold NaN or Inf"]


def test_a_checkpoint_with_nan_is_no_reference(questions, examples, tokenizer):
    with pytest.raises(CheckpointError, match="NaN or Inf in FP32 already"):
        Gate(QuestionAnsweringGate(), OUTPUTS, questions, examples, tokenizer.pad_id, Bag(noise=float("nan")))


def test_the_self_test_tells_a_dead_runtime_from_another_machine(examples, tokenizer):
    arrays: Dict[str, np.ndarray] = selftest_arrays(examples, Bag(), tokenizer.pad_id)
    batch = Batch(*(arrays[name] for name in Batch._fields))
    tolerance = selftest_tolerance(arrays, Bag(noise=0.01), OUTPUTS)
    assert np.abs(Bag(noise=0.012).run(batch)["start_logits"] - arrays["start_logits"]).max() < tolerance
    for constant in (0.0, float(arrays["start_logits"].mean())):
        assert np.abs(constant - arrays["start_logits"])[batch.attention_mask == 1].max() > tolerance
