"""Token classification the whole way: every family's head, lines, the command line, the runner, and the backends."""

import io
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_checkpoints import FAMILIES

import neuronbert
from neuronbert import Runner, load_checkpoint, run_job
from neuronbert.artifact.manifest import Artifact
from neuronbert.backends.reference import ReferenceSession
from neuronbert.benchmark import sweep
from neuronbert.benchmark.load import Period
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.cli.main import cli
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.engine.answering import answer_file, answer_input
from neuronbert.engine.batches import collate
from neuronbert.engine.engine import Engine
from neuronbert.errors import CheckpointError, InputError
from neuronbert.tasks import load_task
from neuronbert.tasks.samples import gate_path
from neuronbert.tasks.token_classification.data import shipped_paragraphs
from neuronbert.tasks.token_classification.options import EntityOptions, StrideOptions
from neuronbert.tasks.token_classification.task import TokenClassifierOutput, full_rows, read_inputs
from token_classification.tiny_taggers import LABELS, write_tagger

pytest.importorskip("torch")

NAME = "token-classification"
TEXTS = ["jim henson was a nice puppet", "", "who sings? the puppet!", "a " * 100]


@pytest.fixture(scope="module")
def echo(tagger_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Answers that mean nothing, quick to load: for what is around a model."""
    output = tmp_path_factory.mktemp("echo") / "artifact"
    return compile_checkpoint(tagger_checkpoint, output, backend="echo", precision="fp32", skip_gate=True)


@pytest.fixture(scope="module")
def expected(echo: Artifact) -> List[List[Dict[str, Any]]]:
    """What one process makes of TEXTS."""
    with Engine(echo, threads=1) as engine:
        found: List[List[Dict[str, Any]]] = engine.answer(TEXTS, answer_options=EntityOptions("simple"))
    assert [len(entities) > 0 for entities in found] == [True, False, True, True]
    return found


def lines_of(texts: List[str], **keywords: Any) -> bytes:
    return b"".join(json.dumps({"text": text, **keywords}).encode() + b"\n" for text in texts)


# ---- checkpoints


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    import torch

    transformers = pytest.importorskip("transformers")
    folder = write_tagger(tmp_path / "checkpoint", family)
    checkpoint = load_checkpoint(str(folder))
    assert checkpoint.head.task == NAME and checkpoint.architecture.endswith("ForTokenClassification")
    files = checkpoint.tokenizer_files()
    tokenizer = Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], checkpoint.config)
    (example,) = load_task(NAME).encode(tokenizer, [TEXTS[0]], StrideOptions())
    session = ReferenceSession(checkpoint.torch_model(), load_task(NAME).outputs({}))
    ours = session.run(collate(list(example.windows), tokenizer.pad_id))["logits"]
    model = transformers.AutoModelForTokenClassification.from_pretrained(str(folder)).eval()
    with torch.no_grad():
        theirs = model(torch.from_numpy(example.windows[0].input_ids)[None]).logits.numpy()
    assert ours.shape == (1, len(example.ids) + 2, len(LABELS))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_labels_that_the_config_does_not_count_are_refused(tagger_checkpoint: Path, tmp_path: Path) -> None:
    for path in tagger_checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": {"0": "O", "1": "B-PER"}}))
    with pytest.raises(CheckpointError, match=r"classifier.* is \[5(, 32)?\], the config asks for \[2"):
        load_checkpoint(str(tmp_path))


# ---- inputs


def test_inputs_are_the_shipped_paragraphs_or_those_of_a_file(tmp_path: Path) -> None:
    assert read_inputs(None) == shipped_paragraphs(gate_path())
    (tmp_path / "data.conll").write_text("jim O\nwas O\n")
    assert read_inputs(tmp_path / "data.conll") == ["jim was"]


def test_full_rows_hold_nothing_but_text(tagger_artifact: Artifact) -> None:
    tokenizer = Tokenizer.from_files(tagger_artifact.folder)
    rows = full_rows(tokenizer, read_inputs(None), 48, 5)
    assert [len(row.input_ids) for row in rows] == [48] * 5
    assert len({row.input_ids.tobytes() for row in rows}) == 5
    with pytest.raises(InputError, match="the texts hold no text of 48 tokens"):
        full_rows(tokenizer, ["jim"], 48, 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"question": "who?"}, "the key 'text' is missing"),
        ({"text": 3}, "text is 3, not a string"),
        ({"text": "a", "text_pair": "b"}, "there is a text_pair, and entities are found in one text"),
        ({"text": "a\ud800"}, "text holds half of a surrogate pair"),
        ({"tokens": []}, r"tokens is \[\], not a list of words"),
        ({"text": "a", "stride": "wide"}, 'stride is "wide", not a whole number'),
        ({"text": "a", "stride": 62}, "stride must be less than the 62 tokens of text in a row, not 62"),
        ({"text": "a", "aggregation_strategy": "best"}, "there is no aggregation_strategy 'best'"),
        ({"text": "a", "max_length": 2}, "a max_length of 2 leaves no room for text"),
    ],
)
def test_a_broken_line_is_named(echo: Artifact, line: Dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=f"line 1: {reason}"):
        answer_file(echo.folder, io.BytesIO(json.dumps(line).encode()), on_result=print, threads=1)


def test_a_line_sets_options_for_itself(echo: Artifact) -> None:
    lines = lines_of(TEXTS[:1]) + lines_of(TEXTS[:1], aggregation_strategy="first") + lines_of(TEXTS, max_length=6)
    lines += b'{"tokens": ["jim", "henson"]}'
    results: List[Dict[str, Any]] = []
    assert answer_file(echo.folder, io.BytesIO(lines), on_result=results.append, threads=1) == []
    assert "entity" in results[0]["entities"][0] and "entity_group" in results[1]["entities"][0]
    assert [result["line"] for result in results] == list(range(1, 8))
    assert results[3] == {"line": 4, "entities": []}
    assert {entity["end"] for entity in results[6]["entities"]} <= {3, 10}


# ---- results


def test_an_input_as_a_document_and_as_text(echo: Artifact, expected: List[List[Dict[str, Any]]]) -> None:
    answered = answer_input(echo.folder, TEXTS[0], task=NAME, threads=1, aggregation_strategy="simple")
    assert answered.document == {"entities": expected[0]}
    assert len(answered.text.splitlines()) == len(expected[0])


def test_the_command_line_tags_a_text(echo: Artifact, expected: List[List[Dict[str, Any]]], tmp_path: Path) -> None:
    command = ["tag", str(echo.folder), "--threads", "1", "--aggregation-strategy", "simple"]
    shown = CliRunner().invoke(cli, [*command, "--text", TEXTS[0]])
    assert shown.exit_code == 0 and len(shown.output.splitlines()) == len(expected[0])
    assert shown.output.startswith(f"{expected[0][0]['word']}  {expected[0][0]['entity_group']}  (score ")
    said = CliRunner().invoke(cli, [*command, "--text", TEXTS[0], "--json"])
    assert json.loads(said.output) == {"entities": expected[0]}
    (tmp_path / "texts.jsonl").write_bytes(lines_of(TEXTS))
    read = CliRunner().invoke(cli, [*command, "--input", str(tmp_path / "texts.jsonl")])
    assert [json.loads(line)["entities"] for line in read.output.splitlines()] == expected


def test_the_command_line_cuts_as_it_is_told(echo: Artifact) -> None:
    command = ["tag", str(echo.folder), "--threads", "1", "--text", TEXTS[3], "--json"]
    whole, cut = (CliRunner().invoke(cli, [*command, *more]) for more in ([], ["--max-length", "10", "--stride", "2"]))
    assert json.loads(whole.output) != json.loads(cut.output)
    assert CliRunner().invoke(cli, [*command, "--stride", "62"]).exit_code != 0
    assert CliRunner().invoke(cli, [*command, "--aggregation-strategy", "best"]).exit_code == 2


def test_an_empty_text_has_no_entities(echo: Artifact) -> None:
    said = CliRunner().invoke(cli, ["tag", str(echo.folder), "--threads", "1", "--text", ""])
    assert (said.exit_code, said.output) == (0, "(no entities)\n")


def test_the_model_class_has_the_logits(tagger_artifact: Artifact) -> None:
    import torch

    with neuronbert.NeuronBertForTokenClassification.from_pretrained(
        tagger_artifact, variant="torchscript", threads=1
    ) as model:
        output = model(torch.tensor([[2, 7, 8, 3], [2, 9, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]))
    assert isinstance(output, TokenClassifierOutput) and output.logits.shape == (2, 4, len(LABELS))


# ---- many processes


def test_the_runner_tags_in_its_workers(echo: Artifact, expected: List[List[Dict[str, Any]]]) -> None:
    with Runner(echo, workers=1, threads=1) as runner:
        assert list(runner.map(TEXTS, aggregation_strategy="simple")) == expected
        assert runner.submit(TEXTS[0], aggregation_strategy="simple").result() == expected[0]
        words = runner.submit(["jim", "henson"], ignore_labels=[]).result()
        assert [(entity["start"], entity["end"]) for entity in words] == [(0, 3), (4, 10)]


def test_a_long_text_is_decoded_aside(echo: Artifact) -> None:
    with Runner(echo, workers=1, threads=1) as runner:
        long = runner.submit("a " * 6000, ignore_labels=[])
        assert len(runner.submit("a a", ignore_labels=[]).result()) == 2
        assert [entity["index"] for entity in long.result()] == list(range(1, 6001))


def test_a_job_writes_a_line_for_each(echo: Artifact, expected: List[List[Dict[str, Any]]], tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines_of(TEXTS))
    report = run_job(
        echo, tmp_path / "in.jsonl", tmp_path / "out.jsonl", workers=1, threads=1, aggregation_strategy="simple"
    )
    assert (report.answered, report.skipped) == (len(TEXTS), 0)
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert written == [{"line": number, "entities": own} for number, own in enumerate(expected, start=1)]


@pytest.mark.parametrize("options", [{}, {"sequence_length": "16"}], ids=["text", "tokens"])
def test_one_point_of_a_benchmark(echo: Artifact, options: Dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "Period", lambda longest_s: Period(warm_up_s=0.1, window_s=0.1, longest_s=longest_s))
    report = neuronbert.benchmark_artifact(echo, concurrency="2", workers="1", threads="1", longest_s=0.3, **options)
    (point,) = report["points"]
    assert point["errors"] == 0 and point["throughput_avg"] > 0


# ---- the other backends


@pytest.fixture(scope="module")
def reference(tagger_artifact: Artifact) -> Iterator[Engine]:
    with Engine(tagger_artifact, variant="torchscript", threads=1) as engine:
        yield engine


def assert_alike(made: Artifact, reference: Engine) -> None:
    """Every label of every token has the score that torch gives it, up to what a 16-bit engine loses."""
    options = EntityOptions(ignore_labels=())
    with Engine(made, threads=1) as engine:
        pairs = list(zip(engine.answer(TEXTS, None, options), reference.answer(TEXTS, None, options)))
    tokens = [(ours, theirs) for own, their in pairs for ours, theirs in zip(own, their)]
    assert len(tokens) > 100
    close = [ours["score"] == pytest.approx(theirs["score"], abs=0.1) for ours, theirs in tokens]
    assert sum(close) > 0.95 * len(tokens)
    assert sum(ours["entity"] == theirs["entity"] for ours, theirs in tokens) > 0.95 * len(tokens)


@pytest.mark.slow
@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_backend_passes_the_gate_in_fp32(
    tagger_checkpoint: Path, reference: Engine, tmp_path: Path, backend: str
) -> None:
    pytest.importorskip(backend)
    made = compile_checkpoint(tagger_checkpoint, tmp_path / "out", backend=backend, precision="fp32", threads=1)
    assert made.variants[0]["agreement"]["equal_labels"] >= 0.99
    assert_alike(made, reference)


@pytest.mark.slow
@pytest.mark.usefixtures("short_gate")
def test_an_emulated_device_runs_the_task(tagger_checkpoint: Path, reference: Engine, tmp_path: Path) -> None:
    """Compiled in a child, asked by the gate in another, answered in this process, in rows of its bucket."""
    from neuronbert import emulator

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONBERT_CACHE", str(tmp_path / "cache"))
        emulator.use("inf1.xlarge", directory=str(tmp_path / "device"))
        try:
            made = compile_checkpoint(
                tagger_checkpoint, tmp_path / "out", backend="neuron", sequence_length="64", min_answer_f1=0.5,
                threads=1,
            )  # fmt: skip
            assert_alike(made, reference)
        finally:
            emulator.stop()
