"""What is settled before anything runs: a sweep's options, its points, what is left out and why, and how long it takes.

artifact_target.py and server_target.py plan; sweep.py carries the plan out.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Mapping, NamedTuple, Optional, Sequence, Union

from neuronbert.artifact.files import refuse_inputs
from neuronbert.benchmark.forms import refuse_unwritable
from neuronbert.benchmark.load import DISTRIBUTIONS, Period
from neuronbert.benchmark.loadgen import LEAST_SERVER_QUERIES, import_loadgen
from neuronbert.benchmark.points import OPEN, Setting
from neuronbert.benchmark.resume import points_path
from neuronbert.errors import UsageError, above_zero, as_real, counted, shown_value
from neuronbert.tasks.base import Input

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
    model: Optional[str]
    protocol: Optional[str]
    task: Optional[str]
    timeout_ms: Optional[float]


class SweepPlan(NamedTuple):
    """What will be measured, in order, and what will not."""

    inputs: List[Input]
    settings: List[Setting]
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


def refuse_options(options: SweepOptions, names: Sequence[str], reason: str) -> None:
    """Raise UsageError, naming them, where any of these options was given: ``reason`` says whose they are."""
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, False, "")]
    if given:
        verb = "is" if len(given) == 1 else "are"
        raise UsageError(f"{' and '.join(given)} {verb} {reason}", hint=f"leave out {' and '.join(given)}")


def announcement(
    settings: Sequence[Setting],
    compile_s: Mapping[str, float],
    longest_s: float,
    *,
    loadgen: bool,
    start_s: float = START_S,
) -> Iterator[str]:
    """How long measuring ``settings`` will take, as lines.

    ``compile_s`` is variant → seconds to compile it first, ``start_s`` what a point takes before it is asked anything.
    """
    compiling_s = sum(compile_s.values())
    windows_s = longest_s if loadgen else min(longest_s, USUAL_S)
    loadgen_s = [_loadgen_s(setting, longest_s) if loadgen else 0.0 for setting in settings]
    expected_s = compiling_s + sum(start_s + WARM_UP_S + windows_s + seconds for seconds in loadgen_s)
    most_s = compiling_s + sum(start_s + WARM_UP_S + longest_s + 2 * seconds for seconds in loadgen_s)
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
