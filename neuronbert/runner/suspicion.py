"""Whose doing a worker's death is, and when a request is poison (pure): ``supervision`` says how a worker died."""

from enum import Enum
from typing import NamedTuple


class Doer(Enum):
    """Who may have ended a worker's process."""

    WORKER = "worker"  # it faulted, left, hung or took too much memory: what ran in it may be to blame
    ANYBODY = "anybody"  # a signal that others may have sent: what ran in it may still be to blame
    RUNNER = "runner"  # it was replaced for being of no use: nothing that it held is to blame


# Deaths with nothing but one request in the worker, after which that request is poison. One that is killed from outside
# at random is rarely hit even twice, but there are many, and they are retried as long as somebody kills.
MAX_DEATHS = {Doer.WORKER: 2, Doer.ANYBODY: 10}


class Blame(NamedTuple):
    """How many workers a request has killed by itself, since a worker last got through some of it."""

    by_worker: int = 0
    by_anybody: int = 0

    def plus(self, doer: Doer) -> "Blame":
        """With one more that died with nothing else in it."""
        return Blame(self.by_worker + (doer is Doer.WORKER), self.by_anybody + (doer is Doer.ANYBODY))

    @property
    def is_proof(self) -> bool:
        """Whether the request is poison."""
        return self.by_worker >= MAX_DEATHS[Doer.WORKER] or self.by_anybody >= MAX_DEATHS[Doer.ANYBODY]


NO_BLAME = Blame()
