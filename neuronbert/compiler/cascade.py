"""Makes one artifact of two: a small model answers, and a large one is asked where the small one is in doubt.

cascade_gate.py chooses how sure the small one must be; engine/cascade.py runs what is written here.
"""

import shutil
from pathlib import Path
from typing import Any, Callable, Mapping, Optional, Union

from neuronbert.artifact.files import new_folder, refuse_existing, refuse_inputs, refuse_inside
from neuronbert.artifact.manifest import (
    SELFTEST_NAME,
    Artifact,
    Manifest,
    PathLike,
    Variant,
    listed_files,
    manifest_of,
    signed_artifact,
    write_manifest,
)
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.artifact.variants import SMALL_FOLDER, self_test_folder
from neuronbert.backends import load_backend
from neuronbert.backends.base import Steps
from neuronbert.checkpoint.config import FILE_NAME as CONFIG_NAME
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.compiler.cascade_gate import CASCADE, CascadeGate, Choice, Part, Parts
from neuronbert.compiler.compilation import gate_entry, outputs_entry
from neuronbert.compiler.small_model import refuse_other_rows
from neuronbert.engine.cascade import has_sureness
from neuronbert.errors import ArtifactChanged, UsageError, is_path, positive, refuse_no_path
from neuronbert.hardware.machine import environment
from neuronbert.hardware.untrusted import sha256_of
from neuronbert.tasks import load_task
from neuronbert.tasks.base import asked_limits


def make_cascade(
    small: Union[Artifact, PathLike],
    large: Union[Artifact, PathLike],
    output: PathLike,
    *,
    small_variant: Optional[str] = None,
    large_variant: Optional[str] = None,
    min_f1_ratio: Optional[float] = None,
    min_answer_f1: Optional[float] = None,
    gate_data: Optional[PathLike] = None,
    threads: Optional[int] = None,
    trusted_key: TrustedKey = None,
    progress: Callable[[str], None] = lambda line: None,
    on_step: Steps = lambda what, done, total: None,
) -> Artifact:
    """Write into the new folder ``output`` an artifact that asks ``small`` first, and ``large`` where that is in doubt.

    Both are artifacts that answer questions, with the same tokenizer. The variants are chosen as for an Engine. The
    small model has to be as sure as leaves the results good enough for the gate, whose reference is the large model
    (``min_f1_ratio``, ``min_answer_f1`` and ``gate_data`` as for compile_checkpoint).

    Raises UsageError for two that do not fit together, GateRefused for a cascade that would be no gain
    (cascade_gate.py), ArtifactError and OutputError; nothing is left at ``output`` after an error.
    """
    refuse_no_path("output", output)
    refuse_inputs([Path(output)], [gate_data])
    refuse_existing(Path(output))
    for part in (small, large):
        folder = part.folder if isinstance(part, Artifact) else part
        if is_path(folder):  # anything else is refused where it is opened
            refuse_inside(folder, output)
    limits = asked_limits(min_f1_ratio, min_answer_f1)
    positive("threads", threads)
    parts = Parts(Part.of(small, small_variant, trusted_key), Part.of(large, large_variant, trusted_key))
    refuse_unlike(parts)
    gate = CascadeGate(parts, gate_data, limits)
    progress("answering the gate's questions with both, in turns")
    choice = gate.choose(*gate.read(parts, threads, on_step))
    return write_cascade(parts, cascade_manifest(parts, gate, choice), output)


def refuse_unlike(parts: Parts) -> None:
    """UsageError for two artifacts that cannot be one."""
    small, large = parts
    if small.artifact.task != large.artifact.task:
        raise UsageError(
            f"{small.artifact.folder} is for {small.artifact.task}, and {large.artifact.folder} for "
            f"{large.artifact.task}",
            hint="two artifacts for the same task",
        )
    backends = [load_backend(part.variant["backend"]) for part in parts]
    for part, backend in zip(parts, backends):
        if backend.STATIC_SHAPES or "cascade" in part.variant:
            what = "has static shapes" if backend.STATIC_SHAPES else "is a cascade already"
            raise UsageError(f"{part.variant['name']} of {part.artifact.folder} {what}", hint="another variant of it")
    if backends[0].BY_NAME_ONLY and small.variant["backend"] != large.variant["backend"]:
        raise UsageError(
            f"{small.variant['name']} is a {small.variant['backend']} program, which is only loaded where it is asked "
            f"for by that name, and the cascade's would be {large.variant['backend']}",
            hint="another variant of the small artifact, or one of the same backend of the large one",
        )
    tokenizers = Tokenizer.from_files(small.artifact.folder), Tokenizer.from_files(large.artifact.folder)
    task = load_task(large.artifact.task)
    if not has_sureness(task.outputs(tokenizers[1].config)):
        raise UsageError(
            f"{task.NAME} has no cascades: how sure a model is, is defined for places in a text only",
            hint="one of the two artifacts by itself",
        )
    refuse_other_rows(*tokenizers, str(small.artifact.folder), str(large.artifact.folder))
    devices = [backend.DEVICE for backend in backends]
    if devices[0] != devices[1]:
        raise UsageError(
            f"{small.variant['name']} runs on {devices[0]}, and {large.variant['name']} on {devices[1]}",
            hint="two variants for one device",
        )


def write_cascade(parts: Parts, manifest: Manifest, output: PathLike) -> Artifact:
    """Make the new folder ``output`` of both, with a manifest whose variant is ``cascade_variant``'s."""
    with new_folder(output) as folder:
        copy_parts(parts, folder)
        write_manifest(folder, manifest)
    return signed_artifact(output, ())


def copy_parts(parts: Parts, folder: Path) -> None:
    """The large artifact's files, and those of the small one's variant in a folder of the large one's."""
    small, large = parts
    into = folder / "variants" / cascade_name(large.variant)
    for name in large.artifact.manifest["files"]:
        _copy(large, name, folder / name)
    _copy_variant(large, into)
    _copy_variant(small, into / SMALL_FOLDER)
    tested = self_test_folder(small.artifact, small.variant).relative_to(small.artifact.folder)
    for name in (SELFTEST_NAME, CONFIG_NAME):
        _copy(small, str(tested / name), into / SMALL_FOLDER / name)


def _copy_variant(part: Part, into: Path) -> None:
    for name in part.variant["files"]:
        _copy(part, name, into / Path(name).relative_to(f"variants/{part.variant['name']}"))


def _copy(part: Part, name: str, target: Path) -> None:
    """Copy a file that the artifact's manifest lists; ArtifactError if it is no longer the one that was verified."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(part.artifact.folder / name, target)
    if sha256_of(target) != listed_files(part.artifact.manifest)[name]:
        raise ArtifactChanged(f"{part.artifact.folder}: {name} changed meanwhile", hint="make the cascade again")


def cascade_name(large: Variant) -> str:
    """What the cascade's variant is called."""
    return f"{large['name']}-{CASCADE}"


def cascade_variant(
    parts: Parts, judged: Mapping[str, Any], *, threshold: float, share_of_large: float, speedup: float
) -> Variant:
    """The variant of both, still without checksums; ``judged`` are its agreement and accuracy."""
    small, large = parts
    cascade = {
        "variant": {**small.variant, "files": {}},
        "checkpoint": small.variant["recipe"].get("student", small.artifact.manifest)["checkpoint"],
        "threshold": threshold,
        "share_of_large": share_of_large,
        "speedup": speedup,
    }
    return {
        **large.variant,
        "name": cascade_name(large.variant),
        "emulated": small.variant["emulated"] or large.variant["emulated"],
        "batch_invariant": small.variant["batch_invariant"] and large.variant["batch_invariant"],
        **judged,
        "cascade": cascade,
    }


def cascade_manifest(parts: Parts, gate: CascadeGate, choice: Choice) -> Manifest:
    """The manifest, still without checksums: that of the large artifact, with one variant."""
    large = parts.large
    of_large = large.artifact.manifest
    variant = cascade_variant(
        parts,
        choice.agreement.entry(),
        threshold=choice.threshold,
        share_of_large=choice.share_of_large,
        speedup=choice.speedup,
    )
    record = {
        "name": variant["name"],
        "outcome": "kept",
        "why": f"the large model is asked {choice.share_of_large:.0%} of the windows",
        "windows_per_s": [],
        "agreement": choice.agreement.as_dict(),
    }
    selects = {}
    if "row_selection" in of_large:  # what was measured of it was the large model's
        selects["row_selection"] = {**of_large["row_selection"], "measured": None}
    reference = {"variant": large.variant["name"], "skipped": of_large["gate"]["skipped"]}
    return manifest_of(
        large.artifact.task,
        of_large["checkpoint"],
        [variant],
        environment(),
        outputs=outputs_entry(gate.outputs),
        gate={
            "skipped": False,
            "reference": {**reference, "accuracy": large.variant["accuracy"]},
            "limits": vars(gate.limits),
            **gate_entry(gate.questions, False),
        },
        **selects,
        selection=[record],
    )
