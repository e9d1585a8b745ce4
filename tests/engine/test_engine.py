"""The engine answers many questions as it answers each alone, whatever the batches, and refuses a runtime that lies."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logits import logits as logits_of

from neuronbert.artifact.manifest import Artifact
from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import Outputs, max_difference
from neuronbert.engine import loading
from neuronbert.engine.batches import infer_rows, plan_batches
from neuronbert.engine.engine import CHUNK_INPUTS, Engine
from neuronbert.errors import BackendFailed, InputError, UsageError
from neuronbert.tasks.question_answering.options import AnswerOptions, WindowOptions
from neuronbert.tasks.question_answering.task import OUTPUTS

plans = st.builds(ThroughputPlan, streams=st.just(1), rows=st.integers(1, 9), tokens=st.integers(1, 900))
lengths = st.lists(st.integers(1, 384), max_size=60)


@given(lengths=lengths, plan=plans)
def test_every_window_is_in_exactly_one_batch(lengths, plan):
    batches = plan_batches(lengths, plan)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))


@given(lengths=lengths, plan=plans)
def test_no_batch_exceeds_its_rows_or_tokens(lengths, plan):
    for batch in plan_batches(lengths, plan):
        assert len(batch) <= plan.rows
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= plan.tokens


@given(lengths=lengths, plan=plans)
def test_lengths_never_grow_from_batch_to_batch(lengths, plan):
    order = [lengths[index] for batch in plan_batches(lengths, plan) for index in batch]
    assert order == sorted(lengths, reverse=True)


PAIRS = [
    (
        f"Who met number {number}?",
        f"On day {number} " + "the old man walked on. " * (number % 40) + f"Ann met Bob {number}.",
    )
    for number in range(60)
]


@pytest.fixture(scope="module")
def engine(echo_artifact):
    with Engine(echo_artifact, threads=2) as engine:
        yield engine


def test_many_questions_are_answered_as_each_alone(engine):
    assert engine.answer(PAIRS) == [engine.answer([pair])[0] for pair in PAIRS]


def test_answers_come_in_order_from_a_generator(engine):
    assert list(engine.stream(pair for pair in PAIRS)) == engine.answer(PAIRS)


def test_a_stream_reads_no_further_than_one_chunk_ahead(engine):
    taken = []

    def pairs():
        for number in range(3 * CHUNK_INPUTS):
            taken.append(number)
            yield ("Who?", "Ann.")

    next(engine.stream(pairs()))
    assert len(taken) == CHUNK_INPUTS


def test_options_can_differ_from_question_to_question(engine):
    examples = engine.encode(PAIRS[:2])
    ranked = list(engine.answer_encoded(examples, [AnswerOptions(top_k=1), AnswerOptions(top_k=3)]))
    assert [len(answers) for answers in ranked] == [1, 3]


def test_long_contexts_are_answered_over_all_their_windows(engine):
    context = "Nothing happened. " * 200 + "Ann met Bob."
    examples = engine.encode([("Who?", context)], WindowOptions(max_seq_len=64, doc_stride=16))
    assert len(examples[0].windows) > 10
    assert len(engine.outputs(examples[0].windows)) == len(examples[0].windows)


def test_an_empty_list_has_no_answers(engine):
    assert engine.answer([]) == []


@pytest.mark.parametrize("pair", [("", "context"), ("question", ""), (None, "context"), ("question", b"bytes")])
def test_a_pair_that_cannot_be_asked_is_refused(engine, pair):
    with pytest.raises(InputError):
        engine.answer([pair])


@pytest.mark.parametrize("option", [{"threads": 0}, {"streams": 0}])
def test_nonsense_options_are_refused(echo_artifact, option):
    with pytest.raises(UsageError, match="must be a whole number of at least 1, not 0"):
        Engine(echo_artifact, **option)


def test_threads_are_by_default_what_computes_best(echo_artifact, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with Engine(echo_artifact) as default, Engine.for_many(echo_artifact) as many, Engine(
        echo_artifact, threads=2
    ) as two:
        assert (default.threads, many.threads, many.streams, two.threads) == (3, 3, 3, 2)


class Rows:
    """A session that answers each token with its own id, to see where logits end up."""

    precision = "fp32"
    concurrency = 1

    def run(self, batch: Batch) -> Outputs:
        return logits_of(batch.input_ids.astype(np.float32), -batch.input_ids.astype(np.float32))

    def close(self) -> None:
        pass


def test_logits_return_to_the_window_they_belong_to(engine):
    windows = [window for example in engine.encode(PAIRS) for window in example.windows]
    found = infer_rows(Rows(), windows, OUTPUTS, ThroughputPlan(1, 4, 500), engine.tokenizer.pad_id)
    for window, outputs in zip(windows, found):
        np.testing.assert_array_equal(outputs["start_logits"], window.input_ids)
        np.testing.assert_array_equal(outputs["end_logits"], -window.input_ids)


def test_a_difference_counts_real_tokens_and_keeps_nan():
    mask = np.array([[1, 1, 0]])
    zero = np.zeros((1, 3), np.float32)
    assert max_difference(logits_of(zero, zero), logits_of(zero, np.array([[0.0, 2.0, 9.0]])), OUTPUTS, mask) == 2.0
    assert np.isnan(max_difference(logits_of(zero, zero + np.nan), logits_of(zero, zero), OUTPUTS, mask))


def test_a_runtime_that_gives_wrong_numbers_fails_the_self_test(echo_copy):
    path = echo_copy / "variants" / "echo-fp32" / "echo.json"
    wrong = json.loads(path.read_text())
    manifest = json.loads((echo_copy / "neuronbert.json").read_text())
    manifest["variants"][0]["selftest_tolerance"] = 1.0
    path.write_text(json.dumps({**wrong, "multiplier": 1}))
    with pytest.raises(BackendFailed, match="fails its self-test: logits differ from the FP32 reference by"):
        Engine(Artifact(echo_copy, manifest))


def test_closing_releases_the_threads(echo_artifact, tmp_path):
    import threading

    before = set(threading.enumerate())  # of which some may end meanwhile: those that other tests left
    with Engine(
        Artifact(shutil.copytree(echo_artifact.folder, tmp_path / "a"), echo_artifact.manifest), threads=3
    ) as engine:
        engine.answer(PAIRS)
        assert set(threading.enumerate()) - before
    assert not set(threading.enumerate()) - before


def test_one_question_has_all_threads_and_many_have_all_streams(echo_artifact):
    with Engine(echo_artifact, threads=3) as engine:
        engine.answer(PAIRS[:16])
        assert (engine.streams, engine._fastest) == (1, None)
        answers = engine.answer(PAIRS)
        assert engine._fastest is not None and engine._fastest.session.concurrency == 3
    with Engine.for_many(echo_artifact, threads=3) as engine:
        assert engine.streams == 3
        assert engine.answer(PAIRS) == answers


def test_several_threads_may_ask_one_engine(echo_artifact):
    from concurrent.futures import ThreadPoolExecutor

    with Engine(echo_artifact, threads=2) as engine, ThreadPoolExecutor(8) as callers:
        expected = engine.answer(PAIRS)
        assert list(callers.map(lambda _: engine.answer(PAIRS), range(16))) == [expected] * 16
        assert list(callers.map(lambda pair: engine.answer([pair])[0], PAIRS)) == expected


def test_a_closed_engine_says_so(echo_artifact):
    engine = Engine(echo_artifact, threads=2)
    engine.close()
    engine.close()
    for pairs in (PAIRS, PAIRS[:1]):
        with pytest.raises(BackendFailed, match="this engine is closed"):
            engine.answer(pairs)


def test_as_many_options_as_examples_are_needed(engine):
    with pytest.raises(ValueError, match="1 answer options for 2 examples"):
        list(engine.answer_encoded(engine.encode(PAIRS[:2]), [AnswerOptions()]))


def test_a_bucket_that_does_not_load_closes_those_that_did(monkeypatch, tmp_path):
    closed = []

    class Backend:
        STATIC_SHAPES = True

        @staticmethod
        def throughput_plan(threads):
            return ThroughputPlan(1, 1, 1)

        @staticmethod
        def load(folder, variant, *, outputs, threads, streams):
            if variant["name"] == "bad":
                raise BackendFailed("no room on the core")
            return SimpleNamespace(close=lambda: closed.append(variant["name"]))

    monkeypatch.setattr(loading, "load_backend", lambda name: Backend)
    variants = [{"name": name, "backend": "b", "sequence_length": 8} for name in ("one", "two", "bad")]
    with pytest.raises(BackendFailed, match="no room"):
        loading.load_variants([tmp_path] * 3, variants, OUTPUTS, threads=1, streams=1)
    assert closed == ["two", "one"]
