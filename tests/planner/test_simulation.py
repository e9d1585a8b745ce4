"""The discrete-event simulation, and the planner's latency against it."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_queueing import arrivals, services

from neuronbert.errors import MissingLibrary, UsageError
from neuronbert.hardware.closed_loop import HostWaits
from neuronbert.hardware.device_model import BERT_BASE, Work, stage_seconds
from neuronbert.planner.queueing import Service, poisson_arrivals, schedule, under_load
from neuronbert.planner.simulation import simulate

pytest.importorskip("simpy")

PIPELINE = stage_seconds(Work(BERT_BASE, 1, 128, 16, 4))
# inf1.xlarge data-parallel, inf1.6xlarge pipeline over 16 and over 4, inf1.24xlarge's 64 cores.
LAYOUTS = {
    "4 cores, batch 6": Service(4, 6, 0.0206, 0.0206, 2),
    "4 cores, batch 6, one in flight": Service(4, 6, 0.0206, 0.0206, 1),
    "pipeline of 16": Service(1, 1, max(PIPELINE), sum(PIPELINE), 16, 16),
    "4 pipelines of 4, batch 3": Service(4, 3, 0.0045, 0.0162, 4, 4),
    "64 cores, batch 6": Service(64, 6, 0.0206, 0.0206, 2),
    "4 cores, batch 6, with the host": Service(4, 6, 0.0206, 0.0206, 2, host_s=0.003, host_waits=HostWaits(0.004)),
}


# The recursion's argument is that groups come round in turn; here nothing is assumed.
@given(services, arrivals)
def test_event_by_event_every_request_ends_when_the_recursion_says(service, moments):
    moments = np.round(moments, 5) + np.arange(len(moments)) * 1e-7  # no two events at one moment
    expected, found = schedule(service, moments), simulate(service, moments)
    np.testing.assert_allclose(found.latencies_s, expected.latencies_s, atol=1e-9)
    assert found.rows.tolist() == expected.rows.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("utilisation", [0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_planners_p95_agrees_with_the_simulation_within_ten_percent(name, utilisation):
    service = LAYOUTS[name]
    rate = utilisation * service.capacity_per_s
    # A nearly full queue forgets its past slowly: the simulation needs more requests for the same certainty.
    requests = 10_000 if utilisation < 0.9 else 60_000 if utilisation < 0.95 or service.groups > 1 else 200_000
    found = simulate(service, poisson_arrivals(rate, requests, seed=1)).latencies_s[requests // 10 :]
    # With random waits groups do not quite come round in turn: near saturation the recursion is on the safe side.
    most = 0.20 if service.host_waits.mean_s and utilisation > 0.9 else 0.10
    assert -0.10 < under_load(service, rate).p95_s / np.percentile(found, 95) - 1 < most


def test_the_stages_of_a_pipeline_may_be_given():
    service = LAYOUTS["pipeline of 16"]
    moments = poisson_arrivals(0.7 * service.capacity_per_s, 2000)
    found = simulate(service, moments, stages_s=PIPELINE).latencies_s
    np.testing.assert_allclose(found, simulate(service, moments).latencies_s, atol=1e-9)


def test_a_fleet_answers_like_its_members_at_their_share_of_the_load():
    service = LAYOUTS["4 cores, batch 6"]
    rate = 0.6 * service.capacity_per_s
    fleet = simulate(service, poisson_arrivals(8 * rate, 16_000), instances=8)
    assert fleet.latencies_s.size == 16_000 == fleet.rows.sum()
    assert np.percentile(fleet.latencies_s, 95) == pytest.approx(under_load(service, rate).p95_s, rel=0.10)


def test_a_constant_rate_waits_less_than_a_random_one():
    service = LAYOUTS["pipeline of 16"]
    rate = 0.8 * service.capacity_per_s
    constant = simulate(service, np.arange(4000) / rate).latencies_s
    assert np.percentile(constant, 95) < np.percentile(simulate(service, poisson_arrivals(rate, 4000)).latencies_s, 95)


def test_without_simpy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "simpy", None)
    with pytest.raises(MissingLibrary, match=r"simpy is not installed(?s:.*)neuronbert\[plan\]"):
        simulate(Service(1, 1, 1.0, 1.0), [0.0])


def test_an_empty_fleet_is_refused():
    with pytest.raises(UsageError, match="at least 1 instance, not 0"):
        simulate(Service(1, 1, 1.0, 1.0), [0.0], instances=0)


def test_nothing_arrives_and_nothing_happens():
    assert simulate(Service(1, 1, 1.0, 1.0), []).rows.size == 0 == schedule(Service(1, 1, 1.0, 1.0), []).rows.size


@given(st.integers(1, 4))
def test_a_fleet_loses_nothing(instances):
    found = simulate(Service(2, 3, 0.01, 0.02, 2), np.linspace(0, 0.2, 50), instances=instances)
    assert found.rows.sum() == 50 and (found.latencies_s >= 0.02 - 1e-9).all()
