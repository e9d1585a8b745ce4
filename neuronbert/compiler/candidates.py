"""Which variants compile tries, and what became of each; exporter.py builds them, selection.py decides."""

import os
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from statistics import median
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Union

import numpy as np

from neuronbert.backends import BACKENDS, backend_module, load_backend
from neuronbert.backends.base import ExportSource, Recipe, Session, ThroughputPlan
from neuronbert.errors import BackendUnavailable, UsageError
from neuronbert.hardware.cuda import VISIBLE_DEVICES, has_gpu, visible_entries
from neuronbert.hardware.machine import has_inferentia
from neuronbert.tasks.base import Agreement, Document

Names = Union[str, Sequence[str]]
VariantEntry = Dict[str, Any]  # a variant as the manifest will list it, filled in step by step

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8")


class Candidate(NamedTuple):
    """A variant to try. ``explicit``: asked for by backend and precision, so that failing is an error.

    ``percent_removed`` of the encoder's multiply-adds, before it is exported, and whether the model is the student
    instead of the checkpoint's: of rungs (ladder.py).
    """

    backend: str
    precision: str
    explicit: bool
    percent_removed: int = 0
    is_student: bool = False

    @property
    def name(self) -> str:
        student = "-student" if self.is_student else ""
        removed = f"-pruned-{self.percent_removed}" if self.percent_removed else ""
        return f"{self.backend}-{self.precision}{student}{removed}"

    @property
    def is_reduced(self) -> bool:
        """Whether it computes less than the checkpoint's model."""
        return self.is_student or self.percent_removed > 0

    @property
    def is_exact(self) -> bool:
        """Whether it computes the same function as the FP32 reference, but for rounding."""
        return self.precision == "fp32" and not self.is_reduced


@dataclass
class Trial:
    """What becomes of a candidate: ``kept``, ``slower``, ``refused`` by the gate, or ``not built``, and why."""

    candidate: Candidate
    outcome: str = ""
    why: str = ""
    recipes: List[Recipe] = field(default_factory=list)  # still to be tried
    recipe: Recipe = field(default_factory=dict)  # that was built last, as the backend gave it
    source: Optional[ExportSource] = None  # of another model than the checkpoint's own
    selftest: Optional[Dict[str, np.ndarray]] = None  # of such a model
    variants: List[VariantEntry] = field(default_factory=list)  # a single one, or one for each bucket
    session: Optional[Session] = None
    plan: ThroughputPlan = ThroughputPlan(streams=1, rows=1, tokens=1)
    folders: List[Path] = field(default_factory=list)  # made for it
    agreements: List[Agreement] = field(default_factory=list)  # of the variants that the gate has compared
    windows_per_s: List[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Windows per second, the median of the rounds."""
        return median(self.windows_per_s) if self.windows_per_s else 0.0

    def records(self) -> List[Document]:
        """For the manifest: one entry for each variant, or one for a candidate that came to nothing."""
        return [
            {
                "name": variant["name"],
                "outcome": self.outcome,
                "why": self.why,
                "windows_per_s": [round(value, 2) for value in self.windows_per_s],
                "agreement": agreement.as_dict() if agreement else None,
            }
            for variant, agreement in zip_longest(self.variants or [{"name": self.candidate.name}], self.agreements)
        ]


def names(value: Names) -> List[str]:
    """``"a,b"``, ``["a", "b"]`` or ``"a"`` as a list without repetitions."""
    parts = [value] if isinstance(value, str) else list(value)
    return list(dict.fromkeys(name.strip() for part in parts for name in part.split(",") if name.strip()))


def choose_candidates(backend: Names, precision: Names, neuron_precision: Optional[str] = None) -> List[Candidate]:
    """Every combination of the names given; ``auto`` stands for all that could be tried.

    ``neuron_precision`` is the one precision that ``auto`` stands for on inf1, given the compiler arguments for it.
    Raises UsageError for unknown names and for combinations that no backend offers; where every name is given, for each
    that is not offered, else when none is left.
    """
    backends, precisions = names(backend), names(precision)
    for value in precisions:
        if value not in PRECISIONS + ("auto",):
            raise UsageError(f"there is no precision {value!r}", hint=f"one of auto, {', '.join(PRECISIONS)}")
    for chosen in (backends, precisions):
        if "auto" in chosen and len(chosen) > 1:
            raise UsageError(
                f"auto cannot be combined with other names: {', '.join(chosen)}", hint="auto alone, or the names alone"
            )
    explicit = "auto" not in backends + precisions
    candidates = [
        Candidate(name, offered, explicit or (name == "neuron" and backends != ["auto"]))
        for name in (auto_backends() if backends == ["auto"] else backends)
        for offered in _offered(name, precisions, neuron_precision)
    ]
    if not candidates:
        raise UsageError(
            f"no backend of {', '.join(backends) or 'none'} offers {', '.join(precisions) or 'no precision'}",
            hint=_offers(BACKENDS if backends == ["auto"] else backends) or "--backend auto --precision auto",
        )
    missing = [
        f"{name} does not offer {value}"
        for name in backends
        for value in precisions
        if explicit and value not in _offered(name, precisions, neuron_precision)
    ]
    if missing:
        raise UsageError("; ".join(missing), hint=f"one compile for each backend, or {_offers(backends)}")
    return candidates


def refuse_unavailable(candidates: Sequence[Candidate]) -> None:
    """Raise BackendUnavailable for a candidate that was asked for by name and that this machine cannot have.

    So for the first of a backend that this machine can have in no precision, where there is no other.
    """
    faults = []
    only = len({candidate.backend for candidate in candidates}) == 1
    for candidate in candidates:
        if not (candidate.explicit or only):
            continue
        try:
            load_backend(candidate.backend).check_available(candidate.precision)
        except BackendUnavailable as error:
            if candidate.explicit:
                raise
            faults.append(error)
    if faults and len(faults) == len(candidates):
        raise faults[0]


def _offers(backends: Iterable[str]) -> str:
    return "; ".join(f"{name}: {', '.join(load_backend(name).PRECISIONS)}" for name in backends)


def auto_backends() -> Sequence[str]:
    """The backends that ``auto`` stands for on this machine: those of its device, by their rank.

    On an inf1 instance, real or emulated, those are the ones for its chips, and else where there is a GPU those for
    GPUs: they are what is paid for. Whoever hides the GPUs (CUDA_VISIBLE_DEVICES) means the CPU, which is also
    what is left where a GPU cannot be used (``unusable_gpu``).
    """
    device = _auto_device()
    modules = {name: backend_module(name) for name in BACKENDS}
    ranks = {name: module.AUTO_RANK for name, module in modules.items() if module.DEVICE == device}
    return [name for _, name in sorted((rank, name) for name, rank in ranks.items() if rank is not None)]


def _auto_device() -> str:
    if has_inferentia() or os.environ.get("NEURONBERT_EMULATE"):
        return "neuron"
    return "cuda" if _shows_gpu() and unusable_gpu() is None else "cpu"


def _shows_gpu() -> bool:
    hidden = VISIBLE_DEVICES in os.environ and not visible_entries(os.environ[VISIBLE_DEVICES])
    return has_gpu() and not hidden


def unusable_gpu() -> Optional[str]:
    """Why no backend can use the GPU that this machine shows, and what helps; None where one can, or none is shown."""
    if not _shows_gpu():
        return None
    fault: Optional[BackendUnavailable] = None
    on_gpus = [module for module in map(backend_module, BACKENDS) if module.DEVICE == "cuda"]
    for backend, precision in ((each, precision) for each in on_gpus for precision in each.PRECISIONS):
        try:
            backend.check_available(precision)
            return None
        except BackendUnavailable as error:
            fault = fault or error
    return None if fault is None else f"the GPU is left alone: {fault.message} (try: {fault.hint})"


def _offered(backend: str, precisions: Sequence[str], neuron_precision: Optional[str]) -> List[str]:
    offered = load_backend(backend).PRECISIONS
    if backend == "neuron" and neuron_precision is not None:
        offered = (neuron_precision,)
    return list(offered) if list(precisions) == ["auto"] else [value for value in precisions if value in offered]
