"""Counts a process's inferences and its cores' busy time, in the words of neuron-monitor; tools.py shows them."""

import threading
import time
from collections import deque
from typing import Deque, Dict, Iterable, Optional, TypedDict

PERCENTILES = (0, 1, 25, 50, 75, 99, 100)
SUMMARY = (
    "completed",
    "completed_with_err",
    "completed_with_num_err",
    "timed_out",
    "incorrect_input",
    "failed_to_queue",
)


class Snapshot(TypedDict, total=False):
    """The counters at one moment."""

    execution_summary: Dict[str, int]  # the names of SUMMARY
    latency: Optional[Dict[str, float]]  # "p50" → seconds; None before the first inference


class InferenceCounters:
    """Thread-safe counters since the process began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._summary = dict.fromkeys(SUMMARY, 0)
        self._latencies: Deque[float] = deque(maxlen=1000)
        self._per_core: Dict[int, int] = {}

    def completed(self, latency_s: float, numerical_error: bool) -> None:
        """An inference has given outputs, NaN among them if ``numerical_error``."""
        with self._lock:
            self._summary["completed_with_num_err" if numerical_error else "completed"] += 1
            self._latencies.append(latency_s)

    def failed(self, how: str) -> None:
        """An inference has failed; ``how`` is a name of SUMMARY."""
        with self._lock:
            self._summary[how] += 1

    def batch_done(self, cores: Iterable[int]) -> None:
        """A batch went through these cores of the process."""
        with self._lock:
            for core in cores:
                self._per_core[core] = self._per_core.get(core, 0) + 1

    def per_core(self, core: int) -> int:
        """Batches that went through a core of the process."""
        with self._lock:
            return self._per_core.get(core, 0)

    def snapshot(self) -> Snapshot:
        """The summary, and percentiles of the last thousand latencies."""
        with self._lock:
            ordered = sorted(self._latencies)
            summary = dict(self._summary)
        latency = {f"p{p}": ordered[round(p / 100 * (len(ordered) - 1))] for p in PERCENTILES} if ordered else None
        return {"execution_summary": summary, "latency": latency}


class CoreMeter:
    """A core of the process: held by ``with`` for one batch at a time, it measures how long it was busy."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._entered_at = 0.0
        self._busy_s = 0.0
        self._asked_at, self._busy_then_s = time.perf_counter(), 0.0

    def __enter__(self) -> None:
        self.lock.acquire()
        self._entered_at = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._busy_s += time.perf_counter() - self._entered_at
        self.lock.release()

    def add(self, modelled_s: float) -> None:
        """Counts modelled time as busy."""
        self._busy_s += modelled_s

    def utilization(self) -> float:
        """Percent of the time since this was asked last that the core was busy."""
        now, busy_s = time.perf_counter(), self._busy_s
        share = (busy_s - self._busy_then_s) / max(1e-9, now - self._asked_at)
        self._asked_at, self._busy_then_s = now, busy_s
        return round(100 * min(1.0, share), 2)
