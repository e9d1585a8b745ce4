"""Chooses which of an artifact's variants (manifest.py) are loaded on this machine, for engine and runner."""

from pathlib import Path
from typing import Any, List, Optional

from neuronbert.artifact.manifest import SELFTEST_NAME, Artifact, Variant
from neuronbert.backends import BACKENDS, backend_module
from neuronbert.errors import ArtifactError, text_or_none
from neuronbert.hardware.libraries import PURPOSES, extras_with, install_command
from neuronbert.hardware.requirements import installs, unmet_requirements

SMALL_FOLDER = "small"  # in a cascade's folder: the files of the model that is asked first


def stages_of(variant: Variant) -> List[Variant]:
    """The models of a variant: itself, and in front of it the smaller one of a cascade (compiler/cascade.py)."""
    return [variant["cascade"]["variant"], variant] if "cascade" in variant else [variant]


def self_test_folder(artifact: Artifact, variant: Variant) -> Path:
    """Where the variant's self-test is: with the variant where its model is not the checkpoint's, as a pruned one."""
    own = f"variants/{variant['name']}/{SELFTEST_NAME}" in variant["files"]
    return artifact.variant_folder(variant) if own else artifact.folder


def choose_variants(artifact: Artifact, name: Optional[str] = None) -> List[Variant]:
    """What is loaded together: the variant called ``name``, or one of the backend ``name``, or of any (None).

    Without the name of one variant it is the first in the manifest's order (fastest first) that this machine can run
    and that may be loaded unasked, with its other buckets of static shapes. Raises ArtifactError naming the variants
    there are, what each lacks on this machine, and which would have to be named.
    """
    chosen = _choose(artifact, name)
    if name == chosen["name"] or chosen["sequence_length"] is None:
        return [chosen]
    return [variant for variant in artifact.variants if _family(variant) == _family(chosen)]


def may_be_loaded(artifact: Artifact, variant: Variant, name: Optional[str] = None) -> bool:
    """Whether a variant may be loaded where ``name`` was asked for (None: nothing was).

    The files of some backends are programs (``BY_NAME_ONLY``). Those are asked for by the backend's name, or by a
    variant's name that says it: a manifest may call its variants what it likes. Who signed the artifact with a key that
    is trusted has asked for them too.
    """
    if artifact.signed_by is not None:
        return True
    programs = [stage["backend"] for stage in stages_of(variant) if _is_program(stage["backend"])]
    return all(name is not None and (name == backend or name.startswith(f"{backend}-")) for backend in programs)


def _is_program(backend: str) -> bool:
    return backend in BACKENDS and backend_module(backend).BY_NAME_ONLY


def refuse_unasked(artifact: Artifact, variant: Variant, name: Optional[str]) -> None:
    """Raise ArtifactError for a variant that may not be loaded for want of its backend's name."""
    if not may_be_loaded(artifact, variant, name):
        program = next(stage["backend"] for stage in stages_of(variant) if _is_program(stage["backend"]))
        raise ArtifactError(
            f"{artifact.folder}: {variant['name']} is a {program} program, which could do whatever this "
            "user may, so it is only loaded where it is asked for by that name",
            hint=f"if you trust who made it, --variant {program}; else compile the checkpoint yourself",
        )


def _choose(artifact: Artifact, name: Optional[str]) -> Variant:
    variants = _called(artifact, name)
    unmet = {variant["name"]: _unmet(variant) for variant in variants}
    unasked = []
    for variant in variants:
        if not unmet[variant["name"]]:
            if may_be_loaded(artifact, variant, name):
                return variant
            unasked.append(variant)
    for variant in unasked:
        refuse_unasked(artifact, variant, name)
    lacks = "; ".join(f"{name} needs {', '.join(reasons)}" for name, reasons in unmet.items())
    # What the first needs that only has to be installed: the first is the fastest.
    loadable = [variant for variant in variants if may_be_loaded(artifact, variant, name)]
    extras = next(filter(None, map(_extras, loadable)), None)
    raise ArtifactError(
        f"{artifact.folder} has no variant for this machine: {lacks or 'it has no variants'}",
        hint=install_command(*extras) if extras else "neuronbert doctor, or compile the checkpoint on this machine",
    )


def _unmet(variant: Variant) -> List[str]:
    """What this machine lacks: of what the manifest asks for, and for the backend, whatever the manifest says."""
    return [lack for stage in stages_of(variant) for lack in _unmet_of_stage(stage)]


def _unmet_of_stage(variant: Variant) -> List[str]:
    unmet = unmet_requirements(variant["requires"])
    if variant["backend"] not in BACKENDS:
        return unmet
    device = backend_module(variant["backend"]).DEVICE
    asked = str(variant["requires"].get("device", "cpu"))
    return unmet if device == "cpu" or asked.startswith(device) else [*unmet, f"a {device} device, not {asked!r}"]


def _extras(variant: Variant) -> List[str]:
    """The extras whose installation is all that this machine lacks: the backend's own, where there is one."""
    lacking = [stage for stage in stages_of(variant) if _unmet_of_stage(stage)]
    found = [installs(stage["requires"]) for stage in lacking]
    absent = [library for libraries in found for library in libraries] if all(found) else []
    return [variant["backend"]] if absent and variant["backend"] in PURPOSES else [*extras_with(absent)]


def _called(artifact: Artifact, name: Optional[str]) -> List[Variant]:
    """The variant called ``name``; else those of the backend ``name``; all for None."""
    if text_or_none("variant", name) is None:
        return artifact.variants
    for key in ("name", "backend"):
        found = [variant for variant in artifact.variants if variant[key] == name]
        if found:
            return found
    available = ", ".join(variant["name"] for variant in artifact.variants)
    raise ArtifactError(f"{artifact.folder} has no variant {name!r}", hint=f"one of {available}")


def _family(variant: Variant) -> List[Any]:
    return [variant[key] for key in ("backend", "precision", "pipeline_cores", "compiler_args", "emulated")]
