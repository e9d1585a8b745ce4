"""The NeuronCores of a machine, shared out among the models of one server: no two workers may want the same core."""

import threading
import weakref
from dataclasses import replace
from typing import Callable, List, Optional

from neuronbert.artifact.manifest import Artifact
from neuronbert.errors import UsageError, counted, positive
from neuronbert.hardware.cores import CoreLayout, instance_type
from neuronbert.runner.placement import whole_layout
from neuronbert.runner.runner import Runner
from neuronbert.runner.supervision import STOPPED

Launch = Callable[[Optional[CoreLayout]], Runner]


class _Taken:
    """Cores, and the runner that has them: None while it starts."""

    def __init__(self, layout: CoreLayout):
        self.layout = layout
        self.runner: Optional[weakref.ref[Runner]] = None

    @property
    def is_free(self) -> bool:
        """Whether their runner has ended."""
        runner = None if self.runner is None else self.runner()
        if runner is None:
            return self.runner is not None
        return all(worker["state"] == STOPPED for worker in runner.stats()["workers"])


class CoreShares:
    """Gives each model cores that no other has.

    models: how many there are: without ``workers`` each has the same share. workers: of each model. machine: the
    instance type, where it is not the one that an artifact was compiled for.
    """

    def __init__(self, models: int, workers: Optional[int] = None, machine: Optional[str] = None):
        self._models = models
        self._workers = positive("workers", workers)
        self._machine = machine
        self._taken: List[_Taken] = []
        self._lock = threading.Lock()

    def launch(self, artifact: Artifact, variant: Optional[str], make: Launch) -> Runner:
        """The runner that ``make`` gives for a layout of free cores; for None where the variant runs on no NeuronCores.

        UsageError where too few cores are free.
        """
        whole = whole_layout(artifact, variant, self._machine)
        if whole is None:
            return make(None)
        taken = self._take(whole)
        try:
            runner = make(taken.layout)
        except BaseException:
            with self._lock:
                self._taken.remove(taken)
            raise
        taken.runner = weakref.ref(runner)
        return runner

    def _take(self, whole: CoreLayout) -> _Taken:
        """The share of a model that could have all of ``whole``."""
        width, total = whole.cores_per_model, instance_type(whole.instance).cores
        wanted = replace(whole, replicas=self._workers or max(1, total // self._models // width))
        with self._lock:
            self._taken = [taken for taken in self._taken if not taken.is_free]
            free = _longest_free(total, [taken.layout for taken in self._taken])
            if wanted.used_cores > len(free):
                raise UsageError(
                    f"{counted(wanted.used_cores, 'NeuronCore')} in a row are needed, and models of this server leave "
                    f"{len(free)} of {whole.instance}'s {total}",
                    hint="fewer --workers for each, so that there are cores for all models, and for the new one of a "
                    "reload, which is loaded beside the old one; or this machine's --instance-type",
                )
            taken = _Taken(replace(wanted, first_core=free.start))
            self._taken.append(taken)
        return taken


def _longest_free(total: int, taken: List[CoreLayout]) -> range:
    """The longest row of cores that none has, the first of several."""
    borders = sorted((layout.first_core, layout.first_core + layout.used_cores) for layout in taken)
    begins = [0, *(end for _, end in borders)]
    ends = [*(begin for begin, _ in borders), total]
    return max((range(begin, end) for begin, end in zip(begins, ends)), key=len)
