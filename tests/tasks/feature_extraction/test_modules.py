"""What config.json says of an encoder's poolings and layers: written, read back, and refused where it is odd."""

from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import CheckpointError, UsageError
from neuronbert.tasks.feature_extraction.modules import (
    ACTIVATIONS,
    KEY,
    NORMALIZE,
    POOLINGS,
    SIMILARITIES,
    Dense,
    SentenceModules,
    chosen_pooling,
    modules_of,
)

HIDDEN = 8
CONFIG = {"hidden_size": HIDDEN}
MEAN = SentenceModules(("mean",))


@st.composite
def sentence_modules(draw: st.DrawFn) -> SentenceModules:
    pooling = tuple(draw(st.lists(st.sampled_from(POOLINGS), unique=True)))
    width, layers = HIDDEN * len(pooling), []
    include_prompt = draw(st.booleans())
    for number in range(draw(st.integers(0, 3)) if pooling else 0):
        if include_prompt and draw(st.booleans()):
            outputs = draw(st.integers(1, 50))
            activation = draw(st.sampled_from(ACTIVATIONS))
            layers.append(
                Dense(f"{number}_Dense", width, outputs, draw(st.booleans()), activation, draw(st.booleans()))
            )
            width = outputs
        else:
            layers.append(NORMALIZE)
    return SentenceModules(
        pooling,
        include_prompt,
        tuple(layers),
        draw(st.none() | st.integers(1, 512)),
        draw(st.booleans()),
        draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)),
        draw(st.none() | st.text(max_size=5)),
        draw(st.sampled_from(SIMILARITIES)),
        draw(st.none() | st.integers(1, 99)),
    )


@given(sentence_modules())
def test_what_is_written_is_read_back(modules: SentenceModules) -> None:
    assert modules_of({**CONFIG, KEY: modules.document()}) == modules


def test_a_config_that_says_nothing_has_its_tokens_mean() -> None:
    assert modules_of({}) == SentenceModules() == MEAN
    assert (MEAN.pooling_name, MEAN.normalizes, MEAN.pools_on_host) == ("mean", False, False)


def test_the_width_is_that_of_the_last_layer_that_changes_it() -> None:
    dense = Dense("2_Dense", 2 * HIDDEN, 3, True, "tanh", False)
    assert SentenceModules(()).width(HIDDEN) == HIDDEN
    assert SentenceModules(("cls", "max")).width(HIDDEN) == 2 * HIDDEN
    assert SentenceModules(("cls", "max"), layers=(dense, NORMALIZE)).width(HIDDEN) == 3


def test_the_names_and_shapes_of_a_dense_layer() -> None:
    layer = Dense("2_Dense", 4, 3, True, "tanh", True)
    assert layer.shapes == {
        "2_Dense.linear.weight": (3, 4),
        "2_Dense.linear.bias": (3,),
        "2_Dense.residual.weight": (3, 4),
    }
    assert layer._replace(bias=False, residual=False).shapes == {"2_Dense.linear.weight": (3, 4)}
    assert "residual" not in "".join(layer._replace(outputs=4).shapes)  # its input itself is added


# ---- what a person asks for


@pytest.mark.parametrize("asked", [None, "auto"])
def test_what_the_checkpoint_says_stays(asked: Any) -> None:
    own = SentenceModules(("cls",), layers=(NORMALIZE,))
    assert chosen_pooling(own, asked) == own


def test_another_pooling_keeps_the_layers_behind_it() -> None:
    own = SentenceModules(("cls",), layers=(NORMALIZE,), prompts={"a": "b"})
    assert chosen_pooling(own, "cls+mean") == own._replace(pooling=("cls", "mean"))
    assert chosen_pooling(own, "cls+mean").pooling_name == "cls+mean"


def test_no_pooling_leaves_out_the_layers_too() -> None:
    own = SentenceModules(("cls",), layers=(NORMALIZE,), prompts={"a": "b"})
    assert chosen_pooling(own, "none") == own._replace(pooling=(), layers=())
    assert chosen_pooling(own, "none").pooling_name == "none"


@pytest.mark.parametrize("asked", ["", "average", "mean+", "mean+mean", "none+mean", 3, ["mean"]])
def test_what_is_no_pooling_is_refused(asked: Any) -> None:
    with pytest.raises(UsageError, match="there is no pooling") as caught:
        chosen_pooling(MEAN, asked)
    assert caught.value.hint is not None and "mean_sqrt_len" in caught.value.hint


# ---- a stranger's config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pooling": ["median"]}, "pooling"),
        ({"layers": [{"type": "attention"}]}, "layers"),
        ({"layers": [{"type": "dense", "name": "x"}]}, "lacks inputs, outputs"),
        ({"layers": [{"type": "dense", "name": "../x"}]}, "name"),
        ({"max_seq_length": 0}, "max_seq_length"),
        ({"prompts": {"query": 5}}, "prompts"),
        ({"similarity": "angle"}, "similarity"),
        ({"truncate_dim": -1}, "truncate_dim"),
    ],
)
def test_a_config_that_compile_never_wrote_is_refused(change: Dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        modules_of({**CONFIG, KEY: {**MEAN.document(), **change}})


@pytest.mark.parametrize("document", [[], "mean", 5, {}])
def test_what_is_no_description_is_refused(document: Any) -> None:
    with pytest.raises(CheckpointError, match=KEY):
        modules_of({**CONFIG, KEY: document})


def dense_document(**changes: Any) -> Dict[str, Any]:
    layer = {**Dense("2_Dense", HIDDEN, 4, True, "tanh", False)._asdict(), "type": "dense", **changes}
    return {**MEAN.document(), "layers": [layer]}


def test_layers_that_do_not_fit_are_refused() -> None:
    assert modules_of({**CONFIG, KEY: dense_document()}).width(HIDDEN) == 4
    with pytest.raises(CheckpointError, match="2_Dense reads 9 numbers, and gets 8"):
        modules_of({**CONFIG, KEY: dense_document(inputs=9)})
    with pytest.raises(CheckpointError, match="layers behind no pooling"):
        modules_of({**CONFIG, KEY: {**dense_document(), "pooling": []}})
    with pytest.raises(CheckpointError, match="leaves out the prompt"):
        modules_of({**CONFIG, KEY: {**dense_document(), "include_prompt": False}})
