"""Keeps idle processors from sleeping, for ``busy_wait``: they wait for the next message as a spinning thread would.

A request wakes a thread four times (the runner's, a worker's, the runner's again, the caller's), and a processor that
sleeps takes its time, in a virtual machine most of all. The kernel polls instead of us: a thread of Python's that spun
would keep its interpreter, or in a worker the processor, from those that it waits for.
"""

import os
import struct
from pathlib import Path

from neuronbert.errors import UsageError, in_words

# The longest that an idle processor may take to wake up, in µs as a signed 32 bit number: asked for by whoever holds
# the file open (Linux, Documentation/power/pm_qos_interface.rst). With 0 it does not sleep.
LATENCY_FILE = Path("/dev/cpu_dma_latency")
NO_LATENCY = struct.pack("=i", 0)


class AwakeProcessors:
    """From now until ``close`` the machine's idle processors poll; a process forked meanwhile keeps them at it too."""

    def __init__(self) -> None:
        try:
            self._descriptor = os.open(LATENCY_FILE, os.O_WRONLY)
        except OSError as error:
            raise UsageError(
                f"busy_wait: {in_words(error)}",
                hint="as root, in a container with --device /dev/cpu_dma_latency too; or without busy_wait",
            ) from None
        os.write(self._descriptor, NO_LATENCY)

    def close(self) -> None:
        """They may sleep again, unless others ask them not to."""
        os.close(self._descriptor)
