"""Poolings of a row's token embeddings outside the graph, for prompts that do not count; and embeddings put together.

The same as graph.py, in numpy, for one row without padding. Pure.
"""

from typing import Callable, Dict, Sequence

import numpy as np

from neuronbert.tasks.feature_extraction.modules import NORMALIZE, SentenceModules

_LEAST_LENGTH = 1e-12


def pooled(modules: SentenceModules, tokens: np.ndarray, skipped: int) -> np.ndarray:
    """The embedding, float32 [width], of token embeddings [tokens, hidden]; the first ``skipped`` do not count.

    ``modules`` has no dense layers. A row whose tokens are all left out counts whole.
    """
    first = skipped if skipped < len(tokens) else 0
    counted = tokens[first:]
    parts = [_POOLINGS[mode](counted, first) for mode in modules.pooling]
    embedding: np.ndarray = np.concatenate(parts).astype(np.float32)
    return normalized(embedding) if NORMALIZE in modules.layers else embedding


def _weighted_mean(counted: np.ndarray, first: int) -> np.ndarray:
    places = np.arange(first + 1, first + len(counted) + 1, dtype=np.float32)
    mean: np.ndarray = places @ counted / places.sum()
    return mean


# (the tokens that count, the place of the first) → [hidden]
_POOLINGS: Dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "cls": lambda counted, first: counted[0],
    "max": lambda counted, first: counted.max(axis=0),
    "mean": lambda counted, first: counted.mean(axis=0),
    "mean_sqrt_len": lambda counted, first: counted.sum(axis=0) / np.sqrt(np.float32(len(counted))),
    "weightedmean": _weighted_mean,
    "lasttoken": lambda counted, first: counted[-1],
}


def normalized(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings [..., width] of length 1; one of zeros stays as it is."""
    lengths = np.sqrt((embeddings * embeddings).sum(axis=-1, keepdims=True))
    scaled: np.ndarray = embeddings / np.maximum(lengths, np.float32(_LEAST_LENGTH))
    return scaled


def together(embeddings: Sequence[np.ndarray], tokens: Sequence[int], modules: SentenceModules) -> np.ndarray:
    """One embedding [width] of those of a text's rows: their mean, each as heavy as it has ``tokens``."""
    mean = np.average(np.stack(embeddings), axis=0, weights=np.array(tokens, dtype=np.float64)).astype(np.float32)
    return normalized(mean) if modules.normalizes else mean
