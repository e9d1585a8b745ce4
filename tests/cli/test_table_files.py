"""CSV and TSV files in and out, as a person types the commands: every verb that reads lines, and run."""

import csv
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Dict, List

import pytest
from click.testing import CliRunner
from tiny_classifiers import compiled, write_classifier

from neuronbert.artifact.manifest import Artifact
from neuronbert.cli.main import cli, run
from neuronbert.errors import NeuronBertError

TABLE = """id,question,context,top_k,note
a,"Who ""built"" it?","Jim Henson,
with his hands.",,x

b,Who?,Jim Henson built it.,2,
"""
BROKEN = TABLE + "c,Who?,Jim Henson.,two,\nd,Who?,,,\ne,Who?\nf,Who?,Jim,,,,\ng,Who?,Jim,,\n"
HEADER = "line,id,score,start,end,answer,answers,error"


@pytest.fixture(autouse=True)
def no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy machine takes: tests/cli/test_progress.py is about those lines."""
    monkeypatch.setattr("neuronbert.cli.progress.DELAY_S", 3600.0)


def done(*arguments: Any) -> str:
    """What a command prints on stdout that must not fail."""
    printed, told = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(told):
        code = run([str(argument) for argument in arguments])
    assert code == 0, told.getvalue()
    return printed.getvalue()


def done_with(stdin: str, *arguments: Any) -> str:
    """The same, for a command that says nothing on stderr."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)
    assert result.exit_code == 0, result.output
    return str(result.output)


def refused(*arguments: Any, **keywords: Any) -> NeuronBertError:
    """The error of a command that prints no result."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], **keywords)
    assert isinstance(result.exception, NeuronBertError), result.output
    assert '{"line"' not in result.output and HEADER not in result.output
    return result.exception


def rows_of(text: str) -> List[Dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def written(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_a_table_is_answered_in_json_lines_or_as_a_table(echo_artifact: Artifact, tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", TABLE)
    first, second = map(json.loads, done("answer", echo_artifact.folder, "--input", path).splitlines())
    assert (first["line"], first["id"], second["line"], second["id"]) == (2, "a", 5, "b")
    assert first["answer"] and len(second["answers"]) == 2
    out = done("answer", echo_artifact.folder, "--input", path, "--output-format", "csv")
    assert out.splitlines()[0] == HEADER
    one, other = rows_of(out)
    assert one["answer"] == first["answer"] and json.loads(one["score"]) == first["score"] and one["answers"] == ""
    assert json.loads(other["answers"]) == second["answers"] and other["answer"] == other["error"] == ""
    document = json.loads(done("answer", echo_artifact.folder, "--input", path, "--json"))
    assert document == {"results": [first, second], "skipped": []}


@pytest.mark.parametrize("out", ["csv", "tsv", "jsonl"])
def test_run_writes_what_answer_prints(echo_artifact: Artifact, tmp_path: Path, out: str) -> None:
    path, output = written(tmp_path, "in.csv", BROKEN), tmp_path / f"out.{out}"
    options = ["--input", path, "--on-error", "skip"]
    printed = done("answer", echo_artifact.folder, *options, "--output-format", out)
    done("run", echo_artifact.folder, *options, "--output", output, "--workers", 1)
    assert output.read_bytes().decode("utf-8") == printed
    done("run", echo_artifact.folder, *options, "--output", tmp_path / "out", "--output-format", out)
    assert (tmp_path / "out").read_bytes() == output.read_bytes()


def test_broken_rows_have_errors_in_their_place(echo_artifact: Artifact, tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", BROKEN)
    command = ["answer", echo_artifact.folder, "--input", path]
    assert refused(*command).message == 'line 6: top_k is "two", not a whole number'
    rows = rows_of(done(*command, "--on-error", "skip", "--output-format", "csv"))
    assert [(row["line"], row["id"], row["error"]) for row in rows] == [
        ("2", "a", ""),
        ("5", "b", ""),
        ("6", "c", 'top_k is "two", not a whole number'),
        ("7", "d", "the key 'context' is missing"),
        ("8", "", "2 columns, where the header has 5"),
        ("9", "", "7 columns, where the header has 5"),
        ("10", "g", ""),
    ]


def test_stdin_is_a_table_where_it_is_said(echo_artifact: Artifact, tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", TABLE)
    command = ["answer", echo_artifact.folder, "--input"]
    expected = done(*command, path)
    assert done_with(TABLE, *command, "-", "--input-format", "csv") == expected
    tabs = "context\tquestion\nJim Henson\tWho?\n"
    assert json.loads(done_with(tabs, *command, "-", "--input_format", "tsv"))["line"] == 2
    error = refused(*command, "-", input=TABLE)
    assert error.message.startswith("line 1: not JSON") and "--input-format csv" in str(error.hint)
    assert done(*command, written(tmp_path, "questions", TABLE), "--input-format", "csv") == expected
    piped = ["run", echo_artifact.folder, "--input", "-", "--input-format", "csv", "--output", tmp_path / "out"]
    with open(path, "rb") as file:
        subprocess.run([sys.executable, "-m", "neuronbert", *map(str, piped)], stdin=file, check=True)
    assert (tmp_path / "out").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("question,text\na,b\n", "no column 'context' in the header, which has 'question', 'text'"),
        ("", "holds no question"),
        ("question,context\n\n", "holds no question"),
        ("question,context,context\na,b,c\n", "the column 'context' twice"),
        ('question,context\na,"b\n', "line 2: a quotation mark is opened and never closed"),
        (b"question,context\na,\xe9\n", "line 2: not UTF-8 text (byte 0xe9)"),
        ("question,context\na,b\n".encode("utf-16"), "line 1 of the input is UTF-16, not UTF-8"),
        (b"\x1f\x8b\x08", "line 1 of the input is gzip-compressed"),
    ],
)
def test_a_table_that_will_not_do_is_refused(echo_artifact: Artifact, tmp_path: Path, content: Any, words: str) -> None:
    path = written(tmp_path, "in.csv", content)
    for command in (["answer"], ["run", "--output", tmp_path / "out.csv"]):
        error = refused(*command, echo_artifact.folder, "--input", path)
        assert (error.exit_code, bool(error.hint)) == (1, True) and words in error.message
    assert not (tmp_path / "out.csv").exists()


def test_formats_that_contradict_are_usage_errors(echo_artifact: Artifact, tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", TABLE)
    command = ["answer", echo_artifact.folder]
    error = refused(*command, "--input", path, "--json", "--output-format", "csv")
    assert (error.exit_code, error.message) == (2, "--json and --output-format csv are two formats")
    for name in ("--input-format", "--output-format"):
        error = refused(*command, "--question", "q", "--context", "c", name, "csv")
        assert (error.exit_code, error.message) == (2, "--input-format and --output-format are for --input")
    result = CliRunner().invoke(cli, [*map(str, command), "--input", str(path), "--input-format", "xlsx"])
    assert result.exit_code == 2 and "xlsx" in result.output


def test_a_character_that_stdout_lacks_is_escaped(echo_artifact: Artifact, tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", "id,question,context\né中,Who?,Jim\n")
    command = ["answer", str(echo_artifact.folder), "--input", str(path), "--output-format", "csv"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = subprocess.run(
        [sys.executable, "-m", "neuronbert", *command], env=environment, stdout=subprocess.PIPE, check=True
    )
    assert found.stdout.splitlines()[1].startswith(b"2,\\xe9\\u4e2d,")


# ---- the other tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return tmp_path_factory.mktemp("classifiers")


def test_texts_and_pairs_are_classified(folder: Path, tmp_path: Path) -> None:
    artifact = compiled(write_classifier(folder / "checkpoint"), folder / "classifier", "echo")
    table = "label,text,text_pair,top_k\nx,the puppet,,\ny,the puppet,who was it,\nz,the puppet,,2\n"
    path = written(tmp_path, "texts.csv", table)
    lines: List[Dict[str, Any]] = [{"text": "the puppet"} for _ in range(3)]
    lines[1]["text_pair"], lines[2]["top_k"] = "who was it", 2
    same = written(tmp_path, "texts.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    command = ["classify", artifact.folder, "--input"]
    expected = [json.loads(line) for line in done(*command, same).splitlines()]
    found = [json.loads(line) for line in done(*command, path).splitlines()]
    assert [{**line, "line": line["line"] - 1} for line in found] == expected
    rows = rows_of(done(*command, path, "--output-format", "csv"))
    assert list(rows[0]) == ["line", "id", "label", "score", "truncated", "labels", "ranking", "error"]
    assert [row["label"] for row in rows] == [expected[0]["label"], expected[1]["label"], ""]
    assert json.loads(rows[2]["labels"]) == expected[2]["labels"]
    cut = rows_of(done(*command, path, "--max-length", 4, "--output-format", "csv"))
    assert [row["truncated"] for row in cut[:2]] == ["", "true"]


def test_texts_are_ranked(folder: Path, tmp_path: Path) -> None:
    scorer = compiled(write_classifier(folder / "score", labels=["relevant"]), folder / "scorer", "echo")
    path = written(tmp_path, "in.csv", 'query,texts\nwho?,"[""the puppet"", ""jim, henson""]"\nwho?,jim\n')
    options = [scorer.folder, "--input", path, "--on-error", "skip"]
    out = done("rerank", *options, "--output-format", "csv")
    ranked, broken = rows_of(out)
    assert {each["index"] for each in json.loads(ranked["ranking"])} == {0, 1} and ranked["label"] == ""
    assert broken["error"] == 'texts is "jim", not a list'
    done("run", *options, "--output", tmp_path / "out.csv", "--workers", 1)
    assert (tmp_path / "out.csv").read_text("utf-8") == out
