"""Signatures: whose are good, what is refused before it is parsed, and that OpenSSH makes and reads the same ones."""

import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import neuronbert
from neuronbert import Engine, Runner, load_artifact
from neuronbert.artifact import manifest as manifest_module
from neuronbert.artifact.files import LEFTOVER_SUFFIX
from neuronbert.artifact.manifest import MANIFEST_NAME, artifact_of
from neuronbert.artifact.signatures import NAMESPACE, SIGNATURE_NAME, PublicKey, Signature, trusted_keys
from neuronbert.artifact.signing import sign_artifact
from neuronbert.engine.answering import answer_file, answer_input
from neuronbert.engine.engine import Engine as EngineClass
from neuronbert.errors import ArtifactError, MissingLibrary, SignatureError, UsageError
from neuronbert.runner.core_environment import core_environment

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: E402

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")


def write_key(path: Path, key=None, password=None) -> Path:
    """A private key as ssh-keygen writes it, and its .pub."""
    key = key or ed25519.Ed25519PrivateKey.generate()
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.OpenSSH
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, cipher))
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    Path(f"{path}.pub").write_bytes(public + b" somebody@somewhere\n")
    return path


@pytest.fixture()
def key(tmp_path):
    return write_key(tmp_path / "key")


@pytest.fixture()
def other(tmp_path):
    return write_key(tmp_path / "other")


@pytest.fixture()
def signed(echo_copy, key):
    sign_artifact(echo_copy, key)
    return echo_copy


def public(key: Path) -> str:
    return f"{key}.pub"


def test_what_is_signed_is_verified(signed, key):
    artifact = load_artifact(signed, trusted_key=public(key))
    assert artifact.signed_by == PublicKey.of_line(Path(public(key)).read_text())
    assert str(artifact.signed_by) in Path(public(key)).read_text()
    assert load_artifact(signed).signed_by is None  # nobody asked


def test_an_artifact_without_one_loads_where_none_is_demanded(echo_copy):
    assert load_artifact(echo_copy, trusted_key=None).signed_by is None


def test_an_artifact_without_one_is_refused_where_one_is_demanded(echo_copy, key):
    with pytest.raises(SignatureError, match="is not signed, and a trusted key was demanded") as caught:
        load_artifact(echo_copy, trusted_key=public(key))
    assert "neuronbert sign" in str(caught.value.hint) and caught.value.exit_code == 1


def test_a_signature_by_another_key_is_refused(signed, other):
    with pytest.raises(SignatureError, match="is signed by SHA256:.* which is not trusted"):
        load_artifact(signed, trusted_key=public(other))


@pytest.mark.parametrize("several", [True, False])
def test_one_of_several_keys_is_enough(signed, key, other, tmp_path, several):
    files = [public(other), public(key)]
    if not several:
        lines = ["# those whom we trust", "", *(Path(file).read_text() for file in files)]
        files = tmp_path / "keys"
        files.write_text("\n".join(lines))
    assert load_artifact(signed, trusted_key=files).signed_by is not None


def forged(folder: Path) -> None:
    """Another manifest with a right digest of its own, as anybody can make."""
    old = json.loads((folder / MANIFEST_NAME).read_text())
    del old["digest"]
    old["created_at"] = "2000-01-01T00:00:00Z"
    (folder / MANIFEST_NAME).unlink()
    manifest_module.write_manifest(folder, old)


def test_a_manifest_that_was_made_again_is_refused(signed, key):
    forged(signed)
    assert load_artifact(signed).manifest["created_at"] == "2000-01-01T00:00:00Z"  # the digests prove nothing of this
    with pytest.raises(SignatureError, match="is not of this manifest"):
        load_artifact(signed, trusted_key=public(key))


def test_a_file_that_was_changed_is_refused_as_ever(signed, key):
    with open(signed / "config.json", "a") as file:
        file.write(" ")
    with pytest.raises(ArtifactError, match="config.json was changed"):
        load_artifact(signed, trusted_key=public(key))


def test_nothing_is_parsed_before_the_signature_is_verified(signed, key, other, monkeypatch):
    (signed / MANIFEST_NAME).write_bytes(b"\xff{ no JSON")
    looked = []
    for name in ("json_object", "_files_below", "verify_checksums"):
        monkeypatch.setattr(manifest_module, name, lambda *arguments: looked.append(arguments))
    for trusted in (key, other):
        with pytest.raises(SignatureError):
            load_artifact(signed, trusted_key=public(trusted))
    assert not looked


def test_a_signature_for_anything_else_is_none(echo_copy, key, monkeypatch):
    """The same key signs commits and files too; none of these may pass for a signature of an artifact."""
    with monkeypatch.context() as patch:
        patch.setattr("neuronbert.artifact.signatures.NAMESPACE", "git")
        sign_artifact(echo_copy, key)
    with pytest.raises(SignatureError, match=f"is no signature by an Ed25519 key for {NAMESPACE}"):
        load_artifact(echo_copy, trusted_key=public(key))


def test_every_byte_of_the_signature_counts(signed, key):
    path = signed / SIGNATURE_NAME
    text = path.read_text()
    lines = text.splitlines()
    body = "".join(lines[1:-1])
    for at in range(0, len(body), 3):
        changed = body[:at] + ("A" if body[at] != "A" else "B") + body[at + 1 :]
        path.write_text("\n".join([lines[0], changed, lines[-1]]))
        with pytest.raises(SignatureError):
            load_artifact(signed, trusted_key=public(key))


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_junk_is_no_signature_and_no_key(junk):
    text = junk.decode("utf-8", "replace")
    assert Signature.of_text(text) is None
    assert Signature.of_text(f"-----BEGIN SSH SIGNATURE-----\n{text}\n-----END SSH SIGNATURE-----\n") is None
    assert PublicKey.of_line(text) is None and PublicKey.of_line(f"ssh-ed25519 {text}") is None


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
def test_what_is_written_is_read(raw, signature):
    made = Signature(PublicKey(raw), signature)
    assert Signature.of_text(made.armored()) == made
    assert PublicKey.of_line(f"  {made.key} comment") == made.key


@pytest.mark.parametrize("kind", ["junk", "huge", "link", "folder", "fifo"])
def test_a_file_in_the_place_of_a_signature_is_refused(signed, key, kind):
    path = signed / SIGNATURE_NAME
    good = path.read_bytes()
    path.unlink()
    (signed.parent / "good").write_bytes(good)
    {
        "junk": lambda: path.write_text("junk"),
        "huge": lambda: path.write_bytes(good * 100),
        "link": lambda: path.symlink_to(signed.parent / "good"),
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
    }[kind]()
    with pytest.raises(SignatureError):
        load_artifact(signed, trusted_key=public(key))


def test_signing_again_replaces_the_signature(signed, other):
    sign_artifact(signed, other)
    assert load_artifact(signed, trusted_key=public(other)).signed_by is not None


@pytest.mark.parametrize("before", [True, False])
def test_an_error_leaves_the_signature_as_it_was(echo_copy, key, other, monkeypatch, before):
    if before:
        sign_artifact(echo_copy, key)
    files = {path: path.read_bytes() for path in echo_copy.rglob("*") if path.is_file()}

    def fails(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(KeyboardInterrupt):
        sign_artifact(echo_copy, other)
    assert {path: path.read_bytes() for path in echo_copy.rglob("*") if path.is_file()} == files


def test_what_a_kill_left_is_removed_by_the_next_attempt(echo_copy, key):
    (echo_copy / f".{SIGNATURE_NAME}.0123abcd{LEFTOVER_SUFFIX}").write_text("half")
    with pytest.raises(ArtifactError, match="is not listed"):
        load_artifact(echo_copy)
    sign_artifact(echo_copy, key)
    assert load_artifact(echo_copy, trusted_key=public(key)).signed_by is not None


def test_a_damaged_artifact_is_not_signed(echo_copy, key):
    (echo_copy / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="config.json was changed"):
        sign_artifact(echo_copy, key)
    assert not (echo_copy / SIGNATURE_NAME).exists()


# ---------------------------------------------------------------------- keys that are none


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no file of keys"),
        (lambda path: path.mkdir(), "is a folder, not a file"),
        (lambda path: path.write_text(""), "is no private key of ssh-keygen's"),
        (lambda path: path.write_bytes(os.urandom(100)), "is no private key of ssh-keygen's"),
        (lambda path: path.write_text(Path(public(write_key(path))).read_text()), "is a public key"),
        (lambda path: write_key(path, ec.generate_private_key(ec.SECP256R1())), "of another type than ssh-ed25519"),
    ],
)
def test_a_key_that_cannot_sign_is_refused(echo_copy, tmp_path, make, words):
    make(tmp_path / "bad")
    with pytest.raises(UsageError, match=words) as caught:
        sign_artifact(echo_copy, tmp_path / "bad")
    assert "ssh-keygen" in str(caught.value.hint)
    assert not (echo_copy / SIGNATURE_NAME).exists()


@needs_ssh_keygen
def test_a_key_with_a_passphrase_is_refused_with_the_command_that_asks_for_it(echo_copy, tmp_path):
    key = tmp_path / "locked key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)], check=True)
    with pytest.raises(UsageError, match="is protected by a passphrase") as caught:
        sign_artifact(echo_copy, key)
    assert f"ssh-keygen -Y sign -n {NAMESPACE} -f '{key}' {echo_copy / MANIFEST_NAME}" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no file of keys"),
        ("", "holds no public key"),
        ("# nobody\n\n", "holds no public key"),
        ("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ== me\n", "line 1: .* is no public key of type ssh-ed25519"),
        ("ssh-ed25519 AAAA\n", "line 1: .* is no public key of type ssh-ed25519"),
        ("ssh-ed25519\n", "line 1"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "is a private key, and a trusted key is a public one"),
    ],
)
def test_a_file_that_holds_no_key_is_refused_and_never_taken_for_no_demand(
    echo_copy, tmp_path, monkeypatch, text, words
):
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=words):
        load_artifact(echo_copy, trusted_key=path)
    monkeypatch.setenv("NEURONBERT_TRUSTED_KEY", str(path))
    with pytest.raises(UsageError, match=words):
        load_artifact(echo_copy)


def test_a_variable_that_came_out_empty_does_not_mean_that_anything_goes(echo_copy, monkeypatch):
    monkeypatch.setenv("NEURONBERT_TRUSTED_KEY", "")
    with pytest.raises(UsageError, match="NEURONBERT_TRUSTED_KEY is empty"):
        load_artifact(echo_copy)


def test_a_list_of_keys_that_came_out_empty_does_not_mean_that_anything_goes(echo_copy):
    with pytest.raises(UsageError, match="no file of trusted keys is given"):
        load_artifact(echo_copy, trusted_key=[])


def test_the_environment_demands_a_signature_of_everything_but_what_was_just_compiled(
    echo_copy, tmp_path, key, other, tiny_checkpoint, monkeypatch
):
    monkeypatch.setenv("NEURONBERT_TRUSTED_KEY", public(key))
    options = {"backend": "echo", "precision": "fp32", "skip_gate": True, "threads": 1}
    assert neuronbert.compile_checkpoint(tiny_checkpoint, tmp_path / "out", **options).signed_by is None
    with pytest.raises(SignatureError):
        Engine(echo_copy)
    sign_artifact(echo_copy, key)
    assert load_artifact(echo_copy).signed_by is not None
    with pytest.raises(SignatureError):  # what is given goes before the environment
        load_artifact(echo_copy, trusted_key=public(other))
    assert trusted_keys() == trusted_keys(public(key)) != ()


def test_without_the_library_it_is_named(signed, key, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(MissingLibrary, match="cryptography is not installed") as caught:
        load_artifact(signed, trusted_key=public(key))
    assert "neuronbert[sign]" in str(caught.value.hint)
    load_artifact(signed)  # needs none


# ---------------------------------------------------------------------- every way in


@pytest.mark.parametrize(
    "function",
    [
        load_artifact, Engine, EngineClass.for_many, neuronbert.pipeline, Runner, neuronbert.run_job, answer_input,
        answer_file, neuronbert.evaluate_artifact, neuronbert.benchmark_artifact, neuronbert.plan, core_environment,
        neuronbert.NeuronBertForQuestionAnswering.from_pretrained,
    ],
)  # fmt: skip
def test_whatever_loads_an_artifact_takes_a_trusted_key(function):
    assert inspect.signature(function).parameters["trusted_key"].default is None


SQUAD = Path(__file__).resolve().parents[2] / "examples" / "squad.json"
QUESTION, CONTEXT = "Who?", "Ann did."


@pytest.mark.parametrize(
    "ask",
    [
        lambda artifact, **more: Engine(artifact, **more).close(),
        lambda artifact, **more: Engine.for_many(artifact, **more).close(),
        lambda artifact, **more: neuronbert.pipeline(model=artifact, **more),
        lambda artifact, **more: Runner(artifact, workers=1, **more).close(),
        lambda artifact, **more: answer_input(artifact, QUESTION, CONTEXT, **more),
        lambda artifact, **more: neuronbert.plan(artifact, **more),
        lambda artifact, **more: neuronbert.NeuronBertForQuestionAnswering.from_pretrained(artifact, **more),
    ],
)
def test_every_way_in_verifies(signed, key, other, ask):
    with pytest.raises(SignatureError, match="not trusted"):
        ask(signed, trusted_key=public(other))
    ask(signed, trusted_key=public(key))


@pytest.mark.parametrize("form", [Path, load_artifact])
def test_what_is_compared_with_is_verified_too(signed, key, tmp_path, form):
    """By its path, and where it was loaded before without a demand."""
    against = tmp_path / "against"
    shutil.copytree(signed, against)
    forged(against)
    with pytest.raises(SignatureError, match="against: .* is not of this manifest"):
        neuronbert.evaluate_artifact(signed, SQUAD, against=form(against), trusted_key=public(key))


def test_a_manifest_that_is_no_file_does_not_make_an_artifact_a_checkpoint(signed):
    (signed / MANIFEST_NAME).unlink()
    os.mkfifo(signed / MANIFEST_NAME)
    for ask in (neuronbert.plan, lambda folder: neuronbert.evaluate_artifact(signed, SQUAD, against=folder)):
        with pytest.raises(ArtifactError, match="is a named pipe"):
            ask(signed)


def test_an_artifact_that_was_loaded_without_is_verified_where_it_is_demanded(signed, key, other):
    loaded = load_artifact(signed)
    assert artifact_of(loaded, public(key)).signed_by is not None
    with pytest.raises(SignatureError):
        artifact_of(loaded, public(other))
    trusted = load_artifact(signed, trusted_key=public(key))
    assert artifact_of(trusted, public(key)) is trusted and artifact_of(loaded) is loaded


def test_a_worker_that_takes_a_dead_one_s_place_verifies_too(signed, key):
    failed = []
    with Runner(signed, workers=1, trusted_key=public(key), on_event=failed.append, drain_timeout_s=1) as runner:
        assert runner.submit(QUESTION, CONTEXT).result(timeout=60)
        forged(signed)
        os.kill(runner.stats()["workers"][0]["pid"], 9)
        until = time.monotonic() + 60
        while not any("is not of this manifest" in str(event) for event in failed):
            assert time.monotonic() < until, failed
            time.sleep(0.05)


# ---------------------------------------------------------------------- OpenSSH's own


@needs_ssh_keygen
def test_openssh_verifies_what_we_sign(echo_copy, tmp_path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signed = sign_artifact(echo_copy, key)
    (tmp_path / "allowed").write_text(f"me {Path(public(key)).read_text()}")
    with open(echo_copy / MANIFEST_NAME, "rb") as stdin:
        done = subprocess.run(
            ["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-f", str(tmp_path / "allowed"), "-I", "me", "-s",
             signed.signature],
            stdin=stdin, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert signed.fingerprint in done.stdout
    listed = subprocess.run(["ssh-keygen", "-l", "-f", public(key)], capture_output=True, text=True).stdout
    assert signed.fingerprint in listed


@needs_ssh_keygen
def test_we_verify_what_openssh_signs(echo_copy, tmp_path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    command = ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", str(key), str(echo_copy / MANIFEST_NAME)]
    subprocess.run(command, check=True, capture_output=True)
    assert load_artifact(echo_copy, trusted_key=public(key)).signed_by is not None
    ours = hashlib.sha256((echo_copy / SIGNATURE_NAME).read_bytes())
    sign_artifact(echo_copy, key)
    assert hashlib.sha256((echo_copy / SIGNATURE_NAME).read_bytes()).digest() == ours.digest()  # to the byte
