"""What is particular to ONNX Runtime: the fusions that happen, and how its precision is read where it does not tell."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, List, Tuple

import numpy as np
import pytest
from tiny_source import TinySource

from neuronbert.backends import onnxruntime
from neuronbert.backends.base import Batch
from neuronbert.checkpoint.families import FAMILIES
from neuronbert.errors import BackendFailed
from neuronbert.hardware.machine import VNNI
from neuronbert.tasks.question_answering.task import OUTPUTS

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


class Reader:
    """In place of ONNX Runtime's session: logits that are sums over all of a batch, as a shared scale would have it."""

    def __init__(self, most_tokens: int = 1000):
        self.shapes: List[Tuple[int, ...]] = []
        self.most_tokens = most_tokens

    def get_inputs(self) -> Any:
        return [SimpleNamespace(name=name) for name in Batch._fields]

    def run(self, names: Any, inputs: Any) -> Any:
        ids = inputs["input_ids"]
        self.shapes.append(ids.shape)
        return [np.cumsum(ids, axis=1)[:, : self.most_tokens] + ids.sum()] * 2


def test_in_int8_rows_run_by_themselves_without_their_padding() -> None:
    ids = np.arange(1, 25).reshape(4, 6)
    mask = np.array([[1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0], [1] * 6, [0] * 6])  # with a hole, and with nothing at all
    reader = Reader()
    session = onnxruntime.OnnxRuntimeSession(reader, OUTPUTS, 1, "int8")
    found = session.run(Batch(ids, mask, np.zeros_like(ids)))["start_logits"]
    assert reader.shapes == [(1, 2), (1, 4), (1, 6), (1, 6)] and found.shape == (4, 6)
    for row, tokens in enumerate((2, 4, 6, 6)):
        own = ids[row, :tokens]
        assert found[row].tolist() == (np.cumsum(own) + own.sum()).tolist() + [0] * (6 - tokens)
    together = Reader()
    onnxruntime.OnnxRuntimeSession(together, OUTPUTS, 1, "fp32").run(Batch(ids, mask, np.zeros_like(ids)))
    assert together.shapes == [(4, 6)]


def test_outputs_that_are_too_short_are_not_filled_up() -> None:
    session = onnxruntime.OnnxRuntimeSession(Reader(most_tokens=3), OUTPUTS, 1, "int8")
    ids = np.ones((2, 5), dtype=np.int64)
    with pytest.raises(BackendFailed, match=r"start_logits the shape \(1, 3\) for a batch of 1 × 5 tokens"):
        session.run(Batch(ids, ids, np.zeros_like(ids)))


def test_each_thread_has_a_stream() -> None:
    assert onnxruntime.throughput_plan(6)[:2] == (6, 4)
