"""Which cores of a process a model gets: greedy and linear, as AWS's core placement guide shows. Pure."""

from typing import List, Optional, Sequence, Tuple


class NotEnoughCores(ValueError):
    """A model wants more cores than the process has."""


class Placer:
    """Keeps count of the models on each core (numbered within the process) and says where the next one goes.

    Without groups a model goes to the least used run of cores, the first of equals. With groups
    (NEURONCORE_GROUP_SIZES) it goes to the start of the least used group that is wide enough; a model that is
    wider than every group goes across them, from the first core.
    """

    def __init__(self, cores: int, groups: Optional[Sequence[int]] = None):
        if groups is not None and sum(groups) > cores:
            raise NotEnoughCores(f"groups of {list(groups)} cores do not fit {cores}")
        self.cores = cores
        self._groups = _ranges(groups) if groups else []
        self._used = [0] * cores
        self._group_used = [0] * len(self._groups)

    @property
    def used(self) -> Tuple[int, ...]:
        """Models on each core."""
        return tuple(self._used)

    def place(self, width: int) -> range:
        """Cores for a model over ``width`` of them; NotEnoughCores when there are fewer."""
        cores = self._least_used(width)
        self._count(cores, +1)
        return cores

    def place_at(self, start: int, width: int) -> range:
        """The cores asked for by number."""
        if start < 0 or width < 1 or start + width > self.cores:
            raise NotEnoughCores(f"cores {start} to {start + width - 1} are not within the {self.cores} there are")
        cores = range(start, start + width)
        self._count(cores, +1)
        return cores

    def release(self, cores: range) -> None:
        """A model has left its cores."""
        self._count(cores, -1)

    def _least_used(self, width: int) -> range:
        if width > self.cores:
            raise NotEnoughCores(f"a model over {width} cores does not fit {self.cores}")
        wide_enough = [index for index, group in enumerate(self._groups) if len(group) >= width]
        if wide_enough:
            group = self._groups[min(wide_enough, key=lambda index: self._group_used[index])]
            return range(group[0], group[0] + width)
        if self._groups:
            return range(width)
        starts = range(self.cores - width + 1)
        return min(
            (range(start, start + width) for start in starts), key=lambda run: sum(self._used[core] for core in run)
        )

    def _count(self, cores: range, change: int) -> None:
        for core in cores:
            self._used[core] += change
        for index, group in enumerate(self._groups):
            if group[0] == cores[0]:
                self._group_used[index] += change


def _ranges(sizes: Sequence[int]) -> List[range]:
    ranges, start = [], 0
    for size in sizes:
        ranges.append(range(start, start + size))
        start += size
    return ranges


def replica_starts(start: int, count: int, width: int) -> List[int]:
    """First cores of the replicas of a ``width``-core model over ``count`` cores from ``start``."""
    return [start + index * width for index in range(count // width)]
