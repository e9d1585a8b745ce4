"""Compiles the static shapes that a sweep asks for and an artifact does not have, and keeps them for the next sweep."""

from pathlib import Path
from typing import Any, Callable, Dict, Optional

from neuronbert.artifact.manifest import Artifact, Variant, load_artifact
from neuronbert.backends.neuron.compile_job import cache_folder
from neuronbert.benchmark.points import Setting, like
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.errors import ArtifactError, CheckpointError

Say = Callable[[str], None]


class Shapes:
    """The artifact of each setting: the given one, or one that was compiled on demand from the same weights."""

    def __init__(self, artifact: Artifact, instance_type: Optional[str], say: Say):
        self._artifact = artifact
        self._instance_type = instance_type
        self._say = say
        self._made: Dict[str, Artifact] = {}

    def missing(self, setting: Setting) -> bool:
        """Whether the artifact does not have it."""
        return all(one["name"] != setting.variant for one in self._artifact.variants)

    def compile_s(self, setting: Setting) -> float:
        """Seconds that compiling it will take, if like the artifact's own; 0 for what is there."""
        if not self.missing(setting) or self._path(setting).exists():
            return 0.0
        return float(self._like(setting)["compile_s"])

    def artifact_for(self, setting: Setting) -> Artifact:
        """Compiles what is missing, telling how long one of the others took. Raises what compiling raises."""
        if not self.missing(setting):
            return self._artifact
        if setting.variant not in self._made:
            self._made[setting.variant] = self._cached(setting)
        return self._made[setting.variant]

    def _cached(self, setting: Setting) -> Artifact:
        output, model = self._path(setting), self._like(setting)
        if not output.exists():
            self._say(f"{setting.variant} is compiled on demand for {self._instance(model)}; {_took(model)}")
            self._compile(setting, model, str(output))
        found = load_artifact(output)
        if found.manifest["checkpoint"]["fingerprint"] != self._artifact.manifest["checkpoint"]["fingerprint"]:
            raise CheckpointError(
                f"{self._source()} no longer holds the weights that {self._artifact.folder} was compiled from",
                hint=f"rm -r {output}, and compile the artifact anew or with this shape",
            )
        return found

    def _path(self, setting: Setting) -> Path:
        model = self._like(setting)
        folder = cache_folder().parent / "benchmark" / self._artifact.manifest["digest"][:16] / self._instance(model)
        return folder / f"{setting.variant}-{model['precision']}"

    def _instance(self, model: Variant) -> str:
        return self._instance_type or str(model["recipe"]["instance_type"])

    def _like(self, setting: Setting) -> Variant:
        return like(self._artifact.variants, setting)

    def _source(self) -> Any:
        checkpoint = self._artifact.manifest["checkpoint"]
        if str(checkpoint["source"]).startswith("in-memory "):
            raise ArtifactError(
                f"{self._artifact.folder} was compiled from a model in memory, so a missing shape cannot be compiled",
                hint="compile_checkpoint(..., batch_size=[...], sequence_length=[...]) with every shape",
            )
        return checkpoint["source"]

    def _compile(self, setting: Setting, model: Variant, output: str) -> None:
        recipe = model["recipe"]
        compile_checkpoint(
            self._source(),
            output,
            backend=model["backend"],
            revision=self._artifact.manifest["checkpoint"]["revision"],
            batch_size=setting.batch_size,
            sequence_length=setting.sequence_length or model["sequence_length"],
            instance_type=self._instance(model),
            mode=setting.mode,
            neuroncore_pipeline_cores=setting.pipeline_cores or 1,
            auto_cast=recipe["auto_cast"],
            auto_cast_type=recipe["auto_cast_type"],
            compiler_timeout=recipe["compiler_timeout_s"],
            skip_gate=True,  # the same weights and the same casts: only the time of this shape is asked for
            progress=self._say,
        )


def _took(model: Variant) -> str:
    return f"{model['name']} took {model['compile_s']:.0f} s"
