"""How alike two embeddings are, by the four measures of sentence-transformers: a distance counts below zero. Pure."""

from typing import Callable, Dict

import numpy as np

from neuronbert.tasks.feature_extraction.pooling import normalized


def _euclidean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # Not by their products: of close embeddings, the difference of large numbers would be left.
    return np.stack([-np.sqrt(((b - row) ** 2).sum(axis=-1)) for row in a])


def _manhattan(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([-np.abs(b - row).sum(axis=-1) for row in a])


_OF_ALL: Dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": lambda a, b: normalized(a) @ normalized(b).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}
_OF_PAIRS: Dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": lambda a, b: (normalized(a) * normalized(b)).sum(axis=-1),
    "dot": lambda a, b: (a * b).sum(axis=-1),
    "euclidean": lambda a, b: -np.sqrt(((a - b) ** 2).sum(axis=-1)),
    "manhattan": lambda a, b: -np.abs(a - b).sum(axis=-1),
}


def similarities(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Every embedding of ``a`` [n, width] with every one of ``b`` [m, width], by the measure ``name``: [n, m]."""
    return _OF_ALL[name](a, b)


def pair_similarities(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Each embedding of ``a`` [n, width] with the one of ``b`` in the same place: [n]."""
    return _OF_PAIRS[name](a, b)
