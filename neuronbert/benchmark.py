"""Measures an artifact through the multi-worker runner: throughput against latency, swept over settings.

Each point has the runner to itself and stands for itself, so a sweep that was interrupted goes on where it was.
"""

import itertools
import json
import os
import shlex
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.artifact import Artifact, PathLike, Variant, load_artifact, output_errors
from neuronbert.backends import Batch
from neuronbert.errors import ArtifactError, GateRefused, InputError, UsageError
from neuronbert.load import Period, closed_loop, open_loop
from neuronbert.machine import environment
from neuronbert.prices import THIS_MACHINE, load_prices
from neuronbert.report import compare_reports, document_of, measured_point, read_report, write_report
from neuronbert.runner import Runner
from neuronbert.statistics import slower
from neuronbert.windows import Tokenizer, WindowOptions, collate, encode_examples

SCENARIOS = ("single-stream", "server", "offline")
# What a point takes beside its windows: starting the runner, loading and self-testing the variant.
START_S = 3.0
# Clients that keep every worker's batches full, whatever the time that a batch takes.
OFFLINE_BATCHES = 4
ITEMS = 200  # different requests of a point

Pair = Tuple[str, str]
Say = Callable[[str], None]


class Setting(NamedTuple):
    """One point of a sweep; no sequence length: questions with their own lengths."""

    variant: str
    workers: int
    batch_size: int
    sequence_length: Optional[int]
    concurrency: Optional[int]  # closed loop
    rate_per_s: Optional[float]  # open loop


def benchmark_artifact(
    artifact: Union[Artifact, PathLike],
    *,
    batch_size: str = "8",
    concurrency: str = "1,2,4,8,16",
    workers: str = "1",
    sequence_length: str = "",
    variant: str = "",
    precision: str = "",
    scenario: Optional[str] = None,
    request_rate: str = "",
    request_distribution: str = "poisson",
    input_data: Optional[Union[str, Path]] = None,
    longest_s: float = 15.0,
    report: Optional[Union[str, Path]] = None,
    compare: Optional[Union[str, Path]] = None,
    instance_type: Optional[str] = None,
    prices: Optional[Union[str, Path]] = None,
    progress: Say = lambda line: None,
) -> Dict[str, Any]:
    """Measure every combination of the settings; the report as a document (neuronbert.report).

    Lists are "1,2,4", ranges "1:16" (doubling) or "50:400:50" (in steps). ``scenario``: single-stream is one client,
    offline as many as keep every batch full, server requests at ``request_rate`` a second whether or not the earlier
    ones are answered. ``longest_s``: a point ends when three windows of a second are alike, or after so long.
    ``report``: a file to write (.json, .csv, .md, .html); an interrupted sweep with the same options goes on from what
    lies beside it. ``compare``: an earlier JSON report; GateRefused when a point is slower beyond the noise of both.
    ``instance_type`` is what a price is looked up for ("this machine" where it is none of AWS's).

    Raises UsageError for settings that cannot be, ArtifactError for a shape that was not compiled, with the command.
    """
    loaded = artifact if isinstance(artifact, Artifact) else load_artifact(artifact)
    before = None if compare is None else read_report(compare)
    variants = _chosen(loaded, variant, precision)
    settings = list(
        _settings(variants, batch_size, workers, sequence_length, _load_of(scenario, concurrency, request_rate))
    )
    expected_s = sum(START_S + 1 + min(longest_s, 5.0) for _ in settings)
    progress(f"{len(settings)} points, about {expected_s / 60:.1f} minutes, at most {_most_s(settings, longest_s)}")
    price_book = load_prices(prices)
    place = instance_type or THIS_MACHINE
    price = price_book.price(place) if place in price_book else None
    kept = _Kept(report, {"artifact": loaded.manifest["digest"], "longest_s": longest_s, "data": str(input_data or "")})
    questions = _questions(input_data)
    for number, setting in enumerate(settings, start=1):
        if setting in kept.points:
            continue
        found = _measure(loaded, setting, questions, request_distribution, Period(longest_s=longest_s))
        point = measured_point({**_described(loaded, setting, place), **found[1]}, found[0], price)
        kept.add(setting, point)
        progress(f"{number}/{len(settings)}  {_line(point)}")
    document = document_of(
        [kept.points[setting] for setting in settings],
        command=_command(loaded),
        artifact=_artifact_facts(loaded),
        environment=environment(),
    )
    if report is not None:
        write_report(document, report)
    kept.finish()
    if before is not None:
        _refuse_slower(before, document, compare, progress)
    return document


# ---------------------------------------------------------------------------- what is measured


def parse_numbers(text: str, name: str) -> List[float]:
    """ "1,2,4", "1:16" (1, 2, 4, 8, 16), "50:400:50"; UsageError, naming the option, for anything else."""
    try:
        parts = [_range([float(one) for one in part.split(":")]) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}: {error}", hint=f"{name} 1,2,4 or 1:16 or 50:400:50") from None
    numbers = list(dict.fromkeys(itertools.chain.from_iterable(parts)))
    if any(not number > 0 for number in numbers):
        raise UsageError(f"{name} is {text!r}, and its numbers must be above 0")
    return numbers


def _range(bounds: List[float]) -> List[float]:
    if len(bounds) == 1:
        return bounds
    if len(bounds) > 3 or bounds[0] <= 0 or bounds[1] < bounds[0] or (len(bounds) == 3 and bounds[2] <= 0):
        raise ValueError("not a range of FIRST:LAST or FIRST:LAST:STEP")
    found = [bounds[0]]
    while True:
        following = found[-1] * 2 if len(bounds) == 2 else found[-1] + bounds[2]
        if following > bounds[1]:
            return found
        found.append(following)


def _whole(text: str, name: str) -> List[int]:
    numbers = parse_numbers(text, name)
    if any(number != int(number) for number in numbers):
        raise UsageError(f"{name} is {text!r}, and its numbers must be whole")
    return [int(number) for number in numbers]


def _chosen(artifact: Artifact, variant: str, precision: str) -> List[Variant]:
    """The variants by name or precision; without either, the preferred one."""
    names = [one.strip() for one in variant.split(",") if one.strip()]
    precisions = [one.strip() for one in precision.split(",") if one.strip()]
    if not names and not precisions:
        return artifact.variants[:1]
    there = ", ".join(one["name"] for one in artifact.variants)
    for wanted, key in [*((one, "name") for one in names), *((one, "precision") for one in precisions)]:
        if not any(one[key] == wanted for one in artifact.variants):
            raise ArtifactError(
                f"{artifact.folder} has no variant of {key} {wanted}; it has {there}",
                hint=f"neuronbert compile CHECKPOINT OUTPUT --precision {wanted}" if key == "precision" else there,
            )
    return [one for one in artifact.variants if one["name"] in names or one["precision"] in precisions]


def _load_of(scenario: Optional[str], concurrency: str, request_rate: str) -> Tuple[str, List[float]]:
    """Whether clients wait for answers, and how many there are or how often they ask."""
    if scenario not in (None, *SCENARIOS):
        raise UsageError(f"there is no scenario {scenario!r}", hint=f"one of {', '.join(SCENARIOS)}")
    if scenario == "server" or (scenario is None and request_rate):
        if not request_rate:
            raise UsageError("the server scenario needs a rate", hint="--request-rate 50:400:50")
        return "open", parse_numbers(request_rate, "--request-rate")
    if scenario == "single-stream":
        return "closed", [1]
    if scenario == "offline":
        return "offline", [1]
    return "closed", [float(number) for number in _whole(concurrency, "--concurrency")]


def _settings(
    variants: Sequence[Variant], batch_size: str, workers: str, sequence_length: str, load: Tuple[str, List[float]]
) -> Iterator[Setting]:
    lengths: List[Optional[int]] = [*_whole(sequence_length, "--sequence-length")] or [None]
    counts, sizes = _whole(workers, "--workers"), _whole(batch_size, "--batch-size")
    kind, numbers = load
    for one, count, size, length, number in itertools.product(variants, counts, sizes, lengths, numbers):
        if one["batch_size"] is not None and (one["batch_size"], one["sequence_length"]) != (size, length):
            if (size, length) == (sizes[0], lengths[0]):
                _refuse_missing_shape(variants, sizes, lengths)
            continue
        clients = count * size * OFFLINE_BATCHES if kind == "offline" else int(number)
        yield Setting(
            one["name"], count, size, length, None if kind == "open" else clients, number if kind == "open" else None
        )


def _refuse_missing_shape(variants: Sequence[Variant], sizes: Sequence[int], lengths: Sequence[Optional[int]]) -> None:
    """ArtifactError for a static shape that no variant has: this artifact does not hold the weights to make it."""
    there = {(one["batch_size"], one["sequence_length"]) for one in variants}
    for size, length in itertools.product(sizes, lengths):
        if (size, length) not in there:
            raise ArtifactError(
                f"no variant was compiled for batches of {size} × {length or 'any'} tokens",
                hint=f"neuronbert compile CHECKPOINT OUTPUT --backend neuron --batch-size {size} "
                f"--sequence-length {length or 384}",
            )


def _questions(path: Optional[Union[str, Path]]) -> List[Pair]:
    """Questions and contexts of a JSONL or SQuAD file, or the package's own."""
    from neuronbert.squad import load_squad, read_questions

    if path is None:
        path = Path(__file__).with_name("samples") / "gate.json"
    try:
        if Path(path).suffix == ".jsonl":
            with open(path, "rb") as lines:
                found = [(line.question, line.context) for line in read_questions(lines)]
        else:
            found = [(one.question, one.context) for one in load_squad(path)]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="a .jsonl or a SQuAD .json file") from None
    return found[:: max(1, len(found) // ITEMS)][:ITEMS]


class _Texts:
    """A client that asks questions with their own lengths."""

    def __init__(self, runner: Runner):
        self._runner = runner

    def submit(self, item: Pair) -> "Future[Any]":
        return self._runner.submit(*item)


class _Tokens:
    """A client that asks with tokens: windows of one length."""

    def __init__(self, runner: Runner):
        self._runner = runner

    def submit(self, item: Batch) -> "Future[Any]":
        return self._runner.submit_encoded(*item)


def full_windows(tokenizer: Tokenizer, questions: Sequence[Pair], length: int) -> List[Batch]:
    """Rows of exactly ``length`` tokens of real text, as batches of one."""
    together = " ".join(dict.fromkeys(context for _, context in questions))
    options = WindowOptions(max_seq_len=length, doc_stride=0)
    windows = encode_examples(tokenizer, [(questions[0][0], together[: 40 * ITEMS * length // 8])], options)[0].windows
    found = [collate([window], tokenizer.pad_id) for window in windows if len(window.input_ids) == length]
    if not found:
        raise InputError(f"the questions hold no text of {length} tokens", hint="more --input-data, or a shorter one")
    return found[:ITEMS]


def _measure(
    artifact: Artifact, setting: Setting, questions: Sequence[Pair], distribution: str, period: Period
) -> Tuple[Any, Dict[str, Any]]:
    began = time.perf_counter()
    with Runner(artifact, variant=setting.variant, workers=setting.workers, batch_size=setting.batch_size) as runner:
        cold_start_s = time.perf_counter() - began
        client: Any = _Texts(runner)
        items: Sequence[Any] = questions
        if setting.sequence_length is not None:
            client, items = _Tokens(runner), full_windows(runner.tokenizer, questions, setting.sequence_length)
        before, cpu_s = runner.stats(), _cpu_s(runner)
        if setting.rate_per_s is not None:
            result = open_loop(client, items, rate_per_s=setting.rate_per_s, distribution=distribution, period=period)
        else:
            assert setting.concurrency is not None
            result = closed_loop(client, items, concurrency=setting.concurrency, period=period)
        after = runner.stats()
        used_s = _cpu_s(runner) - cpu_s
    completed = after["requests"]["completed"] - before["requests"]["completed"]
    return result, {
        "cold_start_s": cold_start_s,
        "padding_ratio": after["padding"],
        "fill": after["fill"],
        "host_cpu_us": used_s / completed * 1e6 if completed else None,
    }


def _cpu_s(runner: Runner) -> float:
    """CPU seconds of this process and the workers (Linux; elsewhere of this process)."""
    total = time.process_time()
    for worker in runner.stats()["workers"]:
        try:
            with open(f"/proc/{worker['pid']}/stat", encoding="utf-8") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


# ---------------------------------------------------------------------------- what is reported


def _described(artifact: Artifact, setting: Setting, place: str) -> Dict[str, Any]:
    variant = next(one for one in artifact.variants if one["name"] == setting.variant)
    return {
        "model_filename": artifact.folder.name,
        "instance_type": place,
        "n_models": setting.workers,
        "pipeline_size": variant["pipeline_cores"] or 1,
        "batch_size": setting.batch_size,
        "sequence_length": setting.sequence_length,
        "variant": setting.variant,
        "mode": "emulated" if variant["emulated"] else variant["backend"],
        "precision": variant["precision"],
        "concurrency": setting.concurrency,
        "offered_qps": setting.rate_per_s,
    }


def _artifact_facts(artifact: Artifact) -> Dict[str, Any]:
    return {
        "name": artifact.folder.name,
        "fingerprint": artifact.manifest["checkpoint"]["fingerprint"],
        "source": artifact.manifest["checkpoint"]["source"],
        "emulated": any(variant["emulated"] for variant in artifact.variants),
    }


def _command(artifact: Artifact) -> str:
    import sys

    arguments = [str(one) for one in sys.argv[1:]]
    return (
        shlex.join(["neuronbert", *arguments])
        if arguments[:1] == ["benchmark"]
        else f"benchmark({artifact.folder.name!r})"
    )


def _line(point: Mapping[str, Any]) -> str:
    p95 = "none" if point["latency_ms_p95"] is None else f"{point['latency_ms_p95']:.1f} ms"
    load = f"{point['concurrency']} clients" if point["concurrency"] else f"{point['offered_qps']:g}/s offered"
    steady = "" if point["steady"] else "  (never steady)"
    return (
        f"{point['variant']} × {point['n_models']} workers, batch {point['batch_size']}, "
        f"{point['sequence_length'] or 'text'}, {load}: {point['throughput_avg'] or 0:.1f}/s, p95 {p95}{steady}"
    )


def _most_s(settings: Sequence[Setting], longest_s: float) -> str:
    return f"{len(settings) * (START_S + 1 + longest_s) / 60:.0f}"


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
            self.points[Setting(*setting)] = point

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
