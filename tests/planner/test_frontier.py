"""The cost frontier: nothing on it is beaten; and published figures in dollars, each with its source."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.hardware.prices import Price, shipped_prices
from neuronbert.planner.configurations import Configuration
from neuronbert.planner.frontier import cost_frontier, published_costs
from neuronbert.planner.queueing import LatencyUnderLoad, Service

ONE = Configuration("inf1.xlarge", "data-parallel", 1, 1, 4, False, False, "", Service(1, 1, 0.01, 0.01), None)


def configuration(p95_ms, usd_per_hour):
    price = Price(usd_per_hour, "mars", "2030-01", "a test") if usd_per_hour else None
    latency = LatencyUnderLoad(p95_ms / 2e3, p95_ms / 1e3, 0.5, 1.0)
    return replace(ONE, price=price, instances=1, load_per_instance=100.0, latency=latency)


CONFIGURATIONS = st.lists(
    st.builds(configuration, st.floats(1, 1000), st.one_of(st.none(), st.floats(0.01, 100))), max_size=30
)


@given(CONFIGURATIONS)
def test_nothing_on_the_frontier_is_beaten_and_all_else_is(ranked):
    def rounded(one):
        return float(f"{one.p95_ms:.2g}")

    found = cost_frontier(ranked)
    priced = [one for one in ranked if one.usd_per_million is not None]
    for one in found:
        assert one in priced
        soon = [other for other in priced if rounded(other) <= rounded(one)]
        assert min(other.usd_per_million for other in soon) == one.usd_per_million
    for one in priced:
        assert any(rounded(kept) <= rounded(one) and kept.usd_per_million <= one.usd_per_million for kept in found)
    costs = [one.usd_per_million for one in found]
    assert costs == sorted(costs, reverse=True) and len(set(costs)) == len(costs)
    assert [rounded(one) for one in found] == sorted({rounded(one) for one in found})


def test_nothing_is_on_the_frontier_by_a_hair():
    dear, cheap = configuration(3.789, 63.0), configuration(3.791, 55.0)
    assert cost_frontier([dear, cheap]) == [cheap]


def test_without_prices_there_is_no_frontier():
    assert cost_frontier([configuration(5.0, None)]) == []


def test_published_figures_have_dollars_a_basis_and_a_source():
    found = published_costs(shipped_prices())
    assert [one.usd_per_million for one in found] == sorted(one.usd_per_million for one in found)
    assert all(math.isfinite(one.usd_per_million) and one.row.source for one in found)
    (blog,) = [one for one in found if one.row.model == "bert-base"]
    assert (blog.usd_per_million, blog.basis) == (0.20, "as published")
    (mlperf,) = [one for one in found if (one.row.kind.name, one.row.scenario) == ("H100", "Offline")]
    assert mlperf.basis == "at 6.88 USD/h of p5.4xlarge"
    assert mlperf.usd_per_million == pytest.approx(6.88 / (62182.5 / 8) / 3600 * 1e6)
    (several,) = [one for one in found if (one.row.kind.name, one.row.scenario) == ("A100", "Offline")]
    # Eight GPUs in p4d, and eight that were measured.
    assert several.usd_per_million == pytest.approx(21.957642 / 14003.8 / 3600 * 1e6)
    assert {one.as_dict()["cost_basis"] for one in found} == {one.basis for one in found}
