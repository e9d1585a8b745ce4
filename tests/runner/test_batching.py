import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.runner.batching import (
    FULL,
    IDLE,
    SHORTEST_BESIDE,
    SUSPECT,
    WAITED,
    WHOLE,
    Batcher,
    BatchSize,
    adaptive_wait_s,
)
from neuronbert.runner.requests import Request, Row

DYNAMIC = ThroughputPlan(streams=2, rows=8, tokens=2048)
BUCKETS = ThroughputPlan(streams=2, rows=6, tokens=6 * 384, lengths=(128, 384))


def request(number, *lengths):
    rows = [Row(np.arange(length), np.zeros(length, np.int64)) for length in lengths]
    return Request(number, rows, len, submitted=0.0)


def whole(number, rows=8, tokens=16):
    array = np.ones((rows, tokens), np.int64)
    return Request(number, (), len, submitted=0.0, batch=Batch(array, array, array))


def drained(batcher, now=100.0):
    batches = []
    while True:
        batch = batcher.take(now, idle=True, wait_s=0.0)
        if batch is None:
            return batches
        batches.append(batch)


@given(
    st.lists(st.lists(st.integers(1, 384), min_size=1, max_size=5), min_size=1, max_size=30),
    st.sampled_from([DYNAMIC, BUCKETS]),
)
def test_every_row_leaves_exactly_once_and_no_batch_is_too_large(requests, plan):
    batcher = Batcher(plan)
    for number, lengths in enumerate(requests):
        batcher.add(request(number, *lengths), now=float(number))
    assert batcher.rows == sum(map(len, requests))
    left = drained(batcher)
    seen = sorted((row.request.id, row.row_index) for batch in left for row in batch.rows)
    assert seen == [(number, row) for number, lengths in enumerate(requests) for row in range(len(lengths))]
    assert batcher.rows == 0
    for batch in left:
        longest = max(row.length for row in batch.rows)
        assert len(batch.rows) <= plan.rows
        assert len(batch.rows) == 1 or len(batch.rows) * batcher.class_of(longest) <= plan.tokens


@given(st.lists(st.integers(1, 384), min_size=1, max_size=60))
def test_little_is_padded_where_shapes_are_dynamic(lengths):
    batcher = Batcher(DYNAMIC)
    for number, length in enumerate(lengths):
        batcher.add(request(number, length), now=0.0)
    for batch in drained(batcher):
        own = [row.length for row in batch.rows]
        assert min(own) >= SHORTEST_BESIDE * max(own) * (7 / 8) or max(own) <= 16


@given(st.lists(st.integers(1, 384), min_size=1, max_size=60))
def test_a_batch_has_windows_of_one_bucket_only(lengths):
    batcher = Batcher(BUCKETS)
    for number, length in enumerate(lengths):
        batcher.add(request(number, length), now=0.0)
    for batch in drained(batcher):
        assert len({row.length <= 128 for row in batch.rows}) == 1


@given(st.integers(1, 1024))
def test_a_class_holds_its_lengths(length):
    top = Batcher(DYNAMIC).class_of(length)
    assert length <= top <= max(length * 9 / 8, length + 1)
    assert Batcher(DYNAMIC).class_of(top) == top


def test_full_leaves_at_once_and_the_rest_waits():
    batcher = Batcher(BUCKETS)
    for number in range(7):
        batcher.add(request(number, 100), now=0.0)
    full = batcher.take(0.0, idle=False, wait_s=1.0)
    assert (full.reason, [row.request.id for row in full.rows]) == (FULL, [0, 1, 2, 3, 4, 5])
    assert batcher.take(0.5, idle=False, wait_s=1.0) is None
    assert batcher.due_in(0.25, wait_s=1.0) == pytest.approx(0.75)
    assert batcher.take(1.0, idle=False, wait_s=1.0).reason == WAITED
    assert batcher.due_in(1.0, wait_s=1.0) is None


def test_an_idle_worker_takes_what_there_is():
    batcher = Batcher(BUCKETS)
    batcher.add(request(1, 100), now=0.0)
    assert batcher.take(0.0, idle=True, wait_s=1.0).reason == IDLE


def test_the_oldest_class_goes_first():
    batcher = Batcher(BUCKETS)
    batcher.add(request(1, 300), now=0.0)
    batcher.add(request(2, 100), now=0.1)
    assert [row.request.id for row in batcher.take(0.2, idle=True, wait_s=1.0).rows] == [1]


def test_rows_of_a_dead_worker_go_to_the_front():
    batcher = Batcher(BUCKETS)
    again = request(1, 100, 101)
    batcher.add(request(2, 100), now=0.0)
    batcher.add(again, now=1.0, missing=[1])
    rows = batcher.take(2.0, idle=True, wait_s=1.0).rows
    assert [(row.request.id, row.row_index) for row in rows] == [(1, 1), (2, 0)]


def test_the_count_of_waiting_rows_survives_a_dead_worker():
    batcher = Batcher(BUCKETS)
    asker = request(1, 384, 384, 100)
    batcher.add(asker, now=0.0)
    gone = [row.row_index for row in batcher.take(1.0, idle=True, wait_s=0.0).rows]
    assert gone == [0, 1] and batcher.rows == 1
    batcher.add(asker, now=2.0, missing=gone)
    assert batcher.rows == asker.queued == 3
    assert sum(len(batch.rows) for batch in drained(batcher)) == 3
    assert batcher.rows == asker.queued == 0


def test_a_suspect_goes_alone_and_only_to_an_idle_worker():
    batcher = Batcher(BUCKETS)
    suspect = request(1, *[100] * 8)
    suspect.alone = True
    batcher.add(suspect, now=0.0)
    batcher.add(request(2, 100), now=0.0)
    assert batcher.take(0.0, idle=False, wait_s=1.0) is None
    first, second, third = (batcher.take(0.0, idle=True, wait_s=1.0) for _ in range(3))
    assert (first.reason, second.reason, third.reason) == (SUSPECT, SUSPECT, IDLE)
    assert [len(first.rows), len(second.rows)] == [6, 2]
    assert {row.request.id for row in first.rows + second.rows} == {1}


def test_a_whole_batch_takes_its_turn_and_nothing_beside_it():
    batcher = Batcher(DYNAMIC)
    batcher.add(request(1, 16), now=0.0)
    late = whole(2)
    late.accepted = 1.0
    batcher.add(late, now=1.0)
    batcher.add(request(3, 16), now=2.0)
    reasons = [(batch.reason, [row.request.id for row in batch.rows]) for batch in drained(batcher)]
    assert reasons == [(WAITED, [1, 3]), (WHOLE, [2])]


def test_what_is_over_is_passed_over():
    batcher = Batcher(DYNAMIC)
    cancelled, kept = request(1, 16, 16), request(2, 16)
    for asked in (cancelled, kept, whole(3)):
        batcher.add(asked, now=0.0)
    cancelled.over = True
    batcher.drop(cancelled)
    assert batcher.rows == 1 + 8
    assert [row.request.id for batch in drained(batcher) for row in batch.rows] == [3, 2]


def test_the_wait_follows_the_service_time():
    assert adaptive_wait_s(0.005, None) == 0.005
    assert adaptive_wait_s(0.005, 0.004) == 0.002
    assert adaptive_wait_s(0.005, 1.0) == 0.005


def test_fill_and_padding():
    assert BatchSize(3, 6, 1, 1).fill == 0.5
    assert BatchSize(2, 6, 64 + 64, 6 * 128).padding == pytest.approx(1 - 128 / (6 * 128))
    assert BatchSize(0, 1, 0, 0).padding == 0.0
