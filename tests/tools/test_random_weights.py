"""neuronbert_tools.random_weights: a model of random weights runs in the operators that a trained one runs in."""

from pathlib import Path

import pytest

from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert_tools.acceptance.bert_base import write_bert

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def test_onnx_runtime_has_all_its_operators_for_it(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    checkpoint = write_bert(tmp_path / "checkpoint", **sizes)
    made = compile_checkpoint(
        checkpoint, tmp_path / "artifact", backend="onnxruntime", precision="fp32", skip_gate=True
    )
    fusions = made.variants[0]["recipe"]["fusions"]
    assert fusions == {"EmbedLayerNormalization": 1, "Attention": 2, "BiasGelu": 2, "LayerNormalization": 4}
