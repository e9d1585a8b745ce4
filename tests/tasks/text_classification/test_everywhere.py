"""Text classification goes the whole way: one process, many, jobs, benchmarks, and every backend."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import numpy as np
import pytest
from tiny_classifiers import LABELS, compiled, write_classifier

import neuronbert
from neuronbert import Engine, NeuronBertForQuestionAnswering, Runner, load_artifact, load_checkpoint, pipeline, run_job
from neuronbert.artifact.manifest import Artifact
from neuronbert.benchmark import sweep
from neuronbert.benchmark.load import Period
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.engine.answering import answer_file, answer_input
from neuronbert.errors import ArtifactError, InputError, UsageError
from neuronbert.runner.requests import Answered
from neuronbert.tasks.rows import TextPair
from neuronbert.tasks.text_classification.inputs import Ranking
from neuronbert.tasks.text_classification.options import LabelOptions, RowOptions
from neuronbert.tasks.text_classification.task import SequenceClassifierOutput

TASK = "text-classification"
T1, T2 = "who was jim henson?", "the puppet, a nice one"
TEXTS = [T1, T2, "jim", "", "the " * 80, "café 北京", "was the nice puppet jim?"]
MIXED: List[Any] = [T1, TextPair(T1, T2), Ranking(T1, ("jim", T2, "", "the " * 80)), {"text": T2}, (T1, ["who", "a"])]


@pytest.fixture(scope="module")
def echo(checkpoint: Path, folder: Path) -> Artifact:
    """Three labels, with numbers that mean nothing: for what is around a model."""
    return compiled(checkpoint, folder / "echo", "echo")


@pytest.fixture(scope="module")
def echo_scorer(cross_encoder_checkpoint: Path, folder: Path) -> Artifact:
    """One score, that means nothing either."""
    return compiled(cross_encoder_checkpoint, folder / "echo-scorer", "echo")


@pytest.fixture(scope="module")
def runner(echo: Artifact) -> Iterator[Runner]:
    with Runner(echo, workers=1, threads=1) as runner:
        yield runner


@pytest.fixture(scope="module")
def ranker(echo_scorer: Artifact) -> Iterator[Runner]:
    with Runner(echo_scorer, workers=1, threads=1) as runner:
        yield runner


@pytest.fixture(scope="module")
def labels(echo: Artifact) -> List[List[Dict[str, Any]]]:
    """Every label of TEXTS, from one process."""
    with Engine(echo, threads=1) as engine:
        results = engine.answer(TEXTS, answer_options=LabelOptions(top_k=3))
    assert len({result[0]["score"] for result in results}) > 4
    assert {entry["label"] for result in results for entry in result} == set(LABELS)
    return results


@pytest.fixture(scope="module")
def rankings(echo_scorer: Artifact) -> List[Any]:
    """What one process makes of MIXED, as calls give it."""
    with Engine(echo_scorer, threads=1) as engine:
        results = [result if "index" in result[0] else result[0] for result in engine.answer(MIXED)]
    assert [len(each) for each in results if isinstance(each, list)] == [4, 2]
    return results


def lines_of(*lines: Any) -> bytes:
    return b"".join((line if isinstance(line, str) else json.dumps(line)).encode() + b"\n" for line in lines)


# ---- a checkpoint is recognised


def test_a_checkpoint_says_what_it_is_for(checkpoint: Path, artifact: Artifact) -> None:
    loaded = load_checkpoint(checkpoint)
    assert (loaded.head.task, loaded.architecture) == (TASK, "BertForSequenceClassification")
    assert load_artifact(artifact.folder).task == TASK


def test_a_model_in_memory_is_compiled_too(checkpoint: Path, engine: Engine, tmp_path: Path) -> None:
    from neuronbert.checkpoint.reference_model import transformers

    model = transformers.BertForSequenceClassification.from_pretrained(str(checkpoint))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(checkpoint))
    made = compile_checkpoint((model, tokenizer), tmp_path / "out", backend="torchscript", precision="fp32",
                              skip_gate=True, threads=1)  # fmt: skip
    with Engine(made, variant="torchscript", threads=1) as other:
        for ours, theirs in zip(other.answer(TEXTS), engine.answer(TEXTS)):
            assert ours == [{**theirs[0], "score": pytest.approx(theirs[0]["score"], abs=1e-5)}]


def test_an_artifact_is_refused_where_another_task_is_expected(echo: Artifact) -> None:
    with pytest.raises(UsageError, match=f"is for {TASK}, not for question-answering"):
        pipeline("question-answering", model=echo)
    with pytest.raises(UsageError, match=f"is for {TASK}, and NeuronBertForQuestionAnswering"):
        NeuronBertForQuestionAnswering.from_pretrained(echo)
    with pytest.raises(ArtifactError, match=f"is for {TASK}, not for question-answering") as caught:
        answer_input(echo.folder, "who?", "jim", task="question-answering", threads=1)
    assert f"neuronbert classify {echo.folder} --text ..." in str(caught.value.hint)


# ---- one process


def test_the_model_class_has_the_logits_of_transformers(artifact: Artifact, checkpoint: Path) -> None:
    import torch

    from neuronbert.checkpoint.reference_model import transformers

    rows = torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    theirs = transformers.BertForSequenceClassification.from_pretrained(str(checkpoint)).eval()
    with torch.no_grad():
        expected = theirs(*rows).logits
    model_class = neuronbert.NeuronBertForSequenceClassification
    with model_class.from_pretrained(artifact, variant="torchscript", threads=1) as model:
        output, arrays = model(*rows), model(*(each.numpy() for each in rows))
    assert isinstance(output, SequenceClassifierOutput) and isinstance(output.logits, torch.Tensor)
    assert output.logits.shape == (2, 3) and arrays.logits.dtype == np.float32
    np.testing.assert_allclose(arrays.logits, expected.numpy(), atol=1e-5)


def test_results_do_not_depend_on_what_shares_their_batch(scorer: Engine) -> None:
    alone = [scorer.answer([asked])[0] for asked in MIXED]
    for together, expected in zip(scorer.answer(MIXED * 3), alone * 3):
        assert [entry.get("index") for entry in together] == [entry.get("index") for entry in expected]
        scores = [entry["score"] for entry in expected]
        assert [entry["score"] for entry in together] == pytest.approx(scores, abs=1e-5)


def test_options_of_both_kinds_are_each_calls_own(engine: Engine) -> None:
    examples = engine.encode([T1, "the " * 80], RowOptions(max_length=4))
    assert [len(example.windows[0].input_ids) for example in examples] == [4, 4]
    one, all_ = engine.answer_encoded(examples, [LabelOptions(), LabelOptions(top_k=3, function_to_apply="none")])
    assert (len(one), len(all_)) == (1, 3) and one[0]["truncated"] and all_[0]["truncated"]


def test_an_input_of_a_file_and_one_of_a_call(echo: Artifact, labels: List[Any]) -> None:
    answered = answer_input(echo.folder, T1, threads=1, top_k=2, task=TASK)
    assert answered.document == {"labels": labels[0][:2]}
    assert answered.text == "\n".join(f"{each['label']}  (score {each['score']:.4f})" for each in labels[0][:2])
    results: List[Any] = []
    file = io.BytesIO(
        lines_of({"id": "a", "text": T1}, {"text": T2, "top_k": 3}, {"text": T1, "function_to_apply": "none"})
    )
    assert answer_file(echo.folder, file, on_result=results.append, threads=1) == []
    assert results[:2] == [{"line": 1, "id": "a", **labels[0][0]}, {"line": 2, "labels": labels[1]}]
    assert results[2]["label"] == labels[0][0]["label"] and results[2]["score"] != labels[0][0]["score"]


# ---- many processes


def test_a_runner_takes_a_text_a_pair_and_every_label(runner: Runner, echo: Artifact, labels: List[Any]) -> None:
    assert [runner.submit(text).result() for text in TEXTS if text] == [
        result[0] for text, result in zip(TEXTS, labels) if text
    ]
    assert runner.submit("", top_k=3).result() == labels[3]
    assert runner.submit(T1, top_k=3).result() == labels[0]
    assert runner.submit(T1, top_k=1).result() == labels[0][0]
    pair = runner.submit(T1, T2).result()
    assert (
        pair == runner.submit(text=T1, text_pair=T2).result() == runner.submit({"text": T1, "text_pair": T2}).result()
    )
    assert pair != labels[0][0]
    assert runner.submit(T1, max_length=4).result()["truncated"] is True
    answered = runner.submit(T1, breakdown=True).result()
    assert isinstance(answered, Answered) and answered.result == labels[0][0]
    assert asyncio.run(runner.answer(T1, top_k=3)) == labels[0]


def test_a_runner_ranks_texts_for_a_query(ranker: Runner, rankings: List[Any]) -> None:
    query, texts = MIXED[2]
    assert ranker.submit(query=query, texts=list(texts)).result() == rankings[2]
    assert ranker.submit(query, list(texts)).result() == rankings[2]
    assert ranker.submit({"query": query, "texts": list(texts)}).result() == rankings[2]
    (best,) = ranker.submit(query=query, texts=texts, top_k=1, return_texts=True).result()
    assert best == {**rankings[2][0], "text": texts[rankings[2][0]["index"]]}
    # One text is a ranking too, not a label.
    assert [entry["index"] for entry in ranker.submit(query=query, texts=["jim"]).result()] == [0]


def test_a_runner_maps_inputs_of_every_form(ranker: Runner, rankings: List[Any]) -> None:
    assert list(ranker.map(MIXED)) == rankings
    assert list(ranker.map(iter(MIXED * 40))) == rankings * 40
    assert list(ranker.map([])) == []


def test_what_cannot_be_asked_is_refused_in_its_place(runner: Runner, ranker: Runner, labels: List[Any]) -> None:
    wrong = [5, {"text": 5}, {"text_pair": "a"}, (T1, [T2]), {"query": T1, "texts": []}]
    asked = [T1, *wrong, T2]
    outcomes = list(runner.map(asked, on_error="yield"))
    assert [outcomes[0], outcomes[-1]] == [labels[0][0], labels[1][0]]
    for number, outcome in enumerate(outcomes[1:-1], start=1):
        assert isinstance(outcome, InputError) and str(outcome).startswith(f"inputs[{number}]: ")
    with pytest.raises(InputError, match=r"^inputs\[1\]: 5 is no text"):
        list(runner.map(asked))
    for one in wrong:
        with pytest.raises(InputError):
            runner.submit(one).result()
    with pytest.raises(InputError, match="this model tells 3 labels apart"):
        runner.submit(query=T1, texts=[T2])
    with pytest.raises(InputError, match="this request ranks 300 texts, and the runner takes 256"):
        ranker.submit(query=T1, texts=["a"] * 300)
    with pytest.raises(InputError, match="a call has a text, a text and its text_pair, or a query and a list of texts"):
        runner.submit()


def test_options_of_another_task_are_none_here(runner: Runner) -> None:
    with pytest.raises(UsageError, match="there is no keyword 'doc_stride'"):
        runner.submit(T1, doc_stride=8)
    with pytest.raises(UsageError, match="there is no keyword 'max_seq_len'"):
        list(runner.map([T1], max_seq_len=8))
    with pytest.raises(UsageError, match="top_k must be a whole number, 1 or more, not 0"):
        runner.submit(T1, top_k=0)
    with pytest.raises(UsageError, match="a max_length of 2 leaves no room"):
        runner.submit(T1, max_length=2)


def test_tokens_of_ones_own_give_logits(runner: Runner) -> None:
    output = runner.submit_encoded([[2, 7, 8, 3], [2, 9, 3, 0]], [[1, 1, 1, 1], [1, 1, 1, 0]]).result()
    assert isinstance(output, SequenceClassifierOutput) and output.logits.shape == (2, 3)


# ---- jobs


def test_a_job_writes_a_line_for_each(echo_scorer: Artifact, tmp_path: Path) -> None:
    lines = [
        {"text": T1},
        {"id": "pair", "text": T1, "text_pair": T2},
        {"id": 3, "query": T1, "texts": ["jim", T2], "return_texts": True},
        "not JSON",
        {"id": "empty", "text": ""},
        {"query": T1, "texts": []},
        "",
        {"id": "none", "text": T1, "top_k": 0},
        {"text": T1, "max_length": 2},
        {"text": T2, "top_k": 3},
        {"query": T1, "texts": [f"text {number}" for number in range(50)], "top_k": 2},
    ]
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(lines_of(*lines))
    skipped: List[Any] = []
    report = run_job(echo_scorer, source, output, workers=1, threads=1, on_error="skip", on_skip=skipped.append)
    assert (report.lines, report.answered, report.skipped) == (11, 5, 5)
    written = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    # The same as from one process.
    expected: List[Any] = []
    answer_file(echo_scorer, io.BytesIO(source.read_bytes()), on_result=expected.append, on_error="skip", threads=1)
    assert written == expected
    by_line = {line["line"]: line for line in written}
    assert set(by_line[1]) == {"line", "label", "score"} and by_line[1]["label"] == "relevant"
    assert by_line[2]["id"] == "pair" and by_line[2]["score"] != by_line[1]["score"]
    assert sorted(entry["text"] for entry in by_line[3]["ranking"]) == sorted(["jim", T2])
    assert [len(by_line[number][key]) for number, key in ((10, "labels"), (11, "ranking"))] == [1, 2]
    errors = {number: line["error"] for number, line in by_line.items() if "error" in line}
    assert sorted(errors) == [4, 5, 6, 8, 9] == [line.line_number for line in skipped]
    assert errors[4].startswith("not JSON") and errors[5] == "text is empty" and errors[6] == "texts is empty"
    assert errors[8].startswith("top_k must be a whole number") and by_line[8]["id"] == "none"
    assert errors[9].startswith("a max_length of 2 leaves no room for text")


def test_a_job_has_options_for_all_its_lines(echo: Artifact, labels: List[Any], tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(lines_of(*({"text": text} for text in TEXTS if text)))
    run_job(echo, source, tmp_path / "out.jsonl", workers=1, threads=1, top_k=3)
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["labels"] for line in written] == [each for text, each in zip(TEXTS, labels) if text]
    with pytest.raises(UsageError, match="there is no keyword 'doc_stride'"):
        run_job(echo, source, tmp_path / "other.jsonl", workers=1, threads=1, doc_stride=8)
    assert not (tmp_path / "other.jsonl").exists()


# ---- measuring


@pytest.mark.parametrize(
    "options", [{}, {"sequence_length": "16"}, {"input_data": True}], ids=["text", "tokens", "data"]
)
def test_one_point_of_a_benchmark(
    echo_scorer: Artifact, options: Dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "Period", lambda longest_s: Period(warm_up_s=0.1, window_s=0.1, longest_s=longest_s))
    if "input_data" in options:
        path = tmp_path / "inputs.jsonl"
        path.write_bytes(lines_of({"text": T1}, {"query": T1, "texts": ["jim", T2]}, {"text": T1, "text_pair": T2}))
        options = {"input_data": str(path)}
    report = neuronbert.benchmark_artifact(
        echo_scorer, concurrency="2", workers="1", threads="1", longest_s=0.3, **options
    )
    (point,) = report["points"]
    assert point["errors"] == 0 and point["throughput_avg"] > 0


# ---- the other backends


def agree(made: Artifact, engine: Engine, asked: List[Any], tolerance: float, **options: Optional[str]) -> None:
    """Scores of every label that are those of FP32, as far as the precision allows."""
    with Engine(made, threads=1, **options) as other:  # type: ignore[arg-type]
        pairs = zip(*(each.answer(asked, answer_options=LabelOptions(top_k=3)) for each in (other, engine)))
        for ours, theirs in pairs:
            scores = {entry["label"]: entry["score"] for entry in theirs}
            assert {entry["label"]: entry["score"] for entry in ours} == pytest.approx(scores, abs=tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_backend_runs_the_task(checkpoint: Path, engine: Engine, tmp_path: Path, backend: str) -> None:
    """Through the gate. int8 of so small a model is coarse, and its decisions are closer together than a real one's."""
    pytest.importorskip(backend)
    made = compile_checkpoint(
        checkpoint, tmp_path / "out", backend=backend, precision=["fp32", "int8"], min_answer_f1=0.5, threads=1
    )
    assert {variant["precision"] for variant in made.manifest["variants"]} == {"fp32", "int8"}
    asked = [T1, TextPair(T1, T2), T2, "the " * 80]
    agree(made, engine, asked, 1e-4, variant=f"{backend}-fp32")
    agree(made, engine, asked, 0.15, variant=f"{backend}-int8")


@pytest.mark.slow
@pytest.mark.usefixtures("short_gate")
def test_an_emulated_device_runs_the_task(folder: Path, tmp_path: Path) -> None:
    """Compiled in a child, asked by the gate in another, answered in this process; rows are 32 tokens at most."""
    from neuronbert import emulator

    checkpoint = write_classifier(tmp_path / "checkpoint", labels=["relevant"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONBERT_CACHE", str(tmp_path / "cache"))
        emulator.use("inf1.xlarge", directory=str(tmp_path / "device"))
        try:
            made = compile_checkpoint(
                checkpoint, tmp_path / "out", backend="neuron", sequence_length="32", min_answer_f1=0.5, threads=1
            )
            reference = compiled(checkpoint, tmp_path / "reference")
            asked = [T1, TextPair(T1, T2)]
            with Engine(reference, variant="torchscript", threads=1) as engine:
                agree(made, engine, asked, 0.01)
                expected = engine.answer([Ranking(T1, ("jim", T2, "nice"))])[0]
            with Engine(made, threads=1) as device:
                assert device.tokenizer.max_length == 32
                assert device.answer(["the " * 31])[0][0]["truncated"] is True
                ranked = device.answer([Ranking(T1, ("jim", T2, "nice"))])[0]
        finally:
            emulator.stop()
    assert [entry["score"] for entry in ranked] == pytest.approx([entry["score"] for entry in expected], abs=0.01)
