"""Decides before anything runs what a sweep will measure, what it leaves out and why, and how long it will take.

points.py lists the combinations, instances.py knows what there is room for; sweep.py carries the plan out.
"""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Union

from neuronbert.artifact.files import refuse_inputs
from neuronbert.artifact.manifest import Artifact, Variant
from neuronbert.benchmark.forms import refuse_unwritable
from neuronbert.benchmark.instances import PointInstances
from neuronbert.benchmark.load import DISTRIBUTIONS, Period
from neuronbert.benchmark.loadgen import LEAST_SERVER_QUERIES, import_loadgen
from neuronbert.benchmark.measure import full_rows
from neuronbert.benchmark.points import OPEN, Axes, Setting, chosen_variants, loads_of, settings_of
from neuronbert.benchmark.resume import points_path
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, UsageError, above_zero, as_real, counted, shown_value
from neuronbert.hardware.prices import load_prices
from neuronbert.tasks.base import Input, Task

# What a point takes beside its windows: starting the runner, loading and self-testing the variant.
START_S = 3.0
WARM_UP_S = 1.0
USUAL_S = 8.0  # a point's windows, when it becomes steady
LONG_S = 1800.0  # a sweep that takes longer says what to do about it


@dataclass(frozen=True)
class SweepOptions:
    """The options of ``benchmark_artifact``, which documents them, by the same names in the same order."""

    batch_size: str
    concurrency: str
    workers: str
    threads: str
    sequence_length: str
    neuroncore_pipeline_cores: str
    variant: str
    precision: str
    scenario: Optional[str]
    request_rate: str
    request_distribution: str
    input_data: Optional[Union[str, Path]]
    longest_s: float
    report: Optional[Union[str, Path]]
    compare: Optional[Union[str, Path]]
    latency_p95_ms: Optional[float]
    busy_wait: bool
    instance_type: Optional[str]
    prices: Optional[Union[str, Path]]
    loadgen: bool


class SweepPlan(NamedTuple):
    """What will be measured, in order, and what will not."""

    artifact: Artifact
    variants: List[Variant]  # chosen by the options
    inputs: List[Input]
    settings: List[Setting]
    instances: PointInstances
    left_out: Mapping[str, int]  # reason → how many points


def refuse_early(options: SweepOptions, period: Period) -> None:
    """Raise UsageError for what would otherwise only show when everything is measured.

    OutputError for a report that would be written over what it is made from, and
    BackendUnavailable when LoadGen is to measure and is not installed.
    """
    longest_s = as_real(period.longest_s)
    if longest_s is None or not period.window_s <= longest_s < math.inf:
        raise UsageError(
            f"--longest-s must be at least {period.window_s:g} and finite, not {shown_value(period.longest_s)}"
        )
    latency_p95_ms, distribution = options.latency_p95_ms, options.request_distribution
    if latency_p95_ms is not None and not math.isfinite(above_zero("--latency-p95-ms", latency_p95_ms)):
        raise UsageError(f"--latency-p95-ms must be finite, not {latency_p95_ms!r}")
    if distribution not in DISTRIBUTIONS:
        raise UsageError(f"there is no distribution {distribution!r}", hint=f"one of {', '.join(DISTRIBUTIONS)}")
    if options.report is not None:
        refuse_unwritable(options.report)
        written = (Path(options.report), points_path(options.report))
        refuse_inputs(written, [options.input_data, options.compare, options.prices])
    if options.loadgen:
        import_loadgen()


def plan_sweep(artifact: Artifact, task: Task, inputs: List[Input], options: SweepOptions) -> SweepPlan:
    """The points that the options ask for and that can be measured.

    Raises UsageError for options that cannot be and when no point is left, ArtifactError for a variant that is not
    there, InputError for a price file that cannot be used.
    """
    variants = chosen_variants(artifact, options.variant, options.precision)
    axes = Axes(
        options.batch_size,
        options.workers,
        options.threads,
        options.sequence_length,
        options.neuroncore_pipeline_cores,
    )
    instances = PointInstances(artifact, options.instance_type, load_prices(options.prices))
    texts = _FullTexts(task, Tokenizer.from_files(artifact.folder), inputs)
    loads = loads_of(options.scenario, options.concurrency, options.request_rate, loadgen=options.loadgen)
    settings: List[Setting] = []
    left_out: Counter[str] = Counter()
    for setting in settings_of(variants, axes, loads):
        try:
            texts.require(setting)
            instances.require_room(setting)
            settings.append(setting)
        except (UsageError, InputError) as error:
            left_out[error.message] += 1
    if not settings:
        raise UsageError(f"no point of this sweep can be: {next(iter(left_out))}", hint="other values")
    return SweepPlan(artifact, variants, inputs, settings, instances, left_out)


class _FullTexts:
    """Checks that rows of a length can be filled with text: the model takes them, and the inputs are long enough."""

    def __init__(self, task: Task, tokenizer: Tokenizer, inputs: Sequence[Input]):
        self._task, self._tokenizer, self._inputs = task, tokenizer, inputs
        self._checked: Set[int] = set()

    def require(self, setting: Setting) -> None:
        """Raise UsageError for a length beyond the model's, InputError when the inputs hold no such text."""
        length, longest = setting.sequence_length, self._tokenizer.max_length
        if length and longest and length > longest:
            raise UsageError(f"{length} tokens are more than the model's {longest}")
        if length and not setting.text and length not in self._checked:
            full_rows(self._task, self._tokenizer, self._inputs, length)
            self._checked.add(length)


def announcement(
    settings: Sequence[Setting], compile_s: Mapping[str, float], longest_s: float, *, loadgen: bool
) -> Iterator[str]:
    """How long measuring ``settings`` will take, as lines; ``compile_s`` is variant → seconds to compile it first."""
    compiling_s = sum(compile_s.values())
    windows_s = longest_s if loadgen else min(longest_s, USUAL_S)
    loadgen_s = [_loadgen_s(setting, longest_s) if loadgen else 0.0 for setting in settings]
    expected_s = compiling_s + sum(START_S + WARM_UP_S + windows_s + seconds for seconds in loadgen_s)
    most_s = compiling_s + sum(START_S + WARM_UP_S + longest_s + 2 * seconds for seconds in loadgen_s)
    slow = f"{most_s / 60:.1f} if no load becomes steady"
    yield f"{counted(len(settings), 'point')}, about {expected_s / 60:.1f} minutes, {slow}"
    if compiling_s:
        names = sorted(name for name, seconds in compile_s.items() if seconds)
        yield f"{len(names)} to be compiled first, {compiling_s / 60:.1f} minutes of it: {', '.join(names)}"
    if most_s > LONG_S:
        yield "that is long; Ctrl-C now for fewer points, or at any time: with --report the same command goes on"


def _loadgen_s(setting: Setting, longest_s: float) -> float:
    """What MLPerf LoadGen takes: its Server scenario goes on until it has enough queries."""
    if setting.load.kind == OPEN and setting.load.number is not None:
        return max(longest_s, LEAST_SERVER_QUERIES / setting.load.number)
    return longest_s
