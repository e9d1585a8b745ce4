"""What is particular to ONNX Runtime: the fusions that happen, and how its precision is read where it does not tell."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_source import TinySource

from neuronbert.backends import onnxruntime
from neuronbert.checkpoint.families import FAMILIES
from neuronbert.errors import BackendFailed
from neuronbert.hardware.machine import VNNI

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("model_type", FAMILIES)
def test_attention_and_gelu_are_fused_in_every_layer(tmp_path: Path, model_type: str) -> None:
    result = onnxruntime.export(TinySource(model_type), "fp32", {}, tmp_path)
    fusions = result.recipe["fusions"]
    assert (fusions.get("Attention"), fusions.get("BiasGelu")) == (2, 2)
    assert fusions.get("LayerNormalization") in (4, 5) and "SkipLayerNormalization" not in fusions  # 5 with embeddings'
    assert [file.name for file in tmp_path.iterdir()] == [onnxruntime.FILE_NAME]


@pytest.mark.parametrize("reduce_range", (False, True))
def test_int8_keeps_weights_to_seven_bits_where_the_cpu_would_overflow(tmp_path: Path, reduce_range: bool) -> None:
    recipe = dict(onnxruntime.recipes("int8")[0], reduce_range=reduce_range)
    result = onnxruntime.export(TinySource(), "int8", recipe, tmp_path)
    assert result.requires["cpu_flags"] == ([] if reduce_range else [VNNI])
    assert largest_weight(tmp_path / onnxruntime.FILE_NAME) == (64 if reduce_range else 127)


def largest_weight(path: Path) -> int:
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer]
    return max(
        int(np.abs(tensor.astype(np.int64)).max()) for tensor in tensors if tensor.dtype == np.int8 and tensor.ndim == 2
    )


def test_the_head_can_stay_in_fp32(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    recipe = onnxruntime.recipes("int8")[1]
    assert recipe["keep_head"]
    onnxruntime.export(TinySource(), "int8", recipe, tmp_path)
    nodes = onnx.load(str(tmp_path / onnxruntime.FILE_NAME)).graph.node
    assert [node.op_type for node in nodes].count("MatMul") == 1


def test_a_load_that_fails_says_so_once_and_not_on_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The runtime would try the same provider again, and print about it."""
    from onnxruntime import InferenceSession

    tried = []

    def fail(session: Any, *_: Any) -> None:
        tried.append(session)
        raise RuntimeError("bad allocation")

    monkeypatch.setattr(InferenceSession, "_create_inference_session", fail)
    onnxruntime.export(TinySource(), "fp32", {}, tmp_path)
    capfd.readouterr()
    with pytest.raises(BackendFailed, match="bad allocation"):
        onnxruntime.load(tmp_path, {}, outputs=TinySource().outputs, threads=1, streams=1)
    assert len(tried) == 1 and capfd.readouterr().out == ""


def test_precision_is_read_from_the_file_where_the_runtime_does_not_tell(tmp_path: Path) -> None:
    class Silent:
        """Like a session of ONNX Runtime before 1.24."""

    silent: Any = Silent()
    for precision in ("fp32", "int8"):
        folder = tmp_path / precision
        folder.mkdir()
        onnxruntime.export(TinySource(), precision, onnxruntime.recipes(precision)[0], folder)
        assert onnxruntime._precision(silent, folder / onnxruntime.FILE_NAME) == precision
