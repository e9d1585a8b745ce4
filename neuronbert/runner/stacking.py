"""Queued rows stacked to a batch for the model, and its result cut back into rows; ``scheduler`` calls it."""

import itertools
from typing import Optional, Sequence, Union

import numpy as np

from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import Outputs, row_of
from neuronbert.engine.batches import collate
from neuronbert.runner.batching import Batcher, BatchInFlight, BatchSize, QueuedRow
from neuronbert.runner.blocks import Block
from neuronbert.runner.messages import BatchOrder, BlockOrder
from neuronbert.runner.requests import WHOLE_BATCH, Trip
from neuronbert.runner.settings import RowFormat


def order_of(number: int, rows: Sequence[QueuedRow], pad_id: int) -> Union[BatchOrder, BlockOrder]:
    """What a worker is sent for ``rows``: a batch of them, or what their request has to go as it is."""
    if rows[0].row_index != WHOLE_BATCH:
        return BatchOrder(number, stack_rows(rows, pad_id), _wanted(rows))
    whole = rows[0].request.whole
    assert whole is not None
    return BlockOrder(number, whole) if isinstance(whole, Block) else BatchOrder(number, whole)


def stack_rows(rows: Sequence[QueuedRow], pad_id: int) -> Batch:
    """One batch of ``rows``, padded to the longest."""
    model_rows = [row.request.rows[row.row_index] for row in rows]
    batch = collate(model_rows, pad_id)
    for number, row in enumerate(model_rows):
        if row.attention_mask is not None:
            batch.attention_mask[number, : len(row.attention_mask)] = row.attention_mask
    return batch


def _wanted(rows: Sequence[QueuedRow]) -> Optional[np.ndarray]:
    """As BatchOrder has it."""
    wanted = [(number, row.request.rows[row.row_index].wanted) for number, row in enumerate(rows)]
    numbers = [(number, *own) for number, own in wanted if own is not None]
    return np.array(numbers, dtype=np.int64) if numbers else None


def measure_batch(batch: Batch, rows: Sequence[QueuedRow], queue: Batcher) -> BatchSize:
    """The size of ``batch``, stacked from ``rows`` of ``queue``; static shapes compute whole buckets."""
    whole = rows[0].row_index == WHOLE_BATCH
    tokens = int(batch.attention_mask.sum()) if whole else sum(row.length for row in rows)
    row_count, width = batch.input_ids.shape
    return size_of(row_count, width, tokens, queue)


def size_of(row_count: int, width: int, tokens: int, queue: Batcher) -> BatchSize:
    """The size of a batch of so many rows as wide as that, with so many tokens that count."""
    computed_rows = row_count
    if queue.plan.lengths:
        width = queue.class_of(width)
        computed_rows = -(-row_count // queue.plan.rows) * queue.plan.rows
    return BatchSize(row_count, max(queue.capacity(width), row_count), tokens, computed_rows * width)


def hand_out(outputs: Outputs, row_format: RowFormat, batch: BatchInFlight, trip: Trip) -> None:
    """Give each request that is still open its rows of a batch's ``outputs``, and note the trip.

    Of a row what was wanted, or else all of it, un-padded.
    """
    reduced, places = set(batch.reduced_rows), (itertools.count(), itertools.count())
    for number, row in enumerate(batch.rows):
        request = row.request
        is_reduced = number in reduced
        place = next(places[is_reduced])
        if request.over:
            continue
        if row.row_index == WHOLE_BATCH:
            request.outputs = [outputs]
        else:
            specs = row_format.reduced if is_reduced else row_format.outputs
            request.outputs[row.row_index] = row_of(outputs, specs, place, row.length)
        if not request.trips or request.trips[-1] is not trip:
            request.trips.append(trip)
