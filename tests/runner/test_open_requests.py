import numpy as np
import pytest
from logits import logits

from neuronbert.backends.base import ThroughputPlan
from neuronbert.errors import DeadlineExceeded, PoisonRequest, RunnerClosed
from neuronbert.runner.batching import Batcher, BatchInFlight, BatchSize
from neuronbert.runner.counters import Statistics
from neuronbert.runner.open_requests import OpenRequests
from neuronbert.runner.requests import Request, Row, now_s


@pytest.fixture()
def requests():
    requests = OpenRequests(Statistics(max_queue=100), lambda event, **facts: None)
    requests.queue = Batcher(ThroughputPlan(streams=1, rows=8, tokens=2048))
    return requests


def asked(number, finish=len, **more):
    return Request(number, [Row(np.arange(8), np.zeros(8, np.int64))], finish, submitted=now_s(), **more)


def sent(requests):
    batch = requests.queue.take(now_s(), idle=True, wait_s=0.0)
    return BatchInFlight(1, batch.rows, BatchSize(len(batch.rows), 8, 8, 8), batch.reason, 0.0)


def test_a_finished_request_is_gone(requests):
    request = asked(1)
    requests.accept(request)
    sent(requests)
    request.outputs = [logits(np.ones(8), np.ones(8))]
    requests.finish(request)
    requests.fail(request, RunnerClosed("too late"))
    assert (request.future.result(0), len(requests)) == (1, 0)


def test_what_a_result_cannot_be_made_of_fails(requests):
    request = asked(1, finish=lambda logits: 1 / 0)
    requests.accept(request)
    requests.finish(request)
    assert isinstance(request.future.exception(0), ZeroDivisionError)


def test_one_that_had_not_begun_is_not_suspected(requests):
    running, behind = asked(1), asked(2)
    requests.accept(running)
    first = sent(requests)
    requests.accept(behind)
    requests.lost([first, sent(requests)], running=1)
    assert (running.deaths, running.alone, behind.deaths, behind.alone) == (1, True, 0, False)
    assert requests.queue.rows == len(requests) == 2


def test_with_two_workers_dead_it_is_poison(requests):
    request = asked(1)
    requests.accept(request)
    for _ in range(2):
        requests.lost([sent(requests)], running=1)
    with pytest.raises(PoisonRequest):
        request.future.result(0)


def test_only_what_no_worker_has_is_dropped_for_its_deadline(requests):
    on_its_way, waiting = asked(1, deadline=10.0), asked(2, deadline=11.0)
    requests.accept(on_its_way)
    sent(requests)
    requests.accept(waiting)
    assert requests.next_deadline == 10.0
    requests.expire(latest=12.0)
    assert not on_its_way.over
    with pytest.raises(DeadlineExceeded):
        waiting.future.result(0)


def test_a_cancelled_request_leaves_the_queue(requests):
    request = asked(1)
    assert request.future.cancel()
    requests.accept(request)
    assert (len(requests), requests.queue.rows, request.over) == (0, 0, True)
