"""Callers that ask again at once: Little's law, what a queue of one does, and waits for the host."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.hardware.closed_loop import HostWaits, closed_loop

stages = st.lists(st.floats(0.001, 0.01), min_size=1, max_size=5).map(lambda some: sorted(some, reverse=True))


@given(st.integers(1, 8), st.floats(0, 0.02), stages)
def test_without_random_waits_a_core_is_busy_or_its_callers_are(callers, host_s, stages_s):
    found = closed_loop(callers, host_s, HostWaits(), stages_s)
    assert found.mean_s == pytest.approx(max(callers * stages_s[0], host_s + sum(stages_s)), rel=1e-6)
    assert found.p50_s == pytest.approx(found.p99_s)


def test_one_caller_sees_the_waits_as_they_are():
    found = closed_loop(1, 0.002, HostWaits(contention_s=0.003), [0.01])
    assert found.mean_s == pytest.approx(0.015, rel=1e-3)
    # An exponential's quantiles: Feller, An Introduction to Probability Theory II, I.3.
    assert found.p99_s == pytest.approx(0.012 + 0.003 * 4.605, rel=0.01)


def test_two_callers_hide_the_host_until_it_is_slower_than_the_core():
    hidden = closed_loop(2, 0.002, HostWaits(contention_s=0.0005), [0.01])
    assert hidden.p50_s == pytest.approx(0.02) and hidden.p99_s == pytest.approx(0.02)
    seen = closed_loop(2, 0.002, HostWaits(contention_s=0.006), [0.01])
    assert seen.p50_s == pytest.approx(0.02, rel=0.03) and seen.p99_s > 0.03 and seen.mean_s > 0.02


def test_more_callers_never_do_less():
    rates = [
        callers / closed_loop(callers, 0.003, HostWaits(0.002, 0.3, 0.001), [0.004, 0.002]).mean_s
        for callers in range(1, 9)
    ]
    assert all(after >= before * 0.999 for before, after in zip(rates, rates[1:]))


@pytest.mark.parametrize("callers", [50, 500, 1900, 1901, 2500])
def test_many_callers_wait_for_one_another_and_the_core_takes_no_more(callers):
    """With 2000 calls whatever the callers, a loop of 1,899 took 18 times what its core can, and 1,901 crashed."""
    found = closed_loop(callers, 0.003, HostWaits(contention_s=0.004), [0.02])
    assert found.mean_s == pytest.approx(callers * 0.02, rel=0.01)
    assert found.p50_s <= found.p99_s < 1.05 * callers * 0.02


def test_a_draw_has_the_mean_it_says():
    waits = HostWaits(contention_s=0.002, link_share=0.25, link_s=0.004)
    source = random.Random(1)
    drawn = [waits.draw_s(source) for _ in range(20_000)]
    assert waits.mean_s == pytest.approx(0.003) == pytest.approx(sum(drawn) / len(drawn), rel=0.05)
    assert HostWaits().draw_s(source) == 0
