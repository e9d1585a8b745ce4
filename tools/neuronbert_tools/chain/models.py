"""The two models of the chain as artifacts, compiled where the work folder has none of them yet."""

from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence

from neuronbert.artifact.manifest import Artifact
from neuronbert_tools.compiled import compiled_once, random_bert_base

BASE, STUDENT = "base", "student"
FP32, INT8 = "fp32", "int8"


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
    source = base or str(random_bert_base(work))
    return Models(
        # Its F1 is measured where it is trained, and means nothing where it is not.
        base=compiled_once(source, work, [backends[0]], [FP32], skip_gate=True),
        student={
            backend: compiled_once(student, work, [backend], [FP32, INT8], skip_gate=skip_gate) for backend in backends
        },
        is_random=base is None,
    )


def _described(artifact: Artifact) -> Dict[str, Any]:
    checkpoint = artifact.manifest["checkpoint"]
    named = ("architecture", "fingerprint", "parameters", "encoder_parameters")
    return {"source": Path(checkpoint["source"]).name, **{name: checkpoint[name] for name in named}}
