"""What callers see who ask again as soon as they are answered: a small simulation, the same every time.

device_model.py says how long each part takes; here callers share one core group. Each call is first the host's, then
waits its turn at the first stage, then passes the others: none of them is slower than the first, so nobody waits there.
"""

import functools
import heapq
import math
import random
from typing import Any, List, NamedTuple, Sequence, Tuple

CALLS = 2000
WARM_UP = 100
CALLS_PER_CALLER = 20  # so that many callers are seen for as long as few


class HostWaits(NamedTuple):
    """What may come on top of the host's own work in a call, at random (exponential)."""

    contention_s: float = 0.0  # mean wait for a vCPU
    link_share: float = 0.0  # of the calls find the link to the device taken
    link_s: float = 0.0  # mean wait of those

    @property
    def mean_s(self) -> float:
        """Of all calls."""
        return self.contention_s + self.link_share * self.link_s

    def draw_s(self, source: random.Random) -> float:
        """One call's wait."""
        return float(self.of(source.expovariate(1), source.expovariate(1), source.random()))

    def of(self, contention: Any, link: Any, share: Any) -> Any:
        """The wait that three draws make (numbers, or arrays): two exponential with mean 1, one uniform from 0 to 1."""
        return self.contention_s * contention + self.link_s * link * (share < self.link_share)


class Latencies(NamedTuple):
    """Seconds of a call."""

    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float


def most_batches_per_s(callers: int, bottleneck_s: float, round_s: float) -> float:
    """What a core group takes at most: a batch each time its slowest stage is free, or each caller one a round."""
    return min(1 / bottleneck_s, callers / round_s)


def occupied_s(stages: int, bottleneck_s: float, round_s: float) -> float:
    """For how long one batch keeps a core group busy, as far as it slows the other cores of the chip.

    A pipeline whose callers are as many as its ``stages`` is busy all the time, even where they, and not its slowest
    stage, are the limit: so the published rows of pipelines were fitted.
    """
    return bottleneck_s if stages == 1 else max(bottleneck_s, round_s / stages)


def busy_share(batches_per_s: float, stages: int, bottleneck_s: float, round_s: float) -> float:
    """Of its time, a core group's that takes ``batches_per_s``, as ``occupied_s`` means it."""
    return min(1.0, batches_per_s * occupied_s(stages, bottleneck_s, round_s))


def closed_loop(callers: int, host_s: float, waits: HostWaits, stages_s: Sequence[float]) -> Latencies:
    """``callers`` who share one core group; the first of ``stages_s`` is its slowest stage."""
    first_s, pass_s = stages_s[0], sum(stages_s)
    count = CALLS + CALLS_PER_CALLER * callers
    # No quantile of a wait is left to chance: the same waits, in another order, would say the same.
    draws = zip(_exponential(1, count), _exponential(2, count), _uniform(3, count))
    host = [host_s + waits.of(*draw) for draw in draws]
    latencies = sorted(_in_turn(callers, host, first_s, pass_s) if callers > 1 else [one + pass_s for one in host])
    mean_s = sum(latencies) / len(latencies)
    return Latencies(mean_s, *(_quantile(latencies, share) for share in (0.5, 0.95, 0.99)))


def _in_turn(callers: int, host: Sequence[float], first_s: float, pass_s: float) -> List[float]:
    """The latency of each call, those of the start left out; ``host`` is what each has before it reaches the core."""
    ready: List[Tuple[float, float]] = [(host[caller], 0.0) for caller in range(callers)]  # at the core, called
    heapq.heapify(ready)
    free = 0.0
    latencies: List[float] = []
    for wait in host[callers:]:
        came, called = heapq.heappop(ready)
        start = max(came, free)
        free, done = start + first_s, start + pass_s
        latencies.append(done - called)
        heapq.heappush(ready, (done + wait, done))
    return latencies[WARM_UP + 2 * callers :]  # the callers all began at one moment


@functools.lru_cache(maxsize=64)
def _uniform(seed: int, count: int) -> Tuple[float, ...]:
    values = [(number + 0.5) / count for number in range(count)]
    random.Random(seed).shuffle(values)
    return tuple(values)


@functools.lru_cache(maxsize=64)
def _exponential(seed: int, count: int) -> Tuple[float, ...]:
    return tuple(-math.log(1 - value) for value in _uniform(seed, count))


def _quantile(ascending: Sequence[float], share: float) -> float:
    place = share * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (place - below) * (ascending[above] - ascending[below])
