"""The points of a sweep: which settings are measured, from options as a person gives them; sweep.py measures them."""

import itertools
import math
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from neuronbert.artifact.manifest import Artifact, Variant
from neuronbert.artifact.variants import choose_variants, may_be_loaded, refuse_unasked
from neuronbert.backends.base import Bucket
from neuronbert.benchmark.load import refuse_crowd
from neuronbert.errors import ArtifactError, UsageError
from neuronbert.hardware.cores import DATA_PARALLEL, PIPELINE

SCENARIOS = ("single-stream", "server", "offline")
CLOSED, OPEN, OFFLINE = "closed", "open", "offline"
CONCURRENCY = "1,2,4,8,16"  # clients, where nothing else was asked for
MOST_NUMBERS = 1000
# Rows of a batch where shapes are dynamic and no batch size was asked for.
DYNAMIC_BATCH_SIZE = 8


class LoadSpec(NamedTuple):
    """How requests come.

    closed: ``number`` clients that wait for their answers. offline: as many clients as keep every batch full. open:
    ``number`` requests a second, whether or not answered; None is a share of what the same setting reached offline.
    """

    kind: str
    number: Optional[float]


class Setting(NamedTuple):
    """One point of a sweep."""

    variant: str
    pipeline_cores: Optional[int]  # static shapes: of each copy of the model
    workers: Optional[int]  # None: what the runner takes by itself
    threads: Optional[int]  # of each worker; None likewise
    batch_size: Optional[int]  # None: a server's own
    sequence_length: Optional[int]  # tokens; None: shapes are dynamic, and questions have their own lengths
    text: bool  # questions with their own lengths; else rows that are full
    load: LoadSpec

    @property
    def mode(self) -> str:
        """Static shapes: what ``compile --mode`` calls it."""
        return PIPELINE if self.pipeline_cores and self.pipeline_cores > 1 else DATA_PARALLEL


class Axes(NamedTuple):
    """The options, each a list as text; "" stands for the default."""

    batch_size: str = ""
    workers: str = ""
    threads: str = ""
    sequence_length: str = ""
    neuroncore_pipeline_cores: str = ""


def settings_of(variants: Sequence[Variant], axes: Axes, loads: Sequence[LoadSpec]) -> List[Setting]:
    """Every combination, static shapes that no variant has included: they are compiled when their turn comes."""
    workers: List[Optional[int]] = [*whole_numbers(axes.workers, "--workers")] or [None]
    threads: List[Optional[int]] = [*whole_numbers(axes.threads, "--threads")] or [None]
    shapes = [shape for base in _bases(variants) for shape in _shapes(base, variants, axes)]
    return [
        Setting(
            variant=shape.variant,
            pipeline_cores=shape.pipeline_cores,
            workers=worker_count,
            threads=thread_count,
            batch_size=shape.batch_size,
            sequence_length=shape.sequence_length,
            text=not axes.sequence_length,
            load=load,
        )
        for shape, worker_count, thread_count, load in itertools.product(shapes, workers, threads, loads)
    ]


def _bases(variants: Sequence[Variant]) -> List[Variant]:
    """One variant for each backend and precision."""
    bases: Dict[Tuple[str, str], Variant] = {}
    for variant in variants:
        bases.setdefault(_kind(variant), variant)
    return list(bases.values())


def _kind(variant: Variant) -> Tuple[str, str]:
    return variant["backend"], variant["precision"]


class _Shape(NamedTuple):
    """The part of a ``Setting`` that comes from the artifact's variants."""

    variant: str
    pipeline_cores: Optional[int]
    batch_size: int
    sequence_length: Optional[int]


def _shapes(base: Variant, variants: Sequence[Variant], axes: Axes) -> Iterator[_Shape]:
    """The shapes to measure of one backend and precision; UsageError for options that do not fit them."""
    sizes = whole_numbers(axes.batch_size, "--batch-size")
    lengths = whole_numbers(axes.sequence_length, "--sequence-length")
    cores = whole_numbers(axes.neuroncore_pipeline_cores, "--neuroncore-pipeline-cores")
    if base["pipeline_cores"] is not None and axes.threads:
        raise UsageError(f"{base['name']} runs on NeuronCores, and --threads is for CPUs", hint="leave out --threads")
    if base["pipeline_cores"] is None and cores:
        raise UsageError(f"{base['name']} has no NeuronCores to spread over")
    if base["batch_size"] is None:
        dynamic: List[Optional[int]] = [*lengths] or [None]
        for size, length in itertools.product(sizes or [DYNAMIC_BATCH_SIZE], dynamic):
            yield _Shape(base["name"], None, size, length)
        return
    wanted = {
        Bucket(*bucket)
        for variant in variants
        if _kind(variant) == _kind(base)
        for bucket in itertools.product(
            sizes or [variant["batch_size"]],
            lengths or [variant["sequence_length"]],
            cores or [variant["pipeline_cores"]],
        )
    }
    for bucket in sorted(wanted):
        name = f"{base['backend']}-{bucket.name}"
        yield _Shape(name, bucket.pipeline_cores, bucket.batch_size, bucket.sequence_length)


def chosen_variants(artifact: Artifact, variant: str, precision: str) -> List[Variant]:
    """The variants by name, backend or precision; without either, the preferred one with all of its shapes.

    Raises UsageError for both, ArtifactError for what the artifact does not have.
    """
    names = [part.strip() for part in variant.split(",") if part.strip()]
    precisions = [part.strip() for part in precision.split(",") if part.strip()]
    if names and precisions:
        raise UsageError("--variant names variants, and --precision chooses among all", hint="one of the two")
    if not names and not precisions:
        return choose_variants(artifact)
    there = ", ".join(present["name"] for present in artifact.variants)
    by_name = [(name, ("name", "backend")) for name in names]
    by_precision = [(value, ("precision",)) for value in precisions]
    for wanted, keys in [*by_name, *by_precision]:
        if not any(present[key] == wanted for key in keys for present in artifact.variants):
            raise ArtifactError(
                f"{artifact.folder} has no variant of {keys[0]} {wanted}; it has {there}",
                hint=f"neuronbert compile CHECKPOINT OUTPUT --precision {wanted}" if wanted in precisions else there,
            )
    chosen = []
    for present in artifact.variants:
        asked = [name for name in names if name in (present["name"], present["backend"])]
        if asked:
            refuse_unasked(artifact, present, asked[0])
        if asked or (present["precision"] in precisions and may_be_loaded(artifact, present)):
            chosen.append(present)
    return chosen


def template_variant(variants: Sequence[Variant], setting: Setting) -> Variant:
    """The setting's variant, or where its shape has to be compiled one of its backend, whose recipe is followed."""
    named = [variant for variant in variants if variant["name"] == setting.variant]
    of_backend = [variant for variant in variants if setting.variant.startswith(variant["backend"] + "-")]
    if not named + of_backend:
        raise ArtifactError(
            f"there is no variant whose recipe {setting.variant} could follow",
            hint=f"one of {', '.join(variant['name'] for variant in variants)}",
        )
    return (named + of_backend)[0]


def loads_of(scenario: Optional[str], concurrency: str, request_rate: str, *, loadgen: bool) -> List[LoadSpec]:
    """How requests come, from the options. LoadGen knows only the three scenarios, and runs all without a choice."""
    if scenario not in (None, *SCENARIOS):
        raise UsageError(f"there is no scenario {scenario!r}", hint=f"one of {', '.join(SCENARIOS)}")
    if concurrency and (scenario or request_rate or loadgen):
        option = "--scenario" if scenario else "--request-rate" if request_rate else "--loadgen"
        raise UsageError(f"--concurrency is of clients that wait, and {option} asks otherwise", hint="one of the two")
    if request_rate and scenario in ("single-stream", "offline"):
        raise UsageError(f"--request-rate is for the server scenario, not {scenario}", hint="--scenario server")
    rates = [LoadSpec(OPEN, rate) for rate in numbers(request_rate, "--request-rate")]
    if scenario == "server" and not rates:
        return [LoadSpec(OFFLINE, None), LoadSpec(OPEN, None)]
    if scenario == "single-stream":
        return [LoadSpec(CLOSED, 1)]
    if scenario == "offline":
        return [LoadSpec(OFFLINE, None)]
    if loadgen and scenario is None:
        return [LoadSpec(CLOSED, 1), LoadSpec(OFFLINE, None), *(rates or [LoadSpec(OPEN, None)])]
    if rates:
        return rates
    clients = whole_numbers(concurrency or CONCURRENCY, "--concurrency")
    refuse_crowd(max(clients), "--concurrency")
    return [LoadSpec(CLOSED, number) for number in clients]


def numbers(text: str, name: str) -> List[float]:
    """ "1,2,4", "1:16" (1, 2, 4, 8, 16), "50:400:50"; UsageError, naming the option, for anything else."""
    try:
        parts = [_range([float(bound) for bound in part.split(":")]) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}: {error}", hint=f"{name} 1,2,4 or 1:16 or 50:400:50") from None
    values = list(dict.fromkeys(itertools.chain.from_iterable(parts)))
    if text.strip() and not values:
        raise UsageError(f"{name} is {text!r} and holds no number", hint=f"{name} 1,2,4")
    return values


def _range(bounds: List[float]) -> List[float]:
    if not all(math.isfinite(bound) and bound > 0 for bound in bounds):
        raise ValueError("numbers must be above 0 and finite")
    if len(bounds) == 1:
        return bounds
    first, last, step = [*bounds, 0.0][:3]
    if len(bounds) > 3 or last < first:
        raise ValueError("not a range of FIRST:LAST or FIRST:LAST:STEP")
    steps = ((last - first) / step if step else math.log2(last) - math.log2(first)) + 1e-9
    if steps >= MOST_NUMBERS:
        raise ValueError(f"more numbers than the {MOST_NUMBERS} that a sweep takes")
    count = int(steps) + 1
    return [float(f"{first + number * step if step else first * 2**number:.12g}") for number in range(count)]


def whole_numbers(text: str, name: str) -> List[int]:
    """As ``numbers``, refusing fractions."""
    values = numbers(text, name)
    if any(number != int(number) for number in values):
        raise UsageError(f"{name} is {text!r}, and its numbers must be whole")
    return [int(number) for number in values]
