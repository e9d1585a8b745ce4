"""The report that a person with an inf1 instance sends back, made on the emulator."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "inf1_acceptance"


def accept(folder, *arguments, **environment):
    command = [sys.executable, str(SCRIPT), "--output", str(folder / "report.json"), *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEURON")}
    emulated = {"NEURONBERT_EMULATE_DIR": str(folder / "emulator"), "NEURONBERT_CACHE": str(folder / "cache")}
    done = subprocess.run(
        command, env={**kept, **emulated, **environment}, capture_output=True, text=True, timeout=1800
    )
    report = folder / "report.json"
    return done, json.loads(report.read_text()) if report.exists() else None


def test_the_report_is_one_document_with_every_step(tmp_path):
    done, report = accept(tmp_path, "--only", "doctor", NEURONBERT_EMULATE="inf1.6xlarge")
    assert done.returncode == 0, done.stderr
    assert report["emulated"] is True and report["instance_type"] == "inf1.6xlarge"
    assert report["whole_instance"]["NEURON_RT_VISIBLE_CORES"] == "0-15"
    (step,) = report["steps"]
    assert step["ok"] and {"neuron cores", "torch-neuron"} <= {check["name"] for check in step["result"]["checks"]}


def test_another_machine_and_an_unknown_step_are_usage_errors(tmp_path):
    done, report = accept(tmp_path, "--instance-type", "m5.large")
    assert done.returncode == 2 and "no inf1 instance" in done.stderr and report is None
    done, report = accept(tmp_path, "--only", "everything", NEURONBERT_EMULATE="inf1.xlarge")
    assert done.returncode == 2 and "--only takes doctor, demo, rows, unknowns" in done.stderr


@pytest.mark.slow
def test_the_demo_compiles_and_answers_in_both_modes(tmp_path, neuron_cache):
    # What tests/backends/neuron/test_neuron_demo.py compiled is not compiled again.
    variables = {"NEURONBERT_EMULATE": "inf1.xlarge", "NEURONBERT_CACHE": str(neuron_cache)}
    done, report = accept(tmp_path, "--only", "demo", "--layers", "1", **variables)
    assert done.returncode == 0, done.stderr
    assert report["failed"] == []
    steps = {step["name"]: step["result"] for step in report["steps"]}
    assert [variant["name"] for variant in steps["compile the demo, data-parallel"]["variants"]] == [
        "neuron-b1-s128-p1",
        "neuron-b1-s384-p1",
    ]
    assert steps["answer, data-parallel"]["answer"] == steps["answer, pipeline"]["answer"] == "Jim Henson"


def test_the_random_bert_base_is_a_checkpoint_without_a_pickle(tmp_path):
    folder = tmp_path / "bert-base"
    code = (
        "import sys; from pathlib import Path\n"
        "from neuronbert_tools.acceptance.bert_base import write_bert_base\n"
        "write_bert_base(Path(sys.argv[1]), 1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), str(SCRIPT.parent)])}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    from neuronbert.tasks.checkpoints import load_checkpoint

    assert load_checkpoint(folder).config["num_hidden_layers"] == 1
