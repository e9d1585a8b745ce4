"""Engines run a model whose layers have different numbers of heads and columns, as compiler/ladder.py exports it."""

from pathlib import Path
from typing import Any

import pytest
from tiny_source import SIZES, TinySource, difference, random_batch

from neuronbert.backends import load_backend
from neuronbert.checkpoint.families import FAMILIES
from neuronbert.checkpoint.removal import Kept, Sizes

pytest.importorskip("torch")
LIBRARIES = {"openvino": ("openvino", "nncf"), "onnxruntime": ("onnx", "onnxruntime"), "torchscript": ("torch",)}


def uneven(model_type: str) -> TinySource:
    """Three heads of four in the first layer and one in the second, and half of the second one's columns."""
    from neuronbert.checkpoint.pruning import pruned

    source = TinySource(model_type)
    hidden, heads, columns = (SIZES[key] for key in ("hidden_size", "num_attention_heads", "intermediate_size"))
    kept = [Kept((0, 2, 3), tuple(range(columns))), Kept((1,), tuple(range(columns // 2)))]
    source._model = pruned(source.torch_model(), source.family, Sizes(2, hidden, heads, columns, 20, 400), kept)
    return source


def exported(source: TinySource, backend: str, precision: str, folder: Path) -> Any:
    """What the backend's export says, and a session of what it wrote."""
    for library in LIBRARIES[backend]:
        pytest.importorskip(library)
    module = load_backend(backend)
    result = module.export(source, precision, module.recipes(precision)[0], folder)
    variant = {"name": "pruned", "backend": backend, "precision": precision, "recipe": result.recipe}
    return result, module.load(folder, variant, outputs=source.outputs, threads=1, streams=1)


@pytest.mark.parametrize(
    ("backend", "precision", "most"),
    [
        ("torchscript", "fp32", 1e-5),
        ("onnxruntime", "fp32", 1e-5),
        ("onnxruntime", "int8", 0.2),
        ("openvino", "fp32", 1e-5),
        ("openvino", "int8", 0.2),
    ],
)
def test_layers_may_have_different_numbers_of_heads(tmp_path: Path, backend: str, precision: str, most: float) -> None:
    source, batch = uneven("bert"), random_batch(3, 21, padding=4)
    _, session = exported(source, backend, precision, tmp_path)
    assert difference(session.run(batch), source.logits(batch), batch.attention_mask) < most
    assert session.precision == precision


@pytest.mark.parametrize("model_type", FAMILIES)
def test_onnxruntime_fuses_attention_with_each_layer_s_own_heads(tmp_path: Path, model_type: str) -> None:
    """With the config's number of heads the fused attention computes something else, and says nothing."""
    source, batch = uneven(model_type), random_batch(3, 21, padding=4)
    result, session = exported(source, "onnxruntime", "fp32", tmp_path)
    assert result.recipe["fusions"]["Attention"] == 2
    assert difference(session.run(batch), source.logits(batch), batch.attention_mask) < 1e-5
