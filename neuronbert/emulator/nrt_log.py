"""The runtime's log lines and error texts, as users and AWS's troubleshooting guide show them."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from neuronbert.hardware.own_places import open_own, own_folder

# aws-neuron-sdk issue 718, where the address is cut off.
NOT_INITIALIZED = (
    "The PyTorch Neuron Runtime could not be initialized. Neuron Driver issues are logged\n"
    "to your system logs. See the Neuron Runtime's troubleshooting guide for help on this\n"
    "topic: https://awsdocs-neuron.readthedocs-hosted.com/"
)
NO_DRIVER = "Unable to determine Neuron Driver version. Please check aws-neuron-dkms package is installed."
OLD_DRIVER = "This runtime requires Neuron Driver version 2.0 or greater. Please upgrade aws-neuron-dkms package."
# kserve#2714, torch-neuron 1.12.1; in every process that has the variable.
GROUP_SIZES_DEPRECATED = (
    "[W runtime.cpp:167] Warning: NEURONCORE_GROUP_SIZES is being deprecated. Please see Neuron documentation for more "
    "details. (function initialize)"
)
# aws-neuron-sdk issue 325; printed by torch.jit.load.
DEAD_RUNTIME = (
    "[W neuron_op_v2.cpp:133] Warning: Neuron runtime could not be initialized. Model was not sent to NeuronCore "
    "(function load)"
)

# NRT_STATUS, from nrt_status.h
MESSAGES = {
    2: "Invalid",
    4: "Allocation Failure",
    5: "Timeout Exceeded",
    10: "Unsupported NEFF Version",
    1002: "Incorrect Input",
    1003: "Numerical Error",
}


def load_error(status: int) -> RuntimeError:
    """A load that the runtime refused."""
    return RuntimeError(f"Could not load the model status={status} message={MESSAGES[status]}")


def execute_error(status: int, detail: str = "") -> RuntimeError:
    """An inference that the runtime refused or gave up."""
    return RuntimeError(f"Failed to execute the model status={status} message={MESSAGES[status]}{detail}")


class NrtLog:
    """Writes ERROR lines where NEURON_RT_LOG_LOCATION says, and the driver's lines to the emulated system log."""

    def __init__(self, syslog: Path, to_console: bool = True):
        self.syslog = syslog
        self._to_console = to_console

    def error(self, source: str, message: str) -> None:
        """One line of the runtime."""
        now = time.time()
        stamp = time.strftime("%Y-%b-%d %H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 10000):04d}"
        line = f"{stamp} {os.getpid()}:{threading.get_native_id()} {'ERROR':<8}{source:<40}{message}"
        if self._to_console:
            print(line, file=sys.stderr, flush=True)
        else:
            self.driver(line)

    def driver(self, line: str) -> None:
        """One line of the kernel driver, which only ever goes to the system log."""
        own_folder(self.syslog.parent)
        descriptor = open_own(self.syslog, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with open(descriptor, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def refuse_to_initialize(self, source: str, message: str) -> NoReturn:
        """The line, then torch-neuron's error."""
        self.error(source, message)
        raise RuntimeError(NOT_INITIALIZED)

    def refuse_memory(self, chip: int, total: int, occupied: int, needed: int) -> NoReturn:
        """The driver's line about a chip that is full (all in bytes), then the error of the load."""
        self.driver(
            f"neuron:mc_alloc: device mempool [{chip}:0] total {total} occupied {occupied} needed {needed} "
            f"available {max(0, total - occupied)}"
        )
        raise load_error(4)
