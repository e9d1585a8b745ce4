"""The four similarities, against scipy's distances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.tasks.feature_extraction.modules import SIMILARITIES
from neuronbert.tasks.feature_extraction.similarity import pair_similarities, similarities

distance = pytest.importorskip("scipy.spatial.distance")
METRICS = {"euclidean": "euclidean", "manhattan": "cityblock"}


@given(name=st.sampled_from(SIMILARITIES), rows=st.integers(1, 5), others=st.integers(1, 5), seed=st.integers(0, 99))
def test_all_and_pairs_are_scipys(name: str, rows: int, others: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = (random.normal(size=(count, 7)).astype(np.float32) for count in (rows, others))
    if name == "dot":
        expected = a.astype(np.float64) @ b.T.astype(np.float64)
    elif name == "cosine":
        expected = 1 - distance.cdist(a, b, "cosine")
    else:
        expected = -distance.cdist(a, b, METRICS[name])
    found = similarities(name, a, b)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    fewer = min(rows, others)
    np.testing.assert_allclose(
        pair_similarities(name, a[:fewer], b[:fewer]), np.diag(found)[:fewer], rtol=1e-5, atol=1e-6
    )


def test_close_embeddings_keep_their_distance() -> None:
    """In float32 the difference of their products would be noise."""
    a = np.full((1, 384), 0.05, np.float32)
    b = a.copy()
    b[0, 0] += np.float32(1e-4)
    np.testing.assert_allclose(similarities("euclidean", a, b), [[-1e-4]], rtol=1e-2)
