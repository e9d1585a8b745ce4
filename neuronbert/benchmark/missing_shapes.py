"""Compiles the static shapes that a sweep asks for and an artifact lacks, and keeps them for the next sweep.

artifact_target.py asks for the artifact of each point; compiler/ does the work.
"""

from pathlib import Path
from typing import Any, Callable, Dict

from neuronbert.artifact.manifest import Artifact, Variant, signed_artifact
from neuronbert.benchmark.instances import PointInstances
from neuronbert.benchmark.points import Setting, template_variant
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.errors import ArtifactError, CheckpointError, quoted
from neuronbert.hardware.own_places import cache_path, own_folder

Progress = Callable[[str], None]  # called with a line for the user


class ShapeCompiler:
    """Gives each setting its artifact: the sweep's own, or one compiled on demand from the same weights."""

    def __init__(self, artifact: Artifact, instances: PointInstances, progress: Progress):
        self._artifact = artifact
        self._instances = instances
        self._progress = progress
        self._compiled: Dict[str, Artifact] = {}  # by the variant's name

    def compile_s(self, setting: Setting) -> float:
        """Seconds that compiling it should take, as the artifact's own variant did; 0 for what is there already."""
        if not self._is_missing(setting) or self._path(setting).exists():
            return 0.0
        return float(self._template(setting)["compile_s"])

    def artifact_for(self, setting: Setting) -> Artifact:
        """The artifact that has the setting's variant, compiled now if it is missing.

        Raises ArtifactError and CheckpointError where the weights are out of reach, and whatever compiling raises.
        """
        if not self._is_missing(setting):
            return self._artifact
        if setting.variant not in self._compiled:
            self._compiled[setting.variant] = self._cached(setting)
        return self._compiled[setting.variant]

    def _is_missing(self, setting: Setting) -> bool:
        return all(variant["name"] != setting.variant for variant in self._artifact.variants)

    def _cached(self, setting: Setting) -> Artifact:
        output, template = self._path(setting), self._template(setting)
        if not output.exists():
            took = f"{template['name']} took {template['compile_s']:.0f} s"
            self._progress(f"{setting.variant} is compiled on demand for {self._instances.name_of(setting)}; {took}")
            self._compile(setting, template, str(output))
        compiled = signed_artifact(output, ())  # in a folder where nobody else writes
        if compiled.manifest["checkpoint"]["fingerprint"] != self._artifact.manifest["checkpoint"]["fingerprint"]:
            raise CheckpointError(
                f"{self._source()} no longer holds the weights that {self._artifact.folder} was compiled from",
                hint=f"rm -r {quoted(output)}, and compile the artifact anew or with this shape",
            )
        return compiled

    def _path(self, setting: Setting) -> Path:
        precision = self._template(setting)["precision"]
        # Who could plant an artifact here would have it loaded unsigned.
        folder = own_folder(cache_path("benchmark")) / str(self._artifact.manifest["digest"])[:16]
        return folder / self._instances.name_of(setting) / f"{setting.variant}-{precision}"

    def _template(self, setting: Setting) -> Variant:
        return template_variant(self._artifact.variants, setting)

    def _source(self) -> str:
        source = str(self._artifact.manifest["checkpoint"]["source"])
        if source.startswith("in-memory "):
            raise ArtifactError(
                f"{self._artifact.folder} was compiled from a model in memory, so a missing shape cannot be compiled",
                hint="compile_checkpoint(..., batch_size=[...], sequence_length=[...]) with every shape",
            )
        return source

    def _compile(self, setting: Setting, template: Variant, output: str) -> None:
        assert setting.batch_size is not None
        compile_checkpoint(
            self._source(),
            output,
            backend=template["backend"],
            revision=self._artifact.manifest["checkpoint"]["revision"],
            batch_size=setting.batch_size,
            sequence_length=setting.sequence_length or template["sequence_length"],
            **self._made_like(setting, template),
            skip_gate=True,  # the same weights and the same casts: only the time of this shape is asked for
            progress=self._progress,
        )

    def _made_like(self, setting: Setting, template: Variant) -> Dict[str, Any]:
        """The options of the template's backend, as it was compiled."""
        recipe = template["recipe"]
        if setting.pipeline_cores is None:
            return {"tuning_minutes": recipe["tuning_minutes"], "threads": recipe["threads"]}
        return {
            "instance_type": self._instances.name_of(setting),
            "mode": setting.mode,
            "neuroncore_pipeline_cores": setting.pipeline_cores,
            "auto_cast": recipe["auto_cast"],
            "auto_cast_type": recipe["auto_cast_type"],
            "compiler_timeout": recipe["compiler_timeout_s"],
        }
