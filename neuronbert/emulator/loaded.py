"""A model on the device, and where it was asked to go: what compiled_ops and the runtime hand to each other."""

import itertools
from typing import NamedTuple, Sequence

from neuronbert.emulator.execution import LoadedProgram

ALL_CORES = -2


class Placement(NamedTuple):
    """What the placement API asked for; -1 leaves it to the runtime, and a count of ALL_CORES is set_multicore's."""

    start_nc: int = -1
    nc_count: int = -1


ANYWHERE = Placement()


class Replica(NamedTuple):
    """One copy of a model on its cores (numbered within the process)."""

    cores: range


class LoadedModel:
    """A model on the device: one or more replicas, used in turn."""

    def __init__(self, program: LoadedProgram, replicas: Sequence[Replica]):
        self.program = program
        self.replicas = tuple(replicas)
        self._turn = itertools.count()

    def next_replica(self) -> Replica:
        """The replica whose turn it is."""
        # itertools.count is atomic under the interpreter lock, so threads share the replicas evenly.
        return self.replicas[next(self._turn) % len(self.replicas)]
