"""Measures a command from process start to its first line of output, and the most memory it held."""

import os
import resource
import subprocess
import sys
import time
from typing import IO, Dict, List, Mapping, NamedTuple, Sequence

REPEATS = 5


class Start(NamedTuple):
    """One run of a command."""

    answer_s: float  # until the first line was on stdout
    exit_s: float
    peak_mib: float


def measure_start(command: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> Start:
    """Run ``command`` once. RuntimeError, with the exit code, when it fails or prints nothing.

    The kernel counts the memory of the process that started a command into the command's peak, so the caller has to be
    the smaller of the two; RuntimeError if it is not.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        list(command), env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
    )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
        answer_s = time.perf_counter() - start
        process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)  # wait() alone would lose the child's own peak memory
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0 or not line.strip():
        raise RuntimeError(f"{command[0]} exited with {process.returncode} and printed {line!r}: see {log.name}")
    if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        raise RuntimeError(f"this process has held more memory than {command[0]}: its peak cannot be told")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Start(answer_s, time.perf_counter() - start, usage.ru_maxrss / unit)


def measure_starts(
    commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], log: IO[bytes]
) -> Dict[str, List[Start]]:
    """Every command in turn, REPEATS times after one that only fills the page cache."""
    runs: Dict[str, List[Start]] = {name: [] for name in commands}
    for repeat in range(REPEATS + 1):
        for name, command in commands.items():
            run = measure_start(command, environment, log)
            if repeat > 0:
                runs[name].append(run)
    return runs
