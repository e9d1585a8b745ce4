import numpy as np
from logits import logits

from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import PER_ROW, Output
from neuronbert.runner.batching import Batcher, BatchInFlight, BatchSize, QueuedRow
from neuronbert.runner.requests import WHOLE_BATCH, Request, Row, Trip
from neuronbert.runner.settings import RowFormat
from neuronbert.runner.stacking import hand_out, measure_batch, order_of, stack_rows
from neuronbert.tasks.question_answering.task import OUTPUTS

FORMAT = RowFormat(0, OUTPUTS, [Output("kept", PER_ROW)])
TRIP = Trip(0, "CPU", "full", 2, 1.0, 0.0, 0.0, 1.0, 0.5)


def request(*lengths):
    rows = [Row(np.arange(1, length + 1), np.ones(length, np.int64)) for length in lengths]
    return Request(1, rows, len, submitted=0.0)


def queued(asked, *indices):
    return [QueuedRow(asked, index, len(asked.rows[index].input_ids)) for index in indices]


def batch_of(rows, reduced_rows=()):
    return BatchInFlight(1, rows, BatchSize(len(rows), len(rows), 0, 0), "full", 0.0, reduced_rows=reduced_rows)


def whole(rows, tokens):
    array = np.ones((rows, tokens), np.int64)
    return Request(2, (), len, submitted=0.0, whole=Batch(array, array, array))


def test_rows_are_padded_to_the_longest():
    batch = stack_rows(queued(request(2, 3), 0, 1), pad_id=9)
    assert batch.input_ids.tolist() == [[1, 2, 9], [1, 2, 3]]
    assert batch.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.token_type_ids.tolist() == [[1, 1, 0], [1, 1, 1]]


def test_a_result_goes_back_to_its_rows_without_the_padding():
    first, second = request(2, 3), request(4)
    outputs = logits(np.arange(12.0).reshape(3, 4), -np.arange(12.0).reshape(3, 4))
    hand_out(outputs, FORMAT, batch_of(queued(first, 1) + queued(second, 0) + queued(first, 0)), TRIP)
    assert [row["start_logits"].tolist() for row in first.outputs] == [[8, 9], [0, 1, 2]]
    assert [row["end_logits"].tolist() for row in second.outputs] == [[-4, -5, -6, -7]]
    assert first.trips == [TRIP]


def test_a_request_with_an_outcome_gets_nothing_more():
    gone = request(2)
    gone.over = True
    hand_out(logits(np.ones((1, 2)), np.ones((1, 2))), FORMAT, batch_of(queued(gone, 0)), TRIP)
    assert (gone.outputs, gone.trips) == ([None], [])


def test_a_whole_batch_goes_and_comes_back_as_it_is():
    asked = whole(2, 5)
    rows = [QueuedRow(asked, WHOLE_BATCH, 5)]
    order = order_of(7, rows, pad_id=0)
    assert order.number == 7 and order.batch is asked.whole
    outputs = logits(np.ones((2, 5)), np.ones((2, 5)))
    hand_out(outputs, FORMAT, batch_of(rows), TRIP)
    assert asked.outputs[0] is outputs


def little_wanted(*wanted):
    return Request(1, [Row(np.ones(2, np.int64), np.ones(2, np.int64), wanted=own) for own in wanted], len, 0.0)


def test_an_order_says_what_is_wanted_of_which_rows():
    little = little_wanted((7, 8), (9, 10))
    order = order_of(1, queued(little, 1) + queued(request(2), 0) + queued(little, 0), pad_id=0)
    assert order.wanted.tolist() == [[0, 9, 10], [2, 7, 8]] and order.wanted.dtype == np.int64
    assert order_of(2, queued(request(2), 0), pad_id=0).wanted is None
    assert order_of(3, [QueuedRow(whole(1, 2), WHOLE_BATCH, 2)], pad_id=0).wanted is None


def test_a_row_of_which_little_is_wanted_gets_that():
    little, all_of_it = little_wanted((7,), (8,)), request(2)
    batch = batch_of(queued(little, 1) + queued(all_of_it, 0) + queued(little, 0), reduced_rows=[0, 2])
    arrays = logits(np.array([[3.0, 4.0, 5.0]]), np.zeros((1, 3)))  # of the row in the middle
    hand_out({**arrays, "kept": np.array([[8], [7]])}, FORMAT, batch, TRIP)
    assert [{name: row.tolist() for name, row in one.items()} for one in little.outputs] == [
        {"kept": [7]},
        {"kept": [8]},
    ]
    assert all_of_it.outputs[0]["start_logits"].tolist() == [3, 4]


def test_where_shapes_are_static_whole_buckets_are_computed():
    queue = Batcher(ThroughputPlan(streams=1, rows=4, tokens=4 * 128, lengths=(128, 384)))
    rows = queued(request(100, 28), 0, 1)
    size = measure_batch(stack_rows(rows, pad_id=0), rows, queue)
    assert (size.row_count, size.capacity, size.tokens, size.computed_tokens) == (2, 4, 128, 4 * 128)
    assert (size.fill, size.padding) == (0.5, 0.75)
