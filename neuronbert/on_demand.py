"""Compiles the static shapes that a sweep asks for and an artifact does not have, and keeps them for the next sweep."""

from typing import Any, Callable, Dict, Optional

from neuronbert.artifact import Artifact, Variant, load_artifact
from neuronbert.backends.neuron_compile import cache_folder
from neuronbert.compiler import compile_checkpoint
from neuronbert.errors import ArtifactError, CheckpointError
from neuronbert.sweep import Setting

Say = Callable[[str], None]


class Shapes:
    """The artifact of each setting: the given one, or one that was compiled on demand from the same weights."""

    def __init__(self, artifact: Artifact, instance_type: Optional[str], say: Say):
        self._artifact = artifact
        self._instance_type = instance_type
        self._say = say
        self._made: Dict[str, Artifact] = {}

    def missing(self, setting: Setting) -> bool:
        """Whether it has to be compiled first."""
        return all(one["name"] != setting.variant for one in self._artifact.variants)

    def artifact_for(self, setting: Setting) -> Artifact:
        """Compiles what is missing, telling how long one of the others took. Raises what compiling raises."""
        if not self.missing(setting):
            return self._artifact
        if setting.variant not in self._made:
            self._made[setting.variant] = self._cached(setting)
        return self._made[setting.variant]

    def _cached(self, setting: Setting) -> Artifact:
        like = self._like(setting)
        instance = self._instance_type or like["recipe"]["instance_type"]
        output = cache_folder().parent / "benchmark" / self._artifact.manifest["digest"][:16] / instance
        output = output / f"{setting.variant}-{like['precision']}"
        if not output.exists():
            self._say(f"{setting.variant} is compiled on demand for {instance}; {_took(like)}")
            self._compile(setting, like, instance, str(output))
        found = load_artifact(output)
        if found.manifest["checkpoint"]["fingerprint"] != self._artifact.manifest["checkpoint"]["fingerprint"]:
            raise CheckpointError(
                f"{self._source()} no longer holds the weights that {self._artifact.folder} was compiled from",
                hint=f"rm -r {output}, and compile the artifact anew or with this shape",
            )
        return found

    def _like(self, setting: Setting) -> Variant:
        """A variant of the same backend; its recipe is used for all but the shape."""
        return next(one for one in self._artifact.variants if setting.variant.startswith(one["backend"] + "-"))

    def _source(self) -> Any:
        checkpoint = self._artifact.manifest["checkpoint"]
        if str(checkpoint["source"]).startswith("in-memory "):
            raise ArtifactError(
                f"{self._artifact.folder} was compiled from a model in memory, so a missing shape cannot be compiled",
                hint="compile_checkpoint(..., batch_size=[...], sequence_length=[...]) with every shape",
            )
        return checkpoint["source"]

    def _compile(self, setting: Setting, like: Variant, instance: str, output: str) -> None:
        recipe = like["recipe"]
        compile_checkpoint(
            self._source(),
            output,
            backend=like["backend"],
            revision=self._artifact.manifest["checkpoint"]["revision"],
            batch_size=setting.batch_size,
            sequence_length=setting.sequence_length or like["sequence_length"],
            instance_type=instance,
            mode=setting.mode,
            neuroncore_pipeline_cores=setting.pipeline_cores or 1,
            auto_cast=recipe["auto_cast"],
            auto_cast_type=recipe["auto_cast_type"],
            compiler_timeout=recipe["compiler_timeout_s"],
            skip_gate=True,  # the same weights and the same casts: only the time of this shape is asked for
            progress=self._say,
        )


def _took(like: Variant) -> str:
    return f"{like['name']} took {like['compile_s']:.0f} s"
