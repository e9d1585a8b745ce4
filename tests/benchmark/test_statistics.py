"""Intervals against scipy and against simulation; steadiness, the knee, comparison."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.benchmark import statistics
from neuronbert.benchmark.statistics import Estimate, LoadPoint, MeasuredWindow

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


def closed(clients, capacity, alone_ms):
    """Clients that wait for their answers, of a machine that serves so many a second: the asymptotes of its curve."""
    rate = min(clients / alone_ms * 1e3, capacity)
    return LoadPoint(clients, rate, clients / rate * 1e3)


def test_the_knee_is_where_latency_takes_off():
    # The demo on two cores: two clients keep both busy, and more of them only wait.
    batch_1 = [
        LoadPoint(1, 30, 47),
        LoadPoint(2, 60, 92),
        LoadPoint(4, 62, 105),
        LoadPoint(8, 62, 170),
        LoadPoint(16, 62, 304),
    ]
    assert statistics.find_knee(batch_1, least_load=1) == 1
    assert statistics.find_knee([closed(n, 60, 33.3) for n in (1, 2, 4, 8, 16)], least_load=1) == 1


@given(st.integers(1, 6), st.integers(0, 3), st.integers(2, 5))
def test_clients_that_wait_have_their_knee_where_the_machine_becomes_full(full, more, beyond):
    loads = [2**step for step in range(full + more + 1)] + [2 ** (full + more) * beyond]
    curve = [closed(load, capacity=2**full * 20, alone_ms=50) for load in loads]
    assert statistics.find_knee(curve, least_load=1) == full or more == 0


def test_the_knee_of_one_server_is_at_half_of_its_capacity():
    curve = [LoadPoint(rate, rate, 1e3 / (100 - rate)) for rate in range(10, 100, 10)]
    assert curve[statistics.find_knee(curve)].load == 50


@pytest.mark.parametrize(
    ("curve", "least_load"),
    [
        ([], 1),
        ([LoadPoint(1, 30, 30), LoadPoint(16, 31, 500)], 1),  # two loads are no curve
        ([LoadPoint(n, 30 * n, 33) for n in (1, 2, 4)], 1),  # not full yet
        ([LoadPoint(1, 30, 33), LoadPoint(2, 59, 34), LoadPoint(4, 100, 58)], 1),  # it might be at 2 or at 4
        ([LoadPoint(n, 60, 17 * n) for n in (100, 200, 300)], None),  # full from the first
        ([LoadPoint(n, 0, 0) for n in (1, 2, 4)], 1),  # nothing answered
    ],
)
def test_a_curve_without_a_knee_has_none(curve, least_load):
    assert statistics.find_knee(curve, least_load=least_load) is None


def test_one_client_may_be_the_knee():
    assert statistics.find_knee([LoadPoint(n, 60, 17 * n) for n in (1, 2, 4)], least_load=1) == 0


curves = st.lists(
    st.builds(LoadPoint, st.integers(1, 1000), st.floats(1, 1e5), st.floats(0.1, 1e5)),
    min_size=3, max_size=12, unique_by=lambda point: point.load,
)  # fmt: skip


@given(curves, st.sampled_from([None, 1]))
def test_nothing_is_more_powerful_than_the_knee_and_latency_takes_off_after_it(curve, least_load):
    found = statistics.find_knee(curve, least_load=least_load)
    if found is not None:
        assert all(point.power <= curve[found].power for point in curve)
        assert max(curve).power < curve[found].power
        assert curve[found].load > min(curve).load or curve[found].load == least_load


@given(curves, st.sampled_from([0.25, 2.0, 1024.0]), st.sampled_from([0.25, 2.0, 1024.0]), st.randoms())
def test_the_knee_depends_neither_on_units_nor_on_the_order_nor_on_higher_loads(curve, faster, slower, random):
    found = statistics.find_knee(curve, least_load=1)
    scaled = [LoadPoint(load, faster * rate, slower * latency) for load, rate, latency in curve]
    assert statistics.find_knee(scaled, least_load=1) == found
    if found is not None:
        most = max(curve)
        longer = [*curve, LoadPoint(most.load + 1, most.throughput_per_s, 2 * most.latency_ms)]
        random.shuffle(longer)
        assert longer[statistics.find_knee(longer, least_load=1)].power == curve[found].power


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
