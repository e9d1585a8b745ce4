"""tools/measure_overhead: the parts are those of the whole, and the engine is as it was afterwards."""

import json
from pathlib import Path
from typing import Any, List

import pytest

from neuronbert import Engine
from neuronbert.artifact.manifest import Artifact
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert_tools.measure_overhead import calls_about_one_document, main, one_round

LINES = '{"question": "Who was it?", "context": "It was Jim Henson."}\n' * 40


def test_the_report_names_every_part(
    echo_artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "asked.jsonl").write_text(LINES)
    arguments = [str(echo_artifact.folder), "--data", str(tmp_path / "asked.jsonl"), "--rounds", "2"]
    assert main([*arguments, "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert (report["texts"], report["task"], len(report["rounds"])) == (40, "question-answering", 2)
    assert all(report[f"{part}_us"] > 0 for part in ("outside", "tokens", "results"))
    assert main([*arguments, "--profile"]) == 0 and "encode" in capsys.readouterr().out


def test_a_round_leaves_the_engine_as_it_was(echo_artifact: Artifact) -> None:
    with Engine(echo_artifact, threads=1, streams=1) as engine:
        before: Any = (engine.session, engine.tokenizer.encode)
        parts = one_round(engine, [[("Who was it?", "It was Jim Henson.")] * 8])
        assert set(parts) == {"outside", "tokens", "rows", "batches", "results"}
        assert (engine.session, engine.tokenizer.encode) == before


def test_questions_about_one_document_are_measured_with_and_without_what_is_kept(
    echo_artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: List[str] = []
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, asked: texts.extend(asked) or encode(self, asked))
    (tmp_path / "asked.jsonl").write_text(LINES)
    arguments = [str(echo_artifact.folder), "--data", str(tmp_path / "asked.jsonl"), "--rounds", "1"]
    assert main([*arguments, "--document", "900"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["texts"] == 40 and report["tokens_us"] > 0 and report["anew_tokens_us"] > 0
    documents = [text for text in texts if len(text) == 900]
    # A round is two passes, anew and with what is kept, and the rows are counted anew.
    assert len(set(documents)) == 1 and len(documents) == 2 * 40 + 1 + 40


def test_a_document_is_the_contexts_one_after_another() -> None:
    inputs = [("Who?", "It was me."), ("Where?", "Here."), ("When?", "It was me.")]
    calls = calls_about_one_document(inputs, 40)
    assert [call[0][0] for call in calls] == ["Who?", "Where?", "When?"]
    assert {call[0][1] for call in calls} == {"It was me. Here. It was me. Here. It was m"[:40]}
