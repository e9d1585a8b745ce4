"""The shared figures."""

import math

import numpy as np
import pytest

from neuronbert.errors import InputError
from neuronbert.tasks.scoring import mean_interval


def close(expected):
    return pytest.approx(expected, rel=0, abs=1e-12, nan_ok=True)


def test_the_interval_holds_the_mean_and_narrows_with_more_scores():
    few = [0, 100] * 20
    low, high = mean_interval(few, range(40))
    assert 0 < low < 50 < high < 100
    lower, higher = mean_interval(few * 25, range(1000))
    assert higher - lower < (high - low) / 3
    # Binomial: 1.96 * 50 / sqrt(40) on each side.
    assert high - low == pytest.approx(2 * 1.96 * 50 / math.sqrt(40), rel=0.15)


def test_the_interval_widens_when_scores_share_a_group():
    scores = [0] * 100 + [100] * 100
    low, high = mean_interval(scores, range(200))
    together_low, together_high = mean_interval(scores, [index // 10 for index in range(200)])
    assert together_high - together_low > 2 * (high - low)


def test_the_interval_is_the_same_every_time():
    assert mean_interval([1, 2, 5, 9], "abcd") == mean_interval([1, 2, 5, 9], "wxyz") == mean_interval([1, 2, 5, 9])
    assert mean_interval([7.0, 7.0], ["p", "p"]) == (7.0, 7.0)
    assert mean_interval(range(50), seed=1) != mean_interval(range(50), seed=2)


def test_the_interval_does_not_depend_on_how_many_are_drawn_at_a_time():
    random = np.random.default_rng(0)
    scores, groups = random.random(3000), random.permutation(np.arange(3000) % 700)
    sums = np.array([scores[groups == group].sum() for group in dict.fromkeys(groups)])
    counts = np.array([(groups == group).sum() for group in dict.fromkeys(groups)])
    drawn = np.random.default_rng(5).integers(700, size=(2000, 700))  # more than one block
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = mean_interval(scores, groups, confidence=0.9, seed=5)
    assert (low, high) == (close(np.percentile(means, 5)), close(np.percentile(means, 95)))


def test_scores_without_an_interval_are_refused():
    with pytest.raises(InputError, match="^2 scores for 1 group\n"):
        mean_interval([1, 2], ["a"])
    for groups in (None, []):
        with pytest.raises(InputError, match="nothing to score: 0 scores"):
            mean_interval([], groups)
