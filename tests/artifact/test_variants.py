"""What is a program is loaded only where somebody asked for it, whatever the manifest calls it."""

from dataclasses import replace
from pathlib import Path

import pytest

from neuronbert import Engine, Runner
from neuronbert.artifact.manifest import Artifact, load_artifact, write_manifest
from neuronbert.artifact.signatures import PublicKey
from neuronbert.artifact.variants import choose_variants
from neuronbert.backends import BACKENDS, backend_module
from neuronbert.benchmark.points import chosen_variants
from neuronbert.errors import ArtifactError, BackendFailed
from neuronbert.hardware import requirements


def artifact_of(*variants: str, **more) -> Artifact:
    """``name=backend`` or a name that begins with its backend."""
    entries = []
    for text in variants:
        name, _, backend = text.partition("=")
        entries.append(
            {"name": name, "backend": backend or name.split("-")[0], "precision": "fp32", "pipeline_cores": None,
             "compiler_args": [], "emulated": False, "sequence_length": None, "requires": {}, **more}
        )  # fmt: skip
    return Artifact(Path("artifact"), {"variants": entries})


def names_of(*arguments):
    return [variant["name"] for variant in choose_variants(*arguments)]


def test_a_program_is_passed_over_though_it_is_the_fastest():
    assert names_of(artifact_of("torchscript-fp32", "echo-fp32")) == ["echo-fp32"]


@pytest.mark.parametrize("name", ["torchscript", "torchscript-fp32"])
def test_a_program_is_chosen_by_its_backend_s_name(name):
    assert names_of(artifact_of("echo-fp32", "torchscript-fp32"), name) == ["torchscript-fp32"]


def test_where_there_is_only_a_program_the_error_says_what_to_type():
    with pytest.raises(ArtifactError, match="torchscript-fp32 is a torchscript program") as caught:
        choose_variants(artifact_of("torchscript-fp32"))
    assert caught.value.hint == "if you trust who made it, --variant torchscript; else compile the checkpoint yourself"


@pytest.mark.parametrize("name", ["echo-fp32", "echo", "openvino-int8"])
def test_a_program_under_another_name_is_refused(name):
    """A manifest names its variants itself."""
    artifact = artifact_of(f"{name}=torchscript")
    for choose in (choose_variants, lambda *arguments: chosen_variants(*arguments, "")):
        with pytest.raises(ArtifactError, match="is a torchscript program"):
            choose(artifact, name)


def test_a_backend_s_name_never_means_another_backend_s_variant():
    with pytest.raises(ArtifactError, match="is a torchscript program"):
        choose_variants(artifact_of("echo=torchscript", "echo-fp32"), "echo")


def test_a_backend_s_name_has_all_of_its_buckets(monkeypatch):
    monkeypatch.delenv("NEURONBERT_EMULATE", raising=False)
    monkeypatch.setattr(requirements, "has_inferentia", lambda: True)
    device = {"device": "neuron"}
    artifact = artifact_of("neuron-b1-s128-p1", "neuron-b1-s384-p1", sequence_length=128, requires=device)
    assert names_of(artifact, "neuron") == ["neuron-b1-s128-p1", "neuron-b1-s384-p1"]
    assert names_of(artifact, "neuron-b1-s128-p1") == ["neuron-b1-s128-p1"]


@pytest.mark.parametrize("requires", [{}, {"device": "cpu"}, {"device": "neuron"}, {"device": "neuron-emulated"}])
def test_inferentia_variants_are_loaded_only_where_the_machine_has_it(monkeypatch, requires):
    """Whatever device the manifest asks for: it is the stranger's word."""
    monkeypatch.delenv("NEURONBERT_EMULATE", raising=False)
    artifact = artifact_of("neuron-b1-s128-p1", requires=requires)
    with pytest.raises(ArtifactError, match="has no variant for this machine"):
        choose_variants(artifact)
    monkeypatch.setattr(requirements, "has_inferentia", lambda: True)
    if requires == {"device": "neuron"}:
        assert names_of(artifact) == ["neuron-b1-s128-p1"]
    else:
        with pytest.raises(ArtifactError, match="has no variant for this machine"):
            choose_variants(artifact)


def test_a_trusted_signature_has_asked_for_everything():
    artifact = artifact_of("torchscript-fp32", "echo-fp32")
    assert names_of(replace(artifact, signed_by=PublicKey(bytes(32)))) == ["torchscript-fp32"]


def test_the_benchmark_passes_programs_over_unless_they_are_named():
    artifact = artifact_of("torchscript-fp32", "echo-fp32")
    assert [one["name"] for one in chosen_variants(artifact, "", "fp32")] == ["echo-fp32"]
    assert [one["name"] for one in chosen_variants(artifact, "torchscript", "")] == ["torchscript-fp32"]


def test_compile_does_not_choose_unasked_what_could_not_be_loaded_unasked():
    for name in BACKENDS:
        backend = backend_module(name)
        assert not backend.BY_NAME_ONLY or backend.AUTO_RANK is None


def attacking(folder: Path, victim: Path) -> Path:
    """``folder`` with a signed-off TorchScript variant, the fastest, that overwrites ``victim`` when it is loaded."""
    torch = pytest.importorskip("torch")

    class Attack(torch.nn.Module):
        def __init__(self, path: str):
            super().__init__()
            self.path = path
            self.weight = torch.nn.Parameter(torch.ones(1))  # without weights it would be refused, though not for that

        def forward(self, input_ids, attention_mask, token_type_ids):  # type: ignore[no-untyped-def]
            written = torch.from_file(self.path, shared=True, size=8, dtype=torch.uint8).fill_(33)
            logits = input_ids + self.weight + written[0]  # of use, or it would be optimised away
            return logits, logits

    artifact = load_artifact(folder)
    fastest = {**artifact.variants[0], "name": "torchscript-fp32", "backend": "torchscript"}
    (folder / "variants" / "torchscript-fp32").mkdir()
    torch.jit.freeze(torch.jit.script(Attack(str(victim)).eval())).save(
        str(folder / "variants" / "torchscript-fp32" / "model.pt")
    )
    manifest = {key: value for key, value in artifact.manifest.items() if key != "digest"}
    (folder / "neuronbert.json").unlink()
    write_manifest(folder, {**manifest, "variants": [fastest, *artifact.variants]})
    return folder


@pytest.mark.parametrize("load", [Engine, Engine.for_many, lambda folder: Runner(folder, workers=1)])
def test_an_artifact_with_a_program_that_writes_files_is_loaded_without_it(echo_copy, tmp_path, load):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with load(attacking(echo_copy, victim)) as loaded:
        assert loaded.name == "echo-fp32"
    assert victim.read_text() == "precious"


def test_a_program_can_write_any_file_where_it_is_asked_for(echo_copy, tmp_path):
    """What SECURITY.md says of it. If torch ever prevents this, the page and the rule may go."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with pytest.raises(BackendFailed, match="self-test"):  # it is no model; by then it has done its work
        Engine(attacking(echo_copy, victim), variant="torchscript", threads=1)
    assert victim.read_text() == "!!!!!!!!"
