"""Poolings in the graph and outside it, against each other and against what their names say, written out."""

from typing import Any, List

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.tasks.feature_extraction.modules import NORMALIZE, POOLINGS, Dense, SentenceModules
from neuronbert.tasks.feature_extraction.pooling import normalized, pooled, together

torch = pytest.importorskip("torch")
HIDDEN = 5
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def hidden_states(lengths: List[int]) -> Any:
    """Hidden states [rows, tokens, HIDDEN] whose padding is anything, and the mask."""
    random = np.random.default_rng(sum(lengths) + len(lengths))
    hidden = random.normal(0, 3, (len(lengths), max(lengths), HIDDEN)).astype(np.float32)
    mask = np.array([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    return hidden, mask


def by_hand(mode: str, tokens: np.ndarray) -> np.ndarray:
    """What the mode's name says, of the token embeddings of one text."""
    count = len(tokens)
    if mode == "cls":
        return tokens[0]
    if mode == "lasttoken":
        return tokens[-1]
    if mode == "max":
        return np.array([max(column) for column in tokens.T])
    if mode == "mean":
        return np.sum(tokens, axis=0) / count
    if mode == "mean_sqrt_len":
        return np.sum(tokens, axis=0) / count**0.5
    weighted: np.ndarray = sum(place * token for place, token in enumerate(tokens, 1)) / sum(range(1, count + 1))
    return weighted


def in_the_graph(modules: SentenceModules, hidden: np.ndarray, mask: np.ndarray) -> List[np.ndarray]:
    from neuronbert.tasks.feature_extraction import graph

    class Encoder(torch.nn.Module):  # type: ignore[misc,name-defined]
        config = None

    model = graph.SentenceModel(Encoder(), "bert", modules)
    with torch.no_grad():
        found = graph.outputs_of(model, torch.from_numpy(hidden), torch.from_numpy(mask))
    return [array.numpy() for array in found]


@given(lengths=LENGTHS, mode=st.sampled_from(POOLINGS))
def test_each_pooling_is_what_its_name_says_wherever_it_is_done(lengths: List[int], mode: str) -> None:
    hidden, mask = hidden_states(lengths)
    modules = SentenceModules((mode,))
    (found,) = in_the_graph(modules, hidden, mask)
    for row, length in enumerate(lengths):
        expected = by_hand(mode, hidden[row, :length])
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(pooled(modules, hidden[row, :length], 0), expected, rtol=1e-4, atol=1e-5)


@given(lengths=LENGTHS, modes=st.lists(st.sampled_from(POOLINGS), min_size=1, unique=True))
def test_several_poolings_lie_side_by_side_in_their_order(lengths: List[int], modes: List[str]) -> None:
    hidden, mask = hidden_states(lengths)
    (found,) = in_the_graph(SentenceModules(tuple(modes)), hidden, mask)
    parts = [in_the_graph(SentenceModules((mode,)), hidden, mask)[0] for mode in modes]
    np.testing.assert_array_equal(found, np.concatenate(parts, axis=1))


def test_without_a_pooling_the_tokens_stay_as_they_are() -> None:
    hidden, mask = hidden_states([3, 2])
    (found,) = in_the_graph(SentenceModules(()), hidden, mask)
    np.testing.assert_array_equal(found, hidden)


def test_layers_come_in_their_order() -> None:
    hidden, mask = hidden_states([3, 2])
    dense = Dense("2_Dense", HIDDEN, 3, True, "tanh", False)
    (last,) = in_the_graph(SentenceModules(("mean",), layers=(dense, NORMALIZE)), hidden, mask)
    np.testing.assert_allclose(np.linalg.norm(last, axis=1), 1, rtol=1e-5)
    (first,) = in_the_graph(SentenceModules(("mean",), layers=(NORMALIZE, dense)), hidden, mask)
    assert (np.abs(first) < 1).all() and not np.allclose(np.linalg.norm(first, axis=1), 1)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("outputs", [HIDDEN, 3])
def test_a_dense_layer_adds_its_input_where_it_says_so(outputs: int, residual: bool) -> None:
    from neuronbert.tasks.feature_extraction.graph import DenseLayer

    layer = DenseLayer(Dense("2_Dense", HIDDEN, outputs, True, "relu", residual))
    given = torch.randn(2, HIDDEN)
    expected = torch.relu(given @ layer.linear.weight.T + layer.linear.bias)
    if residual:
        expected = expected + (given if outputs == HIDDEN else given @ layer.residual.weight.T)
    assert torch.allclose(layer(given), expected, atol=1e-6)


@given(length=st.integers(2, 9), skipped=st.integers(1, 9), mode=st.sampled_from(POOLINGS))
def test_a_prompt_that_does_not_count(length: int, skipped: int, mode: str) -> None:
    hidden, _ = hidden_states([length])
    found = pooled(SentenceModules((mode,), include_prompt=False), hidden[0], skipped)
    first = skipped if skipped < length else 0
    tokens = hidden[0, first:]
    expected = by_hand(mode, tokens)
    if mode == "weightedmean":  # the places are those in the row
        places = np.arange(first + 1, length + 1)
        expected = (places[:, None] * tokens).sum(axis=0) / places.sum()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_both_outputs_where_a_prompt_may_not_count() -> None:
    hidden, mask = hidden_states([4, 2])
    modules = SentenceModules(("mean",), include_prompt=False, layers=(NORMALIZE,))
    embedding, tokens = in_the_graph(modules, hidden, mask)
    np.testing.assert_array_equal(tokens, hidden)
    np.testing.assert_allclose(embedding[0], pooled(modules, tokens[0], 0), rtol=1e-5)


# ---- put together


def test_an_embedding_of_zeros_has_no_direction() -> None:
    np.testing.assert_array_equal(normalized(np.zeros((2, 3), np.float32)), np.zeros((2, 3)))
    assert normalized(np.ones((2, 3), np.float32)).dtype == np.float32


def test_the_rows_of_a_text_count_by_their_tokens() -> None:
    rows = [np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)]
    np.testing.assert_allclose(together(rows, [3, 1], SentenceModules()), [0.75, 0.25])
    found = together(rows, [3, 1], SentenceModules(layers=(NORMALIZE,)))
    np.testing.assert_allclose(found, np.array([3, 1]) / np.sqrt(10), rtol=1e-6)
    assert found.dtype == np.float32
