"""The packed encoder with its head against transformers' layers: every family, task, pooling and option of a config."""

from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import pytest
from packed_models import EXACT, LABELS, TASKS, batch_of, encoder_source, farthest, on_cpu
from tiny_source import TinySource, random_batch

from neuronbert.backends.base import Batch
from neuronbert.backends.cuda.graph import ACTIVATIONS
from neuronbert.checkpoint.families import FAMILIES
from neuronbert.tasks.feature_extraction.modules import ACTIVATIONS as DENSE_ACTIVATIONS
from neuronbert.tasks.feature_extraction.modules import NORMALIZE, POOLINGS, Dense, SentenceModules

torch = pytest.importorskip("torch", minversion="2.4")
pytest.importorskip("safetensors")

# Rows that end in padding, a single token, and the most tokens that every family has positions for.
BATCHES = [
    random_batch(3, 20, padding=6),
    random_batch(1, 1),
    random_batch(5, 33, seed=1, padding=8),
    random_batch(2, 78, seed=2, padding=77),
]


def assert_exact(source: TinySource, folder: Path, batches: Optional[List[Batch]] = None) -> None:
    session = on_cpu(source, folder)
    for batch in batches or BATCHES:
        assert farthest(session.run(batch), source.logits(batch), source, batch) < EXACT
    session.close()


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_agrees_with_transformers(tmp_path: Path, model_type: str, name: str) -> None:
    assert_exact(TinySource(model_type, TASKS[name], **LABELS), tmp_path)


CONFIGS: Dict[str, Dict[str, Any]] = {
    "types of other tokens are ignored": {"model_type": "bert", "uses_token_types": False},
    "electra without types": {"model_type": "electra", "uses_token_types": False},
    "electra without a projection": {"model_type": "electra", "embedding_size": 32},
    "electra with wide embeddings": {"model_type": "electra", "embedding_size": 48},
    "one layer": {"num_hidden_layers": 1},
    "heads of 5 numbers": {"hidden_size": 30, "num_attention_heads": 6, "intermediate_size": 31},
    "heads of 11 numbers": {"hidden_size": 33, "num_attention_heads": 3},
    "one head": {"num_attention_heads": 1},
    "heads of one number": {"hidden_size": 7, "num_attention_heads": 7},
    "another epsilon": {"layer_norm_eps": 0.05},
    "distilbert has an epsilon of its own": {"model_type": "distilbert", "layer_norm_eps": 0.05},
    "roberta's padding has another id": {"model_type": "roberta", "pad_token_id": 1, "layer_norm_eps": 1e-5},
    "roberta's padding is 0": {"model_type": "roberta", "pad_token_id": 0},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_whatever_the_config_says(tmp_path: Path, name: str) -> None:
    assert_exact(TinySource(**CONFIGS[name]), tmp_path, BATCHES[:3])


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_agrees_on_every_activation(tmp_path: Path, activation: str, model_type: str) -> None:
    from neuronbert.checkpoint.reference_model import transformers

    if activation not in transformers.activations.ACT2FN:
        pytest.skip(f"transformers {transformers.__version__} has no {activation}")
    key = "activation" if model_type == "distilbert" else "hidden_act"
    assert_exact(TinySource(model_type, **{key: activation}), tmp_path, BATCHES[:2])


def test_an_activation_changes_what_comes_out(tmp_path: Path) -> None:
    """Else the test above would say nothing."""
    found = []
    for activation in sorted(set(ACTIVATIONS.values())):
        folder = tmp_path / activation
        folder.mkdir()
        name = {"gelu_tanh": "gelu_new"}.get(activation, activation)
        found.append(on_cpu(TinySource(hidden_act=name), folder).run(BATCHES[0])["start_logits"])
    for number, one in enumerate(found):
        for other in found[:number]:
            assert np.abs(one - other).max() > 2 * EXACT


def test_roberta_counts_positions_over_tokens_that_are_not_padding(tmp_path: Path) -> None:
    """Its padding's id inside a row, at its beginning, and seen by the mask; other ids in hidden tokens count."""
    source = TinySource("roberta")
    batch = batch_of(np.ones((4, 12)), seed=3)
    batch.input_ids[0, 4:7] = 1
    batch.input_ids[1, 0] = 1
    batch.input_ids[2, :] = 1
    batch.attention_mask[3, 5:8] = 0
    batch.attention_mask[1, 9:] = 0
    assert_exact(source, tmp_path, [batch])


def dense(number: int, inputs: int, outputs: int, **settings: Any) -> Dense:
    given: Dict[str, Any] = {"bias": True, "activation": "identity", "residual": False, **settings}
    return Dense(name=f"dense_{number}", inputs=inputs, outputs=outputs, **given)


SENTENCES = {
    **{pooling: SentenceModules((pooling,)) for pooling in POOLINGS},
    "every pooling": SentenceModules(POOLINGS),
    "every pooling, the other way": SentenceModules(POOLINGS[::-1], layers=(NORMALIZE,)),
    "no pooling": SentenceModules(()),
    "length 1": SentenceModules(("mean",), layers=(NORMALIZE,)),
    "prompts do not count": SentenceModules(("mean", "cls"), include_prompt=False, layers=(NORMALIZE,)),
    **{
        f"dense {activation}": SentenceModules(("mean",), layers=(dense(0, 32, 9, activation=activation),))
        for activation in DENSE_ACTIVATIONS
    },
    "without a bias": SentenceModules(("cls",), layers=(dense(0, 32, 5, bias=False, activation="tanh"),)),
    "plus its input": SentenceModules(("max",), layers=(dense(0, 32, 32, residual=True, activation="gelu"),)),
    "plus its input in other numbers": SentenceModules(
        ("mean",), layers=(dense(0, 32, 7, residual=True, bias=False, activation="silu"),)
    ),
    "one behind another": SentenceModules(
        ("mean", "max"),
        layers=(
            dense(0, 64, 32, activation="tanh"),
            NORMALIZE,
            dense(1, 32, 1, residual=True, activation="sigmoid"),
            dense(2, 1, 8, activation="relu"),
            NORMALIZE,
        ),
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_agrees_on_every_head_of_sentences(tmp_path: Path, name: str) -> None:
    source = encoder_source(SENTENCES[name])
    assert len(source.outputs) == (2 if name == "prompts do not count" else 1)
    assert_exact(source, tmp_path)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_agrees_on_sentences_of_every_family(tmp_path: Path, model_type: str) -> None:
    assert_exact(encoder_source(SENTENCES["one behind another"], model_type), tmp_path)


def test_vectors_of_almost_no_length_are_normalised_as_torch_does() -> None:
    from neuronbert.backends.cuda.attention import Rows
    from neuronbert.backends.cuda.head import apply_head
    from neuronbert.checkpoint.head_steps import Normalize

    hidden = torch.ones(5, 4) * torch.tensor([0.0, 1e-20, 1e-9, 1e-3, 7.0])[:, None]
    numbers = torch.arange(5, dtype=torch.int32)
    rows = Rows(torch.arange(6, dtype=torch.int32), numbers, numbers * 0, 1)
    (found,) = apply_head(((Normalize(),),), {}, hidden, rows)
    torch.testing.assert_close(found, torch.nn.functional.normalize(hidden, dim=-1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("labels", [1, 2, 17])
def test_agrees_on_any_number_of_labels(tmp_path: Path, labels: int) -> None:
    names = {str(number): f"label {number}" for number in range(labels)}
    assert_exact(TinySource("electra", TASKS["text-classification"], id2label=names), tmp_path, BATCHES[:2])
