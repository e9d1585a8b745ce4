"""neuronbert.compiler.cascade: one artifact of two, whose answers are as good as those of the larger one."""

import json
import os
import shutil

import numpy as np
import pytest
from echo_files import with_echo
from hypothesis import given
from hypothesis import strategies as st

from neuronbert import Engine, Runner, load_artifact, make_cascade
from neuronbert.artifact.manifest import write_manifest
from neuronbert.artifact.variants import choose_variants, stages_of
from neuronbert.backends import echo, torchscript
from neuronbert.backends.base import Batch
from neuronbert.cli.tables import manifest_table
from neuronbert.compiler import cascade_gate
from neuronbert.compiler.cascade_gate import STEPS, thresholds
from neuronbert.engine.cascade import sureness
from neuronbert.errors import ArtifactChanged, ArtifactError, BackendFailed, GateRefused, OutputError, UsageError
from neuronbert.tasks.question_answering.squad import load_squad
from neuronbert.tasks.question_answering.task import OUTPUTS
from neuronbert.tasks.samples import gate_path

LIMITS = {"min_f1_ratio": 0, "min_answer_f1": 0.6}  # echoes answer nothing right


@pytest.fixture(scope="module", autouse=True)
def slow_echoes():
    """An echo may take its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(echo.FAULTS_VARIABLE, "1")
        yield


def echo_with(folder, multiplier, batch_s, *, own_self_test=False):
    """An echo of its own answers, whose self-test is exact, and may be with its variant as that of a pruned one."""
    artifact = with_echo(folder, multiplier=multiplier, batch_s=batch_s)
    (variant,) = artifact.variants
    session = echo.load(artifact.variant_folder(variant), variant, outputs=OUTPUTS, threads=1, streams=1)
    tested = np.load(folder / "selftest.npz")
    outputs = session.run(Batch(*(tested[name] for name in Batch._fields)))
    tested_in = folder
    if own_self_test:
        tested_in = artifact.variant_folder(variant)
        shutil.copy(folder / "config.json", tested_in / "config.json")
    np.savez(tested_in / "selftest.npz", **{**tested, **outputs})
    manifest = {key: value for key, value in artifact.manifest.items() if key != "digest"}
    write_manifest(folder, {**manifest, "variants": [{**variant, "selftest_tolerance": 1e-6}]})
    return load_artifact(folder)


@pytest.fixture(scope="module")
def small(echo_artifact, tmp_path_factory):
    return echo_with(
        shutil.copytree(echo_artifact.folder, tmp_path_factory.mktemp("small") / "artifact"),
        7001,
        0,
        own_self_test=True,
    )


@pytest.fixture(scope="module")
def large(echo_artifact, tmp_path_factory):
    return echo_with(shutil.copytree(echo_artifact.folder, tmp_path_factory.mktemp("large") / "artifact"), 7919, 0.02)


@pytest.fixture(scope="module")
def cascade(small, large, tmp_path_factory):
    return make_cascade(small.folder, large, tmp_path_factory.mktemp("cascade") / "out", threads=1, **LIMITS)


@pytest.fixture(scope="module")
def pairs():
    """Of one window each."""
    asked = [question for question in load_squad(gate_path())[:60] if len(question.context.split()) < 200]
    return [(question.question, question.context) for question in asked]


def test_it_answers_as_the_model_that_is_to_be_asked(cascade, small, large, pairs):
    threshold = cascade.variants[0]["cascade"]["threshold"]
    with Engine(cascade, threads=1) as both, Engine(small) as quick, Engine(large) as good:
        found = both.answer(pairs)
        rows = [example.windows[0] for example in quick.encode(pairs)]
        sure = [
            sureness({name: array[None] for name, array in each.items()}, OUTPUTS, np.ones((1, len(row.input_ids))))[0]
            for each, row in zip(quick.outputs(rows), rows)
        ]
        expected = [(quick if surely >= threshold else good).answer([pair])[0] for pair, surely in zip(pairs, sure)]
    assert found == expected
    assert {surely >= threshold for surely in sure} == {True, False}
    with Runner(cascade, workers=1) as runner:
        assert list(runner.map(pairs)) == [ranked[0] for ranked in found]


def test_the_manifest_says_what_is_asked_when_and_how_good_that_is(cascade):
    (variant,) = cascade.variants
    said = variant["cascade"]
    assert variant["name"] == "echo-fp32-cascade" and said["variant"]["name"] == "echo-fp32"
    assert 0 < said["share_of_large"] < 1 and variant["accuracy"]["answer_f1"] >= 0.6
    assert [stage["name"] for stage in stages_of(variant)] == ["echo-fp32", "echo-fp32-cascade"]
    shown = manifest_table(cascade)
    assert f"where it is less than {said['threshold']:.1%} sure" in shown and "F1 (large model)" in shown
    assert "compared with the large model, echo-fp32, whose own gate was SKIPPED" in shown
    assert cascade.manifest["gate"]["n"] == 600 and said["speedup"] > 1


def test_each_model_is_tested_by_what_its_own_reference_said(echo_artifact, small, cascade, pairs, tmp_path):
    folder = shutil.copytree(echo_artifact.folder, tmp_path / "large")
    large = echo_with(folder, 7919, 0.02, own_self_test=True)
    both = make_cascade(small, large, tmp_path / "out", threads=1, **LIMITS)
    (variant,) = both.variants
    with Engine(both, threads=1) as of_own, Engine(cascade, threads=1) as of_shared:
        assert of_own.answer(pairs[:10]) == of_shared.answer(pairs[:10])
    tested = both.variant_folder(variant) / "selftest.npz"
    arrays = dict(np.load(tested))
    np.savez(tested, **{**arrays, "start_logits": arrays["start_logits"] + 1})
    write_manifest(both.folder, {key: value for key, value in both.manifest.items() if key != "digest"})
    with pytest.raises(BackendFailed, match="echo-fp32-cascade .*fails its self-test"):
        Engine(both.folder, threads=1)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"min_f1_ratio": 0, "min_answer_f1": 0}, "the small model alone passes"),
        ({"min_f1_ratio": 0, "min_answer_f1": 1}, "asked nearly every window: .*token F1 against"),
    ],
)
def test_a_cascade_that_is_no_gain_is_refused(small, large, tmp_path, limits, said):
    with pytest.raises(GateRefused, match=said):
        make_cascade(small, large, tmp_path / "out", threads=1, **limits)
    assert os.listdir(tmp_path) == []


def test_so_is_one_that_is_slower_than_its_large_model(small, large, tmp_path):
    with pytest.raises(GateRefused, match=r"it would be 0\.\d\d times as fast as the large model alone"):
        make_cascade(large, small, tmp_path / "out", threads=1, **LIMITS)
    assert os.listdir(tmp_path) == []


@given(st.lists(st.floats(0, 1).map(lambda value: round(value, 6)), min_size=1, max_size=200))
def test_thresholds_part_the_rows_and_lie_on_none_of_them(values):
    sure = np.array(values)
    found = list(thresholds(sure))
    assert found[-1] == 0.0 and found == sorted(found, reverse=True) and len(found) <= STEPS
    shares = [float((sure < threshold).mean()) for threshold in found]
    assert shares == sorted(shares, reverse=True) and shares[-1] == 0 and max(shares) < 1
    for threshold in found[:-1]:
        above, below = sure[sure >= threshold].min(), sure[sure < threshold].max()
        assert below <= threshold <= above and below < above


@pytest.mark.parametrize("which", ["small", "large"])
def test_both_models_are_tested_at_every_load(cascade, tmp_path, which):
    folder = shutil.copytree(cascade.folder, tmp_path / "copy")
    place = folder / "variants" / "echo-fp32-cascade" / ("small" if which == "small" else "")
    path = place / echo.FILE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "multiplier": 6007}))
    with pytest.raises(ArtifactError, match="was changed"):
        load_artifact(folder)
    write_manifest(folder, {key: value for key, value in cascade.manifest.items() if key != "digest"})
    with pytest.raises(BackendFailed, match=f"variant echo-fp32{'' if which == 'small' else '-cascade'} .* self-test"):
        Engine(folder)


def test_a_program_in_front_is_loaded_only_where_it_is_asked_for(cascade, monkeypatch):
    monkeypatch.setattr(echo, "BY_NAME_ONLY", True)
    with pytest.raises(ArtifactError, match="only loaded where it is asked for"):
        choose_variants(cascade)
    assert choose_variants(cascade, "echo") == choose_variants(cascade, "echo-fp32-cascade") == cascade.variants
    monkeypatch.setattr(echo, "BY_NAME_ONLY", False)
    (variant,) = cascade.variants
    small = {**variant["cascade"]["variant"], "backend": "torchscript"}
    assert torchscript.BY_NAME_ONLY
    mixed = [{**variant, "cascade": {**variant["cascade"], "variant": small}}]
    monkeypatch.setitem(cascade.manifest, "variants", mixed)
    with pytest.raises(ArtifactError, match="only loaded where it is asked for"):
        choose_variants(cascade, "echo")


def test_what_the_small_model_needs_is_needed(cascade, monkeypatch):
    (variant,) = cascade.variants
    small = {**variant["cascade"]["variant"], "requires": {"libraries": {"openvino": ">=9999"}}}
    monkeypatch.setitem(
        cascade.manifest, "variants", [{**variant, "cascade": {**variant["cascade"], "variant": small}}]
    )
    with pytest.raises(ArtifactError, match="openvino"):
        choose_variants(cascade)


def rewritten(artifact, folder, **changes):
    """A copy whose manifest says something else."""
    shutil.copytree(artifact.folder, folder)
    manifest = {key: value for key, value in artifact.manifest.items() if key != "digest"}
    write_manifest(folder, {**manifest, **changes})
    return folder


def test_a_cascade_in_a_cascade_is_refused(cascade, tmp_path):
    """Nobody would ask whether the third model may be loaded."""
    (variant,) = cascade.variants
    inner = {**variant["cascade"]["variant"], "cascade": variant["cascade"]}
    nested = {**variant, "cascade": {**variant["cascade"], "variant": inner}}
    with pytest.raises(ArtifactError, match="is a cascade of a cascade"):
        load_artifact(rewritten(cascade, tmp_path / "nested", variants=[nested]))


@pytest.mark.parametrize("threshold", [-0.1, 1.1, "0.5", None, True])
def test_a_threshold_that_is_none_is_refused(cascade, tmp_path, threshold):
    (variant,) = cascade.variants
    odd = {**variant, "cascade": {**variant["cascade"], "threshold": threshold}}
    with pytest.raises(ArtifactError, match="threshold"):
        load_artifact(rewritten(cascade, tmp_path / "odd", variants=[odd]))


def test_two_that_do_not_fit_together_are_refused(cascade, small, large, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(UsageError, match="is a cascade already"):
        make_cascade(small, cascade, output)
    with pytest.raises(UsageError, match="is for text-classification, and .* for question-answering"):
        make_cascade(rewritten(small, tmp_path / "task", task="text-classification"), large, output)
    folder = shutil.copytree(small.folder, tmp_path / "tokens")
    settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    write_manifest(folder, {key: value for key, value in small.manifest.items() if key != "digest"})
    with pytest.raises(UsageError, match="make different rows of a text"):
        make_cascade(folder, large, output)
    short = shutil.copytree(small.folder, tmp_path / "short")
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 128}))
    write_manifest(short, {key: value for key, value in small.manifest.items() if key != "digest"})
    with pytest.raises(UsageError, match="has 128 positions, and .* 512"):
        make_cascade(short, large, output)
    assert not output.exists()


def test_a_program_in_front_of_another_backend_is_refused(small, large, tmp_path):
    (variant,) = small.variants
    program = rewritten(small, tmp_path / "program", variants=[{**variant, "backend": "torchscript"}])
    with pytest.raises(UsageError, match="is a torchscript program, .* and the cascade's would be echo"):
        make_cascade(program, large, tmp_path / "out", small_variant="torchscript")


@pytest.mark.parametrize("inside", ["small", "large"])
def test_an_output_inside_one_of_the_two_is_refused(small, large, tmp_path, inside):
    folders = {"small": small.folder, "large": large.folder}
    folders[inside] = shutil.copytree(folders[inside], tmp_path / inside)
    with pytest.raises(OutputError, match="would be written into the artifact"):
        make_cascade(folders["small"], folders["large"], folders[inside] / "out")
    load_artifact(folders[inside])


def test_files_that_change_while_it_is_made_are_refused(small, large, tmp_path, monkeypatch):
    folder = shutil.copytree(small.folder, tmp_path / "small")
    choose = cascade_gate.CascadeGate.choose

    def then_change(self, *readings):
        path = folder / "variants" / "echo-fp32" / echo.FILE_NAME
        path.write_text(path.read_text().replace("7001", "7002"))
        return choose(self, *readings)

    monkeypatch.setattr(cascade_gate.CascadeGate, "choose", then_change)
    with pytest.raises(ArtifactChanged, match="echo.json changed meanwhile"):
        make_cascade(folder, large, tmp_path / "out", threads=1, **LIMITS)
    assert os.listdir(tmp_path) == ["small"]


def test_a_model_that_gives_no_numbers_is_refused(small, large, tmp_path, monkeypatch):
    monkeypatch.setattr(cascade_gate, "all_finite", lambda outputs: False)
    with pytest.raises(GateRefused, match="its logits hold NaN or Inf"):
        make_cascade(small, large, tmp_path / "out", threads=1)


def test_an_output_that_exists_is_refused_before_any_work(small, large, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists"):
        make_cascade(small, large, tmp_path / "out")


def test_a_name_that_no_variant_has_is_refused(small, large, tmp_path):
    with pytest.raises(ArtifactError, match="has no variant 'openvino'"):
        make_cascade(small, large, tmp_path / "out", small_variant="openvino")
