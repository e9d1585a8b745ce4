"""Whether this machine meets what an artifact requires, and a version its bounds; ``machine`` says what there is."""

import os
import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, Tuple

from neuronbert.hardware.cuda import NVML, Gpu, gpu_records, gpus_in_words, has_gpu, visible_gpus, why_no_gpu
from neuronbert.hardware.machine import cpu_flags, has_flag, has_inferentia, library_version
from neuronbert.hardware.schema import shown


def unmet_requirements(requires: Mapping[str, Any]) -> List[str]:
    """What ``requires`` asks for and this machine lacks, in words; empty when all is met.

    ``requires`` is a manifest's ``{"cpu_flags": ["avx512_vnni|avx_vnni"], "libraries": {"openvino": ">=2024.4"},
    "device": "cuda", "compute_capability": ">=8.0"}``: every flag entry must be met by one of its ``|`` alternatives,
    and the compute capability by one of the GPUs that this process may use.
    """
    known: Dict[str, Callable[[Any], List[str]]] = {
        "cpu_flags": _unmet_flags,
        "libraries": _unmet_libraries,
        "device": _unmet_device,
        "compute_capability": _unmet_capability,
    }
    unmet: List[str] = []
    for key, wanted in _with_all_libraries(requires).items():
        if key not in known:
            unmet.append(f"a requirement this version does not know: {shown(key)} = {shown(wanted)}")
        else:
            unmet += known[key](wanted)
    return unmet


def installs(requires: Mapping[str, Any]) -> List[str]:
    """The distributions whose installation is all that this machine lacks of ``requires``; else none."""
    wanted = _with_all_libraries(requires).get("libraries", {})
    absent = [name for name in wanted if library_version(name) is None]
    return absent if len(absent) == len(unmet_requirements(requires)) else []


def gpus_that_meet(requires: Mapping[str, Any]) -> List[Gpu]:
    """Those of this process's GPUs and slices whose compute capability is what ``requires`` asks for, in order."""
    return [gpu for gpu in visible_gpus() if version_meets(gpu.capability, requires.get("compute_capability", ""))]


def version_meets(version: str, specifier: str) -> bool:
    """Whether a release satisfies a comma-separated specifier such as ``>=2024.4,<2027`` or ``==1.13.*``.

    Only the numeric release counts (PEP 440 without epochs, pre-releases and local parts): the bounds that
    manifests record are plain releases.
    """
    return all(_clause_met(_release(version), clause.strip()) for clause in specifier.split(",") if clause.strip())


def _with_all_libraries(requires: Mapping[str, Any]) -> Mapping[str, Any]:
    """``requires`` with the library without which nobody can say whether the device is there."""
    if requires.get("device") != "cuda":
        return requires
    libraries = requires.get("libraries", {})
    return {**requires, "libraries": {**libraries, NVML: libraries.get(NVML, "")}}


def _unmet_flags(wanted: Iterable[str]) -> List[str]:
    return [
        f"a CPU with {alternatives.replace('|', ' or ')}"
        for alternatives in wanted
        if not has_flag(cpu_flags(), alternatives)
    ]


def _unmet_libraries(wanted: Mapping[str, str]) -> List[str]:
    unmet = []
    for name, specifier in wanted.items():
        version = library_version(name)
        if version is None:
            unmet.append(f"{name} {specifier}".strip() + " (not installed)")
        elif not version_meets(version, specifier):
            unmet.append(f"{name} {specifier} (installed: {version})")
    return unmet


def _unmet_device(wanted: str) -> List[str]:
    if wanted == "cpu":
        return []
    if wanted == "cuda":
        return _unmet_gpu()
    emulated = os.environ.get("NEURONBERT_EMULATE")
    if wanted == "neuron" and emulated:
        return [f"a real Inferentia device (NEURONBERT_EMULATE={emulated} stands in for it)"]
    if wanted == "neuron":
        return [] if has_inferentia() else ["an Inferentia device (/dev/neuron0 does not exist)"]
    if wanted == "neuron-emulated":
        return [] if emulated else ["the emulated device it was compiled on (NEURONBERT_EMULATE=inf1.xlarge)"]
    return [f"a device of kind {wanted!r}, which this version does not know"]


def _unmet_gpu() -> List[str]:
    fault = why_no_gpu()
    if fault is None or (has_gpu() and library_version(NVML) is None):  # what is missing is a library, and named as one
        return []
    return [f"an NVIDIA GPU ({fault})"]


def _unmet_capability(wanted: str) -> List[str]:
    gpus = gpu_records()
    if not gpus or gpus_that_meet({"compute_capability": wanted}):  # none at all is the device's matter
        return []
    return [f"a GPU of compute capability {wanted} (there is {gpus_in_words(gpus)})"]


def _release(version: str) -> Tuple[int, ...]:
    match = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    return tuple(int(part) for part in match.group(1).split(".")) if match else ()


def _clause_met(release: Tuple[int, ...], clause: str) -> bool:
    match = re.match(r"(>=|<=|==|!=|~=|>|<)\s*v?(\d+(?:\.\d+)*)(\.\*)?$", clause)
    if not match:
        raise ValueError(f"not a version requirement: {clause!r}")
    operator, bound, prefix = match.group(1), _release(match.group(2)), bool(match.group(3))
    width = max(len(release), len(bound))
    here, there = _padded(release, width), _padded(bound, width)
    if prefix or operator == "~=":
        stem = bound if prefix else bound[:-1]
        same_series = here[: len(stem)] == stem
        return {"==": same_series, "!=": not same_series, "~=": same_series and here >= there}.get(operator, False)
    order = (here > there) - (here < there)
    return {">=": order >= 0, "<=": order <= 0, "==": order == 0, "!=": order != 0, ">": order > 0, "<": order < 0}[
        operator
    ]


def _padded(release: Tuple[int, ...], width: int) -> Tuple[int, ...]:
    return release + (0,) * (width - len(release))
