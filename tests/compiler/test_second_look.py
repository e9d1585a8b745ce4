"""Where FP32 disagrees, both sides are asked again: who changed its answer is named, and the evidence is kept."""

import json
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, Optional

import numpy as np
import pytest
from logits import logits as logits_of

from neuronbert import compile_checkpoint
from neuronbert.backends import echo
from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import Outputs
from neuronbert.backends.reference import ReferenceSession
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.compiler.gate import Gate
from neuronbert.compiler.second_look import KEPT_WINDOWS, second_look
from neuronbert.compiler.self_test import selftest_arrays
from neuronbert.engine.batches import plan_batches
from neuronbert.errors import BackendFailed, GateRefused
from neuronbert.tasks.question_answering import gate as gate_module
from neuronbert.tasks.question_answering.gate import QuestionAnsweringGate
from neuronbert.tasks.question_answering.squad import load_squad
from neuronbert.tasks.question_answering.task import OUTPUTS
from neuronbert.tasks.question_answering.windows import encode_examples
from neuronbert.tasks.samples import gate_path

PLAN = ThroughputPlan(streams=2, rows=4, tokens=2000)
VARIANT = {"name": "bag-fp32", "precision": "fp32"}
ANSWERS = ("reference", "reference_again", "variant", "variant_again", "variant_alone")


class Witness:
    """Logits that depend on the token alone; ``lies`` are the numbers of the calls that are off by ``by``."""

    precision = "fp32"
    concurrency = 1  # so that the calls come in the order of the batches

    def __init__(self, *lies: int, by: float = 10.0, always: float = 0.0):
        self._lies, self._by, self._always, self._calls = lies, by, always, 0

    def run(self, batch: Batch) -> Outputs:
        start = (batch.input_ids * 7919 % 1009 / 100).astype(np.float32)
        start[0, 0] += np.float32(self._always + (self._by if self._calls in self._lies else 0.0))
        self._calls += 1
        return logits_of(start, -start)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    """Evidence goes where the test can count it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def questions():
    return load_squad(gate_path())[:12]


@pytest.fixture(scope="module")
def tokenizer(echo_artifact):
    return Tokenizer.from_files(echo_artifact.folder)


def gate_of(questions, tokenizer, reference: Witness) -> Gate:
    examples = encode_examples(tokenizer, [(question.question, question.context) for question in questions])
    return Gate(QuestionAnsweringGate(), OUTPUTS, questions, examples, tokenizer.pad_id, reference)


def look(gate: Gate, variant: Witness, alone: Optional[Witness] = None) -> List[str]:
    @contextmanager
    def load() -> Iterator[Witness]:
        yield alone or Witness()

    return second_look(gate, VARIANT, gate.answers(variant, PLAN), variant, PLAN, load)


def evidence(text: str) -> Path:
    (path,) = re.findall(r"The evidence is in (\S+\.npz)", text)
    return Path(path)


def test_sides_that_agree_are_not_asked_again(questions, tokenizer, temporary):
    assert look(gate_of(questions, tokenizer, Witness()), Witness(0, by=1e-5)) == []
    assert list(temporary.iterdir()) == []


def test_a_variant_that_lied_once_is_named(questions, tokenizer):
    gate = gate_of(questions, tokenizer, Witness())
    with pytest.raises(GateRefused) as caught:
        look(gate, Witness(0))
    assert "1 of 14 windows, bag-fp32 changed its answer by 10, the FP32 reference did not" in caught.value.message
    assert "the same command again" in str(caught.value.hint)
    assert caught.value.exit_code == 4


def test_a_reference_that_lied_once_is_named(questions, tokenizer):
    gate = gate_of(questions, tokenizer, Witness(3))
    with pytest.raises(GateRefused, match="the FP32 reference changed its answer by 10, bag-fp32 did not"):
        look(gate, Witness())


def test_both_may_have_changed(questions, tokenizer):
    gate = gate_of(questions, tokenizer, Witness(3))
    with pytest.raises(GateRefused, match="the FP32 reference changed its answer by 10 and bag-fp32 changed") as caught:
        look(gate, Witness(0, by=5.0))
    assert "did not" not in caught.value.message


def test_a_load_that_is_wrong_for_good_is_a_change_where_another_load_is_right(questions, tokenizer):
    gate = gate_of(questions, tokenizer, Witness())
    with pytest.raises(GateRefused, match="bag-fp32 changed its answer by 7"):
        look(gate, Witness(always=7.0))


def test_a_variant_that_lies_only_when_it_is_asked_again_is_named(questions, tokenizer):
    """Its second answer differs in a window in which the first one did not."""
    gate = gate_of(questions, tokenizer, Witness())
    batches = len(plan_batches([len(row.input_ids) for row in gate.rows], PLAN))
    with pytest.raises(GateRefused, match="asked again about 2 of 14 windows, bag-fp32 changed"):
        look(gate, Witness(0, batches + 1))


@pytest.mark.parametrize("by", [7.0, float("nan"), float("inf")])
def test_two_sides_that_stay_with_what_they_said_truly_differ(questions, tokenizer, by):
    gate = gate_of(questions, tokenizer, Witness())
    (sentence,) = look(gate, Witness(always=by), alone=Lone(gate, by))
    assert "both sides said the same again of the 4 of 14 windows in which they differ" in sentence
    assert evidence(sentence).is_file()


class Lone(Witness):
    """Wrong in the same windows however they are batched: the first of each of the gate's batches."""

    def __init__(self, gate: Gate, by: float):
        super().__init__()
        with_lie, without = gate.answers(Witness(always=by), PLAN), gate.answers(Witness(), PLAN)
        self._wrong = [
            row.input_ids.tolist()
            for row, said, right in zip(gate.rows, with_lie, without)
            if not np.array_equal(said["start_logits"], right["start_logits"])
        ]
        self._wrong_by = by

    def run(self, batch: Batch) -> Outputs:
        outputs = super().run(batch)
        for number, ids in enumerate(batch.input_ids):
            tokens = int(batch.attention_mask[number].sum())
            if ids[:tokens].tolist() in self._wrong:
                outputs["start_logits"][number, 0] += np.float32(self._wrong_by)
                outputs["end_logits"][number, 0] = -outputs["start_logits"][number, 0]
        return outputs


def test_the_evidence_holds_inputs_answers_and_circumstances(questions, tokenizer):
    gate = gate_of(questions, tokenizer, Witness())
    with pytest.raises(GateRefused) as caught:
        look(gate, Witness(0))
    with np.load(evidence(caught.value.message), allow_pickle=False) as kept:
        facts = json.loads(str(kept["facts"]))
        (window,) = facts["windows"]
        assert kept[f"{window}/input_ids"].tolist() == list(gate.rows[window].input_ids)
        said = {side: kept[f"{window}/{side}/start_logits"] for side in ANSWERS}
    assert float(np.abs(said["variant"] - said["reference"]).max()) == 10.0
    for side in ("reference_again", "variant_again", "variant_alone"):
        assert np.array_equal(said[side], said["reference"])
    assert facts["variant"]["name"] == "bag-fp32"
    assert facts["machine"]["libraries"]["numpy"] == np.__version__
    assert "changed its answer by 10" in facts["verdict"]


def test_the_evidence_stays_small(tokenizer):
    questions = load_squad(gate_path())[: KEPT_WINDOWS + 10]
    gate = gate_of(questions, tokenizer, Witness())
    one_in_a_batch = PLAN._replace(rows=1)
    variant = Witness(always=3.0)
    with pytest.raises(GateRefused) as caught:
        second_look(gate, VARIANT, gate.answers(variant, one_in_a_batch), variant, one_in_a_batch, alone_right)
    with np.load(evidence(caught.value.message), allow_pickle=False) as kept:
        facts = json.loads(str(kept["facts"]))
        assert len(facts["windows"]) == len(gate.rows)
        assert len([name for name in kept.files if name.endswith("/input_ids")]) == KEPT_WINDOWS


@contextmanager
def alone_right() -> Iterator[Witness]:
    yield Witness()


def test_evidence_that_cannot_be_kept_is_said_not_raised(questions, tokenizer, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(GateRefused, match="bag-fp32 changed .* The evidence could not be kept: "):
        look(gate_of(questions, tokenizer, Witness()), Witness(0))


def test_a_reference_that_changes_its_self_test_is_refused(questions, tokenizer):
    examples = encode_examples(tokenizer, [(question.question, question.context) for question in questions])
    with pytest.raises(BackendFailed, match="answers the self-test twice, and the logits differ by 10"):
        selftest_arrays(examples, Witness(0), tokenizer.pad_id)


# ---------------------------------------------------------------------------- through compile_checkpoint


class Repeating:
    """A variant that gives the reference's logits, except in its first batch of the gate."""

    precision = "fp32"
    concurrency = 1
    loads = 0

    def __init__(self, model, lies: bool):
        self._reference, self._lies = ReferenceSession(model, OUTPUTS, threads=1), lies

    def run(self, batch: Batch) -> Outputs:
        outputs = self._reference.run(batch)
        if self._lies:
            self._lies = False
            outputs["start_logits"][0, 0] += 10
        return outputs

    def close(self) -> None:
        pass


@pytest.fixture()
def models(monkeypatch) -> list:
    """The torch models that the backend echo was asked to export: what it loads answers with them."""
    exported: list = []

    def export(source, precision, recipe, folder):
        exported.append(source.torch_model())
        return plain_export(source, precision, recipe, folder)

    plain_export = echo.export
    monkeypatch.setattr(echo, "export", export)
    return exported


@pytest.mark.parametrize("liar", ["echo-fp32", "the FP32 reference", None])
def test_compile_tells_which_side_changed(liar, models, monkeypatch, tiny_checkpoint, tmp_path):
    monkeypatch.setattr(gate_module, "MIN_QUESTIONS", 20)
    monkeypatch.setattr(gate_module, "gate_questions", lambda *_: load_squad(gate_path())[:20])
    monkeypatch.setenv("NEURONBERT_CACHE", str(tmp_path / "cache"))  # what was kept cannot lie now
    lies = [liar == "echo-fp32"]
    monkeypatch.setattr(echo, "load", lambda *_, **__: Repeating(models[-1], bool(lies and lies.pop())))
    plain, calls = ReferenceSession.run, []

    def run(self, batch):
        outputs = plain(self, batch)
        if self.concurrency > 1 and liar == "the FP32 reference":
            calls.append(batch)
            if len(calls) == 5:  # two of the self-test, then the gate's
                outputs["start_logits"][0, 0] += 10
        return outputs

    monkeypatch.setattr(ReferenceSession, "run", run)
    lines: List[str] = []
    options = {"backend": "echo", "precision": "fp32", "threads": 2, "progress": lines.append}
    if liar is None:
        compile_checkpoint(tiny_checkpoint, tmp_path / "artifact", **options)
        assert not any("asking both sides again" in line for line in lines)
        return
    with pytest.raises(GateRefused, match=f"{re.escape(liar)} changed its answer by 10") as caught:
        compile_checkpoint(tiny_checkpoint, tmp_path / "artifact", **options)
    assert evidence(caught.value.message).is_file()
    assert not (tmp_path / "artifact").exists()
