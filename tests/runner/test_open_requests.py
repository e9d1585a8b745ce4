import numpy as np
import pytest
from logits import logits

from neuronbert.backends.base import ThroughputPlan
from neuronbert.errors import DeadlineExceeded, PoisonRequest, RunnerClosed
from neuronbert.runner.batching import Batcher, BatchInFlight, BatchSize
from neuronbert.runner.counters import Statistics
from neuronbert.runner.decoding import Order
from neuronbert.runner.open_requests import OpenRequests
from neuronbert.runner.requests import Request, Row, now_s
from neuronbert.runner.room import Ticket
from neuronbert.runner.suspicion import MAX_DEATHS, Doer


@pytest.fixture()
def statistics():
    return Statistics(max_queue=100)


class LateDecoder:
    """Makes a result when it is told to."""

    def __init__(self):
        self.orders = []

    def begin(self, request):
        self.orders.append(Order.of(request))


@pytest.fixture()
def decoder():
    return LateDecoder()


@pytest.fixture()
def requests(statistics, decoder):
    requests = OpenRequests(statistics, lambda event, **facts: None, decoder)
    requests.queue = Batcher(ThroughputPlan(streams=1, rows=8, tokens=2048))
    return requests


def asked(number, finish=len, rows=1, **more):
    request = Request(number, [Row(np.arange(8), np.zeros(8, np.int64))] * rows, finish, submitted=now_s(), **more)
    request.accepted = request.since = now_s()
    return request


def let_in(requests, *new):
    """As admission does."""
    for request in new:
        assert requests._statistics.room.enter(Ticket(request.size))
        requests.accept(request)


def sent(requests):
    suspect = requests.queue.next_suspect()
    batch = requests.queue.take(now_s(), True, 0.0) if suspect is None else requests.queue.take_suspect(suspect)
    requests.left_queue(batch)
    return BatchInFlight(1, batch.rows, BatchSize(len(batch.rows), 8, 8, 8), batch.reason, 0.0)


def test_a_finished_request_is_gone(requests):
    request = asked(1)
    let_in(requests, request)
    sent(requests)
    request.outputs = [logits(np.ones(8), np.ones(8))]
    requests.finish(request)
    requests.fail(request, RunnerClosed("too late"))
    assert (request.future.result(0), len(requests)) == (1, 0)


def test_what_a_result_cannot_be_made_of_fails(requests):
    request = asked(1, finish=lambda logits: 1 / 0)
    let_in(requests, request)
    requests.finish(request)
    assert isinstance(request.future.exception(0), ZeroDivisionError)


def test_one_that_had_not_begun_is_not_suspected(requests, statistics):
    running, behind = asked(1), asked(2)
    let_in(requests, running)
    first = sent(requests)
    let_in(requests, behind)
    requests.lost([first, sent(requests)], 1, Doer.ANYBODY)
    assert (running.deaths, running.alone, behind.deaths, behind.alone) == (1, True, 0, False)
    assert statistics.room.rows == len(requests) == 2


def test_what_kills_two_workers_by_itself_is_poison(requests):
    request = asked(1)
    let_in(requests, request)
    for _ in range(2):
        assert not request.over
        requests.lost([sent(requests)], 1, Doer.WORKER)
    with pytest.raises(PoisonRequest):
        request.future.result(0)


def test_deaths_beside_others_prove_nothing(requests):
    one, other = asked(1), asked(2)
    let_in(requests, one, other)
    requests.lost([sent(requests)], 1, Doer.WORKER)
    requests.lost([sent(requests)], 1, Doer.WORKER)  # of the first one alone
    assert [request.deaths for request in (one, other)] == [2, 1]
    assert not one.over and not other.over
    # It is at the end of the line, so that it does not keep the other waiting.
    assert [requests.queue.take_suspect(requests.queue.next_suspect()).rows[0].request.id for _ in range(2)] == [2, 1]


def test_one_worker_that_held_several_batches_of_a_document_died_once(requests):
    document = asked(1, rows=20)
    let_in(requests, document)
    requests.lost([sent(requests), sent(requests)], 2, Doer.WORKER)
    assert (document.deaths, document.over, document.queued) == (1, False, 20)


def test_kills_from_outside_refuse_nobody(requests):
    request = asked(1)
    let_in(requests, request)
    for _ in range(MAX_DEATHS[Doer.ANYBODY] - 1):
        requests.lost([sent(requests)], 1, Doer.ANYBODY)
    assert not request.over
    requests.lost([sent(requests)], 1, Doer.RUNNER)
    assert not request.over
    requests.lost([sent(requests)], 1, Doer.ANYBODY)  # for ever is no outcome
    assert isinstance(request.future.exception(0), PoisonRequest)


def test_every_row_that_waits_is_counted(requests, statistics):
    document = asked(1, rows=40)
    let_in(requests, document)
    batches = [sent(requests), sent(requests)]
    assert statistics.snapshot()["queue"]["rows"] == document.queued == 24
    requests.lost(batches, 1, Doer.WORKER)
    assert statistics.snapshot()["queue"]["rows"] == document.queued == 40
    requests.fail(document, RunnerClosed("closed"))
    assert statistics.snapshot()["queue"]["rows"] == 0


def test_only_what_waits_is_dropped_for_its_deadline(requests):
    on_its_way, partly, waiting = asked(1, deadline=10.0), asked(2, rows=8, deadline=10.5), asked(3, deadline=11.0)
    let_in(requests, on_its_way, partly)
    assert sent(requests).distinct_requests() == [on_its_way, partly]
    let_in(requests, waiting)
    assert requests.next_deadline == 10.0
    requests.expire(latest=12.0)
    assert not on_its_way.over
    for late in (partly, waiting):
        with pytest.raises(DeadlineExceeded):
            late.future.result(0)


def test_a_cancelled_request_leaves_the_queue(requests, statistics):
    request = asked(1)
    assert request.future.cancel()
    let_in(requests, request)
    assert (len(requests), statistics.room.rows, request.over) == (0, 0, True)


def test_what_is_slow_to_decode_keeps_nobody_waiting(requests, statistics, decoder):
    slow, behind, given_up = (asked(number, rows=3, is_slow_to_decode=True) for number in (1, 2, 3))
    quick = asked(4)
    for request in (slow, behind, given_up, quick):
        let_in(requests, request)
        sent(requests)
        request.outputs = [logits(np.ones(8), np.ones(8))] * len(request.rows)
        requests.finish(request)
    assert quick.future.result(0) == 1
    assert [order.request for order in decoder.orders] == [slow]
    assert (len(requests), statistics.room.rows) == (3, behind.size + given_up.size)
    requests.fail(given_up, RunnerClosed("given up"))
    assert statistics.room.rows == behind.size
    requests.decoded(decoder.orders[0].decoded())
    assert slow.future.result(0) == 3
    assert [order.request for order in decoder.orders] == [slow, behind]
    assert statistics.room.rows == 0
    requests.decoded(decoder.orders[1].decoded())
    assert behind.future.result(0) == 3
    assert (len(requests), len(decoder.orders)) == (0, 2)


def test_what_failed_while_it_was_decoded_has_its_outcome(requests, decoder):
    request = asked(1, is_slow_to_decode=True)
    let_in(requests, request)
    sent(requests)
    requests.finish(request)
    requests.fail_all(RunnerClosed("closed"))
    requests.decoded(decoder.orders[0].decoded())
    assert isinstance(request.future.exception(0), RunnerClosed)


def test_what_cannot_be_decoded_fails_and_the_next_is_begun(requests, decoder):
    broken, behind = asked(1, finish=lambda logits: 1 / 0, is_slow_to_decode=True), asked(2, is_slow_to_decode=True)
    let_in(requests, broken, behind)
    sent(requests)
    for request in (broken, behind):
        requests.finish(request)
    requests.decoded(decoder.orders[0].decoded())
    assert isinstance(broken.future.exception(0), ZeroDivisionError)
    assert [order.request for order in decoder.orders] == [broken, behind]
