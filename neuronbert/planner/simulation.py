"""Runner and device simulated event by event (simpy): checks ``queueing``, and covers fleets that it cannot.

Every request, batch, stage and instance of a fleet is simulated by itself, so nothing rests on an argument about the
order in which batches finish. Needs the extra ``plan``.
"""

from typing import Any, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from neuronbert.errors import UsageError
from neuronbert.hardware.libraries import optional_imports
from neuronbert.planner.queueing import Schedule, Service


def simulate(
    service: Service,
    arrivals_s: Iterable[float],
    *,
    stages_s: Optional[Sequence[float]] = None,
    instances: int = 1,
    seed: int = 0,
) -> Schedule:
    """What becomes of requests that arrive at ``arrivals_s`` (ascending) on ``instances`` machines like ``service``.

    ``stages_s`` are the seconds of each pipeline stage; by default one that takes all of ``service_s``, or the slowest
    and the rest. A load balancer sends each request to a machine drawn at random.
    BackendUnavailable without simpy.
    """
    if instances < 1:
        raise UsageError(f"a fleet has at least 1 instance, not {instances}")
    simpy = _import_simpy()
    environment = simpy.Environment()
    stages = tuple(stages_s) if stages_s is not None else _stages(service)
    arrivals = np.array(list(arrivals_s), dtype=float)
    done = np.zeros(len(arrivals))
    fleet = [_Instance(simpy, environment, service, stages, done) for _ in range(instances)]
    targets = np.random.default_rng(seed).integers(instances, size=len(arrivals))
    environment.process(_arrive(environment, fleet, arrivals, targets))
    environment.run()
    return Schedule(done - arrivals, np.array([rows for instance in fleet for rows in instance.rows], dtype=np.int64))


def _import_simpy() -> Any:
    with optional_imports():
        import simpy
    return simpy


def _stages(service: Service) -> Tuple[float, ...]:
    rest = service.service_s - service.bottleneck_s
    if rest <= 0:
        return (service.bottleneck_s,)
    # No stage may be slower than the first.
    count = int(np.ceil(rest / service.bottleneck_s))
    return (service.bottleneck_s,) + (rest / count,) * count


def _arrive(
    environment: Any, fleet: Sequence["_Instance"], arrivals: np.ndarray, targets: np.ndarray
) -> Iterator[object]:
    for request, (moment, target) in enumerate(zip(arrivals, targets)):
        yield environment.timeout(max(0.0, moment - environment.now))
        fleet[target].accept(request)


class _Group:
    """A core group: its stages, each of one batch at a time, and how many batches it holds."""

    def __init__(self, simpy: Any, environment: Any, stages: int):
        self.stages = [simpy.Resource(environment) for _ in range(stages)]
        self.held = 0
        self.last = -1  # the number of the batch it was given last


class _Instance:
    """A queue, the rule by which batches leave it, and the core groups they go to."""

    def __init__(self, simpy: Any, environment: Any, service: Service, stages: Tuple[float, ...], done: np.ndarray):
        self.environment, self.service, self.stages_s, self.done = environment, service, stages, done
        self.groups = [_Group(simpy, environment, len(stages)) for _ in range(service.groups)]
        self.queue: List[Tuple[int, float]] = []  # request, when its wait is over
        self.rows: List[int] = []
        self.waits_s = service.drawn_waits_s()

    def accept(self, request: int) -> None:
        self.queue.append((request, self.environment.now + self.service.max_wait_s))
        self.environment.process(self._wake(self.service.max_wait_s))
        self._dispatch()

    def _wake(self, delay_s: float) -> Iterator[object]:
        yield self.environment.timeout(delay_s)
        self._dispatch()

    def _dispatch(self) -> None:
        while self.queue:
            # Of groups that hold equally many, the one given its last batch first is the next to be done.
            group = min(self.groups, key=lambda group: (group.held, group.last))
            # The timer's own sum may differ from the deadline's in the last bit.
            waited = self.environment.now >= self.queue[0][1] - 1e-12
            full = len(self.queue) >= self.service.batch_size
            if group.held >= self.service.in_flight or not (full or waited or group.held < self.service.parallel):
                return
            batch, self.queue = self.queue[: self.service.batch_size], self.queue[self.service.batch_size :]
            self.rows.append(len(batch))
            group.held, group.last = group.held + 1, len(self.rows)
            self.environment.process(self._run(group, [request for request, _ in batch]))

    def _run(self, group: _Group, batch: List[int]) -> Iterator[object]:
        host_s = self.service.host_s + next(self.waits_s)
        if host_s:
            yield self.environment.timeout(host_s)
        for stage, seconds in zip(group.stages, self.stages_s):
            with stage.request() as turn:
                yield turn
                yield self.environment.timeout(seconds)
        self.done[batch] = self.environment.now
        group.held -= 1
        self._dispatch()
