"""The fine-tuning tool learns, survives kill -9 without a trace in the weights, and its output is a checkpoint."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import FAMILIES, write_checkpoint

from neuronbert.checkpoint.loading import load_base_checkpoint
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import CheckpointError, InputError, OutputError, UsageError
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert.tasks.question_answering.answers import rank_answers
from neuronbert.tasks.question_answering.options import WindowOptions
from neuronbert.tasks.question_answering.squad import SquadQuestion
from neuronbert.tasks.question_answering.task import HEAD
from neuronbert.tasks.question_answering.windows import encode_examples
from neuronbert_tools.finetune_qa import finetune, identify
from neuronbert_tools.finetuning.labels import answer_span, label_windows
from neuronbert_tools.finetuning.model import build_model
from neuronbert_tools.finetuning.options import TrainingOptions, choose_device, choose_precision
from neuronbert_tools.finetuning.run import Run
from neuronbert_tools.finetuning.schedule import epoch_batches, learning_rate_at

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "finetune_qa.py"

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
    given_options = {**OPTIONS, "base": base, "data": data, "output": output, "device": "cpu", **changes}
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
    assert rank_answers(example, *logits_of(checkpoint.torch_model(), example))[0]["answer"] == "max"


def logits_of(model: Any, example: Any) -> Any:
    import torch

    starts, ends = [], []
    for window in example.windows:
        ids = torch.from_numpy(window.input_ids)[None]
        with torch.no_grad():
            first, last = model(ids, torch.ones_like(ids), torch.from_numpy(window.token_type_ids)[None])
        starts.append(first[0].numpy())
        ends.append(last[0].numpy())
    return starts, ends


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
def test_a_killed_run_goes_on_to_the_same_weights(trained: Path, base: Path, data: Path, tmp_path: Path) -> None:
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

    errors = run_to_end(words)
    step = int(errors.split("resuming at step ")[1].split(" ")[0])
    assert 0 < step < 120 and step % 7 == 0
    assert (output / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    log = "training_log.json"
    assert json.loads((output / log).read_text())["losses"] == json.loads((trained / log).read_text())["losses"]


def finetune_one_epoch(base: Path, data: Path, output: Path, changes: Any = None, **keywords: Any) -> None:
    options = TrainingOptions(**{**OPTIONS, "epochs": 1, **(changes or {})})
    finetune(str(base), [data], output, options, device="cpu", **keywords)


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
    model = build_model(load_base_checkpoint(trained, HEAD), TrainingOptions(**OPTIONS))
    expected = load_checkpoint(trained).torch_model().model.qa_outputs.weight
    assert bool((model.model.qa_outputs.weight == expected).all())


def test_a_new_head_depends_on_the_seed_alone(base: Path) -> None:
    loaded = load_base_checkpoint(base, HEAD)
    heads = [
        build_model(loaded, TrainingOptions(**{**OPTIONS, "seed": seed})).model.qa_outputs.weight.tolist()
        for seed in (1, 1, 2)
    ]
    assert heads[0] == heads[1] != heads[2]


def test_an_output_that_exists_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        finetune_one_epoch(base, data, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_of_other_options_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "reader"
    options = TrainingOptions(**OPTIONS)
    Run(output, identify(load_base_checkpoint(base, HEAD), [data], options)).open()
    with pytest.raises(OutputError) as caught:
        finetune_one_epoch(base, data, output)
    assert "holds a run with other options: options was" in caught.value.message
    assert str(caught.value.hint).endswith(f"rm -r {tmp_path / 'reader.training'}")


def test_two_processes_in_one_run_are_refused(base: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "reader"
    options = TrainingOptions(**{**OPTIONS, "epochs": 1})
    run = Run(output, identify(load_base_checkpoint(base, HEAD), [data], options))
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
            ["--base", "./nowhere", "--data", str(SCRIPT), "--output", "/tmp/neuronbert-none"],
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


# --- the pure parts ---


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 400), min_size=1, max_size=300),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
)
def test_an_epoch_shows_every_window_once(lengths: List[int], batch_size: int, seed: int, epoch: int) -> None:
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
    options = TrainingOptions(**{**OPTIONS, "learning_rate": 1.0, "warmup": 0.2})
    rates = [learning_rate_at(step, 10, options) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    without = TrainingOptions(**{**OPTIONS, "learning_rate": 1.0, "warmup": 0.0})
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
