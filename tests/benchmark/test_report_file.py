"""A report that somebody hands over is read as it was written, or refused in words; never half believed."""

import json
import os

import pytest
from made_reports import document

from neuronbert.benchmark.report_file import REPORT_BYTES, read_report
from neuronbert.errors import InputError


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no JSON that can be read"),
        ("{}", "not a report"),
        ("[]", "not a JSON object"),
        ('{"kind": "neuronbert-benchmark", "schema_version": 9}', "schema 9"),
        ('{"kind": "neuronbert-benchmark", "schema_version": 1}', "lacks artifact, environment, asked, points"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path, text, why):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=f"x.json.* {why}") as caught:
        read_report(tmp_path / "x.json")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"intervals": {"throughput_avg": 3}}, r"points\[1\].intervals.throughput_avg is 3, and must be a list"),
        ({"intervals": {"latency_ms_p95": [1, "2"]}}, r"latency_ms_p95\[1\] is '2', and must be a number or null"),
        ({"concurrency": "many"}, r"points\[1\].concurrency is 'many'"),
        ({"threads": [1]}, r"points\[1\].threads is \[1\]"),
        ({"batch_size": 0}, "batch_size is 0, and must be at least 1"),
        ({"throughput_avg": -1}, "throughput_avg is -1, and must be at least 0"),
        ({"variant": None}, "variant is None, and must be text"),
    ],
)
def test_a_point_that_could_not_be_compared_is_refused_by_its_place(tmp_path, broken, why):
    made = document()
    made["points"][1].update(broken)
    (tmp_path / "x.json").write_text(json.dumps(made))
    with pytest.raises(InputError, match=why):
        read_report(tmp_path / "x.json")


def test_gpus_that_no_page_could_show_are_refused_and_old_reports_have_none(tmp_path):
    made = document()
    made["environment"].pop("gpus", None)
    (tmp_path / "x.json").write_text(json.dumps(made))
    assert "gpus" not in read_report(tmp_path / "x.json")["environment"]
    made["environment"]["gpus"] = [{"name": "Tesla T4", "compute_capability": 7.5, "memory_bytes": 1}]
    (tmp_path / "x.json").write_text(json.dumps(made))
    with pytest.raises(InputError, match=r"environment.gpus\[0\].compute_capability is 7.5, and must be text"):
        read_report(tmp_path / "x.json")


def test_a_point_without_what_a_comparison_reads_is_refused(tmp_path):
    made = document()
    del made["points"][0]["intervals"]
    (tmp_path / "x.json").write_text(json.dumps(made))
    with pytest.raises(InputError, match=r"points\[0\] lacks intervals"):
        read_report(tmp_path / "x.json")


def test_a_pipe_and_what_is_far_too_large_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(REPORT_BYTES + 1)
    for name, why in (("pipe", "is a named pipe"), ("large", "67,108,865 bytes"), ("absent", "there is no file")):
        with pytest.raises(InputError, match=why):
            read_report(tmp_path / name)
