"""One worker as the runner sees it: starting its process, what it holds, how it ended and when to start it again."""

import itertools
import os
import signal
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert.backends.child import standard_error, start_child
from neuronbert.errors import BackendFailed, NeuronBertError
from neuronbert.hardware.cores import merged_environment
from neuronbert.hardware.machine import oom_kills, process_fields
from neuronbert.runner.batching import BatchInFlight
from neuronbert.runner.documents import WorkerState
from neuronbert.runner.frames import Channel
from neuronbert.runner.messages import LoadOrder, WorkerReady
from neuronbert.runner.suspicion import MAX_DEATHS, NO_BLAME, Blame, Doer

# A worker's states. It is "starting" from the fork to its first message, "waiting" between a death and the next start.
STARTING, READY, WAITING, STOPPED = "starting", "ready", "waiting", "stopped"

# What a process does to itself. In a worker they are blocked: sent from outside they wait for ever, and a fault of its
# own ends it nevertheless. So one that died of them did it itself; other signals are sent.
FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS)

GONE_S = 0.2  # the socket closes a moment before the process is gone
KILLED_S = 2.0  # ... and one that was killed takes this long at most
MAX_FAILED_STARTS = 3  # of a worker's own doing
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 30.0

SECRETS = ("NEURONBERT_API_KEY", "NEURONBERT_CACHE_SECRET", "NEURONBERT_CACHE_URL")  # of ``neuronbert serve``

# Killed, and not gone yet: subprocess warns of a process that is forgotten before (ResourceWarning), whoever then runs.
_held_by_kernel: List["subprocess.Popen[bytes]"] = []


class Death(NamedTuple):
    """How a worker's process ended, in words and the likely reason, and who may have ended it."""

    cause: str
    doer: Doer


HUNG = Death("hung, and was killed by the runner", Doer.WORKER)
HALTED = Death("was stopped from outside for too long, and was killed by the runner", Doer.ANYBODY)
USELESS = Death("failed one batch after the other, and was killed by the runner", Doer.RUNNER)


class WorkerPlace(NamedTuple):
    """Where one worker runs: its environment variables, its CPUs and threads, and its cores in words."""

    variables: Mapping[str, str]
    cpus: Optional[List[int]]  # to which it is pinned; None: all of the runner's
    threads: int
    cores: str
    sharing: int = 1  # workers of this runner that take turns at its device


class Stopwatch:
    """Adds up the seconds that something lasts, with breaks. One thread turns it on and off, any may read it."""

    def __init__(self) -> None:
        self._state: Tuple[float, Optional[float]] = (0.0, None)  # before, and when it was last turned on

    def turn(self, on: bool, now: float) -> None:
        """On or off from ``now`` on, whatever it was."""
        self._state = (self.seconds(now), now if on else None)

    def seconds(self, now: float) -> float:
        """All of them until ``now``."""
        before, since = self._state
        return before if since is None else before + max(0.0, now - since)


@dataclass(eq=False)
class WorkerHandle:
    """The runner's view of worker ``number``, through all its restarts. Times are those of ``requests.now_s``."""

    number: int
    place: WorkerPlace
    state: str = WAITING
    process: Optional["subprocess.Popen[bytes]"] = None
    channel: Optional[Channel] = None
    concurrency: int = 1  # batches that it runs at once
    parallel: int = 1  # batches that make progress at once: the others are in the worker, and wait for the device
    in_flight: Dict[int, BatchInFlight] = field(default_factory=dict)  # by batch number, oldest first
    up: Stopwatch = field(default_factory=Stopwatch)  # it is ready
    busy: Stopwatch = field(default_factory=Stopwatch)  # it holds a batch or more
    started: float = 0.0  # its process
    stopped: Optional[float] = None  # when it was first seen stopped from outside, while it loads
    start_at: float = 0.0
    last_sent: float = 0.0  # when it was last given a batch
    failures: int = 0  # deaths and failed starts in a row
    failed_starts: Blame = NO_BLAME  # since it was last ready
    failed_batches: int = 0  # in a row
    was_useful: bool = False  # since its start: if so, its next death is a new trouble, and the back-off begins again
    load_error: Optional[NeuronBertError] = None  # what it said of this start
    start_error: Optional[NeuronBertError] = None  # why it last could not start; None once it is ready
    starts: int = 0
    rows_done: int = 0
    batches_done: int = 0
    device_s: float = 0.0  # of all its batches, which overlap
    oom_kills: int = 0  # of the machine, when it was started or began with a suspect
    killed: Optional[Death] = None  # by the runner, and why

    def describe(self, now: float) -> WorkerState:
        """The worker's state, for ``Runner.stats``. From any thread."""
        state, process, error = self.state, self.process, self.start_error  # each may change meanwhile
        return {
            "worker": self.number,
            "state": state,
            "pid": process.pid if process is not None and state in (STARTING, READY) else None,
            "cores": self.place.cores,
            "in_flight": len(self.in_flight),
            "rows": self.rows_done,
            "batches": self.batches_done,
            "device_s": self.device_s,
            "busy_s": self.busy.seconds(now),
            "up_s": self.up.seconds(now),
            "restarts": max(0, self.starts - 1),
            "unable": None if error is None else error.message,
        }

    def start(self, order: LoadOrder, now: float) -> None:
        """Start its process, with its environment set before Python starts. OSError if that cannot be."""
        _reap()
        own_end, worker_end = socket.socketpair()
        with worker_end, _blocked(FAULTS):
            self.process = start_child(
                "neuronbert.runner.worker_process",
                worker_end.fileno(),
                os.getpid(),
                stdout=standard_error(),  # stdout is for a command's result
                environment=_without_secrets(merged_environment(self.place.variables)),
                pass_fds=[worker_end.fileno()],
            )
        self.channel = Channel(own_end)
        self.channel.send(order)
        self.state, self.started = STARTING, now
        self.failed_batches, self.was_useful = 0, False
        self.starts += 1
        self.killed = self.load_error = self.stopped = None
        self.oom_kills = oom_kills()

    def became_ready(self, message: WorkerReady, now: float) -> None:
        """Note the worker's first message: it is loaded and tested."""
        self.start_error, self.failed_starts = None, NO_BLAME
        self.state = READY  # after them: whoever sees it may ask at once
        self.up.turn(True, now)
        self.concurrency, self.parallel = message.concurrency, message.parallel

    @property
    def cannot_start(self) -> bool:
        """Whether it failed so often in a row that nobody is kept waiting for it. One that was killed may yet start."""
        failed = self.failed_starts
        return self.start_error is not None and (
            self.state == STOPPED
            or failed.by_worker >= MAX_FAILED_STARTS
            or failed.by_anybody >= MAX_DEATHS[Doer.ANYBODY]
        )

    def kill(self, why: Optional[Death] = None) -> None:
        """End its process at once; the runner notices at the socket."""
        assert self.process is not None
        self.killed = why
        self.process.kill()

    def stall(self) -> Death:
        """Why it says nothing: only from outside can a process be stopped."""
        assert self.process is not None
        try:
            return HALTED if process_fields(self.process.pid)[0] in "Tt" else HUNG
        except OSError:  # it is gone, or there is no /proc
            return HUNG

    def begin_trial(self) -> None:
        """It gets a suspect: what the kernel killed for want of memory before is none of that one's doing."""
        self.oom_kills = oom_kills()

    def end(self) -> Optional[int]:
        """Make sure that its process is gone; its exit code, as subprocess gives it (negative: a signal).

        None for a process that is in the kernel, in a driver's call for example, and does not come out of it though it
        was killed: the runner does not wait for that.
        """
        assert self.process is not None
        code = None
        for patience_s in (GONE_S, KILLED_S):
            try:
                code = self.process.wait(patience_s)
                break
            except subprocess.TimeoutExpired:
                self.process.kill()
        else:
            _held_by_kernel.append(self.process)
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        return code

    def schedule_restart(self, now: float) -> float:
        """Wait for the next start, longer after each failure in a row; returns the seconds until then."""
        if self.was_useful:
            self.failures = 0
        self.failures += 1
        wait_s = backoff_s(self.failures)
        self.busy.turn(False, now)
        self.up.turn(False, now)
        self.state, self.start_at = WAITING, now + wait_s
        return wait_s

    def give(self, batch: BatchInFlight, now: float) -> None:
        """Note a batch that it is sent."""
        self.in_flight[batch.number] = batch
        self.busy.turn(True, now)
        self.last_sent = now
        self._note_begun(now)

    def take_back(self, number: int, now: float) -> BatchInFlight:
        """Its batch ``number``, which came back."""
        batch = self.in_flight.pop(number)
        self.busy.turn(bool(self.in_flight), now)
        self._note_begun(now)
        return batch

    def heard_of(self, number: int, now: float) -> BatchInFlight:
        """What it has under this number, with which it got a step further."""
        batch = self.in_flight[number]
        batch.began = now
        return batch

    def _note_begun(self, now: float) -> None:
        for batch in self._running():
            if batch.began is None:
                batch.began = now

    def _running(self) -> List[BatchInFlight]:
        """What it has begun with: its oldest batches, as many as it runs at once."""
        return list(itertools.islice(self.in_flight.values(), self.concurrency))

    def forgive(self, seconds: float) -> None:
        """Take these off its silence: the runner could not have heard it."""
        self.started += seconds
        self.stopped = None
        for batch in self._running():
            batch.began = None if batch.began is None else batch.began + seconds

    def overdue(self, now: float, start_timeout_s: float, hang_timeout_s: float) -> Optional[Death]:
        """Why it must go, if it must: too long at a batch (whatever goes on beside that), at loading, or stopped.

        Where workers share a device, a batch may have to wait for one of each of the others.
        """
        if self.state == READY:
            return self.stall() if self.silent_s(now) > hang_timeout_s * self.place.sharing else None
        if self.state != STARTING:
            return None
        if now - self.started > start_timeout_s:
            return self.stall()
        self.stopped = (self.stopped or now) if self.stall() is HALTED else None
        return HALTED if self.stopped is not None and now - self.stopped > hang_timeout_s else None

    def silent_s(self, now: float) -> float:
        """Seconds that it has been at the batch that it is longest at."""
        return max((now - batch.began for batch in self._running() if batch.began is not None), default=0.0)


def _without_secrets(environment: Mapping[str, str]) -> Dict[str, str]:
    """What a worker may know: it runs a model's code, and no client asks it."""
    return {name: value for name, value in environment.items() if name not in SECRETS}


def _reap() -> None:
    """Forget those that are gone by now."""
    _held_by_kernel[:] = [process for process in _held_by_kernel if process.poll() is None]


@contextmanager
def _blocked(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """In this thread, and for good in the processes that it starts meanwhile: in every thread of theirs.

    A process that blocked them itself would be too late for threads that a library starts when it is imported.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def backoff_s(failures: int) -> float:
    """0.1 s after the first failure, twice as long after each further one, 30 s at most."""
    return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 30))


def death_by(code: Optional[int], oom_kills_before: int) -> Death:
    """How a process ended that the runner did not kill; ``code`` as ``WorkerHandle.end`` gives it."""
    if code is None:
        return Death("closed its socket and cannot be killed: the kernel holds it", Doer.ANYBODY)
    if code == 0:  # no batch ends a worker like this; subprocess says it of a child that others waited for
        return Death("is gone (how it ended was asked by others: os.wait, or SIGCHLD ignored)", Doer.ANYBODY)
    if code > 0:
        return Death(f"exited with code {code}", Doer.WORKER)
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if -code in FAULTS:
        return Death(f"died of {name}", Doer.WORKER)
    if code == -signal.SIGKILL and oom_kills() > oom_kills_before:
        return Death(f"died of {name}: the kernel ran out of memory (see dmesg)", Doer.WORKER)
    return Death(f"died of {name}: killed from outside", Doer.ANYBODY)


def died_before_ready(worker: WorkerHandle, cause: str) -> NeuronBertError:
    """What to tell callers who wait for a worker that died while it was loading."""
    return BackendFailed(
        f"worker {worker.number} {cause} while it was loading",
        hint="its own words are on stderr; neuronbert doctor; fewer workers if memory is short",
    )
