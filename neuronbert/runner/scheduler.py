"""Gives batches to workers and takes their results: which worker is next, what it gets, and what comes back.

Works in the runner's thread only. ``batching`` decides which rows leave, ``stacking`` makes arrays of them.

A suspect is tried alone: one worker at a time is kept for suspects. It finishes what it has, and then holds nothing but
the rows of one of them, until all of those are back.
"""

import itertools
from typing import Iterable, List, Optional, Tuple

from neuronbert.runner.batching import (
    SUSPECT,
    Batcher,
    BatchInFlight,
    BatchSize,
    NextBatch,
    QueuedRow,
    adaptive_wait_s,
)
from neuronbert.runner.counters import Statistics
from neuronbert.runner.events import Report
from neuronbert.runner.messages import BatchDone, BatchFailed, BlockDone, BlockOrder, BlockStep
from neuronbert.runner.open_requests import OpenRequests
from neuronbert.runner.requests import Request, Trip, now_s
from neuronbert.runner.settings import RowFormat, Settings
from neuronbert.runner.stacking import hand_out, measure_batch, order_of, size_of
from neuronbert.runner.supervision import READY, USELESS, WorkerHandle
from neuronbert.runner.suspicion import NO_BLAME
from neuronbert.runner.worker_pool import WorkerPool

MAX_FAILED_BATCHES = 3  # in a row, after which a worker is replaced: its device may be at fault


class Scheduler:
    """Moves rows from the queue to the workers, and results back."""

    def __init__(
        self, settings: Settings, pool: WorkerPool, requests: OpenRequests, statistics: Statistics, report: Report
    ):
        self.row_format = RowFormat(0, ())  # known before anything is asked
        self._settings = settings
        self._pool = pool
        self._requests = requests
        self._statistics = statistics
        self._report = report
        self._numbers = itertools.count(1)
        self._room_since: Optional[float] = None  # when a worker had room, kept while rows wait; None while none has
        self._kept: Optional[WorkerHandle] = None  # takes suspects only
        self._on_trial: Optional[Request] = None  # whose rows the kept worker holds; None while it holds others'

    # ---- when

    def ahead_s(self) -> float:
        """Seconds that a queued request still has to wait; 0 while a worker is free, so that it is tried."""
        return self._statistics.round_trip.expected_s if self._next_free() is None else 0.0

    def due_in_s(self, now: float) -> Optional[float]:
        """Seconds until rows have waited long enough for others; None when nothing can be sent anyway."""
        queue = self._requests.queue
        if queue is None or queue.is_empty or self._room_since is None:
            return None
        return queue.due_in(now, self._wait_s())

    def _wait_s(self) -> float:
        return adaptive_wait_s(self._settings.max_wait_s, self._statistics.service_s)

    # ---- out

    def dispatch(self, now: float) -> None:
        """Send batches while a worker has room and rows should not wait for others."""
        queue = self._requests.queue
        # What looks for work where there is none keeps the interpreter from the caller who has just got an answer.
        if queue is None or (queue.is_empty and self._kept is None):
            return
        self._try_suspects(queue, now)
        self._fill_workers(queue, now)

    def _fill_workers(self, queue: Batcher, now: float) -> None:
        while True:
            worker = self._next_free()
            if worker is None:
                self._room_since = None
                return
            if self._room_since is None:
                self._room_since = now
            idle = len(worker.in_flight) < min(worker.parallel, self._limit(worker))
            batch = queue.take(now, idle, self._wait_s())
            if batch is None:
                return
            self._send(worker, batch, now)

    def _try_suspects(self, queue: Batcher, now: float) -> None:
        while True:
            suspect = self._next_trial(queue)
            batch = None if suspect is None else queue.take_suspect(suspect)
            if batch is None:
                return
            assert self._kept is not None
            if not self._kept.in_flight:
                self._kept.begin_trial()
            self._send(self._kept, batch, now)

    def _next_trial(self, queue: Batcher) -> Optional[Request]:
        """The suspect of which the kept worker takes rows now; None where it has to finish, or it is others' turn."""
        kept = self._kept if self._kept is not None and self._kept.state == READY else None
        if kept is not None and kept.in_flight and self._on_trial is not None:
            return self._on_trial if len(kept.in_flight) < self._limit(kept) else None
        suspect = queue.next_suspect()
        if suspect is None:
            kept = None
        elif kept is None:
            kept = self._least_busy(worker for worker in self._pool.workers if worker.state == READY)
        self._kept = kept
        self._on_trial = None if kept is None or kept.in_flight else suspect
        return self._on_trial

    def _limit(self, worker: WorkerHandle) -> int:
        """Batches that the worker may hold at once."""
        return self._settings.in_flight or worker.concurrency + 1

    def _next_free(self) -> Optional[WorkerHandle]:
        """The least busy worker with room, unless it is kept for suspects."""
        return self._least_busy(
            worker
            for worker in self._pool.workers
            if worker.state == READY and len(worker.in_flight) < self._limit(worker) and worker is not self._kept
        )

    @staticmethod
    def _least_busy(workers: Iterable[WorkerHandle]) -> Optional[WorkerHandle]:
        """Of equals, the one given its last batch longest ago."""
        return min(workers, key=_busyness, default=None)

    def _still_wanted(self, batch: NextBatch) -> List[QueuedRow]:
        """The batch's rows, out of the queue, without the cancelled ones; the rest can no longer be cancelled."""
        self._requests.left_queue(batch)
        requests, wanted = self._requests, []
        for row in batch.rows:
            request = row.request
            if not request.future.begin():
                requests.cancel(request)
            if not request.over:
                wanted.append(row)
        return wanted

    def _send(self, worker: WorkerHandle, next_batch: NextBatch, now: float) -> None:
        rows, reason = self._still_wanted(next_batch), next_batch.reason
        if not rows:
            return
        queue = self._requests.queue
        assert queue is not None and worker.channel is not None
        order = order_of(next(self._numbers), rows, self.row_format.pad_id)
        worker.channel.send(order)  # before it is noted: the device may be waiting for it
        if worker.channel.has_unsent:
            self._pool.listen(worker)
        if isinstance(order, BlockOrder):
            entries = len(order.block.entries)
            size = BatchSize(entries, entries, 0, 0)  # its rows are counted as its steps tell of them
            batch = BatchInFlight(order.number, rows, size, reason, now, is_block=True)
        else:
            size = measure_batch(order.batch, rows, queue)
            self._count_rows(size)
            batch = BatchInFlight(order.number, rows, size, reason, now, reduced_rows=order.reduced_rows)
        worker.give(batch, now)
        room_since = self._room_since
        for row in rows:
            if row.request.sent_first == 0.0:
                row.request.sent_first = now
                row.request.batch_wait_s = 0.0 if room_since is None else now - max(room_since, row.request.accepted)
        self._statistics.left_queue(reason)

    def _count_rows(self, size: BatchSize) -> None:
        self._statistics.rows_sent(size.row_count, size.capacity, size.tokens, size.computed_tokens)

    # ---- back

    def take_result(self, worker: WorkerHandle, message: BatchDone) -> None:
        """A batch is done: its rows go to their requests, and those that are complete get their result."""
        now = now_s()
        batch = worker.take_back(message.number, now)
        self._count_batch(worker, batch.size.row_count, message.device_s, now)
        hand_out(message.outputs, self.row_format, batch, _trip(worker, batch, now, message.device_s))
        for request in batch.open_requests():
            if batch.reason == SUSPECT:
                request.blame = NO_BLAME  # what a worker has got through kills none
            if request.is_answered:
                self._requests.finish(request)
        self._statistics.round_trip.add(now_s() - batch.sent)  # what callers saw, their callbacks included

    def take_step(self, worker: WorkerHandle, message: BlockStep) -> None:
        """A batch of a block is done, and the block is not."""
        now, queue = now_s(), self._requests.queue
        assert queue is not None
        batch = worker.heard_of(message.number, now)
        self._count_rows(size_of(message.rows, message.width, message.tokens, queue))
        self._count_batch(worker, message.rows, message.device_s, now)
        for request in batch.open_requests():
            request.told(message.share)

    def take_part(self, worker: WorkerHandle, message: BlockDone) -> None:
        """A block is done."""
        batch = worker.take_back(message.number, now_s())
        worker.failed_batches, worker.was_useful = 0, True
        for request in batch.open_requests():
            self._requests.finish_with(request, message.part)
        self._statistics.round_trip.add(now_s() - batch.sent)

    def _count_batch(self, worker: WorkerHandle, rows: int, device_s: float, now: float) -> None:
        worker.failed_batches, worker.was_useful = 0, True
        worker.rows_done += rows
        worker.batches_done += 1
        worker.device_s += device_s
        self._statistics.batch_done(now, rows, device_s, backlog=self._statistics.waiting_rows > 0)

    def take_failure(self, worker: WorkerHandle, message: BatchFailed) -> None:
        """The batch raised. With several requests in it, each is tried alone, so that only the one at fault fails."""
        batch = worker.take_back(message.number, now_s())
        worker.failed_batches += not batch.is_block  # it may be its text; its batches are tried again, and count
        requests = batch.open_requests()
        self._report(
            "batch_failed",
            worker=worker.number,
            requests=[request.id for request in requests],
            why=str(message.error),
        )
        for request in requests:
            if len(batch.distinct_requests()) > 1:
                request.alone = True
                self._requests.try_again(request, [row.row_index for row in batch.rows if row.request is request])
            else:
                self._requests.fail(request, message.error)
        if worker.failed_batches >= MAX_FAILED_BATCHES:
            worker.kill(USELESS)


def _busyness(worker: WorkerHandle) -> Tuple[float, float]:
    return len(worker.in_flight) / worker.parallel, worker.last_sent


def _trip(worker: WorkerHandle, batch: BatchInFlight, done: float, device_s: float) -> Trip:
    return Trip(
        worker.number,
        worker.place.cores,
        batch.reason,
        batch.size.row_count,
        batch.size.fill,
        batch.size.padding,
        batch.sent,
        done,
        device_s,
    )
