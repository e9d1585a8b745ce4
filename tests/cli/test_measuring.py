"""The verbs that take long say how far they are."""

import json

import pytest

from neuronbert.benchmark import sweep
from neuronbert.benchmark.load import Period
from neuronbert.cli import main as cli
from neuronbert.cli import progress


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Nothing is too quick to be said."""
    for name in ("DELAY_S", "LINE_S"):
        monkeypatch.setattr(progress, name, 0.01)


def test_plan_says_how_far_it_is(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(
        {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    ))  # fmt: skip
    assert cli.run(["plan", str(tmp_path), "--instance-type", "inf1.xlarge", "--throughput", "500"]) == 0
    captured = capsys.readouterr()
    assert "planning: " in captured.err and " left" in captured.err
    assert "planning" not in captured.out


def test_benchmark_says_how_far_it_is_and_ends_in_a_sentence(echo_artifact, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "Period", lambda longest_s: Period(0.1, 0.1, longest_s))
    options = ["--concurrency", "1,2", "--longest-s", "1"]
    assert cli.run(["benchmark", str(echo_artifact.folder), *options]) == 0
    captured = capsys.readouterr()
    assert "measuring: 0 of 2" in captured.err and "measuring: 1 of 2, about " in captured.err
    lines = captured.out.splitlines()
    assert lines[0].endswith("real text") and lines[2].split()[:2] == ["configuration", "load"]
    assert "the most throughput" in captured.out.split("\n\n")[-1] and max(map(len, lines)) <= 80
