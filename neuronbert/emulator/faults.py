"""Failures that a test can ask the emulator for by name; the compiler and the runtime ask here if one is due."""

import os
import re
import threading
from pathlib import Path
from typing import Dict, NamedTuple, Optional, Tuple

from neuronbert.errors import UsageError
from neuronbert.hardware.own_places import own_folder

COMPILE = "compile"
INIT = "init"
LOAD = "load"
EXECUTE = "execute"

FAULTS: Dict[str, Tuple[str, str]] = {
    "compile-failure": (COMPILE, "neuron-cc fails on every subgraph"),
    "compile-killed": (COMPILE, "neuron-cc is killed for memory (returns -9)"),
    "compile-hang": (COMPILE, "neuron-cc never ends"),
    "compiler-missing": (COMPILE, "neuron-cc is not installed"),
    "fallback": (COMPILE, "the second half of the operators cannot be compiled and stays on the CPU"),
    "cores-taken": (INIT, "another process holds the cores"),
    "no-driver": (INIT, "the Neuron driver is not installed"),
    "old-driver": (INIT, "the Neuron driver is too old"),
    "device-memory": (LOAD, "the chip's memory is full"),
    "invalid-model": (LOAD, "the runtime refuses the model"),
    "neff-version": (LOAD, "the model is newer than the runtime"),
    "hang": (EXECUTE, "an inference never ends"),
    "timeout": (EXECUTE, "an inference exceeds NEURON_RT_EXEC_TIMEOUT"),
    "numerical-error": (EXECUTE, "the device reports a numerical error"),
    "nan": (EXECUTE, "outputs are NaN"),
    "dead-runtime": (EXECUTE, "the runtime is not there: constant outputs and no error"),
    "crash": (EXECUTE, "the process is killed"),
}

_FORM = re.compile(r"(?P<name>[a-z-]+)(@(?P<start>[1-9][0-9]*))?(?P<once>:once)?$")


class Fault(NamedTuple):
    """``crash@5`` strikes from the fifth inference of a process on; ``crash@5:once`` one process, one time."""

    name: str
    start: int = 1
    once: bool = False

    def __str__(self) -> str:
        return self.name + (f"@{self.start}" if self.start > 1 else "") + (":once" if self.once else "")


def parse_faults(text: str) -> Tuple[Fault, ...]:
    """Comma-separated faults; UsageError names the one that does not exist."""
    return tuple(_parse_fault(part.strip()) for part in text.split(",") if part.strip())


def _parse_fault(text: str) -> Fault:
    match = _FORM.match(text)
    if match is None or match["name"] not in FAULTS:
        raise UsageError(f"there is no fault {text!r}", hint=f"name[@N][:once] with one of {', '.join(FAULTS)}")
    return Fault(match["name"], int(match["start"] or 1), bool(match["once"]))


class FaultPlan:
    """Counts how often each event happened in this process and says which fault is due."""

    def __init__(self, faults: Tuple[Fault, ...], directory: Path):
        self._faults = faults
        self._directory = directory
        self._counts: Dict[str, int] = {}
        self._lock = threading.Lock()

    def due(self, event: str) -> Optional[str]:
        """The fault that strikes this ``event`` (one of the four kinds), or None."""
        mine = [fault for fault in self._faults if FAULTS[fault.name][0] == event]
        if not mine:
            return None
        with self._lock:
            self._counts[event] = self._counts.get(event, 0) + 1
            count = self._counts[event]
        for fault in mine:
            if count >= fault.start and (not fault.once or self._first_of_all(fault)):
                return fault.name
        return None

    def strikes_from_the_start(self, name: str) -> bool:
        """True when the fault ``name`` is asked for and waits for nothing."""
        return any(fault.name == name and fault.start == 1 for fault in self._faults)

    def _first_of_all(self, fault: Fault) -> bool:
        # The mark outlives the process, so a restarted worker is spared.
        own_folder(self._directory)
        try:
            os.close(os.open(self._directory / f"struck-{fault.name}-{fault.start}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True
