"""Measures an artifact through the multi-worker runner: throughput against latency, swept over settings.

Each point has the runner to itself and stands for itself, so a sweep that was interrupted goes on where it was.
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
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Union

import numpy as np

from neuronbert.artifact.manifest import Artifact, PathLike, load_artifact, output_errors
from neuronbert.benchmark.load import DISTRIBUTIONS, Period
from neuronbert.benchmark.loadgen import LEAST_SERVER_QUERIES, import_loadgen
from neuronbert.benchmark.measure import ITEMS, Options, Pair, full_windows, measure
from neuronbert.benchmark.missing_shapes import Shapes
from neuronbert.benchmark.points import OFFLINE, OPEN, Axes, Load, Setting, chosen_variants, like, loads_of, settings_of
from neuronbert.benchmark.report import (
    compare_reports,
    document_of,
    loadgen_columns,
    measured_point,
    read_report,
    refuse_unlike,
    refuse_unwritable,
    write_report,
)
from neuronbert.benchmark.statistics import slower
from neuronbert.emulator.emulator_settings import settings_from
from neuronbert.errors import GateRefused, InputError, NeuronBertError, UsageError
from neuronbert.hardware import cores
from neuronbert.hardware.cores import layout_for
from neuronbert.hardware.machine import environment
from neuronbert.hardware.prices import THIS_MACHINE, Price, PriceBook, load_prices
from neuronbert.runner.placement import place_workers
from neuronbert.tasks.question_answering.windows import Tokenizer

# What a point takes beside its windows: starting the runner, loading and self-testing the variant.
START_S = 3.0
USUAL_S = 8.0  # its windows, when it becomes steady
# What is asked a second of the server scenario where nobody said: so much of what offline reached.
SERVER_SHARE = 0.6
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
LONG_S = 1800.0  # a sweep that takes longer says what to do about it

Say = Callable[[str], None]


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
    instance_type: Optional[str] = None,
    prices: Optional[Union[str, Path]] = None,
    loadgen: bool = False,
    progress: Say = lambda line: None,
) -> Dict[str, Any]:
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

    Raises UsageError for settings that cannot be, ArtifactError for what the artifact does not have.
    """
    given = dict(locals())
    loaded = artifact if isinstance(artifact, Artifact) else load_artifact(artifact)
    period = Period(longest_s=longest_s)
    _refuse_early(period, latency_p95_ms, request_distribution, report, loadgen)
    questions = _questions(input_data)
    variants = chosen_variants(loaded, variant, precision)
    axes = Axes(batch_size, workers, threads, sequence_length, neuroncore_pipeline_cores)
    places = _Places(loaded, instance_type, load_prices(prices))
    left_out: Counter[str] = Counter()  # why → how many points
    settings = places.possible(
        settings_of(variants, axes, loads_of(scenario, concurrency, request_rate, loadgen=loadgen)), questions, left_out
    )
    for reason, count in left_out.items():
        progress(f"{count} point(s) left out: {reason}")
    facts = {
        "artifact": _artifact_facts(loaded, variants),
        "environment": environment(),
        "asked": {
            "questions": hashlib.sha256(json.dumps(questions).encode()).hexdigest(),
            "request_distribution": request_distribution,
            "emulation": _emulation(variants),
        },
    }
    before = None if compare is None else read_report(compare)
    if before is not None:
        refuse_unlike(before, facts)
        _refuse_strangers(before["points"], settings)
    kept = _Kept(
        report,
        {
            "artifact": loaded.manifest["digest"],
            "asked": facts["asked"],
            "longest_s": longest_s,
            "loadgen": loadgen,
            "prices": {name: price and price._asdict() for name, price in places.prices(settings).items()},
            "environment": facts["environment"],
            "threads": os.environ.get("OMP_NUM_THREADS"),
        },
    )
    shapes = Shapes(loaded, places.cores_of, progress)
    _announce([one for one in settings if one not in kept.points], shapes, longest_s, loadgen, progress)
    options = Options(questions, request_distribution, period, _loadgen_folder(report) if loadgen else None)
    for number, setting in enumerate(settings, start=1):
        if setting in kept.points:
            continue
        place = places.of(setting)
        try:
            found = shapes.artifact_for(setting)
            measured = measure(found, _with_rate(setting, kept.points), options, places.cores_of)
        except NeuronBertError as error:  # the others may well be possible, and must not be lost
            if number == len(settings) and not kept.points:
                raise
            left_out[error.message] += 1
            progress(
                f"{number}/{len(settings)}  {setting.variant}, batch {setting.batch_size} left out: {error.message}"
            )
            continue
        point = measured_point({"instance_type": place, **measured.facts}, measured.load, places.price(place))
        kept.add(setting, {**point, **loadgen_columns(point, measured.load, measured.loadgen)})
        progress(f"{number}/{len(settings)}  {_line(kept.points[setting])}")
    document = document_of(
        [kept.points[setting] for setting in settings if setting in kept.points],
        command=_command(given),
        latency_p95_ms=latency_p95_ms,
        left_out=left_out,
        **facts,
    )
    if report is not None:
        write_report(document, report)
    kept.finish()
    if before is not None:
        _refuse_slower(before, document, compare, progress)
    return document


# ---------------------------------------------------------------------------- before anything is measured


def _refuse_early(
    period: Period, latency_p95_ms: Optional[float], distribution: str, report: Any, loadgen: bool
) -> None:
    """What would only be noticed when everything was measured."""
    if not (math.isfinite(period.longest_s) and period.longest_s >= period.window_s):
        raise UsageError(f"--longest-s must be at least {period.window_s:g} and finite, not {period.longest_s!r}")
    if latency_p95_ms is not None and not (math.isfinite(latency_p95_ms) and latency_p95_ms > 0):
        raise UsageError(f"--latency-p95-ms must be above 0, not {latency_p95_ms!r}")
    if distribution not in DISTRIBUTIONS:
        raise UsageError(f"there is no distribution {distribution!r}", hint=f"one of {', '.join(DISTRIBUTIONS)}")
    if report is not None:
        refuse_unwritable(report)
    if loadgen:
        import_loadgen()


def _emulation(variants: Sequence[Mapping[str, Any]]) -> Optional[Dict[str, Any]]:
    """What stands in for the device, for variants that run on the twin."""
    twin = settings_from(os.environ) if any(one["emulated"] for one in variants) else None
    return None if twin is None else {"instance_type": twin.instance, "timed_as_release": twin.release}


class _Places:
    """The instance type of each point, whether it has room for it, and its price."""

    def __init__(self, artifact: Artifact, instance_type: Optional[str], book: PriceBook):
        self._artifact, self._book = artifact, book
        self._tokenizer = Tokenizer.from_files(artifact.folder)
        self._tokens = self._tokenizer.max_length
        self._full: Set[int] = set()  # lengths for which there is text
        self._instance_type = instance_type
        if instance_type is not None:
            book.price(instance_type)  # UsageError for what is unknown
        # Another inf1 size than the artifact was compiled for.
        self.cores_of = instance_type if instance_type in cores.INSTANCE_TYPES else None

    def of(self, setting: Setting) -> str:
        """The instance type that a price is looked up for."""
        if setting.pipeline_cores is None:
            return self._instance_type or THIS_MACHINE
        return self.cores_of or str(like(self._artifact.variants, setting)["recipe"]["instance_type"])

    def price(self, place: str) -> Optional[Price]:
        """None for this machine, unless a price file names it."""
        return self._book.price(place) if place in self._book else None

    def prices(self, settings: Sequence[Setting]) -> Dict[str, Optional[Price]]:
        """Of every place of a sweep."""
        return {place: self.price(place) for place in map(self.of, settings)}

    def possible(
        self, settings: Sequence[Setting], questions: Sequence[Pair], left_out: "Counter[str]"
    ) -> List[Setting]:
        """Without what there is no room or no text for, counted in ``left_out``; UsageError when nothing is left."""
        found = []
        for setting in settings:
            try:
                self._require(setting, questions)
                found.append(setting)
            except (UsageError, InputError) as error:
                left_out[error.message] += 1
        if not found:
            raise UsageError(f"no point of this sweep can be: {next(iter(left_out))}", hint="other values")
        return found

    def _require(self, setting: Setting, questions: Sequence[Pair]) -> None:
        length = setting.sequence_length
        if length and self._tokens and length > self._tokens:
            raise UsageError(f"{length} tokens are more than the model's {self._tokens}")
        if length and not setting.text and length not in self._full:
            full_windows(self._tokenizer, questions, length)
            self._full.add(length)
        if setting.pipeline_cores is None:
            place_workers(self._artifact, variant=setting.variant, workers=setting.workers, threads=setting.threads)
            return
        if self._instance_type is not None and self.cores_of is None:
            raise UsageError(f"{setting.variant} runs on NeuronCores, and {self._instance_type} has none")
        layout_for(self.of(setting), setting.mode, setting.pipeline_cores, setting.workers)


def _announce(settings: Sequence[Setting], shapes: Shapes, longest_s: float, loadgen: bool, say: Say) -> None:
    """How long it will take, before it takes it."""
    missing = {one.variant: shapes.compile_s(one) for one in settings}
    compile_s = sum(missing.values())
    usual_s = min(longest_s, USUAL_S)
    second_s = [_loadgen_s(one, longest_s) if loadgen else 0.0 for one in settings]
    expected_s = compile_s + sum(START_S + 1 + (longest_s if loadgen else usual_s) + more for more in second_s)
    most_s = compile_s + sum(START_S + 1 + longest_s + 2 * more for more in second_s)
    say(f"{len(settings)} points, about {expected_s / 60:.1f} minutes, at most {most_s / 60:.1f}")
    if compile_s:
        names = sorted(name for name, seconds in missing.items() if seconds)
        say(f"{len(names)} to be compiled first, {compile_s / 60:.1f} minutes of it: {', '.join(names)}")
    if most_s > LONG_S:
        say("that is long; Ctrl-C now for fewer points, or at any time: with --report the same command goes on")


def _loadgen_s(setting: Setting, longest_s: float) -> float:
    """What MLPerf LoadGen takes: its Server scenario goes on until it has queries enough."""
    if setting.load.kind == OPEN and setting.load.number is not None:
        return max(longest_s, LEAST_SERVER_QUERIES / setting.load.number)
    return longest_s


def _refuse_strangers(points: Sequence[Mapping[str, Any]], settings: Sequence[Setting]) -> None:
    """UsageError when the report to compare with has none of these points."""

    def alike(point: Mapping[str, Any], one: Setting) -> bool:
        if (point["variant"], point["batch_size"]) != (one.variant, one.batch_size):
            return False
        number = point["offered_qps"] if one.load.kind == OPEN else point["concurrency"]
        return number is not None and (one.load.number in (None, number))

    if not any(alike(point, one) for point in points for one in settings):
        raise UsageError("the report to compare with has none of these points", hint="the same options for both")


def _loadgen_folder(report: Optional[Union[str, Path]]) -> Path:
    return Path("loadgen") if report is None else Path(f"{os.fspath(report)}.loadgen")


def _with_rate(setting: Setting, points: Mapping[Setting, Mapping[str, Any]]) -> Setting:
    """A rate for the server scenario where none was given: a share of what offline reached."""
    if setting.load != Load(OPEN, None):
        return setting
    offline = points.get(setting._replace(load=Load(OFFLINE, None)))
    if offline is None or not offline["throughput_avg"]:
        raise UsageError("there is no offline throughput to take the server's rate from", hint="--request-rate N")
    reached = offline["throughput_avg"]
    return setting._replace(load=Load(OPEN, float(f"{SERVER_SHARE * reached:.3g}")))


def _questions(path: Optional[Union[str, Path]]) -> List[Pair]:
    """Questions and contexts of a JSONL or SQuAD file, or the package's own."""
    from neuronbert.tasks.question_answering.samples import gate_path
    from neuronbert.tasks.question_answering.squad import load_squad, read_questions

    if path is None:
        path = gate_path()
    try:
        if Path(path).suffix == ".jsonl":
            with open(path, "rb") as lines:
                found = [(line.question, line.context) for line in read_questions(lines)]
        else:
            found = [(one.question, one.context) for one in load_squad(path)]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="a .jsonl or a SQuAD .json file") from None
    if not found:
        raise InputError(f"{path} holds no question", hint="one JSON object with question and context a line")
    return _evenly_mixed(found[:: max(1, len(found) // ITEMS)][:ITEMS])


def _evenly_mixed(questions: List[Pair]) -> List[Pair]:
    """In an order in which every stretch has short and long ones alike, so that one second is as much work as another.

    Multiples of the golden ratio, modulo 1: of all sequences these leave the smallest gaps.
    """
    ordered = sorted(questions, key=lambda pair: len(pair[0]) + len(pair[1]))
    ranks = np.argsort(np.argsort(np.arange(len(ordered)) * GOLDEN_RATIO % 1))
    return [ordered[rank] for rank in ranks]


# ---------------------------------------------------------------------------- what is reported


def _artifact_facts(artifact: Artifact, variants: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    return {
        "name": artifact.folder.name,
        "fingerprint": artifact.manifest["checkpoint"]["fingerprint"],
        "source": artifact.manifest["checkpoint"]["source"],
        "emulated": any(variant["emulated"] for variant in variants),
    }


def _command(given: Mapping[str, Any]) -> str:
    """What was typed; of the Python API the call, with the options that are not the default."""
    if sys.argv[1:2] == ["benchmark"]:
        return shlex.join(["neuronbert", *sys.argv[1:]])
    defaults = inspect.signature(benchmark_artifact).parameters
    artifact = given["artifact"]
    name = str(artifact.folder if isinstance(artifact, Artifact) else artifact)
    options = [
        f", {key}={str(value) if isinstance(value, Path) else value!r}"
        for key, value in given.items()
        if key not in ("artifact", "progress") and value != defaults[key].default
    ]
    return f"benchmark_artifact({name!r}{''.join(options)})"


def _line(point: Mapping[str, Any]) -> str:
    p95 = "none" if point["latency_ms_p95"] is None else f"{point['latency_ms_p95']:.1f} ms"
    load = f"{point['concurrency']} clients" if point["concurrency"] else f"{point['offered_qps']:g}/s offered"
    steady = "" if point["steady"] else "  (never steady)"
    if point.get("loadgen_throughput") is not None:
        valid = "VALID" if point["loadgen_valid"] else f"INVALID: {point['loadgen_why_invalid']}"
        p50 = f" (p50 {point['loadgen_p50_ratio']:.1%})" if point["loadgen_p50_ratio"] else ""
        ratio = f"ours {point['loadgen_ratio']:.1%} of it{p50}"
        steady += f"; LoadGen {point['loadgen_throughput']:.1f}/s, {ratio}, {valid}"
    return (
        f"{point['variant']} × {point['n_models']} workers, batch {point['batch_size']}, "
        f"{point['sequence_length'] or 'text'}, {load}: {point['throughput_avg'] or 0:.1f}/s, p95 {p95}{steady}"
    )


def _refuse_slower(before: Mapping[str, Any], after: Mapping[str, Any], path: Any, progress: Say) -> None:
    differences = compare_reports(before, after)
    for one in differences:
        progress(f"{one.verdict:6} {one.point}: {one.figure} {one.before.value:.4g} → {one.after.value:.4g}")
    worse = slower(differences)
    if worse:
        first = worse[0]
        raise GateRefused(
            f"{len(worse)} of {len(differences)} figures are slower than in {path}, beyond the noise of both; "
            f"{first.figure} of {first.point} was {first.before.value:.4g} and is {first.after.value:.4g}",
            hint="measure both again on an idle machine before believing it",
        )


class _Kept:
    """The points measured so far, beside the report; another sweep's are refused."""

    def __init__(self, report: Optional[Union[str, Path]], options: Mapping[str, Any]):
        self.points: Dict[Setting, Dict[str, Any]] = {}
        self._path = None if report is None else Path(f"{os.fspath(report)}.points")
        self._options = dict(options)
        if self._path is not None and self._path.exists():
            self._read(self._path)

    def _read(self, path: Path) -> None:
        head, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
        if head != json.dumps(self._options):
            raise UsageError(
                f"{path} holds the points of a sweep with other options or of another artifact", hint=f"rm {path}"
            )
        for line in lines:
            try:
                setting, point = json.loads(line)
            except ValueError:
                break  # cut short by the interruption: measured again
            *others, load = setting
            self.points[Setting._make([*others, Load(*load)])] = point

    def add(self, setting: Setting, point: Dict[str, Any]) -> None:
        """Keep a point, on the disk too where there is a report."""
        self.points[setting] = point
        if self._path is None:
            return
        lines = [json.dumps(self._options), *(json.dumps([one, kept]) for one, kept in self.points.items())]
        temporary = self._path.with_name(self._path.name + ".tmp")
        with output_errors(self._path):
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
            temporary.replace(self._path)

    def finish(self) -> None:
        """All is in the report."""
        if self._path is not None and self._path.exists():
            self._path.unlink()
