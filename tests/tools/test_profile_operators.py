"""tools/profile_operators: what engines count, and what is made of it."""

import json
from pathlib import Path
from typing import Any, Dict

import pytest

from neuronbert.artifact.manifest import Artifact
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.errors import UsageError
from neuronbert_tools.profile_operators import (
    Sizes,
    last_run_of,
    main,
    make_report,
    products_gop,
    refuse_odd,
    shapes,
    table,
)

BERT_BASE = Sizes(layers=12, hidden=768, inner=3072, vocabulary=30522)


def test_products_of_bert_base() -> None:
    # A token takes two operations for each of the 85 million weights of the layers' matrices.
    weights = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert products_gop(BERT_BASE, 1, 1) == pytest.approx(2e-9 * (weights + 12 * 2 * 768))
    assert products_gop(BERT_BASE, 8, 128) == pytest.approx(8 * products_gop(BERT_BASE, 1, 128))
    assert sum(inner * columns for _, inner, columns in shapes(BERT_BASE, 5)) == 768 * 768 + 2 * 768 * 3072


def test_a_trace_is_read_from_its_last_run_on() -> None:
    def node(ts: int, name: str, kind: str, dur: int) -> Dict[str, Any]:
        return {"cat": "Node", "name": name, "ts": ts, "dur": dur, "args": {"op_name": kind}}

    run = {"cat": "Session", "name": "model_run", "dur": 90}
    events = [
        {"cat": "Session", "name": "model_loading", "ts": 0, "dur": 1},
        {**run, "ts": 10},
        node(11, "a_kernel_time", "MatMul", 7000),
        {**run, "ts": 100},
        node(101, "a_kernel_time", "MatMul", 2000),
        node(102, "a_fence_after", "MatMul", 500),
        node(103, "b_kernel_time", "MatMul", 1000),
        node(104, "c_kernel_time", "Add", 1000),
    ]
    assert last_run_of(events) == {"MatMul": 3.0, "Add": 1.0}


def test_what_a_free_operator_would_give() -> None:
    runs = [{"FullyConnected": 6.0, "Eltwise": 2.0, "Result": 0.0}, {"FullyConnected": 6.0, "Eltwise": 2.0}]
    gop = products_gop(BERT_BASE, 1, 128)
    report = make_report(runs, BERT_BASE, 1, 128, {"a": 1.0, "b": 2 * gop / 6e-3})
    assert [(each["kind"], each["share"]) for each in report["operators"]] == [
        ("FullyConnected", 0.75),
        ("Eltwise", 0.25),
    ]
    assert [each["were_it_free"] for each in report["operators"]] == [4.0, pytest.approx(8 / 6)]
    assert report["products"]["share_of_plain"] == pytest.approx(0.5)
    assert report["products_at_that_rate"] == pytest.approx(8 / 5)
    assert report["others_free"] == pytest.approx(8 / 6)
    assert "FullyConnected" in table(report) and "1.60 times as fast" in table(report)


@pytest.mark.parametrize(
    ("backend", "precision"), [("openvino", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")]
)
def test_engines_count_their_operators(
    tiny_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], backend: str, precision: str
) -> None:
    pytest.importorskip(backend)
    folder = tmp_path / backend
    compile_checkpoint(tiny_checkpoint, folder, backend=backend, precision=precision, skip_gate=True, threads=1)
    where = [
        str(folder),
        "--variant",
        f"{backend}-{precision}",
        "--rows",
        "2",
        "--tokens",
        "16",
        "--threads",
        "1",
        "--runs",
        "2",
    ]
    assert main([*where, "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert sum(each["share"] for each in report["operators"]) == pytest.approx(1)
    assert 0 < report["products"]["ms"] < report["whole_ms"]
    assert "operator" in capfd.readouterr().err
    assert "SkipLayerNormalization" not in {each["kind"] for each in report["operators"]}  # slower than its two parts


def test_what_is_no_whole_model_of_these_engines_is_refused(echo_artifact: Artifact) -> None:
    whole = {"name": "it", "backend": "openvino", "precision": "int8", "recipe": {}}
    refuse_odd(whole)
    for odd in ({"cascade": {}}, {"recipe": {"pruned": {}}}, {"recipe": {"student": {}}}, {"precision": "bf16"}):
        with pytest.raises(UsageError, match="^it is "):
            refuse_odd({**whole, **odd})
    with pytest.raises(UsageError, match="is of echo"):
        main([str(echo_artifact.folder), "--variant", "echo"])
