"""Measures an artifact through the multi-worker runner, or a server: throughput against latency, swept over settings.

What is measured is a target (targets.py), which plans the points and measures each; the result is reported (report.py).
Points do not depend on one another, so a sweep that was interrupted continues where it stopped (resume.py).
"""

import hashlib
import inspect
import json
import os
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Union

from neuronbert.artifact.files import refuse_inside
from neuronbert.artifact.manifest import Artifact, PathLike, artifact_of
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.benchmark.artifact_target import ArtifactTarget
from neuronbert.benchmark.asked_inputs import inputs_of
from neuronbert.benchmark.comparison import refuse_disjoint, refuse_slower, refuse_unlike
from neuronbert.benchmark.forms import write_report
from neuronbert.benchmark.load import Period
from neuronbert.benchmark.missing_shapes import Progress
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
from neuronbert.benchmark.server_target import ServerTarget
from neuronbert.benchmark.sweep_plan import SweepOptions, announcement, refuse_early
from neuronbert.benchmark.targets import Target
from neuronbert.errors import NeuronBertError, UsageError, counted
from neuronbert.hardware.machine import Environment, environment
from neuronbert.hardware.remote import is_url
from neuronbert.tasks import load_task

# The server scenario's rate where none was given, as a share of what offline reached.
SERVER_SHARE = 0.6


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
    model: Optional[str] = None,
    protocol: Optional[str] = None,
    task: Optional[str] = None,
    timeout_ms: Optional[float] = None,
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

    ``artifact`` may be the URL of a server, which is asked over HTTP: a neuronbert server's ``model``, which has to be
    named where there are several, or any other server's, of which ``task`` has to be said. ``protocol``: hugging-face
    (unless told), open-inference, text-embeddings, openai or cohere. ``timeout_ms``: the deadline that each request
    states. The key is in NEURONBERT_API_KEY. Errors are counted by the status that was answered.

    Raises UsageError for settings that cannot be, ArtifactError for what the artifact does not have, InputError for a
    server that does not answer, and ArtifactChanged where it began to answer from another artifact meanwhile.
    """
    options = SweepOptions(
        batch_size=batch_size, concurrency=concurrency, workers=workers, threads=threads,
        sequence_length=sequence_length, neuroncore_pipeline_cores=neuroncore_pipeline_cores, variant=variant,
        precision=precision, scenario=scenario, request_rate=request_rate, request_distribution=request_distribution,
        input_data=input_data, longest_s=longest_s, report=report, compare=compare, latency_p95_ms=latency_p95_ms,
        busy_wait=busy_wait, instance_type=instance_type, prices=prices, loadgen=loadgen,
        model=model, protocol=protocol, task=task, timeout_ms=timeout_ms,
    )  # fmt: skip
    period = Period(longest_s=options.longest_s)
    refuse_early(options, period)
    target = _target(artifact, options, trusted_key, progress)
    return _sweep(target, _command(artifact, options), options, period, progress, on_point)


class SweepFacts(NamedTuple):
    """What a report says beside its points, each a JSON object."""

    artifact: Dict[str, object]
    environment: Environment
    asked: Dict[str, object]
    server: Optional[Dict[str, object]]


def _target(
    artifact: Union[Artifact, PathLike], options: SweepOptions, trusted_key: TrustedKey, progress: Progress
) -> Target:
    if is_url(artifact):
        return ServerTarget(str(artifact), options, trusted_key)
    loaded = artifact_of(artifact, trusted_key)
    if options.report is not None:
        refuse_inside(loaded.folder, options.report)
    task = load_task(loaded.task)
    return ArtifactTarget(loaded, task, inputs_of(task, options.input_data), options, progress)


def _sweep(
    target: Target,
    command: str,
    options: SweepOptions,
    period: Period,
    progress: Progress,
    on_point: Callable[[int, int], None],
) -> Document:
    """Measure each of the planned points, and make the report of them."""
    plan = target.plan
    for reason, count in plan.left_out.items():
        progress(f"{counted(count, 'point')} left out: {reason}")
    facts = _facts_of(target, options)
    before = _report_to_compare(options, facts, plan.settings)
    saved = SavedPoints(options.report, _what_must_not_change(target, options, facts))
    failed = _measure_points(target, options, period, saved, progress, on_point)
    document = document_of(
        [saved.points[setting] for setting in plan.settings if setting in saved.points],
        command=command,
        artifact=facts.artifact,
        environment=facts.environment,
        asked=facts.asked,
        server=facts.server,
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


def _what_must_not_change(target: Target, options: SweepOptions, facts: SweepFacts) -> Dict[str, object]:
    """What an interrupted sweep must have in common with the one that continues it."""
    prices = {target.instance_of(setting): target.price_of(setting) for setting in target.plan.settings}
    return {
        "artifact": target.digest,
        "asked": facts.asked,
        "longest_s": options.longest_s,
        "loadgen": options.loadgen,
        "busy_wait": options.busy_wait,
        "prices": {name: price and price._asdict() for name, price in prices.items()},
        "environment": facts.environment,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "server": facts.server,
    }


# ---------------------------------------------------------------------------- measuring


def _measure_points(
    target: Target,
    options: SweepOptions,
    period: Period,
    saved: SavedPoints,
    progress: Progress,
    on_point: Callable[[int, int], None],
) -> "Counter[str]":
    """Measure every point that is not saved yet; the reasons of those that failed, and how many did for each."""
    settings = target.plan.settings
    pending = [setting for setting in settings if setting not in saved.points]
    compile_s = {setting.variant: target.compile_s(setting) for setting in pending}
    for line in announcement(pending, compile_s, options.longest_s, loadgen=options.loadgen, start_s=target.start_s):
        progress(line)
    failed: Counter[str] = Counter()
    for number, setting in enumerate(settings, start=1):
        if setting in saved.points:
            continue
        on_point(len(saved.points) + sum(failed.values()), len(settings))
        position = f"{number}/{len(settings)}"
        try:
            point = _point(target, setting, period, saved)
        except NeuronBertError as error:  # the others may well be possible, and must not be lost
            if number == len(settings) and not saved.points:
                raise
            failed[error.message] += 1
            progress(f"{position}  {setting.variant}, {_size_text(setting)}left out: {error.message}")
            continue
        target.refuse_changed()
        saved.add(setting, point)
        progress(f"{position}  {_point_line(point)}")
    return failed


def _size_text(setting: Setting) -> str:
    return "" if setting.batch_size is None else f"batch {setting.batch_size} "


def _point(target: Target, setting: Setting, period: Period, saved: SavedPoints) -> Point:
    """Measure one setting; the result as a report's point."""
    measured = target.measure(_with_rate(setting, saved.points), period)
    columns = {"instance_type": target.instance_of(setting), **measured.facts}
    point = measured_point(columns, measured.load, target.price_of(setting))
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


def _facts_of(target: Target, options: SweepOptions) -> SweepFacts:
    facts = target.facts
    return SweepFacts(
        artifact=facts.artifact,
        environment=environment(),
        asked={
            "questions": hashlib.sha256(json.dumps(target.plan.inputs).encode()).hexdigest(),
            "request_distribution": options.request_distribution,
            "emulation": facts.emulation,
        },
        server=facts.server,
    )


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
