"""Any batch comes back from static shapes as from a dynamic model: routed, padded, cut and put together again."""

from typing import List

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logits import logits as logits_of

from neuronbert.backends.base import Batch, Bucket
from neuronbert.backends.buckets import BucketedSession, fitted, route
from neuronbert.backends.outputs import Outputs
from neuronbert.engine.batches import infer_rows, plan_batches
from neuronbert.errors import InputError
from neuronbert.tasks.question_answering.task import OUTPUTS
from neuronbert.tasks.question_answering.windows import Window


class Static:
    """Answers each token with its id where it is real, and remembers what it was given."""

    precision = "fp16"
    concurrency = 2
    copies = 2

    def __init__(self, rows: int, tokens: int):
        self.shape = Bucket(rows, tokens, 1)
        self.name = f"neuron-{self.shape.name}"
        self.seen: List[Batch] = []
        self.copies_asked: List[object] = []

    def run(self, batch: Batch, copy: object = None) -> Outputs:
        assert batch.input_ids.shape == self.shape[:2]
        assert batch.attention_mask.any(axis=1).all(), "a row of nothing but padding"
        self.seen.append(batch)
        self.copies_asked.append(copy)
        logits = (batch.input_ids * batch.attention_mask).astype(np.float32)
        return logits_of(logits, -logits)

    def close(self) -> None:
        self.seen = []


SHAPES = st.lists(st.tuples(st.integers(1, 5), st.sampled_from([16, 32, 64])), min_size=1, max_size=4, unique=True)


@given(shapes=SHAPES, rows=st.integers(1, 13), tokens=st.integers(1, 80), seed=st.integers(0, 999))
def test_every_row_comes_back_as_it_went_in(shapes, rows, tokens, seed):
    longest = max(length for _, length in shapes)
    random = np.random.default_rng(seed)
    ids = random.integers(5, 99, size=(rows, tokens))
    lengths = random.integers(1, min(tokens, longest) + 1, size=rows)
    mask = (np.arange(tokens)[None, :] < lengths[:, None]).astype(np.int64)
    session = BucketedSession([Static(*shape) for shape in shapes], OUTPUTS)
    logits = session.run(Batch(ids, mask, np.zeros_like(ids)))
    np.testing.assert_array_equal(logits["start_logits"], ids * mask)
    np.testing.assert_array_equal(logits["end_logits"], -(ids * mask))


@given(shapes=SHAPES, rows=st.integers(1, 13), tokens=st.integers(1, 64))
def test_the_shortest_bucket_that_fits_is_taken(shapes, rows, tokens):
    if max(length for _, length in shapes) < tokens:
        with pytest.raises(InputError, match=f"{tokens} tokens does not fit the longest bucket"):
            route(rows, tokens, shapes)
        return
    batch, length = shapes[route(rows, tokens, shapes)]
    assert length == min(other for _, other in shapes if other >= tokens)
    sizes = [size for size, other in shapes if other == length]
    assert batch == (min(size for size in sizes if size >= rows) if max(sizes) >= rows else max(sizes))


def test_a_partial_batch_repeats_a_real_row():
    rows = np.array([[1, 2], [3, 4]])
    np.testing.assert_array_equal(fitted(rows, 4, 3), [[1, 2, 0], [3, 4, 0], [3, 4, 0], [3, 4, 0]])


def test_batches_hold_windows_of_one_bucket():
    plan = BucketedSession([Static(4, 32), Static(4, 64)], OUTPUTS).plan()
    lengths = [10, 60, 33, 32, 50, 31, 64, 64]
    for batch in plan_batches(lengths, plan):
        assert len({lengths[index] > 32 for index in batch}) == 1
        assert len(batch) <= 4


def test_windows_get_their_own_logits_back():
    session = BucketedSession([Static(2, 32), Static(3, 64)], OUTPUTS)
    windows = [
        Window(np.arange(5, 5 + length), np.zeros(length, np.int64), 1, 0, length - 2) for length in (64, 7, 33, 32, 12)
    ]
    for window, outputs in zip(windows, infer_rows(session, windows, OUTPUTS, session.plan(), 0)):
        start = outputs["start_logits"]
        np.testing.assert_array_equal(start, window.input_ids)


def test_a_self_test_reaches_every_copy_of_every_bucket():
    sessions = [Static(2, 32), Static(2, 64)]
    bucketed = BucketedSession(sessions, OUTPUTS, [{"name": one.name} for one in sessions])
    ones = np.ones((1, 9), np.int64)
    asked = []
    for part in bucketed.parts():
        part.session.run(Batch(ones, ones, ones))
        asked.append(part.variant["name"])
    assert asked == ["neuron-b2-s32-p1"] * 2 + ["neuron-b2-s64-p1"] * 2
    assert [one.copies_asked for one in sessions] == [[0, 1], [0, 1]]


def test_buckets_on_the_same_cores_take_no_more_requests_than_one():
    assert BucketedSession([Static(2, 32), Static(2, 64)], OUTPUTS).concurrency == 2
