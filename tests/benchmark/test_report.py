"""Reports: the point of a measurement, knees and what meets a target, reading."""

import json

import numpy as np
import pytest
from made_reports import load_result, point

from neuronbert.benchmark import forms, report
from neuronbert.benchmark.columns import COLUMNS
from neuronbert.benchmark.load import LoadResult
from neuronbert.planner.planning import plan


def test_a_point_has_figures_intervals_cost_and_the_samples_behind_them():
    one = point(6, 8)
    assert set(COLUMNS) <= set(one) and len(one["samples_ms"]) == 1200
    low, high = one["intervals"]["latency_ms_p95"]
    assert low <= one["latency_ms_p95"] <= high
    assert one["latency_ms_p95"] == pytest.approx(np.percentile(one["samples_ms"], 95), rel=1e-4)
    assert one["cost_per_1m_inf"] == pytest.approx(0.228 / one["throughput_avg"] / 3600 * 1e6)
    assert one["price"]["region"] == "us-east-1" and one["price"]["date"]


def test_a_short_measurement_gives_no_p99_and_a_broken_one_no_figures():
    setting = {"batch_size": 1}
    assert report.measured_point(setting, load_result(10, 5, count=100))["latency_ms_p99"] is None
    nothing = report.measured_point(setting, LoadResult([], [], False, 1.0, errors={"Overloaded": 3}))
    assert nothing["latency_ms_p50"] is None and nothing["errors"] == 3 and nothing["cost_per_1m_inf"] is None
    json.loads(forms.as_json(report.document_of([nothing], command="", artifact={}, environment={})))


def marked(points):
    report.mark_knees(points)
    return [
        (one["variant"], one["batch_size"], one["concurrency"] or one["offered_qps"]) for one in points if one["knee"]
    ]


def test_the_knee_is_marked_once_on_each_curve():
    loads = (1, 2, 4, 8, 16)
    points = [point(batch, load, variant=variant) for variant in ("a", "b") for batch in (1, 4) for load in loads]
    assert marked(points) == [("a", 1, 2), ("a", 4, 2), ("b", 1, 2), ("b", 4, 2)]
    assert {one["knee"] for one in points} == {True, False}
    assert marked([point(4, 8)]) == []


def test_clients_that_wait_and_requests_that_come_are_two_curves():
    waiting = [point(4, clients) for clients in (1, 2, 4, 8)]
    coming = [{**point(4, load), "concurrency": None, "offered_qps": load} for load in (10, 20, 30)]
    assert marked([*waiting, *coming]) == [("neuron", 4, 2)]


def test_what_refuses_requests_is_past_its_knee():
    points = [point(4, clients) for clients in (1, 2, 4, 8)]
    for one in points[1:]:
        one["errors"] = 3
    assert marked(points) == [("neuron", 4, 1)]


def test_the_planner_reads_it(tmp_path, monkeypatch):
    made = report.document_of(
        [point(8, 16, instance_type="c5.xlarge", engine="openvino", mode=None)], command="", artifact={}, environment={}
    )
    forms.write_report(made, tmp_path / "r.json")
    (tmp_path / "config.json").write_text(json.dumps(
        {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    ))  # fmt: skip
    found = plan(str(tmp_path), sequence_length=128, throughput=10, measured=tmp_path / "r.json")
    assert any(one.measured for one in found.ranked)


def test_the_best_point_within_the_latency_target_is_marked():
    points = [point(6, concurrency) for concurrency in (1, 2, 4, 8, 16)]
    latencies = sorted(one["latency_ms_p95"] for one in points)
    report.document_of(points, command="", artifact={}, environment={}, latency_p95_ms=latencies[2])
    within = (one for one in points if one["latency_ms_p95"] <= latencies[2])
    assert [one for one in points if one["at_target"]] == [max(within, key=lambda one: one["throughput_avg"])]
