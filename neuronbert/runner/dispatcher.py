"""The runner's one thread: takes requests in, gives batches to workers, takes results, watches and replaces workers.

Everything here happens in that thread, so nothing is locked; other threads only put messages into the inbox and read
the counters. It never blocks on a worker.
"""

import heapq
import itertools
import math
import os
import selectors
import threading
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import Output, row_of
from neuronbert.errors import BackendFailed, DeadlineExceeded, NeuronBertError, PoisonRequest, RunnerClosed
from neuronbert.runner import supervision
from neuronbert.runner.batching import WHOLE_BATCH, Batcher, Item, Leaving, adaptive_wait_s, fill_of, padding_of
from neuronbert.runner.counters import Statistics
from neuronbert.runner.requests import Answered, Request
from neuronbert.runner.supervision import READY, STARTING, STOPPED, WAITING, Job, Place, Sent, Worker, now_s

MAX_DEATHS = 2  # of workers, with one request
MAX_FAILED_BATCHES = 3  # in a row, after which a worker is replaced: its device may be at fault
MAX_START_FAILURES = 3  # in a row of every worker, after which requests are not kept waiting
LONGEST_ROW = 512  # tokens of most models' longest window: a batch size that was asked for holds for it too
TICK_S = 0.5  # the longest that nothing is looked at
WATCH_S = 0.02  # how often hangs and restarts are looked for: every turn would be as often as requests come

Event = Callable[..., None]


class Settings:
    """What the runner was asked for, as the dispatcher needs it."""

    def __init__(
        self,
        *,
        job: Job,
        places: Sequence[Place],
        in_flight: Optional[int],
        batch_size: Optional[int],
        max_wait_s: float,
        hang_timeout_s: float,
        start_timeout_s: float,
        pad_id: int,
        outputs: Sequence[Output],
    ):
        self.outputs = outputs
        self.job, self.places, self.pad_id = job, places, pad_id
        self.in_flight, self.batch_size = in_flight, batch_size
        self.max_wait_s, self.hang_timeout_s, self.start_timeout_s = max_wait_s, hang_timeout_s, start_timeout_s


class Dispatcher:
    """Runs until it is told to stop and every worker is gone."""

    def __init__(self, settings: Settings, statistics: Statistics, event: Event):
        self._settings = settings
        self.statistics = statistics
        self._event = event
        self.workers = [Worker(number, place) for number, place in enumerate(settings.places)]
        self.started = threading.Event()  # every worker is ready, or ``broken`` says why not
        self.broken: Optional[NeuronBertError] = None
        self.plan: Optional[ThroughputPlan] = None  # of the first worker that was ready
        self._batcher: Optional[Batcher] = None
        self._inbox: Deque[Tuple[Callable[..., None], Tuple[Any, ...]]] = deque()
        self._wake_reading, self._wake_writing = os.pipe()
        os.set_blocking(self._wake_reading, False)
        os.set_blocking(self._wake_writing, False)
        self._asleep = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_reading, selectors.EVENT_READ, None)
        self._deadlines: List[Tuple[float, int, Request]] = []  # a heap; the number keeps equal ones in order
        self._order = itertools.count()
        self._batches = 0
        self._open_requests: Dict[int, Request] = {}
        self._slots_free_since: Optional[float] = None
        self._watch_at = 0.0
        self._drain_until = math.inf
        self._draining = False
        self.has_ended = False
        self._thread = threading.Thread(target=self._run, name="neuronbert-runner", daemon=True)

    # ------------------------------------------------------------------ called from other threads

    def start(self) -> None:
        """Start the thread, and in it the workers."""
        self._thread.start()

    def put(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have ``function`` called in the runner's thread."""
        self._inbox.append((function, arguments))
        if self._asleep:
            self._asleep = False
            try:
                os.write(self._wake_writing, b"!")
            except (BlockingIOError, OSError):
                pass  # full: it is awake already; closed: nobody is there any more

    def sweep(self) -> None:
        """After the end: what was put into the inbox too late gets its outcome all the same."""
        while self.has_ended and self._inbox:
            try:
                _, arguments = self._inbox.popleft()
            except IndexError:
                return
            for request in arguments:
                if isinstance(request, Request):
                    self._fail(request, self.broken or _closed())

    def stop(self, drain_s: float) -> None:
        """Finish what was accepted, for ``drain_s`` at most, then end."""
        self.put(self._drain, drain_s)

    def join(self, timeout_s: Optional[float] = None) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def describe_workers(self) -> List[Dict[str, Any]]:
        """Every worker's state, as plain JSON data."""
        return [worker.describe(now_s()) for worker in self.workers]

    # ------------------------------------------------------------------ called in the runner's thread

    def accept(self, request: Request) -> None:
        """Queue a request that was let in."""
        self._open_requests[request.id] = request
        if request.future.cancelled():
            self.cancel(request)
            return
        self._queue(request, request.accepted)

    def _queue(self, request: Request, now: float, missing: Optional[List[int]] = None) -> None:
        if request.deadline < math.inf:
            heapq.heappush(self._deadlines, (request.deadline, next(self._order), request))
        assert self._batcher is not None
        self._batcher.add(request, now, missing)

    def cancel(self, request: Request) -> None:
        """Its future was cancelled before it was on its way."""
        if not request.over:
            self.statistics.count("cancelled")
            self._close(request)

    def _run(self) -> None:
        try:
            now = now_s()
            for worker in self.workers:
                self._start(worker, now)
            while not self._is_finished():
                self._turn()
        except Exception as error:  # a bug: whoever waits must not wait for ever
            self.broken = BackendFailed(f"the runner itself failed: {type(error).__name__}: {error}")
            raise
        finally:
            self._end_everything()

    def _turn(self) -> None:
        self._asleep = True  # before the look at the inbox: whoever fills it afterwards wakes this thread
        events = self._selector.select(0 if self._inbox else self._patience_s())
        self._asleep = False
        for key, mask in events:
            if key.data is None:
                os.read(self._wake_reading, 4096)
            else:
                self._talk(key.data, mask)
        while self._inbox:
            function, arguments = self._inbox.popleft()
            function(*arguments)
        now = now_s()
        self._expire(now)
        self._watch(now)
        self._dispatch(now)

    def _patience_s(self) -> float:
        """How long nothing can happen by itself."""
        now = now_s()
        due = [TICK_S]
        due += [self._deadlines[0][0] - self._ahead_s() - now] if self._deadlines else []
        due += [max(worker.start_at, self._watch_at) - now for worker in self.workers if worker.state == WAITING]
        if self._batcher is not None and self._slots_free_since is not None:
            waited = self._batcher.due_in(now, self._wait_s())
            due += [] if waited is None else [waited]
        return max(0.0, min(due))

    # ---- workers: talking

    def _talk(self, worker: Worker, mask: int) -> None:
        channel = worker.channel
        if channel is None:
            return
        if mask & selectors.EVENT_WRITE:
            channel.flush()
            self._listen(worker)
        if not mask & selectors.EVENT_READ:
            return
        messages = channel.receive()
        if messages is None:
            self._died(worker)
            return
        for message in messages:
            worker.progress = now_s()
            getattr(self, "_on_" + message["kind"])(worker, message)

    def _listen(self, worker: Worker) -> None:
        assert worker.channel is not None
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.channel.has_unsent else 0)
        self._selector.modify(worker.channel.sock, wanted, worker)

    def _on_ready(self, worker: Worker, message: Dict[str, Any]) -> None:
        worker.is_ready(message, now_s())
        if self.plan is None:
            self.plan = _resized(ThroughputPlan(*message["plan"]), self._settings.batch_size)
            self._batcher = Batcher(self.plan)
        self._event(
            "ready", worker=worker.number, pid=message["pid"], load_s=message["load_s"], variant=message["variant"]
        )
        if all(one.state == READY for one in self.workers):
            self.started.set()

    def _on_unable(self, worker: Worker, message: Dict[str, Any]) -> None:
        worker.unable = message["error"]

    def _on_done(self, worker: Worker, message: Dict[str, Any]) -> None:
        sent = worker.held.pop(message["batch"])
        now = now_s()
        worker.failed_batches, worker.was_useful = 0, True
        worker.rows_done += sent.rows
        worker.batches_done += 1
        worker.busy_s += message["device_s"]
        self.statistics.batch_done(
            now, sent.rows, message["device_s"], backlog=bool(self._batcher and self._batcher.rows)
        )
        trip = {
            "worker": worker.number,
            "cores": worker.place.cores,
            "reason": sent.reason,
            "rows": sent.rows,
            "fill": sent.fill,
            "padding": sent.padding,
            "sent": sent.sent,
            "done": now,
            "device_s": message["device_s"],
        }
        for index, item in enumerate(sent.items):
            request = item.request
            if request.over:
                continue
            if item.row == WHOLE_BATCH:
                request.outputs = [message["outputs"]]
            else:
                request.outputs[item.row] = row_of(message["outputs"], self._settings.outputs, index, item.length)
            if not request.trips or request.trips[-1] is not trip:
                request.trips.append(trip)
        for request in {id(item.request): item.request for item in sent.items}.values():
            if not request.over and not any(one is None for one in request.outputs):
                self._finish(request)
        self.statistics.round_trip.add(now_s() - sent.sent)  # what the askers saw, their callbacks included

    def _on_failed(self, worker: Worker, message: Dict[str, Any]) -> None:
        """The batch raised. With several requests in it, each is asked alone, so that only the one at fault fails."""
        sent = worker.held.pop(message["batch"])
        worker.failed_batches += 1
        requests = self._requests_of(sent)
        self._event(
            "batch_failed", worker=worker.number, requests=[one.id for one in requests], why=str(message["error"])
        )
        for request in requests:
            if len(requests) > 1 and not request.alone:
                request.alone = True
                self._again(request, sent)
            else:
                self._fail(request, message["error"])
        if worker.failed_batches >= MAX_FAILED_BATCHES:
            assert worker.process is not None
            worker.process.kill()  # its end is noticed at the socket

    # ---- workers: life and death

    def _start(self, worker: Worker, now: float) -> None:
        try:
            worker.start(self._settings.job, now)
        except OSError as error:  # no process, no file descriptor, no memory
            self._cannot_start(worker, BackendFailed(f"worker {worker.number} cannot be started: {error}"), now)
            return
        assert worker.channel is not None and worker.process is not None
        self._selector.register(worker.channel.sock, selectors.EVENT_READ, worker)
        self._event("start", worker=worker.number, pid=worker.process.pid, cores=worker.place.cores)
        if worker.starts > 1:
            self.statistics.count("restarts")

    def _cannot_start(self, worker: Worker, reason: NeuronBertError, now: float) -> None:
        worker.unable = reason
        wait_s = worker.schedule_restart(now)
        self._event("unable", worker=worker.number, cause=str(reason), held=[], restart_in_s=wait_s)
        if not self.started.is_set():
            self.broken = reason
            self.started.set()
        self._give_up_waiting()

    def _died(self, worker: Worker, stalled: bool = False) -> None:
        """The process is gone, or must go: what it held goes elsewhere, and another takes its place."""
        assert worker.channel is not None and worker.process is not None
        self._selector.unregister(worker.channel.sock)
        code = worker.end()
        now = now_s()
        cause = supervision.cause_of_death(code, worker.oom_kills, stalled)
        was = worker.state
        unable = worker.unable or (supervision.died_before_ready(worker, cause) if was == STARTING else None)
        worker.unable = unable
        held = list(worker.held.values())
        worker.held.clear()
        wait_s = worker.schedule_restart(now)
        if was == READY:
            self.statistics.count("deaths")
        self._event(
            "unable" if was == STARTING else "died",
            worker=worker.number,
            cause=str(unable) if unable is not None else cause,
            held=[request.id for sent in held for request in self._requests_of(sent)],
            restart_in_s=wait_s,
        )
        if not self.started.is_set() and unable is not None:
            self.broken = unable
            self.started.set()
        self._reassign(held, worker.concurrency)
        if self._draining and not self._open_requests:
            worker.state = STOPPED
        self._give_up_waiting()

    def _reassign(self, held: List[Sent], running: int) -> None:
        """What a dead worker held. Only the batches that it was running are suspected; the others had not begun."""
        for place, sent in enumerate(held):
            for request in self._requests_of(sent):
                if place < running:
                    request.deaths += 1
                    request.alone = True
                if request.deaths >= MAX_DEATHS:
                    self.statistics.count("poisoned")
                    self._event("poison", request=request.id, deaths=request.deaths)
                    self._fail(request, _poison(request))
                else:
                    self.statistics.count("retried")
                    self._again(request, sent)

    def _give_up_waiting(self) -> None:
        """When no worker can be started, whoever waits is told so."""
        hopeless = [one for one in self.workers if one.unable is not None and one.failures >= MAX_START_FAILURES]
        if len(hopeless) == len(self.workers):
            for request in list(self._open_requests.values()):
                assert hopeless[0].unable is not None
                self._fail(request, hopeless[0].unable)

    @property
    def unable(self) -> Optional[NeuronBertError]:
        """Why no worker can be started; None while one runs or may."""
        reasons = [one.unable for one in self.workers if one.failures >= MAX_START_FAILURES and one.unable]
        return reasons[0] if len(reasons) == len(self.workers) else None

    def _watch(self, now: float) -> None:
        if now < self._watch_at:
            return
        self._watch_at = now + WATCH_S
        for worker in self.workers:
            if worker.state == WAITING and now >= worker.start_at and not (self._draining and not self._open_requests):
                self._start(worker, now)
            limit_s = self._settings.start_timeout_s if worker.state == STARTING else self._settings.hang_timeout_s
            if worker.state in (STARTING, READY) and worker.stalled_s(now) > limit_s:
                assert worker.process is not None
                worker.process.kill()
                self._died(worker, stalled=True)

    # ---- requests

    def _ahead_s(self) -> float:
        """What a request that waits has before it. Where a worker is free it is tried at once, whatever it takes."""
        return self.statistics.round_trip.expected_s if self._next_free() is None else 0.0

    def _expire(self, now: float) -> None:
        """Drop what is too late or could only be, before it takes a place in a batch."""
        if not self._deadlines:
            return
        latest = now + self._ahead_s()
        while self._deadlines and self._deadlines[0][0] <= latest:
            request = heapq.heappop(self._deadlines)[2]
            if not request.over and request.queued == request.size:  # none of it is with a worker
                self._too_late(request)

    def _too_late(self, request: Request) -> None:
        self.statistics.count("expired")
        waited_s = now_s() - request.submitted
        self._fail(
            request,
            DeadlineExceeded(
                f"request {request.id} could not be answered within its {request.deadline - request.submitted:.3g} s "
                f"(after {waited_s:.3g} s it was dropped before it cost device time)",
                hint="a longer timeout_s, fewer requests at once, or more workers",
            ),
        )

    def _again(self, request: Request, sent: Sent) -> None:
        if request.over:
            return
        now = now_s()
        if request.deadline <= now:
            self._too_late(request)
            return
        self._queue(request, now, missing=[item.row for item in sent.items if item.request is request])

    def _finish(self, request: Request) -> None:
        began = now_s()
        try:
            result = request.finish([one for one in request.outputs if one is not None])
        except Exception as error:
            self._fail(request, error)
            return
        done = now_s()
        self.statistics.request_done(done - request.submitted)
        if request.wants_breakdown:
            result = Answered(result, request.breakdown(done, done - began))
        self._close(request)
        request.future.set_result(result)

    def _fail(self, request: Request, error: BaseException) -> None:
        if request.over:
            return
        self.statistics.count("failed")
        self._close(request)
        if request.future.running() or request.future.set_running_or_notify_cancel():
            request.future.set_exception(error)

    def _close(self, request: Request) -> None:
        request.over = True
        self._leave_queue(request)
        self._open_requests.pop(request.id, None)
        if self._batcher is not None:
            self._batcher.drop(request)
        request.forget()

    def _leave_queue(self, request: Request) -> None:
        """Its place in the queue is somebody else's."""
        if request.admitted:
            request.admitted = False
            self.statistics.left_queue(request)

    @staticmethod
    def _requests_of(sent: Sent) -> List[Request]:
        found = {id(item.request): item.request for item in sent.items}
        return [request for request in found.values() if not request.over]

    # ---- batches

    def _wait_s(self) -> float:
        return adaptive_wait_s(self._settings.max_wait_s, self.statistics.service_s)

    def _slots(self, worker: Worker) -> int:
        """Batches that it may hold at once."""
        return self._settings.in_flight or worker.concurrency + 1

    def _dispatch(self, now: float) -> None:
        batcher = self._batcher
        if batcher is None:
            return
        while True:
            worker = self._next_free()
            if worker is None:
                self._slots_free_since = None
                return
            if self._slots_free_since is None:
                self._slots_free_since = now
            if not batcher.rows:
                return
            idle = len(worker.held) < min(worker.parallel, self._slots(worker))
            leaving = batcher.take(now, idle, self._wait_s())
            if leaving is None:
                return
            self._send(worker, self._still_wanted(leaving), leaving.reason, now)

    def _next_free(self) -> Optional[Worker]:
        """The least busy worker with a slot; of equals, the one given its last batch longest ago."""
        best, best_key = None, (math.inf, math.inf)
        for one in self.workers:
            held = len(one.held)
            if one.state == READY and held < self._slots(one):
                key = (held / one.parallel, one.given)
                if key < best_key:
                    best, best_key = one, key
        return best

    def _still_wanted(self, leaving: Leaving) -> List[Item]:
        """Without what was cancelled."""
        kept = []
        for item in leaving.items:
            request = item.request
            if not request.over and not request.future.running() and not request.future.set_running_or_notify_cancel():
                self.cancel(request)
            if not request.over:
                self._leave_queue(request)
                kept.append(item)
        return kept

    def _send(self, worker: Worker, items: List[Item], reason: str, now: float) -> None:
        if not items:
            return
        assert self._batcher is not None and worker.channel is not None and self._slots_free_since is not None
        batch = self._stack(items)
        rows, width = batch.input_ids.shape
        plan = self._batcher.plan
        if plan.lengths:
            width = self._batcher.class_of(width)
        capacity = max(self._batcher.capacity(width), rows)
        computed = -(-rows // plan.rows) * plan.rows if plan.lengths else rows
        lengths = [item.length for item in items] if items[0].row != WHOLE_BATCH else [int(batch.attention_mask.sum())]
        self._batches += 1
        sent = Sent(
            self._batches, items, reason, now, rows, fill_of(rows, capacity), padding_of(lengths, width, computed)
        )
        for item in items:
            if item.request.sent_first == 0.0:
                item.request.sent_first = now
                item.request.batch_wait_s = now - max(self._slots_free_since, item.request.accepted)
        self.statistics.batch_sent(reason, rows, capacity, sum(lengths), computed * width)
        if not worker.held:
            worker.progress = now
        worker.held[sent.number] = sent
        worker.given = now
        worker.channel.send((sent.number, tuple(batch)))
        if worker.channel.has_unsent:
            self._listen(worker)

    def _stack(self, items: List[Item]) -> Batch:
        if items[0].row == WHOLE_BATCH:
            batch = items[0].request.batch
            assert batch is not None
            return batch
        rows = [item.request.rows[item.row] for item in items]
        shape = len(rows), max(len(row.input_ids) for row in rows)
        batch = Batch(
            np.full(shape, self._settings.pad_id, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        )
        for number, row in enumerate(rows):
            length = len(row.input_ids)
            batch.input_ids[number, :length] = row.input_ids
            batch.attention_mask[number, :length] = 1 if row.attention_mask is None else row.attention_mask
            batch.token_type_ids[number, :length] = row.token_type_ids
        return batch

    # ---- the end

    def _drain(self, drain_s: float) -> None:
        if not self._draining:
            self._event("draining", requests=len(self._open_requests))
        self._draining = True
        self._drain_until = min(self._drain_until, now_s() + drain_s)

    def _is_finished(self) -> bool:
        if not self._draining:
            return self.broken is not None
        return not self._open_requests and not self._inbox or now_s() >= self._drain_until or self.broken is not None

    def _end_everything(self) -> None:
        left = list(self._open_requests.values())
        for request in left:
            self._fail(request, self.broken or _closed())
        for worker in self.workers:
            if worker.channel is not None:
                worker.channel.close()
        for worker in self.workers:
            if worker.process is not None and worker.process.returncode is None:
                if worker.held or worker.state == STARTING:
                    worker.process.kill()  # busy with what nobody waits for
                worker.end()
            worker.state = STOPPED
        self._selector.close()
        os.close(self._wake_reading)
        os.close(self._wake_writing)
        self.has_ended = True
        self.sweep()
        self._event("drained", left=len(left))
        self.started.set()


def _resized(plan: ThroughputPlan, rows: Optional[int]) -> ThroughputPlan:
    """The plan with batches of ``rows``; static shapes have their own."""
    if rows is None or plan.lengths:
        return plan
    return plan._replace(rows=rows, tokens=rows * max(plan.tokens // plan.rows, LONGEST_ROW))


def _closed() -> NeuronBertError:
    return RunnerClosed("the runner was closed before this request was answered")


def _poison(request: Request) -> NeuronBertError:
    return PoisonRequest(
        f"request {request.id} was with {request.deaths} workers when they died, and is not tried again",
        hint="look at its text; the events of the runner say how the workers died",
    )
