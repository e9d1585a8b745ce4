"""The runner's one thread: takes requests in, gives batches to workers, takes results, watches and replaces workers.

Everything here and in its parts (``open_requests``, ``worker_pool``, ``scheduler``) happens in that thread, so nothing
is locked; other threads only put messages into the inbox and read the counters. It never blocks on a worker.
While all is well, an event loop's thread may be that thread (``loop_turns``), and its own one sleeps.
"""

import asyncio
import math
import selectors
import threading
from contextlib import ExitStack, closing, suppress
from typing import List, Optional

from neuronbert.backends.base import ThroughputPlan
from neuronbert.errors import BackendFailed, NeuronBertError, RunnerClosed, UsageError, in_words
from neuronbert.runner.awake import awake_processors
from neuronbert.runner.batching import Batcher, resized_plan
from neuronbert.runner.counters import Statistics
from neuronbert.runner.decoding import Decoder
from neuronbert.runner.documents import WorkerState
from neuronbert.runner.events import Report
from neuronbert.runner.inbox import Accept, Cancel, Decoded, Drain, Inbox, InboxMessage
from neuronbert.runner.loop_turns import LoopTurns
from neuronbert.runner.messages import BatchDone, BatchFailed, BlockDone, BlockStep, FromWorker, WorkerReady
from neuronbert.runner.open_requests import OpenRequests
from neuronbert.runner.requests import now_s
from neuronbert.runner.scheduler import Scheduler
from neuronbert.runner.settings import RowFormat, Settings
from neuronbert.runner.supervision import WorkerHandle
from neuronbert.runner.worker_pool import WorkerPool

TICK_S = 0.5  # the longest that it sleeps


class Dispatcher:
    """Runs until it is told to stop and every worker is gone."""

    def __init__(self, settings: Settings, statistics: Statistics, report: Report):
        with ExitStack() as files:  # closed at once if one of them cannot be had
            if settings.busy_wait:
                files.enter_context(awake_processors())
            self.inbox = files.enter_context(closing(Inbox()))
            self._selector = files.enter_context(selectors.DefaultSelector())
            self._selector.register(self.inbox.wake_descriptor, selectors.EVENT_READ, None)
            self._files = files.pop_all()
        self.plan: Optional[ThroughputPlan] = None  # of the first worker that was ready
        self.has_ended = False
        self._settings = settings
        self._report = report
        self._decoder = Decoder(self.inbox.put)
        self._requests = OpenRequests(statistics, report, self._decoder)
        self._pool = WorkerPool(settings, self._selector, self._requests, statistics, report)
        self._scheduler = Scheduler(settings, self._pool, self._requests, statistics, report)
        self._bug: Optional[NeuronBertError] = None
        self._drain_until = math.inf
        self._loop_turns: Optional[LoopTurns] = None
        self._thread = threading.Thread(target=self._run, name="neuronbert-runner", daemon=True)

    # ---------------------------------------------------------------------- called from other threads

    def start(self) -> None:
        """Start the thread, and in it the workers; BackendFailed if this machine has no thread left."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise BackendFailed(
                f"the runner's thread cannot be started: {error}",
                hint="more processes for this user (ulimit -u) or container",
            ) from None

    def know(self, row_format: RowFormat) -> None:
        """Before anything is asked: it is read while the workers load."""
        self._scheduler.row_format = row_format

    def is_here(self) -> bool:
        """Whether this is called in a turn, in which nobody may wait for another."""
        turns = self._loop_turns
        return threading.current_thread() is self._thread or (turns is not None and turns.is_here())

    def turn_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have this loop's thread take the turns from now on, while it runs and all workers are ready.

        What takes a while is left to the runner's own thread: to start and to end workers, and to drain.
        UsageError where another loop does already.
        """
        before = self._loop_turns
        if before is not None and before.loop is not loop and not before.loop.is_closed():
            raise UsageError("this runner works in another event loop", hint="a Runner for each loop")
        if self.has_ended or (before is not None and before.loop is loop):
            return
        if hasattr(self._selector, "fileno"):  # select() and poll() have none to wait for
            with suppress(ValueError):  # it ends at this moment
                self._loop_turns = LoopTurns(loop, self.inbox, self._selector, self._quick_turn)
            self.inbox.wake()

    def wait_until_started(self) -> None:
        """Until every worker is ready, or ``broken`` says why not."""
        self._pool.started.wait()

    def abandon(self) -> None:
        """End at once, also if ``start`` was not reached or failed: then nobody else would."""
        if self._thread.ident is None:
            self._end()
            return
        self.stop(0)
        self.join()

    def stop(self, drain_s: float) -> None:
        """Finish what was accepted, for ``drain_s`` at most, then end."""
        self.inbox.put(Drain(drain_s))

    def join(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def sweep(self) -> None:
        """After the end: what was put into the inbox too late still gets an outcome."""
        if not self.has_ended:
            return
        for message in self.inbox.messages():
            if not isinstance(message, Drain):
                for request in message.requests:
                    self._requests.fail(request, (self.broken or _closed()).again())

    @property
    def broken(self) -> Optional[NeuronBertError]:
        """What ended the runner although nobody closed it."""
        return self._bug or self._pool.first_error

    @property
    def unable(self) -> Optional[NeuronBertError]:
        """Why no worker can be started; None while one runs or may."""
        return self._pool.unable

    def describe_workers(self) -> List[WorkerState]:
        """Every worker's state, as plain JSON data."""
        return self._pool.describe()

    # ---------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            self._pool.start_all()
            while not self._is_finished():
                self._turn(may_wait=not self._stay_in_loop())
        except BaseException as error:  # a bug: no caller may wait for ever
            self._bug = BackendFailed(f"the runner itself failed: {in_words(error)}")
            raise
        finally:
            self._end()

    def _stay_in_loop(self) -> bool:
        """Sleep while a loop takes the turns; whether there was one that could."""
        turns = self._loop_turns
        if turns is None or not turns.is_possible or not self._is_quiet():
            return False
        turns.stay()
        return True

    def _turn(self, may_wait: bool) -> None:
        gone = self._listen(self._patience_s() if self.inbox.may_sleep() and may_wait else 0)
        for worker in gone:
            self._pool.died(worker)
        now = self._obey_all()
        self._pool.watch(now)
        self._scheduler.dispatch(now)

    def _quick_turn(self) -> Optional[float]:
        """A turn of a loop's: nothing that takes a while. Seconds until the next; None where this is the thread's."""
        gone = self._listen(0)
        now = self._obey_all()
        if gone or not self._is_quiet() or self._pool.has_overdue(now):
            return None
        self._scheduler.dispatch(now)
        return self._patience_s()

    def _is_quiet(self) -> bool:
        return self._pool.are_ready and not self._pool.draining and self.broken is None

    def _listen(self, timeout_s: float) -> List[WorkerHandle]:
        """Hear what workers say, and read wake-ups; the workers whose sockets have ended."""
        events = self._selector.select(timeout_s)
        self.inbox.woke_up()
        gone = []
        for key, mask in events:
            if key.data is None:
                self.inbox.read_wake_up()
            elif not self._talk(key.data, mask):
                gone.append(key.data)
        return gone

    def _obey_all(self) -> float:
        """Do what the inbox asks for, and drop what would be late; the time then."""
        for message in self.inbox.messages():
            self._obey(message)
        now = now_s()
        if self._requests.next_deadline is not None:
            self._requests.expire(now + self._scheduler.ahead_s())
        return now

    def _patience_s(self) -> float:
        """Seconds until the thread must act even if nothing arrives."""
        now = now_s()
        due_in_s = min(TICK_S, self._pool.next_restart - now)
        deadline = self._requests.next_deadline
        if deadline is not None:
            due_in_s = min(due_in_s, deadline - self._scheduler.ahead_s() - now)
        batch_due_in_s = self._scheduler.due_in_s(now)
        if batch_due_in_s is not None:
            due_in_s = min(due_in_s, batch_due_in_s)
        return max(0.0, due_in_s)

    def _obey(self, message: InboxMessage) -> None:
        if isinstance(message, Accept):
            for request in message.requests:
                self._requests.accept(request)
                unable = self._pool.unable
                if unable is not None:  # since it was let in: nobody would come back to it
                    self._requests.fail(request, unable)
        elif isinstance(message, Cancel):
            for request in message.requests:
                self._requests.cancel(request)
        elif isinstance(message, Decoded):
            self._requests.decoded(message)
        else:
            self._drain(message.drain_s)

    def _talk(self, worker: WorkerHandle, mask: int) -> bool:
        """Whether the worker's socket has not ended."""
        channel = worker.channel
        if channel is None:
            return True
        if mask & selectors.EVENT_WRITE:
            channel.flush()
            self._pool.listen(worker)
        if not mask & selectors.EVENT_READ:
            return True
        messages = channel.receive()
        if messages is None:
            return False
        for message in messages:
            self._hear(worker, message)
        return True

    def _hear(self, worker: WorkerHandle, message: FromWorker) -> None:
        if isinstance(message, BatchDone):
            self._scheduler.take_result(worker, message)
        elif isinstance(message, BlockStep):
            self._scheduler.take_step(worker, message)
        elif isinstance(message, BlockDone):
            self._scheduler.take_part(worker, message)
        elif isinstance(message, BatchFailed):
            self._scheduler.take_failure(worker, message)
        elif isinstance(message, WorkerReady):
            if self.plan is None:
                self.plan = resized_plan(message.plan, self._settings.batch_size)
                self._requests.queue = Batcher(self.plan)
            self._pool.ready(worker, message)
        else:
            self._pool.load_failed(worker, message)

    # ---------------------------------------------------------------------- the end

    def _drain(self, drain_s: float) -> None:
        if not self._pool.draining:
            self._report("draining", requests=len(self._requests))
        self._pool.draining = True
        self._drain_until = min(self._drain_until, now_s() + drain_s)

    def _is_finished(self) -> bool:
        if self.broken is not None:
            return True
        if not self._pool.draining:
            return False
        return not self._requests and not self.inbox or now_s() >= self._drain_until

    def _end(self) -> None:
        left = len(self._requests)
        try:
            with self._files:
                self._requests.fail_all(self.broken or _closed())
                self._pool.end_all()
                self._decoder.end()
        finally:
            self.has_ended = True
            self.sweep()
            self._report("drained", left=left)
            self._pool.started.set()


def _closed() -> NeuronBertError:
    return RunnerClosed("the runner was closed before this request was answered")
