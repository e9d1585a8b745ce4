"""The ladder takes a rung for being faster and as accurate as asked for, and nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest
from tiny_checkpoints import write_checkpoint

from neuronbert.artifact.manifest import Artifact, load_artifact
from neuronbert.cli.tables import compile_report, manifest_table
from neuronbert.compiler import ladder, timing
from neuronbert.compiler.candidates import Candidate
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.compiler.ladder import Gain, climb, rung_limits
from neuronbert.engine.engine import Engine
from neuronbert.errors import UsageError
from neuronbert.tasks.base import GateLimits
from neuronbert.tasks.question_answering import gate
from neuronbert.tasks.question_answering.squad import load_squad, squad_document
from neuronbert.tasks.samples import calibration_path, gate_path

NAME = "torchscript-fp32"


@pytest.mark.parametrize(
    ("bar", "most", "asked"),
    [
        (35, 100, [10, 20, 30, 40, 35]),
        (100, 95, [10, 20, 30, 40, 50, 60, 70, 80, 90]),
        (100, 37, [10, 20, 30, 37]),
        (0, 100, [10, 5]),
        (7, 100, [10, 5]),
        (50, 4, [4]),
        (1, 4, [4, 2]),
        (0, 1, [1]),
        (50, 0, []),
    ],
)
def test_it_climbs_until_one_is_refused_and_then_looks_halfway(bar: int, most: int, asked: List[int]) -> None:
    seen: List[int] = []

    def passes(percent: int) -> bool:
        seen.append(percent)
        return percent <= bar

    climb(passes, most)
    assert seen == asked


def test_where_accuracy_is_measured_only_that_counts_unless_more_is_asked_for() -> None:
    limits = GateLimits(0.98, 0.9)
    assert rung_limits(limits, {}, known=50) == GateLimits(0.98, 0.0)
    for too_few in (0, 49):
        assert rung_limits(limits, {}, known=too_few) == GateLimits(0.98, 0.98)
    assert rung_limits(GateLimits(0.5, 0.9), {}, known=0) == GateLimits(0.5, 0.9)
    assert rung_limits(limits, {"min_answer_f1": 0.9}, known=1000) == limits


def test_a_gain_is_one_of_every_round() -> None:
    assert Gain.of([2.0, 3.0, 8.0], [1.0, 2.0, 4.0]) == (2.0, True)
    assert Gain.of([0.9, 3.0, 8.0], [1.0, 2.0, 4.0]) == (1.5, False)
    assert Gain.of([0.9, 0.8, 8.0], [1.0, 1.0, 4.0]) == (0.9, False)
    assert Gain(1.03, True).is_clear and not Gain(1.02, True).is_clear and not Gain(1.5, False).is_clear
    assert Gain(1.5, False).over("whole") == "1.50 times as fast as whole, but not in every round"
    assert Gain(0.9, False).over("whole") == "0.90 times as fast as whole"


def test_the_names_of_rungs_say_what_they_are() -> None:
    rung = Candidate("torchscript", "fp32", False, percent_removed=20)
    assert rung.name == "torchscript-fp32-pruned-20" and not rung.is_exact
    assert Candidate("torchscript", "fp32", False).is_exact
    student = Candidate("torchscript", "fp32", False, is_student=True)
    assert student.name == "torchscript-fp32-student" and not student.is_exact
    assert student._replace(percent_removed=10).name == "torchscript-fp32-student-pruned-10"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimize_for": "speed"}, "optimize_for must be one of exactness, throughput, not 'speed'"),
        ({"backend": "neuron"}, "not for neuron"),
        ({"backend": "openvino,tvm"}, r"not for tvm\n"),
        ({"backend": "cuda"}, "not for cuda"),
        ({"backend": "torchscript", "skip_gate": True}, "the gate is skipped"),
        ({"backend": "torchscript", "optimize_for": "exactness", "student": "demo"}, "--student is a model to take"),
    ],
)
def test_where_it_cannot_be_walked_nothing_is_begun(tmp_path: Path, options: Dict[str, Any], words: str) -> None:
    lines: List[str] = []
    options = {"optimize_for": "throughput", **options}
    with pytest.raises(UsageError, match=words) as raised:
        compile_checkpoint("no checkpoint", tmp_path / "out", precision="auto", progress=lines.append, **options)
    assert raised.value.hint and lines == []


@pytest.fixture
def walk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_checkpoint: Path) -> Callable[..., Artifact]:
    """Compiles a tiny checkpoint for throughput, with speeds and accuracies as told."""
    pytest.importorskip("torch")
    questions = load_squad(gate_path())[:20]
    monkeypatch.setattr(gate, "MIN_QUESTIONS", 20)
    monkeypatch.setattr(ladder, "MOST_PERCENT", 30)  # each rung takes a second
    monkeypatch.setattr(gate, "gate_questions", lambda *_: questions)
    (tmp_path / "calibration.json").write_text(json.dumps(squad_document(load_squad(calibration_path())[:12], "1.1")))

    def compile_(speed: Callable[[int], float], student_gain: float = 1.0, **options: Any) -> Artifact:
        def timed(trials: Any, *_: Any, **__: Any) -> None:
            for trial in trials:
                gain = student_gain if trial.candidate.is_student else 1.0
                trial.windows_per_s = [gain * speed(trial.candidate.percent_removed)] * 3

        timer = speed if speed is timing.time_trials or speed.__name__ == "fails_to_time" else timed
        monkeypatch.setattr(ladder, "time_trials", timer)
        LINES.clear()
        return compile_checkpoint(
            tiny_checkpoint, tmp_path / "out", backend="torchscript", precision="fp32", optimize_for="throughput",
            calibration_data=tmp_path / "calibration.json", threads=1, progress=LINES.append, **options,
        )  # fmt: skip

    return compile_


LINES: List[str] = []  # what the compilation under way has said
ANYTHING = {"min_f1_ratio": 0.0}


def outcomes(artifact: Artifact) -> Dict[str, str]:
    return {trial["name"].replace(f"{NAME}-pruned-", ""): trial["outcome"] for trial in artifact.manifest["selection"]}


def test_the_highest_rung_that_is_faster_is_kept_alone(walk: Callable[..., Artifact]) -> None:
    artifact = walk(lambda percent: 100.0 + percent, **ANYTHING)
    told = outcomes(artifact)
    assert told.pop("30") == "kept" and set(told.values()) == {"slower"} and set(told) == {NAME, "10", "20"}
    (variant,) = artifact.variants
    assert variant["name"] == f"{NAME}-pruned-30"
    recipe = variant["recipe"]["pruned"]
    assert 0.3 <= recipe["share_removed"] < 0.7 and len(recipe["heads"]) == len(recipe["columns"]) == 2
    assert [path.name for path in (artifact.folder / "variants").iterdir()] == [variant["name"]]
    assert any(line.startswith("rung 30 % of the encoder removed: F1 ") for line in LINES)
    assert f"{NAME}-pruned-30 kept" in compile_report(artifact)
    assert f"lacks {recipe['share_removed']:.0%} of the encoder's multiply-adds" in manifest_table(
        load_artifact(artifact.folder)
    )
    with Engine(artifact.folder, variant=variant["name"], threads=1) as engine:
        assert engine.answer([("who was the puppet", "jim henson was a nice puppet")])


def test_a_rung_that_is_no_faster_is_passed_over(walk: Callable[..., Artifact]) -> None:
    speeds = {0: 100.0, 10: 102.0, 20: 140.0, 30: 143.0}
    artifact = walk(lambda percent: speeds[percent], **ANYTHING)
    assert outcomes(artifact) == {NAME: "slower", "10": "slower", "20": "kept", "30": "slower"}
    kept, passed_over = (
        next(trial for trial in artifact.manifest["selection"] if trial["name"].endswith(end)) for end in ("-20", "-30")
    )
    assert "1.40 times as fast as torchscript-fp32" in kept["why"]
    assert "1.02 times as fast as torchscript-fp32-pruned-20" in passed_over["why"]
    assert kept["agreement"]["n"] == 20 and kept["windows_per_s"] == [140.0] * 3


def test_where_no_rung_passes_the_result_is_what_it_was(walk: Callable[..., Artifact]) -> None:
    artifact = walk(lambda percent: 100.0 + percent, min_answer_f1=1.0, min_f1_ratio=1.0)
    assert outcomes(artifact) == {NAME: "kept", "10": "refused"}  # of 5 % as much is left here as of 10 %
    (variant,) = artifact.variants
    assert variant["name"] == NAME and "pruned" not in variant["recipe"]
    assert [path.name for path in (artifact.folder / "variants").iterdir()] == [NAME]
    assert all(trial["why"] for trial in artifact.manifest["selection"])


def test_a_rung_that_cannot_be_built_leaves_the_one_below(
    walk: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuronbert.backends import torchscript
    from neuronbert.errors import BackendFailed

    export = torchscript.export

    def fails(source: Any, precision: str, recipe: Any, folder: Path) -> Any:
        if folder.name.endswith("-20"):
            raise BackendFailed("no room for it")
        return export(source, precision, recipe, folder)

    monkeypatch.setattr(torchscript, "export", fails)
    artifact = walk(lambda percent: 100.0 + percent, **ANYTHING)
    assert outcomes(artifact) == {NAME: "slower", "10": "slower", "20": "not built", "15": "kept"}
    assert any("rung 20 % of the encoder removed: not built: no room for it" in line for line in LINES)


def test_without_being_asked_nothing_is_removed(tmp_path: Path, tiny_checkpoint: Path) -> None:
    pytest.importorskip("torch")
    artifact = compile_checkpoint(
        tiny_checkpoint, tmp_path / "out", backend="torchscript", precision="fp32", skip_gate=True, threads=1
    )
    assert outcomes(artifact) == {NAME: "kept"}


@pytest.fixture(scope="module")
def tiny_student(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """The tiny checkpoint with the first of its layers alone."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("student") / "one-layer"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    weights = load_file(str(folder / "model.safetensors"))
    kept = {name: torch.clone(tensor) for name, tensor in weights.items() if ".layer.1." not in name}
    assert len(kept) < len(weights)
    save_file(kept, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def test_a_student_is_taken_and_then_itself_made_smaller(walk: Callable[..., Artifact], tiny_student: Path) -> None:
    artifact = walk(lambda percent: 100.0 + percent, student_gain=2.0, student=tiny_student, **ANYTHING)
    told = outcomes(artifact)
    kept = max(told, key=lambda name: told[name] == "kept")
    assert told[NAME] == told[f"{NAME}-student"] == "slower" and kept.startswith(f"{NAME}-student-pruned-")
    (variant,) = artifact.variants
    assert variant["name"] == kept
    student = variant["recipe"]["student"]["checkpoint"]
    assert student["source"] == str(tiny_student)
    assert student["encoder_parameters"] * 2 == artifact.manifest["checkpoint"]["encoder_parameters"]
    assert len(variant["recipe"]["pruned"]["heads"]) == 1  # of the student's one layer
    assert any(line.startswith("the student: F1 ") and "2.00 times as fast" in line for line in LINES)
    told_of = f"{kept} is of {tiny_student} ({student['architecture']}), {student['parameters']:,} parameters"
    assert told_of in manifest_table(load_artifact(artifact.folder))
    tested = np.load(artifact.variant_folder(variant) / "selftest.npz")
    whole = np.load(artifact.folder / "selftest.npz")
    assert np.array_equal(tested["input_ids"], whole["input_ids"])
    allowed, spread = (
        variant["selftest_tolerance"],
        min(np.ptp(tested[name]) for name in ("start_logits", "end_logits")),
    )
    assert allowed < 0.051 * spread < np.abs(tested["start_logits"] - whole["start_logits"]).max()
    with Engine(artifact.folder, variant=kept, threads=1) as engine:
        assert engine.answer([("who was the puppet", "jim henson was a nice puppet")])


def test_where_the_student_is_refused_the_checkpoint_itself_is_made_smaller(
    walk: Callable[..., Artifact], tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = ladder.Selection.passes

    def passes_unless_student(self: Any, trial: Any) -> bool:
        result = passes(self, trial)
        if trial.candidate.is_student:
            trial.outcome, trial.why = "refused", "it is wrong"
        return result and not trial.candidate.is_student

    monkeypatch.setattr(ladder.Selection, "passes", passes_unless_student)
    artifact = walk(lambda percent: 100.0 + percent, student_gain=2.0, student=tiny_student, **ANYTHING)
    assert outcomes(artifact) == {
        NAME: "slower",
        f"{NAME}-student": "refused",
        "10": "slower",
        "20": "slower",
        "30": "kept",
    }
    (variant,) = artifact.variants
    assert "student" not in variant["recipe"] and len(variant["recipe"]["pruned"]["heads"]) == 2
    assert any(line.startswith("the student: ") and line.endswith("refused: it is wrong") for line in LINES)


def test_a_student_that_cannot_be_built_costs_no_compile(
    walk: Callable[..., Artifact], tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuronbert.backends import torchscript

    export = torchscript.export

    def fails(source: Any, precision: str, recipe: Any, folder: Path) -> Any:
        if folder.name.endswith("-student"):
            raise OSError(28, "No space left")
        return export(source, precision, recipe, folder)

    monkeypatch.setattr(torchscript, "export", fails)
    artifact = walk(lambda percent: 100.0 + percent, student=tiny_student, **ANYTHING)
    assert outcomes(artifact)[f"{NAME}-student"] == "not built" and outcomes(artifact)["30"] == "kept"
    assert any(line.startswith("the student: not built: ") and "No space left" in line for line in LINES)


def test_a_student_that_cannot_stand_in_is_refused_before_anything_is_compiled(
    walk: Callable[..., Artifact], tmp_path: Path
) -> None:
    other = write_checkpoint(tmp_path / "other", "bert", more_words=["another"])
    with pytest.raises(UsageError, match="make different rows of a text"):
        walk(lambda percent: 100.0, student=other)
    assert LINES == ["reading the checkpoint"] and not (tmp_path / "out").exists()


def test_a_student_of_another_family_is_loaded_as_it_was_compiled(
    walk: Callable[..., Artifact], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    words = (tiny_checkpoint / "vocab.txt").read_text(encoding="utf-8").split("\n")
    student = write_checkpoint(
        tmp_path / "student", "distilbert", more_words=words[:-1], n_layers=1, max_position_embeddings=512
    )
    artifact = walk(lambda percent: 100.0 - percent, student_gain=2.0, student=student, **ANYTHING)
    assert [variant["name"] for variant in artifact.variants] == [f"{NAME}-student"]
    with Engine(artifact.folder, variant=f"{NAME}-student", threads=1) as engine:
        assert engine.answer([("who was the puppet", "jim henson was a nice puppet")])


FAULTS = [np.linalg.LinAlgError("Singular matrix"), MemoryError(), OSError(28, "No space left"), ZeroDivisionError("x")]


@pytest.mark.parametrize("where", ["Pruner", "Pruner.source", "time_trials", "torchscript.export"])
def test_a_fault_in_pruning_costs_no_compile(
    walk: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from neuronbert.backends import torchscript

    export, faults = torchscript.export, iter(FAULTS)

    def breaks(*_: Any, **__: Any) -> Any:
        raise next(faults)

    def breaks_of_a_rung(source: Any, precision: str, recipe: Any, folder: Path) -> Any:
        return breaks() if "-pruned-" in folder.name else export(source, precision, recipe, folder)

    def fails_to_time(trials: Any, *_: Any, **__: Any) -> None:
        trials[0].windows_per_s = [1.0]
        breaks()

    if where == "Pruner":
        monkeypatch.setattr(ladder, "Pruner", breaks)
    elif where == "Pruner.source":
        monkeypatch.setattr(ladder.Pruner, "source", breaks)
    elif where == "torchscript.export":
        monkeypatch.setattr(torchscript, "export", breaks_of_a_rung)
    artifact = walk(fails_to_time if where == "time_trials" else lambda percent: 1.0, **ANYTHING)
    told = outcomes(artifact)
    assert told.pop(NAME) == "kept" and set(told.values()) == {"not built"}
    assert [variant["name"] for variant in artifact.variants] == [NAME]
    assert any("not built: " in line and "Singular matrix" in line for line in LINES)
    (own,) = (trial for trial in artifact.manifest["selection"] if trial["name"] == NAME)
    assert own["windows_per_s"] != [1.0]


def test_what_is_left_alike_is_tried_once_and_rungs_are_really_timed(
    walk: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder.Pruner, "left", lambda self, percent: "the same")
    artifact = walk(timing.time_trials, **ANYTHING)
    assert set(outcomes(artifact)) == {NAME, "10"}
    assert len([line for line in LINES if "what is left is as of another rung" in line]) == 2
    assert all(len(trial["windows_per_s"]) == timing.ROUNDS for trial in artifact.manifest["selection"])
