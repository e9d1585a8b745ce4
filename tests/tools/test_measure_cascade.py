"""tools/measure_cascade: what is asked of whom, what is refused, and a run of either kind."""

import json
import shutil
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
from echo_files import with_echo

from neuronbert.artifact.manifest import Artifact, write_manifest
from neuronbert.backends import echo
from neuronbert.compiler.cascade_gate import Part, Parts
from neuronbert.engine.engine import Engine
from neuronbert.errors import UsageError
from neuronbert.tasks.question_answering.squad import load_squad_data
from neuronbert.tasks.samples import gate_path
from neuronbert_tools.chain.measuring import pairs_of
from neuronbert_tools.measure_cascade import (
    Asked,
    cascade_with,
    main,
    make_report,
    questions_of,
    read_options,
    sample_of,
    table,
    threshold_for,
    unknown_to_gate,
    window_sureness,
)
from neuronbert_tools.paths import XQUAD


def test_the_gate_asks_every_other_document_and_the_rest_is_asked_here(tmp_path: Path) -> None:
    whole, shipped = questions_of(read_options(["small", "large", str(XQUAD)]), tmp_path)
    assert len(whole.questions) == 1190 and shipped is None
    asked, gate_data = questions_of(read_options(["small", "large", str(XQUAD), "--gate-half"]), tmp_path)
    assert gate_data is not None and len(asked.questions) == 596
    assert len(sample_of(asked, 100).questions) == 100 and len(sample_of(asked, None).questions) == 596
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


def test_a_share_of_windows_that_are_all_alike_is_refused() -> None:
    assert threshold_for(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), 0.5) == pytest.approx(0.3)
    for alike in ([0.5], [0.5, 0.5, 0.5]):
        with pytest.raises(UsageError, match=f"none of {len(alike)} windows"):
            threshold_for(np.array(alike), 0.3)


def test_what_the_gate_asks_is_not_asked_again(echo_artifact: Artifact, tmp_path: Path) -> None:
    parts = Parts(*[Part.of(echo_artifact, None, None)] * 2)
    whole = load_squad_data(XQUAD)
    with pytest.raises(UsageError, match="the gate asks about every document"):
        unknown_to_gate(whole, parts, XQUAD)
    assert unknown_to_gate(whole, parts, None) == whole
    with pytest.raises(UsageError, match="the gate asks about every document"):
        unknown_to_gate(load_squad_data(gate_path()), parts, None)


def test_each_window_is_read_by_the_one_that_the_share_gives_it_to(echo_artifact: Artifact, tmp_path: Path) -> None:
    for name, multiplier in (("small", 7001), ("large", 7919)):
        with_echo(shutil.copytree(echo_artifact.folder, tmp_path / name), multiplier=multiplier)
    parts = Parts(*(Part.of(tmp_path / name, None, None) for name in ("small", "large")))
    asked = sample_of(load_squad_data(XQUAD), 30)
    with Engine(parts.small.artifact) as small, Engine(parts.large.artifact) as large:
        sure = window_sureness(small, asked)
        made = cascade_with(parts, threshold_for(sure, 0.3), 0.3, tmp_path / "made")
        assert made.manifest["gate"]["skipped"]
        with Engine(made) as cascade:
            rows = [row for example in cascade.encode(pairs_of(asked)) for row in example.windows]
            said = [engine.outputs(rows) for engine in (cascade, small, large)]
    doubtful = sure < made.variants[0]["cascade"]["threshold"]
    assert 0 < doubtful.sum() < len(rows)
    for number, own in enumerate(said[0]):
        expected = said[2 if doubtful[number] else 1][number]
        assert all(np.array_equal(own[name], expected[name]) for name in own)


@pytest.mark.parametrize("changes, match", [({"task": "text-classification"}, "is for"), ({}, "has 64 positions")])
def test_two_that_make_no_cascade_are_refused_at_once(
    changes: Any, match: str, echo_artifact: Artifact, tmp_path: Path
) -> None:
    small = shutil.copytree(echo_artifact.folder, tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    write_manifest(
        small, {**{key: value for key, value in echo_artifact.manifest.items() if key != "digest"}, **changes}
    )
    with pytest.raises(UsageError, match=match):
        main([str(small), str(echo_artifact.folder), str(XQUAD), "--share", "0.3"])


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
    assert ("share_of_large" in found["chosen"]) == ("--share" not in words) == (found["gate_questions"] > 0)
    if "--share" in words:
        assert found["share_of_large"] == pytest.approx(0.3, abs=0.05)
    assert found["variants"]["cascade"].endswith("-cascade")
    assert "times the large one's" in capfd.readouterr().err
