"""tools/measure_cascade: what is asked of whom, what is refused, and a run of either kind."""

import json
import shutil
from pathlib import Path
from typing import Any, List

import pytest
from echo_files import with_echo

from neuronbert.artifact.manifest import Artifact
from neuronbert.backends import echo
from neuronbert.errors import UsageError
from neuronbert_tools.measure_cascade import Asked, main, make_report, questions_of, read_options, table
from neuronbert_tools.paths import XQUAD


def test_the_gate_asks_every_other_document_and_the_rest_is_asked_here(tmp_path: Path) -> None:
    whole, shipped = questions_of(read_options(["small", "large", str(XQUAD)]), tmp_path)
    assert len(whole.questions) == 1190 and shipped is None
    asked, gate_data = questions_of(
        read_options(["small", "large", str(XQUAD), "--gate-half", "--questions", "100"]), tmp_path
    )
    assert gate_data is not None and len(asked.questions) == 100
    paragraphs = json.loads(gate_data.read_text(encoding="utf-8"))["data"][0]["paragraphs"]
    for_gate = {paragraph["context"] for paragraph in paragraphs}
    assert len(for_gate) == 120 and not for_gate & {question.context for question in asked.questions}


@pytest.mark.parametrize(
    "words, match",
    [
        (["--share", "0.3", "--gate-half"], "no gate"),
        (["--share", "0.3", "--min-f1-ratio", "0.9"], "no gate"),
        (["--share", "1"], "between 0 and 1"),
        (["--gate-half", "--gate-data", "x.json"], "one file"),
    ],
)
def test_options_that_exclude_each_other_are_refused(words: List[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        read_options(["small", "large", str(XQUAD), *words])


def test_ratios_are_those_within_a_round() -> None:
    found = {"small": Asked([8.0, 4.0], 60.0), "large": Asked([2.0, 1.0], 70.0), "cascade": Asked([4.0, 1.5], 69.5)}
    report: Any = make_report(found, {"threshold": 0.5}, 0.25)
    assert report["models"]["small"]["times_large"]["median"] == 4
    assert report["models"]["cascade"]["times_large"] == {"median": 1.75, "low": 1.5, "high": 2.0}
    lines = table({**report, "questions": 9}).splitlines()
    assert lines[0] == "9 questions; the large model was asked 25.0% of the windows"
    assert lines[1].endswith("F1 60.00") and lines[3].endswith("F1 69.50")


@pytest.mark.parametrize(
    "words", [["--share", "0.3"], ["--gate-half", "--min-f1-ratio", "0", "--min-answer-f1", "0.6"]]
)
def test_a_run(
    words: List[str],
    echo_artifact: Artifact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(echo.FAULTS_VARIABLE, "1")  # an echo may take its time
    for name, multiplier, batch_s in (("small", 7001, 0), ("large", 7919, 0.02)):
        copied = shutil.copytree(echo_artifact.folder, tmp_path / name)
        with_echo(copied, multiplier=multiplier, batch_s=batch_s)
    report = tmp_path / "report.json"
    common = [str(tmp_path / "small"), str(tmp_path / "large"), str(XQUAD), "--questions", "24", "--rounds", "2"]
    assert main([*common, *words, "--json", str(report)]) == 0
    found = json.loads(report.read_text(encoding="utf-8"))
    assert 0 < found["share_of_large"] < 1 and set(found["models"]) == {"small", "large", "cascade"}
    assert found["models"]["small"]["f1"] >= 0 and ("share_of_large" in found["chosen"]) == ("--share" not in words)
    assert "times the large one's" in capfd.readouterr().err
