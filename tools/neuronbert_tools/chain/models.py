"""The two models of the chain as artifacts, compiled where the work folder has none of them yet."""

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from neuronbert import compile_checkpoint
from neuronbert.artifact.files import new_folder
from neuronbert.artifact.manifest import Artifact, load_artifact
from neuronbert.hardware.machine import environment
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert_tools.acceptance.bert_base import write_bert_base
from neuronbert_tools.console import print_message
from neuronbert_tools.server.asking import TASK

BASE, STUDENT = "base", "student"
FP32, INT8 = "fp32", "int8"
LAYERS = 12  # of BERT-base


class Models(NamedTuple):
    """The artifacts by backend; the base model needs but the first, in FP32."""

    base: Artifact
    student: Dict[str, Artifact]
    is_random: bool  # the base model's weights

    def artifact(self, model: str, backend: str) -> Artifact:
        """That of a model for a backend."""
        return self.base if model == BASE else self.student[backend]

    def is_meaningful(self, model: str) -> bool:
        """Whether a model's answers are: an F1 of random weights would only mislead."""
        return model != BASE or not self.is_random

    @property
    def base_name(self) -> str:
        """What the base model is called."""
        return "BERT-base" if self.is_random else _described(self.base)["source"]

    def documents(self) -> Dict[str, Dict[str, Any]]:
        """What they are made of, for the report."""
        models = {BASE: self.base, STUDENT: next(iter(self.student.values()))}
        found = {name: _described(artifact) for name, artifact in models.items()}
        found[BASE]["random_weights"] = self.is_random
        return found


def prepare(base: Optional[str], student: str, backends: Sequence[str], work: Path, skip_gate: bool) -> Models:
    """Both models, from ``work`` or compiled into it; a ``base`` of None is BERT-base with random weights."""
    source = base or str(_random_base(work / "bert-base-random"))
    return Models(
        # Its F1 is measured where it is trained, and means nothing where it is not.
        base=_compiled(source, backends[0], [FP32], work, skip_gate=True),
        student={
            backend: _compiled(student, backend, [FP32, INT8] if first else [INT8], work, skip_gate)
            for first, backend in zip([True] + [False] * len(backends), backends)
        },
        is_random=base is None,
    )


def _random_base(folder: Path) -> Path:
    if not folder.exists():
        with new_folder(folder) as unfinished:
            write_bert_base(unfinished, LAYERS)
    return folder


def _compiled(source: str, backend: str, precisions: List[str], work: Path, skip_gate: bool) -> Artifact:
    """The artifact of these weights, options, libraries and CPU features, compiled once."""
    here = environment()
    fingerprint = load_checkpoint(source, task=TASK).fingerprint
    made_from = [fingerprint, skip_gate, here["neuronbert"], here["libraries"], here["cpu_flags"]]
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:12]
    folder = work / f"{backend}-{'-'.join(precisions)}-{digest}"
    if not folder.exists():
        print_message(f"compiling {source} for {backend} in {' and '.join(precisions)}: {folder}")
        compile_checkpoint(source, folder, task=TASK, backend=backend, precision=precisions, skip_gate=skip_gate)
    return load_artifact(folder)


def _described(artifact: Artifact) -> Dict[str, Any]:
    checkpoint = artifact.manifest["checkpoint"]
    named = ("architecture", "fingerprint", "parameters", "encoder_parameters")
    return {"source": Path(checkpoint["source"]).name, **{name: checkpoint[name] for name in named}}
