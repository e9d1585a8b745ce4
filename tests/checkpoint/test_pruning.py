"""A cut model computes with what is left, whatever the family and the task, and makes up for what is gone."""

import copy
from pathlib import Path
from typing import Any, List, NamedTuple, Tuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoints import FAMILIES, write_checkpoint

from neuronbert.checkpoint.families import FAMILIES as SERVED
from neuronbert.checkpoint.families import Family
from neuronbert.checkpoint.importance import removals
from neuronbert.checkpoint.pruning import Row, parts_of, pruned, sizes_of
from neuronbert.checkpoint.reconstruction import LeastSquares, reconstruct
from neuronbert.checkpoint.removal import ATTENTION, FEED_FORWARD, HALVES, Kept, Sizes, kept_after
from neuronbert.tasks import TASKS
from neuronbert.tasks.checkpoints import load_checkpoint

HEADS = 4
COLUMNS = 96
SUFFIXES = {
    "question-answering": "QuestionAnswering",
    "text-classification": "SequenceClassification",
    "token-classification": "TokenClassification",
    "feature-extraction": "",
}


class Whole(NamedTuple):
    """A tiny model, and text for it."""

    model: Any
    family: Family
    rows: List[Row]
    sizes: Sizes


def tiny(folder: Path, model_type: str, task: str = "question-answering") -> Whole:
    columns = {"hidden_dim" if model_type == "distilbert" else "intermediate_size": COLUMNS}
    checkpoint = load_checkpoint(write_checkpoint(folder, model_type, SUFFIXES[task], **columns), task=task)
    generator = torch.Generator().manual_seed(3)
    rows = []
    for tokens in range(9, 33):
        ids = torch.randint(5, 70, (1, tokens), generator=generator)
        types = (torch.arange(tokens)[None] >= 5).long()
        rows.append((ids, torch.ones_like(ids), types)[: len(checkpoint.input_names)])
    model, family = checkpoint.torch_model(), SERVED[model_type]
    return Whole(model, family, rows, sizes_of(model, family, HEADS, rows))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return tiny(tmp_path_factory.mktemp("bert") / "checkpoint", "bert")


def outputs(model: Any, rows: List[Row]) -> List[torch.Tensor]:
    with torch.no_grad():
        return [output for row in rows for output in model(*row)]


def distance(ours: List[torch.Tensor], theirs: List[torch.Tensor]) -> float:
    return float(np.mean([(one - other).square().mean() for one, other in zip(ours, theirs)]))


def cut(whole: Whole, kept: List[Kept]) -> Any:
    return pruned(whole.model, whole.family, whole.sizes, kept)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_model_can_be_cut_and_makes_up_for_most_of_it(tmp_path: Path, model_type: str, task: str) -> None:
    whole = tiny(tmp_path / "checkpoint", model_type, task)
    expected = outputs(whole.model, whole.rows)
    before = copy.deepcopy(whole.model.state_dict())
    order = removals(whole.model, whole.family, whole.sizes, whole.rows)
    model = cut(whole, kept_after(order, whole.sizes, 0.3))
    plain = distance(outputs(model, whole.rows), expected)
    reconstruct(model, whole.model, whole.family, whole.rows)
    assert distance(outputs(model, whole.rows), expected) < 0.5 * plain
    weights = sum(weight.numel() for weight in model.parameters())
    assert weights < sum(weight.numel() for weight in whole.model.parameters())
    # The reference is what the gate compares with: it has not changed, and nothing watches it any more.
    assert all(torch.equal(weight, before[name]) for name, weight in whole.model.state_dict().items())
    assert all(torch.equal(*pair) for pair in zip(outputs(whole.model, whole.rows), expected))
    assert not any(module._forward_hooks for module in whole.model.modules())
    assert all(weight.grad is None for weight in whole.model.parameters())


@pytest.mark.parametrize("model_type", FAMILIES)
def test_removing_nothing_changes_nothing(tmp_path: Path, model_type: str) -> None:
    whole = tiny(tmp_path / "checkpoint", model_type)
    expected = outputs(whole.model, whole.rows)
    model = cut(whole, whole.sizes.all_kept)
    assert all(torch.equal(*pair) for pair in zip(outputs(model, whole.rows), expected))
    reconstruct(model, whole.model, whole.family, whole.rows)
    for ours, theirs in zip(outputs(model, whole.rows), expected):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_gives_nothing_leaves_first_and_is_not_missed(tmp_path: Path, model_type: str) -> None:
    whole = tiny(tmp_path / "checkpoint", model_type)
    with torch.no_grad():
        idle = parts_of(whole.model, whole.family, 1)
        idle.attention_output.weight[:, 8:24] = 0  # heads 1 and 2
        idle.narrow.weight[:, 10:42] = 0
    expected = outputs(whole.model, whole.rows)
    order = removals(whole.model, whole.family, whole.sizes, whole.rows)
    units = {half: [unit for each in order[:3] if each.half == half for unit in each.units] for half in HALVES}
    assert {removal.layer for removal in order[:3]} == {1}
    assert units[FEED_FORWARD] == list(range(10, 42)) and sorted(units[ATTENTION]) == [1, 2]
    rest = Kept((0, 3), tuple(number for number in range(COLUMNS) if not 10 <= number < 42))
    model = cut(whole, [whole.sizes.all_kept[0], rest])
    for ours, theirs in zip(outputs(model, whole.rows), expected):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@given(st.integers(0, 1000), st.integers(1, 12), st.floats(0, 1))
def test_a_product_comes_at_least_as_near_on_its_text_as_before(seed: int, inputs: int, used: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(tokens, inputs, generator=generator) for tokens in (3, 20, 7)]
    for row in rows:
        row[:, int(used * inputs) :] = 0  # inputs that never vary
    wanted = [torch.randn(len(row), 5, generator=generator) + row.sum(dim=1, keepdim=True) for row in rows]
    product = torch.nn.Linear(inputs, 5)

    def gap() -> float:
        with torch.no_grad():
            return float(sum((product(row) - target).square().sum() for row, target in zip(rows, wanted)))

    fit, before = LeastSquares(product), gap()
    for row, target in zip(rows, wanted):
        with torch.no_grad():
            fit.add(row, target - product(row))
    fit.solve()
    assert gap() <= before * (1 + 1e-5)


def test_the_same_text_gives_the_same_order(bert: Whole) -> None:
    state = torch.random.get_rng_state()
    order = [removals(bert.model, bert.family, bert.sizes, bert.rows) for _ in range(2)]
    assert order[0] == order[1]
    cut(bert, bert.sizes.all_kept)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_whoever_waits_is_told(bert: Whole) -> None:
    told: List[Tuple[str, int, int]] = []

    def on_step(what: str, done: int, total: int) -> None:
        told.append((what, done, total))

    removals(bert.model, bert.family, bert.sizes, bert.rows, on_step)
    reconstruct(cut(bert, bert.sizes.all_kept), bert.model, bert.family, bert.rows, on_step)
    for what, total in (("texts weighed", len(bert.rows)), ("layers weighed", 2), ("layers reconstructed", 2)):
        assert (what, total, total) in told
