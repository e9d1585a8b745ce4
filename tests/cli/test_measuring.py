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


@pytest.fixture()
def bert_base(tmp_path):
    sizes = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    return tmp_path


def test_plan_draws_its_frontier_and_prints_as_ever(bert_base, capsys):
    pytest.importorskip("matplotlib")
    line = ["plan", str(bert_base), "--sequence-length", "128", "--instance-type", "inf1.xlarge,g6.xlarge"]
    assert cli.run(line) == 0
    plain = capsys.readouterr().out
    assert cli.run([*line, "--plot", str(bert_base / "frontier.svg")]) == 0
    assert capsys.readouterr().out == plain
    assert (bert_base / "frontier.svg").read_text().startswith("<?xml")


def test_plan_refuses_a_picture_before_it_plans(bert_base, capsys):
    assert cli.run(["plan", str(bert_base), "--plot", str(bert_base / "frontier.gif")]) == 2
    captured = capsys.readouterr()
    assert "not drawn as .gif" in captured.err and "planning" not in captured.err


def test_a_benchmark_on_a_gpu_size_is_priced_and_planned_with(echo_artifact, bert_base, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "Period", lambda longest_s: Period(0.1, 0.1, longest_s))
    report = bert_base / "report.json"
    line = ["benchmark", str(echo_artifact.folder), "--instance-type", "g6.xlarge", "--concurrency", "2"]
    assert cli.run([*line, "--sequence-length", "128", "--longest-s", "1", "--report", str(report)]) == 0
    (point,) = json.loads(report.read_text())["points"]
    priced = point["instance_type"], point["price_usd_per_hour"], point["price_date"]
    assert priced == ("g6.xlarge", 0.8048, "2026-09")
    assert point["cost_per_1m_inf"] == pytest.approx(0.8048 / point["throughput_avg"] / 3600 * 1e6, rel=1e-4)
    capsys.readouterr()
    line = ["plan", str(bert_base), "--sequence-length", "128", "--instance-type", "g6.xlarge", "--json"]
    assert cli.run([*line, "--measured", str(report)]) == 0
    found = json.loads(capsys.readouterr().out)
    measured, predicted = sorted(found["ranked"] + found["rejected"], key=lambda one: one["source"])
    assert (measured["source"], measured["price"]["usd_per_hour"]) == ("measured", 0.8048)
    assert (predicted["source"], predicted["device"]) == ("predicted", "gpu")
    assert found["published"] and all(one["source"] for one in found["published"])
