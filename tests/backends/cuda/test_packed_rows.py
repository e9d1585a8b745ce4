"""Packed equals padded: rows of any length, with holes, in any order and company, against transformers."""

from typing import Any, Iterator, List, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_models import EXACT, TASKS, batch_of, encoder_source, farthest, on_cpu, part_of
from tiny_source import TinySource, random_batch

from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import PER_TOKEN, all_finite
from neuronbert.errors import BackendFailed
from neuronbert.tasks.feature_extraction.modules import POOLINGS, SentenceModules

torch = pytest.importorskip("torch", minversion="2.4")
pytest.importorskip("safetensors")

LONGEST = 80


class Model(NamedTuple):
    source: TinySource
    session: Any


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[List[Model]]:
    """Outputs of tokens, and of rows by each pooling."""
    sources = [
        TinySource(),
        TinySource("roberta", TASKS["token-classification"]),
        encoder_source(SentenceModules(POOLINGS)),
    ]
    made = [Model(source, on_cpu(source, tmp_path_factory.mktemp("model"), streams=2)) for source in sources]
    yield made
    for model in made:
        model.session.close()


@st.composite
def padded_batches(draw: Any, most: int = 78) -> Batch:
    """Rows of any lengths, each at the left of its padding."""
    lengths = draw(st.lists(st.one_of(st.integers(0, most), st.sampled_from([0, 1, most])), min_size=1, max_size=7))
    width = max(1, *lengths) + draw(st.integers(0, 3))
    return batch_of(np.arange(width)[None, :] < np.array(lengths)[:, None], draw(st.integers(0, 99)))


@settings(max_examples=40)
@given(batch=padded_batches())
def test_rows_of_any_lengths_agree(models: List[Model], batch: Batch) -> None:
    for source, session in models:
        room = Batch(*(field[:, :78] for field in batch))  # padding beyond the reference's positions is no row's
        found = session.run(room)
        assert farthest(found, source.logits(room), source, room) < EXACT


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), seed=st.integers(0, 99), share=st.floats(0, 0.9))
def test_holes_in_the_mask_agree_for_what_is_seen(
    models: List[Model], lengths: List[int], seed: int, share: float
) -> None:
    """Positions stay those of the columns, as in a padded model."""
    seen = np.arange(max(lengths))[None, :] < np.array(lengths)[:, None]
    seen &= np.random.default_rng(seed).random(seen.shape) >= share
    batch = batch_of(seen, seed)
    for source, session in models[:2]:
        assert farthest(session.run(batch), source.logits(batch), source, batch) < EXACT


@settings(max_examples=30)
@given(batch=padded_batches(), random=st.randoms(use_true_random=False))
def test_a_row_does_not_depend_on_its_neighbours(models: List[Model], batch: Batch, random: Any) -> None:
    """In any order, in groups of any size, and alone."""
    order = list(range(len(batch.input_ids)))
    random.shuffle(order)
    cuts = sorted({0, len(order), *(random.randrange(len(order) + 1) for _ in range(2))})
    for source, session in models:
        together = session.run(batch)
        for begin, end in zip(cuts, cuts[1:]):
            rows = order[begin:end]
            part = part_of(batch, rows)
            expected = {name: array[rows] for name, array in together.items()}
            assert farthest(session.run(part), expected, source, part) < EXACT


@settings(max_examples=20)
@given(batch=padded_batches(), more=st.integers(1, 60))
def test_more_columns_of_padding_change_nothing_at_all(models: List[Model], batch: Batch, more: int) -> None:
    """They are not there: not a bit differs, and what is handed out for them is 0."""
    hidden = batch_of(np.zeros((len(batch.input_ids), more)), seed=more)
    wide = Batch(*(np.concatenate(pair, axis=1) for pair in zip(batch, hidden)))
    for source, session in models:
        if source.family.model_type == "roberta":  # which counts what is hidden, where that is no padding
            wide.input_ids[:, -more:] = 1
        narrow, found = session.run(batch), session.run(wide)
        for output in source.outputs:
            if output.per == PER_TOKEN:
                assert not found[output.name][:, -more:].any()
                np.testing.assert_array_equal(found[output.name][:, :-more], narrow[output.name])
            else:
                kept = batch.attention_mask.any(axis=1)
                np.testing.assert_array_equal(found[output.name][kept], narrow[output.name][kept])


def test_hidden_tokens_of_any_id_change_nothing_at_all(models: List[Model]) -> None:
    batch = random_batch(4, 30, padding=7)
    session = models[0].session
    expected = session.run(batch)["start_logits"]
    batch.input_ids[batch.attention_mask == 0] = 10**9
    np.testing.assert_array_equal(session.run(batch)["start_logits"], expected)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_batch_without_a_token_is_answered(models: List[Model], rows: int) -> None:
    batch = batch_of(np.zeros((rows, 4)))
    for source, session in models:
        found = session.run(batch)
        for output in source.outputs:
            shape = (rows, 4) if output.per == PER_TOKEN else (rows,)
            assert found[output.name].shape[: len(shape)] == shape
            assert output.per != PER_TOKEN or not found[output.name].any()


def test_rows_without_a_token_are_numbers(models: List[Model]) -> None:
    """A device's self-test, or somebody's sum, takes NaN or Inf for a dead one."""
    batch = random_batch(3, 10)
    batch.attention_mask[1] = 0
    for source, session in models:
        for one in (batch, part_of(batch, [1]), part_of(batch, [0, 1])):
            assert all_finite(session.run(one)), source.head.task


def test_a_row_of_all_positions_is_answered_and_a_longer_one_refused(models: List[Model]) -> None:
    for source, session in models:
        longest = 78 if source.family.model_type == "roberta" else 80
        batch = random_batch(2, longest, padding=79)
        assert farthest(session.run(batch), source.logits(batch), source, batch) < EXACT
        with pytest.raises(BackendFailed, match="position 80, and the model has 80"):
            session.run(random_batch(1, longest + 1))
        session.run(batch)
