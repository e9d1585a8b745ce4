"""Looking at processes from outside."""

import os
import time


def is_running(pid: int) -> bool:
    """Whether there is such a process that is more than a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, timeout_s: float = 30.0):
    """The condition's first true value; fails when there is none in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout_s} s: {condition}")


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
