"""What a sample of measurements says, and how certain that is: percentiles, steadiness, the knee, and comparison.

Pure: numbers in, numbers out. The intervals assume independent samples; requests that share a queue are not quite
independent, so a real interval is somewhat wider, the more so the fuller the queue.
"""

import math
from statistics import NormalDist
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

CONFIDENCE = 0.95
PERCENTILES = (50, 90, 95, 99)
# Ten samples lie above p99 then; with fewer, the percentile is what one slow request happened to take.
LEAST_SAMPLES_P99 = 1000
STEADY_WINDOWS = 3
STEADY_TOLERANCE = 0.10
LEAST_KNEE_LOADS = 3
KNEE_TOLERANCE = 0.10


class Estimate(NamedTuple):
    """A value and its 95 % confidence interval; an end is infinite where the sample is too small to bound it."""

    value: float
    low: float
    high: float


def percentile(samples: Sequence[float], percent: float) -> Estimate:
    """The percentile with the interval between two order statistics; of nothing, NaN.

    Whatever the distribution, the number of samples below the true percentile is binomial, so the samples of two ranks
    enclose it with known probability (Hahn and Meeker, Statistical Intervals, 5.2).
    """
    ordered = np.sort(np.asarray(samples, dtype=float))
    if not ordered.size:
        return Estimate(math.nan, -math.inf, math.inf)
    value = float(np.percentile(ordered, percent))
    low, high = _ranks(len(ordered), percent / 100)
    # The percentile itself is interpolated between two samples, and among few it may lie beyond the rank.
    return Estimate(
        value,
        min(value, float(ordered[low])) if low >= 0 else -math.inf,
        max(value, float(ordered[high])) if high < len(ordered) else math.inf,
    )


def _ranks(count: int, share: float) -> Tuple[int, int]:
    """Indices of the order statistics; -1 and ``count`` stand for none."""
    if not 0 < share < 1:
        return (-1, count) if share <= 0 else (count - 1, count)
    below = np.arange(count)
    # log of the binomial probabilities, each from the one before it.
    steps = np.log((count - below) / (below + 1)) + math.log(share) - math.log1p(-share)
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    cumulative = np.cumsum(np.exp(logs - logs.max()))
    cumulative /= cumulative[-1]
    tail = (1 - CONFIDENCE) / 2
    return int(np.searchsorted(cumulative, tail)) - 1, int(np.searchsorted(cumulative, 1 - tail))


def latency_percentiles(latencies_ms: Sequence[float]) -> Dict[int, Optional[Estimate]]:
    """p50, p90, p95 and p99 of latencies; p99 is None below 1,000 samples, all are None without any."""
    return {
        percent: percentile(latencies_ms, percent)
        if len(latencies_ms) >= (LEAST_SAMPLES_P99 if percent == 99 else 1)
        else None
        for percent in PERCENTILES
    }


def mean(values: Sequence[float]) -> Estimate:
    """The mean with Student's interval; infinite of a single value, NaN of none."""
    numbers = np.asarray(values, dtype=float)
    if not numbers.size:
        return Estimate(math.nan, -math.inf, math.inf)
    middle = float(numbers.mean())
    if numbers.size == 1:
        return Estimate(middle, -math.inf, math.inf)
    half = _student(numbers.size - 1) * float(numbers.std(ddof=1)) / math.sqrt(numbers.size)
    return Estimate(middle, middle - half, middle + half)


def _student(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t: exact for 1 and 2, else Cornish and Fisher's expansion."""
    probability = (1 + CONFIDENCE) / 2
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        return (2 * probability - 1) * math.sqrt(2 / (4 * probability * (1 - probability)))
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


# ---------------------------------------------------------------------------- steadiness and the knee


class MeasuredWindow(NamedTuple):
    """What was seen in one stretch of a run."""

    throughput_per_s: float  # answers
    p95_ms: float  # latency


def steady_from(windows: Sequence[MeasuredWindow]) -> Optional[int]:
    """Index of the first of three windows in a row whose throughput and p95 are each within 10 % of their mean.

    None when no three are: the run was never steady.
    """
    for first in range(len(windows) - STEADY_WINDOWS + 1):
        run = windows[first : first + STEADY_WINDOWS]
        if _alike([window.throughput_per_s for window in run]) and _alike([window.p95_ms for window in run]):
            return first
    return None


def _alike(values: Sequence[float]) -> bool:
    middle = sum(values) / len(values)
    return middle > 0 and all(abs(value - middle) <= STEADY_TOLERANCE * middle for value in values)


class LoadPoint(NamedTuple):
    """What was measured at one load of a curve."""

    load: float  # clients that wait for their answers, or requests a second that do not
    throughput_per_s: float  # answers
    latency_ms: float

    @property
    def power(self) -> float:
        """Throughput for its latency; 0 where nothing was answered."""
        return self.throughput_per_s / self.latency_ms if self.latency_ms > 0 else 0.0


def find_knee(curve: Sequence[LoadPoint], *, least_load: Optional[float] = None) -> Optional[int]:
    """Index of the point where latency takes off: from there on, more load adds more to latency than to throughput.

    It is the point of the most power, throughput divided by latency (Kleinrock, Power and deterministic rules of thumb
    for probabilistic problems in computer communications, ICC 1979): with latency drawn over throughput, the line from
    the origin to it is the flattest. For one M/M/1 server that is half of its capacity, for clients that wait in turn
    as many as are served at once. Other definitions (Kneedle: Satopää et al., Finding a "Kneedle" in a Haystack, 2011)
    scale the curve to its ends, so that their knee moves with the highest load that was tried.

    None for fewer than three loads; where the most power is hardly more than that of the highest load, because latency
    has not taken off there; and where it is at the lowest load, unless that is ``least_load``, below which there is
    none: it may lie lower.
    """
    ordered = sorted(range(len(curve)), key=lambda index: curve[index].load)
    if len({point.load for point in curve}) < LEAST_KNEE_LOADS:
        return None
    knee = max(ordered, key=lambda index: curve[index].power)
    if curve[ordered[-1]].power >= (1 - KNEE_TOLERANCE) * curve[knee].power:
        return None
    return None if curve[knee].load == curve[ordered[0]].load != least_load else knee


# ---------------------------------------------------------------------------- comparison


class Difference(NamedTuple):
    """One figure in two reports; ``verdict`` is "same" while the intervals overlap."""

    point: str
    figure: str
    before: Estimate
    after: Estimate
    verdict: str  # slower, faster or same

    @property
    def ratio(self) -> float:
        return self.after.value / self.before.value if self.before.value else math.nan


def compare(point: str, figure: str, before: Estimate, after: Estimate, *, more_is_better: bool) -> Difference:
    """Whether a figure changed by more than the noise of both measurements: whether their intervals are apart."""
    if after.low > before.high:
        verdict = "faster" if more_is_better else "slower"
    elif after.high < before.low:
        verdict = "slower" if more_is_better else "faster"
    else:
        verdict = "same"
    return Difference(point, figure, before, after, verdict)


def slower(differences: Sequence[Difference]) -> List[Difference]:
    """The differences that are for the worse."""
    return [difference for difference in differences if difference.verdict == "slower"]
