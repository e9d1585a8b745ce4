"""neuronbert.tasks.token_classification.gate: what it asks, what it measures, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from neuronbert_demo import FOLDER as DEMO

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.errors import ArtifactError, GateRefused, InputError
from neuronbert.tasks.base import GateLimits
from neuronbert.tasks.samples import calibration_path, gate_path
from neuronbert.tasks.token_classification.entity_f1 import Span
from neuronbert.tasks.token_classification.figures import agreement_text, columns
from neuronbert.tasks.token_classification.gate import Agreement, TokenClassificationGate, refusals
from neuronbert.tasks.token_classification.options import StrideOptions
from neuronbert.tasks.token_classification.task import gate
from neuronbert.tasks.token_classification.windows import encode_texts
from token_classification.tiny_taggers import LABELS, logits_of

CONFIG = {"id2label": {str(number): label for number, label in enumerate(LABELS)}}
GATE = TokenClassificationGate(LABELS)
GOOD = Agreement(n=200, max_abs_diff=1e-5, equal_labels=1.0, entity_f1=1.0, f1=90.0, reference_f1=90.0)


@pytest.fixture
def conll(tmp_path, conll_lines):
    path = tmp_path / "data.conll"
    path.write_text("\n".join(conll_lines))
    return path


# ---- what is asked


def test_without_data_the_shipped_paragraphs_are_asked():
    questions = GATE.questions(None, None, False)
    assert (len(questions.asked), len(questions.calibration), len(questions.shipped)) == (300, 200, 300)
    assert all(text.entities is None for text in questions.asked)
    assert (questions.calibration_file, questions.asked_files) == (calibration_path(), [gate_path()])
    assert GATE.inputs(questions.asked[:1]) == [questions.asked[0].text]


def test_labelled_texts_are_filled_up_with_shipped_ones(conll):
    questions = GATE.questions(conll, None, False)
    assert len(questions.asked) == 200 and questions.asked_files == [conll, gate_path()]
    labelled = [text for text in questions.asked if text.entities is not None]
    assert len(labelled) == 60 and labelled[0].entities == {Span("PER", 0, 10), Span("LOC", 22, 28)}


def test_enough_labelled_texts_need_no_others(tmp_path, conll_lines):
    path = tmp_path / "data.conll"
    path.write_text("\n".join(conll_lines * 4))
    questions = GATE.questions(path, None, False)
    assert len(questions.asked) == 240 and questions.asked_files == [path]
    assert GATE.questions(path, None, True).asked_files == []


def test_what_calibrates_is_not_asked(tmp_path):
    lines = [json.dumps({"tokens": ["jim", str(n)], "tags": ["B-PER", "I-PER"]}) for n in range(250)]
    (tmp_path / "gate.jsonl").write_text("\n".join(lines))
    (tmp_path / "calibration.jsonl").write_text("\n".join(lines[:40]))
    questions = GATE.questions(tmp_path / "gate.jsonl", tmp_path / "calibration.jsonl", False)
    assert len(questions.calibration) == 40 and len(questions.asked) == 210
    assert not {text.text for text in questions.calibration} & {text.text for text in questions.asked}
    assert all(text.entities is None for text in questions.calibration)
    (tmp_path / "calibration.jsonl").write_text("\n".join(lines[:200]))
    with pytest.raises(InputError, match="has 50 entities that calibration does not see, and the gate needs 100"):
        GATE.questions(tmp_path / "gate.jsonl", tmp_path / "calibration.jsonl", False)
    assert len(GATE.questions(tmp_path / "gate.jsonl", tmp_path / "calibration.jsonl", True).asked) == 200


def test_too_little_text_is_refused(tmp_path):
    texts = [json.dumps({"text": text.text}) for text in GATE.questions(None, None, False).shipped]
    (tmp_path / "calibration.jsonl").write_text("\n".join(texts[:150]))
    with pytest.raises(InputError, match="150 texts are left for the gate, which needs 200"):
        GATE.questions(None, tmp_path / "calibration.jsonl", False)


def test_a_label_that_the_checkpoint_lacks_is_refused(tmp_path):
    (tmp_path / "data.conll").write_text("a B-MISC\n" * 120)
    with pytest.raises(InputError, match="the checkpoint has no label 'B-MISC'; it has LABEL_0, LABEL_1"):
        gate({}).questions(tmp_path / "data.conll", None, False)


# ---- what is measured


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Two labelled texts and one without labels, and their examples, of two windows each."""
    path = tmp_path_factory.mktemp("gate") / "data.jsonl"
    texts = [{"tokens": ["Jim", "was", "nice"] * 2, "tags": ["B-PER", "O", "O"] * 2}] * 2
    path.write_text("\n".join(map(json.dumps, texts)))
    labelled = GATE.questions(path, None, True).asked[:3]
    tokenizer = Tokenizer.from_bytes(
        (DEMO / "tokenizer.json").read_bytes(), (DEMO / "tokenizer_config.json").read_bytes(), CONFIG
    )
    assert labelled[2].entities is None
    labelled[2] = labelled[2]._replace(text="Jim was nice Jim was nice")
    examples = encode_texts(tokenizer, GATE.inputs(labelled), StrideOptions(max_length=6, stride=1))
    assert [len(example.windows) for example in examples] == [2, 2, 2]
    return labelled, examples


def judged(asked, *numbers):
    labelled, examples = asked
    outputs = [row for example, own in zip(examples, numbers) for row in logits_of(example, own)]
    return GATE.judge(labelled, examples, outputs)


RIGHT = [1, 0, 0, 1, 0, 0]


def test_an_equal_session_agrees(asked):
    reference = judged(asked, RIGHT, RIGHT, RIGHT)
    agreement = GATE.compare(asked[0], judged(asked, RIGHT, RIGHT, RIGHT), reference)
    assert agreement == Agreement(3, 0.0, 1.0, 1.0, 100.0, 100.0)
    assert agreement.f1_ratio == 1.0


def test_a_different_session_does_not(asked):
    reference = judged(asked, RIGHT, [1, 0, 0, 0, 0, 0], RIGHT)
    agreement = GATE.compare(asked[0], judged(asked, RIGHT, [0] * 6, [1, 0, 0, 3, 0, 0]), reference)
    assert agreement.max_abs_diff == 6.0 and agreement.equal_labels == pytest.approx(16 / 18)
    assert agreement.entity_f1 == pytest.approx(2 * 3 / (4 + 5))  # 3 of 4 found, of the reference's 5
    assert agreement.f1 == pytest.approx(100 * 2 * 2 / (2 + 4))  # the third text has no labels
    assert agreement.reference_f1 == pytest.approx(100 * 2 * 3 / (3 + 4))
    assert agreement.f1_ratio == pytest.approx((4 / 6) / (6 / 7))


def test_without_labels_there_is_no_f1(asked):
    labelled = [text._replace(entities=None) for text in asked[0]]
    reference = judged(asked, RIGHT, RIGHT, RIGHT)
    agreement = GATE.compare(labelled, judged(asked, RIGHT, RIGHT, [0] * 6), reference)
    assert (agreement.f1, agreement.reference_f1, agreement.f1_ratio) == (None, None, None)
    assert agreement.entity_f1 == pytest.approx(2 * 4 / (4 + 6))
    assert agreement.entry()["accuracy"] is None
    assert "F1 " not in agreement_text(agreement.as_dict()).split("entity F1")[0]


def test_what_is_no_number_is_refused(asked):
    reference = judged(asked, RIGHT, RIGHT, RIGHT)
    broken = judged(asked, RIGHT, RIGHT, RIGHT)
    broken.outputs[0]["logits"][0, 0] = np.nan
    again = GATE.judge(asked[0], asked[1], broken.outputs)
    agreement = GATE.compare(asked[0], again, reference)
    assert GATE.refusals("fp32", agreement, GateLimits()) == ["its logits hold NaN or Inf"]
    assert GATE.refusals("int8", agreement, GateLimits()) == ["its logits hold NaN or Inf"]
    assert agreement.as_dict()["max_abs_diff"] is None
    json.dumps(agreement.entry(), allow_nan=False)
    assert "logits with NaN or Inf" in agreement_text(agreement.as_dict())


# ---- what is refused


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_good_variant_passes(precision):
    assert refusals(precision, GOOD) == []
    assert refusals(precision, replace(GOOD, f1=None, reference_f1=None)) == []


@pytest.mark.parametrize(
    ("precision", "changes", "reason"),
    [
        ("fp32", {"max_abs_diff": 0.002}, "its logits differ from the FP32 reference by 0.002, more than 0.001"),
        ("fp32", {"equal_labels": 0.98}, "only 98.0% of its tokens have the reference's label, less than 99%"),
        ("int8", {"f1": 89.0}, "its F1 is 89.00, 98.89% of the reference's 90.00 and less than 99.00%"),
        ("int8", {"f1": 0.0, "reference_f1": 0.0}, "the FP32 reference itself scores F1 0 on the gate's data"),
        ("int8", {"equal_labels": 0.89}, "only 89.0% of its tokens have the reference's label, less than 90.0%"),
        ("int8", {"entity_f1": 0.89}, "its entities' F1 against the reference's is 0.890, less than 0.900"),
    ],
)
def test_a_worse_one_is_refused_by_name(precision, changes, reason):
    (found,) = refusals(precision, replace(GOOD, **changes))
    assert found.startswith(reason)


def test_a_reduced_precision_may_have_other_logits():
    assert refusals("int8", replace(GOOD, max_abs_diff=3.0)) == []
    assert len(refusals("int8", replace(GOOD, f1=80.0, equal_labels=0.5, entity_f1=0.5))) == 3


def test_limits_are_the_users():
    agreement = replace(GOOD, f1=80.0, equal_labels=0.6, entity_f1=0.6)
    assert refusals("int8", agreement, GateLimits(min_f1_ratio=0.8, min_answer_f1=0.6)) == []


# ---- for a person


def test_figures_as_text():
    text = agreement_text(GOOD.as_dict())
    assert text == (
        "F1 90.00 of 90.00 in FP32, entity F1 against FP32 1.000, labels equal 100.0%, logits within 1e-05 (200 texts)"
    )
    variant = {"name": "x", **GOOD.entry()}
    assert columns(variant) == {"F1 (FP32)": "90.00 (90.00)", "labels equal": "100.0% of 200 texts"}
    unmeasured = {"name": "x", "agreement": None, "accuracy": None}
    assert set(columns(unmeasured).values()) == {"not measured"}
    with pytest.raises(ArtifactError, match="variant x: .*equal_labels"):
        columns({"name": "x", "accuracy": None, "agreement": {"n": 3}})


# ---- the whole way


@pytest.mark.slow
def test_compile_measures_a_tagger_on_labelled_text(tagger_checkpoint, tmp_path, conll):
    made = compile_checkpoint(
        tagger_checkpoint, tmp_path / "out", backend="torchscript", precision="fp32", gate_data=conll, threads=1
    )
    (variant,) = made.variants
    assert variant["agreement"]["n"] == 200 and variant["agreement"]["equal_labels"] >= 0.99
    assert variant["agreement"]["entity_f1"] >= 0.99 and variant["accuracy"]["f1_ratio"] in (None, pytest.approx(1.0))
    assert [entry["name"] for entry in made.manifest["gate"]["data"]] == ["data.conll", "gate.json"]
    assert set(columns(variant)) == {"F1 (FP32)", "labels equal"}


@pytest.mark.slow
@pytest.mark.usefixtures("short_gate")
def test_compile_refuses_what_is_no_such_model(tagger_checkpoint, tmp_path):
    """The echo backend answers at random."""
    with pytest.raises(GateRefused, match="of its tokens have the reference's label"):
        compile_checkpoint(tagger_checkpoint, tmp_path / "out", backend="echo", precision="fp32")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_int8_is_calibrated_with_text_and_judged(tagger_checkpoint: Path, tmp_path: Path, backend: str) -> None:
    pytest.importorskip(backend)
    pytest.importorskip("nncf")
    lines = "\n".join(json.dumps({"text": f"jim henson was a nice puppet {n}"}) for n in range(40))
    (tmp_path / "calibration.jsonl").write_text(lines)
    made = compile_checkpoint(
        tagger_checkpoint, tmp_path / "out", backend=backend, precision="int8", threads=1, min_answer_f1=0.3,
        calibration_data=tmp_path / "calibration.jsonl",
    )  # fmt: skip
    (variant,) = made.variants
    assert 0.3 <= variant["agreement"]["equal_labels"] <= 1 and variant["accuracy"] is None
