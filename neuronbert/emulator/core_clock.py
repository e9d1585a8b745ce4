"""The modelled time of timed mode: when each core is free again, and sleeping until exactly then."""

import contextlib
import ctypes
import math
import random
import threading
import time
from typing import Dict, Iterator, NamedTuple, Tuple

from neuronbert.emulator.neff import Neff
from neuronbert.hardware.closed_loop import HostWaits, occupied_s
from neuronbert.hardware.device_model import Work, entry_seconds, host_call_seconds, host_waits, stage_seconds

PR_SET_TIMERSLACK = 29  # linux/prctl.h
LATE_S = 80e-6  # how late a virtual machine's idle core wakes up
BUSY_STEPS = 16  # how finely a share of time is told apart, so that few plans are worked out
REMEMBERED_BATCHES = 50  # how many of a core's own batches it is remembered for how busy it was
TELLING_BATCHES = 4  # after a rest: of a load of 2 % hardly ever so many come together


class Neighbours(NamedTuple):
    """Who else is on the machine, as the other processes' reservations tell."""

    instance: str
    active_cores_per_chip: int  # cores of this one's chip that have a model on them, itself included
    models: int  # core groups of the instance that have a model, this one included
    processes: int  # that hold them


class BatchPlan(NamedTuple):
    """How long a batch of a compiled subgraph takes."""

    neff: Neff  # kept alive, so that its id stays its own
    stages_s: Tuple[float, ...]
    entry_s: float  # the share of the first stage that handing over the batch takes
    host_s: float  # what the host does in a call before that
    waits: HostWaits  # what comes on top at random


class FadingShare:
    """Of a core's time that it is busy: a mean in which the past fades exponentially.

    It is over time, not over batches: where batches come at random most come in bursts, in which the core is busier
    than it is.
    """

    def __init__(self) -> None:
        self.until = 0.0  # what is known reaches to here
        self.batches = 0
        self._busy_s = 0.0
        self._seen_s = 0.0  # how much time is known, the past as faded as in ``_busy_s``
        self._remembered_s = 1.0  # what is longer ago counts little

    def at(self, moment: float) -> float:
        """As it is at ``moment`` (seconds), when nothing has come since the last batch; there must have been one."""
        busy_s, seen_s = self._after_idle(moment)
        return busy_s / seen_s

    def add(self, came: float, busy_s: float, until: float) -> None:
        """A batch that the core was idle for until it ``came``, and then ``busy_s``, which ends at ``until``."""
        if self.batches:
            self._busy_s, self._seen_s = self._after_idle(came)
        self._remembered_s = REMEMBERED_BATCHES * busy_s
        kept = math.exp(-busy_s / self._remembered_s)
        lately_s = self._remembered_s * (1 - kept)
        self._busy_s, self._seen_s = self._busy_s * kept + lately_s, self._seen_s * kept + lately_s
        self.until = until
        self.batches += 1

    def _after_idle(self, moment: float) -> Tuple[float, float]:
        """How much busy and known time is remembered at ``moment``."""
        kept = math.exp(-max(0.0, moment - self.until) / self._remembered_s)
        return self._busy_s * kept, self._seen_s * kept + self._remembered_s * (1 - kept)


class BusyShare:
    """How busy a core is; one that has done nothing is taken to be busy all the time.

    What comes after a long rest may be another load: once there are some batches of it, they alone count.
    """

    def __init__(self) -> None:
        self._known = FadingShare()
        self._since_rest = self._known

    def at(self, moment: float) -> float:
        """At ``moment`` (seconds), when nothing has come since the last batch."""
        return self._known.at(moment) if self._known.batches else 1.0

    def add(self, start: float, busy_s: float, *, waited_s: float = 0.0, most_s: float = math.inf) -> None:
        """A batch from ``start``, in turn after those before, but for no longer than ``most_s`` from then.

        That it ``waited_s`` for the host just before is left out (device_model.shared_stage_seconds).
        """
        came, until = start - waited_s, min(max(start, self._known.until) + busy_s, start + most_s)
        if self._known.batches and came - self._known.until > REMEMBERED_BATCHES * busy_s:
            self._since_rest = FadingShare()
        for share in {self._known, self._since_rest}:
            share.add(came, busy_s, until)
        if self._since_rest.batches >= TELLING_BATCHES:
            self._known = self._since_rest


class CoreClock:
    """When each core of the process is free again, in modelled time.

    A batch's way through its stages is worked out when it arrives; its caller then sleeps until the end. So
    sixteen stages cost one sleep, and a late wake-up never delays another batch. Waits for the host are drawn from
    ``seed``: the same calls in the same order wait the same.
    """

    def __init__(self, cores: int, seed: int = 0):
        self._free_at = [0.0] * cores
        self._busy = [BusyShare() for _ in range(cores)]
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._random = random.Random(seed)
        self._plans: Dict[Tuple[int, Neighbours, int, int], BatchPlan] = {}
        self._callers: Dict[int, int] = {}  # core → calls that are in it

    def occupy(
        self, cores: range, neff: Neff, neighbours: Neighbours, release: str, called_at: float
    ) -> Tuple[float, ...]:
        """Takes the cores one after the other and returns when the last stage is done: each stage's seconds.

        ``called_at`` is when the call came (time.perf_counter): what the emulator did since then took no device time.
        """
        with self._calling(cores[0]):
            plan, arrival, wait_s = self._arrive(cores[0], neff, neighbours, release, called_at)
            if self.is_overtaken(plan, wait_s):
                sleep_until(arrival - plan.host_s)  # every call has its place at the core that long before it is there
            end = self._schedule(cores, plan, arrival, wait_s)
            sleep_until(end)
            self._thread.done_at = end
        return plan.stages_s

    def is_overtaken(self, plan: BatchPlan, wait_s: float) -> bool:
        """Whether calls that come later may be at the core before one that waits so long for the host."""
        return wait_s > plan.stages_s[0] / 4

    @contextlib.contextmanager
    def _calling(self, core: int) -> Iterator[None]:
        with self._lock:
            self._callers[core] = self._callers.get(core, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._callers[core] -= 1

    def _arrive(
        self, core: int, neff: Neff, neighbours: Neighbours, release: str, called_at: float
    ) -> Tuple[BatchPlan, float, float]:
        """How long the batch takes, when the host is done with it, and how long of that it waited for the host.

        A thread's own time between two calls is part of handing the batch over, not added.
        """
        with self._lock:
            plan = self._plan(neff, neighbours, release, self._busy[core].at(called_at), self._callers[core])
            wait_s = plan.waits.draw_s(self._random)
        came = max(getattr(self._thread, "done_at", called_at), called_at - plan.entry_s)
        return plan, came + plan.host_s + wait_s, wait_s

    def _plan(self, neff: Neff, neighbours: Neighbours, release: str, busy: float, callers: int) -> BatchPlan:
        """Cores of a chip share its memory as often as they are busy; others are taken to be as ``busy`` as this."""
        steps = round(busy * BUSY_STEPS)
        key = (id(neff), neighbours, steps, callers)
        if key not in self._plans:
            share = steps / BUSY_STEPS
            work = neff_work(neff, 1 + (neighbours.active_cores_per_chip - 1) * share, release)
            stages_s, host_s = stage_seconds(work), host_call_seconds()
            waits = host_waits(
                work,
                neighbours.models * share / stages_s[0],
                instance=neighbours.instance,
                round_s=host_s + sum(stages_s),
                models=neighbours.models,
                in_flight=callers,
                processes=neighbours.processes,
            )
            self._plans[key] = BatchPlan(neff, stages_s, entry_seconds(work), host_s, waits)
        return self._plans[key]

    def _schedule(self, cores: range, plan: BatchPlan, arrival: float, wait_s: float = 0.0) -> float:
        moment = arrival
        with self._lock:
            self._note_busy(cores[0], plan, max(arrival, self._free_at[cores[0]]), wait_s)
            for core, seconds in zip(cores, plan.stages_s):
                moment = max(moment, self._free_at[core]) + seconds
                self._free_at[core] = moment
        return moment

    def _note_busy(self, core: int, plan: BatchPlan, start: float, wait_s: float) -> None:
        first_s, round_s = plan.stages_s[0], plan.host_s + sum(plan.stages_s)
        busy_s = occupied_s(len(plan.stages_s), first_s, round_s)
        self._busy[core].add(start, busy_s, waited_s=wait_s, most_s=round_s)


def neff_work(neff: Neff, active_cores_per_chip: float, release: str) -> Work:
    """One batch of a compiled subgraph, as the device model wants it."""
    hidden = next((spec.shape for _, spec in neff.inputs if len(spec.shape) == 3), (1, 1, 1))
    casts = "all" if neff.policy.everything else "matmul"
    return Work(neff.shape, neff.batch_size, hidden[1], neff.pipeline_cores, active_cores_per_chip, release, casts)


_precise = threading.local()


def sleep_until(moment: float) -> None:
    """Until ``moment`` of time.perf_counter, to within some 20 microseconds: all but the last ``LATE_S`` asleep."""
    if not getattr(_precise, "asked", False):
        _ask_for_precise_sleep()
        _precise.asked = True
    while True:
        left = moment - time.perf_counter()
        if left <= 0:
            return
        if left > LATE_S:
            time.sleep(left - LATE_S)


def _ask_for_precise_sleep() -> None:
    """Linux wakes a thread up to 50 microseconds late unless the thread asks otherwise."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    except (OSError, AttributeError):
        pass  # not Linux: a little late is all that happens
