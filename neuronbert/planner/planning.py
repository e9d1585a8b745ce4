"""Which instance type, mode, cores and batch size serve a checkpoint at a target, what that costs, and why.

Every layout of every inf1 size goes through the device model (how long a batch takes) and through ``queueing`` (how
long requests wait for one another at the asked load); points that ``neuronbert benchmark`` measured join them.
``planner_text`` says it in words.
"""

import functools
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.benchmark.report import IDENTITY, LOAD, read_report
from neuronbert.errors import CheckpointError, InputError, NoConfiguration, UsageError
from neuronbert.hardware import cores
from neuronbert.hardware.device_model import LATEST_RELEASE, RELEASES, ModelShape, Work, stage_seconds
from neuronbert.hardware.prices import Price, PriceBook, load_prices
from neuronbert.planner.queueing import MAX_WAIT_S, Load, Service, under_load

OBJECTIVES = ("cost", "latency", "throughput")
# The sizes in AWS's tables and tutorials: between them the device model would interpolate what nobody has measured.
BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12)
PIPELINE_CORES = (2, 4, 8, 16)
# Utilisation of the first instance that is tried where no load was asked for: from the headroom down.
LOAD_STEPS = 20
# So many times the instances that the headroom asks for: hardly a request waits for another then.
MOST_IDLE = 20


class Target(NamedTuple):
    """What is asked of a configuration."""

    throughput_per_s: Optional[float]  # None: as much as one instance takes
    latency_p95_ms: Optional[float]
    objective: str
    headroom: float  # share of the capacity that is kept free
    sequence_length: int
    sdk_release: str = LATEST_RELEASE  # of the Neuron SDK: how fast the device model takes the device to be


@dataclass(frozen=True)
class Configuration:
    """A layout of an instance type, with what it does at the asked load; ``rejected`` says why it is none."""

    instance_type: str
    mode: str  # data-parallel, pipeline, or what was measured on a CPU
    pipeline_cores: int
    batch_size: int
    models: int  # copies on an instance
    measured: bool  # by neuronbert benchmark; else predicted by the device model
    formula: bool  # its cores are 4 * round(weights / 2e7)
    compile_command: str
    service: Optional[Service]
    price: Optional[Price]
    spread: float = 1.0  # p95 of a measured batch over its p50
    instances: int = 0
    load_per_instance: float = 0.0
    latency: Optional[Load] = None
    rejected: str = ""

    @property
    def name(self) -> str:
        cut = f" × {self.pipeline_cores}" if self.mode == cores.PIPELINE else ""
        return f"{self.mode}{cut}, batch {self.batch_size}, {self.instance_type}"

    @property
    def capacity_per_s(self) -> float:
        """Requests a second that one instance could take."""
        return self.service.capacity_per_s if self.service else 0.0

    @property
    def service_ms(self) -> float:
        """One batch when nothing else runs."""
        return self.service.service_s * 1e3 if self.service else math.inf

    @property
    def p50_ms(self) -> float:
        return self.latency.p50_s * 1e3 if self.latency else math.inf

    @property
    def p95_ms(self) -> float:
        return self.latency.p95_s * 1e3 * self.spread if self.latency else math.inf

    @property
    def usd_per_hour(self) -> Optional[float]:
        """All instances together."""
        return self.instances * self.price.usd_per_hour if self.price and self.instances else None

    @property
    def usd_per_million(self) -> Optional[float]:
        """At the asked load."""
        return self.price.per_million(self.load_per_instance) if self.price and self.instances else None

    @property
    def usd_per_million_at_capacity(self) -> Optional[float]:
        """With every instance saturated: what benchmarks like to quote."""
        return self.price.per_million(self.capacity_per_s) if self.price and self.service else None

    def as_dict(self) -> Dict[str, Any]:
        """Plain JSON data, with neuronperf's names where it has one."""
        latency = self.latency
        return {
            "name": self.name, "instance_type": self.instance_type, "mode": self.mode,
            "pipeline_size": self.pipeline_cores, "batch_size": self.batch_size, "n_models": self.models,
            "source": "measured" if self.measured else "predicted", "formula": self.formula,
            "instances": self.instances, "throughput_per_instance": _rounded(self.load_per_instance),
            "capacity_per_instance": _rounded(self.capacity_per_s),
            "latency_ms_service": _rounded(self.service_ms), "latency_ms_p50": _rounded(self.p50_ms),
            "latency_ms_p95": _rounded(self.p95_ms),
            "utilisation": _rounded(latency.utilisation) if latency else None,
            "rows_per_batch": _rounded(latency.rows_per_batch) if latency else None,
            "usd_per_hour": _rounded(self.usd_per_hour), "cost_per_1m_inf": _rounded(self.usd_per_million),
            "cost_per_1m_inf_at_capacity": _rounded(self.usd_per_million_at_capacity),
            "price": self.price._asdict() if self.price else None,
            "compile_command": self.compile_command, "rejected": self.rejected or None,
        }  # fmt: skip


def _rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


class Plan(NamedTuple):
    """All configurations, the best first, and those that the target rules out."""

    source: str
    shape: ModelShape
    target: Target
    ranked: List[Configuration]
    rejected: List[Configuration]

    @property
    def best(self) -> Configuration:
        return self.ranked[0]

    def as_dict(self) -> Dict[str, Any]:
        """For --json."""
        from neuronbert.planner.explanation import explanation

        return {
            "schema_version": 1, "checkpoint": self.source, "encoder_parameters": self.shape.weights,
            "target": self.target._asdict(), "best": self.best.as_dict(), "explanation": explanation(self),
            "ranked": [one.as_dict() for one in self.ranked], "rejected": [one.as_dict() for one in self.rejected],
        }  # fmt: skip


def plan(
    checkpoint: Any,
    *,
    throughput: Optional[float] = None,
    latency_p95_ms: Optional[float] = None,
    objective: str = "cost",
    sequence_length: int = 384,
    headroom: float = 0.25,
    sdk_release: str = LATEST_RELEASE,
    instance_type: Sequence[str] = (),
    prices: Optional[Union[str, Path]] = None,
    measured: Optional[Union[str, Path]] = None,
    **hub_options: Any,
) -> Plan:
    """Every configuration for ``checkpoint`` (hub id, folder, "demo", artifact, or a ModelShape), the best first.

    ``throughput`` is the load in sequences a second, which come at random (Poisson); without it each configuration is
    judged with one instance as full as ``headroom`` and the latency allow. ``objective``: "cost" is dollars for a
    million at that load, "latency" is what one request takes by itself (more instances shorten any queue, so the queue
    only has to meet the target), "throughput" is what one instance can take. ``sdk_release`` of the Neuron SDK is what
    the predictions are for (1.13, 1.17 or 2.20: the same device became faster). ``measured`` is a report of
    ``neuronbert benchmark``. ``prices`` is a file as in ``neuronbert.hardware.prices``.

    Raises NoConfiguration, with the nearest that can be had, when nothing meets ``latency_p95_ms``; UsageError for
    options out of range and unknown instance types; InputError for a price file or report that cannot be used.
    """
    target = _target(throughput, latency_p95_ms, objective, headroom, sequence_length, sdk_release)
    book = load_prices(prices)
    source, shape = _shape_of(checkpoint, hub_options)
    wanted = _wanted_instances(instance_type, book)
    sizes = [name for name in cores.INSTANCE_TYPES if not wanted or name in wanted]
    candidates = [one for name in sizes for one in _layouts(name, shape, target, source, book)]
    candidates += [
        one for one in _measured(measured, source, book, target) if not wanted or one.instance_type in wanted
    ]
    if not candidates:
        raise NoConfiguration(
            f"there is no configuration on {', '.join(wanted)}: the device model knows inf1, nothing else was measured",
            hint=f"one of {', '.join(cores.INSTANCE_TYPES)}, or --measured with a report of neuronbert benchmark",
        )
    judged = [one if one.rejected else judge(one, target) for one in candidates]
    ranked = sorted((one for one in judged if not one.rejected), key=functools.partial(_rank, target.objective))
    rejected = [one for one in judged if one.rejected]
    if not ranked:
        raise _impossible(target, rejected)
    return Plan(source, shape, target, ranked, rejected)


def _target(
    throughput: Any, latency_p95_ms: Any, objective: str, headroom: float, sequence_length: int, sdk_release: str
) -> Target:
    for name, value in (("--throughput", throughput), ("--latency-p95-ms", latency_p95_ms)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} must be above 0, not {value!r}")
    if objective not in OBJECTIVES:
        raise UsageError(f"there is no objective {objective!r}", hint=f"one of {', '.join(OBJECTIVES)}")
    if not 0 <= headroom < 1:
        raise UsageError(f"--headroom is a share from 0 to below 1, not {headroom!r}", hint="--headroom 0.25")
    if sequence_length < 1:
        raise UsageError(f"--sequence-length must be at least 1, not {sequence_length!r}")
    if sdk_release not in RELEASES:
        raise UsageError(f"there is no timing for SDK release {sdk_release!r}", hint=f"one of {', '.join(RELEASES)}")
    return Target(throughput, latency_p95_ms, objective, headroom, sequence_length, sdk_release)


def _shape_of(checkpoint: Any, hub_options: Mapping[str, Any]) -> Tuple[str, ModelShape]:
    """What a command calls the checkpoint, and its sizes. Of a folder only config.json is needed, no weights."""
    if isinstance(checkpoint, ModelShape):
        return "CHECKPOINT", checkpoint
    folder = Path(str(checkpoint))
    if (folder / "neuronbert.json").is_file():
        from neuronbert.artifact.manifest import load_artifact

        manifest = load_artifact(folder).manifest
        return str(manifest["checkpoint"]["source"]), ModelShape.from_config(_read_config(folder))
    if (folder / "config.json").is_file():
        return str(checkpoint), ModelShape.from_config(_read_config(folder))
    from neuronbert.checkpoint.loading import load_base_checkpoint

    return str(checkpoint), ModelShape.from_config(load_base_checkpoint(checkpoint, **hub_options).config)


def _read_config(folder: Path) -> Dict[str, Any]:
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is not a model's config: {error}") from None


def _wanted_instances(names: Sequence[str], book: PriceBook) -> List[str]:
    asked = [part.strip() for name in names for part in name.split(",") if part.strip()]
    for name in asked:
        book.price(name)  # UsageError for what is unknown
    return asked


# ---------------------------------------------------------------------------- candidates


def _layouts(instance: str, shape: ModelShape, target: Target, source: str, book: PriceBook) -> Iterator[Configuration]:
    """Every layout of an inf1 size, with its device times, or with the reason why it cannot be."""
    available = cores.instance_type(instance).cores
    formula = cores.pipeline_cores(shape.weights, available)
    widths = sorted({1, formula, *(p for p in PIPELINE_CORES if p <= available)})
    for width in widths:
        layout = cores.layout_for(instance, cores.PIPELINE if width > 1 else cores.DATA_PARALLEL, width)
        for batch_size in BATCH_SIZES:
            why = _cannot_be(layout, shape)
            yield Configuration(
                instance_type=instance, mode=layout.mode, pipeline_cores=width, batch_size=batch_size,
                models=layout.replicas, measured=False, formula=width == formula,
                compile_command=_compile_command(source, layout, batch_size, target.sequence_length),
                service=None if why else _device_service(shape, layout, batch_size, target),
                price=book.price(instance), rejected=why,
            )  # fmt: skip


def _cannot_be(layout: cores.CoreLayout, shape: ModelShape) -> str:
    if layout.cores_per_model > 2 * shape.layers:
        return f"{layout.cores_per_model} cores for {2 * shape.layers} half-layers: a core would have nothing to do"
    memory = cores.estimate_device_memory(layout, shape.weights)
    return "" if memory.fits else f"does not fit device memory: {memory.sentence()}"


def _device_service(shape: ModelShape, layout: cores.CoreLayout, batch_size: int, target: Target) -> Service:
    active = min(cores.CORES_PER_CHIP, layout.used_cores)
    work = Work(shape, batch_size, target.sequence_length, layout.cores_per_model, active, target.sdk_release)
    stages = stage_seconds(work)
    in_flight, parallel = layout.in_flight_per_group, layout.cores_per_model
    wait_s = min(MAX_WAIT_S, sum(stages) / 2)  # as the runner adapts it
    return Service(layout.replicas, batch_size, max(stages), sum(stages), in_flight, parallel, wait_s)


def _compile_command(source: str, layout: cores.CoreLayout, batch_size: int, sequence_length: int) -> str:
    pipeline = f" --neuroncore-pipeline-cores {layout.cores_per_model}" if layout.mode == cores.PIPELINE else ""
    return (
        f"neuronbert compile {source} OUTPUT --backend neuron --instance-type {layout.instance} "
        f"--mode {layout.mode}{pipeline} --batch-size {batch_size} --sequence-length {sequence_length}"
    )


def _measured(
    path: Optional[Union[str, Path]], source: str, book: PriceBook, target: Target
) -> Iterator[Configuration]:
    """What a report of ``neuronbert benchmark`` measured: of each configuration the point of most throughput."""
    best: Dict[Any, Configuration] = {}
    for number, point in enumerate(read_report(path)["points"] if path is not None else [], 1):
        try:
            key = tuple(point.get(name) for name in IDENTITY if name not in LOAD)
            one = _measured_point(point, source, book, target)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"point {number} of {path} is not one of a benchmark report: {error!r}") from None
        if key not in best or _use(one) > _use(best[key]):
            best[key] = one
    yield from best.values()


def _use(one: Configuration) -> Tuple[bool, float]:
    """More is better."""
    return not one.rejected, one.capacity_per_s


def _measured_point(point: Mapping[str, Any], source: str, book: PriceBook, target: Target) -> Configuration:
    """The point's throughput is taken for its capacity, so that a batch takes batch_size * n_models / throughput, and
    its p95 is above its p50 as the measured one was.
    """
    instance, batch, models = str(point["instance_type"]), int(point["batch_size"]), int(point["n_models"])
    length, engine, precision = point["sequence_length"], str(point["engine"]), str(point["precision"])
    cores_per_model = int(point["pipeline_size"])
    why, service, spread = _unusable(point, target), None, 1.0
    if not why:
        batch_s = models * batch / float(point["throughput_avg"])
        service = Service(models, batch, batch_s, batch_s)
        spread = max(1.0, float(point["latency_ms_p95"]) / float(point["latency_ms_p50"]))
    static = point["mode"] is not None
    command = (
        _compile_command(source, cores.layout_for(instance, point["mode"], cores_per_model), batch, length)
        if static
        else f"neuronbert compile {source} OUTPUT --backend {engine} --precision {precision}"
    )
    return Configuration(
        instance_type=instance, mode=point["mode"] if static else f"{engine} {precision}",
        pipeline_cores=cores_per_model, batch_size=batch, models=models, measured=True, formula=False,
        service=service, price=book.price(instance) if instance in book else None, spread=spread,
        compile_command=command, rejected=why,
    )  # fmt: skip


def _unusable(point: Mapping[str, Any], target: Target) -> str:
    """Why a measured point tells nothing about the target."""
    length = point["sequence_length"]
    if point["emulated"]:
        return "was measured on an emulated device, which is no measurement of the real one"
    if point["errors"] or not point["throughput_avg"] or not point["latency_ms_p50"]:
        return f"had {point['errors']} errors when it was measured, and gave {point['throughput_avg'] or 0} answers/s"
    return f"was measured at {length} tokens" if length and length != target.sequence_length else ""


# ---------------------------------------------------------------------------- judging


def judge(candidate: Configuration, target: Target) -> Configuration:
    """The candidate with as many instances as the target needs, and its latency there; or with why it is ruled out."""
    assert candidate.service is not None
    limit = target.latency_p95_ms
    if candidate.price is None and target.objective == "cost":
        return replace(
            candidate, rejected=f"no price for {candidate.instance_type}: --prices FILE with its dollars an hour"
        )
    if limit is not None and candidate.service_ms * candidate.spread > limit:
        why = f"a batch takes {candidate.service_ms * candidate.spread:.3g} ms by itself, and {limit:g} are allowed"
        return replace(candidate, rejected=why)
    found = _fill_one(candidate, target) if target.throughput_per_s is None else _count_instances(candidate, target)
    if limit is not None and found.p95_ms > limit:
        why = f"p95 is {found.p95_ms:.3g} ms even with {found.latency.utilisation:.0%} of it used, "  # type: ignore
        return replace(found, rejected=why + f"and {limit:g} ms are allowed")
    return found


def _loaded(candidate: Configuration, instances: int, load: float) -> Configuration:
    assert candidate.service is not None
    return replace(candidate, instances=instances, load_per_instance=load, latency=under_load(candidate.service, load))


def _fill_one(candidate: Configuration, target: Target) -> Configuration:
    """One instance, as full as headroom and latency allow."""
    fullest = (1 - target.headroom) * candidate.capacity_per_s
    for step in range(LOAD_STEPS, 0, -1):
        found = _loaded(candidate, 1, fullest * step / LOAD_STEPS)
        if target.latency_p95_ms is None or found.p95_ms <= target.latency_p95_ms:
            break
    return found


def _count_instances(candidate: Configuration, target: Target) -> Configuration:
    """The fewest instances that keep the headroom and meet the latency; each gets an equal share of the load."""
    load = target.throughput_per_s or 0.0

    def meets(count: int) -> bool:
        return target.latency_p95_ms is None or _loaded(candidate, count, load / count).p95_ms <= target.latency_p95_ms

    fewest = max(1, math.ceil(load / ((1 - target.headroom) * candidate.capacity_per_s) - 1e-9))
    too_few, enough = fewest - 1, fewest
    while not meets(enough) and enough < MOST_IDLE * fewest:
        too_few, enough = enough, enough + max(1, enough // 4)
    while enough - too_few > 1 and meets(enough):
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if meets(middle) else (middle, enough)
    return _loaded(candidate, enough, load / enough)


def _rank(objective: str, one: Configuration) -> Tuple[float, ...]:
    """Smaller is better. To two or three digits: the device model is no better, and nothing should win by a hair."""
    hourly, million, saturated = (
        math.inf if value is None else value
        for value in (one.usd_per_hour, one.usd_per_million, one.usd_per_million_at_capacity)
    )
    if objective == "cost":
        # Of equally dear ones, that with the most room for a load that grows.
        return (_digits(million, 3), _digits(saturated, 2), one.p95_ms)
    if objective == "latency":
        return (_digits(one.service_ms * one.spread, 2), hourly, one.p95_ms)
    return (-_digits(one.capacity_per_s, 2), hourly, one.p95_ms)


def _digits(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _impossible(target: Target, rejected: Sequence[Configuration]) -> NoConfiguration:
    able = [one for one in rejected if one.service is not None and (one.price or target.objective != "cost")]
    if target.latency_p95_ms is None or not able:
        reasons = "; ".join(dict.fromkeys(f"{one.name}: {one.rejected}" for one in rejected[:3]))
        return NoConfiguration(f"no configuration is possible: {reasons}", hint="another --instance-type")
    nearest = min(able, key=lambda one: one.service_ms * one.spread)
    reachable_ms = math.ceil(nearest.service_ms * nearest.spread * 100) / 100
    return NoConfiguration(
        f"no configuration answers 95 of 100 requests within {target.latency_p95_ms:g} ms; the nearest is "
        f"{nearest.name}: {reachable_ms:g} ms when hardly a request has to wait for another",
        hint=f"--latency-p95-ms {reachable_ms:g}, a shorter --sequence-length, or a smaller checkpoint",
    )
