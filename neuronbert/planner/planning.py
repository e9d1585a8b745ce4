"""Which instance type, mode, cores and batch size serve a checkpoint at a target, and what that costs.

Every candidate of candidates.py goes through ``queueing`` (how long requests wait for one another at the asked load),
and those that meet the target are ranked. explanation.py says the result in words.
"""

import functools
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.artifact.manifest import is_artifact, load_artifact
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.checkpoint.config import read_config, refuse_malformed
from neuronbert.checkpoint.families import Config
from neuronbert.errors import (
    CheckpointError,
    NoConfiguration,
    UsageError,
    above_zero,
    as_real,
    count_of,
    refuse_no_path,
    shown_value,
)
from neuronbert.hardware import cores
from neuronbert.hardware.device_model import LATEST_RELEASE, ModelShape, known_release
from neuronbert.hardware.gpu_model import gpu_sizes
from neuronbert.hardware.prices import PriceBook, load_prices
from neuronbert.planner.candidates import (
    measured_configurations,
    predicted_configurations,
    predicted_gpu_configurations,
)
from neuronbert.planner.configurations import Configuration, Target
from neuronbert.planner.explanation import explanation, figure
from neuronbert.planner.frontier import PublishedCost, cost_frontier, published_costs
from neuronbert.planner.queueing import under_load

OBJECTIVES = ("cost", "latency", "throughput")
# Utilisations tried where no load was asked for: from the headroom down, in so many steps.
LOAD_STEPS = 20
LEAST_LOAD_PER_S = 1e-6  # a million requests then cost more than any price that is likely to be meant
# At most so many times the instances that the headroom asks for: hardly any request waits for another then.
MOST_IDLE = 20


class Plan(NamedTuple):
    """All configurations, the best first, and those that the target rules out."""

    source: str  # what a command calls the checkpoint
    shape: ModelShape
    target: Target
    ranked: List[Configuration]
    rejected: List[Configuration]
    published: List[PublishedCost]  # what others say of GPUs, to hold beside it

    @property
    def frontier(self) -> List[Configuration]:
        """What costs least at each latency, by growing p95."""
        return cost_frontier(self.ranked)

    @property
    def best(self) -> Configuration:
        """The one to choose."""
        return self.ranked[0]

    def as_dict(self) -> Dict[str, Any]:
        """Plain JSON data, as ``plan --json`` prints it."""
        return {
            "schema_version": 1, "checkpoint": self.source, "encoder_parameters": self.shape.weights,
            "target": self.target._asdict(), "best": self.best.as_dict(),
            "explanation": explanation(self.target, self.ranked),
            "ranked": [configuration.as_dict() for configuration in self.ranked],
            "rejected": [configuration.as_dict() for configuration in self.rejected],
            "frontier": [configuration.name for configuration in self.frontier],
            "published": [one.as_dict() for one in self.published],
        }  # fmt: skip


def plan(
    checkpoint: Union[str, "os.PathLike[str]", ModelShape],
    *,
    throughput: Optional[float] = None,
    latency_p95_ms: Optional[float] = None,
    objective: str = "cost",
    sequence_length: int = 384,
    headroom: float = 0.25,
    sdk_release: str = LATEST_RELEASE,
    in_flight: Optional[int] = None,
    instance_type: Sequence[str] = (),
    prices: Optional[Union[str, Path]] = None,
    measured: Optional[Union[str, Path]] = None,
    trusted_key: TrustedKey = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **hub_options: Any,
) -> Plan:
    """Every configuration for ``checkpoint`` (hub id, folder, "demo", artifact, or a ModelShape), the best first.

    ``throughput`` is the load in sequences a second, which come at random (Poisson); without it each configuration is
    judged with one instance as full as ``headroom`` and the latency allow. ``objective``: "cost" is dollars for a
    million at that load, "latency" is what one request takes by itself (more instances shorten any queue, so the queue
    only has to meet the target), "throughput" is what one instance can take. ``sdk_release`` of the Neuron SDK is what
    the predictions are for (1.13 to 2.20: the same device became faster). A core group holds at most ``in_flight``
    batches: by default as many as the runner gives it. ``measured`` is a report of ``neuronbert benchmark``. ``prices``
    is a file as in ``neuronbert.hardware.prices``. ``trusted_key`` is for an artifact, as for Engine. ``progress`` is
    called with how many configurations are judged, of how many.

    Raises NoConfiguration, with the nearest that can be had, when nothing meets ``latency_p95_ms``; UsageError for
    options out of range and unknown instance types; InputError for a price file or report that cannot be used.
    """
    target = _target(throughput, latency_p95_ms, objective, headroom, sequence_length, sdk_release, in_flight)
    if measured is not None:
        refuse_no_path("measured", measured)
    book = load_prices(prices)
    source, shape = _shape_of(checkpoint, hub_options, trusted_key)
    wanted = _wanted_instances(instance_type, book)
    candidates = [
        *(
            candidate
            for name in cores.INSTANCE_TYPES
            if not wanted or name in wanted
            for candidate in predicted_configurations(name, shape, target, source, book)
        ),
        *predicted_gpu_configurations(shape, target, source, book, wanted),
        *(
            candidate
            for candidate in measured_configurations(measured, source, book, target)
            if not wanted or candidate.instance_type in wanted
        ),
    ]
    if not candidates:
        raise NoConfiguration(
            f"there is no configuration on {', '.join(wanted)}: inf1 and GPUs are predicted, nothing else was measured",
            hint=f"one of {', '.join(cores.INSTANCE_TYPES)}, {', '.join(gpu_sizes())}, or --measured with a report of "
            "neuronbert benchmark",
        )
    judged = []
    for candidate in candidates:
        judged.append(candidate if candidate.rejected else judge(candidate, target))
        progress(len(judged), len(candidates))
    possible = [configuration for configuration in judged if not configuration.rejected]
    rejected = [configuration for configuration in judged if configuration.rejected]
    ranked = sorted(possible, key=functools.partial(_rank, target.objective))
    if not ranked:
        raise _impossible(target, rejected)
    return Plan(source, shape, target, ranked, rejected, published_costs(book))


def _target(
    throughput: Optional[float],
    latency_p95_ms: Optional[float],
    objective: str,
    headroom: float,
    sequence_length: int,
    sdk_release: str,
    in_flight: Optional[int],
) -> Target:
    """The options as a target; UsageError for those out of range."""
    throughput, latency_p95_ms = _finite("--throughput", throughput), _finite("--latency-p95-ms", latency_p95_ms)
    if throughput is not None and throughput < LEAST_LOAD_PER_S:
        raise UsageError(
            f"--throughput is at least {LEAST_LOAD_PER_S:g}/s (one request in 12 days), not {shown_value(throughput)}",
            hint="leave it out: each configuration is then judged at its own capacity",
        )
    if objective not in OBJECTIVES:
        raise UsageError(f"there is no objective {objective!r}", hint=f"one of {', '.join(OBJECTIVES)}")
    share = as_real(headroom)
    if share is None or not 0 <= share < 1:
        raise UsageError(
            f"--headroom is a share from 0 to below 1, not {shown_value(headroom)}", hint="--headroom 0.25"
        )
    sequence_length = count_of("--sequence-length", sequence_length)
    if in_flight is not None:
        in_flight = count_of("--in-flight", in_flight)
    release = known_release(sdk_release)
    return Target(throughput, latency_p95_ms, objective, share, sequence_length, release, in_flight)


def _finite(name: str, value: Optional[float]) -> Optional[float]:
    """``value`` as a float, or None; UsageError for what is no finite number above 0."""
    number = None if value is None else above_zero(name, value)
    if number is not None and not math.isfinite(number):
        raise UsageError(f"{name} must be finite, not {shown_value(value)}")
    return number


def _shape_of(
    checkpoint: Union[str, "os.PathLike[str]", ModelShape], hub_options: Mapping[str, Any], trusted_key: TrustedKey
) -> Tuple[str, ModelShape]:
    """What a command calls the checkpoint, and its sizes. Of a folder only config.json is needed, no weights."""
    if isinstance(checkpoint, ModelShape):
        return "CHECKPOINT", checkpoint
    refuse_no_path("checkpoint", checkpoint)
    folder = Path(checkpoint)
    if is_artifact(folder):
        manifest = load_artifact(folder, trusted_key=trusted_key).manifest
        return str(manifest["checkpoint"]["source"]), ModelShape.from_config(_read_config(folder))
    from neuronbert.checkpoint.loading import encoder_folder, load_base_checkpoint
    from neuronbert.tasks.checkpoints import modules_of_tasks

    modules = modules_of_tasks()
    if os.path.isdir(folder):  # unlike Path's, false for a name that is too long
        folder = encoder_folder(folder, modules)
    if os.path.isfile(folder / "config.json"):
        return str(checkpoint), ModelShape.from_config(_read_config(folder))
    base = load_base_checkpoint(checkpoint, modules=modules, **hub_options)
    return str(checkpoint), ModelShape.from_config(base.config)


def _read_config(folder: Path) -> Config:
    config = read_config(folder)
    if config is None:
        raise CheckpointError(f"{folder} has no config.json", hint="the folder of a checkpoint or an artifact")
    refuse_malformed(config, str(folder / "config.json"))
    return config


def _wanted_instances(names: Sequence[str], book: PriceBook) -> List[str]:
    """The instance types asked for, each "a,b" or "a"; UsageError for an unknown one."""
    asked = [part.strip() for name in names for part in name.split(",") if part.strip()]
    for name in asked:
        book.price(name)  # UsageError for what is unknown
    return asked


# ---------------------------------------------------------------------------- judging


def judge(candidate: Configuration, target: Target) -> Configuration:
    """The candidate with the instances that the target needs and its latency there, or ``rejected`` with the reason."""
    assert candidate.service is not None
    limit = target.latency_p95_ms
    if candidate.price is None and target.objective == "cost":
        return replace(
            candidate, rejected=f"no price for {candidate.instance_type}: --prices FILE with its dollars an hour"
        )
    if limit is not None and candidate.slow_service_ms > limit:
        why = f"a batch takes {figure(candidate.slow_service_ms)} ms by itself, and {limit:g} are allowed"
        return replace(candidate, rejected=why)
    loaded = _fill_one(candidate, target) if target.throughput_per_s is None else _count_instances(candidate, target)
    if limit is not None and loaded.p95_ms > limit:
        assert loaded.latency is not None
        why = f"p95 is {figure(loaded.p95_ms)} ms even with {loaded.latency.utilisation:.0%} of it used, "
        return replace(loaded, rejected=why + f"and {limit:g} ms are allowed")
    return loaded


def _at_load(candidate: Configuration, instances: int, load_per_s: float) -> Configuration:
    assert candidate.service is not None
    latency = under_load(candidate.service, load_per_s, candidate.service_at)
    return replace(candidate, instances=instances, load_per_instance=load_per_s, latency=latency)


def _fill_one(candidate: Configuration, target: Target) -> Configuration:
    """One instance, as full as the headroom and the latency allow."""
    fullest = (1 - target.headroom) * candidate.capacity_per_s
    for step in range(LOAD_STEPS, 0, -1):
        loaded = _at_load(candidate, 1, fullest * step / LOAD_STEPS)
        if target.latency_p95_ms is None or loaded.p95_ms <= target.latency_p95_ms:
            break
    return loaded


def _count_instances(candidate: Configuration, target: Target) -> Configuration:
    """The fewest instances that keep the headroom and meet the latency; each gets an equal share of the load."""
    load = target.throughput_per_s or 0.0

    def meets(count: int) -> bool:
        return target.latency_p95_ms is None or _at_load(candidate, count, load / count).p95_ms <= target.latency_p95_ms

    fewest = _fewest(candidate, target)
    too_few, enough = fewest - 1, fewest
    while not meets(enough) and enough < MOST_IDLE * fewest:
        too_few, enough = enough, enough + max(1, enough // 4)
    while enough - too_few > 1 and meets(enough):
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if meets(middle) else (middle, enough)
    return _at_load(candidate, enough, load / enough)


def _fewest(candidate: Configuration, target: Target) -> int:
    """Instances that the load and the headroom need, whatever the latency."""
    load = target.throughput_per_s or 0.0
    return max(1, math.ceil(load / ((1 - target.headroom) * candidate.capacity_per_s) - 1e-9))


def _emptiest(candidate: Configuration, target: Target) -> Configuration:
    """With as little to do as any that is tried."""
    if target.throughput_per_s is None:
        return _at_load(candidate, 1, (1 - target.headroom) * candidate.capacity_per_s / LOAD_STEPS)
    instances = MOST_IDLE * _fewest(candidate, target)
    return _at_load(candidate, instances, target.throughput_per_s / instances)


def _rank(objective: str, configuration: Configuration) -> Tuple[float, ...]:
    """The key to sort by, the best first.

    Rounded to two or three digits: the device model is no more exact, and nothing should win by a hair.
    """
    hourly, million, saturated = (
        math.inf if value is None else value
        for value in (
            configuration.usd_per_hour,
            configuration.usd_per_million,
            configuration.usd_per_million_at_capacity,
        )
    )
    if objective == "cost":
        # Among equal costs, the one with the most room for a growing load.
        return (_rounded(million, 3), _rounded(saturated, 2), configuration.p95_ms)
    if objective == "latency":
        # Among equals the formula's cores: its parts are small enough to stay on chip at any load.
        return (_rounded(configuration.slow_service_ms, 2), hourly, not configuration.formula, configuration.p95_ms)
    return (-_rounded(configuration.capacity_per_s, 2), hourly, configuration.p95_ms)


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _impossible(target: Target, rejected: Sequence[Configuration]) -> NoConfiguration:
    """The error for a target that nothing meets; its hint is the nearest that can be had."""
    able = [
        configuration
        for configuration in rejected
        if configuration.service is not None and (configuration.price or target.objective != "cost")
    ]
    if target.latency_p95_ms is None or not able:
        first = dict.fromkeys(f"{configuration.name}: {configuration.rejected}" for configuration in rejected[:3])
        reasons = "; ".join(first)
        return NoConfiguration(f"no configuration is possible: {reasons}", hint="another --instance-type")
    nearest = min(able, key=lambda one: (_rounded(one.slow_service_ms, 2), not one.formula))
    reachable_ms = math.ceil(max(nearest.slow_service_ms, _emptiest(nearest, target).p95_ms) * 100) / 100
    return NoConfiguration(
        f"no configuration answers 95 of 100 requests within {target.latency_p95_ms:g} ms; the nearest is "
        f"{nearest.name}: {reachable_ms:g} ms when hardly a request has to wait for another",
        hint=f"--latency-p95-ms {reachable_ms:g}, a shorter --sequence-length, or a smaller checkpoint",
    )
