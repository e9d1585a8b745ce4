"""The runner with real worker processes, on a backend whose answers are a hash of the text."""

import asyncio
import itertools
import sys
import threading
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor, wait

import numpy as np
import pytest
from echo_files import with_echo
from interrupts import each_interrupt
from processes import is_running, open_descriptors, stopped, wait_until

from neuronbert import NeuronBertForQuestionAnswering, Runner
from neuronbert.backends.base import Batch
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.engine import Engine
from neuronbert.errors import (
    ArtifactError,
    BackendFailed,
    CheckpointError,
    DeadlineExceeded,
    InputError,
    Overloaded,
    RunnerClosed,
    UsageError,
)
from neuronbert.runner import Answered
from neuronbert.tasks.question_answering import task as question_answering
from neuronbert.tasks.question_answering.options import AnswerOptions

ENCODED = np.array([[101, 2040, 102, 3958, 27227, 102], [101, 2043, 102, 1999, 3982, 102]])


@pytest.fixture(scope="module")
def runner(echo_artifact):
    with Runner(echo_artifact, workers=2) as runner:
        yield runner


@pytest.fixture()
def slow_artifact(echo_copy):
    """Every batch takes 0.2 s."""
    return with_echo(echo_copy, batch_s=0.2)


def test_a_question_has_the_answer_of_the_pipeline(runner, texts, expected):
    futures = [runner.submit(*pair) for pair in texts[:20]]
    assert [future.result(30) for future in futures] == expected[:20]


def test_rows_that_wait_are_those_that_were_submitted(echo_artifact):
    with Runner(echo_artifact, workers=1, threads=1, in_flight_per_group=1) as runner:
        expected = runner.submit_encoded(ENCODED).result(30)
        mine = ENCODED.copy()
        with stopped(runner):
            wait_until(runner.submit("Who?", "Jim Henson").running)
            futures = [runner.submit_encoded(mine), runner.submit_together(Batch(mine, mine * 0 + 1, mine * 0))]
            mine[:] = 2000
        np.testing.assert_array_equal(futures[0].result(30).start_logits, expected.start_logits)
        np.testing.assert_array_equal(futures[1].result(30)["start_logits"], expected.start_logits)


def test_map_keeps_the_order_over_many_windows(runner, texts, expected):
    assert list(runner.map(texts)) == expected


def test_map_takes_no_more_than_fits_the_queue(echo_artifact, texts):
    taken = []
    with Runner(echo_artifact, workers=1, max_queue=16, max_windows_per_request=16) as runner:
        results = runner.map(taken.append(number) or texts[number % 50 + 1] for number in range(10_000))
        next(results)
        assert len(taken) <= 16 + 2 * 32
        results.close()


@pytest.mark.parametrize("on_error", ["raise", "yield"])
@pytest.mark.parametrize("before", [0, 5, 32, 37])
def test_map_gives_the_results_before_its_source_raises(runner, texts, expected, before, on_error):
    def broken_source():
        yield from texts[:before]
        raise InputError("the file is broken here")

    found = []
    with pytest.raises(InputError, match="^the file is broken here$"):
        for result in runner.map(broken_source(), on_error=on_error):
            found.append(result)
    assert found == expected[:before]


def test_a_document_that_is_slow_to_rank_keeps_nobody_waiting(echo_artifact, monkeypatch, texts, expected):
    began, may_end, threads = threading.Event(), threading.Event(), []
    ranked = question_answering.decode

    def slowly(example, outputs, options):
        threads.append(threading.current_thread().name)
        if options.top_k == 5000:
            began.set()
            assert may_end.wait(30)
        return ranked(example, outputs, options)

    monkeypatch.setattr(question_answering, "decode", slowly)
    with Runner(echo_artifact, workers=1) as runner:
        slow = runner.submit("Who?", "the dog sat over it " * 4000, top_k=5000)
        slow.add_done_callback(lambda future: threads.append(threading.current_thread().name))
        assert began.wait(30)
        assert runner.submit(*texts[1]).result(30) == expected[1]
        assert not slow.done()
        may_end.set()
        assert len(slow.result(30)) > 1
    assert threads == ["neuronbert-decoder", "neuronbert-runner", "neuronbert-runner"]
    assert not any(thread.name == "neuronbert-decoder" for thread in threading.enumerate())


@pytest.mark.parametrize("top_k", [1, 5000])  # those of the second are ranked in a thread of their own, each round
def test_selected_windows_are_read_in_rounds_with_the_answers_of_the_engine(runner, echo_artifact, top_k):
    words = "the quick brown fox jumps over a lazy dog and sings".split()
    texts = [" ".join(words[(i * i + number) % len(words)] for i in range(400)) for number in range(12)]
    pairs = [("Who sings to the dog?", f"{text} a frog {text}") for text in texts]
    keywords = {"max_seq_len": 64, "doc_stride": 8, "select_windows": 1}
    rows = runner.stats()["rows"]
    found = [future.result(60) for future in [runner.submit(*pair, top_k=top_k, **keywords) for pair in pairs]]
    read = runner.stats()["rows"] - rows
    with Engine(echo_artifact, threads=1) as engine:
        options = engine.task.ENCODE_OPTIONS(**keywords)
        examples = engine.encode(pairs, options)
        answered = engine.answer(pairs, options, engine.task.DECODE_OPTIONS(top_k=top_k))
    assert found == [engine.task.call_result(each) for each in answered]
    assert 2 * len(pairs) < read < sum(len(example.windows) for example in examples)
    assert runner.stats()["queue"]["rows"] == 0


def test_closing_does_not_wait_for_slow_results_that_wait_themselves(echo_artifact):
    with Runner(echo_artifact, workers=1) as runner:
        futures = [runner.submit("Who?", "the dog sat over it " * 4000, top_k=1000) for _ in range(4)]
        runner.close(0)
        assert all(future.done() for future in futures)


def test_several_answers_and_options(runner, texts, echo_artifact):
    found = runner.submit(*texts[1], top_k=3, max_answer_len=4, breakdown=False).result(30)
    assert len(found) == 3
    with pytest.raises(UsageError, match="no keyword 'top_kk'"):
        runner.submit(*texts[1], top_kk=3)
    with pytest.raises(UsageError, match="top_k"):
        runner.submit(*texts[1], top_k=0)


def test_a_batch_of_requests_with_options_of_their_own_and_of_tokens(echo_artifact, texts):
    """Workers reduce the outputs of some rows (tasks/base.py, Reduction): nobody can tell which."""
    keywords = [
        {},
        {"top_k": 5, "max_answer_len": 3},
        {"ranking": "document", "details": True, "top_k": 2},
        {"null_threshold": -3.0, "align_to_words": False},
        {"top_k": 60_000, "max_answer_len": 400},  # slow to rank
    ]
    with Engine(echo_artifact, threads=1) as engine:
        expected = [
            engine.answer([pair], answer_options=AnswerOptions(**options))[0]
            for pair, options in zip(texts, itertools.islice(itertools.cycle(keywords), 60))
        ]
    with Runner(echo_artifact, workers=1, threads=1, in_flight_per_group=1) as runner:
        tokens = runner.submit_encoded(ENCODED).result(30)
        for count in (60, 4, 1):  # in the last two no request of tokens is among them, nor a slow one
            with stopped(runner):
                futures = [runner.submit(*pair, **keywords[n % 5]) for n, pair in enumerate(texts[:count])]
                encoded = [runner.submit_encoded(ENCODED) for _ in range(3 if count == 60 else 0)]
            for future, ranked in zip(futures, expected):
                found = future.result(30)
                assert (found if isinstance(found, list) else [found]) == ranked
            for future in encoded:
                np.testing.assert_array_equal(future.result(30).start_logits, tokens.start_logits)


def test_asyncio(runner, texts, expected):
    async def ask():
        return await asyncio.gather(*(runner.answer(*pair) for pair in texts[:10]))

    assert asyncio.run(ask()) == expected[:10]


def test_cancelling_a_task_while_it_is_tokenised_cancels_the_request(runner, texts, monkeypatch):
    request = Future()
    begun, cancelled = threading.Event(), threading.Event()

    def slowly(*_):
        begun.set()
        assert cancelled.wait(60)
        return request

    async def ask():
        task = asyncio.ensure_future(runner.answer(*texts[0]))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()
        # Here, as asyncio.run of Python 3.8 ends without its threads.
        while not request.cancelled():
            await asyncio.sleep(0.01)

    monkeypatch.setattr(runner, "_submit", slowly)
    asyncio.run(asyncio.wait_for(ask(), 60))


def test_the_clock_of_an_answer_starts_before_a_thread_is_free(echo_artifact, texts):
    may_go_on = threading.Event()

    async def ask(runner):
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, may_go_on.wait)
        with pytest.raises(DeadlineExceeded, match="was not tokenised within its 0.1 s"):
            await runner.answer(*texts[0], timeout_s=0.1)
        may_go_on.set()
        await busy

    with Runner(echo_artifact, workers=1) as runner:
        asyncio.run(ask(runner))
        assert wait_until(lambda: runner.stats()["requests"]["submitted"]) == 1  # nothing stops that
    assert runner.stats()["requests"]["completed"] == 0


def test_the_time_for_a_thread_is_part_of_an_answers_own(runner, texts):
    async def ask():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        may_go_on = threading.Event()
        busy = loop.run_in_executor(None, may_go_on.wait)
        answering = asyncio.ensure_future(runner.answer(*texts[0], breakdown=True))
        await asyncio.sleep(0)  # now it has begun
        await asyncio.sleep(0.2)
        may_go_on.set()
        await busy
        return (await answering).breakdown

    breakdown = asyncio.run(ask())
    assert breakdown["total_ms"] >= breakdown["tokenise_ms"] >= 150


def test_an_interrupt_in_submit_costs_no_place_and_stops_nobody(echo_artifact, texts):
    runner = Runner(echo_artifact, workers=1)  # not in a with block, which would wait for a thread that hangs
    runner.submit(*texts[0]).result(30)  # the first takes longer: from now on each makes the same calls
    before = runner.stats()["requests"]["submitted"]
    for _ in each_interrupt(lambda: (None, lambda: runner.submit(*texts[0]))):
        pass
    assert runner.stats()["requests"]["submitted"] > before + 1  # it was interrupted behind the door, too
    assert runner.submit(*texts[0]).result(30)
    wait_until(lambda: runner.stats()["queue"]["rows"] == 0)
    runner.close()


@pytest.mark.parametrize("rows", [1, 2, 8, 11])
def test_tokens_in_logits_out(runner, echo_artifact, rows):
    ids = np.concatenate([ENCODED] * 6)[:rows]
    mask = np.ones_like(ids)
    mask[0, 4:] = 0
    types = (ids > 2000).astype(int)
    with NeuronBertForQuestionAnswering.from_pretrained(echo_artifact) as model:
        wanted = model(ids, mask, types)
    found = runner.submit_encoded(ids, mask, types).result(30)
    assert np.array_equal(found.start_logits, wanted.start_logits)
    assert np.array_equal(found.end_logits, wanted.end_logits)
    assert found.start_logits.shape == ids.shape


def test_tokens_that_cannot_be(runner):
    with pytest.raises(InputError, match="input_ids holds 99999"):
        runner.submit_encoded(ENCODED + 99999 - 101)
    with pytest.raises(InputError, match="differ in shape"):
        runner.submit_encoded(ENCODED, ENCODED[:1])


@pytest.mark.parametrize(
    "batch",
    ["rows", (ENCODED, ENCODED, ENCODED), Batch([[1, 2], [3]], None, None), Batch(ENCODED[0], ENCODED[0], ENCODED[0])]
    + [Batch(ENCODED * 1.5, ENCODED, ENCODED), Batch(ENCODED, ENCODED, ENCODED), Batch(ENCODED[:0], None, None)],
)
def test_rows_that_cannot_stay_together_are_refused_before_the_runner_sees_them(runner, texts, batch):
    with pytest.raises(InputError):
        runner.submit_together(batch)
    assert runner.submit(*texts[0]).result(30)


def test_rows_that_stay_together(runner):
    batch = Batch(ENCODED, np.ones_like(ENCODED), np.zeros_like(ENCODED))
    before = runner.stats()["batches"]["whole"]
    assert runner.submit_together(batch).result(30)["start_logits"].shape == ENCODED.shape
    assert runner.stats()["batches"]["whole"] == before + 1


def test_a_batch_is_no_document_that_is_too_long(runner):
    """However many rows its backend asks for: the limit is there for requests of many batches."""
    ids = np.tile(ENCODED[:1], (runner.max_windows_per_request + 1, 1))
    outputs = runner.submit_together(Batch(ids, np.ones_like(ids), np.zeros_like(ids))).result(30)
    assert outputs["start_logits"].shape == ids.shape


def test_where_the_time_went(runner, texts, expected):
    answered = runner.submit(*texts[0], breakdown=True).result(30)
    assert isinstance(answered, Answered)
    assert answered.result == expected[0]
    parts = answered.breakdown
    named = ("tokenise_ms", "queue_ms", "batch_wait_ms", "worker_wait_ms", "device_ms", "decode_ms")
    assert all(parts[name] >= 0 for name in named)
    assert parts["total_ms"] >= parts["tokenise_ms"] + parts["device_ms"] + parts["decode_ms"]
    assert {"worker", "cores", "rows", "fill", "padding", "reason", "batches"} <= set(parts)


def test_statistics(runner, texts):
    runner.submit(*texts[1]).result(30)
    stats = runner.stats()
    assert stats["requests"]["completed"] >= 1
    assert stats["queue"]["rows"] == 0
    assert [(worker["worker"], worker["state"]) for worker in stats["workers"]] == [(0, "ready"), (1, "ready")]
    assert 0 < stats["fill"] <= 1


def test_one_bad_request_between_good_ones(runner, texts, expected):
    pairs = [texts[0], ("", "x"), texts[1], ("Who?", 5), texts[2]]
    found = list(runner.map(pairs, on_error="yield"))
    assert [found[0], found[2], found[4]] == expected[:3]
    assert all(isinstance(found[place], InputError) for place in (1, 3))
    with pytest.raises(InputError):
        list(runner.map(pairs))
    with pytest.raises(InputError, match="cannot be empty"):
        runner.submit("Who?", "")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("Who?", "'Who?' is not a question with its context"),
        (("Who?", "It was me.", "or him"), "('Who?', 'It was me.', 'or him') is not a question"),
        (None, "None is not a question with its context"),
        (5, "5 is not a question with its context"),
        ({"question": "Who?"}, "{'question': 'Who?'} is not a question with its context"),
        ({"question": "", "context": "It was me."}, "`question` cannot be empty"),
        (("Who?", "word " * 200_000), "this request needs "),
    ],
)
def test_map_says_which_input_is_wrong_and_what_it_must_be(runner, texts, expected, wrong, text):
    pairs = [*texts[:40], wrong, texts[40]]
    found = list(runner.map(pairs, on_error="yield"))
    assert found[40].message.startswith(f"inputs[40]: {text}") and found[40].hint
    assert [*found[:40], found[41]] == expected[:41]
    with pytest.raises(InputError, match=r"^inputs\[40\]: "):
        list(runner.map(pairs))


def test_map_takes_what_the_pipeline_takes(runner, texts, expected):
    assert (
        list(runner.map({"question": question, "context": context} for question, context in texts[:5])) == expected[:5]
    )
    with pytest.raises(InputError, match="map takes many inputs, not 5"):
        runner.map(5)
    with pytest.raises(UsageError, match="on_error is 'perhaps'"):
        runner.map([], on_error="perhaps")


def test_a_document_of_many_questions_is_encoded_once(echo_artifact, texts, expected, monkeypatch):
    (question, document), asked, encode = texts[17], [], Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: asked.extend(texts) or encode(self, texts))
    with Runner(echo_artifact, workers=1) as runner:
        futures = [runner.submit(question, "".join(list(document))) for _ in range(3)]
        futures += runner.submit_prepared(runner.prepare([(question, document)] * 2))
        found = [*(future.result(30) for future in futures), *runner.map([(question, document)] * 40)]
    assert found == [expected[17]] * 45
    assert asked.count(document) == 1


def test_a_document_that_is_too_long_is_refused_by_itself(runner, texts, expected):
    with pytest.raises(InputError, match=r"needs \d+ windows, and the runner takes 256"):
        runner.submit("Who?", "word " * 200_000)
    assert runner.submit(*texts[0]).result(30) == expected[0]


def test_a_document_that_is_too_long_is_refused_before_it_is_cut(runner, monkeypatch):
    monkeypatch.setattr("neuronbert.tasks.question_answering.windows.window_ranges", None)
    document = {"question": "Who?", "context": "word " * 2000}
    with pytest.raises(InputError, match=r"needs \d+ windows, and the runner takes 256"):
        runner.submit(*document.values(), max_seq_len=384, doc_stride=384)
    with pytest.raises(InputError, match=r"inputs\[0\]: this request needs \d+ windows, and the runner takes 256"):
        list(runner.map([document], doc_stride=384))


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("no words")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("oops"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Unprintable()]
)
def test_what_a_callback_raises_is_an_event_and_hurts_nobody(echo_artifact, texts, error, caplog):
    def fail(_):
        raise error

    called = []
    with Runner(echo_artifact, workers=1) as runner:
        with stopped(runner):
            future = runner.submit(*texts[0])
            future.add_done_callback(fail)
            future.add_done_callback(called.append)
        assert future.result(30)
        with stopped(runner):
            cancelled = runner.submit(*texts[0], timeout_s=1000)
            cancelled.add_done_callback(fail)
        assert runner.submit(*texts[1]).result(30)
        assert cancelled.result(30)
        raised = wait_until(lambda: [event for event in runner.events if event["event"] == "callback_raised"][1:])
        assert called == [future]
    assert type(error).__name__ in raised[0]["why"] and "in fail" in raised[0]["traceback"]
    assert "callback_raised" in caplog.text
    with pytest.raises(SystemExit):  # of a future that is done: in the thread that adds it, as of any other
        future.add_done_callback(sys.exit)


def test_a_callback_that_waits_for_the_runner_is_told_that_it_would_wait_for_itself(echo_artifact, texts):
    ways = [
        lambda: runner.submit("Who?", "It was me.").result(),
        lambda: list(runner.map([("Who?", "It was me.")])),
        lambda: runner.submit_together(Batch(ENCODED, ENCODED * 0 + 1, ENCODED * 0)),
        lambda: asyncio.run(runner.answer("Who?", "It was me.")),
        lambda: runner.close(),
    ]
    told = []

    def ask(_):
        for wait_for in ways:
            with pytest.raises(UsageError, match="cannot wait for the runner"):
                wait_for()
            told.append(wait_for)

    with Runner(echo_artifact, workers=1) as runner:
        with stopped(runner):
            runner.submit(*texts[0]).add_done_callback(ask)
        wait_until(lambda: told == ways)
        assert runner.submit(*texts[0]).result(30)  # it is open, and goes on


def test_a_callback_may_ask_again(echo_artifact, texts):
    with Runner(echo_artifact, workers=1) as runner:
        again = []
        with stopped(runner):
            runner.submit(*texts[0]).add_done_callback(lambda _: again.append(runner.submit(*texts[0])))
        assert wait_until(lambda: again)[0].result(30)


def test_an_outcome_from_elsewhere_is_refused_and_hurts_nobody(slow_artifact, texts):
    with Runner(slow_artifact, workers=1) as runner:
        future = runner.submit(*texts[0])
        for give in (lambda: future.set_result(1), lambda: future.set_exception(OSError())):
            with pytest.raises(InvalidStateError):
                give()
        assert future.result(30) and runner.submit(*texts[0]).result(30)


def test_a_callback_of_a_failed_request_is_guarded_too(slow_artifact):
    runner = Runner(slow_artifact, workers=1)
    futures = [runner.submit("Who?", f"It was number {number}.") for number in range(60)]
    futures[-1].add_done_callback(lambda _: sys.exit(1))
    runner.close(0)
    assert isinstance(futures[-1].exception(0), RunnerClosed)
    assert [event["why"] for event in runner.events if event["event"] == "callback_raised"] == ["SystemExit: 1"]


def test_a_full_queue_refuses_at_once_and_says_how_long(slow_artifact, texts):
    with Runner(slow_artifact, workers=1, max_queue=8, max_windows_per_request=8) as runner:
        outcomes = []
        futures = []
        for number in range(200):
            try:
                futures.append(runner.submit("Who?", f"It was number {number}."))
            except Overloaded as error:
                outcomes.append(error)
        assert outcomes and futures
        assert "of 8 rows wait" in str(outcomes[-1])
        assert all(future.result(60)["answer"] for future in futures)
        stats = runner.stats()["requests"]
        assert (stats["refused"], stats["completed"]) == (len(outcomes), len(futures))
        runner.submit("Who?", "It was me.").result(30)
        assert runner.stats()["queue"]["predicted_wait_s"] is not None


def test_rows_that_wait_are_counted_whoever_they_belong_to(slow_artifact):
    document = ("What is it?", " ".join(f"word{number}" for number in range(4000)))
    with Runner(slow_artifact, workers=1, threads=1) as runner:
        runner.submit("Who?", "It was me.").result(30)
        with stopped(runner):
            future = runner.submit(*document)
            wait_until(future.running)
            stats = runner.stats()
            assert stats["queue"]["rows"] > 8 and stats["queue"]["predicted_wait_s"] > 0.2
            with pytest.raises(Overloaded, match="too long for timeout_s=0.25"):
                runner.submit("Who?", "It was me.", timeout_s=0.25)
        assert future.result(60)["answer"]
        assert runner.stats()["queue"]["rows"] == 0


def test_a_document_that_cannot_be_in_time_is_refused(slow_artifact):
    document = ("What is it?", " ".join(f"word{number}" for number in range(4000)))
    with Runner(slow_artifact, workers=1, threads=1) as runner:
        runner.submit("Who?", "It was me.").result(30)
        with stopped(runner):
            first = runner.submit(*document)
            wait_until(first.running)
            with pytest.raises(Overloaded, match="windows more are too many for timeout_s|too long for timeout_s"):
                runner.submit(*document, timeout_s=0.3)
        assert first.result(60)["answer"]


def test_too_late_is_dropped_before_it_costs_device_time(slow_artifact):
    with Runner(slow_artifact, workers=1, in_flight_per_group=1) as runner:
        runner.submit("Who?", "It was me.").result(30)
        rows = runner.stats()["rows"]
        with stopped(runner):
            busy = runner.submit("Who?", "It was me.")
            wait_until(lambda: runner.stats()["rows"] == rows + 1)
            with pytest.raises((DeadlineExceeded, Overloaded)):
                runner.submit("Who?", "It was he.", timeout_s=0.05).result(30)
        assert busy.result(30) and runner.submit("Who?", "It was she.").result(30)
        assert runner.stats()["rows"] == rows + 2
        with pytest.raises(UsageError, match="timeout_s"):
            runner.submit("Who?", "It was he.", timeout_s=0)


def test_a_cancelled_future_frees_its_place(echo_artifact):
    with Runner(echo_artifact, workers=1, in_flight_per_group=1, max_queue=4, max_windows_per_request=4) as runner:
        with stopped(runner):
            wait_until(runner.submit("Who?", "It was me.").running)
            waiting = [runner.submit("Who?", f"It was number {number}.") for number in range(4)]
            with pytest.raises(Overloaded):
                runner.submit("Who?", "It was he.")
            assert waiting[0].cancel()
            assert wait(waiting[:1], timeout=30).done  # not only ``result``
            wait_until(lambda: runner.stats()["queue"]["rows"] == 3)
            last = runner.submit("Who?", "It was he.")
        assert last.result(30) and all(future.result(30) for future in waiting[1:])
        with pytest.raises(CancelledError):
            waiting[0].result(30)


def test_many_threads_and_a_hundred_thousand_requests_at_once(echo_artifact):
    with Runner(echo_artifact, workers=2) as runner:
        outcomes = []

        def ask(number):
            refused = 0
            futures = []
            for each in range(5_000):
                try:
                    futures.append(runner.submit("Who?", f"It was {number} and {each}."))
                except Overloaded:
                    refused += 1
            outcomes.append((refused, [future.result(60)["answer"] for future in futures]))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(4)))
        answered = sum(len(answers) for _, answers in outcomes)
        assert answered + sum(refused for refused, _ in outcomes) == 20_000
        assert runner.stats()["requests"]["completed"] == answered
        assert all(answer for _, answers in outcomes for answer in answers)


def test_closing_finishes_what_was_accepted_and_leaves_nothing(echo_artifact, texts, expected):
    before = open_descriptors()
    runner = Runner(echo_artifact, workers=2)
    pids = [worker["pid"] for worker in runner.stats()["workers"]]
    futures = [runner.submit(*pair) for pair in texts[:30]]
    runner.close()
    assert [future.result(0) for future in futures] == expected[:30]
    assert not any(map(is_running, pids))
    with pytest.raises(RunnerClosed):
        runner.submit(*texts[0])
    with pytest.raises(RunnerClosed):
        list(runner.map(texts[:2]))
    runner.close()
    assert open_descriptors() == before


def test_closing_again_from_any_thread(echo_artifact):
    """Also from one that the system gave the number of the runner's, which has ended."""
    runner = Runner(echo_artifact, workers=1)
    runner.close()
    for _ in range(3):
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(runner.close).result(30) is None
    assert all(worker["state"] != "ready" for worker in runner.stats()["workers"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_of_the_runner_itself_is_told_to_everybody(slow_artifact, monkeypatch):
    may_fail = threading.Event()

    def fail(*_):
        may_fail.wait(30)
        raise ZeroDivisionError("a bug")

    runner = Runner(slow_artifact, workers=1)
    monkeypatch.setattr(runner._dispatcher._scheduler, "dispatch", fail)
    waiting = runner.submit("Who?", "It was me.")
    waiting.add_done_callback(lambda _: runner.submit("Who?", "It was me."))  # is told too
    may_fail.set()
    with pytest.raises(BackendFailed, match="the runner itself failed: ZeroDivisionError: a bug"):
        waiting.result(30)
    raised = wait_until(lambda: [event for event in runner.events if event["event"] == "callback_raised"])
    assert ["a bug" in event["why"] for event in raised] == [True]
    with pytest.raises(BackendFailed, match="a bug"):
        runner.submit("Who?", "It was me.")
    with pytest.raises(BackendFailed, match="a bug"):
        list(runner.map([("Who?", "It was me.")]))
    pids = [event["pid"] for event in runner.events if event["event"] == "start"]
    runner.close()
    assert pids and not any(map(is_running, pids))


def test_closing_does_not_wait_longer_than_it_is_told(slow_artifact):
    runner = Runner(slow_artifact, workers=1)
    futures = [runner.submit("Who?", f"It was number {number}.") for number in range(600)]  # 15 s
    runner.close(0.3)
    outcomes = [future.exception(0) for future in futures]
    assert any(isinstance(error, RunnerClosed) for error in outcomes)
    assert all(error is None or isinstance(error, RunnerClosed) for error in outcomes)


def test_closing_while_others_ask(echo_artifact):
    runner = Runner(echo_artifact, workers=1)
    outcomes = []

    def ask():
        try:
            while True:
                outcomes.append(runner.submit("Who?", "It was me."))
        except (RunnerClosed, Overloaded) as error:
            outcomes.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    runner.close()
    for thread in threads:
        thread.join()
    ended = [outcome if isinstance(outcome, Exception) else outcome.exception(10) for outcome in outcomes]
    assert all(outcome is None or isinstance(outcome, (RunnerClosed, Overloaded)) for outcome in ended)


def test_options_that_cannot_be(echo_artifact):
    for name in ("max_queue", "hang_timeout_s", "in_flight_per_group"):
        with pytest.raises(UsageError, match=name):
            Runner(echo_artifact, **{name: 0})
    with pytest.raises(UsageError, match="more than the"):
        Runner(echo_artifact, workers=1000)
    with pytest.raises(ArtifactError):
        Runner(echo_artifact, variant="nothing")


def test_what_keeps_the_runner_from_reading_its_artifact_ends_the_workers_that_load(echo_artifact, monkeypatch):
    def fail(*_):
        raise CheckpointError("tokenizer.json is damaged")

    monkeypatch.setattr("neuronbert.runner.runner.RequestFactory", fail)
    pids = []
    with pytest.raises(CheckpointError, match="damaged"):
        Runner(echo_artifact, workers=2, on_event=lambda event: pids.append(event.get("pid")))
    assert any(pids) and not any(is_running(pid) for pid in pids if pid)
