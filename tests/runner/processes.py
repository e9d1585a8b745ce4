"""Looking at processes from outside."""

import os
import signal
import time
from contextlib import contextmanager, suppress


def state_of(pid: int) -> str:
    """The letter that ps shows; "" where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone, or gone while it was read
        return ""


def is_running(pid: int) -> bool:
    """Whether there is such a process that is more than a zombie."""
    return state_of(pid) not in ("", "Z")


def wait_until(condition, timeout_s: float = 120.0):
    """The condition's first true value; fails when there is none in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout_s} s: {condition}")


@contextmanager
def stopped(runner):
    """No worker of the runner answers anything in the block, however long that takes on a busy machine."""
    pids = [worker["pid"] for worker in runner.stats()["workers"]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: all(state_of(pid) == "T" for pid in pids))
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # killed in the block
                os.kill(pid, signal.SIGCONT)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
