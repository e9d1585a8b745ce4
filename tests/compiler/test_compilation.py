"""A checkpoint becomes an artifact through the gate, or nothing at all."""

import json
import os
import warnings
from hashlib import sha256

import numpy as np
import pytest
from logits import logits as logits_of
from neuronbert_demo import FOLDER as DEMO

from neuronbert.artifact.manifest import load_artifact
from neuronbert.backends import echo, torchscript
from neuronbert.backends.base import ExportResult
from neuronbert.cli.tables import compile_report
from neuronbert.compiler import candidates, compilation, exporter
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.engine import engine, loading
from neuronbert.engine.engine import Engine
from neuronbert.errors import (
    BackendFailed,
    BackendUnavailable,
    CheckpointError,
    GateRefused,
    InputError,
    OutputError,
    UsageError,
)
from neuronbert.tasks.question_answering import gate
from neuronbert.tasks.question_answering.gate import MIN_QUESTIONS, gate_questions
from neuronbert.tasks.question_answering.squad import load_squad, squad_document
from neuronbert.tasks.samples import calibration_path, gate_path

PAIR = ("Who built the first Kermit?", "Jim Henson built the first Kermit in 1955 from his mother's old coat.")


def test_the_fastest_variant_comes_first(demo_artifact):
    speeds = {trial["name"]: np.median(trial["windows_per_s"]) for trial in demo_artifact.manifest["selection"]}
    names = [variant["name"] for variant in demo_artifact.variants]
    assert names == sorted(names, key=lambda name: -speeds[name])


def test_every_variant_answers(demo_artifact):
    for variant in demo_artifact.variants:
        with Engine(demo_artifact.folder, variant=variant["name"]) as engine:
            assert engine.answer([PAIR])[0][0]["answer"] == "Jim Henson"


def test_calibration_and_gate_share_no_paragraph():
    calibration = load_squad(calibration_path())
    gate = gate_questions(None, calibration)
    assert len(gate) >= MIN_QUESTIONS
    assert not {question.context for question in gate} & {question.context for question in calibration}


def test_given_questions_are_filled_up_to_the_minimum_and_never_calibrated(tmp_path):
    shipped = load_squad(gate_path())
    own = [
        question._replace(id=f"own-{index}", context=f"{index}: {question.context}", answers=(), answer_starts=())
        for index, question in enumerate(shipped[:30])
    ]
    (tmp_path / "own.json").write_text(json.dumps(squad_document(own, "1.1")))
    chosen = gate_questions(tmp_path / "own.json", own[:5])
    assert len(chosen) == MIN_QUESTIONS
    assert [question.id for question in chosen[:25]] == [question.id for question in own[5:]]


def test_a_variant_that_disagrees_is_refused_and_leaves_nothing(tmp_path, tiny_checkpoint):
    with pytest.raises(GateRefused, match="the gate refuses echo-fp32: its logits differ"):
        compile_checkpoint(tiny_checkpoint, tmp_path / "out", backend="echo", precision="fp32", threads=1)
    assert os.listdir(tmp_path) == []


def test_skipping_the_gate_is_recorded(echo_artifact):
    assert echo_artifact.manifest["gate"]["skipped"] is True
    assert echo_artifact.variants[0]["agreement"] is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"backend": "tensorrt"}, UsageError),
        ({"backend": "echo", "precision": "int8"}, UsageError),
        ({"calibration_data": "no-such-file.json"}, InputError),
        ({"gate_data": "no-such-file.json"}, InputError),
    ],
)
def test_bad_options_leave_nothing(tmp_path, options, error):
    with pytest.raises(error):
        compile_checkpoint("demo", tmp_path / "out", **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("threads", [-1, 0, "2", True])
def test_threads_that_cannot_be_are_refused_before_any_work(tmp_path, threads):
    lines = []
    with pytest.raises(UsageError, match="threads must be"):
        compile_checkpoint("demo", tmp_path / "out", threads=threads, progress=lines.append)
    assert lines == []


def test_limits_that_cannot_be_are_refused_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="min_f1_ratio must be"):
        compile_checkpoint("no checkpoint at all", tmp_path / "out", min_f1_ratio=float("nan"))


@pytest.fixture
def calibration_over_the_gate(tmp_path):
    """Half of the shipped gate's questions as calibration data."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(squad_document(load_squad(gate_path())[:300], "1.1")))
    return path


def test_a_gate_that_calibration_left_too_few_questions_is_refused(tmp_path, calibration_over_the_gate):
    for data, left in ((gate_path(), 0), (calibration_over_the_gate, 300)):
        with pytest.raises(InputError, match=f"^{left} questions are left for the gate, which needs {MIN_QUESTIONS}"):
            compile_checkpoint("demo", tmp_path / "out", backend="echo", precision="fp32", calibration_data=data)
    assert not (tmp_path / "out").exists()


def test_a_skipped_gate_needs_no_questions_and_the_self_test_is_the_same(tmp_path, echo_artifact):
    options = {"backend": "echo", "precision": "fp32", "skip_gate": True, "calibration_data": gate_path()}
    artifact = compile_checkpoint("demo", tmp_path / "out", **options)
    with np.load(artifact.folder / "selftest.npz") as one, np.load(echo_artifact.folder / "selftest.npz") as other:
        assert all(np.array_equal(one[name], other[name]) for name in other.files)
    assert artifact.manifest["gate"]["n"] == 0


def test_questions_that_are_also_shipped_count_once(tmp_path, calibration_over_the_gate):
    chosen = gate_questions(calibration_over_the_gate, [])
    assert len({(question.question, question.context) for question in chosen}) == len(chosen) == MIN_QUESTIONS


class Fake:
    """A real backend, torchscript, with one thing changed."""

    def __init__(self, **changes):
        self.changes = changes

    def __getattr__(self, name):
        return self.__dict__["changes"].get(name, getattr(torchscript, name))


@pytest.fixture
def compile_beside(monkeypatch, tmp_path, tiny_checkpoint):
    """Compiles with torchscript beside a changed one that is the faster of the two."""

    def compile_(explicit=False, **changes):
        pytest.importorskip("torch")
        fake = Fake(**changes)
        real = candidates.load_backend

        def load(name):
            return fake if name == "broken" else real(name)

        for module in (compilation, candidates, exporter, engine, loading):
            monkeypatch.setattr(module, "load_backend", load)
        # Few questions: random weights answer no better with more.
        monkeypatch.setattr(gate, "MIN_QUESTIONS", 20)
        monkeypatch.setattr(gate, "gate_questions", lambda *_: load_squad(gate_path())[:20])
        monkeypatch.setattr(candidates, "auto_backends", lambda: ("broken", "torchscript"))
        names = ("broken,torchscript", "fp32") if explicit else ("auto", "fp32")
        PROGRESS.clear()
        INSTANTS.clear()
        return compile_checkpoint(
            tiny_checkpoint,
            tmp_path / "out",
            backend=names[0],
            precision=names[1],
            threads=1,
            progress=PROGRESS.append,
        )

    return compile_


PROGRESS = []  # what the compilation under way has said
INSTANTS = []  # the sessions that it has loaded
EXPORTED = ExportResult(True, {}, {}, {})


class Instant:
    """A session without a model, so the first that the gate is asked about."""

    precision = "fp32"
    concurrency = 1

    def __init__(self, value=0.0, fails_when=None):
        self.value, self.fails_when = value, fails_when
        self.closed = False
        INSTANTS.append(self)

    def run(self, batch):
        if self.fails_when in PROGRESS:
            raise BackendFailed("the device is gone")
        logits = np.full(batch.input_ids.shape, self.value, np.float32)
        return logits_of(logits, logits)

    def close(self):
        self.closed = True


def loads(**options):
    return lambda folder, variant, *, outputs, threads, streams: Instant(**options)


def second_export_fails(source, precision, recipe, folder):
    if recipe["number"] == 2:
        raise BackendFailed("recipe 2 cannot be made")
    return torchscript.export(source, precision, recipe, folder)


BREAKING = {
    "in timing": (
        {"load": loads(fails_when="timing broken-fp32, torchscript-fp32 in turns")},
        "not built",
        "the device is gone",
    ),
    "in the gate": (
        {"load": loads(fails_when="broken-fp32: comparing with the reference")},
        "not built",
        "the device is gone",
    ),
    "with NaN": ({"load": loads(value=np.nan)}, "refused", "its logits hold NaN or Inf"),
    "with the second recipe": (
        {"load": loads(), "export": second_export_fails, "recipes": lambda precision: [{"number": 1}, {"number": 2}]},
        "refused",
        "; then: recipe 2 cannot be made",
    ),
}


def test_the_manifest_names_what_the_gate_asked(compile_beside):
    asked = compile_beside().manifest["gate"]
    assert asked["n"] == gate.MIN_QUESTIONS and asked["skipped"] is False
    assert asked["data"] == [{"name": "gate.json", "sha256": sha256(gate_path().read_bytes()).hexdigest()}]
    assert asked["calibration_data"]["sha256"] == sha256(calibration_path().read_bytes()).hexdigest()


@pytest.mark.parametrize("how", BREAKING)
def test_one_of_an_auto_that_breaks_leaves_the_good_one(compile_beside, how):
    changes, outcome, why = BREAKING[how]
    artifact = compile_beside(**changes)
    assert [variant["name"] for variant in artifact.variants] == ["torchscript-fp32"]
    assert os.listdir(artifact.folder / "variants") == ["torchscript-fp32"]
    broken, kept = artifact.manifest["selection"]
    assert (broken["name"], broken["outcome"], kept["outcome"]) == ("broken-fp32", outcome, "kept")
    assert why in broken["why"]
    assert compile_report(artifact)


@pytest.mark.parametrize("how", BREAKING)
def test_one_asked_for_by_name_that_breaks_leaves_nothing(compile_beside, tmp_path, how):
    changes, outcome, why = BREAKING[how]
    with pytest.raises(GateRefused if how == "with NaN" else BackendFailed, match=why.replace("; then: ", "")):
        compile_beside(explicit=True, **changes)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ending", [KeyboardInterrupt, BackendFailed])
def test_every_session_is_closed_however_it_ends(compile_beside, monkeypatch, ending):
    def ends(*_):
        raise ending("it ends here")

    monkeypatch.setattr(torchscript, "export", ends)  # the second candidate: the first one's session is open by then
    with pytest.raises(ending):
        compile_beside(explicit=True, load=loads(), export=lambda *_: EXPORTED)
    assert [one.closed for one in INSTANTS] == [True]


def test_the_sessions_of_a_good_end_are_closed_too(compile_beside):
    compile_beside(load=loads(value=np.nan))
    assert INSTANTS and all(one.closed for one in INSTANTS)


def first_export_fails(source, precision, recipe, folder):
    (folder / "half").write_text("made")
    if recipe["number"] == 1:
        raise BackendFailed("recipe 1 cannot be made")
    return torchscript.export(source, precision, recipe, folder)


def test_a_recipe_that_breaks_gives_way_to_the_next(compile_beside):
    numbers = [{"number": 1}, {"number": 2}]
    artifact = compile_beside(export=first_export_fails, recipes=lambda precision: list(numbers))
    broken = next(trial for trial in artifact.manifest["selection"] if trial["name"] == "broken-fp32")
    assert broken["outcome"] in ("kept", "slower") and broken["windows_per_s"]
    assert all(variant["recipe"] in ({}, {"number": 2}) for variant in artifact.variants)
    assert "broken-fp32: recipe 1 cannot be made; trying the next recipe" in PROGRESS


def test_tracing_says_nothing_of_transformers_own(tmp_path, tiny_checkpoint):
    pytest.importorskip("torch")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compile_checkpoint(
            tiny_checkpoint, tmp_path / "out", backend="torchscript", precision="fp32", skip_gate=True, threads=1
        )
    assert [str(one.message) for one in caught if "checkpointing" in str(one.message)] == []


def test_an_unknown_checkpoint_leaves_nothing(tmp_path):
    with pytest.raises(CheckpointError):
        compile_checkpoint(str(tmp_path / "nothing"), tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_an_output_that_exists_is_refused_before_any_work(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        compile_checkpoint("no checkpoint at all", tmp_path / "out")


def test_a_backend_that_is_not_here_is_refused_before_the_checkpoint_is_read(tmp_path, monkeypatch):
    def fail(precision):
        raise BackendUnavailable(f"echo has no {precision} here")

    monkeypatch.setattr(echo, "check_available", fail)
    with pytest.raises(BackendUnavailable, match="no fp32 here"):
        compile_checkpoint("no checkpoint at all", tmp_path / "out", backend="echo", precision="fp32")


def test_a_model_in_memory_compiles_as_its_folder_does(tmp_path, echo_artifact):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(DEMO, torch_dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO)
    artifact = compile_checkpoint(
        (model, tokenizer), tmp_path / "out", backend="echo", precision="fp32", skip_gate=True
    )
    assert artifact.manifest["checkpoint"]["parameters"] == echo_artifact.manifest["checkpoint"]["parameters"]
    assert load_artifact(artifact.folder).variants[0]["name"] == "echo-fp32"
