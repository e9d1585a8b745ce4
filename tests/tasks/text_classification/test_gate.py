"""The gate of text classification: what it asks, how it compares a variant with FP32, and what it refuses."""

import json
import math
from pathlib import Path
from typing import Any, List, Optional, Sequence

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_classifiers import LABELS, labels_of

from neuronbert.artifact.manifest import load_artifact
from neuronbert.cli.main import cli
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.errors import ArtifactError, GateRefused, InputError
from neuronbert.tasks.base import GateLimits
from neuronbert.tasks.rows import TextPair
from neuronbert.tasks.samples import calibration_path, gate_path, shipped_texts
from neuronbert.tasks.text_classification.data import LabelledText
from neuronbert.tasks.text_classification.figures import agreement_text, columns
from neuronbert.tasks.text_classification.gate import MIN_TEXTS, Agreement, ClassificationGate

SINGLE = labels_of(LABELS)
MULTI = {**SINGLE, "problem_type": "multi_label_classification"}
SCORE = labels_of(["similarity"])


def gate_of(config: Any) -> ClassificationGate:
    return ClassificationGate.of(config)


def write(folder: Path, name: str, texts: Sequence[str], labels: Sequence[Any]) -> Path:
    path = folder / name
    lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in zip(texts, labels))
    path.write_text("".join(lines))
    return path


# ---- what is asked


def test_the_shipped_texts_are_questions_and_questions_with_paragraphs() -> None:
    questions = gate_of(SINGLE).questions(None, None, skipped=False)
    assert (len(questions.asked), len(questions.calibration)) == (600, 200)
    assert questions.asked == questions.shipped
    assert (questions.asked_files, questions.calibration_file) == ([gate_path()], calibration_path())
    asked = [item.asked for item in questions.asked]
    assert len(set(asked)) == 600 and sum(isinstance(each, TextPair) for each in asked) == 300
    assert sum(isinstance(each, TextPair) for each in asked[:100]) == 50  # wherever it is cut, both kinds are left
    assert not set(asked) & {item.asked for item in questions.calibration}
    assert all(item.label is None for item in [*questions.asked, *questions.calibration])


def test_own_texts_are_filled_up_with_shipped_ones(tmp_path: Path) -> None:
    few = write(tmp_path, "few.jsonl", [f"text {number}" for number in range(7)], ["calm", 1] * 4)
    questions = gate_of(SINGLE).questions(few, None, skipped=False)
    assert len(questions.asked) == MIN_TEXTS and questions.asked[7:] == questions.shipped[: MIN_TEXTS - 7]
    assert questions.asked[:2] == [LabelledText("text 0", 0), LabelledText("text 1", 1)]
    assert questions.asked_files == [few, gate_path()]


def test_enough_own_texts_are_all_that_is_asked(tmp_path: Path) -> None:
    many = write(tmp_path, "many.jsonl", [f"text {number}" for number in range(MIN_TEXTS + 1)], ["glad"] * 501)
    questions = gate_of(SINGLE).questions(many, None, skipped=False)
    assert len(questions.asked) == MIN_TEXTS + 1 and questions.asked_files == [many]
    assert {item.label for item in questions.asked} == {1}


def test_nothing_is_asked_that_the_variant_was_calibrated_with(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(520)]
    calibration = write(tmp_path, "calibration.jsonl", texts[:15], ["calm"] * 15)
    questions = gate_of(SINGLE).questions(
        write(tmp_path, "gate.jsonl", texts, ["calm"] * 520), calibration, skipped=False
    )
    assert [item.asked for item in questions.asked] == texts[15:] and questions.calibration_file == calibration
    assert [item.asked for item in questions.calibration] == texts[:15]


def test_too_few_texts_say_nothing(tmp_path: Path) -> None:
    shipped = list(dict.fromkeys(pair.question for pair in shipped_texts(gate_path())))[:400]
    calibration = write(tmp_path, "calibration.jsonl", shipped, [0] * len(shipped))
    left = 600 - len({item.asked for item in gate_of(SINGLE).questions(None, None, True).asked} & set(shipped))
    assert left < MIN_TEXTS
    with pytest.raises(InputError, match=f"^{left} texts are left for the gate, which needs {MIN_TEXTS}"):
        gate_of(SINGLE).questions(None, calibration, skipped=False)
    skipped = gate_of(SINGLE).questions(None, calibration, skipped=True)
    assert len(skipped.asked) == left and skipped.asked_files == []


def test_a_label_that_the_checkpoint_lacks_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", ["a", "b"], ["calm", "happy"])
    for files in ((path, None), (None, path)):
        with pytest.raises(InputError, match="line 2: the checkpoint has no label 'happy'; it has calm, glad, cross"):
            gate_of(SINGLE).questions(*files, skipped=True)


# ---- how a variant compares


def compared(
    config: Any, ours: Sequence[Any], theirs: Sequence[Any], golds: Optional[Sequence[Any]] = None
) -> Agreement:
    gate = gate_of(config)
    labelled = [LabelledText(f"text {n}", gold) for n, gold in enumerate(golds or [None] * len(ours))]
    sides = [[{"logits": np.array(row, dtype=np.float32)} for row in side] for side in (ours, theirs)]
    return gate.compare(labelled, *(gate.judge(labelled, [], side) for side in sides))


def refusals(agreement: Agreement, precision: str = "int8", **limits: float) -> List[str]:
    return gate_of(SINGLE).refusals(precision, agreement, GateLimits(**limits))


A, B, C = [9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]


def test_decisions_are_counted() -> None:
    agreement = compared(SINGLE, [A, B, C, A], [A, B, B, A], [0, 0, 2, None])
    assert agreement == Agreement(4, 3, 9.0, 0.75, 2 / 3, 1 / 3)
    assert compared(SINGLE, [A, B], [A, B]) == Agreement(2, 0, 0.0, 1.0, None, None)


def test_a_single_label_measures_no_accuracy() -> None:
    assert compared(SINGLE, [A, B], [A, B], [0, None]).accuracy is None
    assert compared(SINGLE, [A, B], [A, A], [0, 0]).accuracy == 0.5


def test_of_several_labels_all_must_be_alike() -> None:
    agreement = compared(MULTI, [[1, -1, 1], [-1, -1, -1], [1, 1, 1]], [[1, -1, 1], [-1, -1, -1], [1, 1, -1]],
                         [(0, 2), (), (1,)])  # fmt: skip
    assert (agreement.agreement, agreement.accuracy, agreement.reference_accuracy) == (2 / 3, 2 / 3, 2 / 3)


def test_scores_are_compared_by_their_order() -> None:
    stats = pytest.importorskip("scipy.stats")
    ours, theirs, golds = [1.0, 2.5, 2.0, 7.0], [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 3.0, 0.5]
    agreement = compared(SCORE, [[each] for each in ours], [[each] for each in theirs], golds)
    assert agreement.agreement == pytest.approx(stats.spearmanr(ours, theirs).statistic)
    assert agreement.accuracy == pytest.approx(stats.spearmanr(ours, golds).statistic)
    assert agreement.reference_accuracy == pytest.approx(stats.spearmanr(theirs, golds).statistic)


def test_scores_without_an_order() -> None:
    constant, order = [[1.0]] * 3, [[1.0], [2.0], [3.0]]
    assert compared(SCORE, constant, constant).agreement == 1.0
    assert compared(SCORE, constant, order).agreement == 0.0
    # A variant that says the same of everything does not pass for one that could not be measured.
    agreement = compared(SCORE, constant, order, [1.0, 2.0, 3.0])
    assert (agreement.accuracy, agreement.reference_accuracy) == (0.0, pytest.approx(1.0))
    # Labels that are all alike measure nothing.
    agreement = compared(SCORE, order, order, [2.0, 2.0, 2.0])
    assert (agreement.labelled, agreement.accuracy, agreement.reference_accuracy) == (3, None, None)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("config", [SINGLE, MULTI, SCORE], ids=["single", "multi", "score"])
def test_logits_that_are_no_numbers_are_refused(config: Any, bad: float) -> None:
    rows = [[1.0] * len(config["id2label"]), [2.0] * len(config["id2label"]), [0.5] * len(config["id2label"])]
    broken = [*rows[:2], [bad] * len(config["id2label"])]
    gold: Any = {1: 1.0, 3: 0}[len(config["id2label"])]
    agreement = compared(config, broken, rows, [(0,), (1,), (2,)] if config is MULTI else [gold, gold + 1, gold])
    for precision in ("fp32", "int8"):
        assert refusals(agreement, precision) == ["its logits hold NaN or Inf"]
    assert json.loads(json.dumps(agreement.as_dict(), allow_nan=False))["max_abs_diff"] is None


# ---- what is refused

FINE = Agreement(n=600, labelled=100, max_abs_diff=1e-5, agreement=1.0, accuracy=0.8, reference_accuracy=0.8)


@pytest.mark.parametrize("change", [{}, {"max_abs_diff": 1e-3}, {"agreement": 0.99}, {"accuracy": 0.1}])
def test_fp32_that_gives_the_same_logits_passes(change: Any) -> None:
    assert refusals(Agreement(**{**vars(FINE), **change}), "fp32") == []


def test_fp32_that_does_not_is_refused() -> None:
    off = Agreement(**{**vars(FINE), "max_abs_diff": 0.0011, "agreement": 0.98})
    assert refusals(off, "fp32") == [
        "its logits differ from the FP32 reference by 0.0011, more than 0.001",
        "it agrees with the FP32 reference on 98.0% of the texts, less than 99.0%",
    ]


@pytest.mark.parametrize(
    ("change", "limits", "reasons"),
    [
        ({}, {}, []),
        ({"max_abs_diff": 5.0, "agreement": 0.9, "accuracy": 0.792}, {}, []),
        ({"accuracy": None, "reference_accuracy": None}, {"min_f1_ratio": 1}, []),
        ({"accuracy": 0.9}, {"min_f1_ratio": 1, "min_answer_f1": 1}, []),
        (
            {"accuracy": 0.78},
            {},
            ["its accuracy is 78.00%, 97.50% of the reference's 80.00% and less than 99.00%"],
        ),
        ({"accuracy": 0.78}, {"min_f1_ratio": 0.97}, []),
        (
            {"agreement": 0.89},
            {},
            ["it agrees with the FP32 reference on 89.0% of the texts, less than 90.0%"],
        ),
        ({"agreement": 0.89}, {"min_answer_f1": 0.5}, []),
        (
            {"accuracy": 0.0, "reference_accuracy": 0.0},
            {"min_f1_ratio": 0},
            ["the FP32 reference's own accuracy on the 100 labelled texts is 0.0%, so the gate means nothing"],
        ),
        (
            {"accuracy": -0.2, "reference_accuracy": -0.1},
            {},
            ["the FP32 reference's own accuracy on the 100 labelled texts is -10.0%, so the gate means nothing"],
        ),
    ],
)
def test_a_reduced_precision_keeps_accuracy_and_decisions(change: Any, limits: Any, reasons: List[str]) -> None:
    assert refusals(Agreement(**{**vars(FINE), **change}), **limits) == reasons


# ---- what the manifest says, and inspect shows

SCORES = st.lists(st.integers(-2, 2).map(float), min_size=4, max_size=4)


@given(ours=SCORES, theirs=SCORES, golds=st.lists(st.one_of(st.none(), st.integers(0, 1)), min_size=4, max_size=4))
@example(ours=[0.0] * 4, theirs=[0.0, 1.0, 2.0, 2.0], golds=[1, 1, 1, 1])
@example(ours=[0.0] * 4, theirs=[0.0] * 4, golds=[0, 1, 1, 1])
def test_whatever_was_measured_can_be_inspected(ours: List[float], theirs: List[float], golds: List[Any]) -> None:
    for config in (SINGLE, SCORE):
        width = len(config["id2label"])
        rows = [[[score, 0.5, 0.0][:width] for score in side] for side in (ours, theirs)]
        agreement = compared(config, *rows, golds)
        entry = json.loads(json.dumps(agreement.entry(), allow_nan=False))
        assert columns({"name": "a-variant", **entry})["agrees"].endswith(" of 4")
        assert agreement_text(json.loads(json.dumps(agreement.as_dict(), allow_nan=False)))


def test_figures_in_words() -> None:
    assert agreement_text(FINE.as_dict()) == (
        "accuracy 80.00% of 80.00% in FP32, agrees with FP32 100.0%, logits within 1e-05 (600 texts)"
    )
    unlabelled = Agreement(600, 0, math.nan, 0.5, None, None)
    assert agreement_text(unlabelled.as_dict()) == "agrees with FP32 50.0%, logits with NaN or Inf (600 texts)"
    assert columns({"name": "x", **FINE.entry()}) == {"accuracy (FP32)": "80.00% (80.00%)", "agrees": "100.0% of 600"}
    assert columns({"name": "x", "accuracy": None, "agreement": None}) == {
        "accuracy (FP32)": "not measured", "agrees": "not measured",
    }  # fmt: skip
    with pytest.raises(ArtifactError, match="^variant x: "):
        columns({"name": "x", "accuracy": {"accuracy": "high"}, "agreement": None})


# ---- through compile


def test_a_variant_goes_through_the_gate(checkpoint: Path, tmp_path: Path) -> None:
    gate_data = write(tmp_path, "gate.jsonl", ["who was jim", "the puppet", "a nice a", "henson"], [0, 1, "cross", 0])
    output = tmp_path / "artifact"
    compile_checkpoint(checkpoint, output, backend="torchscript", precision="fp32", gate_data=gate_data, threads=1)
    artifact = load_artifact(output)
    (variant,) = artifact.manifest["variants"]
    assert artifact.task == "text-classification"
    assert variant["agreement"]["agreement"] == 1.0 and variant["agreement"]["n"] == MIN_TEXTS
    assert variant["agreement"]["max_abs_diff"] < 1e-4
    assert variant["accuracy"]["accuracy"] == variant["accuracy"]["reference_accuracy"]
    assert variant["accuracy"]["labelled"] == 4 and artifact.manifest["gate"]["n"] == MIN_TEXTS
    shown = CliRunner().invoke(cli, ["inspect", str(output)])
    assert shown.exit_code == 0 and "accuracy (FP32)" in shown.output and "100.0% of 500" in shown.output


def test_numbers_that_mean_nothing_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match="its logits differ from the FP32 reference by"):
        compile_checkpoint(checkpoint, tmp_path / "out", backend="echo", precision="fp32", threads=1)
    assert not (tmp_path / "out").exists()


def test_wrong_gate_data_costs_no_compilation(checkpoint: Path, tmp_path: Path) -> None:
    gate_data = write(tmp_path, "gate.jsonl", ["a"], ["happy"])
    with pytest.raises(InputError, match="line 1: the checkpoint has no label 'happy'; it has calm, glad, cross"):
        compile_checkpoint(checkpoint, tmp_path / "out", backend="torchscript", precision="fp32", gate_data=gate_data)
    assert not (tmp_path / "out").exists()
