"""Embeddings of outputs: pooled, cut, normalised, and as JSON and text."""

import json
from typing import Any, Dict, List

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import UsageError
from neuronbert.tasks.feature_extraction.inputs import Example
from neuronbert.tasks.feature_extraction.modules import NORMALIZE, SentenceModules
from neuronbert.tasks.feature_extraction.options import EmbeddingOptions
from neuronbert.tasks.feature_extraction.results import decode, document, result_text
from neuronbert.tasks.feature_extraction.task import call_result
from neuronbert.tasks.rows import TextRow

EMBEDDING = np.array([3.0, 0.0, 4.0, 12.0], np.float32)


def example_of(tokens: List[int], unpooled: int = 0, truncated: bool = False, **modules: Any) -> Example:
    rows = [TextRow(np.zeros(count, np.int64), np.zeros(count, np.int64)) for count in tokens]
    return Example(rows, truncated, unpooled, SentenceModules(**modules))


def embedding_of(example: Example, *outputs: Dict[str, np.ndarray], **options: Any) -> Any:
    return decode(example, outputs, EmbeddingOptions(**options))["embedding"]


def test_an_embedding_is_the_models_own() -> None:
    result = decode(example_of([3]), [{"sentence_embedding": EMBEDDING}], EmbeddingOptions())
    assert list(result) == ["embedding"] and result["embedding"].dtype == np.float32
    np.testing.assert_array_equal(result["embedding"], EMBEDDING)
    assert call_result(result) is result


def test_a_cut_text_is_said_to_be_that() -> None:
    result = decode(example_of([3], truncated=True), [{"sentence_embedding": EMBEDDING}], EmbeddingOptions())
    assert result["truncated"] is True
    assert document(result, EmbeddingOptions()) == {"embedding": EMBEDDING.tolist(), "truncated": True}
    assert result_text(result).endswith("(truncated: the text is longer than the model reads)")


def test_length_1_comes_after_the_first_numbers() -> None:
    row = {"sentence_embedding": EMBEDDING}
    np.testing.assert_allclose(embedding_of(example_of([3]), row, truncate_dim=3, normalize=True), [0.6, 0, 0.8])
    np.testing.assert_allclose(embedding_of(example_of([3], truncate_dim=2), row), [3, 0])
    np.testing.assert_allclose(embedding_of(example_of([3], truncate_dim=2), row, truncate_dim=3), [3, 0, 4])
    assert embedding_of(example_of([3]), row, truncate_dim=99).shape == (4,)


def test_rows_of_a_long_text_are_one_embedding() -> None:
    rows = [{"sentence_embedding": EMBEDDING}, {"sentence_embedding": -EMBEDDING}]
    np.testing.assert_allclose(embedding_of(example_of([6, 2]), *rows), EMBEDDING / 2)
    normalized = embedding_of(example_of([6, 2], layers=(NORMALIZE,)), *rows)
    np.testing.assert_allclose(normalized, EMBEDDING / 13, rtol=1e-6)


def test_a_prompt_that_does_not_count_is_left_out_of_the_tokens() -> None:
    tokens = np.arange(8, dtype=np.float32).reshape(4, 2)
    row = {"sentence_embedding": EMBEDDING[:2], "token_embeddings": tokens}
    modules = {"include_prompt": False, "pooling": ("mean",)}
    np.testing.assert_allclose(embedding_of(example_of([4], 2, **modules), row), tokens[2:].mean(axis=0))
    np.testing.assert_allclose(embedding_of(example_of([4], 0, **modules), row), EMBEDDING[:2])


def test_tokens_embeddings_stay_as_they_are() -> None:
    tokens = np.arange(6, dtype=np.float32).reshape(3, 2)
    example = example_of([3], pooling=())
    result = decode(example, [{"token_embeddings": tokens}], EmbeddingOptions())
    np.testing.assert_array_equal(result["token_embeddings"], tokens)
    assert document(result, EmbeddingOptions()) == {"token_embeddings": [[0, 1], [2, 3], [4, 5]]}
    assert result_text(result) == "0 1\n2 3\n4 5"
    for options in ({"normalize": True}, {"truncate_dim": 1}):
        with pytest.raises(UsageError, match="one for each token"):
            decode(example, [{"token_embeddings": tokens}], EmbeddingOptions(**options))


def test_json_needs_no_more_digits_than_float32_has() -> None:
    embedding = np.random.default_rng(0).normal(size=384).astype(np.float32)
    embedding /= np.linalg.norm(embedding)
    assert len(json.dumps(document({"embedding": embedding}, EmbeddingOptions()))) < 384 * 15


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_json_has_every_number_as_it_was(numbers: List[float]) -> None:
    embedding = np.array(numbers, np.float32)
    written = json.loads(json.dumps(document({"embedding": embedding}, EmbeddingOptions())))
    np.testing.assert_array_equal(np.array(written["embedding"], np.float32), embedding)
