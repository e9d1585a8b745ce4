"""Intervals against scipy and against simulation; steadiness, the knee, comparison."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.benchmark import statistics
from neuronbert.benchmark.statistics import Estimate, MeasuredWindow

samples = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300)


@pytest.mark.parametrize("count", [1, 5, 40, 200, 1000, 30_000])
@pytest.mark.parametrize("percent", [50, 90, 95, 99])
def test_the_ranks_are_those_of_the_binomial(count, percent):
    binom = pytest.importorskip("scipy.stats").binom
    low, high = statistics._ranks(count, percent / 100)
    assert low == int(binom.ppf(0.025, count, percent / 100)) - 1
    assert high == int(binom.ppf(0.975, count, percent / 100))


@pytest.mark.parametrize("percent", [50, 95])
def test_the_interval_holds_the_true_percentile_as_often_as_it_says(percent):
    random = np.random.default_rng(0)
    true = np.log(1 / (1 - percent / 100))
    held = 0
    for _ in range(2000):
        found = statistics.percentile(random.exponential(size=200), percent)
        held += found.low <= true <= found.high
    assert 0.94 <= held / 2000 <= 0.985


@given(samples, st.floats(1, 99))
def test_the_value_is_numpys_and_lies_in_its_interval(values, percent):
    found = statistics.percentile(values, percent)
    assert found.value == np.percentile(values, percent)
    assert found.low <= found.value <= found.high


def test_too_few_samples_have_no_upper_end_and_none_no_value():
    assert statistics.percentile([1.0, 2.0], 95).high == math.inf
    assert math.isnan(statistics.percentile([], 50).value)


@pytest.mark.parametrize("count, given_out", [(999, False), (1000, True)])
def test_p99_is_refused_below_a_thousand_samples(count, given_out):
    found = statistics.latency_percentiles(list(range(count)))
    assert (found[99] is not None) == given_out and found[95] is not None
    assert set(statistics.latency_percentiles([]).values()) == {None}


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 6, 10, 40, 1000])
def test_students_quantile(freedom):
    t = pytest.importorskip("scipy.stats").t
    assert statistics._student(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=0.01)


def test_the_mean_of_one_value_is_anything_and_of_equal_ones_certain():
    assert statistics.mean([3.0]) == Estimate(3.0, -math.inf, math.inf)
    assert statistics.mean([3.0] * 5) == Estimate(3.0, 3.0, 3.0)
    assert math.isnan(statistics.mean([]).value)


def test_a_run_is_steady_from_the_first_three_alike():
    rising = [
        MeasuredWindow(10, 5),
        MeasuredWindow(50, 5),
        MeasuredWindow(100, 5),
        MeasuredWindow(101, 5),
        MeasuredWindow(99, 5.2),
        MeasuredWindow(100, 5),
    ]
    assert statistics.steady_from(rising) == 2


@pytest.mark.parametrize(
    "windows",
    [[], [MeasuredWindow(1, 1)] * 2, [MeasuredWindow(0, 1)] * 5, [MeasuredWindow(100 * 1.2**k, 5) for k in range(9)],
     [MeasuredWindow(100, 5 * 1.2**k) for k in range(9)]],
)  # fmt: skip
def test_a_run_that_never_settles_says_so(windows):
    assert statistics.steady_from(windows) is None


def test_the_knee_is_the_smallest_batch_near_the_plateau():
    assert statistics.find_knee({1: 300, 2: 540, 4: 900, 6: 1165, 8: 1157, 12: 990}) == 6
    assert statistics.find_knee({1: 100, 2: 104, 4: 105}) == 1
    assert statistics.find_knee({}) is None


@given(st.dictionaries(st.integers(1, 64), st.floats(1, 1e5), min_size=1))
def test_no_smaller_batch_than_the_knee_is_near_the_plateau(rates):
    found = statistics.find_knee(rates)
    best = max(rates.values())
    assert rates[found] >= 0.95 * best
    assert all(rate < 0.95 * best for size, rate in rates.items() if size < found)


@pytest.mark.parametrize(
    "after, more_is_better, verdict",
    [((90, 85, 95), True, "same"), ((80, 75, 89), True, "slower"), ((120, 112, 130), True, "faster"),
     ((120, 112, 130), False, "slower"), ((80, 75, 89), False, "faster"), ((80, -math.inf, math.inf), True, "same")],
)  # fmt: skip
def test_a_difference_counts_when_the_intervals_are_apart(after, more_is_better, verdict):
    before = Estimate(100, 90, 110)
    found = statistics.compare("p", "throughput_avg", before, Estimate(*after), more_is_better=more_is_better)
    assert found.verdict == verdict and found.ratio == pytest.approx(after[0] / 100)
    assert statistics.slower([found]) == ([found] if verdict == "slower" else [])


def test_two_runs_of_the_same_thing_are_rarely_called_different():
    random = np.random.default_rng(1)
    verdicts = [
        statistics.compare("p", "latency_ms_p95", *(statistics.percentile(random.exponential(size=500), 95)
                           for _ in range(2)), more_is_better=False).verdict
        for _ in range(300)
    ]  # fmt: skip
    assert verdicts.count("slower") <= 6
