"""Busy processes beside what is measured or stressed; started as a process (processes.py), it is one of them."""

import os
import random
import subprocess
import time
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Callable, Dict, Iterator, List, Sequence

from neuronbert.backends.child import python_environment
from neuronbert_tools.processes import module_command

LOOK_S = 0.2  # between two looks whether the parent is still there
LONGEST_BURST_S = 0.05


@contextmanager
def busy_neighbours(count: int, kinds: Sequence[str] = ("spin",)) -> Iterator[List[int]]:
    """``count`` processes of the ``kinds`` (of ``WORK``) in turns while the block runs; yields their pids.

    They end by themselves when this process dies.
    """
    environment = python_environment({**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    processes = [
        subprocess.Popen(module_command("neighbours", kind, os.getpid()), env=environment)
        for kind in islice(cycle(kinds), count)
    ]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _spin(seconds: float) -> None:
    """Keep one core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def _burst(seconds: float) -> None:
    """Keep one core busy in pieces of random length, so that others are preempted at any point of their work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        _spin(random.uniform(0, LONGEST_BURST_S))
        time.sleep(random.uniform(0, LONGEST_BURST_S / 5))


def _multiply(seconds: float) -> None:
    """Keep one core's vector units, its cache and the memory busy."""
    import numpy as np

    matrix = np.random.default_rng(0).random((700, 700), dtype=np.float32)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        matrix @ matrix


WORK: Dict[str, Callable[[float], None]] = {"spin": _spin, "burst": _burst, "multiply": _multiply}


def main(arguments: Sequence[str]) -> int:
    """Be a neighbour of the kind named until the parent is gone; its pid is given, for it may be gone already."""
    work, parent = WORK[arguments[0]], int(arguments[1])
    while os.getppid() == parent:
        work(LOOK_S)
    return 0
