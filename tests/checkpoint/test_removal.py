"""What leaves a model first: what costs least for the work that it saves, within a budget, and never a whole layer."""

from typing import List, Set

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.checkpoint.removal import (
    ATTENTION,
    COLUMN_MULTIPLE,
    FEED_FORWARD,
    HALVES,
    Product,
    Removal,
    Sizes,
    Step,
    column_steps,
    head_steps,
    kept_after,
    order,
)

SIZES = Sizes(layers=2, hidden=32, heads=4, columns=96, tokens=20.0, attended=500.0)


def product(inputs: int, seed: int, outputs: int = 6) -> Product:
    """Weights, and the moments of correlated inputs and of gradients."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(200, inputs)) @ random.normal(size=(inputs, inputs))
    gradients = random.normal(size=(50, outputs))
    return Product(random.normal(size=(outputs, inputs)), np.cov(mixed.T), gradients.T @ gradients / 50)


def steps_of(seed: int, sizes: Sizes = SIZES) -> List[Removal]:
    halves = [
        {
            ATTENTION: head_steps(product(sizes.hidden, seed + layer), sizes.heads),
            FEED_FORWARD: column_steps(product(sizes.columns, seed + 9 + layer)),
        }
        for layer in range(sizes.layers)
    ]
    return order(halves, sizes)


@given(st.integers(0, 1000), st.floats(0, 1))
def test_the_share_is_reached_and_by_no_more_than_one_step(seed: int, share: float) -> None:
    removals = steps_of(seed)
    kept = kept_after(removals, SIZES, share)
    most = SIZES.share_removed(kept_after(removals, SIZES, 1))
    largest = SIZES.multiply_adds(1, 0), SIZES.multiply_adds(0, COLUMN_MULTIPLE)
    step = max(largest) / (SIZES.layers * SIZES.multiply_adds(SIZES.heads, SIZES.columns))
    assert min(share, most) - 1e-9 <= SIZES.share_removed(kept) <= share + step
    for layer in kept:
        assert layer.heads and len(layer.columns) % COLUMN_MULTIPLE == 0 and layer.columns
        assert list(layer.heads) == sorted(set(layer.heads)) and list(layer.columns) == sorted(set(layer.columns))


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_nothing_that_a_smaller_one_removes(seed: int, one: float, other: float) -> None:
    removals = steps_of(seed)
    less, more = (kept_after(removals, SIZES, share) for share in sorted((one, other)))
    for small, large in zip(more, less):
        assert set(small.heads) <= set(large.heads) and set(small.columns) <= set(large.columns)


def test_no_share_removes_nothing() -> None:
    assert kept_after(steps_of(1), SIZES, 0.0) == SIZES.all_kept
    assert SIZES.share_removed(SIZES.all_kept) == 0


@given(st.integers(0, 1000), st.sets(st.integers(0, 7), max_size=7))
def test_heads_that_give_nothing_leave_first_and_cost_nothing(seed: int, idle: Set[int]) -> None:
    whole = product(32, seed)
    for head in idle:
        whole.weights[:, head * 4 : head * 4 + 4] = 0
    steps = head_steps(whole, 8)
    assert {step.units[0] for step in steps[: len(idle)]} == idle
    assert all(step.cost < 1e-9 for step in steps[: len(idle)])
    assert all(step.cost > 1e-6 for step in steps[len(idle) :])
    assert len(steps) == 7


def test_one_of_two_heads_that_say_the_same_leaves_before_one_that_says_less() -> None:
    """Going by the sizes of weights, or of gradients, would keep both."""
    random = np.random.default_rng(0)
    one, other, small = random.normal(size=(3, 4000, 4))
    inputs = np.concatenate([one, other, one + 1e-3 * random.normal(size=one.shape), 0.5 * small], axis=1)
    steps = head_steps(Product(random.normal(size=(16, 16)), np.cov(inputs.T), np.eye(16)), 4)
    assert steps[0].units[0] in (0, 2)


@given(st.integers(0, 1000))
def test_the_cost_is_what_least_squares_leaves(seed: int) -> None:
    """Against the loss computed from the data itself, which is undamped: so with little noise of the inputs."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(500, 12)) @ random.normal(size=(12, 12))
    inputs -= inputs.mean(axis=0)
    gradients = random.normal(size=(40, 5))
    second = gradients.T @ gradients / 40
    weights = random.normal(size=(5, 12))
    damped = np.concatenate([inputs, np.sqrt(0.01 * np.trace(inputs.T @ inputs) / 12) * np.eye(12)])
    step = head_steps(Product(weights, inputs.T @ inputs, second), 4)[0]
    places = np.arange(3 * step.units[0], 3 * step.units[0] + 3)
    left = np.delete(np.arange(12), places)
    wanted = damped @ weights.T
    fitted, *_ = np.linalg.lstsq(damped[:, left], wanted, rcond=None)
    error = damped[:, left] @ fitted - wanted
    assert step.cost == pytest.approx(float(np.trace(error @ second @ error.T)), rel=1e-6)


@pytest.mark.parametrize(("columns", "left"), [(96, [64, 32]), (80, [64, 32]), (32, []), (20, [])])
def test_a_multiple_of_columns_is_left_each_time(columns: int, left: List[int]) -> None:
    steps = column_steps(product(columns, 3))
    assert [columns - sum(len(step.units) for step in steps[: number + 1]) for number in range(len(steps))] == left
    gone = [unit for step in steps for unit in step.units]
    assert len(gone) == len(set(gone)) and set(gone) <= set(range(columns))


def test_what_leaves_a_half_later_is_never_before_what_leaves_it_earlier() -> None:
    dear_first = [Step((0,), 9.0), Step((1,), 0.1), Step((2,), 0.2)]
    removals = order([{ATTENTION: dear_first, FEED_FORWARD: [Step(tuple(range(32)), 0.0)]}], SIZES)
    assert [removal.units[0] for removal in removals if removal.half == ATTENTION] == [0, 1, 2]
    assert removals[0].half == FEED_FORWARD
    assert HALVES == (ATTENTION, FEED_FORWARD)


def test_inputs_that_never_vary_are_no_trouble() -> None:
    still = Product(np.ones((3, 8)), np.zeros((8, 8)), np.eye(3))
    assert len(head_steps(still, 4)) == 3
