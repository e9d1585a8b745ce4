"""What callers see who ask again as soon as they are answered: a small simulation, the same every time.

device_model.py says how long each part takes; here callers share one core group. Each call is first the host's, then
waits its turn at the first stage, then passes the others: none of them is slower than the first, so nobody waits there.
"""

import functools
import heapq
import math
import random
from typing import List, NamedTuple, Sequence, Tuple

CALLS = 2000
WARM_UP = 100


class HostWaits(NamedTuple):
    """What may come on top of the host's own work in a call, at random (exponential)."""

    contention_s: float = 0.0  # mean wait for a vCPU
    link_share: float = 0.0  # of the calls find the link to the device taken
    link_s: float = 0.0  # mean wait of those

    @property
    def mean_s(self) -> float:
        """Of all calls."""
        return self.contention_s + self.link_share * self.link_s

    @property
    def high_s(self) -> float:
        """95 of 100 calls wait no longer: each kind of wait at its own worst."""
        link_s = self.link_s * math.log(self.link_share / 0.05) if self.link_share > 0.05 else 0.0
        return self.contention_s * math.log(1 / 0.05) + link_s

    def draw_s(self, source: random.Random) -> float:
        """One call's wait."""
        wait_s = source.expovariate(1 / self.contention_s) if self.contention_s else 0.0
        if self.link_s and source.random() < self.link_share:
            wait_s += source.expovariate(1 / self.link_s)
        return wait_s


class Latencies(NamedTuple):
    """Seconds of a call."""

    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float


def closed_loop(callers: int, host_s: float, waits: HostWaits, stages_s: Sequence[float]) -> Latencies:
    """``callers`` who share one core group; the first of ``stages_s`` is its slowest stage."""
    first_s, pass_s = stages_s[0], sum(stages_s)
    # No quantile of a wait is left to chance: the same waits, in another order, would say the same.
    host = [
        host_s + waits.contention_s * one + (waits.link_s * two if share < waits.link_share else 0.0)
        for one, two, share in zip(_exponential(1), _exponential(2), _uniform(3))
    ]
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
    return latencies[WARM_UP:]


@functools.lru_cache(maxsize=None)
def _uniform(seed: int) -> Tuple[float, ...]:
    values = [(number + 0.5) / CALLS for number in range(CALLS)]
    random.Random(seed).shuffle(values)
    return tuple(values)


@functools.lru_cache(maxsize=None)
def _exponential(seed: int) -> Tuple[float, ...]:
    return tuple(-math.log(1 - value) for value in _uniform(seed))


def _quantile(ascending: Sequence[float], share: float) -> float:
    place = share * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (place - below) * (ascending[above] - ascending[below])
