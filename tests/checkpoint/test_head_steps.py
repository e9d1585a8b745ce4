"""Heads as data: what each task says of its own, as JSON and back, and the shapes that come of them."""

import json
from typing import Any, Dict, Tuple

import pytest

from neuronbert.checkpoint.families import FAMILIES, Config, expected_shapes
from neuronbert.checkpoint.head_steps import (
    FIRST_TOKEN,
    INPUT,
    STEPS_FORM,
    Column,
    Linear,
    Normalize,
    Pool,
    Step,
    document,
    entry_shape,
    linear,
    pools,
    steps_of,
    weight_names,
)
from neuronbert.hardware.schema import Schema, record
from neuronbert.tasks import TASKS, load_task
from neuronbert.tasks.feature_extraction.modules import KEY, NORMALIZE, POOLINGS, Dense, SentenceModules

LABELS = {"0": "calm", "1": "glad", "2": "cross"}
EVERY_LAYER = SentenceModules(
    POOLINGS,
    layers=(
        Dense("one", 6 * 768, 9, bias=False, activation="tanh", residual=True),
        NORMALIZE,
        Dense("two", 9, 9, bias=True, activation="silu", residual=True),
    ),
)
CONFIGS: Tuple[Dict[str, Any], ...] = (
    {"id2label": LABELS},
    {KEY: SentenceModules(()).document()},
    {KEY: SentenceModules(("max",), include_prompt=False, layers=(NORMALIZE,)).document()},
    {KEY: EVERY_LAYER.document()},
)
FORM = Schema(**record({"head": STEPS_FORM}))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("name", TASKS)
def test_each_task_s_head_has_its_outputs_and_weights(name: str, model_type: str, config: Config) -> None:
    family, task = FAMILIES[model_type], load_task(name)
    config = {**config, "hidden_size": 768, "dim": 768, "num_attention_heads": 12}
    head = task.HEAD.steps(family, config)
    found = json.loads(json.dumps(document(head)))
    assert FORM.fault({"head": found}) is None
    assert steps_of(found) == head
    shapes = expected_shapes(config, family, task.HEAD)
    of_head = set(shapes) - set(expected_shapes(config, family, None))
    assert weight_names(head) == of_head
    outputs = task.outputs(config)
    assert [pools(steps) for steps in head] == [output.per == "row" for output in outputs]
    entries = [entry_shape(steps, 768, shapes) for steps in head]
    assert all(output.entry is None or output.entry == entry for output, entry in zip(outputs, entries))


def test_the_weights_of_all_steps_are_named_and_the_input_is_none() -> None:
    steps = ((Linear("a", None, "tanh", "c"), Column(1)), (Linear("a", "b", "tanh", INPUT), Normalize()), ())
    assert weight_names(steps) == {"a", "b", "c"}
    assert linear("x.y", "relu") == Linear("x.y.weight", "x.y.bias", "relu", None)


SHAPES = {
    "square": (4, 4),
    "wide": (8, 4),
    "narrow": (1, 4),
    "four": (4,),
    "eight": (8,),
    "number": (),
    "cube": (4, 4, 4),
}


@pytest.mark.parametrize(
    ("steps", "shape"),
    [
        ((), (4,)),
        ((FIRST_TOKEN,), (4,)),
        ((Pool(("max", "cls")), Normalize()), (8,)),
        ((Linear("wide", "eight"), Column(7)), ()),
        ((Linear("square", "four", "gelu", INPUT), Linear("wide", None, "gelu", "wide"), FIRST_TOKEN), (8,)),
    ],
)
def test_shapes_follow_from_the_weights(steps: Tuple[Step, ...], shape: Tuple[int, ...]) -> None:
    assert entry_shape(steps, 4, SHAPES) == shape


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ((FIRST_TOKEN, Normalize(), FIRST_TOKEN), "a pooling follows another"),
        ((Column(0), Normalize()), "a step follows one that leaves a single number"),
        ((Column(0), Column(0)), "a step follows one that leaves a single number"),
        ((Column(4),), "column 4 is taken of 4 numbers"),
        ((Linear("wide", None), Linear("square", None)), r"square is \[4, 4\] where \[4, 8\] is needed"),
        ((Linear("square", "eight"),), r"eight is \[8\] where \[4\] is needed"),
        ((Linear("square", "number"),), r"number is \[\] where \[4\] is needed"),
        ((Linear("square", None, "relu", "wide"),), r"wide is \[8, 4\] where \[4, 4\] is needed"),
        ((Linear("wide", None, "relu", INPUT),), "wide makes 8 numbers of 4"),
        ((Linear("narrow", None, "relu", INPUT),), "narrow makes 1 numbers of 4"),  # and would be spread over them
        ((Linear("four", None),), r"four is \[4\] where \[4, 4\] is needed"),
        ((Linear("four", "four"),), r"four is \[4\] where \[4, 4\] is needed"),
        ((Linear("number", None),), r"number is \[\] where \[0, 4\] is needed"),
        ((Linear("cube", None),), r"cube is \[4, 4, 4\] where \[4, 4\] is needed"),
    ],
)
def test_steps_that_do_not_fit_each_other_are_told(steps: Tuple[Step, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        entry_shape(steps, 4, SHAPES)
