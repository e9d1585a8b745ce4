"""Keeps idle processors from sleeping, for ``busy_wait``: they wait for the next message as a spinning thread would.

A request wakes a thread four times (the runner's, a worker's, the runner's again, the caller's), and a processor that
sleeps takes its time, in a virtual machine most of all. The kernel polls instead of us: a thread of Python's that spun
would keep its interpreter, or in a worker the processor, from those that it waits for.
"""

import struct
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator

from neuronbert.errors import UsageError, in_words

# The longest that an idle processor may take to wake up, in µs as a signed 32 bit number: asked for by whoever holds
# the file open (Linux, Documentation/power/pm_qos_interface.rst). With 0 it does not sleep.
LATENCY_FILE = Path("/dev/cpu_dma_latency")
NO_LATENCY = struct.pack("=i", 0)

# The kernel heeds that where it chooses among idle states (Linux, Documentation/admin-guide/pm/cpuidle.rst), and polls
# if the first of them is POLL. Without a driver, as in many virtual machines, a processor halts whatever is asked for.
PROCESSORS = Path("/sys/devices/system/cpu")


@contextmanager
def awake_processors() -> Iterator[None]:
    """In the block the machine's idle processors poll; a process forked there keeps them at it too.

    UsageError where they cannot, or this user may not have it so. Afterwards they may sleep, unless others ask them
    not to.
    """
    _refuse_what_sleeps()
    with ExitStack() as opened:
        try:
            # Not "w", which would make an ordinary file of that name where the kernel's is missing.
            file = opened.enter_context(open(LATENCY_FILE, "r+b", buffering=0))
            file.write(NO_LATENCY)
        except OSError as error:
            raise UsageError(
                f"busy_wait: {in_words(error)}",
                hint="as root, in a container with --device /dev/cpu_dma_latency too; or without busy_wait",
            ) from None
        yield


def _refuse_what_sleeps() -> None:
    """UsageError unless some processor of this machine polls when it may not sleep."""
    first_states = PROCESSORS.glob("cpu[0-9]*/cpuidle/state0/name")
    if not any(_text(name) == "POLL" for name in first_states):
        raise UsageError(
            "busy_wait: no processor of this machine can poll when it is idle "
            f"(cpuidle driver: {_text(PROCESSORS / 'cpuidle' / 'current_driver')})",
            hint="without busy_wait; or on Linux 5.4 and later, in a virtual machine of KVM's and as root: modprobe "
            "cpuidle_haltpoll force=1",
        )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return "none"
