"""Figures that the evaluations of several tasks share; beside it, question_answering/metrics.py has SQuAD's own.

Pure: labels or numbers in, plain numbers out.
"""

from typing import Dict, Hashable, List, Optional, Sequence, Sized, Tuple, Union

import numpy as np

from neuronbert.errors import InputError, counted

Labels = Union[Sequence[Hashable], np.ndarray]  # [texts]: names or numbers
Numbers = Union[Sequence[float], np.ndarray]  # [texts]

# Scores drawn at a time by mean_interval: 8 MB of each array, however many scores there are.
_DRAWN_TOGETHER = 1_000_000


def mean_interval(
    scores: Numbers,
    groups: Optional[Labels] = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Tuple[float, float]:
    """Bootstrap percentile interval of the mean of ``scores``, [texts], in their unit; the same for the same seed.

    Whole ``groups`` are drawn, [texts] names: questions on one paragraph succeed and fail together, so drawing them one
    by one would make the interval too narrow. None: each score is a group. A single group, or equal scores, have an
    interval without width. InputError for different lengths and for no scores.
    """
    _refuse_unpaired(scores, scores if groups is None else groups, "score", "group")
    numbers: Dict[Hashable, int] = {}
    names = range(len(scores)) if groups is None else groups
    group = [numbers.setdefault(name, len(numbers)) for name in names]
    sums = np.bincount(group, weights=np.asarray(scores, dtype=np.float64))
    counts = np.bincount(group)
    random = np.random.default_rng(seed)
    means: List[np.ndarray] = []
    at_a_time = max(1, _DRAWN_TOGETHER // len(sums))
    for first in range(0, resamples, at_a_time):
        drawn = random.integers(len(sums), size=(min(at_a_time, resamples - first), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return float(low), float(high)


def _refuse_unpaired(first: Sized, second: Sized, noun: str, other: str) -> None:
    """InputError unless there are as many of both, and some."""
    if len(first) != len(second):
        raise InputError(f"{counted(len(first), noun)} for {counted(len(second), other)}", hint="give one for each")
    if not len(first):
        raise InputError(f"there is nothing to score: {counted(0, noun)}", hint="give at least one")
