"""Makes one artifact of two: a small model answers, and a large one is asked where the small one is in doubt.

How sure the small one must be is chosen on the gate's questions, so that the results are as good as the large one's.
engine/cascade.py runs what is written here.
"""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable, List, Mapping, NamedTuple, Optional, Sequence, Union

import numpy as np

from neuronbert.artifact.files import new_folder, refuse_existing, refuse_inputs
from neuronbert.artifact.manifest import (
    SELFTEST_NAME,
    Artifact,
    Manifest,
    PathLike,
    Variant,
    artifact_of,
    manifest_of,
    signed_artifact,
    write_manifest,
)
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.artifact.variants import SMALL_FOLDER, choose_variants
from neuronbert.backends import load_backend
from neuronbert.backends.base import Steps
from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.config import FILE_NAME as CONFIG_NAME
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.compiler.compilation import gate_entry
from neuronbert.engine.cascade import can_tell, sureness
from neuronbert.engine.engine import Engine
from neuronbert.errors import GateRefused, UsageError, positive, refuse_no_path
from neuronbert.hardware.machine import environment
from neuronbert.tasks import load_task
from neuronbert.tasks.base import Agreement, GateLimits, Judged

STEPS = 50  # thresholds that are tried: with each, a fiftieth of the rows more is asked again


CASCADE = "cascade"  # what the gate is told in place of a precision


class Part(NamedTuple):
    """One of the two artifacts, and its variant."""

    artifact: Artifact
    variant: Variant

    @classmethod
    def of(cls, artifact: Union[Artifact, PathLike], name: Optional[str], trusted_key: TrustedKey) -> "Part":
        """The artifact, verified, with the variant that an Engine would load."""
        loaded = artifact_of(artifact, trusted_key)
        return cls(loaded, choose_variants(loaded, name)[0])


class Parts(NamedTuple):
    """Both."""

    small: Part
    large: Part


class Reading(NamedTuple):
    """What one model says to every row of the gate, and how long that took it."""

    outputs: List[Outputs]
    seconds: float


class Choice(NamedTuple):
    """How sure the small model must be, and what becomes of that."""

    threshold: float
    share_of_large: float  # of the gate's rows
    agreement: Agreement  # with the large model
    speedup: float  # over the large model alone, if each takes as long for a row as it did here

    @property
    def why(self) -> str:
        return f"the large model is asked {self.share_of_large:.0%} of the windows"


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

    Both are artifacts for the same task with the same tokenizer. The variants are chosen as for an Engine. The small
    model's threshold is the lowest with which the results pass the gate, whose reference is here the large model
    (``min_f1_ratio``, ``min_answer_f1`` and ``gate_data`` as for compile_checkpoint).

    Raises UsageError for two that do not fit together, GateRefused where the large model would have to be asked
    everything, ArtifactError and OutputError; nothing is left at ``output`` after an error.
    """
    refuse_no_path("output", output)
    refuse_inputs([Path(output)], [gate_data])
    refuse_existing(Path(output))
    asked = {"min_f1_ratio": min_f1_ratio, "min_answer_f1": min_answer_f1}
    limits = {name: value for name, value in asked.items() if value is not None}
    GateLimits(**limits)
    positive("threads", threads)
    parts = Parts(Part.of(small, small_variant, trusted_key), Part.of(large, large_variant, trusted_key))
    refuse_unlike(parts)
    gate = CascadeGate(parts, gate_data, limits)
    readings = [gate.read(part, threads, progress, on_step) for part in parts]
    choice = gate.choose(*readings)
    progress(f"{choice.why}: {choice.speedup:.2f} times as fast as the large model alone, by the windows of the gate")
    with new_folder(output) as folder:
        copy_parts(parts, folder)
        write_manifest(folder, cascade_manifest(parts, gate, choice))
    return signed_artifact(output, ())


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
    devices = [backend.DEVICE for backend in backends]
    if devices[0] != devices[1]:
        raise UsageError(
            f"{small.variant['name']} runs on {devices[0]}, and {large.variant['name']} on {devices[1]}",
            hint="two variants for one device",
        )


class CascadeGate:
    """The gate's questions, which both models answer."""

    def __init__(self, parts: Parts, gate_data: Optional[PathLike], limits: Mapping[str, float]):
        self.task = load_task(parts.large.artifact.task)
        tokenizers = [Tokenizer.from_files(part.artifact.folder) for part in parts]
        self.outputs = self.task.outputs(tokenizers[1].config)
        if not can_tell(self.outputs):
            raise UsageError(f"a cascade is for question answering, not for {self.task.NAME}", hint="two of such")
        refuse_other_tokens(*tokenizers)
        self.task_gate = self.task.gate(tokenizers[1].config)
        self.limits = replace(self.task_gate.LIMITS, **limits)
        self.questions = self.task_gate.questions(gate_data, None, False)
        inputs = self.task_gate.inputs(self.questions.asked)
        self.examples = self.task.encode(tokenizers[1], inputs, self.task.ENCODE_OPTIONS())
        self.rows = [row for example in self.examples for row in example.windows]

    def read(self, part: Part, threads: Optional[int], progress: Callable[[str], None], on_step: Steps) -> Reading:
        """What one model says to every row."""
        progress(f"answering the gate's questions with {part.variant['name']} of {part.artifact.folder}")
        with Engine.for_many(part.artifact, variant=part.variant["name"], threads=threads) as engine:
            started = time.perf_counter()
            outputs = engine.outputs(self.rows, lambda done: on_step("windows answered", done, len(self.rows)))
            return Reading(outputs, time.perf_counter() - started)

    def choose(self, small: Reading, large: Reading) -> Choice:
        """The lowest threshold with which this and every higher one pass; GateRefused where none does."""
        sure = np.concatenate([self._sureness(outputs) for outputs in small.outputs])
        reference = self._judge(large.outputs)
        chosen, refused = None, "the small model is sure of nothing"
        for threshold in np.unique(np.quantile(sure, np.arange(STEPS) / STEPS, method="higher"))[::-1]:
            doubtful = sure < threshold
            mixed = [large.outputs[row] if doubtful[row] else small.outputs[row] for row in range(len(sure))]
            agreement = self.task_gate.compare(self.questions.asked, self._judge(mixed), reference)
            reasons = self.task_gate.refusals(CASCADE, agreement, self.limits)
            if reasons:
                refused = "; ".join(reasons)
                break
            share = float(doubtful.mean())
            chosen = Choice(float(threshold), share, agreement, large.seconds / (small.seconds + share * large.seconds))
        if chosen is None:
            raise GateRefused(
                f"the large model would have to be asked everything: {refused}",
                hint="a larger small model, or lower --min-f1-ratio and --min-answer-f1",
            )
        return chosen

    def _sureness(self, outputs: Outputs) -> np.ndarray:
        tokens = len(outputs[self.outputs[0].name])
        return sureness({name: array[None] for name, array in outputs.items()}, self.outputs, np.ones((1, tokens)))

    def _judge(self, outputs: Sequence[Outputs]) -> Judged:
        return self.task_gate.judge(self.questions.asked, self.examples, outputs)


def refuse_other_tokens(small: Tokenizer, large: Tokenizer) -> None:
    """UsageError unless both make the same rows of a text, and the small model reads rows as long as the large one."""
    if not small.makes_rows_of(large):
        raise UsageError(
            "the two models cut text into different tokens", hint="two checkpoints with the same tokenizer"
        )
    if (small.max_length or 0) < (large.max_length or 0):
        raise UsageError(
            f"the small model reads rows of {small.max_length} tokens, and the large one of {large.max_length}",
            hint="a small model with as many positions",
        )


def copy_parts(parts: Parts, folder: Path) -> None:
    """The large artifact's files, and those of the small one's variant in a folder of the large one's."""
    small, large = parts
    for name in large.artifact.manifest["files"]:
        _copy(large.artifact.folder / name, folder / name)
    into = folder / "variants" / cascade_name(large.variant)
    for name in large.variant["files"]:
        _copy(large.artifact.folder / name, into / Path(name).relative_to(f"variants/{large.variant['name']}"))
    for name in small.variant["files"]:
        relative = Path(name).relative_to(f"variants/{small.variant['name']}")
        _copy(small.artifact.folder / name, into / SMALL_FOLDER / relative)
    for name in (SELFTEST_NAME, CONFIG_NAME):
        _copy(small.artifact.folder / name, into / SMALL_FOLDER / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def cascade_name(large: Variant) -> str:
    """Of the variant."""
    return f"{large['name']}-{CASCADE}"


def cascade_manifest(parts: Parts, gate: CascadeGate, choice: Choice) -> Manifest:
    """The manifest, still without checksums: that of the large artifact, with one variant."""
    small, large = parts
    of_large = large.artifact.manifest
    cascade = {
        "variant": {**small.variant, "files": {}},
        "checkpoint": small.artifact.manifest["checkpoint"],
        "threshold": choice.threshold,
        "share_of_large": choice.share_of_large,
    }
    variant = {
        **large.variant,
        "name": cascade_name(large.variant),
        "emulated": small.variant["emulated"] or large.variant["emulated"],
        "batch_invariant": small.variant["batch_invariant"] and large.variant["batch_invariant"],
        **choice.agreement.entry(),
        "cascade": cascade,
    }
    record = {
        "name": variant["name"],
        "outcome": "kept",
        "why": choice.why,
        "windows_per_s": [],
        "agreement": choice.agreement.as_dict(),
    }
    selects = {"row_selection": of_large["row_selection"]} if "row_selection" in of_large else {}
    return manifest_of(
        large.artifact.task,
        of_large["checkpoint"],
        [variant],
        environment(),
        outputs=[{"name": output.name, "per": output.per} for output in gate.outputs],
        gate={"skipped": False, "limits": vars(gate.limits), **gate_entry(gate.questions, False)},
        **selects,
        selection=[record],
    )
