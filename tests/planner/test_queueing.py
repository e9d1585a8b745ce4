"""The recursion over batches: against queueing theory, and the rule by which batches leave."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import UsageError
from neuronbert.hardware.closed_loop import HostWaits
from neuronbert.planner.queueing import Service, poisson_arrivals, schedule, settled, under_load

services = st.builds(
    Service,
    groups=st.integers(1, 5),
    batch_size=st.integers(1, 6),
    bottleneck_s=st.just(0.01),
    service_s=st.sampled_from([0.01, 0.02, 0.035]),
    in_flight=st.integers(1, 4),
    parallel=st.integers(1, 3),
    max_wait_s=st.sampled_from([0.0, 0.003, 0.02]),
)
arrivals = st.lists(st.floats(0, 0.5), min_size=1, max_size=60).map(sorted)


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_one_server_waits_as_pollaczek_and_khinchine_say(utilisation):
    service = Service(1, 1, 0.01, 0.01)
    found = schedule(service, poisson_arrivals(utilisation / 0.01, 200_000)).latencies_s.mean()
    assert found == pytest.approx(0.01 + utilisation * 0.01 / (2 * (1 - utilisation)), rel=0.03)


def test_a_lone_request_takes_the_service_time_and_waits_for_nobody():
    assert schedule(Service(4, 6, 0.02, 0.02), [1.0]).latencies_s.tolist() == pytest.approx([0.02])


def test_what_waited_while_the_group_was_busy_leaves_together():
    result = schedule(Service(1, 4, 0.01, 0.01), [0.0, 0.001, 0.002, 0.003])
    assert result.rows.tolist() == [1, 3]
    assert result.latencies_s.tolist() == pytest.approx([0.01, 0.019, 0.018, 0.017])


def test_a_full_batch_takes_the_second_place_of_a_busy_group_at_once():
    result = schedule(Service(1, 2, 0.01, 0.01, in_flight=2, max_wait_s=1.0), [0.0, 0.001, 0.002])
    assert result.rows.tolist() == [1, 2]
    assert result.latencies_s.tolist() == pytest.approx([0.01, 0.019, 0.018])


def test_a_batch_that_does_not_fill_takes_it_when_its_oldest_has_waited():
    result = schedule(Service(1, 9, 0.01, 0.01, in_flight=2, max_wait_s=0.004), [0.0, 0.001, 0.0049, 0.0051])
    assert result.rows.tolist() == [1, 2, 1]


def test_a_pipeline_with_an_empty_stage_does_not_let_a_batch_fill():
    moments = [0.0, 0.001, 0.002, 0.003]
    assert schedule(Service(1, 4, 0.01, 0.02, 2, 2, 1.0), moments).rows.tolist() == [1, 1, 2]
    assert schedule(Service(1, 4, 0.01, 0.02, 2, 1, 1.0), moments).rows.tolist() == [1, 3]


def test_a_pipeline_takes_a_batch_whenever_its_first_stage_is_free():
    result = schedule(Service(1, 1, 0.01, 0.04, in_flight=4), [0.0, 0.0, 0.0])
    assert result.latencies_s.tolist() == pytest.approx([0.04, 0.05, 0.06])


@given(services, arrivals)
def test_every_request_is_served_once_in_order_and_never_faster_than_alone(service, moments):
    result = schedule(service, moments)
    assert result.rows.sum() == len(moments) and result.rows.min() >= 1 and result.rows.max() <= service.batch_size
    assert (result.latencies_s >= service.service_s - 1e-12).all()
    ends = np.asarray(moments) + result.latencies_s
    assert (np.diff(ends) >= -1e-12).all()


@given(services, arrivals)
def test_no_group_holds_more_than_it_may(service, moments):
    result = schedule(service, moments)
    ends = (np.asarray(moments) + result.latencies_s)[np.cumsum(result.rows) - 1]
    held = service.groups * service.in_flight
    assert (ends[held:] >= ends[:-held] + service.bottleneck_s - 1e-12).all()


def test_under_load_waits_more_the_fuller_it_is():
    service = Service(4, 6, 0.02, 0.02, 2)
    p95 = [under_load(service, share * service.capacity_per_s).p95_s for share in (0.5, 0.7, 0.9)]
    assert p95 == sorted(p95) and p95[0] >= 0.02


@pytest.mark.parametrize("rate_per_s", [1e-320, 1e-10, 1e-3])
def test_requests_that_never_meet_take_what_one_takes_by_itself(rate_per_s):
    service = Service(4, 6, 0.02, 0.02, 2, host_s=0.003)
    found = under_load(service, rate_per_s)
    assert (found.p50_s, found.p95_s) == pytest.approx((0.023, 0.023), rel=1e-5)
    assert (found.utilisation, found.rows_per_batch) == (rate_per_s / service.capacity_per_s, 1.0)
    assert settled(shared, rate_per_s).service_s == pytest.approx(0.01, rel=0.003)


@pytest.mark.parametrize("rate_per_s", [0.0, -1.0, math.nan])
def test_no_rate_is_refused(rate_per_s):
    for ask in (lambda: under_load(shared(1.0), rate_per_s), lambda: settled(shared, rate_per_s)):
        with pytest.raises(UsageError, match="rate_per_s must be above 0"):
            ask()


@pytest.mark.parametrize("share", [1.0, 1.5])
def test_there_is_no_latency_at_or_above_capacity(share):
    service = Service(4, 6, 0.02, 0.02, 2)
    assert under_load(service, share * service.capacity_per_s).p95_s == math.inf


def test_capacity_is_the_slowest_stage_or_what_is_in_flight():
    assert Service(4, 6, 0.02, 0.02, 2).capacity_per_s == pytest.approx(1200)
    assert Service(1, 1, 0.001, 0.004, 2).capacity_per_s == pytest.approx(500)
    assert Service(1, 1, 0.001, 0.004, 8).capacity_per_s == pytest.approx(1000)


@pytest.mark.parametrize(
    "changed",
    [{"groups": 0}, {"batch_size": 0}, {"in_flight": 0}, {"parallel": 0}, {"max_wait_s": -1}, {"bottleneck_s": 0.0},
     {"bottleneck_s": 2.0}, {"service_s": math.inf}],
)  # fmt: skip
def test_an_instance_that_cannot_be_is_refused(changed):
    with pytest.raises(UsageError, match="must"):
        Service(**{"groups": 1, "batch_size": 1, "bottleneck_s": 1.0, "service_s": 1.0, **changed})


def test_the_host_comes_before_a_batch_enters_and_occupies_nothing():
    service = Service(1, 1, 0.01, 0.01, in_flight=2, max_wait_s=0.0, host_s=0.004)
    assert service.alone_s == pytest.approx(0.014)
    assert schedule(service, [0.0, 0.0]).latencies_s.tolist() == pytest.approx([0.014, 0.024])
    assert service.capacity_per_s == pytest.approx(100)  # two in flight hide it
    assert Service(1, 1, 0.01, 0.01, host_s=0.004).capacity_per_s == pytest.approx(1 / 0.014)


def test_random_waits_widen_the_tail_and_are_the_same_in_every_run():
    calm = Service(4, 6, 0.02, 0.02, 2, host_s=0.003)
    shaken = Service(4, 6, 0.02, 0.02, 2, host_s=0.003, host_waits=HostWaits(contention_s=0.005))
    calm_found, found = under_load(calm, 600.0), under_load(shaken, 600.0)
    assert found.p95_s - found.p50_s > calm_found.p95_s - calm_found.p50_s
    moments = [0.0, 0.001, 0.002]
    assert schedule(shaken, moments).latencies_s.tolist() == schedule(shaken, moments).latencies_s.tolist()


def shared(busy):
    """Four cores of one chip: a batch takes three times as long when all are busy."""
    return Service(4, 1, 0.01 * (1 + 2 * busy), 0.01 * (1 + 2 * busy), 2, max_wait_s=0.0)


@pytest.mark.parametrize("utilisation", [0.01, 0.3, 0.6, 0.9, 0.97])
def test_what_is_shared_takes_as_long_as_it_is_busy(utilisation):
    rate = utilisation * shared(1.0).capacity_per_s
    found = settled(shared, rate)
    busy = rate * found.bottleneck_s / found.groups
    assert found.bottleneck_s == pytest.approx(0.01 * (1 + 2 * busy), rel=0.003)
    assert under_load(shared(1.0), rate, shared).p95_s <= under_load(shared(1.0), rate).p95_s


def test_batches_that_are_not_full_keep_cores_as_busy_as_full_ones():
    def at(busy):
        return Service(1, 6, 0.02, 0.02 + busy * 1e-9, 2)

    service = settled(at, 60.0)  # a fifth of its capacity, but two rows a batch
    assert (service.service_s - 0.02) * 1e9 > 0.5
