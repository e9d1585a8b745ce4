"""An artifact vouches for every byte of itself, and refuses what is not as it was written."""

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.artifact import manifest as module
from neuronbert.artifact.manifest import MANIFEST_NAME, Artifact, load_artifact, refuse_unsafe_paths
from neuronbert.artifact.manifest_schema import VARIANT_NAME
from neuronbert.artifact.variants import choose_variants
from neuronbert.errors import ArtifactError
from neuronbert.hardware.requirements import unmet_requirements

RELEASED = sorted((Path(__file__).parents[1] / "data" / "artifacts").glob("schema-*"))


def rewrite(folder: Path, change) -> None:
    """Change the manifest and give it a digest that fits, as a program would."""
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    change(manifest)
    manifest["digest"] = module.NO_DIGEST
    raw = json.dumps(manifest).encode()
    (folder / MANIFEST_NAME).write_bytes(
        raw.replace(module.NO_DIGEST.encode(), module.hashlib.sha256(raw).hexdigest().encode())
    )


def test_a_loaded_artifact_lists_its_files(echo_artifact):
    manifest = load_artifact(echo_artifact.folder).manifest
    assert set(manifest["files"]) >= {"config.json", "tokenizer.json", "tokenizer_config.json", "selftest.npz"}
    assert list(manifest["variants"][0]["files"]) == ["variants/echo-fp32/echo.json"]


def test_manifest_has_the_keys_of_the_design(echo_artifact):
    manifest = echo_artifact.manifest
    assert set(manifest) >= {
        "schema_version",
        "neuronbert_version",
        "created_at",
        "checkpoint",
        "task",
        "variants",
        "files",
        "environment",
    }
    assert set(manifest["checkpoint"]) == {
        "source",
        "revision",
        "fingerprint",
        "architecture",
        "parameters",
        "encoder_parameters",
    }
    assert set(manifest["variants"][0]) >= {
        "name", "backend", "precision", "batch_size", "sequence_length", "pipeline_cores", "compiler_args", "emulated",
        "percent_compiled", "agreement", "accuracy", "compile_s", "versions", "files", "requires", "batch_invariant",
    }  # fmt: skip


def every_file(folder: Path):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_flipped_byte_in_any_file_is_refused_by_name(echo_copy):
    for name in every_file(echo_copy):
        path = echo_copy / name
        raw = path.read_bytes()
        for place in {0, len(raw) // 2, len(raw) - 1}:
            path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
            with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
                load_artifact(echo_copy)
        path.write_bytes(raw)
    load_artifact(echo_copy)


@given(data=st.data())
def test_any_flipped_bit_of_the_manifest_is_refused(echo_artifact, data):
    raw = (echo_artifact.folder / MANIFEST_NAME).read_bytes()
    place = data.draw(st.integers(0, len(raw) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = raw[:place] + bytes([raw[place] ^ (1 << bit)]) + raw[place + 1 :]
    with pytest.raises(ArtifactError):
        _read(changed)


def _read(raw: bytes):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, MANIFEST_NAME).write_bytes(raw)
        return module.read_manifest(Path(folder))


def test_a_truncated_manifest_is_refused(echo_copy):
    path = echo_copy / MANIFEST_NAME
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="truncated or damaged"):
        load_artifact(echo_copy)


def test_an_added_file_is_refused_by_name(echo_copy):
    (echo_copy / "variants" / "extra.bin").write_bytes(b"x")
    with pytest.raises(ArtifactError, match="variants/extra.bin is not listed"):
        load_artifact(echo_copy)


def test_a_removed_file_is_refused_by_name(echo_copy):
    (echo_copy / "tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match="tokenizer.json is missing"):
        load_artifact(echo_copy)


@pytest.mark.parametrize("name", ["config.json", MANIFEST_NAME, "variants/echo-fp32/echo.json"])
def test_a_symlink_is_refused_even_to_the_same_bytes(echo_copy, echo_artifact, name):
    (echo_copy / name).unlink()
    (echo_copy / name).symlink_to(echo_artifact.folder / name)
    with pytest.raises(ArtifactError, match="symbolic link"):
        load_artifact(echo_copy)


def test_a_symlinked_folder_is_refused(echo_copy, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (echo_copy / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="more is a symbolic link"):
        load_artifact(echo_copy)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "variants/../../x", "a//b", "", ".", "a\\b"])
def test_a_listed_path_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(ArtifactError, match="may lead out"):
        refuse_unsafe_paths(tmp_path, {name: "0" * 64})


def test_a_newer_schema_names_the_version_that_reads_it(echo_copy):
    rewrite(echo_copy, lambda manifest: manifest.update(schema_version=99, neuronbert_version="7.1.0"))
    with pytest.raises(ArtifactError, match=r"schema version 99(.|\n)*neuronbert>=7\.1\.0"):
        load_artifact(echo_copy)


def test_a_newer_schema_by_an_unknown_writer_is_still_a_command(echo_copy):
    rewrite(echo_copy, lambda manifest: manifest.update(schema_version=99, neuronbert_version=None))
    with pytest.raises(ArtifactError, match="pip install --upgrade neuronbert,"):
        load_artifact(echo_copy)


@pytest.mark.parametrize("writer", ["1" * 1_000_000 + "!", "1." * 500_000 + "!", "1" * 1_000_000])
def test_a_newer_schema_by_a_writer_of_a_million_characters_is_refused_at_once(echo_copy, writer):
    """Matching it against a version took time with the square of its length: days."""
    rewrite(echo_copy, lambda manifest: manifest.update(schema_version=99, neuronbert_version=writer))
    with pytest.raises(ArtifactError, match="pip install --upgrade neuronbert,"):
        load_artifact(echo_copy)


@pytest.mark.parametrize(
    "more", [{"schema_version": "x" * 1_000_000}, {"task": "x" * 1_000_000}, {"files": {"/x" * 500_000: "0" * 64}}]
)
def test_what_is_wrong_is_shown_briefly(echo_copy, more):
    rewrite(echo_copy, lambda manifest: manifest.update(more))
    with pytest.raises(ArtifactError) as caught:
        load_artifact(echo_copy)
    assert len(str(caught.value)) < 1000


def test_a_damaged_schema_number_does_not_read_as_a_newer_schema(echo_copy):
    path = echo_copy / MANIFEST_NAME
    written = f'"schema_version": {module.SCHEMA_VERSION}'.encode()
    path.write_bytes(path.read_bytes().replace(written, b'"schema_version": 9', 1))
    with pytest.raises(ArtifactError, match="does not match its own digest"):
        load_artifact(echo_copy)


def test_true_is_no_schema_version(echo_copy):
    rewrite(echo_copy, lambda manifest: manifest.update(schema_version=True))
    with pytest.raises(ArtifactError, match="has the schema version True"):
        load_artifact(echo_copy)


def nested(levels: int):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


SHAPED = {"batch_size": 1, "sequence_length": 128, "pipeline_cores": 1}
RECIPE = {"inputs": [], "instance_type": "inf1.xlarge", "mode": "data-parallel", "pipeline": None,
          "refused_pipeline_cores": [], "auto_cast": "matmult", "auto_cast_type": None,
          "compiler_timeout_s": None}  # fmt: skip


ON_CORES, ON_CPU = {**SHAPED, "backend": "neuron"}, {**SHAPED, "pipeline_cores": None}


def first_variant(**changes):
    return lambda manifest: manifest["variants"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first_variant(name="../../evil"), r"variants\[0\].name is '\.\./\.\./evil', and must be of the form"),
        (first_variant(name=".."), r"variants\[0\].name is '\.\.', and must be"),
        (first_variant(name="echo\n"), r"variants\[0\].name is 'echo\\n', and must be"),
        (first_variant(name=["echo"]), r"variants\[0\].name is \['echo'\], and must be text"),
        (first_variant(name="other"), "variant other lists 'variants/echo-fp32/echo.json'"),
        (first_variant(files={"config.json": "1" * 64}), "variant echo-fp32 lists 'config.json'"),
        (first_variant(files=["config.json"]), r"variants\[0\].files is \['config.json'\], and must be an object"),
        (first_variant(files={"a": "1"}), r"variants\[0\].files.a is '1', and must be of the form"),
        (first_variant(selftest_tolerance="0.1"), "selftest_tolerance is '0.1', and must be a number"),
        (first_variant(selftest_tolerance=True), "selftest_tolerance is True, and must be a number"),
        (first_variant(selftest_tolerance=-1), "selftest_tolerance is -1, and must be at least 0"),
        (first_variant(selftest_tolerance=10**39), "selftest_tolerance is 1000.*, and must be at most"),
        (first_variant(selftest_tolerance=float("nan")), "neuronbert.json is no JSON .*NaN"),
        (first_variant(selftest_tolerance=float("inf")), "neuronbert.json is no JSON .*Infinity"),
        (first_variant(requires="x"), r"variants\[0\].requires is 'x', and must be an object"),
        (first_variant(requires={"cpu_flags": "avx2"}), "requires.cpu_flags is 'avx2', and must be a list"),
        (first_variant(requires={"cpu_flags": [5]}), r"requires.cpu_flags\[0\] is 5, and must be text"),
        (first_variant(requires={"libraries": ["numpy"]}), "requires.libraries is .*, and must be an object"),
        (first_variant(requires={"libraries": {"numpy": "new"}}), "requires.libraries.numpy is 'new', and must be"),
        (first_variant(requires={"libraries": {"numpy": ">=" + "9" * 9999}}), "requires.libraries.numpy is '>=999"),
        (first_variant(requires={"device": ["cpu"]}), r"requires.device is \['cpu'\], and must be text"),
        (first_variant(requires={"compute_capability": "8"}), "requires.compute_capability is '8', and must be of"),
        (first_variant(precision="../../evil"), r"precision is '\.\./\.\./evil', and must be of the form"),
        (first_variant(**SHAPED), "variant echo-fp32: pipeline_cores is 1, and echo runs on no NeuronCores"),
        (first_variant(**ON_CORES, recipe={}), "variant echo-fp32: recipe lacks .*auto_cast, .*compiler_timeout_s"),
        (first_variant(**ON_CORES, recipe=RECIPE, compile_s="1"), "variant echo-fp32: compile_s is '1', and must be"),
        (first_variant(**ON_CPU, recipe={"inputs": []}), "variant echo-fp32: recipe lacks tuning_minutes, threads"),
        (first_variant(backend="a\n  try: b"), r"backend is 'a\\n  try: b', and must be of the form"),
        (first_variant(requires={"cpu_flags": ["a\nb"]}), r"cpu_flags\[0\] is 'a\\nb', and must be of the form"),
        (first_variant(requires={"libraries": {"a\nb": ">=1"}}), "requires.libraries is .*, and must be without other"),
        (first_variant(backend=[1]), r"variants\[0\].backend is \[1\], and must be text"),
        (first_variant(sequence_length="128"), "sequence_length is '128', and must be a whole number or null"),
        (first_variant(sequence_length=128.0), "sequence_length is 128.0, and must be a whole number or null"),
        (first_variant(batch_size=0), "batch_size is 0, and must be at least 1"),
        (first_variant(batch_size=10**30), "batch_size is 10000.*, and must be at most 65,536"),
        (first_variant(versions=None), "versions is None, and must be an object"),
        (first_variant(recipe={"padding": {"multiple": 0, "limit": 1, "pad_id": 0}}), "multiple is 0, and must be"),
        (first_variant(recipe={"padding": {}}), "recipe.padding lacks multiple, limit, pad_id"),
        (first_variant(emulated="no\x1b[2J"), r"emulated is 'no\\x1b\[2J', and must be true or false"),
        (lambda manifest: manifest["variants"][0].pop("requires"), r"variants\[0\] lacks requires"),
        (lambda manifest: manifest["variants"][0].pop("sequence_length"), r"variants\[0\] lacks sequence_length"),
        (lambda manifest: manifest["variants"].append(manifest["variants"][0]), "two variants called 'echo-fp32'"),
        (lambda manifest: manifest.update(variants=["x"]), r"variants\[0\] is 'x', and must be an object"),
        (lambda manifest: manifest.update(files=None), "files is None, and must be an object"),
        (lambda manifest: manifest.update(checkpoint="demo"), "checkpoint is 'demo', and must be an object"),
        (lambda manifest: manifest["checkpoint"].update(parameters="1"), "checkpoint.parameters is '1', and must be"),
        (lambda manifest: manifest.update(gate=[]), r"gate is \[\], and must be an object"),
        (lambda manifest: manifest.update(environment="x"), "environment is 'x', and must be an object"),
        (lambda manifest: manifest["environment"].update(gpus=[{}]), r"environment.gpus\[0\] lacks name, compute"),
        (lambda manifest: manifest["environment"].pop("gpus"), None),  # as before GPUs were recorded
        (lambda manifest: manifest.update(extra=nested(60)), None),
        (lambda manifest: manifest.update(extra=nested(64)), "nested more than|nested too deeply"),
        (lambda manifest: manifest.update(extra="\ud800"), "half a character"),
        (lambda manifest: manifest.update(extra="\U0001f600"), None),
        (lambda manifest: manifest.pop("task"), "it lacks task"),
        (lambda manifest: manifest.update(task="translation"), "has the task 'translation', and neuronbert .* knows"),
        (lambda manifest: manifest.update(task=["translation"]), r"task is \['translation'\], and must be text"),
        (lambda manifest: manifest.update(task=7), "task is 7, and must be text"),
    ],
)
def test_a_manifest_that_no_compile_wrote_is_refused_though_its_digest_fits(echo_copy, change, message):
    rewrite(echo_copy, change)
    if message is None:
        load_artifact(echo_copy)
        return
    with pytest.raises(ArtifactError, match=message) as caught:
        load_artifact(echo_copy)
    assert str(echo_copy) in caught.value.message and caught.value.hint
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "it has 'a' twice"),
        (b'{"schema_version": ' + b"9" * 3_000_000 + b"}", "a number of 3000000 digits"),
        (b'{"schema_version": 1e999}', "a number too large, 1e999"),
        (b'{"a": "\xff"}', "is no JSON"),
        (b"", "is no JSON"),
        (b"[]", r"holds \[\], not a JSON object"),
        (b" " * (1 << 23), "has 8,388,608 bytes, and more than"),
    ],
)
def test_what_is_no_manifest_at_all_is_refused_by_name(tmp_path, content, message):
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{MANIFEST_NAME}.*{message}"):
        load_artifact(tmp_path)


@pytest.mark.parametrize("name", ["openvino-int8", "neuron-b6-s128-p1", "echo-fp32"])
def test_names_that_compile_gives_are_taken(name):
    assert re.fullmatch(VARIANT_NAME["pattern"], name)


def test_a_manifest_that_is_a_folder_is_refused_by_name(echo_copy):
    (echo_copy / MANIFEST_NAME).unlink()
    (echo_copy / MANIFEST_NAME).mkdir()
    with pytest.raises(ArtifactError, match=f"{MANIFEST_NAME} is a folder, not a file"):
        load_artifact(echo_copy)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("name", [MANIFEST_NAME, "tokenizer.json"])
def test_a_file_that_may_not_be_read_is_named(echo_artifact, name):
    with tempfile.TemporaryDirectory() as parent:  # not tmp_path: its parents are closed to other users
        os.chmod(parent, 0o755)
        folder = Path(shutil.copytree(echo_artifact.folder, Path(parent, "artifact")))
        (folder / name).chmod(0)
        root = os.geteuid() == 0
        if root:  # who may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(ArtifactError, match=f"{name} cannot be read: Permission denied"):
                load_artifact(folder)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("name", ["", "variants", "variants/echo-fp32"])
def test_a_folder_that_may_not_be_read_is_not_missing(echo_artifact, name):
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        folder = Path(shutil.copytree(echo_artifact.folder, Path(parent, "artifact")))
        (folder / name).chmod(0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(ArtifactError, match="cannot be read: Permission denied") as caught:
                load_artifact(folder)
        finally:
            if root:
                os.seteuid(0)
            (folder / name).chmod(0o755)
    assert "ls -ld" in str(caught.value.hint)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))  # a socket's path is short


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").touch()


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_folder])
@pytest.mark.parametrize("name", [MANIFEST_NAME, "config.json", "tokenizer.json", "variants/echo-fp32/echo.json"])
def test_what_is_no_file_is_refused_and_hangs_nothing(echo_copy, make, name, monkeypatch):
    monkeypatch.chdir(echo_copy)
    (echo_copy / name).unlink()
    make(echo_copy / name)
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        load_artifact(echo_copy)


@pytest.mark.parametrize("name", ["more", "variants/echo-fp32/more"])
def test_a_named_pipe_that_is_not_listed_hangs_nothing(echo_copy, name):
    os.mkfifo(echo_copy / name)
    with pytest.raises(ArtifactError, match=f"{name} is a named pipe, not a file"):
        load_artifact(echo_copy)


def test_a_listed_file_that_became_a_hole_of_terabytes_is_refused_unread(echo_copy, monkeypatch):
    name = sorted(load_artifact(echo_copy).manifest["variants"][0]["files"])[0]
    os.truncate(echo_copy / name, 1 << 40)
    read = []
    monkeypatch.setattr(module, "sha256_of_stream", lambda file: read.append(file.name) or "")
    with pytest.raises(ArtifactError, match=f"{name} has 1,099,511,627,776 bytes, and more than 1,"):
        load_artifact(echo_copy)
    assert len(read) < len(every_file(echo_copy))


@pytest.mark.skipif(not hasattr(os, "mknod") or os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_refused(echo_copy):
    (echo_copy / "config.json").unlink()
    try:
        os.mknod(echo_copy / "config.json", 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("no devices can be made here")
    with pytest.raises(ArtifactError, match="config.json is a device, not a file"):
        load_artifact(echo_copy)


def test_a_folder_that_is_no_artifact_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="there is no artifact at"):
        load_artifact(tmp_path / "nothing")


RELEASED_INPUTS = {
    "question-answering": ("who was jim henson?", "jim henson was a nice puppet."),
    "feature-extraction": "who was jim henson?",
}


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_artifacts_of_every_released_schema_load(folder):
    assert load_artifact(folder).variants


@pytest.mark.parametrize("folder", RELEASED, ids=lambda folder: folder.name)
def test_every_variant_of_a_released_artifact_passes_its_self_test_and_answers(folder):
    from neuronbert.engine.engine import Engine

    artifact = load_artifact(folder)
    served = [variant for variant in artifact.variants if not unmet_requirements(variant["requires"])]
    assert served
    for variant in served:
        with Engine(artifact, variant=variant["name"], threads=1) as engine:
            (answer,) = engine.answer([RELEASED_INPUTS[artifact.task]])
            assert answer


def test_a_manifest_of_schema_2_says_what_its_model_returns(echo_copy):
    assert load_artifact(echo_copy).manifest["outputs"] == [
        {"name": "start_logits", "per": "token"}, {"name": "end_logits", "per": "token"},
    ]  # fmt: skip
    rewrite(echo_copy, lambda manifest: manifest.pop("outputs"))
    with pytest.raises(ArtifactError, match="lacks outputs"):
        load_artifact(echo_copy)
    rewrite(echo_copy, lambda manifest: manifest.update(outputs=[{"name": "logits", "per": "letter"}]))
    with pytest.raises(ArtifactError, match="per is 'letter'"):
        load_artifact(echo_copy)


def test_outputs_that_the_task_no_longer_has_are_refused(echo_copy):
    from neuronbert.engine.engine import Engine

    rewrite(echo_copy, lambda manifest: manifest.update(outputs=[{"name": "spans", "per": "row"}]))
    with pytest.raises(ArtifactError, match="was compiled to return spans, and question-answering is start_logits"):
        Engine(echo_copy)


def test_there_is_an_artifact_of_the_current_schema():
    assert f"schema-{module.SCHEMA_VERSION}" in [folder.name for folder in RELEASED]


def artifact_with(*variants) -> Artifact:
    entries = [
        {"name": name, "requires": requires, "backend": "echo", "sequence_length": None} for name, requires in variants
    ]
    return Artifact(Path("some"), {"variants": entries})


def test_the_first_variant_that_this_machine_can_run_is_chosen():
    artifact = artifact_with(("fast", {"cpu_flags": ["no_such_flag"]}), ("slow", {}))
    assert choose_variants(artifact)[0]["name"] == "slow"


def test_a_machine_that_can_run_none_is_told_what_each_needs():
    artifact = artifact_with(("fast", {"cpu_flags": ["no_such_flag"]}), ("other", {"libraries": {"nolib": ">=3"}}))
    with pytest.raises(ArtifactError, match=r"fast needs .*no_such_flag.*other needs .*nolib"):
        choose_variants(artifact)


def test_an_unknown_variant_lists_those_there_are():
    with pytest.raises(ArtifactError, match="no variant 'x'(.|\n)*one of a, b"):
        choose_variants(artifact_with(("a", {}), ("b", {})), "x")


def test_loading_needs_neither_torch_nor_transformers(echo_artifact):
    code = (
        "import sys; from neuronbert import Engine; "
        f"Engine({str(echo_artifact.folder)!r}).answer([('Who?', 'Ann did.')]); "
        "print(sorted({'torch', 'transformers', 'openvino', 'onnxruntime'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
