import json

import pytest

from neuronbert.runner.counters import RoundTrip, Statistics
from neuronbert.runner.room import Ticket


def test_the_predicted_wait_is_the_queue_at_the_pace_of_a_backlog():
    statistics = Statistics(max_queue=100)
    assert statistics.predicted_wait_s() is None
    for number in range(200):
        statistics.batch_done(number * 0.01, rows=5, device_s=0.02, backlog=True)
    statistics.room.enter(Ticket(50))
    assert statistics.predicted_wait_s() == pytest.approx(50 * 0.01 / 5, rel=0.01)


def test_a_pause_without_work_is_no_pace():
    statistics = Statistics(max_queue=100)
    for number in range(100):
        statistics.batch_done(number * 10.0, rows=1, device_s=0.02, backlog=False)
    statistics.room.enter(Ticket(1))
    assert statistics.predicted_wait_s() == pytest.approx(0.02)


def test_the_time_without_a_worker_is_no_pace_but_many_slow_batches_are():
    statistics = Statistics(max_queue=1000)
    now = 0.0

    def done(after_s):
        nonlocal now
        now += after_s
        statistics.batch_done(now, rows=10, device_s=0.01, backlog=True)

    for _ in range(100):
        done(0.01)
    statistics.room.enter(Ticket(100))
    done(30.0)  # the only worker had died
    assert statistics.predicted_wait_s() < 0.15
    assert not statistics.would_be_late(1.0)
    for _ in range(60):
        done(30.0)
    assert statistics.predicted_wait_s() == pytest.approx(300, rel=0.1)


def test_a_signal_handler_may_ask_while_its_thread_does():
    """It is called in the thread that it interrupts, which may hold the lock."""
    statistics = Statistics(max_queue=10)
    with statistics._lock:
        statistics.refused()
    assert statistics.counts["refused"] == 1


def test_a_round_trip_is_what_most_stay_within():
    trip = RoundTrip()
    assert trip.expected_s == 0.0
    for _ in range(100):
        trip.add(0.1)
    assert trip.expected_s == pytest.approx(0.1 * 1.05)
    for number in range(100):
        trip.add(0.1 + 0.004 * (number % 2))
    assert trip.expected_s == pytest.approx(0.102 + 4 * 0.002, rel=0.01)
    for number in range(100):
        trip.add(0.02 + 0.18 * (number % 2))
    assert 0.11 < trip.expected_s < 0.16


def test_one_very_long_round_trip_is_soon_forgotten():
    trip = RoundTrip()
    for measured_s in [0.1] * 50 + [20.0] + [0.1] * 10:
        trip.add(measured_s)
    assert trip.expected_s < 0.15
    for _ in range(30):
        trip.add(20.0)  # this many are a new pace
    assert trip.expected_s > 15


def test_late_is_what_has_a_queue_before_it_that_is_too_long():
    statistics = Statistics(max_queue=100)
    for number in range(200):
        statistics.batch_done(number * 0.01, rows=5, device_s=0.02, backlog=True)
        statistics.round_trip.add(0.03)
    assert not statistics.would_be_late(0.001)  # nothing waits: only trying tells
    statistics.room.enter(Ticket(50))
    assert statistics.would_be_late(0.12) and not statistics.would_be_late(0.14)
    assert statistics.would_be_late(0.14, rows=10)  # its last row has the others before it


def test_a_snapshot_is_json():
    statistics = Statistics(max_queue=10)
    assert json.loads(json.dumps(statistics.snapshot()))["fill"] is None
    statistics.left_queue("full")
    statistics.rows_sent(rows=6, capacity=8, tokens=300, computed_tokens=400)
    for latency in (0.1, 0.2, 0.3):
        statistics.request_done(latency)
    snapshot = json.loads(json.dumps(statistics.snapshot()))
    assert (snapshot["fill"], snapshot["padding"]) == (0.75, 0.25)
    assert snapshot["requests"]["completed"] == 3
    assert snapshot["latency_ms"]["p50"] == pytest.approx(200)
