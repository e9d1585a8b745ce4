"""The workers' lives: started, found ready, dead or hanging, and started again. In the runner's thread only.

``supervision`` has what concerns one worker; ``scheduler`` gives the living ones their batches.
"""

import math
import selectors
import threading
from typing import List, Optional

from neuronbert.errors import ArtifactChanged, BackendFailed, NeuronBertError
from neuronbert.runner.batching import SUSPECT
from neuronbert.runner.counters import Statistics
from neuronbert.runner.documents import WorkerState
from neuronbert.runner.events import Report
from neuronbert.runner.messages import LoadFailed, WorkerReady
from neuronbert.runner.open_requests import OpenRequests
from neuronbert.runner.requests import now_s
from neuronbert.runner.settings import Settings
from neuronbert.runner.supervision import (
    READY,
    STARTING,
    STOPPED,
    WAITING,
    Death,
    WorkerHandle,
    death_by,
    died_before_ready,
)
from neuronbert.runner.suspicion import Doer

# It is looked at the workers more often than this. If not, this process was stopped (Ctrl-Z, a laptop's lid) or a
# callback held it up: no worker is to blame for what was not heard of it meanwhile.
LONGEST_LOOK_S = 0.6
WATCH_S = 0.02  # how often hangs and restarts are looked for: every turn would be as often as requests come


class WorkerPool:
    """All workers, with their sockets registered at ``selector``."""

    def __init__(
        self,
        settings: Settings,
        selector: selectors.BaseSelector,
        requests: OpenRequests,
        statistics: Statistics,
        report: Report,
    ):
        self.workers = [WorkerHandle(number, place) for number, place in enumerate(settings.places)]
        self.started = threading.Event()  # every worker is ready, or ``first_error`` says why not
        self.first_error: Optional[NeuronBertError] = None  # of a worker that failed before all had been ready
        self.draining = False
        self._settings = settings
        self._selector = selector
        self._requests = requests
        self._statistics = statistics
        self._report = report
        self._watch_at = 0.0
        self._watched: Optional[float] = None  # when it last was

    @property
    def unable(self) -> Optional[NeuronBertError]:
        """Why no worker can be started; None while one runs or may. From any thread."""
        error = self.workers[0].start_error
        return error.again() if error is not None and all(worker.cannot_start for worker in self.workers) else None

    # ---- starting

    def start_all(self) -> None:
        """Start every worker's process."""
        now = now_s()
        for worker in self.workers:
            self._start(worker, now)

    def _start(self, worker: WorkerHandle, now: float) -> None:
        try:
            worker.start(self._settings.load_order(worker.place), now)
        except OSError as error:  # no process, no file descriptor, no memory
            self._cannot_start(worker, BackendFailed(f"worker {worker.number} cannot be started: {error}"), now)
            return
        assert worker.channel is not None and worker.process is not None
        self._selector.register(worker.channel.sock, selectors.EVENT_READ, worker)
        self._report("start", worker=worker.number, pid=worker.process.pid, cores=worker.place.cores)
        if worker.starts > 1:
            self._statistics.count("restarts")

    def _cannot_start(self, worker: WorkerHandle, error: NeuronBertError, now: float) -> None:
        worker.start_error = error
        worker.failed_starts = worker.failed_starts.plus(Doer.WORKER)
        wait_s = worker.schedule_restart(now)
        self._report("unable", worker=worker.number, cause=str(error), held=[], restart_in_s=wait_s)
        self._end_startup(error)
        self._give_up()

    def ready(self, worker: WorkerHandle, message: WorkerReady) -> None:
        """The worker has loaded, and takes batches from now on."""
        worker.became_ready(message, now_s())
        self._report("ready", worker=worker.number, pid=message.pid, load_s=message.load_s, variant=message.variant)
        if self.are_ready:
            self.started.set()

    @property
    def are_ready(self) -> bool:
        """Whether every worker is."""
        return all(worker.state == READY for worker in self.workers)

    def load_failed(self, worker: WorkerHandle, message: LoadFailed) -> None:
        """The worker could not load; its process ends, which is noticed at the socket."""
        worker.load_error = message.error

    def _end_startup(self, error: NeuronBertError) -> None:
        """A worker that cannot start ends the runner, if it is the first time."""
        if not self.started.is_set():
            self.first_error = error
            self.started.set()

    # ---- sockets

    def listen(self, worker: WorkerHandle) -> None:
        """Wake up when the worker says something, and when its socket takes more of what is unsent."""
        assert worker.channel is not None
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.channel.has_unsent else 0)
        self._selector.modify(worker.channel.sock, wanted, worker)

    # ---- watching

    @property
    def next_restart(self) -> float:
        """When the next worker is started again; infinite when none waits for it."""
        due = [max(worker.start_at, self._watch_at) for worker in self.workers if worker.state == WAITING]
        return min(due, default=math.inf)

    def watch(self, now: float) -> None:
        """Restart the workers that are due, and kill those that hang."""
        if not self._is_time_to_look(now):
            return
        for worker in self.workers:
            if worker.state == WAITING and now >= worker.start_at and not self._is_done():
                self._start(worker, now)
            death = self._overdue(worker, now)
            if death is not None:
                worker.kill(death)
                self.died(worker)

    def has_overdue(self, now: float) -> bool:
        """Whether ``watch`` would kill a worker."""
        if not self._is_time_to_look(now) or not any(self._overdue(worker, now) for worker in self.workers):
            return False
        self._watch_at = now  # it will look at once
        return True

    def _is_time_to_look(self, now: float) -> bool:
        """Whether it is; then the next time is set, and what nobody could hear meanwhile is forgiven."""
        if now < self._watch_at:
            return False
        overslept_s = 0.0 if self._watched is None else now - self._watched - LONGEST_LOOK_S
        if overslept_s > 0:
            for worker in self.workers:
                worker.forgive(overslept_s)
        self._watched, self._watch_at = now, now + WATCH_S
        return True

    def _overdue(self, worker: WorkerHandle, now: float) -> Optional[Death]:
        return worker.overdue(now, self._settings.start_timeout_s, self._settings.hang_timeout_s)

    def died(self, worker: WorkerHandle) -> None:
        """The process is gone, or must go: its batches go to other workers, and a new process replaces it."""
        assert worker.channel is not None
        self._selector.unregister(worker.channel.sock)
        code = worker.end()
        death = worker.killed or death_by(code, worker.oom_kills)
        was_starting = worker.state == STARTING
        if was_starting:
            worker.failed_starts = worker.failed_starts.plus(death.doer)
            worker.start_error = worker.load_error or died_before_ready(worker, death.cause)
        error = worker.start_error
        lost = list(worker.in_flight.values())
        worker.in_flight.clear()
        # Not its own trouble, so no reason to be started later: what waits behind a suspect would wait with it.
        worker.was_useful = worker.was_useful or any(batch.reason == SUSPECT for batch in lost)
        wait_s: Optional[float] = worker.schedule_restart(now_s())
        if isinstance(error, ArtifactChanged):  # a restart would find the same
            worker.state, wait_s = STOPPED, None
        if not was_starting:
            self._statistics.count("deaths")
        self._report(
            "unable" if was_starting else "died",
            worker=worker.number,
            cause=str(error) if error is not None else death.cause,
            held=list({request.id: None for batch in lost for request in batch.open_requests()}),
            restart_in_s=wait_s,
        )
        if error is not None:
            self._end_startup(error)
        self._requests.lost(lost, worker.concurrency, death.doer)
        self._give_up()

    def _is_done(self) -> bool:
        """Whether a worker that is started now would find nothing to do."""
        return self.draining and not self._requests

    def _give_up(self) -> None:
        """When no worker can be started, fail the requests that wait for one."""
        error = self.unable
        if error is not None:
            self._requests.fail_all(error)

    # ---- the end

    def end_all(self) -> None:
        """Let idle workers leave, kill the others, and wait for all of them."""
        for worker in self.workers:
            if worker.channel is not None:
                worker.channel.close()
        for worker in self.workers:
            if worker.process is not None and worker.process.returncode is None:
                if worker.in_flight or worker.state == STARTING:
                    worker.kill()  # its results are no longer waited for
                worker.end()
            worker.state = STOPPED

    def describe(self) -> List[WorkerState]:
        """Every worker's state, as plain JSON data. From any thread."""
        return [worker.describe(now_s()) for worker in self.workers]
