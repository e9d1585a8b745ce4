"""A second task goes the whole way, from checkpoint to benchmark, and no line of the package knows it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest
import toy_task
from click.testing import CliRunner
from tiny_checkpoints import write_checkpoint
from toy_task.data import SAMPLE, load_sentences
from toy_task.options import LabelOptions
from toy_task.task import SentenceLabelsOutput

import neuronbert
from neuronbert import Engine, NeuronBertForQuestionAnswering, Runner, load_artifact, load_checkpoint, pipeline, run_job
from neuronbert.artifact import variants
from neuronbert.artifact.manifest import Artifact
from neuronbert.benchmark import sweep
from neuronbert.benchmark.evaluation import evaluate_artifact
from neuronbert.benchmark.load import Period
from neuronbert.cli.main import cli
from neuronbert.cli.verbs.answering import verb_of
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.engine.answering import answer_file, answer_input
from neuronbert.errors import ArtifactError, CheckpointError, InputError, UsageError
from neuronbert.tasks import MODEL_CLASSES, TASKS, load_figures, load_options, load_task
from neuronbert.tasks.base import Task, TaskEvaluation, TaskFigures, TaskGate, TaskKeywords

pytest.importorskip("torch")

QUESTION_ANSWERING = "question-answering"
EVERY_TASK = {**TASKS, toy_task.NAME: toy_task.__name__}
LABELS = ("calm", "glad", "cross")
TEXTS = [sentence.text for sentence in load_sentences(SAMPLE)]
# A process that the package starts knows the task as this one does: Python imports such a file before all else.
SITE = """
import sys
sys.path[:0] = {folders!r}
import toy_task
from neuronbert.tasks import MODEL_CLASSES, TASKS
toy_task.register(TASKS, MODEL_CLASSES)
"""


@pytest.fixture(scope="module", autouse=True)
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The task in the tables of this process and of those that it starts."""
    site = tmp_path_factory.mktemp("site")
    package = str(Path(neuronbert.__file__).resolve().parents[1])
    (site / "sitecustomize.py").write_text(SITE.format(folders=[package, str(Path(__file__).parent)]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))))
        patch.delitem(TASKS, toy_task.IN_PLACE_OF, raising=False)
        patch.setitem(TASKS, toy_task.NAME, toy_task.__name__)
        patch.setitem(MODEL_CLASSES, toy_task.MODEL_CLASS, toy_task.NAME)
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with a classifier of three labels that have names."""
    return write_checkpoint(
        tmp_path_factory.mktemp("toy"), "bert", "TokenClassification", id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Compiled by torch in FP32, through the task's own gate."""
    output = tmp_path_factory.mktemp("torchscript") / "artifact"
    return compile_checkpoint(checkpoint, output, backend="torchscript", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def echo(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Answers that mean nothing, quick to load: for what is around a model."""
    output = tmp_path_factory.mktemp("echo") / "artifact"
    return compile_checkpoint(checkpoint, output, backend="echo", precision="fp32", skip_gate=True)


@pytest.fixture(scope="module")
def expected(echo: Artifact) -> List[Dict[str, Any]]:
    """What one process makes of TEXTS, the evidence included."""
    with Engine(echo, threads=1) as engine:
        results = engine.answer(TEXTS, answer_options=LabelOptions(evidence=True))
    assert len({result["score"] for result in results}) > 8 and {result["label"] for result in results} <= set(LABELS)
    return results


def lines_of(texts: List[str], **keywords: Any) -> bytes:
    return b"".join(json.dumps({"text": text, **keywords}).encode() + b"\n" for text in texts)


# ---- the Protocol


@pytest.mark.parametrize("name", EVERY_TASK)
def test_a_task_has_all_that_the_protocol_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, name, EVERY_TASK[name])  # the one whose place the toy has taken, too

    def missing(protocol: Any, thing: Any) -> List[str]:
        # On Python 3.8 a class without annotations has no such attribute.
        members = {*vars(protocol), *getattr(protocol, "__annotations__", ())}
        return sorted(member for member in members if not member.startswith("_") and not hasattr(thing, member))

    task = load_task(name)
    assert task.NAME == task.HEAD.task == name
    assert missing(Task, task) == missing(TaskGate, task.gate({})) == missing(TaskFigures, load_figures(name)) == []
    keywords = load_options(name)
    assert missing(TaskKeywords, keywords) == []
    assert (keywords.ENCODE_OPTIONS, keywords.DECODE_OPTIONS) == (task.ENCODE_OPTIONS, task.DECODE_OPTIONS)


# ---- checkpoints


def test_the_task_is_that_of_the_head(checkpoint: Path, tiny_checkpoint: Path) -> None:
    found = load_checkpoint(str(checkpoint))
    assert (found.head.task, found.architecture) == (toy_task.NAME, "BertForTokenClassification")
    assert load_checkpoint(str(tiny_checkpoint)).head.task == QUESTION_ANSWERING


@pytest.mark.parametrize(
    ("architecture", "task"),
    [("BertForTokenClassification", toy_task.NAME), ("BertForQuestionAnswering", QUESTION_ANSWERING)],
)
def test_of_two_heads_the_one_that_the_config_names_is_taken(
    checkpoint: Path, tmp_path: Path, architecture: str, task: str
) -> None:
    assert load_checkpoint(str(with_both_heads(checkpoint, tmp_path, architecture))).head.task == task


def test_of_two_heads_that_the_config_does_not_name_one_is_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    folder = str(with_both_heads(checkpoint, tmp_path, "BertModel"))
    with pytest.raises(CheckpointError, match=f"has the heads of {QUESTION_ANSWERING} and {toy_task.NAME}") as caught:
        load_checkpoint(folder)
    assert caught.value.hint == f"--task {QUESTION_ANSWERING}, or another of them"
    assert load_checkpoint(folder, task=toy_task.NAME).head.task == toy_task.NAME


def with_both_heads(checkpoint: Path, tmp_path: Path, architecture: str) -> Path:
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = tmp_path / "both"
    folder.mkdir()
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    config = {**json.loads((checkpoint / "config.json").read_text()), "architectures": [architecture]}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = safetensors.load_file(str(checkpoint / "model.safetensors"))
    more = {"qa_outputs.weight": np.ones((2, 32), np.float32), "qa_outputs.bias": np.zeros(2, np.float32)}
    safetensors.save_file({**tensors, **more}, str(folder / "model.safetensors"))
    return folder


def test_labels_that_the_config_does_not_count_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fewer"
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": "calm", "1": "glad"}}))
    with pytest.raises(CheckpointError, match=r"classifier.* is \[3(, 32)?\], the config asks for \[2"):
        load_checkpoint(str(folder))


def test_a_checkpoint_of_neither_task_hears_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TASKS, "feature-extraction")  # which every encoder is for
    bare = write_checkpoint(tmp_path / "bare", "bert", "")
    with pytest.raises(
        CheckpointError, match=r"no question-answering head.* nor .*sentence-labels head \(classifier\)"
    ):
        load_checkpoint(str(bare))


# ---- artifacts


def test_the_manifest_names_the_task_and_what_its_gate_measured(artifact: Artifact) -> None:
    assert load_artifact(artifact.folder).task == toy_task.NAME
    (variant,) = artifact.variants
    assert variant["agreement"]["n"] == len(TEXTS) and variant["agreement"]["equal_labels"] == 1.0
    assert artifact.manifest["gate"]["data"][0]["name"] == SAMPLE.name


def test_a_backend_with_a_model_of_its_own_knows_the_head_by_its_steps(
    artifact: Artifact, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output of rows beside one of tokens, of the same weights: as torch gives them."""
    torch = pytest.importorskip("torch", minversion="2.4")
    pytest.importorskip("safetensors")
    from neuronbert.backends.cuda import backend

    def load(folder: Path, variant: Any, *, outputs: Any, threads: int, streams: int) -> Any:
        return backend.load_on(torch.device("cpu"), folder, variant["precision"], outputs, streams)

    monkeypatch.setattr(backend, "check_available", lambda precision: None)
    monkeypatch.setattr(backend, "load", load)
    monkeypatch.setattr(variants, "unmet_requirements", lambda requires: [])
    output = tmp_path / "artifact"
    options = LabelOptions(evidence=True)
    with Engine(artifact, variant="torchscript", threads=1) as engine:
        theirs = engine.answer(TEXTS, answer_options=options)
    made = compile_checkpoint(checkpoint, output, backend="cuda", precision="fp32", threads=1, skip_gate=True)
    with Engine(made, threads=1) as engine:
        ours = engine.answer(TEXTS, answer_options=options)
    for one, other in zip(ours, theirs):
        assert {**one, "score": 0} == {**other, "score": 0}
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_what_the_gate_refuses_is_refused_in_the_tasks_words(checkpoint: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.json"
    few.write_text(json.dumps([{"text": "one", "label": "calm"}]))
    with pytest.raises(InputError, match="1 sentences say nothing"):
        compile_checkpoint(checkpoint, tmp_path / "out", backend="torchscript", precision="fp32", gate_data=few)
    with pytest.raises(neuronbert.errors.GateRefused, match="its scores differ by"):
        compile_checkpoint(checkpoint, tmp_path / "out", backend="echo", precision="fp32")
    assert not (tmp_path / "out").exists()


def test_inspect_shows_the_tasks_figures(artifact: Artifact, echo: Artifact) -> None:
    shown = CliRunner().invoke(cli, ["inspect", str(artifact.folder)])
    assert shown.exit_code == 0 and "equal labels" in shown.output and "100%" in shown.output
    assert "not measured" in CliRunner().invoke(cli, ["inspect", str(echo.folder)]).output


def test_a_release_without_the_task_refuses_its_artifact_by_name(echo: Artifact) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(TASKS, toy_task.NAME)
        with pytest.raises(ArtifactError, match=f"has the task '{toy_task.NAME}'"):
            load_artifact(echo.folder)


# ---- one process


def test_the_engine_says_what_the_model_says(artifact: Artifact, checkpoint: Path) -> None:
    import torch

    from neuronbert.checkpoint.reference_model import transformers

    model = transformers.BertForTokenClassification.from_pretrained(str(checkpoint)).eval()
    with Engine(artifact, variant="torchscript", threads=1) as engine:
        for sample, result in zip(engine.encode(TEXTS), engine.answer(TEXTS)):
            with torch.no_grad():
                scores = model(torch.from_numpy(sample.windows[0].input_ids)[None]).logits[0]
            assert result["label"] == LABELS[int(scores[0].argmax())]
            assert result["score"] == pytest.approx(float(scores[0].softmax(-1).max()), abs=1e-4)


def test_results_do_not_depend_on_what_shares_their_batch(artifact: Artifact) -> None:
    with Engine(artifact, variant="torchscript", threads=1) as engine:
        alone = [engine.answer([text])[0] for text in TEXTS]
        assert [result["label"] for result in engine.answer(TEXTS)] == [result["label"] for result in alone]


def test_pipeline_takes_a_text_or_several_and_both_kinds_of_options(artifact: Artifact) -> None:
    with Engine(artifact, variant="torchscript", threads=1) as engine:
        labels = pipeline(toy_task.NAME, model=engine, evidence=True)
        assert labels(TEXTS[1])["evidence"] in TEXTS[1]
        assert [result["label"] for result in labels(TEXTS, min_score=1.0)] == [None] * len(TEXTS)
        assert labels(TEXTS[-1], max_tokens=4)["score"] != labels(TEXTS[-1])["score"]


def test_the_model_class_has_the_tasks_outputs(artifact: Artifact) -> None:
    import torch

    with neuronbert.NeuronBertForSentenceLabels.from_pretrained(artifact, variant="torchscript", threads=1) as model:
        output = model(torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]))
    assert isinstance(output, SentenceLabelsOutput)
    assert output.label_scores.shape == (2, 3) and output.token_scores.shape == (2, 4, 3)
    np.testing.assert_array_equal(output.label_scores, output.token_scores[:, 0])


def test_an_input_and_a_file_of_them(echo: Artifact, expected: List[Dict[str, Any]]) -> None:
    answered = answer_input(echo.folder, TEXTS[0], threads=1, evidence=True)
    assert answered.document == expected[0] and json.loads(answered.text) == expected[0]
    results: List[Dict[str, Any]] = []
    file = io.BytesIO(lines_of(TEXTS))
    assert answer_file(echo.folder, file, on_result=results.append, threads=1, evidence=True) == []
    assert results == [{"line": number, **result} for number, result in enumerate(expected, start=1)]


def test_a_line_sets_the_tasks_options_for_itself(echo: Artifact) -> None:
    lines = lines_of(TEXTS[:1], min_score=1) + lines_of(TEXTS[:1], evidence=True) + lines_of([TEXTS[-1]], max_tokens=4)
    results: List[Dict[str, Any]] = []
    answer_file(echo.folder, io.BytesIO(lines), on_result=results.append, threads=1)
    assert results[0]["label"] is None and results[1]["evidence"] in TEXTS[0] and results[2]["label"] in LABELS


def test_the_command_line_passes_on_what_is_typed(
    echo: Artifact, expected: List[Dict[str, Any]], tmp_path: Path
) -> None:
    """Its defaults are question answering's: another task has its own, and refuses by name what it does not have."""
    (tmp_path / "texts.jsonl").write_bytes(lines_of(TEXTS[:1], evidence=True))
    feel = verb_of(toy_task.NAME, load_options(toy_task.NAME).VERBS[0])
    command = [str(echo.folder), "--input", str(tmp_path / "texts.jsonl"), "--threads", "1"]
    assert json.loads(CliRunner().invoke(feel, command).output) == {"line": 1, **expected[0]}
    shown = CliRunner().invoke(feel, [str(echo.folder), "--text", TEXTS[0], "--evidence", "--json", "--threads", "1"])
    assert json.loads(shown.output) == expected[0]
    run = ["run", *command, "--output", str(tmp_path / "out.jsonl"), "--top-k", "1"]
    refused = CliRunner().invoke(cli, run).exception
    assert isinstance(refused, UsageError) and "top_k" in str(refused)


def test_the_verb_of_another_task_is_refused_with_the_right_one(echo: Artifact) -> None:
    refused = CliRunner().invoke(cli, ["answer", str(echo.folder), "--question", "q", "--context", "c"]).exception
    assert isinstance(refused, ArtifactError) and refused.exit_code == 1
    assert f"is for {toy_task.NAME}, not for {QUESTION_ANSWERING}" in refused.message
    assert refused.hint == f"neuronbert feel {echo.folder} --text ..."


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"question": "who?", "context": "jim"}, "the key 'text' is missing"),
        ({"text": ""}, "text is empty"),
        ({"text": "jim", "min_score": "high"}, 'min_score is "high", not a number'),
        ({"text": "jim", "min_score": True}, "min_score is true, not a number"),
        ({"text": "jim", "min_score": 2}, "min_score must be from 0 to 1"),
        ({"text": "jim", "max_tokens": 2}, "max_tokens=2 leaves no room for text"),
    ],
)
def test_a_broken_line_is_named_in_the_tasks_words(echo: Artifact, line: Dict[str, Any], reason: str) -> None:
    file = io.BytesIO(json.dumps(line).encode())
    with pytest.raises(InputError, match=f"line 1: {reason}"):
        answer_file(echo.folder, file, on_result=print, threads=1)


# ---- many processes


def test_the_runner_answers_in_its_workers(echo: Artifact, expected: List[Dict[str, Any]]) -> None:
    with Runner(echo, workers=1, threads=1) as runner:
        assert runner.submit(TEXTS[0], evidence=True).result() == expected[0]
        assert list(runner.map(TEXTS, evidence=True)) == expected
        assert runner.submit(TEXTS[0], min_score=1.0, breakdown=True).result().result["label"] is None
        output = runner.submit_encoded([[2, 7, 8, 3], [2, 9, 3, 0]], [[1, 1, 1, 1], [1, 1, 1, 0]]).result()
        assert isinstance(output, SentenceLabelsOutput)
        assert output.label_scores.shape == (2, 3) and output.token_scores.shape == (2, 4, 3)
        with pytest.raises(UsageError, match="no keyword 'top_k'"):
            runner.submit(TEXTS[0], top_k=2)


def test_a_job_writes_a_line_for_each(echo: Artifact, expected: List[Dict[str, Any]], tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(lines_of(TEXTS))
    report = run_job(echo, source, output, workers=1, threads=1, evidence=True)
    assert (report.answered, report.skipped) == (len(TEXTS), 0)
    written = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert written == [{"line": number, **result} for number, result in enumerate(expected, start=1)]


def test_a_process_of_its_own_knows_the_task(echo: Artifact) -> None:
    code = f"import neuronbert; print(neuronbert.load_artifact({str(echo.folder)!r}).task)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == toy_task.NAME


# ---- measuring


def test_evaluation_reports_what_the_task_measures(artifact: Artifact, checkpoint: Path) -> None:
    report = evaluate_artifact(artifact, SAMPLE, variant="torchscript", against=str(checkpoint), limit=6, threads=1)
    assert len(report.labels) == 6 and 0 <= report.accuracy <= 1 and report.equal_to_other == 1.0
    evaluation: TaskEvaluation = load_task(toy_task.NAME).evaluation(SAMPLE, 2, None, None)
    assert len(evaluation.inputs) == 2


def test_evaluate_names_the_input_that_cannot_be_asked(artifact: Artifact, tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps([{"text": "fine", "label": "calm"}, {"text": "", "label": "calm"}]))
    with pytest.raises(InputError, match="sentence 2: '' is no text"):
        evaluate_artifact(artifact, data, variant="torchscript", threads=1)


@pytest.mark.parametrize("options", [{}, {"sequence_length": "16"}], ids=["text", "tokens"])
def test_one_point_of_a_benchmark(echo: Artifact, options: Dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "Period", lambda longest_s: Period(warm_up_s=0.1, window_s=0.1, longest_s=longest_s))
    report = neuronbert.benchmark_artifact(echo, concurrency="2", workers="1", threads="1", longest_s=0.3, **options)
    (point,) = report["points"]
    assert point["errors"] == 0 and point["throughput_avg"] > 0


# ---- two tasks side by side


def test_artifacts_are_refused_where_another_task_is_expected(echo: Artifact, echo_artifact: Artifact) -> None:
    with pytest.raises(UsageError, match=f"is for {toy_task.NAME}, not for {QUESTION_ANSWERING}"):
        pipeline(QUESTION_ANSWERING, model=echo)
    with pytest.raises(UsageError, match=f"is for {QUESTION_ANSWERING}, not for {toy_task.NAME}"):
        pipeline(toy_task.NAME, model=echo_artifact)
    with pytest.raises(UsageError, match=f"is for {toy_task.NAME}, and NeuronBertForQuestionAnswering"):
        NeuronBertForQuestionAnswering.from_pretrained(echo)
    with pytest.raises(UsageError, match=f"is for {QUESTION_ANSWERING}, and {toy_task.MODEL_CLASS}"):
        neuronbert.NeuronBertForSentenceLabels.from_pretrained(echo_artifact)


def test_two_tasks_are_not_compared(echo: Artifact, echo_artifact: Artifact, checkpoint: Path) -> None:
    with pytest.raises(UsageError, match=f"{QUESTION_ANSWERING} and {toy_task.NAME} cannot be compared"):
        evaluate_artifact(echo, SAMPLE, against=echo_artifact.folder)
    with pytest.raises(CheckpointError, match=f"has no {toy_task.NAME} head"):
        evaluate_artifact(echo, SAMPLE, against="demo")


# ---- the other backends


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "precision"),
    [("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32"), ("openvino", "int8")],
)
def test_every_backend_runs_the_task(
    checkpoint: Path, artifact: Artifact, tmp_path: Path, backend: str, precision: str
) -> None:
    pytest.importorskip(backend)
    made = compile_checkpoint(
        checkpoint, tmp_path / "out", backend=backend, precision=precision, min_answer_f1=0.5, threads=1
    )
    with Engine(made, threads=1) as engine, Engine(artifact, variant="torchscript", threads=1) as reference:
        pairs = list(zip(engine.answer(TEXTS), reference.answer(TEXTS)))
    assert all(ours["score"] == pytest.approx(theirs["score"], abs=0.2) for ours, theirs in pairs)


@pytest.mark.slow
def test_an_emulated_device_runs_the_task(checkpoint: Path, artifact: Artifact, tmp_path: Path) -> None:
    """Compiled in a child, asked by the gate in another, answered in this process."""
    from neuronbert import emulator

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONBERT_CACHE", str(tmp_path / "cache"))
        emulator.use("inf1.xlarge", directory=str(tmp_path / "device"))
        try:
            made = compile_checkpoint(
                checkpoint, tmp_path / "out", backend="neuron", sequence_length="32", min_answer_f1=0.5, threads=1
            )
            with Engine(made, threads=1) as engine, Engine(artifact, variant="torchscript", threads=1) as reference:
                pairs = list(zip(engine.answer(TEXTS[:8]), reference.answer(TEXTS[:8])))
        finally:
            emulator.stop()
    assert all(ours["score"] == pytest.approx(theirs["score"], abs=0.2) for ours, theirs in pairs)
