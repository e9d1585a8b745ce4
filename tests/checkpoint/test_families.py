"""Names, shapes and counts that a config promises, against transformers' own models."""

from typing import Any, Dict

import pytest
from tiny_checkpoints import tiny_model

from neuronbert.checkpoint.config import refuse_malformed
from neuronbert.checkpoint.families import (
    FAMILIES,
    canonical_name,
    expected_shapes,
    is_encoder_weight,
    usable_positions,
)
from neuronbert.errors import CheckpointError
from neuronbert.tasks.question_answering.task import HEAD


def encoder_parameters(model_type: str, **config: Any) -> int:
    total = 0
    for name, shape in expected_shapes(config, FAMILIES[model_type], HEAD).items():
        if is_encoder_weight(name):
            total += shape[0] * (shape[1] if len(shape) == 2 else 1)
    return total


LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


@pytest.mark.parametrize(
    "model_type, config, expected",
    [
        ("bert", {}, 85_054_464),  # BERT-base
        ("bert", LARGE, 302_309_376),  # BERT-large
        ("distilbert", {}, 42_527_232),
        ("roberta", {}, 85_054_464),
        ("electra", {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}, 85_054_464),
    ],
)
def test_encoder_parameters_of_published_models(model_type: str, config: Dict[str, Any], expected: int) -> None:
    assert encoder_parameters(model_type, **config) == expected


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
@pytest.mark.parametrize("changes", [{}, {"num_hidden_layers": 3, "vocab_size": 99}])
def test_names_and_shapes_are_those_of_transformers(model_type: str, changes: Dict[str, int]) -> None:
    if model_type == "distilbert" and changes:
        changes = {"n_layers": 3, "vocab_size": 99}
    model = tiny_model(model_type, **changes)
    found = expected_shapes(model.config.to_dict(), FAMILIES[model_type], HEAD)
    assert found == {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_defaults_are_those_of_transformers(model_type: str) -> None:
    import transformers

    family = FAMILIES[model_type]
    whole = getattr(transformers, family.config_class)().to_dict()
    assert expected_shapes({}, family, HEAD) == expected_shapes(whole, family, HEAD)


def test_electra_projects_only_where_the_widths_differ() -> None:
    family = FAMILIES["electra"]
    assert "electra.embeddings_project.weight" in expected_shapes({}, family, HEAD)
    assert "electra.embeddings_project.weight" not in expected_shapes({"embedding_size": 256}, family, HEAD)


@pytest.mark.parametrize(
    "model_type, config, tokens",
    [
        ("bert", {}, 512),
        ("roberta", {"max_position_embeddings": 514}, 512),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 0}, 513),
    ],
)
def test_usable_positions(model_type: str, config: Dict[str, int], tokens: int) -> None:
    assert usable_positions(config, FAMILIES[model_type]) == tokens


@pytest.mark.parametrize(
    "stored, expected",
    [
        ("encoder.layer.0.output.LayerNorm.gamma", "bert.encoder.layer.0.output.LayerNorm.weight"),
        ("bert.embeddings.LayerNorm.beta", "bert.embeddings.LayerNorm.bias"),
        ("module.bert.embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings.weight"),
        ("qa_outputs.weight", "qa_outputs.weight"),
        ("pooler.dense.weight", "bert.pooler.dense.weight"),
        ("some.gamma.weight", "some.gamma.weight"),
    ],
)
def test_canonical_names(stored: str, expected: str) -> None:
    assert canonical_name(stored, FAMILIES["bert"]) == expected


@pytest.mark.parametrize("value", [True, 1.5, "12", -1, 0, None, 10**9])
def test_sizes_that_are_no_numbers(value: Any) -> None:
    with pytest.raises(CheckpointError, match="num_hidden_layers is .*, and must be"):
        refuse_malformed({"num_hidden_layers": value}, "config.json")


def test_a_roberta_without_a_position_for_a_token() -> None:
    with pytest.raises(CheckpointError, match="max_position_embeddings is 2, and this model counts positions from 2"):
        usable_positions({"max_position_embeddings": 2, "pad_token_id": 1}, FAMILIES["roberta"])
