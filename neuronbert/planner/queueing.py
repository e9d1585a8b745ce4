"""How long a request waits and is served when they come at random: the runner's rule for batches, as arithmetic.

A batch leaves when it is full, when its oldest request has waited ``max_wait_s``, or when a core group could work on
more batches than it has (a single core on one, a pipeline on one for each stage); a group holds at most ``in_flight``.
A static batch takes the same time however full it is, so the groups come round in turn, and the moments at which a
batch leaves, enters its first stage and is done follow from those of earlier batches. That is Lindley's recursion
(Proc. Cambridge Phil. Soc. 48, 1952), with batches for customers and the group's turn for the server. Before it enters
a batch is the host's, whose waits are random, and the same for every configuration that is compared; groups then do
not quite come round in turn, and near saturation the recursion waits a little longer than simulation.py.
simulation.py plays the same rule event by event and checks this module; planning.py asks it.

Core groups share the chip's memory, the link and the vCPUs, so a batch takes longer the busier they are, and they are
the busier the longer it takes: short runs settle where both agree (``settled``).
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional

import numpy as np

from neuronbert.errors import UsageError, above_zero
from neuronbert.hardware.closed_loop import HostWaits, busy_share, most_batches_per_s

MAX_WAIT_S = 0.005  # the runner's default
DRAWN_AT_ONCE = 4096
SETTLING_HALVINGS = 10  # to a thousandth of the time
SETTLING_REQUESTS = 2000
# Requests that are so many batches apart on average never meet: less often is the same, and a clock of floats, which
# counts from the first request, would lose the microseconds.
NEVER_MEET_BATCHES = 1e5


@dataclass(frozen=True)
class Service:
    """One instance: ``groups`` core groups that each hold a copy of the model, compiled for ``batch_size`` rows."""

    groups: int
    batch_size: int
    bottleneck_s: float  # the slowest stage, which is the first: a group takes a batch so often
    service_s: float  # all stages: a batch on an idle group, once the host is done with it
    in_flight: int = 1  # batches that a group holds at most
    parallel: int = 1  # batches that a group works on at once: its stages
    max_wait_s: float = MAX_WAIT_S
    host_s: float = 0.0  # of the host, before a batch enters its first stage
    host_waits: HostWaits = HostWaits()

    def __post_init__(self) -> None:
        if min(self.groups, self.batch_size, self.in_flight, self.parallel) < 1 or self.max_wait_s < 0:
            raise UsageError(f"groups, batch_size, in_flight and parallel must be at least 1, max_wait_s 0: {self}")
        if not 0 < self.bottleneck_s <= self.service_s < math.inf:
            raise UsageError(f"the slowest stage must take some time, and no more than all of them: {self}")

    @property
    def alone_s(self) -> float:
        """A batch that meets no other."""
        return self.host_s + self.service_s

    @property
    def capacity_per_s(self) -> float:
        """Requests a second with full batches."""
        round_s = self.alone_s + self.host_waits.mean_s
        return self.groups * self.batch_size * most_batches_per_s(self.in_flight, self.bottleneck_s, round_s)

    def busy_share(self, batches_per_s: float) -> float:
        """Of a group's time when the instance takes ``batches_per_s``, at most 1."""
        return busy_share(batches_per_s / self.groups, self.parallel, self.bottleneck_s, self.alone_s)

    def random_arrivals_s(self, rate_per_s: float, requests: int) -> np.ndarray:
        """``poisson_arrivals``, at the least rate at which requests meet if that is higher; UsageError for no rate."""
        least_per_s = 1 / (NEVER_MEET_BATCHES * self.alone_s)
        return poisson_arrivals(max(above_zero("rate_per_s", rate_per_s), least_per_s), requests)

    def drawn_waits_s(self) -> Iterator[float]:
        """What each batch waits for the host, one after the other: the same in every run."""
        source = np.random.default_rng(0)
        while True:
            draws = source.exponential(size=DRAWN_AT_ONCE), source.exponential(size=DRAWN_AT_ONCE)
            yield from self.host_waits.of(*draws, source.random(DRAWN_AT_ONCE)).tolist()


class Schedule(NamedTuple):
    """What became of each request and of each batch."""

    latencies_s: np.ndarray  # (requests,), from arrival to the end of its batch
    rows: np.ndarray  # (batches,), requests in it


def schedule(service: Service, arrivals_s: Iterable[float]) -> Schedule:
    """Run requests that arrive at ``arrivals_s`` (seconds, ascending) through the instance."""
    arrivals = [float(moment) for moment in arrivals_s]
    last, size, max_wait_s = len(arrivals), service.batch_size, service.max_wait_s
    bottleneck_s, service_s = service.bottleneck_s, service.service_s
    held = service.groups * service.in_flight
    busy = service.groups * min(service.parallel, service.in_flight)
    host_s = [service.host_s + wait_s for wait_s in islice(service.drawn_waits_s(), last)]
    # Of each batch, behind one for every place that is free at first.
    entered, done = [-math.inf] * service.groups, [0.0] * held
    ends: List[int] = [0]  # how many requests have left by then
    first = batch = 0
    # Comparisons in place of min and max: a plan runs through this tens of millions of times.
    while first < last:
        oldest, beyond = arrivals[first], first + size
        closes_at = oldest + max_wait_s
        if beyond > last:
            beyond = last
        elif arrivals[beyond - 1] < closes_at:
            closes_at = arrivals[beyond - 1]
        room_at = done[batch]
        if room_at > closes_at:
            closes_at = room_at
        leaves = done[batch + held - busy]  # a group is idle
        if leaves < oldest:
            leaves = oldest
        if closes_at < leaves:
            leaves = closes_at
        enters, free_at = leaves + host_s[batch], entered[batch] + bottleneck_s
        if free_at > enters:
            enters = free_at
        entered.append(enters)
        done.append(enters + service_s)
        first = bisect_right(arrivals, leaves, first, beyond)
        ends.append(first)
        batch += 1
    left = np.array(ends, dtype=np.int64)
    rows = left[1:] - left[:-1]
    return Schedule(np.repeat(np.array(done[held:]), rows) - np.array(arrivals), rows)


def poisson_arrivals(rate_per_s: float, requests: int, seed: int = 0) -> np.ndarray:
    """The moments, in seconds, at which ``requests`` independent requests come."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate_per_s, requests))


class LatencyUnderLoad(NamedTuple):
    """How long requests take on an instance under random arrivals."""

    p50_s: float
    p95_s: float
    utilisation: float  # requests that come, as a share of those it could take
    rows_per_batch: float


# The instance whose groups are busy for that share of the time, 0 (a batch that meets no other) to 1.
ServiceAt = Callable[[float], Service]


def settled(service_at: ServiceAt, rate_per_s: float) -> Service:
    """The instance as it is at ``rate_per_s`` requests a second, which is below its capacity.

    A batch that is not full takes as long as one that is, so how busy groups are follows from how batches fill. Where
    they are taken to be idler than they then are, they are busier, and the other way round: the range is halved.
    """
    moments = service_at(1.0).random_arrivals_s(rate_per_s, SETTLING_REQUESTS)

    def rows_per_batch(service: Service) -> float:
        return 1.0 if service.batch_size == 1 else float(schedule(service, moments).rows.mean())

    idler, busier = 0.0, 1.0
    for _ in range(SETTLING_HALVINGS):
        busy = (idler + busier) / 2
        service = service_at(busy)
        if service.busy_share(rate_per_s / rows_per_batch(service)) > busy:
            idler = busy
        else:
            busier = busy
    return service_at(busier)


@lru_cache(maxsize=4096)
def under_load(service: Service, rate_per_s: float, service_at: Optional[ServiceAt] = None) -> LatencyUnderLoad:
    """Latency at ``rate_per_s`` requests a second, from the same random arrivals for every instance that is compared.

    ``service`` is the instance at capacity, ``service_at`` (hashable) at less; by default the same. The first tenth is
    left out: it found an empty instance. Infinite at and above capacity; UsageError for a rate that is not above 0.
    """
    utilisation = above_zero("rate_per_s", rate_per_s) / service.capacity_per_s
    if utilisation >= 1:
        return LatencyUnderLoad(math.inf, math.inf, utilisation, service.batch_size)
    # The fuller a queue, the longer it remembers its past: as 1 / (1 - utilisation)^2.
    requests = int(min(200_000, max(20_000, 2_000 / (1 - utilisation) ** 2)))
    now = settled(service_at, rate_per_s) if service_at else service
    result = schedule(now, now.random_arrivals_s(rate_per_s, requests))
    p50, p95 = np.percentile(result.latencies_s[requests // 10 :], [50, 95])
    return LatencyUnderLoad(float(p50), float(p95), utilisation, float(result.rows.mean()))
