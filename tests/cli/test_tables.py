"""How results read as text."""

from neuronbert.artifact.manifest import Artifact
from neuronbert.cli.tables import manifest_table, trial_lines
from neuronbert.tasks.question_answering import figures


def test_a_trial_whose_logits_are_nan_is_rendered():
    agreement = {"n": 500, "max_abs_diff": None, "top1_agreement": 0.0, "f1": 0.0, "reference_f1": 80.0}
    trial = {
        "name": "a-fp32",
        "outcome": "refused",
        "why": "its logits hold NaN or Inf",
        "windows_per_s": [1.0],
        "agreement": {**agreement, "answer_f1": 0.0, "f1_ratio": 0.0},
    }
    assert "logits with NaN or Inf (500 questions)" in trial_lines(trial, figures)[1]


def test_a_manifest_names_the_gpu_it_was_made_on_and_the_one_it_needs(echo_artifact):
    gpu = {"name": "NVIDIA L4", "compute_capability": "8.9", "memory_bytes": 24 << 30}
    requires = {"device": "cuda", "compute_capability": ">=8.0", "libraries": {"torch": ">=2.4"}}
    manifest = {
        **echo_artifact.manifest,
        "environment": {**echo_artifact.manifest["environment"], "gpus": [gpu]},
        "variants": [{**echo_artifact.variants[0], "requires": requires}],
    }
    text = manifest_table(Artifact(echo_artifact.folder, manifest))
    assert "NVIDIA L4 (compute capability 8.9, 24.0 GiB)" in text
    assert "a GPU of compute capability >=8.0, torch >=2.4" in text
    without = {name: value for name, value in manifest["environment"].items() if name != "gpus"}
    assert "GPU (" not in manifest_table(Artifact(echo_artifact.folder, {**manifest, "environment": without}))
