"""Chooses which of an artifact's variants (manifest.py) are loaded on this machine, for engine and runner."""

from typing import Any, List, Optional

from neuronbert.artifact.manifest import Artifact, Variant
from neuronbert.errors import ArtifactError
from neuronbert.hardware.requirements import unmet_requirements


def choose_variant(artifact: Artifact, name: Optional[str] = None) -> Variant:
    """The variant called ``name``, or the first in the manifest's order (fastest first) that this machine can run.

    Raises ArtifactError naming the variants there are, and what each lacks on this machine.
    """
    variants = artifact.variants
    if name is not None:
        variants = [variant for variant in variants if variant["name"] == name]
        if not variants:
            available = ", ".join(variant["name"] for variant in artifact.variants)
            raise ArtifactError(f"{artifact.folder} has no variant {name!r}", hint=f"one of {available}")
    unmet = {variant["name"]: unmet_requirements(variant["requires"]) for variant in variants}
    for variant in variants:
        if not unmet[variant["name"]]:
            return variant
    lacks = "; ".join(f"{name} needs {', '.join(reasons)}" for name, reasons in unmet.items())
    raise ArtifactError(
        f"{artifact.folder} has no variant for this machine: {lacks or 'it has no variants'}",
        hint="neuronbert doctor, or compile the checkpoint on this machine",
    )


def choose_variants(artifact: Artifact, name: Optional[str] = None) -> List[Variant]:
    """What is loaded together: the chosen variant and, where none was named, its other buckets of static shapes."""
    chosen = choose_variant(artifact, name)
    if name is not None or chosen["sequence_length"] is None:
        return [chosen]
    return [variant for variant in artifact.variants if _family(variant) == _family(chosen)]


def _family(variant: Variant) -> List[Any]:
    return [variant[key] for key in ("backend", "precision", "pipeline_cores", "compiler_args", "emulated")]
