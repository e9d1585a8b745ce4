"""neuronbert.compiler.cascade: one artifact of two, whose answers are as good as those of the larger one."""

import json
import os
import shutil

import numpy as np
import pytest
from echo_files import with_echo

from neuronbert import Engine, Runner, load_artifact, make_cascade
from neuronbert.artifact.manifest import write_manifest
from neuronbert.artifact.variants import choose_variants, stages_of
from neuronbert.backends import echo, torchscript
from neuronbert.backends.base import Batch
from neuronbert.cli.tables import manifest_table
from neuronbert.engine.cascade import sureness
from neuronbert.errors import ArtifactError, BackendFailed, GateRefused, OutputError, UsageError
from neuronbert.tasks.question_answering.squad import load_squad
from neuronbert.tasks.question_answering.task import OUTPUTS
from neuronbert.tasks.samples import gate_path

LIMITS = {"min_f1_ratio": 0, "min_answer_f1": 0.6}  # echoes answer nothing right


def echo_with(folder, multiplier):
    """An echo of its own answers, whose self-test is exact."""
    artifact = with_echo(folder, multiplier=multiplier)
    (variant,) = artifact.variants
    session = echo.load(artifact.variant_folder(variant), variant, outputs=OUTPUTS, threads=1, streams=1)
    tested = np.load(folder / "selftest.npz")
    outputs = session.run(Batch(*(tested[name] for name in Batch._fields)))
    np.savez(folder / "selftest.npz", **{**tested, **outputs})
    manifest = {key: value for key, value in artifact.manifest.items() if key != "digest"}
    write_manifest(folder, {**manifest, "variants": [{**variant, "selftest_tolerance": 1e-6}]})
    return load_artifact(folder)


@pytest.fixture(scope="module")
def small(echo_artifact, tmp_path_factory):
    return echo_with(shutil.copytree(echo_artifact.folder, tmp_path_factory.mktemp("small") / "artifact"), 7001)


@pytest.fixture(scope="module")
def large(echo_artifact, tmp_path_factory):
    return echo_with(shutil.copytree(echo_artifact.folder, tmp_path_factory.mktemp("large") / "artifact"), 7919)


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
    assert f"answers where it is {said['threshold']:.1%} sure" in manifest_table(cascade)
    assert cascade.manifest["gate"]["n"] == 600


def test_no_lower_threshold_passes(small, large, tmp_path):
    """With every answer to be the large one's, or none, all or nothing is asked of it."""
    none = make_cascade(small, large, tmp_path / "none", threads=1, min_f1_ratio=0, min_answer_f1=0).variants[0][
        "cascade"
    ]
    assert none["share_of_large"] == 0
    with pytest.raises(GateRefused, match="the large model would have to be asked everything: .*token F1 against"):
        make_cascade(small, large, tmp_path / "all", threads=1, min_f1_ratio=0, min_answer_f1=1)
    assert os.listdir(tmp_path) == ["none"]


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


def test_two_that_do_not_fit_together_are_refused(cascade, small, large, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(UsageError, match="is a cascade already"):
        make_cascade(small, cascade, output)
    for key, value, said in (
        ("task", "text-classification", "is for text-classification, and .* for question-answering"),
    ):
        folder = shutil.copytree(small.folder, tmp_path / key)
        manifest = {name: each for name, each in load_artifact(folder).manifest.items() if name != "digest"}
        write_manifest(folder, {**manifest, key: value})
        with pytest.raises(UsageError, match=said):
            make_cascade(folder, large, output)
    folder = shutil.copytree(small.folder, tmp_path / "tokens")
    manifest = {name: each for name, each in load_artifact(folder).manifest.items() if name != "digest"}
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text.replace('"[unused5]"', '"[unusual5]"'), encoding="utf-8")
    write_manifest(folder, manifest)
    with pytest.raises(UsageError, match="cut text into different tokens"):
        make_cascade(folder, large, output)
    assert not output.exists()


def test_an_output_that_exists_is_refused_before_any_work(small, large, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists"):
        make_cascade(small, large, tmp_path / "out")


def test_a_name_that_no_variant_has_is_refused(small, large, tmp_path):
    with pytest.raises(ArtifactError, match="has no variant 'openvino'"):
        make_cascade(small, large, tmp_path / "out", small_variant="openvino")
