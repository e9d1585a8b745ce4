"""CPU and wall-clock time: of a function, and of a runner with its workers."""

import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Iterator

from neuronbert import Runner
from neuronbert.hardware.machine import process_cpu_s


@dataclass
class Usage:
    """Seconds that a block of requests took; filled in when the block ends."""

    wall_s: float = 0.0
    runner_cpu_s: float = 0.0
    workers_cpu_s: float = 0.0


@contextmanager
def usage_of(runner: Runner) -> Iterator[Usage]:
    """Requests are made inside the block; after it, the Usage says what they took."""
    usage = Usage()
    pids = [worker["pid"] for worker in runner.stats()["workers"]]
    workers, own, wall = sum(map(process_cpu_s, pids)), time.process_time(), time.perf_counter()
    yield usage
    usage.wall_s = time.perf_counter() - wall
    usage.runner_cpu_s = time.process_time() - own
    usage.workers_cpu_s = sum(map(process_cpu_s, pids)) - workers


def cpu_us(function: Callable[[], object], count: int, rounds: int = 5) -> float:
    """The median over the rounds of the CPU microseconds of one of the ``count`` things that ``function`` does."""
    rounds_us = []
    for _ in range(rounds):
        began = time.process_time()
        function()
        rounds_us.append((time.process_time() - began) / count * 1e6)
    return statistics.median(rounds_us)
