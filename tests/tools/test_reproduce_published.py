"""The published tables beside measured ones: figures, order, and the exit code."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from neuronbert.hardware.device_model import PUBLISHED_PATH

SCRIPT = Path(__file__).parents[2] / "tools" / "reproduce_published"


def measured(tmp_path, factor=1.0, p95_factor=1.0, rows=8):
    """A document as tools/measure_runner prints it, each row off by the factors."""
    with open(PUBLISHED_PATH, encoding="utf-8") as file:
        published = [row for row in csv.DictReader(file) if "blog" in row["source"]]
    found = [
        {
            **{name: row[name] for name in ("instance_type", "mode", "pipeline_cores", "batch_size")},
            "tokens": {
                "throughput_per_s": float(row["throughput_per_s"]) * factor,
                "p95_ms": float(row["p95_ms"]) * p95_factor,
            },
            "device": {"throughput_per_s": float(row["throughput_per_s"]), "p95_ms": float(row["p95_ms"])},
        }
        for row in published[:rows]
    ]
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"rows": found}))
    return path


def ran(path, *options):
    command = [sys.executable, str(SCRIPT), "--measured", str(path), *options]
    return subprocess.run(command, capture_output=True, text=True)


def test_tables_costs_and_headline(tmp_path):
    done = ran(measured(tmp_path, factor=1.01))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("EMULATED") == 2
    assert "1793 → 1811 (+1.0%)" in done.stdout
    assert "at 0.368 USD/h in us-east-1, 2021-05" in done.stdout and "at 1.904 USD/h" in done.stdout
    assert "inf1.6xlarge pipeline × 16, batch 1" in done.stdout and "published 12.0 ×, ours 12.2 ×" in done.stdout
    assert "inf1.6xlarge data-parallel, batch 6" in done.stdout and "published 9.2 ×, ours 9.3 ×" in done.stdout


@pytest.mark.parametrize(
    ("factors", "words"),
    [({"factor": 0.95}, "throughput_per_s is off by -5.0%"), ({"p95_factor": 1.2}, "p95_ms is off by +20.0%")],
)
def test_what_is_off_is_named(tmp_path, factors, words):
    done = ran(measured(tmp_path, **factors))
    assert done.returncode == 1 and words in done.stdout


def test_the_device_alone_is_not_the_runner(tmp_path):
    done = ran(measured(tmp_path, factor=0.5), "--device-alone")
    assert done.returncode == 0 and "1793 → 1793 (+0.0%)" in done.stdout, done.stdout


def test_another_order_is_named(tmp_path):
    path = measured(tmp_path)
    document = json.loads(path.read_text())
    document["rows"][0]["tokens"]["throughput_per_s"] = 300.0  # above the 291 of the pipeline
    path.write_text(json.dumps(document))
    assert "change places in throughput_per_s" in ran(path).stdout


def test_rows_that_are_missing_are_named(tmp_path):
    done = ran(measured(tmp_path, rows=7))
    assert done.returncode == 1 and "1 of 8 rows were not measured" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "there is no file"), ("EMULATED", "no JSON"), ("[]", "not a JSON object"), ("{}", "rows"),
     ('{"rows": [{}]}', "rows"), ('{"rows": [7]}', "rows")],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path, content, words):
    path = tmp_path / "measured.json"
    if content is not None:
        path.write_text(content)
    done = ran(path)
    assert done.returncode == 1 and done.stdout == ""
    said, hint = done.stderr.splitlines()
    assert said.startswith("error: ") and str(path) in said and words in said
    assert "tools/measure_runner twin" in hint


def test_figures_that_cannot_be_are_refused(tmp_path):
    path = measured(tmp_path)
    document = json.loads(path.read_text())
    document["rows"][3]["tokens"]["p95_ms"] = 0
    path.write_text(json.dumps(document))
    assert "rows[3].tokens.p95_ms" in ran(path).stderr
