"""neuronbert.engine.cascade: which rows a large model is asked, and whose outputs a row has in the end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logits import logits

from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import PER_ROW, PER_TOKEN, Output
from neuronbert.engine.cascade import CascadeSession, Stage, has_sureness, sureness
from neuronbert.errors import BackendFailed
from neuronbert.tasks.question_answering.task import OUTPUTS


class Fixed:
    """A session whose logits are made by ``values`` of a batch; it notes what it was asked."""

    precision, concurrency = "fp32", 2

    def __init__(self, values):
        self.values, self.asked, self.closed = values, [], False

    def run(self, batch):
        self.asked.append(batch)
        return logits(*self.values(batch).astype(np.float32))

    def close(self):
        self.closed = True


@st.composite
def batches(draw):
    """Rows of different lengths, padded on the right; a row's first token is its number."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    width = max(lengths) + draw(st.integers(0, 3))
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.where(mask, np.arange(len(lengths))[:, None] * 100 + np.arange(width), 0)
    return Batch(ids, mask, np.zeros_like(ids))


def noise(seed, scale):
    """Logits that depend on the token alone, so that they are the same in any batch."""
    table = np.random.default_rng(seed).normal(size=(2, 1000)) * scale
    return lambda batch: table[:, batch.input_ids]


def stage(session):
    return Stage({}, session)


@given(batches(), st.integers(0, 99), st.floats(0, 1))
def test_each_row_has_the_outputs_of_the_model_that_is_to_answer_it(batch, seed, threshold):
    small, large = Fixed(noise(seed, 3)), Fixed(noise(seed + 1000, 1))
    session = CascadeSession(stage(small), stage(large), threshold, OUTPUTS)
    found = session.run(batch)
    alone, other = Fixed(small.values).run(batch), Fixed(large.values).run(batch)
    doubtful = sureness(alone, OUTPUTS, batch.attention_mask) < threshold
    for row, tokens in enumerate(batch.attention_mask.sum(axis=1)):
        for name in found:
            expected = (other if doubtful[row] else alone)[name]
            assert np.array_equal(found[name][row, :tokens], expected[row, :tokens])
    if doubtful.any():
        (asked,) = large.asked
        assert np.array_equal(asked.input_ids[:, 0], batch.input_ids[doubtful, 0])
        assert asked.input_ids.shape[1] == batch.attention_mask[doubtful].sum(axis=1).max()
    else:
        assert large.asked == []


@given(batches(), st.integers(0, 99))
def test_a_row_is_as_sure_as_its_surest_start_times_its_surest_end(batch, seed):
    outputs = Fixed(noise(seed, 3)).run(batch)
    found = sureness(outputs, OUTPUTS, batch.attention_mask)
    for row, tokens in enumerate(batch.attention_mask.sum(axis=1)):
        expected = 1.0
        for array in outputs.values():
            values = np.exp(array[row, :tokens].astype(np.float64))
            expected *= values.max() / values.sum()
        assert found[row] == pytest.approx(expected, rel=1e-4)


def test_padding_makes_nothing_surer_and_a_mask_may_have_holes():
    ids = np.array([[1, 2, 3, 0]])
    mask = np.array([[1, 0, 1, 0]])
    values = np.zeros((2, 1, 4))
    values[:, 0, 1] = values[:, 0, 3] = 99  # neither counts
    small = Fixed(lambda batch: values)
    large = Fixed(lambda batch: np.ones((2, *batch.input_ids.shape)))
    found = CascadeSession(stage(small), stage(large), 1.0, OUTPUTS).run(Batch(ids, mask, ids * 0))
    assert sureness(small.run(Batch(ids, mask, ids * 0)), OUTPUTS, mask) == pytest.approx([0.25])
    assert large.asked[0].input_ids.tolist() == [[1, 2, 3]]
    assert found["start_logits"][0, :3].tolist() == [1, 1, 1]


@given(batches(), st.integers(0, 99), st.integers(1, 40))
def test_how_sure_a_row_is_does_not_depend_on_its_padding(batch, seed, more):
    wider = Batch(*(np.pad(array, ((0, 0), (0, more))) for array in batch))
    narrow, wide = (sureness(Fixed(noise(seed, 3)).run(each), OUTPUTS, each.attention_mask) for each in (batch, wider))
    assert np.allclose(narrow, wide, rtol=1e-12, atol=0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_in_doubt(value):
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    batch = Batch(ids, np.ones_like(ids), ids * 0)
    values = np.zeros((2, 2, 3))
    values[0, 1, 1] = value
    small, large = Fixed(lambda batch: values), Fixed(lambda batch: np.ones((2, *batch.input_ids.shape)))
    found = CascadeSession(stage(small), stage(large), 0.0, OUTPUTS).run(batch)
    assert large.asked[0].input_ids.tolist() == [[4, 5, 6]]
    assert np.isfinite(found["start_logits"]).all()


@pytest.mark.parametrize("which", ["small", "large"])
def test_outputs_of_another_shape_are_refused(which):
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    good = Fixed(lambda batch: np.zeros((2, *batch.input_ids.shape)))
    bad = Fixed(lambda batch: np.zeros((2, len(batch.input_ids), 1)))
    pair = (bad, good) if which == "small" else (good, bad)
    with pytest.raises(BackendFailed, match="the model gave start_logits the shape"):
        CascadeSession(*map(stage, pair), 1.0, OUTPUTS).run(Batch(ids, np.ones_like(ids), ids * 0))


def test_both_are_closed():
    small, large = Fixed(noise(0, 1)), Fixed(noise(1, 1))
    session = CascadeSession(stage(small), stage(large), 0.5, OUTPUTS)
    assert (session.precision, session.concurrency) == ("fp32", 2)
    session.close()
    assert small.closed and large.closed


def test_it_is_for_one_number_of_each_token():
    assert has_sureness(OUTPUTS)
    assert not has_sureness((Output("logits", PER_ROW),))
    assert not has_sureness((Output("logits", PER_TOKEN),))
    assert not has_sureness((Output("tokens", PER_TOKEN, (384,)),))
