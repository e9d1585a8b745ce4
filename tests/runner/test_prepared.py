"""Several inputs as one, in two steps: ``prepare`` and ``submit_prepared``, on the real runner and the echo backend."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupts import each_interrupt
from processes import stopped, wait_until

from neuronbert import Engine, Runner
from neuronbert.errors import DeadlineExceeded, InputError, Overloaded, RunnerClosed, UsageError
from neuronbert.runner import Answered, Prepared
from neuronbert.runner.requests import Request, Row

ENCODED = np.array([[101, 2040, 102, 3958, 27227, 102], [101, 2043, 102, 1999, 3982, 102]])
SHORT = [("Who?", f"It was number {number}.") for number in range(8)]


@pytest.fixture(scope="module")
def runner(echo_artifact):
    with Runner(echo_artifact, workers=2) as runner:
        yield runner


@pytest.fixture()
def narrow(echo_artifact):
    """One worker that holds one batch, and few places."""
    with Runner(echo_artifact, workers=1, in_flight_per_group=1, max_queue=4, max_windows_per_request=4) as narrow:
        yield narrow


def refused(runner):
    return runner.stats()["requests"]["refused"]


def test_each_input_has_the_answer_that_it_has_alone(runner, texts, expected):
    prepared = runner.prepare(texts[:40])
    assert isinstance(prepared, Prepared)
    assert [future.result(30) for future in runner.submit_prepared(prepared)] == expected[:40]


def test_inputs_come_in_any_form_and_options_are_of_all(runner, texts, expected):
    question, context = texts[1]
    forms = [[question, context], {"question": question, "context": context}, (question, context)]
    futures = runner.submit_prepared(runner.prepare((form for form in forms), top_k=3))
    alone = runner.submit(question, context, top_k=3).result(30)
    assert len(alone) == 3 and [future.result(30) for future in futures] == [alone] * 3


def test_the_rows_are_the_windows_of_all(runner, echo_artifact, texts):
    with Engine(echo_artifact, threads=1) as engine:
        windows = sum(len(example.windows) for example in engine.encode(texts[:40]))
    assert windows > 40
    assert runner.prepare(texts[:40]).rows == windows
    assert runner.prepare(texts[:1]).rows == len(engine.encode(texts[:1])[0].windows)


def test_preparing_queues_nothing_and_no_inputs_are_none(runner):
    before = runner.stats()["requests"]["submitted"]
    prepared = runner.prepare(SHORT)
    assert (runner.stats()["queue"]["rows"], runner.stats()["requests"]["submitted"]) == (0, before)
    assert all(future.result(30) for future in runner.submit_prepared(prepared))
    assert runner.stats()["requests"]["submitted"] == before + len(SHORT)
    nothing = runner.prepare([])
    assert (nothing.rows, runner.submit_prepared(nothing)) == (0, [])


def test_rows_that_came_together_leave_together(echo_artifact):
    with Runner(echo_artifact, workers=1) as runner:
        futures = runner.submit_prepared(runner.prepare(SHORT[:3], breakdown=True))
        answered = [future.result(30) for future in futures]
    assert all(isinstance(each, Answered) for each in answered)
    assert [each.breakdown["rows"] for each in answered] == [3, 3, 3]


def test_all_of_them_are_let_in_or_none(narrow):
    with stopped(narrow):
        first = narrow.submit(*SHORT[0])
        wait_until(first.running)
        prepared = [narrow.prepare(SHORT[:rows]) for rows in (3, 4, 2)]
        asked = [*narrow.submit_prepared(prepared[0])]
        assert narrow.stats()["queue"]["rows"] == 3
        asked += narrow.submit_prepared(prepared[1])  # whole, as one place is free
        before = narrow.stats()["requests"]
        with pytest.raises(Overloaded, match="the queue is full: 7 of 4 rows wait"):
            narrow.submit_prepared(prepared[2])
        with pytest.raises(Overloaded, match="the queue is full"):
            narrow.prepare(SHORT[:2])
        after = narrow.stats()["requests"]
        assert (after["submitted"], after["refused"]) == (before["submitted"], before["refused"] + 2)
        assert narrow.stats()["queue"]["rows"] == 7
    assert all(future.result(30)["answer"] for future in [first, *asked])
    assert narrow.stats()["queue"]["rows"] == 0


def test_what_was_refused_keeps_no_place(narrow):
    with stopped(narrow):
        wait_until(narrow.submit(*SHORT[0]).running)
        prepared = [narrow.prepare(SHORT[:3]) for _ in range(9)]
        for each in prepared[:2]:
            narrow.submit_prepared(each)
        for each in prepared[2:]:
            with pytest.raises(Overloaded):
                narrow.submit_prepared(each)
    wait_until(lambda: narrow.stats()["queue"]["rows"] == 0)
    again = narrow.submit_prepared(prepared[2])  # nothing happened to it
    assert all(future.result(30)["answer"] for future in again)
    with pytest.raises(UsageError, match="these inputs were submitted before"):
        narrow.submit_prepared(prepared[2])


def test_with_wait_a_full_queue_refuses_nothing(narrow):
    with stopped(narrow):
        wait_until(narrow.submit(*SHORT[0]).running)
        assert narrow.has_room
        first = narrow.submit_prepared(narrow.prepare(SHORT[:4]))
        assert not narrow.has_room
        before = refused(narrow)
        prepared = narrow.prepare(SHORT[:2], wait=True)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(narrow.submit_prepared, prepared, wait=True)
            wait_until(lambda: bool(narrow._statistics.room._places.line))
            assert not waiting.done()
            for future in first:
                future.cancel()
            second = waiting.result(30)
        assert refused(narrow) == before
    assert all(future.result(30)["answer"] for future in second)


def test_cancelling_one_cancels_no_other(narrow):
    with stopped(narrow):
        wait_until(narrow.submit(*SHORT[0]).running)
        futures = narrow.submit_prepared(narrow.prepare(SHORT[:4]))
        assert futures[2].cancel()
        wait_until(lambda: narrow.stats()["queue"]["rows"] == 3)
        futures += narrow.submit_prepared(narrow.prepare(SHORT[4:6]))
    answers = [None if future.cancelled() else future.result(30) for future in futures]
    assert [answer is None for answer in answers] == [False, False, True, False, False, False]
    assert narrow.stats()["requests"]["cancelled"] == 1


@pytest.mark.parametrize("place", [0, 3, 31, 32, 39])
def test_the_first_input_at_fault_is_named_by_its_place(runner, place):
    inputs = [*SHORT * 5]
    inputs[place] = ("", "It was me.")
    inputs[39] = ("Who?", 5)
    error = "the context is of type int" if place == 39 else "`question` cannot be empty"
    with pytest.raises(InputError, match=rf"^inputs\[{place}\]: {error}"):
        runner.prepare(inputs)


def test_a_single_input_needs_no_place(runner):
    with pytest.raises(InputError, match="^`question` cannot be empty"):
        runner.prepare([("", "It was me.")])
    with pytest.raises(InputError, match="^'Who' is not a question with its context"):
        runner.prepare(["Who"])


@pytest.mark.parametrize("inputs", ["Who?", b"Who?", {"question": "Who?", "context": "It was me."}, 5, None])
def test_what_are_no_inputs(runner, inputs):
    with pytest.raises(InputError, match="^prepare takes several inputs, not "):
        runner.prepare(inputs)


def test_options_that_cannot_be(runner):
    with pytest.raises(UsageError, match="no keyword 'top_kk'"):
        runner.prepare(SHORT, top_kk=3)
    with pytest.raises(UsageError, match="timeout_s"):
        runner.prepare(SHORT, timeout_s=0)
    with pytest.raises(UsageError, match="breakdown"):
        runner.prepare(SHORT, breakdown="yes")
    with pytest.raises(UsageError, match="breakdown"):
        runner.prepare_encoded(ENCODED, breakdown="yes")


def test_the_limit_of_windows_is_of_the_sum(narrow):
    assert narrow.prepare(SHORT[:4]).rows == 4
    with pytest.raises(InputError, match=r"^these 5 inputs need more windows together than the runner takes: 4\n"):
        narrow.prepare(SHORT[:5])
    document = ("Who?", "word " * 4000)
    with pytest.raises(InputError, match=r"^this request needs \d+ windows, and the runner takes 4\n"):
        narrow.prepare([document])
    with pytest.raises(InputError, match=r"^inputs\[1\]: this request needs \d+ windows, and the runner takes 4\n"):
        narrow.prepare([SHORT[0], document])
    with pytest.raises(InputError, match=r"^this request needs 6 windows, and the runner takes 4\n"):
        narrow.prepare_encoded(np.concatenate([ENCODED] * 3))


def test_too_many_inputs_are_refused_before_all_are_tokenised(narrow, monkeypatch):
    seen = []
    encode = narrow._requests._requests_tokenizer.encode
    monkeypatch.setattr(
        narrow._requests._requests_tokenizer, "encode", lambda texts: seen.extend(texts) or encode(texts)
    )
    with pytest.raises(InputError, match="these 1000 inputs need more windows"):
        narrow.prepare([("Who?", f"It was number {number}.") for number in range(1000)])
    assert len(seen) < 50


def test_the_clock_starts_when_it_is_prepared(echo_artifact):
    with Runner(echo_artifact, workers=1) as runner:
        prepared = runner.prepare(SHORT[:3], timeout_s=0.01)
        in_time = runner.prepare(SHORT[:3], timeout_s=600)
        time.sleep(0.02)
        for future in runner.submit_prepared(prepared):
            with pytest.raises(DeadlineExceeded):
                future.result(30)
        assert runner.stats()["requests"]["expired"] == 3
        assert all(future.result(30) for future in runner.submit_prepared(in_time))


def test_what_could_only_be_late_is_asked_of_the_sum(runner, monkeypatch):
    asked = []

    def would_be_late(timeout_s, rows=1):
        asked.append((timeout_s, rows))
        return rows > 1

    monkeypatch.setattr(runner._statistics, "would_be_late", would_be_late)
    before = refused(runner)
    prepared = runner.prepare(SHORT, timeout_s=600)
    with pytest.raises(Overloaded, match="8 windows more are too many for timeout_s=600"):
        runner.submit_prepared(prepared)
    assert [rows for _, rows in asked] == [1, 8] and asked[1][0] < asked[0][0] == 600
    assert refused(runner) == before + 1


def test_it_is_submitted_once_and_where_it_was_prepared(runner, narrow):
    prepared = runner.prepare(SHORT[:3])
    with pytest.raises(UsageError, match="another runner prepared these inputs"):
        narrow.submit_prepared(prepared)
    assert all(future.result(30) for future in runner.submit_prepared(prepared))
    with pytest.raises(UsageError, match="these inputs were submitted before"):
        runner.submit_prepared(prepared)
    with pytest.raises(UsageError, match="submit_prepared takes what prepare gave, not"):
        runner.submit_prepared(SHORT)


def test_of_many_threads_that_submit_it_one_does(runner):
    prepared, start = runner.prepare(SHORT), threading.Barrier(8)

    def submit(_):
        start.wait(30)
        try:
            return runner.submit_prepared(prepared)
        except UsageError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(submit, range(8)))
    (futures,) = [outcome for outcome in outcomes if isinstance(outcome, list)]
    assert all(future.result(30) for future in futures)


def test_many_threads_prepare_and_submit(echo_artifact, texts, expected):
    with Runner(echo_artifact, workers=2, max_queue=64, max_windows_per_request=32) as runner:

        def ask(number):
            places = [(number * 7 + each) % 120 for each in range(5)]
            prepared = runner.prepare([texts[place] for place in places])
            try:
                return places, runner.submit_prepared(prepared)
            except Overloaded:
                return places, None

        def ask_again(number):
            while True:
                try:
                    places, futures = ask(number)
                except Overloaded:
                    futures = None
                if futures is not None:
                    return [future.result(60) for future in futures] == [expected[place] for place in places]
                time.sleep(0.01)

        with ThreadPoolExecutor(12) as pool:
            assert all(pool.map(ask_again, range(96)))
        stats = runner.stats()
    assert stats["queue"]["rows"] == 0
    assert stats["requests"]["submitted"] == stats["requests"]["completed"] == 96 * 5


def test_what_was_prepared_before_the_end_is_refused_after_it(echo_artifact):
    runner = Runner(echo_artifact, workers=1)
    prepared = runner.prepare(SHORT)
    runner.close()
    for ask in (lambda: runner.submit_prepared(prepared), lambda: runner.prepare(SHORT)):
        with pytest.raises(RunnerClosed, match="closed, or closing"):
            ask()
    with pytest.raises(RunnerClosed, match="closed, or closing"):
        runner.prepare_encoded(ENCODED)


def test_what_comes_in_while_the_runner_ends_gets_its_outcome(echo_artifact):
    runner = Runner(echo_artifact, workers=1)
    prepared = runner.prepare(SHORT)
    runner.close()
    for future in runner._admission.admit(prepared):  # past the door when that was closed
        assert isinstance(future.exception(0), RunnerClosed)


@pytest.mark.parametrize("rows", [1, 2, 8, 11])
def test_tokens_in_two_steps(runner, rows):
    ids = np.concatenate([ENCODED] * 6)[:rows]
    prepared = runner.prepare_encoded(ids, breakdown=True)
    assert prepared.rows == rows
    (future,) = runner.submit_prepared(prepared)
    wanted = runner.submit_encoded(ids).result(30)
    np.testing.assert_array_equal(future.result(30).result.start_logits, wanted.start_logits)


@pytest.mark.parametrize("asked", [SHORT[:1], SHORT[:3]], ids=["one", "three"])
def test_an_interrupt_costs_no_place_and_stops_nobody(echo_artifact, asked):
    runner = Runner(echo_artifact, workers=1)  # not in a with block, which would wait for a thread that hangs
    runner.submit_prepared(runner.prepare(asked))[-1].result(30)  # the first makes other calls than those behind it
    before = runner.stats()["requests"]["submitted"]

    def prepare():
        prepared = runner.prepare(asked)
        return None, lambda: runner.submit_prepared(prepared)

    for _ in each_interrupt(prepare):
        pass
    assert runner.stats()["requests"]["submitted"] > before + len(asked)  # it was interrupted behind the door, too
    wait_until(lambda: runner.stats()["queue"]["rows"] == 0)
    assert all(future.result(30) for future in runner.submit_prepared(runner.prepare(asked)))
    wait_until(lambda: not len(runner._dispatcher._requests))
    assert not runner.stats()["requests"]["failed"]
    runner.close()


@given(st.lists(st.integers(1, 40), max_size=20))
def test_rows_are_counted_over_all_requests(sizes):
    row = Row(np.arange(8), np.zeros(8, np.int64))
    requests = [Request(number, [row] * size, len, submitted=0.0) for number, size in enumerate(sizes)]
    prepared = Prepared(requests)
    assert prepared.rows == sum(sizes)
    assert prepared.take() is requests
    with pytest.raises(UsageError, match="these inputs were submitted before"):
        prepared.take()
