"""A runner that works in the thread of an event loop: real workers, real loops, those that end or stand still too."""

import asyncio
import os
import signal
import threading
import time

import pytest
from echo_files import with_echo
from processes import stopped, wait_until

from neuronbert import Runner
from neuronbert.errors import BackendFailed, RunnerClosed, UsageError
from neuronbert.runner import loop_turns


@pytest.fixture()
def runner(echo_artifact):
    with Runner(echo_artifact, workers=2) as runner:
        yield runner


async def given(runner):
    """Until the loop, which calls this, takes the runner's turns."""
    runner.turn_in(asyncio.get_running_loop())
    await until_given(runner)


async def until_given(runner):
    deadline = time.perf_counter() + 30
    while runner._dispatcher._loop_turns._thread is not threading.current_thread():
        assert time.perf_counter() < deadline
        await asyncio.sleep(0.01)


async def answers(runner, texts):
    """Asked in the loop's thread, and the threads in which the answers were delivered."""
    threads = set()
    futures = [runner.submit(*text) for text in texts]
    for future in futures:
        future.add_done_callback(lambda _: threads.add(threading.current_thread()))
    return [await asyncio.wait_for(asyncio.wrap_future(future), 30) for future in futures], threads


def test_what_is_asked_in_the_loop_is_answered_there(runner, texts, expected):
    async def ask():
        await given(runner)
        for _ in range(3):
            found, threads = await answers(runner, texts)
            assert found == expected and threads == {threading.current_thread()}
        assert await runner.answer(*texts[0]) == expected[0]
        assert runner.stats()["queue"]["rows"] == 0

    asyncio.run(ask())


def test_other_threads_ask_all_the_while(runner, texts, expected):
    async def ask():
        await given(runner)
        loop = asyncio.get_running_loop()
        mapped = [loop.run_in_executor(None, lambda: list(runner.map(texts))) for _ in range(3)]
        alone = loop.run_in_executor(None, lambda: runner.submit(*texts[0]).result(30))
        found, _ = await answers(runner, texts)
        assert [found, *await asyncio.gather(*mapped)] == [expected] * 4 and await alone == expected[0]
        await until_given(runner)

    asyncio.run(ask())


@pytest.fixture()
def slow_artifact(echo_copy):
    return with_echo(echo_copy, batch_s=0.05)


def test_deadlines_and_cancelled_requests(slow_artifact):
    with Runner(slow_artifact, workers=1, in_flight_per_group=1) as runner:

        async def ask():
            await given(runner)
            futures = [runner.submit("Who?", f"It was number {number}.") for number in range(40)]
            for future in futures[10:]:
                future.cancel()
            late = runner.submit("Who?", "It was late.", timeout_s=30)
            await asyncio.gather(*map(asyncio.wrap_future, [*futures[:10], late]))

        asyncio.run(ask())
        assert runner.stats()["requests"]["cancelled"] == 30 and runner.stats()["queue"]["rows"] == 0


def test_a_callback_that_waits_for_its_own_runner_is_told_so(runner):
    async def ask():
        await given(runner)
        refused = []

        def wait(_):
            later = runner.submit("Who?", "It was me.")
            for call in (later.result, lambda: list(runner.map([("Who?", "Me.")])), runner.close):
                with pytest.raises(UsageError, match="would wait for"):
                    call()
                refused.append(call)

        future = runner.submit("Who?", "It was me.")
        future.add_done_callback(wait)
        await asyncio.wrap_future(future)
        assert len(refused) == 3

    asyncio.run(ask())


def test_a_loop_that_is_blocked_by_what_waits_for_its_runner_gets_its_answers_nevertheless(runner, texts, expected):
    async def ask():
        runner.turn_in(asyncio.get_running_loop())
        assert runner.submit(*texts[0]).result(30) == expected[0]  # before the loop could take a turn
        await until_given(runner)
        assert runner.submit(*texts[1]).result(30) == expected[1]
        assert list(runner.map(texts)) == expected
        await until_given(runner)  # it goes on, and has them again
        found, threads = await answers(runner, texts)
        assert found == expected and threads == {threading.current_thread()}

    asyncio.run(ask())


def test_others_do_not_wait_for_a_blocked_loop(runner, texts, expected):
    async def ask():
        await given(runner)
        asking = asyncio.get_running_loop().run_in_executor(None, lambda: runner.submit(*texts[0]).result(30))
        await asyncio.sleep(0)
        wait_until(lambda: runner.stats()["requests"]["completed"] == 1)  # and the loop does nothing else
        assert await asking == expected[0]

    asyncio.run(ask())


@pytest.mark.parametrize("is_started", [False, True])
def test_a_runner_may_be_closed_in_its_loop(echo_artifact, texts, expected, is_started):
    async def ask():
        with Runner(echo_artifact, workers=1) as runner:
            runner.turn_in(asyncio.get_running_loop())
            if is_started:
                await until_given(runner)
                assert await runner.answer(*texts[0]) == expected[0]
        with pytest.raises(RunnerClosed):
            runner.submit(*texts[0])
        runner.turn_in(asyncio.get_running_loop())  # it has no turns any more

    asyncio.run(ask())


def test_one_loop_has_the_turns(runner, texts, expected):
    async def ask():
        await given(runner)
        runner.turn_in(asyncio.get_running_loop())
        other = asyncio.new_event_loop()
        with pytest.raises(UsageError, match="another event loop"):
            runner.turn_in(other)
        other.close()
        assert (await answers(runner, texts))[0] == expected

    asyncio.run(ask())
    asyncio.run(ask())  # that one is closed


def test_a_loop_that_cannot_is_told_and_not_waited_for(runner, texts, expected):
    async def ask():
        loop = asyncio.get_running_loop()
        told = []

        def cannot(*_):
            raise NotImplementedError

        loop.add_reader, loop.remove_reader = cannot, cannot
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        runner.turn_in(loop)
        assert (await answers(runner, texts))[0] == expected
        assert [type(error) for error in told] == [NotImplementedError]

    asyncio.run(ask())


def test_while_a_worker_is_started_again_the_runners_own_thread_works(runner, texts, expected):
    async def ask():
        await given(runner)
        for worker in runner.stats()["workers"]:
            os.kill(worker["pid"], signal.SIGKILL)
            found, _ = await answers(runner, texts)
            assert found == expected
            await asyncio.get_running_loop().run_in_executor(
                None, wait_until, lambda: all(each["state"] == "ready" for each in runner.stats()["workers"])
            )
            await until_given(runner)
        assert [worker["restarts"] for worker in runner.stats()["workers"]] == [1, 1]

    asyncio.run(ask())


def test_a_worker_that_hangs_is_replaced(echo_artifact, texts, expected):
    with Runner(echo_artifact, workers=1, hang_timeout_s=1.5) as runner:

        async def ask():
            await given(runner)
            pid = runner.stats()["workers"][0]["pid"]
            with stopped(runner):
                found, _ = await answers(runner, texts)
            assert found == expected and runner.stats()["workers"][0]["pid"] != pid

        asyncio.run(ask())


def test_a_loop_that_ends_leaves_the_rest_to_the_runner(slow_artifact, texts):
    with Runner(slow_artifact, workers=1) as runner:

        async def ask():
            await given(runner)
            return [runner.submit(*text) for text in texts[:40]]

        futures = asyncio.run(ask())
        for future in futures:
            future.result(30)
        assert runner.submit(*texts[0]).result(30)


def test_a_loop_that_stood_still_takes_the_turns_again(runner, texts, expected):
    loop = asyncio.new_event_loop()
    try:
        for taken in (given, until_given):
            loop.run_until_complete(taken(runner))
            assert loop.run_until_complete(answers(runner, texts))[0] == expected
            time.sleep(2 * loop_turns.LOOK_S)
            assert runner.submit(*texts[0]).result(30) == expected[0]
    finally:
        loop.close()
    assert list(runner.map(texts)) == expected


def test_a_loop_that_is_closed_or_does_not_run_is_not_waited_for(runner, texts, expected):
    loop = asyncio.new_event_loop()
    runner.turn_in(loop)
    assert runner.submit(*texts[0]).result(30) == expected[0]
    loop.close()
    assert list(runner.map(texts)) == expected


def test_a_blocked_loop_is_no_reason_to_kill_a_worker(echo_artifact, texts):
    with Runner(echo_artifact, workers=1, hang_timeout_s=1.2) as runner:

        async def ask():
            await given(runner)
            future = runner.submit(*texts[0])
            await asyncio.sleep(0)
            time.sleep(2.5)
            await asyncio.wrap_future(future)

        asyncio.run(ask())
        assert runner.stats()["requests"]["deaths"] == 0


def test_close_drains_and_later_ones_are_refused(slow_artifact, texts):
    runner = Runner(slow_artifact, workers=1)

    async def ask():
        await given(runner)
        futures = [runner.submit(*text) for text in texts[:20]]
        closing = asyncio.get_running_loop().run_in_executor(None, runner.close)
        await asyncio.gather(*map(asyncio.wrap_future, futures))
        await closing
        with pytest.raises(RunnerClosed):
            runner.submit(*texts[0])

    asyncio.run(ask())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_a_turn_ends_the_runner_for_everybody(echo_artifact, monkeypatch):
    runner = Runner(echo_artifact, workers=1)

    def fail(*_):
        raise ZeroDivisionError("a bug")

    async def ask():
        await given(runner)
        monkeypatch.setattr(runner._dispatcher._scheduler, "dispatch", fail)
        with pytest.raises(BackendFailed, match="the runner itself failed: ZeroDivisionError: a bug"):
            await asyncio.wait_for(asyncio.wrap_future(runner.submit("Who?", "It was me.")), 30)

    asyncio.run(ask())
    runner.close()


def test_a_callback_may_ask_again(runner, texts, expected):
    async def ask():
        await given(runner)
        again = asyncio.get_running_loop().create_future()
        runner.submit(*texts[0]).add_done_callback(lambda _: again.set_result(runner.submit(*texts[1])))
        assert await asyncio.wait_for(asyncio.wrap_future(await again), 30) == expected[1]

    asyncio.run(ask())
