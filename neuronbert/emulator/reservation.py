"""Which process holds which core of the emulated instance: one locked file per core, freed when its process dies."""

import contextlib
import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Sequence, TypedDict, cast

from neuronbert.emulator.inference_counters import Snapshot
from neuronbert.hardware.own_places import locked, open_own, own_folder


class CoresTaken(RuntimeError):
    """The cores asked for are held by other processes."""

    def __init__(self, requested: str, available: int):
        super().__init__(taken_text(requested, available))


def taken_text(requested: str, available: int) -> str:
    """As AWS's troubleshooting guide shows it for cores with numbers, and aws-neuron-sdk issue 453 for a count."""
    return f"NeuronCore(s) not available - Requested:{requested} Available:{available}"


class CoreInfo(TypedDict, total=False):
    """What the process that holds a core says of itself and of the core; kept as JSON in the core's locked file."""

    pid: int
    command: str
    neuron_runtime_version: str
    tag: str  # NEURON_PROCESS_TAG
    memory_bytes: int  # that models take on the core
    models: int  # on the core
    executions: int  # batches through the core
    utilization: float  # percent of the time between the holder's last two reports
    published_at: float  # of time.time
    statistics: Snapshot  # of the whole process, with its first core only


class CoreState(NamedTuple):
    """One core: held or free, and what its holder says."""

    core: int
    held: bool
    info: CoreInfo


class CoreRegistry:
    """The cores of one emulated instance, shared by all processes that use ``directory``."""

    def __init__(self, directory: Path, cores: int):
        self._directory = directory
        self._cores = cores
        self._held: Dict[int, int] = {}  # core → file descriptor whose lock is the reservation
        self._thread_lock = threading.RLock()
        # A forked child shares its parent's open files: it must let go, or the core outlives its owner.
        os.register_at_fork(after_in_child=self._forget)

    def reserve(self, cores: Sequence[int]) -> List[int]:
        """Takes exactly these cores, or none: CoresTaken says how many of them were free."""
        with self._alone():
            free = [core for core in cores if core < self._cores and self._is_free(core)]
            if len(free) < len(cores):
                raise CoresTaken(f"nc{cores[0]}-nc{cores[-1]}", len(free))
            return self._take(cores)

    def reserve_free(self, count: int) -> List[int]:
        """Takes the first ``count`` free neighbouring cores."""
        with self._alone():
            free = {core for core in range(self._cores) if self._is_free(core)}
            for start in range(self._cores - count + 1):
                run = range(start, start + count)
                if free.issuperset(run):
                    return self._take(run)
            raise CoresTaken(str(count), len(free))

    def release(self) -> None:
        """Gives all of this process's cores back."""
        with self._alone():
            self._forget()

    def annotate(self, info_by_core: Mapping[int, CoreInfo]) -> None:
        """What others may read about the cores this process holds."""
        with self._alone():
            self._write(info_by_core)

    def states(self) -> List[CoreState]:
        """All cores of the instance, as any process sees them."""
        with self._alone():
            return self._states()

    @contextlib.contextmanager
    def update(self) -> Iterator["RegistryView"]:
        """Read and annotate without another process in between."""
        with self._alone():
            yield RegistryView(self._states(), self._write)

    def _states(self) -> List[CoreState]:
        states = []
        for core in range(self._cores):
            held = core in self._held or not self._is_free(core)
            states.append(CoreState(core, held, self._read(core) if held else {}))
        return states

    def _take(self, cores: Sequence[int]) -> List[int]:
        for core in cores:
            descriptor = open_own(self._file(core))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._held[core] = descriptor
        return list(cores)

    def _is_free(self, core: int) -> bool:
        if core in self._held:
            return False
        descriptor = open_own(self._file(core))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def _write(self, info_by_core: Mapping[int, CoreInfo]) -> None:
        for core in set(info_by_core) & set(self._held):
            self._file(core).write_text(json.dumps(info_by_core[core]), encoding="utf-8")

    def _read(self, core: int) -> CoreInfo:
        text = self._file(core).read_text(encoding="utf-8")
        return cast(CoreInfo, json.loads(text)) if text else {}

    def _forget(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _file(self, core: int) -> Path:
        return self._directory / f"nc{core}.lock"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time: a look takes each lock for a moment, and must not make a reservation fail."""
        own_folder(self._directory)
        with self._thread_lock, locked(self._directory / "registry.lock"):
            yield


class RegistryView:
    """The registry while nobody else can change it."""

    def __init__(self, states: List[CoreState], write: Callable[[Mapping[int, CoreInfo]], None]):
        self.states = states
        self.annotate = write

    def held(self) -> List[CoreState]:
        """The states of the held cores."""
        return [state for state in self.states if state.held]
