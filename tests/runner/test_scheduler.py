"""The decisions of the runner's thread without processes: any order of requests, results, deaths, restarts."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from logits import logits

from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import PER_ROW, Output
from neuronbert.errors import BackendFailed, PoisonRequest
from neuronbert.runner.batching import SUSPECT, Batcher
from neuronbert.runner.blocks import Block
from neuronbert.runner.counters import Statistics
from neuronbert.runner.decoding import Decoder
from neuronbert.runner.messages import BatchDone, BatchFailed, BlockDone, BlockOrder, BlockStep
from neuronbert.runner.open_requests import OpenRequests
from neuronbert.runner.requests import WHOLE_BATCH, MoreRows, Request, Row, now_s
from neuronbert.runner.room import Ticket
from neuronbert.runner.scheduler import MAX_FAILED_BATCHES, Scheduler
from neuronbert.runner.settings import RowFormat, Settings
from neuronbert.runner.supervision import READY, WAITING, WorkerHandle, WorkerPlace
from neuronbert.runner.suspicion import MAX_DEATHS, Doer
from neuronbert.tasks.lines import Entry
from neuronbert.tasks.question_answering.task import OUTPUTS

PLANS = {
    "dynamic": ThroughputPlan(streams=2, rows=4, tokens=4 * 64),
    "buckets": ThroughputPlan(streams=2, rows=3, tokens=3 * 64, lengths=(16, 64)),
}
GOOD, KILLS, RAISES = 9001, 9002, 9003  # the first token of a row; the others are its request's number
PLACE = WorkerPlace({}, None, 1, "CPU")


class FakeChannel:
    """Keeps what was sent."""

    has_unsent = False

    def __init__(self):
        self.orders = {}

    def send(self, order):
        self.orders[order.number] = order


def tokens_of(order):
    """The first column has the first token of each row; a block has an entry in place of each."""
    if isinstance(order, BlockOrder):
        return np.array([[entry.line_number] for entry in order.block.entries])
    return order.batch.input_ids


class FakeWorker(WorkerHandle):
    """A worker without a process."""

    def kill(self, why=None):
        self.killed = why


class FakePool:
    """Workers that are what the test makes of them."""

    def __init__(self, count, concurrency):
        self.workers = [
            FakeWorker(number, PLACE, concurrency=concurrency, parallel=concurrency) for number in range(count)
        ]
        for worker in self.workers:
            self.restart(worker)

    def restart(self, worker):
        worker.state, worker.channel, worker.killed = READY, FakeChannel(), None
        worker.failed_batches = 0


def all_of(read):
    """The result of a request of which everything is read at once: the outputs of its rows."""
    return list(read.values())


def in_rounds(count):
    """A ``finish`` that asks for as many rows as were read, until all ``count`` are."""
    return lambda read: all_of(read) if len(read) == count else MoreRows(range(len(read), min(2 * len(read), count)))


def wanted_of(request, row):
    """Of every second row little is wanted."""
    return (request, row) if row % 2 else None


class Runner:
    """Everything of the runner that decides."""

    def __init__(self, plan, workers, concurrency):
        self.statistics = Statistics(max_queue=1000)
        self.requests = OpenRequests(self.statistics, self.report, Decoder(lambda decoded: None))
        self.requests.queue = Batcher(plan)
        self.pool = FakePool(workers, concurrency)
        options = Settings("", None, None, [PLACE] * workers, None, None, 0.0, 60.0, 60.0)
        self.scheduler = Scheduler(options, self.pool, self.requests, self.statistics, self.report)
        self.scheduler.row_format = RowFormat(0, OUTPUTS, [Output("kept", PER_ROW)])
        self.asked = []

    def report(self, event, **facts):
        pass

    def submit(self, lengths, first_token=GOOD, whole=None, at_first=None):
        number = len(self.asked) + 1
        arrays = [np.full(length, number) for length in lengths]
        arrays[-1][0] = first_token
        if whole == "block":
            arrays = [np.array([[number]] * (len(lengths) - 1) + [[first_token]])]
            request = Request(number, (), all_of, now_s(), whole=Block([Entry(line) for (line,) in arrays[0]], None))
        elif whole == "batch":
            arrays = [np.full((len(lengths), max(lengths)), number)]
            arrays[0][-1, 0] = first_token
            ids = arrays[0]
            request = Request(number, (), all_of, now_s(), whole=Batch(ids, np.ones_like(ids), np.zeros_like(ids)))
        else:
            rows = [Row(ids, np.zeros_like(ids), wanted=wanted_of(number, row)) for row, ids in enumerate(arrays)]
            first = None if at_first is None else range(min(at_first, len(rows)))
            request = Request(number, rows, in_rounds(len(rows)), now_s(), first_rows=first)
        request.accepted = request.since = now_s()
        assert self.statistics.room.enter(Ticket(request.size))
        self.asked.append((request, arrays))
        self.requests.accept(request)
        self.scheduler.dispatch(now_s())
        return request

    def running(self, worker):
        """Numbers of the batches that the worker has begun with."""
        return list(worker.in_flight)[: worker.concurrency]

    def answer(self, worker, number):
        """The worker comes to the end of a batch, one way or another."""
        order = worker.channel.orders[number]
        ids = tokens_of(order)
        first = ids[:, 0]
        if isinstance(order, BlockOrder):
            self.scheduler.take_step(worker, BlockStep(number, *ids.shape, ids.size, 0.01, 0.5))
        if (first == KILLS).any():
            self.dies(worker, Doer.WORKER)
            return
        if (first == RAISES).any():
            self.scheduler.take_failure(worker, BatchFailed(number, BackendFailed("told to")))
            if worker.killed:
                self.dies(worker, worker.killed.doer)
        elif isinstance(order, BlockOrder):
            self.scheduler.take_part(worker, BlockDone(number, [logits(ids, ids)]))
        else:
            outputs = logits(ids.astype(np.float32), ids.astype(np.float32))
            if order.wanted is not None:
                rest = np.setdiff1d(np.arange(len(ids)), order.wanted[:, 0])
                whole = {name: array[rest] for name, array in outputs.items()} if len(rest) else {}
                outputs = {**whole, "kept": order.wanted[:, 1:]}
            self.scheduler.take_result(worker, BatchDone(number, outputs, 0.01))
        self.scheduler.dispatch(now_s())

    def dies(self, worker, doer):
        lost = list(worker.in_flight.values())
        begun = {row.request for batch in lost[: worker.concurrency] for row in batch.rows}
        before = {request: request.deaths for request, _ in self.asked}
        worker.in_flight.clear()
        worker.state = WAITING
        self.requests.lost(lost, worker.concurrency, doer)
        for request, deaths in before.items():
            is_suspect = doer is not Doer.RUNNER and request in begun and not request.over
            assert request.deaths == deaths + is_suspect or request.over
        self.scheduler.dispatch(now_s())

    def come_back(self, worker):
        self.pool.restart(worker)
        self.scheduler.dispatch(now_s())

    def finish_all(self):
        """Let every worker go on until nothing is left."""
        for _ in range(10_000):
            for worker in self.pool.workers:
                if worker.state == WAITING:
                    self.come_back(worker)
            busy = [worker for worker in self.pool.workers if worker.in_flight]
            if not busy:
                return
            self.answer(busy[0], self.running(busy[0])[0])
        raise AssertionError("it never ends")


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens, every request has its outcome, and suspects are alone."""

    requests = Bundle("requests")

    def __init__(self):
        super().__init__()
        self.kills_alone = {}
        self.runner = None

    @rule(plan=st.sampled_from(sorted(PLANS)), workers=st.integers(1, 3), concurrency=st.integers(1, 3))
    def begin(self, plan, workers, concurrency):
        if self.runner is None:
            self.runner = Runner(PLANS[plan], workers, concurrency)

    @rule(
        target=requests,
        lengths=st.lists(st.integers(1, 64), min_size=1, max_size=12),
        kind=st.sampled_from([GOOD, GOOD, GOOD, KILLS, RAISES]),
        whole=st.sampled_from([None, None, "batch", "block"]),
        at_first=st.sampled_from([None, 1, 2]),
    )
    def submit(self, lengths, kind, whole, at_first):
        self.begin("dynamic", 2, 2) if self.runner is None else None
        return self.runner.submit(lengths[:3] if whole else lengths, kind, whole, at_first)

    @rule(which=st.integers(0, 8), position=st.integers(0, 2))
    def answer(self, which, position):
        busy = [worker for worker in self.runner.pool.workers if worker.in_flight] if self.runner else []
        if busy:
            worker = busy[which % len(busy)]
            begun = self.runner.running(worker)
            self.runner.answer(worker, begun[position % len(begun)])

    @rule(which=st.integers(0, 2), doer=st.sampled_from(list(Doer)))
    def die(self, which, doer):
        if self.runner is None:
            return
        worker = self.runner.pool.workers[which % len(self.runner.pool.workers)]
        if worker.state != READY:
            return
        # Only what kills its worker is to blame for the worker's own doing.
        doer = Doer.ANYBODY if doer is Doer.WORKER else doer
        alone = {row.request for number in self.runner.running(worker) for row in worker.in_flight[number].rows}
        if len(alone) == 1 and doer is Doer.ANYBODY:
            request = alone.pop()
            self.kills_alone[request.id] = self.kills_alone.get(request.id, 0) + 1
        self.runner.dies(worker, doer)

    @rule(which=st.integers(0, 2))
    def come_back(self, which):
        if self.runner is not None:
            worker = self.runner.pool.workers[which % len(self.runner.pool.workers)]
            if worker.state == WAITING:
                self.runner.come_back(worker)

    @rule(request=requests)
    def cancel(self, request):
        if request.future.cancel():
            self.runner.requests.cancel(request)
            self.runner.scheduler.dispatch(now_s())

    @invariant()
    def every_row_is_in_one_place(self):
        if self.runner is None:
            return
        held = {}
        for worker in self.runner.pool.workers:
            for batch in worker.in_flight.values():
                for row in batch.rows:
                    held.setdefault(row.request.id, []).append(row.row_index)
        for request, _ in self.runner.asked:
            assert request.over == request.future.done()
            if not request.over:
                answered = [number for number, outputs in enumerate(request.outputs) if outputs is not None]
                waiting = [0 if index == WHOLE_BATCH else index for index in request.waiting]
                sent = [0 if index == WHOLE_BATCH else index for index in held.get(request.id, [])]
                assert sorted(answered + waiting + sent) == sorted(request.asked)
        statistics = self.runner.statistics
        assert statistics.room.rows == sum(request.queued for request, _ in self.runner.asked)
        assert statistics.unread_rows == sum(request.unread for request, _ in self.runner.asked)

    @invariant()
    def a_suspect_is_alone_in_one_worker(self):
        if self.runner is None:
            return
        trials = 0
        for worker in self.runner.pool.workers:
            batches = list(worker.in_flight.values())
            assert len(batches) <= worker.concurrency + 1
            if any(batch.reason == SUSPECT for batch in batches):
                trials += 1
                assert len({row.request for batch in batches for row in batch.rows}) == 1
        assert trials <= 1

    @invariant()
    def no_worker_is_idle_for_nothing(self):
        """One that is idle has nothing to take: a suspect that waits is on its way to another, which finishes first."""
        if self.runner is None:
            return
        idle = [worker for worker in self.runner.pool.workers if worker.state == READY and not worker.in_flight]
        waiting = [request for request, _ in self.runner.asked if request.waiting]
        if idle:
            assert all(request.alone for request in waiting)
        if len(idle) == len(self.runner.pool.workers):
            assert not waiting

    def teardown(self):
        if self.runner is None:
            return
        self.runner.finish_all()
        assert len(self.runner.requests) == self.runner.statistics.room.rows == self.runner.statistics.unread_rows == 0
        for request, arrays in self.runner.asked:
            self.check(request, arrays)

    def check(self, request, arrays):
        if request.future.cancelled():
            return
        first_tokens = set(np.concatenate([np.atleast_2d(ids)[:, 0] for ids in arrays]))
        error = request.future.exception(0)
        if isinstance(error, PoisonRequest):
            killed = self.kills_alone.get(request.id, 0)
            assert KILLS in first_tokens or killed >= MAX_DEATHS[Doer.ANYBODY]
        elif isinstance(error, BackendFailed):
            assert RAISES in first_tokens
        else:
            assert error is None and first_tokens.isdisjoint({KILLS, RAISES})
            for row, (outputs, ids) in enumerate(zip(request.future.result(0), arrays)):
                wanted = wanted_of(request.id, row)
                if wanted is None:
                    assert np.array_equal(outputs["start_logits"], ids)
                else:
                    assert {name: tuple(kept) for name, kept in outputs.items()} == {"kept": wanted}


def test_a_block_is_counted_as_its_batches_come():
    runner, told = Runner(PLANS["dynamic"], workers=1, concurrency=2), []
    block = runner.submit([1] * 5, whole="block")
    block.told = told.append
    (worker,) = runner.pool.workers
    (number,) = worker.in_flight
    before = worker.in_flight[number].began
    runner.scheduler.take_step(worker, BlockStep(number, 4, 60, 200, 0.25, 0.5))
    runner.scheduler.take_step(worker, BlockStep(number, 3, 10, 30, 0.5, 1.0))
    assert worker.in_flight[number].began > before  # it is alive
    assert told == [0.5, 1.0]
    assert (worker.rows_done, worker.batches_done, worker.device_s) == (7, 2, 0.75)
    assert runner.statistics.snapshot()["padding"] == 1 - 230 / 270
    runner.scheduler.take_part(worker, BlockDone(number, "part"))
    assert block.future.result(0) == "part" and not worker.in_flight
    assert runner.statistics.snapshot()["rows"] == 7 and runner.statistics.batches["whole"] == 1


def test_blocks_that_fail_are_not_held_against_the_worker():
    """Each may have a line at fault; a device at fault is found by the batches that are tried after them."""
    runner = Runner(PLANS["dynamic"], workers=1, concurrency=1)
    failed = [runner.submit([1], RAISES, "block") for _ in range(MAX_FAILED_BATCHES + 1)]
    runner.finish_all()
    (worker,) = runner.pool.workers
    assert all(isinstance(request.future.exception(0), BackendFailed) for request in failed)
    assert worker.state == READY and worker.killed is None


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
