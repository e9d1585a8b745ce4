import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.runner.batching import (
    FULL,
    IDLE,
    MOST_STALE,
    SHORTEST_BESIDE,
    SUSPECT,
    WAITED,
    WHOLE,
    Batcher,
    BatchSize,
    adaptive_wait_s,
)
from neuronbert.runner.requests import WHOLE_BATCH, Request, Row

DYNAMIC = ThroughputPlan(streams=2, rows=8, tokens=2048)
BUCKETS = ThroughputPlan(streams=2, rows=6, tokens=6 * 384, lengths=(128, 384))


def request(number, *lengths, since=0.0, alone=False):
    rows = [Row(np.arange(length), np.zeros(length, np.int64)) for length in lengths]
    return Request(number, rows, len, submitted=0.0, since=since, alone=alone)


def whole(number, rows=8, tokens=16, since=0.0):
    array = np.ones((rows, tokens), np.int64)
    return Request(number, (), len, submitted=0.0, since=since, whole=Batch(array, array, array))


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
    batcher, asked = Batcher(plan), []
    for number, lengths in enumerate(requests):
        asked.append(request(number, *lengths, since=float(number)))
        batcher.add(asked[-1])
    left = drained(batcher)
    seen = sorted((row.request.id, row.row_index) for batch in left for row in batch.rows)
    assert seen == [(number, row) for number, lengths in enumerate(requests) for row in range(len(lengths))]
    assert not any(one.waiting for one in asked)
    for batch in left:
        longest = max(row.length for row in batch.rows)
        assert len(batch.rows) <= plan.rows
        assert len(batch.rows) == 1 or len(batch.rows) * batcher.class_of(longest) <= plan.tokens


@given(st.lists(st.integers(1, 384), min_size=1, max_size=60))
def test_little_is_padded_where_shapes_are_dynamic(lengths):
    batcher = Batcher(DYNAMIC)
    for number, length in enumerate(lengths):
        batcher.add(request(number, length))
    for batch in drained(batcher):
        own = [row.length for row in batch.rows]
        assert min(own) >= SHORTEST_BESIDE * max(own) * (7 / 8) or max(own) <= 16


@given(st.lists(st.integers(1, 384), min_size=1, max_size=60))
def test_a_batch_has_windows_of_one_bucket_only(lengths):
    batcher = Batcher(BUCKETS)
    for number, length in enumerate(lengths):
        batcher.add(request(number, length))
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
        batcher.add(request(number, 100))
    full = batcher.take(0.0, idle=False, wait_s=1.0)
    assert (full.reason, [row.request.id for row in full.rows]) == (FULL, [0, 1, 2, 3, 4, 5])
    assert batcher.take(0.5, idle=False, wait_s=1.0) is None
    assert batcher.due_in(0.25, wait_s=1.0) == pytest.approx(0.75)
    assert batcher.take(1.0, idle=False, wait_s=1.0).reason == WAITED
    assert batcher.due_in(1.0, wait_s=1.0) is None


def test_an_idle_worker_takes_what_there_is():
    batcher = Batcher(BUCKETS)
    batcher.add(request(1, 100))
    assert batcher.take(0.0, idle=True, wait_s=1.0).reason == IDLE


def test_the_oldest_class_goes_first():
    batcher = Batcher(BUCKETS)
    batcher.add(request(1, 300))
    batcher.add(request(2, 100, since=0.1))
    assert [row.request.id for row in batcher.take(0.2, idle=True, wait_s=1.0).rows] == [1]


def test_rows_that_came_to_no_result_have_their_old_place():
    batcher = Batcher(BUCKETS)
    first, second, third = request(1, 100, since=1.0), request(2, 100, 101, since=2.0), request(3, 100, since=3.0)
    for asked in (first, second, third):
        batcher.add(asked)
    assert [row.request.id for row in batcher.take(4.0, idle=True, wait_s=0.0).rows] == [1, 2, 2, 3]
    batcher.add(request(4, 100, since=4.0))
    batcher.add_again(third, [0])
    batcher.add_again(second, [0, 1])
    batcher.add_again(first, [0])
    rows = batcher.take(5.0, idle=True, wait_s=0.0).rows
    assert [(row.request.id, row.row_index) for row in rows] == [(1, 0), (2, 0), (2, 1), (3, 0), (4, 0)]


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=12), st.data())
def test_a_class_is_first_come_first_served_whatever_comes_back(requests, data):
    batcher = Batcher(BUCKETS)
    for number, (rows, is_whole) in enumerate(requests):
        batcher.add(whole(number, rows, since=number) if is_whole else request(number, *[100] * rows, since=number))
    for _ in range(data.draw(st.integers(0, 4))):
        batch = batcher.take(100.0, idle=True, wait_s=0.0)
        if batch is not None and data.draw(st.booleans()):
            for asked in data.draw(st.permutations(sorted({row.request.id for row in batch.rows}))):
                rows = [row for row in batch.rows if row.request.id == asked]
                batcher.add_again(rows[0].request, [row.row_index for row in rows])
    left = drained(batcher)
    for is_whole in (False, True):
        came = [row.request.since for batch in left if (batch.reason == WHOLE) is is_whole for row in batch.rows]
        assert came == sorted(came)


def test_what_waits_is_told_for_each_request():
    batcher = Batcher(BUCKETS)
    asker, together = request(1, 384, 384, 100), whole(2, rows=5, since=1.0)
    batcher.add(asker)
    batcher.add(together)
    assert (asker.queued, together.queued) == (3, 5)
    gone = batcher.take(1.0, idle=True, wait_s=0.0)
    assert (gone.row_count, asker.waiting) == (2, {2})
    batcher.add_again(asker, [row.row_index for row in gone.rows])
    assert asker.queued == 3
    assert sum(batch.row_count for batch in drained(batcher)) == 3 + 5
    assert asker.queued == together.queued == 0


def test_a_suspect_leaves_in_batches_of_its_own():
    batcher = Batcher(BUCKETS)
    suspect = request(1, *[100] * 8, alone=True)
    batcher.add_again(suspect, range(8))
    batcher.add(request(2, 100, since=1.0))
    assert batcher.next_suspect() is suspect
    first, second = batcher.take_suspect(suspect), batcher.take_suspect(suspect)
    assert [(batch.reason, batch.row_count) for batch in (first, second)] == [(SUSPECT, 6), (SUSPECT, 2)]
    assert batcher.take_suspect(suspect) is None and batcher.next_suspect() is None
    assert [row.request.id for row in batcher.take(0.0, idle=True, wait_s=1.0).rows] == [2]


def test_a_whole_batch_can_be_suspect():
    batcher = Batcher(BUCKETS)
    suspect = whole(1, rows=4)
    suspect.alone = True
    batcher.add_again(suspect, [WHOLE_BATCH])
    assert batcher.take(9.0, idle=True, wait_s=0.0) is None
    batch = batcher.take_suspect(batcher.next_suspect())
    assert (batch.reason, batch.row_count, batch.rows[0].row_index) == (SUSPECT, 4, WHOLE_BATCH)


def test_rows_that_wait_with_others_are_left_to_the_trial_once_their_request_is_suspect():
    batcher = Batcher(BUCKETS)
    asked = request(1, *[100] * 8)
    batcher.add(asked)
    sent = batcher.take(0.0, idle=True, wait_s=0.0)
    asked.alone = True
    batcher.add_again(asked, [row.row_index for row in sent.rows])
    assert batcher.take(9.0, idle=True, wait_s=0.0) is None
    assert sorted(row.row_index for _ in range(2) for row in batcher.take_suspect(asked).rows) == list(range(8))


@pytest.mark.parametrize("make", [request, whole])
def test_suspects_and_others_take_turns_by_when_they_came(make):
    batcher = Batcher(DYNAMIC)
    early, late = request(1, 16, since=1.0, alone=True), request(2, 16, since=3.0, alone=True)
    batcher.add_again(late, [0])
    batcher.add_again(early, [0])
    batcher.add(make(3, 16, since=2.0))
    assert batcher.next_suspect() is early
    batcher.take_suspect(early)
    assert batcher.next_suspect() is None  # not yet: the other came before it
    assert batcher.take(4.0, idle=True, wait_s=0.0).rows[0].request.id == 3
    assert batcher.next_suspect() is late
    batcher.drop(late)
    assert batcher.next_suspect() is None


def test_a_whole_batch_takes_its_turn_and_nothing_beside_it():
    batcher = Batcher(DYNAMIC)
    batcher.add(request(1, 16))
    batcher.add(whole(2, since=1.0))
    batcher.add(request(3, 16, since=2.0))
    reasons = [(batch.reason, [row.request.id for row in batch.rows]) for batch in drained(batcher)]
    assert reasons == [(WAITED, [1, 3]), (WHOLE, [2])]


def test_what_is_over_is_passed_over():
    batcher = Batcher(DYNAMIC)
    cancelled, kept = request(1, 16, 16), request(2, 16)
    for asked in (cancelled, kept, whole(3)):
        batcher.add(asked)
    cancelled.over = True
    batcher.drop(cancelled)
    assert not cancelled.waiting
    assert [row.request.id for batch in drained(batcher) for row in batch.rows] == [3, 2]


def test_the_wait_follows_the_service_time():
    assert adaptive_wait_s(0.005, None) == 0.005
    assert adaptive_wait_s(0.005, 0.004) == 0.002
    assert adaptive_wait_s(0.005, 1.0) == 0.005


def test_fill_and_padding():
    assert BatchSize(3, 6, 1, 1).fill == 0.5
    assert BatchSize(2, 6, 64 + 64, 6 * 128).padding == pytest.approx(1 - 128 / (6 * 128))
    assert BatchSize(0, 1, 0, 0).padding == 0.0


def test_what_comes_and_goes_while_nothing_is_taken_does_not_stay():
    batcher = Batcher(DYNAMIC)
    first = [request(number, 20) for number in range(10)] + [whole(10)]
    for each in first:
        batcher.add(each)
    for number in range(100, 20_000):
        gone = whole(number) if number % 2 else request(number, 20, 30)
        batcher.add(gone)
        gone.over = True
        batcher.drop(gone)
    assert batcher._standing() < 3 * MOST_STALE
    assert {row.request for batch in drained(batcher) for row in batch.rows} == set(first)
