import numpy as np

from neuronbert.runner.batching import FULL, BatchInFlight, BatchSize, QueuedRow
from neuronbert.runner.losses import losses
from neuronbert.runner.requests import Request, Row


def request(number, rows=1):
    return Request(number, [Row(np.arange(4), np.zeros(4, np.int64))] * rows, len, submitted=0.0)


def batch(*rows):
    return BatchInFlight(1, [QueuedRow(asked, index, 4) for asked, index in rows], BatchSize(1, 8, 4, 4), FULL, 0.0)


def told(found):
    return [(loss.request.id, loss.rows, loss.is_suspect, loss.was_alone) for loss in found]


def test_a_request_loses_a_worker_once_however_many_of_its_batches_that_held():
    document = request(1, rows=3)
    found = losses([batch((document, 0), (document, 1)), batch((document, 2))], begun=2)
    assert told(found) == [(1, [0, 1, 2], True, True)]


def test_only_what_had_begun_is_suspected():
    first, behind = request(1), request(2)
    assert told(losses([batch((first, 0)), batch((behind, 0))], begun=1)) == [
        (1, [0], True, True),
        (2, [0], False, False),
    ]


def test_with_others_beside_it_nobody_was_alone():
    one, other = request(1), request(2)
    found = losses([batch((one, 0), (other, 0))], begun=1)
    assert told(found) == [(1, [0], True, False), (2, [0], True, False)]
    assert told(losses([batch((one, 0)), batch((other, 0))], begun=2)) == told(found)


def test_one_that_nobody_waits_for_may_have_been_the_one():
    kept, cancelled = request(1), request(2)
    cancelled.over = True
    assert told(losses([batch((kept, 0), (cancelled, 0))], begun=1)) == [(1, [0], True, False)]


def test_where_nothing_is_suspected_rows_only_come_back():
    asked = request(1)
    assert told(losses([batch((asked, 0))], begun=0)) == [(1, [0], False, False)]
