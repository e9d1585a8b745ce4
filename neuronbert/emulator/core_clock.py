"""The modelled time of timed mode: when each core is free again, and sleeping until exactly then."""

import ctypes
import threading
import time
from typing import Dict, NamedTuple, Sequence, Tuple

from neuronbert.emulator.neff import Neff
from neuronbert.hardware.device_model import Work, entry_seconds, stage_seconds

PR_SET_TIMERSLACK = 29  # linux/prctl.h
LATE_S = 80e-6  # how late a virtual machine's idle core wakes up


class BatchPlan(NamedTuple):
    """How long a batch of a compiled subgraph takes."""

    neff: Neff  # kept alive, so that its id stays its own
    stages_s: Tuple[float, ...]
    entry_s: float  # the share of the first stage that the host's call takes


class CoreClock:
    """When each core of the process is free again, in modelled time.

    A batch's way through its stages is worked out when it arrives; its caller then sleeps until the end. So
    sixteen stages cost one sleep, and a late wake-up never delays another batch.
    """

    def __init__(self, cores: int):
        self._free_at = [0.0] * cores
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._plans: Dict[Tuple[int, int], BatchPlan] = {}  # by the neff's id and the active cores

    def occupy(
        self, cores: range, neff: Neff, active_cores_per_chip: int, release: str, called_at: float
    ) -> Tuple[float, ...]:
        """Takes the cores one after the other and returns when the last stage is done: each stage's seconds.

        ``called_at`` is when the call came (time.perf_counter): what the emulator did since then took no device time.
        """
        plan = self._plan(neff, active_cores_per_chip, release)
        end = self._schedule(cores, plan.stages_s, self._arrival(called_at, plan.entry_s))
        sleep_until(end)
        self._thread.done_at = end
        return plan.stages_s

    def _plan(self, neff: Neff, active: int, release: str) -> BatchPlan:
        key = (id(neff), active)
        if key not in self._plans:
            work = neff_work(neff, active, release)
            self._plans[key] = BatchPlan(neff, stage_seconds(work), entry_seconds(work))
        return self._plans[key]

    def _arrival(self, called_at: float, host_call_s: float) -> float:
        """When the batch came; a thread's own time between two calls is part of the modelled host call, not added."""
        return max(getattr(self._thread, "done_at", called_at), called_at - host_call_s)

    def _schedule(self, cores: range, stages: Sequence[float], arrival: float) -> float:
        moment = arrival
        with self._lock:
            for core, seconds in zip(cores, stages):
                moment = max(moment, self._free_at[core]) + seconds
                self._free_at[core] = moment
        return moment


def neff_work(neff: Neff, active_cores_per_chip: int, release: str) -> Work:
    """One batch of a compiled subgraph, as the device model wants it."""
    hidden = next((spec.shape for _, spec in neff.inputs if len(spec.shape) == 3), (1, 1, 1))
    return Work(neff.shape, neff.batch_size, hidden[1], neff.pipeline_cores, active_cores_per_chip, release)


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
