"""The runner asked for more than it can answer: who is refused, how fast, and what the others get."""

import threading
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Dict, List

from neuronbert import Runner
from neuronbert.errors import DeadlineExceeded, Overloaded
from neuronbert_tools.artifacts import echo_artifact
from neuronbert_tools.console import print_message
from neuronbert_tools.load import closed_loop, percentile
from neuronbert_tools.questions import Pair

PAIR = ("Who was it?", "It was me, in the box, with the rest of them.")
BATCH_S = 0.05
CLIENTS_PER_WORKER = 32
CAPACITY_SECONDS = 5.0


def measure_overload(folder: Path, *, workers: int, seconds: float, deadline_s: float) -> Dict[str, Any]:
    """Ask four times as much as can be answered, each with a deadline, then half as much as can be."""
    artifact = echo_artifact(folder / "echo", batch_s=BATCH_S)
    with Runner(artifact, workers=workers, max_queue=1024) as runner:

        def ask() -> object:
            return runner.submit(*PAIR).result()

        full = len(closed_loop(CLIENTS_PER_WORKER * workers, CAPACITY_SECONDS, ask)) / CAPACITY_SECONDS
        flood = open_loop(runner, 4 * full, seconds, deadline_s, PAIR)
        after = open_loop(runner, 0.5 * full, 5.0, deadline_s, PAIR)
    print_message(f"capacity {full:.0f}/s; asked for {4 * full:.0f}/s for {seconds:.0f} s, deadline {deadline_s} s")
    print_message(
        f"answered {flood['answered_per_s'] / full:.1%} of capacity; p99 of the answered {flood['p99_ms']:.0f} ms; "
        f"late {flood['late']}; refused {flood['refused']} within {flood['refused_p99_ms']:.2f} ms (p99); "
        f"expired in the queue {flood['expired']}"
    )
    print_message(
        f"then at half capacity: {after['refused']} of {after['asked']} refused, p99 {after['p99_ms']:.0f} ms"
    )
    return {"capacity_per_s": full, "deadline_ms": deadline_s * 1000, "overload": flood, "after": after}


class Outcomes:
    """How requests ended: latencies in seconds of the answered and of the refused, and a count of the expired."""

    def __init__(self) -> None:
        self.answered_s: List[float] = []
        self.refused_s: List[float] = []
        self.expired = 0
        self._lock = threading.Lock()

    def done(self, began: float, future: "Future[Any]") -> None:
        """The callback of a request that was handed over at ``began``."""
        taken = time.perf_counter() - began
        error = future.exception()
        with self._lock:
            if error is None:
                self.answered_s.append(taken)
            elif isinstance(error, DeadlineExceeded):
                self.expired += 1


def open_loop(runner: Runner, rate: float, seconds: float, deadline_s: float, pair: Pair) -> Dict[str, Any]:
    """Ask at a constant ``rate`` a second, whatever comes back."""
    outcomes = Outcomes()
    begin = time.perf_counter()
    asked = 0
    while True:
        due = begin + asked / rate
        if due >= begin + seconds:
            break
        time.sleep(max(0.0, due - time.perf_counter()))
        began = time.perf_counter()
        asked += 1
        try:
            runner.submit(*pair, timeout_s=deadline_s).add_done_callback(partial(outcomes.done, began))
        except Overloaded:
            outcomes.refused_s.append(time.perf_counter() - began)
    took_s = time.perf_counter() - begin
    time.sleep(deadline_s + 0.5)
    answered, refused = outcomes.answered_s, outcomes.refused_s
    return {
        "asked": asked,
        "asked_per_s": asked / took_s,
        "answered_per_s": len(answered) / took_s,
        "p50_ms": percentile(answered, 50) * 1000,
        "p99_ms": percentile(answered, 99) * 1000,
        "late": sum(latency > deadline_s for latency in answered),
        "refused": len(refused),
        "refused_p99_ms": percentile(refused, 99) * 1000 if refused else 0.0,
        "expired": outcomes.expired,
    }
