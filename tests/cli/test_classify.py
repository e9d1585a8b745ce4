"""The verbs of text classification, classify and rerank, as a person types them; and run and evaluate with theirs."""

import io
import json
import os
from pathlib import Path
from typing import Any, List, Tuple

import pytest
from click.testing import CliRunner
from tiny_classifiers import LABELS, compiled, write_classifier

from neuronbert import Engine
from neuronbert.artifact.manifest import Artifact
from neuronbert.cli.main import cli, run
from neuronbert.tasks.rows import TextPair
from neuronbert.tasks.text_classification.inputs import Ranking
from neuronbert.tasks.text_classification.options import LabelOptions

T1, T2 = "who was jim henson?", "the puppet, a nice one"


@pytest.fixture(autouse=True)
def no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy machine takes: tests/cli/test_progress.py is about those lines."""
    monkeypatch.setattr("neuronbert.cli.progress.DELAY_S", 3600.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return tmp_path_factory.mktemp("classifiers")


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Artifact:
    """Three labels, with numbers that mean nothing."""
    return compiled(write_classifier(folder / "checkpoint"), folder / "classifier", "echo")


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Artifact:
    """One score, that means nothing either."""
    checkpoint = write_classifier(folder / "score-checkpoint", labels=["relevant"])
    return compiled(checkpoint, folder / "scorer", "echo")


def results_of(artifact: Artifact, asked: Any, **options: Any) -> List[Any]:
    with Engine(artifact, threads=1) as engine:
        return list(engine.answer([asked], answer_options=LabelOptions(**options))[0])


def invoke(capsys: Any, *arguments: Any) -> Tuple[int, str, str]:
    """(exit code, stdout, stderr) of one command line."""
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def answered(capsys: Any, *arguments: Any) -> str:
    code, out, err = invoke(capsys, *arguments)
    assert code == 0, err
    return out


def refused(capsys: Any, *arguments: Any, code: int = 1) -> str:
    """What a command says that must fail with one message, and nothing on stdout."""
    actual, out, err = invoke(capsys, *arguments)
    assert (actual, out) == (code, ""), err
    lines = err.strip().splitlines()
    assert [line.split(":")[0].strip() for line in lines[-2:]] == ["error", "try"], err
    return "\n".join(lines[-2:])


def lines_file(folder: Path, *lines: Any) -> Path:
    path = folder / "lines.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


# ---- classify


def test_classify_prints_the_label_of_a_text(capsys: Any, classifier: Artifact) -> None:
    (best,) = results_of(classifier, T1)
    out = answered(capsys, "classify", classifier.folder, "--text", T1)
    assert out == f"{best['label']}  (score {best['score']:.4f})\n" and best["label"] in LABELS
    assert json.loads(answered(capsys, "classify", classifier.folder, "--text", T1, "--json")) == best


def test_classify_takes_a_pair(capsys: Any, classifier: Artifact) -> None:
    (best,) = results_of(classifier, TextPair(T1, T2))
    out = answered(capsys, "classify", classifier.folder, "--text", T1, "--text-pair", T2, "--json")
    assert json.loads(out) == best != results_of(classifier, T1)[0]


def test_classify_reads_an_empty_text(capsys: Any, classifier: Artifact) -> None:
    out = answered(capsys, "classify", classifier.folder, "--text", "", "--json")
    assert json.loads(out) == results_of(classifier, "")[0]


def test_classify_has_the_options_of_the_task(capsys: Any, classifier: Artifact) -> None:
    command = ["classify", classifier.folder, "--text", T1]
    every = results_of(classifier, T1, top_k=3, function_to_apply="none")
    options = ["--top-k", 5, "--function-to-apply", "none"]
    assert json.loads(answered(capsys, *command, *options, "--json")) == {"labels": every}
    shown = answered(capsys, *command, *options).splitlines()
    assert shown == [f"{each['label']}  (score {each['score']:.4f})" for each in every]
    cut = answered(capsys, *command, "--max-length", 4)
    assert cut.endswith("  (truncated: the text is longer than the model reads)\n")
    assert json.loads(answered(capsys, *command, "--max_length", 4, "--json"))["truncated"] is True


def test_classify_answers_a_file_line_by_line(capsys: Any, classifier: Artifact, tmp_path: Path) -> None:
    path = lines_file(
        tmp_path, {"id": "a", "text": T1}, "", {"text": T1, "text_pair": T2}, {"text": T2, "top_k": 3}, {"text": "é 中"}
    )
    out = answered(capsys, "classify", classifier.folder, "--input", path)
    expected = [
        {"line": 1, "id": "a", **results_of(classifier, T1)[0]},
        {"line": 3, **results_of(classifier, TextPair(T1, T2))[0]},
        {"line": 4, "labels": results_of(classifier, T2, top_k=3)},
        {"line": 5, **results_of(classifier, "é 中")[0]},
    ]
    assert [json.loads(line) for line in out.splitlines()] == expected
    whole = json.loads(answered(capsys, "classify", classifier.folder, "--input", path, "--json"))
    assert whole == {"results": expected, "skipped": []}


def test_a_broken_line_ends_the_command_or_becomes_an_error(capsys: Any, classifier: Artifact, tmp_path: Path) -> None:
    path = lines_file(tmp_path, {"text": T1}, {"text": ""}, {"query": "q", "texts": ["a"]}, {"text": T2})
    command = ["classify", classifier.folder, "--input", path]
    assert refused(capsys, *command).startswith("error: line 2: text is empty")
    code, out, err = invoke(capsys, *command, "--on-error", "skip")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [line["line"] for line in lines] == [1, 2, 3, 4]
    assert lines[1] == {"line": 2, "error": "text is empty"}
    assert lines[2]["error"].startswith("this model tells 3 labels apart (calm, glad, cross)")
    assert "skipped line 2: text is empty" in err
    document = json.loads(answered(capsys, *command, "--on-error", "skip", "--json"))
    assert [line["line_number"] for line in document["skipped"]] == [2, 3]


def test_classify_reads_stdin(classifier: Artifact) -> None:
    done = CliRunner().invoke(
        cli,
        ["classify", str(classifier.folder), "--input", "-", "--threads", "1"],
        input=json.dumps({"text": T1}) + "\n",
    )
    assert done.exit_code == 0 and json.loads(done.stdout) == {"line": 1, **results_of(classifier, T1)[0]}


# ---- rerank


def test_rerank_prints_texts_best_first(capsys: Any, scorer: Artifact) -> None:
    texts = ["jim", T2, ""]
    ranking = results_of(scorer, Ranking(T1, tuple(texts)), return_texts=True)
    command = ["rerank", scorer.folder, "--query", T1, *(word for text in texts for word in ("--text", text))]
    plain = [{"index": each["index"], "score": each["score"]} for each in ranking]
    assert json.loads(answered(capsys, *command, "--json")) == {"ranking": plain}
    assert json.loads(answered(capsys, *command, "--json", "--return-texts")) == {"ranking": ranking}
    shown = answered(capsys, *command, "--return-texts", "--top-k", 2).splitlines()
    assert shown == [f"{each['index']:>5}  (score {each['score']:.4f})  {each['text']}" for each in ranking[:2]]


def test_one_text_is_ranked_too(capsys: Any, scorer: Artifact) -> None:
    out = answered(capsys, "rerank", scorer.folder, "--query", T1, "--text", T2, "--json")
    assert [each["index"] for each in json.loads(out)["ranking"]] == [0]


def test_rerank_answers_a_file_line_by_line(capsys: Any, scorer: Artifact, tmp_path: Path) -> None:
    path = lines_file(tmp_path, {"query": T1, "texts": ["jim", T2]}, {"id": 2, "query": T2, "texts": ["a"], "top_k": 1})
    lines = [json.loads(line) for line in answered(capsys, "rerank", scorer.folder, "--input", path).splitlines()]
    assert lines == [
        {"line": 1, "ranking": results_of(scorer, Ranking(T1, ("jim", T2)))},
        {"line": 2, "id": 2, "ranking": results_of(scorer, Ranking(T2, ("a",)))},
    ]


# ---- what is wrong


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["classify", "ARTIFACT"], "--text is missing\n  try: --text ..., or --input FILE.jsonl"),
        (["classify", "ARTIFACT", "--text-pair", "b"], "--text is missing"),
        (["rerank", "ARTIFACT"], "--query is missing\n  try: --query ... --text ..., or --input FILE.jsonl"),
        (["rerank", "ARTIFACT", "--query", "q"], "--text is missing"),
        (["rerank", "ARTIFACT", "--text", "a"], "--query is missing"),
        (["classify", "ARTIFACT", "--text", "a", "--input", "x"], "--input takes the place of --text and --text-pair"),
        (["classify", "ARTIFACT", "--text", "", "--input", "x"], "--input takes the place of --text and --text-pair"),
        (["classify", "ARTIFACT", "--text-pair", "a", "--input", "x"], "--input takes the place of --text and"),
        (["rerank", "ARTIFACT", "--query", "q", "--input", "x"], "--input takes the place of --query and --text"),
        (["rerank", "ARTIFACT", "--text", "a", "--input", "x"], "--input takes the place of --query and --text"),
        (["classify", "ARTIFACT", "--text", "a", "--max-length", "2"], "a max_length of 2 leaves no room for text"),
    ],
)
def test_what_is_typed_wrongly(capsys: Any, classifier: Artifact, arguments: List[str], error: str) -> None:
    typed = [str(classifier.folder) if word == "ARTIFACT" else word for word in arguments]
    assert error in refused(capsys, *typed, code=2)


@pytest.mark.parametrize(
    "options",
    [["--top-k", "0"], ["--top-k", "x"], ["--function-to-apply", "tanh"], ["--max-length", "0"], ["--query", "q"],
     ["--doc-stride", "8"]],
)  # fmt: skip
def test_what_is_no_option_or_no_value_of_one(capsys: Any, classifier: Artifact, options: List[str]) -> None:
    code, out, err = invoke(capsys, "classify", classifier.folder, "--text", "a", *options)
    assert (code, out) == (2, "") and options[0] in err


def test_an_artifact_of_another_task_is_told_of_with_its_own_command(
    capsys: Any, classifier: Artifact, echo_artifact: Artifact
) -> None:
    folder = echo_artifact.folder
    for command in (["classify", folder, "--text", "a"], ["rerank", folder, "--query", "q", "--text", "a"]):
        said = refused(capsys, *command)
        assert f"{folder} is for question-answering, not for text-classification" in said
        assert f"try: neuronbert answer {folder} --question ... --context ..." in said
    said = refused(capsys, "answer", classifier.folder, "--question", "who?", "--context", "jim")
    assert f"{classifier.folder} is for text-classification, not for question-answering" in said
    assert f"try: neuronbert classify {classifier.folder} --text ... or neuronbert rerank {classifier.folder}" in said


def test_so_it_is_for_a_file(capsys: Any, classifier: Artifact, echo_artifact: Artifact, tmp_path: Path) -> None:
    texts = lines_file(tmp_path, {"text": "a"})
    assert "is for question-answering" in refused(capsys, "classify", echo_artifact.folder, "--input", texts)
    assert "is for text-classification" in refused(capsys, "answer", classifier.folder, "--input", texts)


def test_a_classifier_ranks_nothing(capsys: Any, classifier: Artifact) -> None:
    said = refused(capsys, "rerank", classifier.folder, "--query", "q", "--text", "a")
    assert "this model tells 3 labels apart (calm, glad, cross)" in said and "num_labels is 1" in said


def test_files_that_hold_no_input(capsys: Any, classifier: Artifact, tmp_path: Path) -> None:
    command = ["classify", classifier.folder, "--input"]
    assert '{"text": "..."}' in refused(capsys, *command, lines_file(tmp_path))
    assert "no text" in refused(capsys, *command, lines_file(tmp_path, "", " "))
    assert "cannot read" in refused(capsys, *command, tmp_path / "missing.jsonl")
    assert "line 1: not JSON" in refused(capsys, *command, lines_file(tmp_path, "a text"))
    assert "line 1: the key 'text' is missing" in refused(capsys, *command, lines_file(tmp_path, {"question": "who?"}))


# ---- run


def test_run_answers_every_form(capsys: Any, scorer: Artifact, tmp_path: Path) -> None:
    path = lines_file(
        tmp_path, {"text": T1}, {"query": T1, "texts": ["jim", T2]}, {"text": ""}, {"text": T1, "top_k": 2}
    )
    output = tmp_path / "out.jsonl"
    code, _, err = invoke(capsys, "run", scorer.folder, "--input", path, "--output", output, "--workers", 1,
                          "--threads", 1, "--on-error", "skip")  # fmt: skip
    assert code == 0 and "skipped line 3: text is empty" in err
    assert [json.loads(line) for line in output.read_text().splitlines()] == [
        {"line": 1, **results_of(scorer, T1)[0]},
        {"line": 2, "ranking": results_of(scorer, Ranking(T1, ("jim", T2)))},
        {"line": 3, "error": "text is empty"},
        {"line": 4, "labels": results_of(scorer, T1)},
    ]


def test_run_passes_on_what_is_typed(capsys: Any, classifier: Artifact, tmp_path: Path) -> None:
    path = lines_file(tmp_path, {"text": T1})
    code, _, _ = invoke(capsys, "run", classifier.folder, "--input", path, "--output", tmp_path / "out", "--workers", 1,
                        "--threads", 1, "--top-k", 2, "--function-to-apply", "sigmoid")  # fmt: skip
    expected = results_of(classifier, T1, top_k=2, function_to_apply="sigmoid")
    assert code == 0 and json.loads((tmp_path / "out").read_text()) == {"line": 1, "labels": expected}


@pytest.mark.parametrize(
    ("option", "keyword"), [(["--doc-stride", "8"], "doc_stride"), (["--no-align-to-words"], "align_to_words")]
)
def test_an_option_of_another_task_is_refused_by_name(
    capsys: Any, classifier: Artifact, tmp_path: Path, option: List[str], keyword: str
) -> None:
    path = lines_file(tmp_path, {"text": T1})
    command = ["run", classifier.folder, "--input", path, "--output", tmp_path / "out"]
    said = refused(capsys, *command, *option, code=2)
    assert f"there is no keyword '{keyword}'" in said and "function_to_apply" in said
    assert sorted(os.listdir(tmp_path)) == ["lines.jsonl"]
    data = tmp_path / "data.csv"
    data.write_text("text,label\na,calm\n")
    assert f"'{keyword}'" in refused(capsys, "evaluate", classifier.folder, data, *option, code=2)


def test_options_of_classification_are_none_of_question_answering(
    capsys: Any, echo_artifact: Artifact, tmp_path: Path
) -> None:
    path = lines_file(tmp_path, {"question": "who?", "context": "jim"})
    command = ["run", echo_artifact.folder, "--input", path, "--output", tmp_path / "out"]
    for option in (["--max-length", "8"], ["--return-texts"], ["--function-to-apply", "none"]):
        assert "there is no keyword" in refused(capsys, *command, *option, code=2)


def test_a_line_through_stdin_of_another_program(classifier: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte order mark and Windows' line ends are no part of a text."""
    typed = io.BytesIO(b"\xef\xbb\xbf" + json.dumps({"text": T1}).encode() + b"\r\n")
    done = CliRunner().invoke(cli, ["classify", str(classifier.folder), "--input", "-", "--threads", "1"], input=typed)
    assert json.loads(done.stdout)["score"] == results_of(classifier, T1)[0]["score"]
