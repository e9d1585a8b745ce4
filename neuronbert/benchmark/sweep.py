"""Measures an artifact through the multi-worker runner: throughput against latency, swept over settings.

A sweep is planned (sweep_plan.py), measured point by point (measure.py) and reported (report.py). Each point has a
runner to itself, so a sweep that was interrupted continues where it stopped (resume.py).
"""

import hashlib
import inspect
import json
import math
import os
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

import numpy as np

from neuronbert.artifact.files import refuse_inside
from neuronbert.artifact.manifest import Artifact, PathLike, Variant, artifact_of
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.benchmark.comparison import refuse_disjoint, refuse_slower, refuse_unlike
from neuronbert.benchmark.forms import write_report
from neuronbert.benchmark.load import Period
from neuronbert.benchmark.measure import ITEMS, MeasureOptions, measure
from neuronbert.benchmark.missing_shapes import Progress, ShapeCompiler
from neuronbert.benchmark.naming import full_name, measured_text
from neuronbert.benchmark.points import OFFLINE, OPEN, LoadSpec, Setting
from neuronbert.benchmark.report import (
    Document,
    Point,
    document_of,
    loadgen_columns,
    measured_point,
)
from neuronbert.benchmark.report_file import read_report
from neuronbert.benchmark.resume import SavedPoints
from neuronbert.benchmark.sweep_plan import SweepOptions, SweepPlan, announcement, plan_sweep, refuse_early
from neuronbert.emulator.emulator_settings import settings_from
from neuronbert.errors import InputError, NeuronBertError, UsageError, counted
from neuronbert.hardware.machine import Environment, environment
from neuronbert.tasks import load_task
from neuronbert.tasks.base import Input, Task

# The server scenario's rate where none was given, as a share of what offline reached.
SERVER_SHARE = 0.6
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def benchmark_artifact(
    artifact: Union[Artifact, PathLike],
    *,
    batch_size: str = "",
    concurrency: str = "",
    workers: str = "",
    threads: str = "",
    sequence_length: str = "",
    neuroncore_pipeline_cores: str = "",
    variant: str = "",
    precision: str = "",
    scenario: Optional[str] = None,
    request_rate: str = "",
    request_distribution: str = "poisson",
    input_data: Optional[Union[str, Path]] = None,
    longest_s: float = 15.0,
    report: Optional[Union[str, Path]] = None,
    compare: Optional[Union[str, Path]] = None,
    latency_p95_ms: Optional[float] = None,
    busy_wait: bool = False,
    instance_type: Optional[str] = None,
    prices: Optional[Union[str, Path]] = None,
    loadgen: bool = False,
    trusted_key: TrustedKey = None,
    progress: Progress = lambda line: None,
    on_point: Callable[[int, int], None] = lambda done, total: None,
) -> Document:
    """Measure every combination of the settings; the report as a document (neuronbert.benchmark.report).

    Lists are "1,2,4", ranges "1:16" (doubling) or "50:400:50" (in steps); "" is the default: what the artifact was
    compiled for, the workers and threads that a runner takes by itself, 1 to 16 clients, questions with their own
    lengths. A static shape or pipeline size that the artifact does not have is compiled on demand, which is announced,
    and kept. Combinations that the machine or the instance has no room for are left out, which is said.

    ``scenario``: single-stream is one client, offline as many as keep every batch full, server requests at
    ``request_rate`` a second (without one, 60 % of what offline reaches) whether or not the earlier ones are answered.
    ``loadgen`` measures every point a second time with MLPerf LoadGen, all three scenarios when none is chosen; its
    logs are kept beside the report.
    ``longest_s``: a point ends when three windows of a second are alike, or after so long; with ``loadgen`` both last
    so long. ``report``: a file to write (.json, .csv, .md, .html); an interrupted sweep with the same options goes on
    from what lies beside it. ``compare``: an earlier JSON report; GateRefused when a point is slower beyond the noise
    of both. ``latency_p95_ms``: what a service must keep; the report then has the cost there beside that at saturation.
    ``instance_type`` is what a price is looked up for, and for inf1 whose cores are used.
    ``busy_wait``: as for Runner. ``trusted_key``: as for Engine.
    ``progress`` is called with lines for a person, ``on_point`` before each point with how many are done, of how
    many.

    Raises UsageError for settings that cannot be, ArtifactError for what the artifact does not have.
    """
    options = SweepOptions(
        batch_size=batch_size, concurrency=concurrency, workers=workers, threads=threads,
        sequence_length=sequence_length, neuroncore_pipeline_cores=neuroncore_pipeline_cores, variant=variant,
        precision=precision, scenario=scenario, request_rate=request_rate, request_distribution=request_distribution,
        input_data=input_data, longest_s=longest_s, report=report, compare=compare, latency_p95_ms=latency_p95_ms,
        busy_wait=busy_wait, instance_type=instance_type, prices=prices, loadgen=loadgen,
    )  # fmt: skip
    return _sweep(artifact_of(artifact, trusted_key), _command(artifact, options), options, progress, on_point)


class SweepFacts(NamedTuple):
    """What a report says beside its points, each a JSON object."""

    artifact: Dict[str, object]
    environment: Environment
    asked: Dict[str, object]


def _sweep(
    loaded: Artifact, command: str, options: SweepOptions, progress: Progress, on_point: Callable[[int, int], None]
) -> Document:
    """Plan the points, measure each, and make the report of them."""
    period = Period(longest_s=options.longest_s)
    refuse_early(options, period)
    if options.report is not None:
        refuse_inside(loaded.folder, options.report)
    task = load_task(loaded.task)
    plan = plan_sweep(loaded, task, _inputs(task, options.input_data), options)
    for reason, count in plan.left_out.items():
        progress(f"{counted(count, 'point')} left out: {reason}")
    facts = _facts_of(plan, options)
    before = _report_to_compare(options, facts, plan.settings)
    saved = SavedPoints(options.report, _what_must_not_change(plan, options, facts))
    failed = _measure_points(plan, options, period, saved, progress, on_point)
    document = document_of(
        [saved.points[setting] for setting in plan.settings if setting in saved.points],
        command=command,
        artifact=facts.artifact,
        environment=facts.environment,
        asked=facts.asked,
        latency_p95_ms=options.latency_p95_ms,
        left_out=Counter(plan.left_out) + failed,
    )
    if options.report is not None:
        write_report(document, options.report)
    saved.discard()
    if before is not None and options.compare is not None:
        refuse_slower(before, document, options.compare, progress)
    return document


# ---------------------------------------------------------------------------- before anything is measured


def _report_to_compare(options: SweepOptions, facts: SweepFacts, settings: Sequence[Setting]) -> Optional[Document]:
    """The earlier report, read and refused before the time for measuring is spent; None when none is asked for."""
    if options.compare is None:
        return None
    before = read_report(options.compare)
    refuse_unlike(before, facts._asdict())
    refuse_disjoint(before["points"], settings)
    return before


def _what_must_not_change(plan: SweepPlan, options: SweepOptions, facts: SweepFacts) -> Dict[str, object]:
    """What an interrupted sweep must have in common with the one that continues it."""
    prices = plan.instances.prices(plan.settings)
    return {
        "artifact": plan.artifact.manifest["digest"],
        "asked": facts.asked,
        "longest_s": options.longest_s,
        "loadgen": options.loadgen,
        "busy_wait": options.busy_wait,
        "prices": {name: price and price._asdict() for name, price in prices.items()},
        "environment": facts.environment,
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _loadgen_folder(report: Optional[Union[str, Path]]) -> Path:
    return Path("loadgen") if report is None else Path(f"{os.fspath(report)}.loadgen")


def _inputs(task: Task, path: Optional[PathLike]) -> List[Input]:
    """At most ITEMS inputs of a file, or of the package's own, short and long ones mixed."""
    inputs = task.read_inputs(path)
    if not inputs:
        raise InputError(f"{path} holds no {task.LINES.noun}", hint=f"one JSON object a line: {task.LINES.example}")
    return _evenly_mixed(inputs[:: max(1, len(inputs) // ITEMS)][:ITEMS], task)


def _evenly_mixed(inputs: List[Input], task: Task) -> List[Input]:
    """In an order that mixes short and long ones evenly, so that every second is the same amount of work.

    The multiples of the golden ratio, modulo 1, are spread more evenly than those of any other number.
    """
    ordered = sorted(inputs, key=lambda asked: sum(map(_characters, task.call_arguments(asked))))
    ranks = np.argsort(np.argsort(np.arange(len(ordered)) * GOLDEN_RATIO % 1))
    return [ordered[rank] for rank in ranks]


def _characters(texts: Union[str, Sequence[str]]) -> int:
    return len(texts) if isinstance(texts, str) else sum(map(len, texts))


# ---------------------------------------------------------------------------- measuring


def _measure_points(
    plan: SweepPlan,
    options: SweepOptions,
    period: Period,
    saved: SavedPoints,
    progress: Progress,
    on_point: Callable[[int, int], None],
) -> "Counter[str]":
    """Measure every point that is not saved yet; the reasons of those that failed, and how many did for each."""
    shapes = ShapeCompiler(plan.artifact, plan.instances, progress)
    pending = [setting for setting in plan.settings if setting not in saved.points]
    compile_s = {setting.variant: shapes.compile_s(setting) for setting in pending}
    for line in announcement(pending, compile_s, options.longest_s, loadgen=options.loadgen):
        progress(line)
    loadgen_folder = _loadgen_folder(options.report) if options.loadgen else None
    shared = MeasureOptions(plan.inputs, options.request_distribution, period, loadgen_folder, options.busy_wait)
    failed: Counter[str] = Counter()
    for number, setting in enumerate(plan.settings, start=1):
        if setting in saved.points:
            continue
        on_point(len(saved.points) + sum(failed.values()), len(plan.settings))
        position = f"{number}/{len(plan.settings)}"
        try:
            point = _point(plan, setting, shapes, shared, saved)
        except NeuronBertError as error:  # the others may well be possible, and must not be lost
            if number == len(plan.settings) and not saved.points:
                raise
            failed[error.message] += 1
            progress(f"{position}  {setting.variant}, batch {setting.batch_size} left out: {error.message}")
            continue
        saved.add(setting, point)
        progress(f"{position}  {_point_line(point)}")
    return failed


def _point(
    plan: SweepPlan, setting: Setting, shapes: ShapeCompiler, shared: MeasureOptions, saved: SavedPoints
) -> Point:
    """Measure one setting; the result as a report's point."""
    artifact, instances = shapes.artifact_for(setting), plan.instances
    measured = measure(artifact, _with_rate(setting, saved.points), shared, instances.inf1_instance_type)
    columns = {"instance_type": instances.name_of(setting), **measured.facts}
    point = measured_point(columns, measured.load, instances.price_of(setting))
    return {**point, **loadgen_columns(point, measured.load, measured.loadgen)}


def _with_rate(setting: Setting, points: Mapping[Setting, Point]) -> Setting:
    """The setting, its rate a share of what offline reached if it is of the server scenario and none was given."""
    if setting.load != LoadSpec(OPEN, None):
        return setting
    offline = points.get(setting._replace(load=LoadSpec(OFFLINE, None)))
    if offline is None or not offline["throughput_avg"]:
        raise UsageError("there is no offline throughput to take the server's rate from", hint="--request-rate N")
    reached = offline["throughput_avg"]
    return setting._replace(load=LoadSpec(OPEN, float(f"{SERVER_SHARE * reached:.3g}")))


def _point_line(point: Point) -> str:
    steady = "" if point["steady"] else " (not steady)"
    return f"{full_name(point)}: {measured_text(point)}{steady}{_loadgen_text(point)}"


def _loadgen_text(point: Point) -> str:
    if point.get("loadgen_throughput") is None:
        return ""
    valid = "VALID" if point["loadgen_valid"] else f"INVALID: {point['loadgen_why_invalid']}"
    p50 = f" (p50 {point['loadgen_p50_ratio']:.1%})" if point["loadgen_p50_ratio"] else ""
    return f"; LoadGen {point['loadgen_throughput']:.1f}/s, ours {point['loadgen_ratio']:.1%} of it{p50}, {valid}"


# ---------------------------------------------------------------------------- what is reported


def _facts_of(plan: SweepPlan, options: SweepOptions) -> SweepFacts:
    return SweepFacts(
        artifact=_artifact_facts(plan.artifact, plan.variants),
        environment=environment(),
        asked={
            "questions": hashlib.sha256(json.dumps(plan.inputs).encode()).hexdigest(),
            "request_distribution": options.request_distribution,
            "emulation": _emulation(plan.variants),
        },
    )


def _artifact_facts(artifact: Artifact, variants: Sequence[Variant]) -> Dict[str, object]:
    return {
        "name": artifact.folder.name,
        "fingerprint": artifact.manifest["checkpoint"]["fingerprint"],
        "source": artifact.manifest["checkpoint"]["source"],
        "emulated": any(variant["emulated"] for variant in variants),
    }


def _emulation(variants: Sequence[Variant]) -> Optional[Dict[str, Optional[str]]]:
    """What stands in for the device, for variants that run on the emulator; None where it is not used."""
    emulator = settings_from(os.environ) if any(variant["emulated"] for variant in variants) else None
    return None if emulator is None else {"instance_type": emulator.instance, "timed_as_release": emulator.release}


def _command(artifact: Union[Artifact, PathLike], options: SweepOptions) -> str:
    """What was typed; of the Python API the call, with the options that are not the default."""
    if sys.argv[1:2] == ["benchmark"]:
        return shlex.join(["neuronbert", *sys.argv[1:]])
    defaults = inspect.signature(benchmark_artifact).parameters
    name = str(artifact.folder if isinstance(artifact, Artifact) else artifact)
    keywords = [
        f", {option}={str(value) if isinstance(value, Path) else value!r}"
        for option, value in vars(options).items()
        if value != defaults[option].default
    ]
    return f"benchmark_artifact({name!r}{''.join(keywords)})"
