"""The sweep, on the echo backend: real workers, real clients, short windows."""

import dataclasses
import inspect
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert import benchmark_artifact, load_artifact
from neuronbert.benchmark import artifact_target
from neuronbert.benchmark import sweep as benchmark
from neuronbert.benchmark.asked_inputs import evenly_mixed
from neuronbert.benchmark.load import Period
from neuronbert.benchmark.measure import full_rows
from neuronbert.benchmark.points import CLOSED, Axes, LoadSpec, settings_of
from neuronbert.benchmark.report_file import read_report
from neuronbert.benchmark.sweep_plan import SweepOptions, announcement
from neuronbert.benchmark.tables import warnings_of
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import ArtifactError, BackendFailed, GateRefused, InputError, OutputError, UsageError
from neuronbert.tasks.question_answering import task as question_answering


@pytest.fixture(autouse=True)
def short_periods(monkeypatch):
    monkeypatch.setattr(benchmark, "Period", lambda longest_s: Period(warm_up_s=0.1, window_s=0.1, longest_s=longest_s))


def measured(artifact, **options):
    default = {} if {"scenario", "request_rate", "loadgen"} & set(options) else {"concurrency": "1,4"}
    return benchmark_artifact(artifact, **{**default, "longest_s": 0.4, **options})


def test_a_sweep_has_a_point_for_every_combination(echo_artifact, tmp_path):
    lines, done = [], []
    document = measured(
        echo_artifact, batch_size="1,8", sequence_length="64", report=tmp_path / "report.json", progress=lines.append,
        on_point=lambda *counts: done.append(counts),
    )  # fmt: skip
    assert done == [(0, 4), (1, 4), (2, 4), (3, 4)]
    points = document["points"]
    assert [(one["batch_size"], one["concurrency"], one["sequence_length"]) for one in points] == [
        (1, 1, 64),
        (1, 4, 64),
        (8, 1, 64),
        (8, 4, 64),
    ]
    assert all(one["throughput_avg"] > 0 and one["latency_ms_p50"] > 0 and one["errors"] == 0 for one in points)
    assert all(one["host_cpu_us"] > 0 and one["cold_start_s"] > 0 for one in points)
    assert "4 points, about" in lines[0] and len(lines) == 5
    assert read_report(tmp_path / "report.json") == json.loads(json.dumps(document))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json"]


@pytest.mark.parametrize("option", ["compare", "input_data", "prices"])
def test_a_report_is_not_written_over_what_it_is_made_from(echo_artifact, tmp_path, option):
    path = tmp_path / "report.json"
    path.write_text("precious")
    with pytest.raises(OutputError, match="would be written, and is the input"):
        measured(echo_artifact, report=path, **{option: path})
    assert path.read_text() == "precious"


def test_a_report_is_not_written_into_the_artifact(echo_copy):
    before = sorted(echo_copy.rglob("*"))
    for name in ("neuronbert.json", "report.json"):
        with pytest.raises(OutputError, match="would be written into the artifact"):
            measured(load_artifact(echo_copy), report=echo_copy / name)
    assert sorted(echo_copy.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ({"scenario": "single-stream"}, "concurrency", [1]),
        ({"scenario": "offline", "batch_size": "2"}, "concurrency", [8]),
        ({"scenario": "server", "request_rate": "20:60:20"}, "offered_qps", [20, 40, 60]),
    ],
)
def test_scenarios(echo_artifact, options, key, value):
    assert [point[key] for point in measured(echo_artifact, **options)["points"]] == value


def test_a_server_without_a_rate_is_asked_for_a_share_of_what_offline_reaches(echo_artifact):
    offline, server = measured(echo_artifact, scenario="server")["points"]
    assert offline["offered_qps"] is None
    assert server["offered_qps"] == pytest.approx(0.6 * offline["throughput_avg"], rel=0.01)


def test_threads_are_an_axis(echo_artifact):
    points = measured(echo_artifact, threads="1", concurrency="1")["points"]
    assert [(one["threads"], one["n_models"]) for one in points] == [(1, 1)]
    assert all(one["memory_bytes"] > 1e6 for one in points)


def test_loadgen_measures_all_scenarios_too(echo_artifact, tmp_path):
    pytest.importorskip("mlperf_loadgen")
    report = tmp_path / "report.csv"
    points = measured(echo_artifact, loadgen=True, longest_s=1.0, report=report)["points"]
    assert [one["loadgen_scenario"] for one in points] == ["SingleStream", "Offline", "Server"]
    assert points[2]["offered_qps"] == pytest.approx(0.6 * points[1]["throughput_avg"], rel=0.01)
    for point in points:
        assert point["loadgen_errors"] == {} and point["loadgen_queries"] > 0 and point["loadgen_throughput"] > 0
        assert (tmp_path / "report.csv.loadgen" / point["loadgen_logs"] / "mlperf_log_summary.txt").exists()
    assert "loadgen_throughput" in report.read_text().splitlines()[0]


def test_a_long_sweep_says_so_first(echo_artifact):
    settings = settings_of(echo_artifact.variants, Axes(), [LoadSpec(CLOSED, number) for number in range(1, 500)])
    lines = list(announcement(settings, {}, 15.0, loadgen=False))
    assert "499 points, about" in lines[0] and "that is long" in lines[1]


def test_what_there_is_no_room_for_is_left_out_and_said(echo_artifact):
    lines = []
    points = measured(echo_artifact, workers="1,1000", concurrency="1", progress=lines.append)["points"]
    assert [one["n_models"] for one in points] == [1] and "1 point left out: 1,000 workers are more" in lines[0]
    with pytest.raises(UsageError, match="no point of this sweep can be: 1,000 workers are more"):
        measured(echo_artifact, workers="1000")


def test_a_point_that_fails_does_not_lose_the_others(echo_artifact, monkeypatch):
    real = artifact_target.measure

    def fails(artifact, setting, *more):
        if setting.batch_size == 2:
            raise BackendFailed("the device is gone")
        return real(artifact, setting, *more)

    monkeypatch.setattr(artifact_target, "measure", fails)
    document = measured(echo_artifact, batch_size="1,2,4", concurrency="1")
    assert [one["batch_size"] for one in document["points"]] == [1, 4]
    assert document["left_out"] == {"the device is gone": 1}
    assert "1 point left out: the device is gone." in warnings_of(document)
    with pytest.raises(BackendFailed):
        measured(echo_artifact, batch_size="2", concurrency="1")


def test_questions_without_text_for_a_length_are_said_before_anything_is_measured(echo_artifact, tmp_path):
    (tmp_path / "short.jsonl").write_text('{"question": "Who?", "context": "Me."}\n')
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UsageError, match="no text of 128 tokens"):
        measured(echo_artifact, input_data=tmp_path / "short.jsonl", sequence_length="128")
    with pytest.raises(InputError, match="holds no question"):
        measured(echo_artifact, input_data=tmp_path / "empty.jsonl")


def test_the_options_of_a_sweep_are_those_of_the_call_in_their_order():
    parameters = list(inspect.signature(benchmark_artifact).parameters)
    assert [
        "artifact",
        *(field.name for field in dataclasses.fields(SweepOptions)),
        "trusted_key",
        "progress",
        "on_point",
    ] == parameters


def test_the_command_of_an_api_call_has_its_options(echo_artifact):
    document = measured(echo_artifact.folder, concurrency="1", batch_size="2")
    assert document["command"].startswith(f"benchmark_artifact({str(echo_artifact.folder)!r}, batch_size='2'")


def test_an_interrupted_sweep_goes_on(echo_artifact, tmp_path, monkeypatch):
    report = tmp_path / "report.json"
    real, left = artifact_target.measure, [2]

    def interrupted(*arguments):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(*arguments)

    monkeypatch.setattr(artifact_target, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measured(echo_artifact, concurrency="1,2,4", report=report)
    assert not report.exists()
    monkeypatch.setattr(artifact_target, "measure", real)
    lines = []
    with pytest.raises(UsageError, match="other options"):
        measured(echo_artifact, concurrency="1,2,4", report=report, longest_s=0.5)
    document = measured(echo_artifact, concurrency="1,2,4", report=report, progress=lines.append)
    assert [point["concurrency"] for point in document["points"]] == [1, 2, 4]
    assert [line.split()[0] for line in lines[1:]] == ["3/3"]


def test_slower_beyond_the_noise_is_refused(echo_artifact, tmp_path):
    before = measured(echo_artifact, concurrency="4", report=tmp_path / "before.json")
    for point in before["points"]:
        point["intervals"] = {name: [0.0, 1e9] for name in point["intervals"]}
    (tmp_path / "before.json").write_text(json.dumps(before))
    assert measured(echo_artifact, concurrency="4", compare=tmp_path / "before.json")
    for point in before["points"]:
        point["throughput_avg"] *= 1000
        point["intervals"]["throughput_avg"] = [point["throughput_avg"] * 0.99, point["throughput_avg"] * 1.01]
    (tmp_path / "before.json").write_text(json.dumps(before))
    with pytest.raises(GateRefused, match="slower than in"):
        measured(echo_artifact, concurrency="4", compare=tmp_path / "before.json")
    with pytest.raises(UsageError, match="none of these points"):
        measured(echo_artifact, concurrency="3", compare=tmp_path / "before.json")
    before["environment"]["cpu_model"] = "another"
    (tmp_path / "before.json").write_text(json.dumps(before))
    with pytest.raises(UsageError, match="cpu_model"):
        measured(echo_artifact, concurrency="4", compare=tmp_path / "before.json")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"concurrency": "many"}, UsageError, "--concurrency is 'many'"),
        ({"concurrency": "0"}, UsageError, "above 0"),
        ({"batch_size": "1.5"}, UsageError, "must be whole"),
        ({"scenario": "offlien"}, UsageError, "no scenario"),
        ({"variant": "neuron-b1"}, ArtifactError, "no variant of name neuron-b1"),
        ({"precision": "int4"}, ArtifactError, "no variant of precision int4"),
        ({"input_data": "nothing.jsonl"}, InputError, "cannot read nothing.jsonl"),
        ({"sequence_length": "100000"}, UsageError, "100000 tokens are more than the model's"),
        ({"instance_type": "x9.huge"}, UsageError, "no price for 'x9.huge'"),
        ({"report": "report.pdf"}, UsageError, "not written as .pdf"),
        ({"report": "no/such/report.json"}, UsageError, "no folder no/such"),
        ({"longest_s": float("nan")}, UsageError, "--longest-s"),
        ({"latency_p95_ms": -1.0}, UsageError, "--latency-p95-ms must be above 0"),
        ({"request_rate": "9", "request_distribution": "even"}, UsageError, "no distribution 'even'"),
    ],
)
def test_settings_that_cannot_be(echo_artifact, options, error, words):
    with pytest.raises(error, match=words):
        measured(echo_artifact, **options)


@given(st.lists(st.tuples(st.just("Who?"), st.text(max_size=50)), max_size=80))
def test_questions_are_mixed_and_none_is_lost(questions):
    assert sorted(evenly_mixed(questions, question_answering)) == sorted(questions)


def test_every_stretch_of_the_mix_is_the_same_work():
    lengths = np.array(
        [len(context) for _, context in evenly_mixed([("", "x" * n) for n in range(200)], question_answering)]
    )
    stretches = [np.roll(lengths, -first)[:64].mean() for first in range(200)]
    assert max(stretches) / min(stretches) < 1.1


def test_full_windows_have_no_padding(echo_artifact):
    tokenizer = Tokenizer.from_files(echo_artifact.folder)
    rows = full_rows(question_answering, tokenizer, [("Who?", "It was the man in the box. " * 400)], 128)
    assert len(rows) > 5
    assert all(row.input_ids.shape == (1, 128) and row.attention_mask.all() for row in rows)
    with pytest.raises(InputError, match="no text of 128 tokens"):
        full_rows(question_answering, tokenizer, [("Who?", "Me.")], 128)
