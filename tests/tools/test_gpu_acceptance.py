"""What tools/gpu_acceptance says where there is no GPU, and what it makes of what was measured on one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np
import pytest

pytest.importorskip("torch", minversion="2.4")

from neuronbert.backends import backend_module
from neuronbert.backends.cuda.backend import PRECISIONS
from neuronbert.backends.cuda.graph import Graph
from neuronbert.checkpoint.head_steps import Column, linear
from neuronbert.errors import BackendUnavailable
from neuronbert.hardware.device_model import BERT_BASE
from neuronbert.hardware.gpu_model import published_rows
from neuronbert.hardware.prices import load_prices
from neuronbert_tools.acceptance.bert_base import write_bert
from neuronbert_tools.gpu.contenders import ONNXRUNTIME, WAYS, Contender, onnxruntime_ways
from neuronbert_tools.gpu.steps import MODELS, STEPS, GpuAcceptance, fastest, in_turns, latency_of
from neuronbert_tools.gpu_acceptance import available, make_report, parse

SCRIPT = Path(__file__).parents[2] / "tools" / "gpu_acceptance"
H200 = {"gpus": [{"name": "NVIDIA H200", "compute_capability": "9.0", "memory_bytes": 150754820096}]}
LOGITS = linear("qa_outputs")
BASE = Graph(
    vocabulary=30522, positions=512, token_types=2, embedding_width=768, hidden=768, layers=12, heads=12,
    intermediate=3072, activation="gelu", norm_epsilon=1e-12, skips_padding_id=False, padding_id=0,
    head=((LOGITS, Column(0)), (LOGITS, Column(1))),
)  # fmt: skip


class Row(NamedTuple):
    input_ids: np.ndarray
    token_type_ids: np.ndarray


def rows_of(lengths: Sequence[int]) -> List[Row]:
    return [Row(np.arange(5, 5 + length), np.zeros(length, dtype=np.int64)) for length in lengths]


def speed(model: str, **rates: float) -> Dict[str, Any]:
    ways = {name.replace("_", " "): {"rows_per_s": rate} for name, rate in rates.items()}
    return {"name": f"speed {model}", "ok": True, "result": {"ways": ways}}


def test_without_a_gpu_it_says_so_and_leaves_no_report(tmp_path):
    report = tmp_path / "report.json"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--output", str(report)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and not report.exists(), done.stderr
    assert "no GPU can be used here" in done.stderr and "try: neuronbert doctor" in done.stderr


def test_names_that_are_none_are_usage_errors(capsys):
    for option, offered in (("only", STEPS), ("models", MODELS), ("precisions", PRECISIONS), ("ways", WAYS)):
        with pytest.raises(SystemExit, match="2"):
            parse([f"--{option}", "everything"])
        assert f"--{option} takes {', '.join(offered)}" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        parse(["--rounds", "0"])
    assert parse(["--only", "speed, latency,speed"]).only == ["speed", "latency"]


def test_the_report_has_what_failed_what_is_published_and_what_a_million_rows_cost():
    steps = [speed("bert-large", neuronbert_bf16=4557.0, neuronbert_fp8=6049.0, transformers_fp16=9e9),
             {"name": "latency bert-large", "ok": False, "error": "RuntimeError: no"}]  # fmt: skip
    report = make_report(parse([]), steps, H200)
    assert json.loads(json.dumps(report)) == report and report["failed"] == ["latency bert-large"]
    large = [row for row in published_rows() if row.model == "bert-large"]
    assert [row["share"] for row in report["beside_published"]] == [6049.0 / row.per_gpu_per_s for row in large]
    (cost,) = report["usd_per_million"]
    assert cost["instance_type"] == "p5en.48xlarge" and cost["way"] == "neuronbert fp8"
    hourly = load_prices().price("p5en.48xlarge").usd_per_hour
    assert cost["usd_per_million"] == pytest.approx(hourly / 8 / 6049 / 3600 * 1e6)


def test_a_failed_speed_and_a_gpu_that_no_size_has_claim_nothing():
    failed = {"name": "speed bert-large", "ok": False, "error": "out of memory"}
    report = make_report(parse([]), [failed], H200)
    assert report["beside_published"] == [] and report["usd_per_million"] == []
    other = {"gpus": [{"name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9", "memory_bytes": 1}]}
    assert make_report(parse([]), [speed("bert-base", neuronbert_bf16=1.0)], other)["usd_per_million"] == []
    assert fastest([failed, speed("bert-base", neuronbert_bf16=1.0)]) == {"bert-base": ("neuronbert bf16", 1.0)}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("NVIDIA A100-SXM4-40GB", ["p4d.24xlarge"]), ("NVIDIA H100 80GB HBM3", ["p5.4xlarge", "p5.48xlarge"]), ("", [])],
)
def test_a_gpu_is_known_by_the_name_that_its_driver_gives(name, sizes):
    where = {"gpus": [{"name": name}] if name else []}
    report = make_report(parse([]), [speed("bert-base", neuronbert_bf16=1000.0)], where)
    assert [cost["instance_type"] for cost in report["usd_per_million"]] == sizes


def test_a_precision_that_a_gpu_has_not_is_left_out_with_the_reason(monkeypatch, capsys):
    def check(precision: str) -> None:
        if precision in missing:
            raise BackendUnavailable(f"no {precision} here", hint="another GPU")

    missing = {"fp8"}
    monkeypatch.setattr(backend_module("cuda"), "check_available", check)
    there, absent = available(PRECISIONS)
    assert there == ["fp32", "tf32", "bf16", "fp16"] and list(absent) == ["fp8"]
    assert "fp8 is left out: no fp8 here" in capsys.readouterr().err
    missing.update(PRECISIONS)
    with pytest.raises(BackendUnavailable, match="no fp32 here"):
        available(PRECISIONS)


@pytest.mark.parametrize("tokens", [1, 128, 384])
def test_the_flops_are_those_of_the_plan(tokens):
    # Biases and norms are among the weights that the plan counts.
    assert BASE.flops(np.array([tokens] * 3)) == pytest.approx(3 * BERT_BASE.flops(tokens), rel=2e-3)


def test_contenders_take_turns_and_the_first_turn_counts_for_nothing():
    calls: List[str] = []
    ways = [Contender(name, lambda rows, name=name: calls.append(name)) for name in ("a", "b")]
    samples = in_turns(ways, rows_of([3]), rounds=2)
    assert calls == ["a", "b"] * 3 and {name: len(seconds) for name, seconds in samples.items()} == {"a": 2, "b": 2}


def test_latencies_are_of_each_row_after_a_pass_that_counts_for_nothing():
    asked: List[int] = []
    found = latency_of(lambda row: asked.append(len(row.input_ids)), rows_of([3, 5]))
    assert asked == [3, 5, 3, 5] and found["rows"] == 2 and 0 <= found["p50_ms"] <= found["p99_ms"]


def test_a_step_that_fails_is_recorded_and_the_next_one_runs(tmp_path):
    saved: List[int] = []
    acceptance = GpuAcceptance(parse([]), tmp_path, lambda steps: saved.append(len(steps)))
    assert acceptance.step("wrong", lambda: 1 // 0) is None and acceptance.step("right", lambda: 7) == 7
    assert [step["ok"] for step in acceptance.steps] == [False, True] and saved == [1, 2]
    assert "ZeroDivisionError" in acceptance.steps[0]["error"]


def test_onnx_runtime_in_16_bits_is_the_same_model_and_absent_without_its_provider(tmp_path):
    pytest.importorskip("onnxruntime")
    import torch
    from transformers import BertForQuestionAnswering

    sizes = {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
    folder = write_bert(tmp_path / "checkpoint", **sizes)
    assert ONNXRUNTIME in WAYS and onnxruntime_ways(folder, tmp_path / "none", "NoExecutionProvider") == []
    way, _ = onnxruntime_ways(folder, tmp_path / "onnxruntime", "CPUExecutionProvider")
    rows = rows_of([9, 20, 9])
    ((start, end),) = way.run(rows)
    assert start.shape == end.shape == (3, 20) and start.dtype == np.float32
    model = BertForQuestionAnswering.from_pretrained(str(folder)).eval()
    longest = torch.from_numpy(rows[1].input_ids)[None]
    with torch.no_grad():
        expected = model(longest, torch.ones_like(longest), torch.zeros_like(longest))
    np.testing.assert_allclose(start[0], expected.start_logits[0].numpy(), atol=5e-3)
    np.testing.assert_allclose(end[0], expected.end_logits[0].numpy(), atol=5e-3)
