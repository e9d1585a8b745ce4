"""Rows joined end to end and cut apart again, as properties of any batch; and ids that no table has."""

from typing import Any, List, NamedTuple, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packed_models import GRAPH, batch_of, part_of

from neuronbert.backends.base import Batch
from neuronbert.backends.cuda.packing import (
    LONGEST_STEPS,
    ROW_STEPS,
    TOKEN_STEPS,
    Packed,
    grown,
    halves,
    next_step,
    pack,
    unpacked,
)
from neuronbert.backends.outputs import PER_ROW, PER_TOKEN, Output
from neuronbert.errors import BackendFailed

ROBERTA = GRAPH._replace(skips_padding_id=True, padding_id=3, positions=20, token_types=0)


@st.composite
def masks(draw: Any, rows: int = 6, tokens: int = GRAPH.positions) -> np.ndarray:
    """Masks with holes, rows that end early, and rows without any token; no rows at all, too."""
    shape = draw(st.integers(0, rows)), draw(st.integers(1, tokens))
    lengths = draw(st.lists(st.integers(0, shape[1]), min_size=shape[0], max_size=shape[0]))
    holes = np.random.default_rng(draw(st.integers(0, 99))).random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    found: np.ndarray = (np.arange(shape[1])[None, :] < np.array(lengths, dtype=int)[:, None]) & ~holes
    return found


BATCHES = st.builds(batch_of, masks(), st.integers(0, 9), st.just(GRAPH.vocabulary))


class Token(NamedTuple):
    """All that is said of one."""

    number: int
    position: int
    kind: int
    place: int
    row: int


def tokens_of(batch: Batch, positions: List[List[int]], with_types: bool) -> List[List[Token]]:
    """Each row's, one after another."""
    rows = []
    for row, seen in enumerate(batch.attention_mask):
        columns = [column for column, shown in enumerate(seen) if shown]
        kinds = batch.token_type_ids[row] if with_types else np.zeros(len(seen), dtype=int)
        rows.append(
            [
                Token(int(batch.input_ids[row, column]), positions[row][column], int(kinds[column]), place, row)
                for place, column in enumerate(columns)
            ]
        )
    return rows


def assert_says(packed: Packed, rows: List[List[Token]]) -> None:
    assert list(map(Token._make, zip(*(field.tolist() for field in packed[:5])))) == [
        one for row in rows for one in row
    ]
    assert packed.starts.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
    assert packed.longest == max(map(len, rows), default=0)
    assert (packed.tokens, packed.row_count) == (sum(map(len, rows)), len(rows))
    for field in packed[:6]:
        assert field.dtype == np.int32 and field.flags.c_contiguous


@given(BATCHES)
def test_what_is_packed_is_what_the_mask_shows(batch: Batch) -> None:
    columns = [list(range(batch.input_ids.shape[1]))] * len(batch.input_ids)
    assert_says(pack(batch, GRAPH), tokens_of(batch, columns, with_types=True))


@given(BATCHES)
def test_roberta_counts_what_is_not_padding_from_behind_its_id(batch: Batch) -> None:
    positions = []
    for ids in batch.input_ids.tolist():
        real = [number != ROBERTA.padding_id for number in ids]
        positions.append([3 + sum(real[: column + 1]) if real[column] else 3 for column in range(len(ids))])
    assert_says(pack(batch, ROBERTA), tokens_of(batch, positions, with_types=False))


@given(BATCHES, st.integers(0, 40), st.integers(0, 5))
def test_a_grown_batch_is_the_same_with_one_more_row_at_its_end(batch: Batch, more: int, empty: int) -> None:
    packed = pack(batch, GRAPH)
    large = grown(packed, packed.tokens + more, packed.row_count + empty)
    assert (large.tokens, large.row_count) == (packed.tokens + more, packed.row_count + empty + 1)
    for before, after in zip(packed[:6], large[:6]):
        np.testing.assert_array_equal(after[: len(before)], before)
        assert after.dtype == np.int32
    lengths = np.diff(large.starts)
    assert lengths.min() >= 0 and large.starts[-1] == large.tokens and lengths[-1] == more
    assert large.longest == lengths.max()
    np.testing.assert_array_equal(large.rows, np.repeat(np.arange(large.row_count), lengths))
    np.testing.assert_array_equal(large.places, np.concatenate([np.arange(length) for length in lengths]))
    for table, count in ((large.ids, GRAPH.vocabulary), (large.positions, GRAPH.positions), (large.types, 2)):
        assert not len(table) or 0 <= table.min() <= table.max() < count


@given(BATCHES, st.integers(0, 7), st.integers(0, 3))
def test_outputs_come_back_where_their_tokens_and_rows_were(batch: Batch, more: int, empty: int) -> None:
    """From a grown batch too: what was added is not handed out."""
    packed = pack(batch, GRAPH)
    large = grown(packed, packed.tokens + more, packed.row_count + empty)
    of_rows = np.stack((np.arange(large.row_count), -np.arange(large.row_count)), axis=1).astype(np.float32)
    of_tokens = (large.ids + 1).astype(np.float32)
    outputs = (Output("rows", PER_ROW), Output("ids", PER_TOKEN), Output("pairs", PER_TOKEN, (2,)))
    found = unpacked((of_rows, of_tokens, np.stack((of_tokens, -of_tokens), axis=1)), outputs, batch)
    expected = (batch.input_ids + 1) * batch.attention_mask
    np.testing.assert_array_equal(found["rows"], of_rows[: len(expected)])
    np.testing.assert_array_equal(found["ids"], expected)
    np.testing.assert_array_equal(found["pairs"], np.stack((expected, -expected), axis=2))
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}


@given(BATCHES.filter(lambda batch: len(batch.input_ids) > 1))
def test_halves_are_the_rows_in_order_without_columns_that_nobody_sees(batch: Batch) -> None:
    first, second = halves(batch)
    count = len(batch.input_ids)
    assert (len(first.input_ids), len(second.input_ids)) == ((count + 1) // 2, count // 2)
    for half, rows in ((first, slice(0, len(first.input_ids))), (second, slice(len(first.input_ids), None))):
        width = half.input_ids.shape[1]
        for field, whole in zip(half, part_of(batch, rows)):
            np.testing.assert_array_equal(field, whole[:, :width])
        assert not batch.attention_mask[rows, width:].any()
        assert width == 1 or half.attention_mask[:, -1].any()


@given(st.sampled_from([TOKEN_STEPS, ROW_STEPS, LONGEST_STEPS]), st.data())
def test_the_next_step_is_the_least_that_holds_it(steps: Tuple[int, ...], data: Any) -> None:
    value = data.draw(st.integers(0, steps[-1]))
    assert next_step(value, steps) == min(step for step in steps if step >= value)


def test_steps_ascend_and_the_longest_row_of_any_recorded_batch_has_one() -> None:
    for steps in (TOKEN_STEPS, ROW_STEPS, LONGEST_STEPS):
        assert list(steps) == sorted(set(steps))
    assert LONGEST_STEPS[-1] == TOKEN_STEPS[-1]


def with_value(name: str, value: int, row: int = 1, column: int = 2) -> Batch:
    batch = batch_of(np.ones((3, 5)), vocabulary=GRAPH.vocabulary)
    getattr(batch, name)[row, column] = value
    return batch


@pytest.mark.parametrize("value", [50, -1, 1 << 31, 1 << 32, -(1 << 32), (1 << 63) - 1, -(1 << 63)])
def test_an_id_that_the_vocabulary_has_not_is_named(value: int) -> None:
    """Beyond 32 bits too, where its lowest ones would be an id."""
    with pytest.raises(BackendFailed, match=f"token id {value}, and the model has 50"):
        pack(with_value("input_ids", value), GRAPH)


@pytest.mark.parametrize("value", [2, -1, 1 << 32])
def test_so_is_a_type(value: int) -> None:
    with pytest.raises(BackendFailed, match=f"token type {value}, and the model has 2"):
        pack(with_value("token_type_ids", value), GRAPH)
    pack(with_value("token_type_ids", value), ROBERTA)  # which is told none


def test_so_is_a_position() -> None:
    pack(batch_of(np.ones((2, 12)), vocabulary=50), GRAPH)
    with pytest.raises(BackendFailed, match="position 12, and the model has 12"):
        pack(batch_of(np.ones((2, 13)), vocabulary=50), GRAPH)
    longest = np.full((1, 16), 7)
    pack(Batch(longest, np.ones_like(longest), longest), ROBERTA)
    longest = np.full((1, 17), 7)
    with pytest.raises(BackendFailed, match="position 20, and the model has 20"):
        pack(Batch(longest, np.ones_like(longest), longest), ROBERTA)


def test_what_the_mask_hides_is_not_looked_at() -> None:
    batch = with_value("input_ids", 1 << 40)
    batch.token_type_ids[1, 2] = -7
    batch.attention_mask[1, 2] = 0
    assert pack(batch, GRAPH).tokens == 14
    hidden = batch_of(np.zeros((2, 400)), vocabulary=50)  # more columns than positions
    assert pack(hidden, GRAPH).tokens == 0
