"""The fine-tuning tool learns, survives kill -9 without a trace in the weights, and its output is a checkpoint.

What it makes of SQuAD files comes first, then classifiers, then the parts that need no model.
"""

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import FAMILIES, write_checkpoint

from neuronbert.artifact import files
from neuronbert.checkpoint.families import size_of, with_size
from neuronbert.checkpoint.loading import load_base_checkpoint
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.batches import collate
from neuronbert.errors import CheckpointError, InputError, OutputError, UsageError
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert.tasks.question_answering.answers import rank_answers
from neuronbert.tasks.question_answering.options import WindowOptions
from neuronbert.tasks.question_answering.squad import SquadQuestion
from neuronbert.tasks.question_answering.task import HEAD
from neuronbert.tasks.question_answering.windows import encode_examples
from neuronbert.tasks.text_classification.data import labelled, load_raw
from neuronbert.tasks.text_classification.problem import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Problem, problem_of
from neuronbert_tools import finetune as finetune_tool
from neuronbert_tools.finetune import finetune, identify, main, options_of, task_of
from neuronbert_tools.finetuning import question_answering, text_classification
from neuronbert_tools.finetuning.distillation import TEMPERATURE, Teacher, kept_layers, softened, with_layers
from neuronbert_tools.finetuning.model import build_model
from neuronbert_tools.finetuning.narrowing import narrowed, refuse_columns
from neuronbert_tools.finetuning.options import TrainingOptions, choose_device, choose_precision
from neuronbert_tools.finetuning.question_answering import QuestionAnsweringOptions, answer_span, label_windows
from neuronbert_tools.finetuning.result import write_checkpoint as write_trained
from neuronbert_tools.finetuning.run import Run, whole_file
from neuronbert_tools.finetuning.schedule import epoch_batches, learning_rate_at
from neuronbert_tools.finetuning.task import Lesson, Lessons
from neuronbert_tools.finetuning.text_classification import ClassificationOptions
from neuronbert_tools.finetuning.trainer import Trainer

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "finetune.py"

OPTIONS: Dict[str, Any] = {
    "epochs": 60,
    "learning_rate": 2e-3,
    "warmup": 0.1,
    "batch_size": 8,
    "max_seq_len": 24,
    "doc_stride": 4,
    "max_question_len": 8,
    "freeze_embeddings": False,
    "seed": 5,
    "precision": "fp32",
}
NAMES = ["jim", "kim", "tom", "ann", "lou", "max", "eve", "pat"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without a question-answering head."""
    return write_checkpoint(tmp_path_factory.mktemp("base") / "bert", "bert", head="MaskedLM", initializer_range=0.1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rule that a tiny model can learn: the puppet is who stands before "was"; and one impossible question."""
    paragraphs = []
    for number, name in enumerate(NAMES):
        other = NAMES[number - 1]
        context = f"{other} a nice {name} was the puppet."
        answers = [{"text": name, "answer_start": context.index(name)}]
        qas: List[Dict[str, Any]] = [{"id": str(number), "question": "who was the puppet?", "answers": answers}]
        if number == 0:
            qas.append({"id": "none", "question": "nice?", "answers": [], "is_impossible": True})
            wrong = [{"text": "absent", "answer_start": 0}]
            qas.append({"id": "misplaced", "question": "who?", "answers": wrong, "is_impossible": False})
        paragraphs.append({"context": context, "qas": qas})
    path = tmp_path_factory.mktemp("data") / "train.json"
    path.write_text(json.dumps({"version": "2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


def arguments(base: Path, data: Path, output: Path, **changes: Any) -> List[str]:
    return words_of({**OPTIONS, "base": base, "data": data, "output": output, "device": "cpu", **changes})


def words_of(given_options: Dict[str, Any]) -> List[str]:
    words = []
    for name, value in given_options.items():
        flag = "--" + name.replace("_", "-")
        words.extend([flag] if value is True else [] if value is False else [flag, str(value)])
    return words


def start(words: List[str]) -> "subprocess.Popen[str]":
    # One thread each: sums are added in the same order in every run.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *words]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run_to_end(words: List[str]) -> str:
    process = start(words)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return errors


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As ``start`` has it, for what must be the same to the last bit."""
    with threads(1):
        yield


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "reader"
    errors = run_to_end(arguments(base, data, output, attribution="Data: CC BY 4.0"))
    assert "1 questions left out" in errors and "ETA" in errors and "loss" in errors
    return output


def test_the_loss_falls_and_the_result_answers(trained: Path) -> None:
    losses = json.loads((trained / "training_log.json").read_text())["losses"]
    assert len(losses) == 60 * 2  # 9 windows in batches of 8
    assert np.mean(losses[-10:]) < 0.2 * np.mean(losses[:5])

    checkpoint = load_checkpoint(trained)
    files = checkpoint.tokenizer_files()
    tokenizer = Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], checkpoint.config)
    example = encode_examples(tokenizer, [("who was the puppet?", "pat a nice max was the puppet.")], WindowOptions())[
        0
    ]
    assert rank_answers(example, outputs_of(checkpoint.torch_model(), example))[0]["answer"] == "max"


def outputs_of(model: Any, example: Any) -> Any:
    import torch

    outputs = []
    for window in example.windows:
        ids = torch.from_numpy(window.input_ids)[None]
        with torch.no_grad():
            first, last = model(ids, torch.ones_like(ids), torch.from_numpy(window.token_type_ids)[None])
        outputs.append({"start_logits": first[0].numpy(), "end_logits": last[0].numpy()})
    return outputs


def test_the_result_reads_like_one_that_transformers_saved(trained: Path) -> None:
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    model = AutoModelForQuestionAnswering.from_pretrained(str(trained))
    ours = dict(load_checkpoint(trained).torch_model().model.named_parameters())
    assert all(bool((parameter == ours[name]).all()) for name, parameter in model.named_parameters())
    assert AutoTokenizer.from_pretrained(str(trained)).model_max_length == 64


def test_the_readme_names_sources_and_terms(trained: Path, base: Path) -> None:
    text = (trained / "README.md").read_text()
    assert text.startswith("# reader\n")
    for expected in (str(base), "train.json, sha256 ", "120 steps", "learning_rate 0.002", "Data: CC BY 4.0"):
        assert expected in text
    assert not trained.with_name("reader.training").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(
    trained: Path, base: Path, data: Path, tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "reader"
    words = arguments(base, data, output, checkpoint_every=7, attribution="Data: CC BY 4.0")
    process = start(words)
    state = tmp_path / "reader.training" / "state.pt"
    while not state.exists() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -9
    assert state.exists() and not output.exists()
    (tmp_path / "reader.training" / "state.pt.tmp").write_bytes(b"half a state")

    assert main(words) == 0
    step = int(capsys.readouterr().err.split("resuming at step ")[1].split(" ")[0])
    assert 0 < step < 120 and step % 7 == 0
    assert (output / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    log = "training_log.json"
    assert json.loads((output / log).read_text())["losses"] == json.loads((trained / log).read_text())["losses"]


def finetune_one_epoch(base: Path, data: Path, output: Path, changes: Any = None, **keywords: Any) -> None:
    options = QuestionAnsweringOptions(**{**OPTIONS, "epochs": 1, **(changes or {})})
    finetune("question-answering", str(base), [data], output, options, device="cpu", **keywords)


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_in_bf16_to_float16(kind: str, data: Path, tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", kind, head="")
    finetune_one_epoch(base, data, tmp_path / "out", {"precision": "bf16", "freeze_embeddings": True}, dtype="float16")
    found, start_weights = load_checkpoint(tmp_path / "out"), load_base_checkpoint(base, HEAD)
    assert found.model_type == kind
    after = found.torch_model().model.state_dict()
    for name, tensor in start_weights.tensors.items():
        before = tensor.float32().astype(np.float16).astype(np.float32)
        frozen = ".embeddings." in name
        assert np.array_equal(after[name].numpy(), before) == frozen, name
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float16"


def test_a_head_that_is_there_is_kept(trained: Path, data: Path) -> None:
    model = build_model(load_base_checkpoint(trained, HEAD), HEAD, QuestionAnsweringOptions(**OPTIONS))
    expected = load_checkpoint(trained).torch_model().model.qa_outputs.weight
    assert bool((model.model.qa_outputs.weight == expected).all())


def test_a_new_head_depends_on_the_seed_alone(base: Path) -> None:
    loaded = load_base_checkpoint(base, HEAD)
    heads = [
        build_model(loaded, HEAD, TrainingOptions(seed=seed)).model.qa_outputs.weight.tolist() for seed in (1, 1, 2)
    ]
    assert heads[0] == heads[1] != heads[2]


def test_an_output_that_exists_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        finetune_one_epoch(base, data, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_of_other_options_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "reader"
    options = QuestionAnsweringOptions(**OPTIONS)
    Run(output, identify("question-answering", load_base_checkpoint(base, HEAD), [data], options)).open()
    with pytest.raises(OutputError) as caught:
        finetune_one_epoch(base, data, output)
    assert "holds a run with other options: options was" in caught.value.message
    assert str(caught.value.hint).endswith(f"rm -r {tmp_path / 'reader.training'}")


def test_two_processes_in_one_run_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "reader"
    options = QuestionAnsweringOptions(**{**OPTIONS, "epochs": 1})
    run = Run(output, identify("question-answering", load_base_checkpoint(base, HEAD), [data], options))
    run.open()
    with run.lock(), pytest.raises(OutputError, match="another process is training"):
        finetune_one_epoch(base, data, output)


def test_a_learning_rate_that_explodes_is_named(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the loss became"):
        finetune_one_epoch(base, data, tmp_path / "out", {"learning_rate": 1e30, "warmup": 0.0, "epochs": 3})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words, code, said",
    [
        ([], 2, "Missing option '--base'"),
        (
            ["--task", "question-answering", "--base", "./nowhere", "--data", str(SCRIPT), "--output", "/tmp/none"],
            1,
            "no checkpoint './nowhere'",
        ),
    ],
)
def test_errors_are_told_in_a_line(words: List[str], code: int, said: str) -> None:
    process = start(words)
    _, errors = process.communicate()
    assert process.returncode == code
    assert said in errors and "Traceback" not in errors


def test_no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        assert choose_device("auto") == "cuda"
    else:
        assert choose_device("auto") == "cpu"
        with pytest.raises(UsageError, match="this torch sees no GPU"):
            choose_device("cuda")


def test_precision_is_what_the_hardware_multiplies_in() -> None:
    from neuronbert.hardware.machine import has_bf16

    assert choose_precision("auto", "cpu") == ("bf16" if has_bf16() else "fp32")
    assert choose_precision("bf16", "cpu") == "bf16"


def test_a_base_still_needs_its_encoder(tmp_path: Path, base: Path) -> None:
    import shutil

    broken = Path(shutil.copytree(base, tmp_path / "base"))
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match="lacks weights"):
        load_base_checkpoint(broken, HEAD)


# --- classifiers ---

CLASSIFICATION: Dict[str, Any] = {
    "epochs": 60,
    "learning_rate": 5e-3,
    "batch_size": 4,
    "seed": 3,
    "precision": "fp32",
}
# A rule that a tiny model can learn: a text is about whom it names.
TEXTS = {
    "jim": ["jim was nice", "the nice jim", "who was jim?"],
    "puppet": ["a puppet was nice", "the nice puppet", "who was the puppet?"],
}
CSV = "text,label\n" + "".join(f"{text},{label}\n" for label, texts in TEXTS.items() for text in texts)


def write_data(folder: Path, content: Any, name: str = "train.csv") -> Path:
    """A file of text, or of JSON lines."""
    path = folder / name
    path.write_text(content if isinstance(content, str) else "".join(json.dumps(line) + "\n" for line in content))
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with a pooler, as sentence encoders have one."""
    return write_checkpoint(tmp_path_factory.mktemp("encoder") / "bert", "bert", head="", initializer_range=0.1)


def classify(base: Path, data: Path, output: Path, **changes: Any) -> Path:
    options = ClassificationOptions(**{**CLASSIFICATION, **changes})
    finetune("text-classification", str(base), [data], output, options, device="cpu", checkpoint_every=2)
    return output


@pytest.fixture(scope="module")
def classifier(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    with threads(1):
        return classify(encoder, write_data(folder, CSV), folder / "classifier")


def lessons_of(base: Path, data: Path, **changes: Any) -> Lessons:
    """What is learnt from ``data``, without the training."""
    checkpoint = text_classification.read_base(str(base))
    files = checkpoint.tokenizer
    tokenizer = Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], checkpoint.config)
    options = ClassificationOptions(**{**CLASSIFICATION, **changes})
    return text_classification.read_lessons([data], checkpoint, tokenizer, options)


def start_model(lessons: Lessons, seed: int = 3) -> Any:
    return build_model(lessons.base, text_classification.HEAD, ClassificationOptions(seed=seed)).model


def logits_of_rows(model: Any, lessons: Lessons) -> Any:
    import torch

    batch = collate([item.row for item in lessons.items], 0)
    with torch.no_grad():
        return model(*map(torch.from_numpy, batch))[0]


def test_a_classifier_learns_and_its_labels_are_in_the_config(classifier: Path) -> None:
    losses = json.loads((classifier / "training_log.json").read_text())["losses"]
    assert len(losses) == 60 * 2  # 6 texts in batches of 4
    assert np.mean(losses[-10:]) < 0.2 * np.mean(losses[:5])

    checkpoint = load_checkpoint(classifier)
    assert checkpoint.architecture == "BertForSequenceClassification"
    assert checkpoint.config["id2label"] == {"0": "jim", "1": "puppet"}
    assert checkpoint.config["label2id"] == {"jim": 0, "puppet": 1}
    assert problem_of(checkpoint.config).kind == checkpoint.config["problem_type"] == "single_label_classification"

    more = write_data(classifier.parent, "text,label\nthe puppet was nice,puppet\nwas jim nice,jim\n", "more.csv")
    lessons = lessons_of(classifier, more)
    assert logits_of_rows(checkpoint.torch_model(), lessons).argmax(-1).tolist() == [1, 0]
    assert [item.target for item in lessons.items] == [1, 0]


def test_a_classifier_reads_like_one_that_transformers_saved(classifier: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(str(classifier))
    ours = dict(load_checkpoint(classifier).torch_model().model.named_parameters())
    assert all(bool((parameter == ours[name]).all()) for name, parameter in model.named_parameters())
    assert model.config.id2label == {0: "jim", 1: "puppet"} and model.config.num_labels == 2


def test_the_readme_of_a_classifier_names_its_task_and_its_own_options(classifier: Path) -> None:
    text = (classifier / "README.md").read_text()
    for expected in ("for text-classification with", "train.csv, sha256 ", "problem_type single_label_classification"):
        assert expected in text
    assert "doc_stride" not in text


@pytest.mark.slow
def test_a_killed_training_of_a_classifier_goes_on_to_the_same_weights(
    classifier: Path, encoder: Path, tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = write_data(tmp_path, CSV), tmp_path / "classifier"
    named = {"base": encoder, "data": data, "output": output, "device": "cpu", "checkpoint_every": 2, **CLASSIFICATION}
    process = start(words_of(named))
    state = tmp_path / "classifier.training" / "state.pt"
    while not state.exists() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -9
    assert state.exists() and not output.exists()

    classify(encoder, data, output)
    step = int(capsys.readouterr().err.split("resuming at step ")[1].split(" ")[0])
    assert 0 < step < 120 and step % 2 == 0
    assert (output / "model.safetensors").read_bytes() == (classifier / "model.safetensors").read_bytes()
    assert (output / "config.json").read_bytes() == (classifier / "config.json").read_bytes()


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_family_becomes_a_classifier_and_then_one_of_other_labels(kind: str, tmp_path: Path) -> None:
    data = write_data(tmp_path, CSV)
    base = write_checkpoint(tmp_path / "base", kind, head="")
    two = classify(base, data, tmp_path / "two", epochs=1, precision="bf16")
    first, start_weights = load_checkpoint(two), text_classification.read_base(str(base))
    after = first.torch_model().model.state_dict()
    learnt = [name for name, tensor in start_weights.tensors.items() if (after[name].numpy() != tensor.float32()).any()]
    assert first.model_type == kind and len(learnt) > len(start_weights.tensors) / 2

    lessons = lessons_of(two, write_data(tmp_path, CSV + "was who nice,nobody\n", "three.csv"))
    assert lessons.base.config["id2label"] == {"0": "jim", "1": "nobody", "2": "puppet"}
    # All but the layer that has a row for each label is kept.
    outer = "classifier" if kind in ("bert", "distilbert") else "classifier.out_proj"
    begun = start_model(lessons).state_dict()
    assert begun[f"{outer}.weight"].shape == (3, 32) and not begun[f"{outer}.bias"].any()
    kept = {name for name in after if name in begun and after[name].shape == begun[name].shape}
    assert kept == {name for name in after if not name.startswith(f"{outer}.")}
    assert all(bool((after[name] == begun[name]).all()) for name in kept)


def test_a_trained_pooler_is_where_a_new_classifier_begins(encoder: Path, base: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    data = write_data(tmp_path, CSV)
    stored = load_file(str(encoder / "model.safetensors"))
    with_pooler, without = lessons_of(encoder, data), lessons_of(base, data)
    model = start_model(with_pooler)
    assert np.array_equal(model.bert.pooler.dense.weight.detach().numpy(), stored["pooler.dense.weight"])
    assert np.array_equal(model.bert.pooler.dense.bias.detach().numpy(), stored["pooler.dense.bias"])
    for lessons, drawn in ((with_pooler, "classifier.weight"), (without, "bert.pooler.dense.weight")):
        heads = [start_model(lessons, seed).state_dict()[drawn].tolist() for seed in (1, 1, 2)]
        assert heads[0] == heads[1] != heads[2]


def test_a_pooler_that_was_never_trained_is_drawn_instead(encoder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    untrained = Path(shutil.copytree(encoder, tmp_path / "untrained"))
    weights = load_file(str(encoder / "model.safetensors"))
    weights["pooler.dense.bias"] = np.zeros_like(weights["pooler.dense.bias"])
    save_file(weights, str(untrained / "model.safetensors"), {"format": "pt"})
    pooler = start_model(lessons_of(untrained, write_data(tmp_path, CSV))).bert.pooler.dense
    assert not pooler.bias.any() and not np.array_equal(pooler.weight.detach().numpy(), weights["pooler.dense.weight"])


@pytest.mark.parametrize(
    "labels, kept",
    [
        (["jim", "puppet"], True),
        (["1", "0"], True),  # by number
        ([1, 0], True),
        (["jim", "kim"], False),
        (["jim", "puppet", "kim"], False),
        (["2", "1"], False),
    ],
)
def test_a_classifier_of_the_same_labels_goes_on(
    classifier: Path, tmp_path: Path, labels: List[Any], kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path, [{"text": "who was jim?", "label": label} for label in labels], "train.jsonl")
    lessons = lessons_of(classifier, data)
    ours = load_checkpoint(classifier).torch_model().model.classifier.weight
    begun = start_model(lessons).classifier.weight
    assert (begun.shape == ours.shape and bool((begun == ours).all())) == kept
    assert ("going on from the classifier" in capsys.readouterr().err) == kept
    names = ["jim", "puppet"] if kept else sorted(map(str, labels))
    assert list(lessons.base.config["label2id"]) == names


def test_a_classifier_that_goes_on_keeps_the_numbers_of_its_labels(classifier: Path, tmp_path: Path) -> None:
    import shutil

    turned = Path(shutil.copytree(classifier, tmp_path / "turned"))
    config = json.loads((turned / "config.json").read_text())
    (turned / "config.json").write_text(json.dumps({**config, "id2label": {"0": "puppet", "1": "jim"}}))
    lessons = lessons_of(turned, write_data(tmp_path, CSV))
    assert lessons.base.config["label2id"] == {"puppet": 0, "jim": 1}
    assert [item.target for item in lessons.items] == [1, 1, 1, 0, 0, 0]


def test_labels_that_are_numbers_are_in_the_order_of_their_values(encoder: Path, tmp_path: Path) -> None:
    numbers = [*range(1, 13)]
    lines = [{"text": "who was jim?", "label": number} for number in reversed(numbers)]
    data = write_data(tmp_path, lines, "train.jsonl")
    lessons = lessons_of(encoder, data)
    assert lessons.base.config["id2label"] == {str(number - 1): str(number) for number in numbers}
    assert [item.target for item in lessons.items] == [number - 1 for number in reversed(numbers)]
    # What evaluates the result later reads the same file the same way.
    problem = problem_of(lessons.base.config)
    assert [labelled(raw, problem, data).label for raw in load_raw(data)] == [n - 1 for n in reversed(numbers)]


MULTI = [
    {"text": "the nice jim", "label": ["nice", "jim"]},
    {"text": "who was jim?", "label": "jim"},
    {"text": "nice", "label": ["nice"]},
    {"text": "who?", "label": []},
]
SCORES = "text,text_pair,score\nthe jim,a jim,2.5\nthe jim,nice,-1\njim,jim henson,2\n"


@pytest.mark.parametrize(
    "content, name, kind, targets",
    [
        (CSV, "train.csv", "single_label_classification", [0, 0, 0, 1, 1, 1]),
        (
            MULTI, "train.jsonl", "multi_label_classification", [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]],
        ),
        (SCORES, "train.csv", "regression", [2.5, -1.0, 2.0]),
    ],
)  # fmt: skip
def test_the_loss_is_that_of_transformers_for_the_problem_type(
    encoder: Path, tmp_path: Path, content: Any, name: str, kind: str, targets: List[Any]
) -> None:
    import torch

    lessons = lessons_of(encoder, write_data(tmp_path, content, name), problem_type=kind)
    assert [item.target for item in lessons.items] == targets
    reference = build_model(lessons.base, text_classification.HEAD, ClassificationOptions(seed=3))
    ids, mask, types = map(torch.from_numpy, collate([item.row for item in lessons.items], 0))
    labels = torch.tensor(targets)
    ours = lessons.loss(reference(ids, mask, types), mask, labels).detach()
    reference.model.config.problem_type = lessons.base.config["problem_type"]
    theirs = reference.model(ids, attention_mask=mask, token_type_ids=types, labels=labels).loss.detach()
    assert ours.ndim == 0 and float(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_several_labels_at_once_are_learnt(encoder: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path, MULTI, "train.jsonl")
    output = classify(encoder, data, tmp_path / "out", problem_type="multi_label_classification")
    checkpoint = load_checkpoint(output)
    assert problem_of(checkpoint.config) == Problem("multi_label_classification", ("jim", "nice"), "sigmoid", "sigmoid")
    logits = logits_of_rows(checkpoint.torch_model(), lessons_of(output, data, problem_type=MULTI_LABEL))
    assert (logits > 0).tolist() == [[True, True], [True, False], [False, True], [False, False]]


def test_scores_are_learnt_and_gone_on_with(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path, SCORES)
    output = classify(encoder, data, tmp_path / "out", problem_type="regression", learning_rate=1e-2)
    checkpoint = load_checkpoint(output)
    assert problem_of(checkpoint.config) == Problem("regression", ("LABEL_0",), "none", "none")
    lessons = lessons_of(output, data, problem_type="regression")
    assert "going on from the classifier" in capsys.readouterr().err
    logits = logits_of_rows(checkpoint.torch_model(), lessons)
    assert logits[:, 0].tolist() == pytest.approx([2.5, -1.0, 2.0], abs=0.5)


def test_scores_are_labels_unless_a_regression_is_asked_for(encoder: Path, tmp_path: Path) -> None:
    lessons = lessons_of(encoder, write_data(tmp_path, SCORES))
    assert lessons.base.config["id2label"] == {"0": "-1", "1": "2", "2": "2.5"}


def test_long_texts_are_cut_and_counted(encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path, CSV)
    lessons = lessons_of(encoder, data, max_seq_len=5)
    # Three texts have more than 3 tokens; [CLS] and [SEP] take the other 2.
    assert max(len(item.row.input_ids) for item in lessons.items) == 5
    assert "3 texts cut to 5 tokens" in capsys.readouterr().err
    whole = lessons_of(encoder, write_data(tmp_path, "text,label\n" + "a " * 90 + ",x\nb,y\n"))
    assert [len(item.row.input_ids) for item in whole.items] == [64, 3]
    assert "1 text cut to 64 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, name, kind, said, hint",
    [
        ("a,b\n1,2\n", "t.csv", SINGLE_LABEL, "has no column 'text'; it has 'a', 'b'", "text, label"),
        ("text,b\nwho,2\n", "t.csv", SINGLE_LABEL, "line 2: the text has no label", "text, label"),
        ("text,label\nwho,a\nwas,\n", "t.csv", SINGLE_LABEL, "line 3: the text has no label", "text, label"),
        ("text,label\nwho,a\nwas,a\n", "t.csv", SINGLE_LABEL, "has the label 'a': there is nothing", "two labels"),
        (MULTI[:1] * 2, "t.jsonl", MULTI_LABEL, "has the label ['nice', 'jim']: there is nothing", "two labels"),
        ("text,label\nwho,1\nwas,1\n", "t.csv", REGRESSION, "has the label '1': there is nothing", "two labels"),
        ("text,label\nwho,1\nwas,much\n", "t.csv", REGRESSION, "line 3: the label 'much' is no score", "a number"),
        (MULTI, "t.jsonl", SINGLE_LABEL, "line 1: the label ['nice', 'jim'] is no name", "multi_label"),
        ([{"text": "a", "label": 0.5}], "t.jsonl", SINGLE_LABEL, "line 1: the label 0.5 is no name", "regression"),
        ([{"text": "a", "label": True}], "t.jsonl", SINGLE_LABEL, "line 1: the label True is no name", "regression"),
        ("", "t.csv", SINGLE_LABEL, "holds no record", "text, label"),
    ],
)
def test_data_that_teach_nothing_are_refused(
    encoder: Path, tmp_path: Path, content: Any, name: str, kind: str, said: str, hint: str
) -> None:
    with pytest.raises(InputError) as caught:
        classify(encoder, write_data(tmp_path, content, name), tmp_path / "out", problem_type=kind)
    assert said in caught.value.message and name in caught.value.message
    assert hint in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


# --- the command line ---


@pytest.mark.parametrize(
    "names, task",
    [
        (["a.json"], "question-answering"),
        (["a.json", "b.JSON"], "question-answering"),
        (["a.csv"], "text-classification"),
        (["a.csv", "b.tsv", "c.jsonl"], "text-classification"),
    ],
)
def test_the_data_tell_the_task(names: List[str], task: str) -> None:
    paths = [Path(name) for name in names]
    assert task_of(paths) == task
    assert task_of(paths, "question-answering") == "question-answering"


@pytest.mark.parametrize("names", [["a.json", "b.csv"], ["a.txt"], ["a"]])
def test_data_that_do_not_tell_the_task_are_refused(names: List[str]) -> None:
    with pytest.raises(UsageError) as caught:
        task_of([Path("folder") / name for name in names])
    assert caught.value.message.endswith(f"do not tell the task: {', '.join(names)}")
    assert "--task question-answering or --task text-classification" in str(caught.value.hint)


def test_options_that_are_not_given_are_the_tasks_own() -> None:
    given = {"epochs": 3, "doc_stride": None, "problem_type": None, "max_seq_len": None, "freeze_embeddings": False}
    assert options_of("question-answering", given) == QuestionAnsweringOptions(epochs=3)
    assert options_of("text-classification", given) == ClassificationOptions(epochs=3)


@pytest.mark.parametrize(
    "name, words, code, said",
    [
        ("a.csv", ["--doc-stride", "4"], 2, "--doc-stride is no option of text-classification"),
        ("a.json", ["--problem-type", "regression"], 2, "--problem-type is no option of question-answering"),
        ("a.txt", [], 2, "do not tell the task"),
        ("a.csv", ["--problem-type", "sum"], 2, "Invalid value for '--problem-type'"),
        ("a.csv", [], 1, "no checkpoint './nowhere'"),
    ],
)
def test_a_command_that_cannot_be_run(
    name: str, words: List[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = write_data(tmp_path, "text,label\n", name), tmp_path / "out"
    assert main(["--base", "./nowhere", "--data", str(data), "--output", str(output), *words]) == code
    assert said in capsys.readouterr().err and list(tmp_path.iterdir()) == [data]


# --- the pure parts ---


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=300),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
)
def test_an_epoch_shows_every_row_once(lengths: List[int], batch_size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    again = epoch_batches(lengths, batch_size, seed, epoch)
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]


def test_batches_are_of_like_length_and_differ_between_epochs() -> None:
    lengths = np.random.default_rng(0).integers(20, 384, 2000).tolist()
    batches = epoch_batches(lengths, 16, 0, 0)
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)
    assert [b.tolist() for b in batches] != [b.tolist() for b in epoch_batches(lengths, 16, 0, 1)]


def test_learning_rate_rises_and_falls() -> None:
    options = TrainingOptions(learning_rate=1.0, warmup=0.2)
    rates = [learning_rate_at(step, 10, options) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    without = TrainingOptions(learning_rate=1.0, warmup=0.0)
    assert learning_rate_at(0, 4, without) == 1.0


def question(context: str, answer: str, start: int) -> SquadQuestion:
    return SquadQuestion("id", "who?", context, (answer,), False, (start,))


def test_answers_are_stripped_and_checked() -> None:
    assert answer_span(question("the  jim was", " jim ", 4)) == (5, 7)
    assert answer_span(SquadQuestion("id", "who?", "the jim", (), True)) is None
    for wrong in (question("the jim", "kim", 4), question("the jim", "jim", 3), question("the jim", " ", 3)):
        with pytest.raises(InputError, match="the context does not have"):
            answer_span(wrong)


def test_labels_are_the_answer_in_every_window_that_shows_it(base: Path) -> None:
    files = load_base_checkpoint(base, HEAD).tokenizer
    tokenizer = Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"])
    context = "the nice puppet was jim henson, a nice puppet."
    options = WindowOptions(max_seq_len=12, doc_stride=5)
    example = encode_examples(tokenizer, [("who?", context)], options)[0]
    first = context.index("jim")
    last = first + len("jim henson") - 1
    shown = 0
    for label in label_windows(example, (first, last)):
        tokens = [tokenizer.backend.id_to_token(number) for number in label.window.input_ids]
        if label.end:
            shown += 1
            assert tokens[label.start : label.end + 1] == ["jim", "henson"]
        else:
            assert label.start == 0 and not ("jim" in tokens and "henson" in tokens)
    assert shown >= 1 and len(example.windows) > 2
    assert all((item.start, item.end) == (0, 0) for item in label_windows(example, None))


# --- a smaller model


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_model_of_fewer_layers_has_the_first_and_the_last(kind: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / kind, kind, head="QuestionAnswering", num_hidden_layers=4)
    base = question_answering.read_base(str(source))
    small = with_layers(base, 2)
    pattern = re.compile(r"\.layer\.(\d+)\.")
    found = {int(match[1]) for match in map(pattern.search, small.tensors) if match}
    assert found == {0, 1}
    moved = [name for name in small.tensors if ".layer.1." in name]
    assert moved and all(
        np.array_equal(small.tensors[name].float32(), base.tensors[name.replace(".layer.1.", ".layer.3.")].float32())
        for name in moved
    )
    others = {name for name in base.tensors if not pattern.search(name)}
    assert others == {name for name in small.tensors if not pattern.search(name)}
    build_model(small, HEAD, QuestionAnsweringOptions())  # its config says so too


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_narrower_model_says_nearly_what_the_whole_one_says(kind: str, tmp_path: Path) -> None:
    import torch

    unused: Any = None
    sizes = {"hidden_dim" if kind == "distilbert" else "intermediate_size": 128}
    source = write_checkpoint(tmp_path / kind, kind, head="QuestionAnswering", **sizes)
    base = question_answering.read_base(str(source))
    options, random = QuestionAnsweringOptions(), np.random.default_rng(0)
    model = build_model(base, HEAD, options)
    rows = [
        SimpleNamespace(input_ids=random.integers(5, 20, length), token_type_ids=np.zeros(length, np.int64))
        for length in random.integers(8, 16, 40)
    ]
    lessons = Lessons([Lesson(row, (0, 0)) for row in rows], unused, unused, base)
    narrow, narrowed_lessons = narrowed(model, lessons, 96, 0)
    assert size_of(narrowed_lessons.base.config, base.family, "intermediate_size") == 96
    (tmp_path / "narrow").mkdir()
    write_trained(tmp_path / "narrow", narrowed_lessons.base, HEAD, narrow, "float32")
    read = load_checkpoint(tmp_path / "narrow", task="question-answering").torch_model()
    inputs = [torch.from_numpy(array) for array in collate(rows[:1], 0)]
    with torch.no_grad():
        whole, cut, again = (each(*inputs) for each in (model, narrow, read))
    for ours, theirs, reread in zip(cut, whole, again):
        assert torch.equal(ours, reread) and not torch.equal(ours, theirs)
        assert float((ours - theirs).abs().max()) < 0.2 * float(theirs.abs().max())


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_sizes_are_written_as_the_family_spells_them(kind: str, tmp_path: Path) -> None:
    base = question_answering.read_base(str(write_checkpoint(tmp_path / kind, kind, head="QuestionAnswering")))
    own = "hidden_dim" if kind == "distilbert" else "intermediate_size"
    for there in ({}, {"hidden_dim": 7, "intermediate_size": 9}):
        bare = {name: value for name, value in base.config.items() if name not in ("hidden_dim", "intermediate_size")}
        config = with_size({**bare, **there}, base.family, "intermediate_size", 32)
        assert config[own] == size_of(config, base.family, "intermediate_size") == 32


@pytest.mark.parametrize("distils", [False, True])
def test_a_run_with_fewer_columns_goes_on_to_the_same_weights(
    distils: bool, trained: Path, base: Path, data: Path, tmp_path: Path, one_thread: None,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    teacher = {"distil": trained} if distils else {}

    def words(name: str) -> List[str]:
        options = {"epochs": 4, "layers": 1, "feed_forward": 32, "checkpoint_every": 7, **teacher}
        return arguments(base, data, tmp_path / name, **options)

    save = Trainer.save

    def interrupted(trainer: Trainer, path: Path) -> None:
        save(trainer, path)
        raise KeyboardInterrupt

    assert main(words("whole")) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save", interrupted)
        assert main(words("cut")) == finetune_tool.EXIT_INTERRUPTED
    assert "weighing feed-forward columns" in capsys.readouterr().err
    assert main(words("cut")) == 0
    told = capsys.readouterr().err
    assert "resuming at step 7 of 8" in told and "weighing" not in told  # the state has the weights
    whole, cut = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
    made = load_checkpoint(tmp_path / "cut", task="question-answering")
    assert made.config["intermediate_size"] == 32 and made.config["num_hidden_layers"] == 1
    assert "feed_forward 32" in (tmp_path / "cut" / "README.md").read_text()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 64")])
def test_a_state_that_cannot_be_written_is_an_error_in_words_and_leaves_nothing(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.pt"
    path.write_bytes(b"the last one")
    # torch.save says nothing of a disk that is full while half a state is there.
    monkeypatch.setattr(files, "_is_full", lambda target: path.with_name("state.pt.tmp").exists())
    with pytest.raises(OutputError), whole_file(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"the last one" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there, columns, hint", [
    (128, 100, "--feed-forward 64"), (128, 128, "--feed-forward 64"), (128, 160, "--feed-forward 64"),
    (32, 32, "leave --feed-forward out"), (24, 16, "leave --feed-forward out"),
])  # fmt: skip
def test_columns_that_cannot_be_kept_are_refused(there: int, columns: int, hint: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "bert", "bert", head="QuestionAnswering", intermediate_size=there)
    with pytest.raises(UsageError, match=f"--feed-forward {columns}: .* has {there} columns") as caught:
        refuse_columns(question_answering.read_base(str(source)), columns)
    assert caught.value.hint == hint


@given(st.integers(1, 48), st.data())
def test_layers_that_are_kept_are_spread(layers: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, layers))
    kept = list(kept_layers(layers, count))
    assert len(set(kept)) == count and kept == sorted(kept) and kept[0] == 0
    assert count == 1 or kept[-1] == layers - 1
    gaps = [after - before for before, after in zip(kept, kept[1:])]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_student_learns_what_its_teacher_says(trained: Path, data: Path, tmp_path: Path) -> None:
    """Of data whose answers are all wrong: what is right of the student's answers, it has from the teacher."""
    document = json.loads(data.read_text())
    for paragraph in document["data"][0]["paragraphs"]:
        for question in paragraph["qas"]:
            question["answers"] = [{"text": "nice", "answer_start": paragraph["context"].index("nice")}]
            question.pop("is_impossible", None)
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(document))
    options = {"base": trained, "output": tmp_path / "student", "layers": 1, "distil": trained, "epochs": 30}
    run_to_end(arguments(**{"data": wrong, **options}))
    student, teacher = (
        load_checkpoint(folder, task="question-answering") for folder in (tmp_path / "student", trained)
    )
    assert student.config["num_hidden_layers"] == 1 < teacher.config["num_hidden_layers"]
    readme = (tmp_path / "student" / "README.md").read_text()
    assert f"imitating weights sha256 {teacher.fingerprint}." in readme and "layers 1" in readme


def tokenizer_of(folder: Path) -> Tokenizer:
    files = load_checkpoint(folder).tokenizer_files()
    return Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"])


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_teacher_of_every_family_is_taken_with_its_own_tokenizer_alone(kind: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / kind, kind)
    Teacher(str(folder), HEAD, tokenizer_of(folder), "cpu")
    other = "roberta" if kind != "roberta" else "bert"
    foreign = tokenizer_of(write_checkpoint(tmp_path / "other", other))
    with pytest.raises(UsageError, match="and the base make different rows of a text"):
        Teacher(str(folder), HEAD, foreign, "cpu")


def test_imitation_is_the_divergence_from_the_teacher_at_the_temperature() -> None:
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    own, taught = random.normal(size=(2, 3, 7))
    probabilities = [np.exp(logits / TEMPERATURE) for logits in (own, taught)]
    own_p, taught_p = (values / values.sum(axis=1, keepdims=True) for values in probabilities)
    expected = (taught_p * np.log(taught_p / own_p)).sum(axis=1).mean() * TEMPERATURE**2
    assert float(softened(torch.tensor(own), torch.tensor(taught))) == pytest.approx(expected, rel=1e-5)
    assert float(softened(torch.tensor(own), torch.tensor(own))) == pytest.approx(0, abs=1e-6)


def test_padding_is_not_imitated() -> None:
    torch = pytest.importorskip("torch")
    logits = torch.randn(2, 2, 5)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    other = logits.clone()
    other[:, 0, 3:] = 99.0
    assert float(question_answering._imitation(list(logits), list(other), mask)) == pytest.approx(0, abs=1e-6)


def test_what_cannot_be_a_teacher_or_a_student_is_refused(
    trained: Path, base: Path, data: Path, tmp_path: Path, classifier: Path
) -> None:
    def refused(**changes: Any) -> str:
        code = main(arguments(base, data, tmp_path / "out", **changes))
        assert code in (1, 2)
        return str(code)

    with pytest.raises(UsageError, match="--layers 9: .* has 2"):
        with_layers(question_answering.read_base(str(base)), 9)
    assert refused(layers=9) == "2"
    assert refused(distil=base) == "1"  # it has no head of the task
    other = write_checkpoint(tmp_path / "other", "bert", head="QuestionAnswering", more_words=["unheard"])
    assert refused(distil=other) == "2"
    assert not (tmp_path / "out").exists()
