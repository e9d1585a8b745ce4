"""tools/compare_peers piece by piece: the pure parts, the tasks' modules, the children, the environments."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import pytest
import tiny_encoders
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoints import FAMILIES, write_checkpoint
from tiny_classifiers import LABELS, POSITIONS, compiled, write_classifier
from tiny_encoders import WIDTH, write_sentence_folder

from neuronbert.artifact.manifest import Artifact
from neuronbert.checkpoint.families import family_like, usable_positions
from neuronbert.errors import InputError
from neuronbert_tools import compare_peers
from neuronbert_tools.peers import (
    TASKS,
    cold_start,
    comparison,
    encoder_folders,
    encoders,
    environments,
    load_peer_task,
    preparation,
    summary,
    texts,
)
from neuronbert_tools.peers import feature_extraction as embedding
from neuronbert_tools.peers import question_answering as qa
from neuronbert_tools.peers import text_classification as classification
from neuronbert_tools.peers.base import OURS, US, Contender, PeerTask
from neuronbert_tools.peers.children import Child, ChildFailed
from neuronbert_tools.peers.comparison import _Comparison
from neuronbert_tools.questions import squad_pairs

if sys.version_info < (3, 11):
    pytest.skip("what lies under tools/ is for the current stack's Pythons", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
XQUAD = ROOT / "tests" / "data" / "xquad" / "xquad-en.json"
INTENTS = ROOT / "examples" / "intents-test.csv"


# --- the summary ---

BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}


def test_the_arithmetic_of_bert_base() -> None:
    matrices = 12 * (4 * 768 * 768 + 2 * 768 * 3072) + 2 * 768  # 84.9 million weights
    assert summary.operations([1], BERT_BASE, qa.HEAD_SIZES) == 2 * matrices + 4 * 768 * 12
    assert summary.operations([128], BERT_BASE, qa.HEAD_SIZES) == 2 * 128 * matrices + 4 * 128 * 128 * 768 * 12
    assert summary.operations([1], BERT_BASE, 0) == summary.operations([1], BERT_BASE, 2) - 2 * 2 * 768


@given(st.lists(st.integers(1, 512), min_size=1, max_size=20))
def test_arithmetic_adds_up_over_windows(tokens: List[int]) -> None:
    apart = sum(summary.operations([count], BERT_BASE, 2) for count in tokens)
    assert summary.operations(tokens, BERT_BASE, 2) == pytest.approx(apart)
    assert summary.operations([sum(tokens)], BERT_BASE, 2) >= apart  # attention grows with the square


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=1, max_size=9))
def test_a_spread_holds_its_median(rounds: List[Any]) -> None:
    ratio = summary.ratios([a for a, _ in rounds], [b for _, b in rounds])
    assert ratio.low <= ratio.median <= ratio.high


def contender(figure: str, **seconds: List[float]) -> Dict[str, Any]:
    by_mode = {mode.replace("_", "-"): values for mode, values in seconds.items()}
    return {"seconds": by_mode, figure: 70.0, "peak_mib": 400.0, "load_s": 1.0, "facts": {}}


def questions_report() -> Dict[str, Any]:
    model = {
        "note": "an example",
        "contenders": {
            "neuronbert": contender("f1", one_by_one=[4.0, 4.0, 4.0], list=[2.0, 1.0, 2.0]),
            "transformers-fp32": contender("f1", batch_1=[20.0, 20.0, 20.0], batch_8=[25.0, 25.0, 25.0]),
            "openvino-int8": contender("f1", batch_1=[5.0, 5.0, 4.0], batch_8=[4.0, 4.0, 3.0]),
        },
        "failed": {"onnxruntime-fp32": "onnxruntime-fp32 died"},
        "gemm": [{"int8": {"a": 600.0, "b": 800.0}, "fp32": {"a": 100.0}}] * 3,
        "operations_per_question": 14e9,
    }
    model["summary"] = summary.summarize_model(model, 100, "question")
    ours = {"answer_s": 0.8, "exit_s": 0.9, "peak_mib": 200.0}
    theirs = {"answer_s": 5.0, "exit_s": 5.5, "peak_mib": 500.0}
    score = {"variant": "openvino-int8", "exact_match": 50.0, "questions": 1190}
    report = {
        "workload": {"task": "question-answering", "questions": 100},
        "models": {"bert-base": model},
        "start": {"neuronbert": [ours] * 3, "transformers-fp32": [theirs] * 3},
        "accuracy": {"chosen": {**score, "f1": 68.5}, "fp32": {**score, "f1": 69.9}},
        "warnings": ["the machine was busy"],
    }
    return {**report, "targets": [target._asdict() for target in summary.targets(report)]}


def texts_report() -> Dict[str, Any]:
    model: Dict[str, Any] = {
        "note": "an example",
        "contenders": {
            "neuronbert": contender("accuracy", list=[1.0, 1.0]),
            "neuronbert-fp32": contender("accuracy", list=[0.9, 0.9]),
            "transformers-fp32": contender("accuracy", batch_1=[5.0, 5.0], loop_32=[2.0, 2.0]),
            "openvino-int8": contender("accuracy", batch_64=[1.4, 1.4], loop_8=[1.1, 1.1]),
        },
        "failed": {},
        "gemm": [],
    }
    model["summary"] = summary.summarize_model(model, 100, "text")
    score = {"variant": "openvino-int8", "macro_f1": 91.0, "matthews": 90.0, "texts": 3080}
    report = {
        "workload": {"task": "text-classification", "texts": 100},
        "models": {"model": model},
        "start": {},
        "accuracy": {"chosen": {**score, "accuracy": 92.0}, "fp32": {**score, "accuracy": 92.4}},
        "warnings": [],
    }
    return {**report, "targets": [target._asdict() for target in summary.targets(report)]}


def test_a_summary_compares_best_modes_round_by_round() -> None:
    result = questions_report()["models"]["bert-base"]["summary"]
    assert result["speed"]["neuronbert"]["mode"] == "list"
    assert result["speed"]["transformers-fp32"]["mode"] == "batch-1"
    assert result["best_peer"] == "openvino-int8"
    assert result["ratio_to"]["openvino-int8"] == {"median": 2.0, "low": 1.5, "high": 4.0}
    assert result["ratio_to_modes"]["openvino-int8"]["batch-8"] == result["ratio_to"]["openvino-int8"]
    assert result["our_gops"]["median"] == pytest.approx(50 * 14)
    assert result["gemm"]["int8"]["our_share"]["median"] == pytest.approx(50 * 14 / 800)


def test_our_own_fp32_is_no_peer() -> None:
    result = texts_report()["models"]["model"]["summary"]
    assert result["best_peer"] == "openvino-int8"
    assert result["ratio_to"]["neuronbert-fp32"]["median"] == pytest.approx(0.9)
    assert result["speed"]["openvino-int8"]["texts_per_s"]["median"] == pytest.approx(100 / 1.1)


def test_targets_are_met_or_not() -> None:
    met = {target["name"]: target["met"] for target in questions_report()["targets"]}
    assert met == {
        "bert-base: speed / best peer": True,
        "bert-base: speed / transformers-fp32": True,
        "bert-base: speed / int8 GEMM": True,
        "demo: start to answer / transformers": True,
        "demo: peak memory of `answer`": True,
        "demo: F1 lost against FP32": False,  # 1.4 points
    }


def test_a_target_may_name_the_mode_that_is_the_default() -> None:
    got = {target["name"]: (target["got"], target["met"]) for target in texts_report()["targets"]}
    assert got == {
        "model: speed / transformers-fp32 batch-1": ("5.00 [5.00, 5.00]", True),
        "model: speed / best peer": ("1.10 [1.10, 1.10]", False),
        "model: accuracy lost against FP32": ("0.40 points", True),
    }


def test_the_table_shows_all_of_it() -> None:
    text = summary.render(questions_report())
    for wanted in (
        "questions/s [min, max]",
        "list *",
        "2.00 [1.50, 4.00]",
        "FAILED onnxruntime-fp32: onnxruntime-fp32 died",
        "int8 GEMM: 800.00 [800.00, 800.00] Gop/s",
        "NOT MET",
        "68.50",
        "warning: the machine was busy",
    ):
        assert wanted in text
    text = summary.render(texts_report())
    for wanted in (
        "texts/s [min, max]",
        "accuracy, %",
        "5.00 [5.00, 5.00]",
        "macro F1, %",
        "92.40",
        "* the fastest mode\n",
    ):
        assert wanted in text


@pytest.mark.parametrize("task", TASKS)
def test_a_part_that_was_not_measured_has_no_target(task: str) -> None:
    workload = {"task": task, f"{load_peer_task(task).UNIT}s": 1}
    report = {"workload": workload, "models": {}, "start": {}, "accuracy": {}, "warnings": []}
    assert summary.targets(report) == []
    assert summary.render({**report, "targets": []}).strip() == ""


# --- the tasks' modules ---


@pytest.mark.parametrize("name", TASKS)
def test_a_task_names_what_there_is(name: str) -> None:
    task = load_peer_task(name)
    contenders, modes = task.CONTENDERS, set()
    assert task.NAME == name and task.MODELS[task.MAIN_MODEL].is_trained
    assert set(task.SPEED_TARGETS) == set(task.MODELS)
    for known, each in contenders.items():
        assert each.environment in environments.ENVIRONMENTS
        assert each.export is None or each.export.environment in environments.ENVIRONMENTS
        assert (each.environment == US) == (known in OURS)
        assert each.modes or each.probed
        modes |= {f"{known} {mode}" for mode in each.modes}
    against = {target for targets in task.SPEED_TARGETS.values() for target in targets}
    assert against <= {"best peer", "int8 GEMM", *contenders, *modes}
    assert US in contenders and task.COUNT > 0 and "speed" in task.PARTS


def test_every_environment_has_a_contender() -> None:
    used = {each.environment for name in TASKS for each in load_peer_task(name).CONTENDERS.values()}
    assert used | {"transformers"} == set(environments.ENVIRONMENTS)


def test_what_the_comparison_reads_of_the_package_is_there() -> None:
    assert qa.CALIBRATION.is_file() and (preparation.DEMO / "model.safetensors").is_file()
    assert summary.BASELINE in qa.CONTENDERS


def test_the_questions_are_in_the_files_order() -> None:
    first = json.loads(XQUAD.read_text(encoding="utf-8"))["data"][0]["paragraphs"][0]
    assert next(squad_pairs(XQUAD)) == (first["qas"][0]["question"], first["context"])
    assert len(list(squad_pairs(XQUAD))) == 1190
    every = [list(pair) for pair in squad_pairs(XQUAD)]
    assert qa.read(XQUAD, 3) == [every[0], every[396], every[793]]  # spread over the file
    assert len(qa.read(XQUAD, 9999)) == 1190


def test_the_texts_are_spread_over_the_file_and_have_their_labels(tmp_path: Path) -> None:
    lines = [f"text {number},{LABELS[number // 4]}" for number in range(12)]  # sorted by label, as banking77 is
    data = tmp_path / "labelled.csv"
    data.write_text("\n".join(["text,category", *lines]), encoding="utf-8")
    assert classification.read(data, 3) == ["text 0", "text 4", "text 8"]
    assert len(classification.read(data, 100)) == 12
    model = write_classifier(tmp_path / "checkpoint")
    assert classification.golds(data, 3, model) == list(LABELS)
    assert classification.scores(["calm", "glad"], {"one": ["calm", "calm"]}) == {"one": 50.0}
    assert classification.scores(None, {"one": ["calm"]}) == {}
    data.write_text("text,category\nnothing said,\n", encoding="utf-8")
    assert classification.golds(data, 3, model) is None


def test_labels_that_a_checkpoint_lacks_are_refused(tmp_path: Path) -> None:
    model = write_classifier(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="the checkpoint has no label 'book_room'"):
        classification.golds(INTENTS, 3, model)


def test_a_classifier_without_one_label_for_each_text_is_refused(tmp_path: Path) -> None:
    classification.refuse_model(write_classifier(tmp_path / "labels"))
    scores = write_classifier(tmp_path / "scores", labels=["score"])
    with pytest.raises(InputError, match="the checkpoint's problem is regression"):
        classification.refuse_model(scores)


def test_pairs_of_texts_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "pairs.csv"
    data.write_text("text,text_pair,label\none,two,calm\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds pairs of texts"):
        classification.read(data, 1)


def test_paragraphs_are_texts_too() -> None:
    paragraphs = texts.read_texts(XQUAD)
    assert len(paragraphs) == 240 and paragraphs[0] == next(squad_pairs(XQUAD))[1]


def test_int8_is_calibrated_with_questions_and_paragraphs_or_with_the_callers_texts() -> None:
    shipped = texts.calibration_texts(None)
    assert len(shipped) == texts.CALIBRATION_TEXTS
    assert sum(text.endswith("?") for text in shipped) >= len(shipped) // 2 - 5
    assert texts.calibration_texts(INTENTS) == texts.read_texts(INTENTS)


@given(st.lists(st.text(max_size=20), max_size=40), st.integers(1, 50))
def test_batches_hold_every_text_once_longest_first(asked: List[str], size: int) -> None:
    found = list(texts.batches(asked, size))
    assert sorted(number for batch in found for number in batch) == list(range(len(asked)))
    lengths = [len(asked[number]) for batch in found for number in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert all(len(batch) == size for batch in found[:-1])


@given(st.lists(st.integers(), min_size=1, max_size=40), st.integers(1, 50))
def test_spread_items_keep_their_order(items: List[int], count: int) -> None:
    numbers = texts.spaced(list(range(len(items))), count)
    assert len(numbers) == min(count, len(items)) and numbers == sorted(set(numbers)) and numbers[0] == 0


def letters(texts: List[str], **options: Any) -> Dict[str, Any]:
    """A tokenizer: the code of each letter."""
    longest = max(map(len, texts))
    rows = [[*map(ord, text), *[0] * (longest - len(text))] for text in texts]
    return {"input_ids": np.array(rows, dtype=np.int64).reshape(len(texts), longest)}


def totals(output: Any, tokens: texts.Tokens) -> List[int]:
    assert output.shape == tokens["input_ids"].shape
    return [int(total) for total in output.sum(axis=1)]


def letter_sums() -> Any:
    """A compiled graph that doubles its input_ids."""
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    ids = ops.parameter([-1, -1], np.int64, name="input_ids")
    model = openvino.Model([ops.add(ids, ids)], [ids])
    ids.output(0).get_tensor().set_names({"input_ids"})
    return openvino.Core().compile_model(model, "CPU", {"NUM_STREAMS": 2, "PERFORMANCE_HINT": "THROUGHPUT"})


def test_every_loop_gives_results_in_order() -> None:
    asked = [letter * (1 + number % 7) for number, letter in enumerate("interchangeable engines")]
    wanted = [2 * sum(map(ord, text)) for text in asked]
    streams = texts.openvino_streams(letters, letter_sums(), totals, POSITIONS)
    loop = texts.loop(letters, lambda tokens: 2 * tokens["input_ids"], totals, POSITIONS)
    for size in (1, 4, 100):
        assert loop(asked, size) == streams(asked, size) == wanted


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_read_of_every_family(tmp_path: Path, family: str) -> None:
    model = write_checkpoint(tmp_path / family, family, "")
    config = texts.config_of(model)
    assert texts.max_positions(model) == usable_positions(config, family_like(config)) == POSITIONS
    assert texts.width(model) == WIDTH
    assert summary.operations([1], config, 0) == 2 * 2 * (4 * 32 * 32 + 2 * 32 * 48) + 4 * 32 * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_encoder_gets_the_files_of_a_sentence_encoder(tmp_path: Path, family: str) -> None:
    source, made = write_checkpoint(tmp_path / "bare", family, ""), tmp_path / "made"
    embedding.refuse_model(source)
    embedding.make_model("model", made, source, 0)
    modules = json.loads((made / "modules.json").read_text(encoding="utf-8"))
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Normalize"]
    pooling = json.loads((made / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    assert pooling == {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
    assert encoder_folders.max_length(made) == POSITIONS
    embedding.refuse_model(made)


@pytest.mark.parametrize("says, read", [(16, 16), (None, POSITIONS), (4096, POSITIONS)])
def test_every_library_reads_as_many_tokens(tmp_path: Path, says: Optional[int], read: int) -> None:
    source, made = write_sentence_folder(tmp_path / "source", max_seq_length=says), tmp_path / "made"
    embedding.make_model("model", made, source, 0)
    assert encoder_folders.max_length(made) == read
    assert json.loads((made / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"] == read
    assert embedding.count_tokens(made, ["a " * 200, "a"])[0] == read


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling": {"pooling_mode_cls_token": True}},
        {"kinds": ()},
        {"prompts": {"query": "find: "}, "default_prompt_name": "query"},
        {"truncate_dim": 8},
    ],
)
def test_an_encoder_that_is_not_the_mean_of_its_tokens_is_refused(tmp_path: Path, settings: Dict[str, Any]) -> None:
    embedding.refuse_model(write_sentence_folder(tmp_path / "mean", similarity_fn_name="dot"))
    with pytest.raises(InputError, match="is more than the mean of its tokens"):
        embedding.refuse_model(write_sentence_folder(tmp_path / "other", **settings))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_a_mean_leaves_padding_out(rows: int, tokens: int, padding: int) -> None:
    states = np.random.default_rng(0).normal(size=(rows, tokens + padding, 8)).astype(np.float32)
    mask = np.array([[1] * tokens + [0] * padding] * rows)
    means = states[:, :tokens].mean(axis=1)
    found = encoders.mean_of(states, {"attention_mask": mask})
    np.testing.assert_allclose(found, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)


def test_embeddings_are_compared_with_those_of_the_baseline() -> None:
    answers = {embedding.BASELINE: [[1.0, 0.0], [0.0, 2.0]], "other": [[3.0, 0.0], [1.0, 0.0]]}
    assert embedding.scores(None, answers) == pytest.approx({embedding.BASELINE: 1.0, "other": 0.5})
    assert embedding.scores(None, {"other": answers["other"]}) == {}
    assert embedding.plain([np.float32([1 / 3]), np.float32([1])]) == [[0.333333], [1.0]]


# --- modes ---


class FakeChild:
    """Says that a mode takes as long as it is told."""

    def __init__(self, seconds: Dict[str, float]):
        self.seconds, self.asked = seconds, []  # type: ignore[var-annotated]

    def request(self, do: str, inputs: List[str], mode: str) -> Dict[str, Any]:
        self.asked.append((mode, len(inputs)))
        return {"seconds": self.seconds[mode]}


@pytest.fixture()
def bare_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., _Comparison]:
    """A comparison whose environments are all this one."""

    def make(task: str, **changes: Any) -> _Comparison:
        monkeypatch.setattr(preparation, "ensure_environment", lambda name, root: Path(sys.executable))
        known: PeerTask = load_peer_task(task)
        options = preparation.Options(
            task=task,
            models=(known.MAIN_MODEL,),
            contenders=tuple(known.CONTENDERS),
            model=None,
            data=XQUAD if task == "question-answering" else INTENTS,
            calibration=None,
            questions=10,
            rounds=1,
            threads=1,
            work=tmp_path / "work",
            parts=("speed",),
        )
        return _Comparison(options._replace(**changes))

    return make


def test_the_fastest_of_each_group_is_measured_and_the_default_always(bare_comparison: Any) -> None:
    seconds = {"batch-1": 9.0, "batch-8": 2.0, "batch-32": 1.0, "loop-8": 0.4, "loop-32": 0.5}
    child = FakeChild(seconds)
    groups = (("batch-8", "batch-32"), ("loop-8", "loop-32"))
    chosen = bare_comparison("text-classification")._choose_modes(
        child, Contender("transformers-5", ("batch-1",), lambda job: pytest.fail("not loaded here"), groups)
    )
    assert chosen["seconds"] == {"batch-1": [], "batch-32": [], "loop-8": []}
    assert chosen["probed_texts_per_s"]["loop-8"] == pytest.approx(10 / 0.4)
    assert "batch-1" not in chosen["probed_texts_per_s"]
    asked = dict(child.asked)
    assert asked["batch-1"] == len(texts.read_texts(INTENTS))  # warmed up with all that there are, 32 at most


def test_questions_are_asked_in_every_mode(bare_comparison: Any) -> None:
    child = FakeChild({"batch-1": 2.0, "batch-8": 1.0})
    chosen = bare_comparison("question-answering")._choose_modes(child, qa.CONTENDERS["openvino-int8"])
    assert chosen == {"seconds": {"batch-1": [], "batch-8": []}}
    assert child.asked == [("batch-1", comparison.WARM_UP_INPUTS), ("batch-8", comparison.WARM_UP_INPUTS)]


def test_an_environment_that_cannot_be_made_fails_its_contenders(bare_comparison: Any) -> None:
    made = bare_comparison("text-classification").made
    made.absent["optimum-intel"] = "the environment optimum-intel could not be made: pip exited with 1"
    with pytest.raises(ChildFailed, match="openvino-int8 cannot be exported: the environment optimum-intel"):
        made.exported("model", "openvino-int8", classification.EXPORTS["openvino-int8"])
    with pytest.raises(ChildFailed, match="openvino-int8 cannot run: the environment optimum-intel"):
        made.child("openvino-int8", "optimum-intel")


def test_only_what_the_chosen_contenders_need_is_made(bare_comparison: Any) -> None:
    made = bare_comparison("text-classification", contenders=("onnxruntime-int8",)).made.pythons
    assert set(made) == {"neuronbert", "optimum-onnx", "transformers"}


# --- children and environments ---


def test_the_peers_share_our_libraries() -> None:
    """The same releases of torch, numpy and the engines: what differs is the code around them."""
    ours = set(environments.CONSTRAINTS.read_text(encoding="utf-8").split())
    for environment in ("transformers", "transformers-5", "optimum-onnx", "optimum-intel"):
        pins = [
            pin for pin in environments.ENVIRONMENTS[environment].requirements if not pin.startswith(("optimum", "tr"))
        ]
        assert pins and set(pins) <= ours
    assert "transformers==5.23.0" in ours and "transformers==5.23.0" in environments.ENVIRONMENTS["transformers-5"][0]


@pytest.fixture()
def child(tmp_path: Path) -> Any:
    with Child("neuronbert", Path(sys.executable), environments.child_environment(1), tmp_path / "log") as child:
        yield child


def test_a_child_answers_and_counts(child: Child, echo_artifact: Artifact) -> None:
    task, inputs = {"task": "question-answering"}, qa.read(XQUAD, 3)
    artifact = str(echo_artifact.folder)
    loaded = child.request("load", contender="neuronbert", model=artifact, prepared="", threads=1, **task)
    assert loaded["load_s"] > 0 and loaded["facts"]["variant"] == "echo-fp32"
    answers = []
    for mode in ("one-by-one", "list"):
        run = child.request("run", mode=mode, inputs=inputs)
        assert run["seconds"] > 0 and run["peak_mib"] > 10
        answers.append(child.request("last_answers", **task)["answers"])
    assert answers[0] == answers[1] and len(answers[1]) == 3
    assert len(child.request("count_tokens", model=artifact, inputs=inputs, **task)["tokens"]) >= 3
    golds = child.request("golds", data=str(XQUAD), count=3, model=artifact, **task)["golds"]
    first = [gold[0] for gold in golds]
    scores = child.request("scores", golds=golds, answers={"right": first, "wrong": ["xyzzy"] * 3}, **task)
    assert scores == {"scores": {"right": 100.0, "wrong": 0.0}}


def test_a_child_gives_the_labels_of_every_contender_that_runs_here(child: Child, tmp_path: Path) -> None:
    """transformers' own pipeline, the loop, and neuronbert: of the same weights the same labels, in every mode."""
    task, inputs = {"task": "text-classification"}, texts.read_texts(INTENTS)
    checkpoint = write_classifier(tmp_path / "checkpoint", hidden_size=32)
    artifact = compiled(checkpoint, tmp_path / "artifact", backend="openvino").folder
    answers = []
    for contender, model, modes in (
        ("neuronbert-fp32", artifact, ("one-by-one", "list")),
        ("transformers-fp32", checkpoint, ("batch-1", "batch-8", "loop-1", "loop-8")),
    ):
        child.request("load", contender=contender, model=str(model), prepared="", threads=1, **task)
        for mode in modes:
            child.request("run", mode=mode, inputs=inputs)
            answers.append(child.request("last_answers", **task)["answers"])
    assert all(answer == answers[0] for answer in answers) and len(answers[0]) == len(inputs)
    assert set(answers[0]) <= set(LABELS)
    tokens = child.request("count_tokens", model=str(artifact), inputs=inputs, **task)["tokens"]
    assert len(tokens) == len(inputs) and max(tokens) <= POSITIONS


def test_a_child_gives_the_embeddings_of_our_encoder(child: Child, tmp_path: Path) -> None:
    """Those of the loop over transformers' own model: the mean of the tokens, in both modes."""
    transformers = pytest.importorskip("transformers")
    task, inputs = {"task": "feature-extraction"}, texts.read_texts(INTENTS)
    made = tmp_path / "made"
    embedding.make_model("model", made, write_checkpoint(tmp_path / "bare", "bert", ""), 0)
    artifact = tiny_encoders.compiled(made, tmp_path / "artifact", backend="openvino").folder
    child.request("load", contender="neuronbert-fp32", model=str(artifact), prepared="", threads=1, **task)
    answers = {}
    for mode in ("one-by-one", "list"):
        child.request("run", mode=mode, inputs=inputs)
        answers[mode] = child.request("last_answers", **task)["answers"]
    forward = texts.torch_forward(transformers.AutoModel.from_pretrained(made).eval(), encoders.STATES)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made)
    wanted = np.stack(texts.loop(tokenizer, forward, encoders.mean_of, POSITIONS)(inputs, 8))
    for found in answers.values():
        np.testing.assert_allclose(np.array(found), wanted, atol=1e-4)
    scored = embedding.scores(None, {embedding.BASELINE: embedding.plain(wanted), **answers})
    assert min(scored.values()) == pytest.approx(1.0, abs=1e-5)


def test_a_model_is_made_of_its_source_or_of_random_weights(child: Child, tmp_path: Path) -> None:
    source = write_classifier(tmp_path / "source")
    made = {"task": "text-classification", "source": str(source), "seed": 0}
    child.request("make_model", name="model", folder=str(tmp_path / "copy"), **made)
    config = json.loads((tmp_path / "copy" / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float32" and list(config["id2label"].values()) == list(LABELS)


def test_a_childs_error_names_the_contender_and_the_log(child: Child, tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="neuronbert could not load: .*absent") as failure:
        given = {"model": str(tmp_path / "absent"), "prepared": "", "threads": 1}
        child.request("load", task="question-answering", contender="neuronbert", **given)
    assert str(tmp_path / "log") in str(failure.value)
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_dead_child_is_noticed(tmp_path: Path) -> None:
    false = Path(shutil.which("false") or "")
    with Child("gone", false, dict(os.environ), tmp_path / "log") as child:
        with pytest.raises(ChildFailed, match="gone died with exit code 1 during run"):
            child.request("run", inputs=[], mode="list")


def measure_start_elsewhere(code: str) -> "subprocess.CompletedProcess[str]":
    """cold_start.measure_start of ``python -c code``, in a small process: this one has held too much memory."""
    measure = (
        "import os, sys; from neuronbert_tools.peers.cold_start import measure_start\n"
        "print(*measure_start([sys.executable, '-c', sys.argv[1]], os.environ, sys.stderr.buffer))"
    )
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    # exec() hands on the peak of the process it replaces, so a shell stands between this one and the measuring one.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", measure, code]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_start_is_timed_to_its_first_line() -> None:
    code = "import time; held = bytearray(100 << 20); print('answer', flush=True); time.sleep(2)"
    done = measure_start_elsewhere(code)
    assert done.returncode == 0, done.stderr
    answer_s, exit_s, peak_mib = map(float, done.stdout.split())
    assert exit_s - answer_s > 1
    assert 100 < peak_mib < 200


@pytest.mark.parametrize(
    "code, message",
    [
        ("held = bytearray(100 << 20); raise SystemExit(3)", "exited with 3 and printed b''"),
        ("held = bytearray(100 << 20)", "exited with 0 and printed b''"),
    ],
)
def test_a_start_without_an_answer_is_refused(code: str, message: str) -> None:
    assert message in measure_start_elsewhere(code).stderr


def test_a_peak_that_cannot_be_told_is_refused(tmp_path: Path) -> None:
    held = bytearray(os.urandom(1)) * (64 << 20)
    with (tmp_path / "log").open("ab") as log:
        with pytest.raises(RuntimeError, match="has held more memory than"):
            cold_start.measure_start([sys.executable, "-c", "print(1)"], os.environ, log)
    assert len(held) == 64 << 20


CLASSIFICATION = ["--task", "text-classification"]
RANDOM = [*CLASSIFICATION, "--models", "bert-base"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--contenders", "keras"], "'keras' is not one of neuronbert, "),
        (["--models", "gpt"], "'gpt' is not one of demo, bert-base"),
        (["--rounds", "0"], "must be at least 1"),
        (["--data", "absent.json"], "there is no file absent.json"),
        (["--model", "."], "--model is not for question-answering, whose models are demo, bert-base"),
        (["--task", "translation"], "invalid choice: 'translation'"),
        (CLASSIFICATION, "--model FOLDER is missing; --models bert-base needs none"),
        ([*CLASSIFICATION, "--model", "absent"], "there is no checkpoint absent"),
        (RANDOM, "--data FILE is missing"),
        ([*RANDOM, "--data", str(INTENTS), "--only", "start"], "'start' is not one of speed"),
    ],
)
def test_a_wrong_option_is_refused(arguments: List[str], message: str) -> None:
    done = subprocess.run([sys.executable, str(TOOLS / "compare_peers"), *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_file_that_cannot_be_read_is_refused_before_any_environment_is_made(tmp_path: Path) -> None:
    data = tmp_path / "texts.csv"
    data.write_text("sentiment\ngood\n", encoding="utf-8")
    options = [*RANDOM, "--data", str(data), "--work", str(tmp_path)]
    done = subprocess.run([sys.executable, str(TOOLS / "compare_peers"), *options], capture_output=True, text=True)
    assert done.returncode == 1
    assert "has no column 'text'; it has 'sentiment'" in done.stderr
    assert not (tmp_path / "environments").exists()


def test_what_ends_a_comparison_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: preparation.Options) -> Dict[str, Any]:
        raise ChildFailed(f"models could not make {options.models[0]}")

    monkeypatch.setattr(compare_peers, "compare", fail)
    assert compare_peers.main([]) == 1
    captured = capsys.readouterr()
    assert captured.err == "error: models could not make demo\n" and not captured.out
