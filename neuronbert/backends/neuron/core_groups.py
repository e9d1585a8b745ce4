"""How many NeuronCores the environment gives this process, and how threads share them; backend.py asks here.

The runtime reads its variables once, at its first use in a process, and keeps the cores until the process ends.
"""

import threading
from contextlib import contextmanager
from typing import Dict, Iterator, List, Mapping, Optional

from neuronbert.errors import UsageError
from neuronbert.hardware.cores import GROUP_SIZES, NUM_CORES, VISIBLE_CORES
from neuronbert.hardware.neuron import parse_group_sizes, parse_visible_cores

CORE_VARIABLES = (VISIBLE_CORES, NUM_CORES, GROUP_SIZES)


def core_variables(environ: Mapping[str, str]) -> Dict[str, str]:
    """Those of CORE_VARIABLES that are set."""
    return {name: environ[name] for name in CORE_VARIABLES if environ.get(name, "").strip()}


def cores_given(variables: Mapping[str, str]) -> Optional[int]:
    """The number of cores that ``variables`` give a process; None where they do not say.

    A list of visible cores overrides a number, which overrides group sizes: AWS's TensorFlow plugin (placer.cc) lets
    the number stand where both are set. A number may be a list of groups, as parallel-ncgs.rst has it.
    UsageError names a wrong variable.
    """
    if variables.get(VISIBLE_CORES):
        visible = parse_visible_cores(variables[VISIBLE_CORES])
        if visible is None:
            raise _unreadable(VISIBLE_CORES, variables, "0-3", "a core, or an increasing range without gaps")
        return len(visible)
    if variables.get(NUM_CORES):
        if variables[NUM_CORES].strip() == "0":
            return None
        return _sum_of_sizes(NUM_CORES, variables, "4", "a number of cores")
    if variables.get(GROUP_SIZES):
        return _sum_of_sizes(GROUP_SIZES, variables, "1,1,1,1", "the sizes of groups, separated by commas")
    return None


def _sum_of_sizes(name: str, variables: Mapping[str, str], example: str, what: str) -> int:
    sizes = parse_group_sizes(variables[name])
    if sizes is None:
        raise _unreadable(name, variables, example, what)
    return sum(sizes)


def _unreadable(name: str, variables: Mapping[str, str], example: str, what: str) -> UsageError:
    return UsageError(f"{name}={variables[name]} means nothing: it is {what}", hint=f"export {name}={example}")


class CoreGroups:
    """The loaded core groups of a process and how many requests each has: the next one goes to the least busy.

    A group takes ``in_flight`` requests at a time; more wait here. Buckets that are on the same cores share the groups.
    """

    def __init__(self, count: int, in_flight: int):
        self.count = count
        self.in_flight = in_flight
        self._busy: List[int] = [0] * count
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, group: Optional[int] = None) -> Iterator[int]:
        """The number of a group with room for a request: ``group``, or the least busy one."""
        with self._changed:
            while True:
                chosen = min(range(self.count), key=self._busy.__getitem__) if group is None else group
                if self._busy[chosen] < self.in_flight:
                    break
                self._changed.wait()
            self._busy[chosen] += 1
        try:
            yield chosen
        finally:
            with self._changed:
                self._busy[chosen] -= 1
                self._changed.notify_all()
