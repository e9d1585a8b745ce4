import threading
from concurrent.futures import CancelledError, InvalidStateError, TimeoutError, wait
from contextlib import suppress

import pytest
from interrupts import each_interrupt

from neuronbert.errors import UsageError
from neuronbert.runner.futures import RunnerFuture


def test_whoever_waits_for_a_cancelled_one_is_told():
    future = RunnerFuture()
    assert future.cancel()
    assert not wait([future], timeout=0).done
    assert not future.begin() and not future.begin()
    assert wait([future], timeout=0).done == {future}
    with pytest.raises(CancelledError):
        future.result()


def test_what_has_begun_cannot_be_cancelled():
    future = RunnerFuture()
    assert future.begin() and future.begin()
    assert not future.cancel()
    future.deliver(7, report=print)
    assert future.result() == 7


@pytest.mark.parametrize(
    "give",
    [
        lambda future: future.set_result(1),
        lambda future: future.set_exception(ValueError()),
        lambda future: future.set_running_or_notify_cancel(),
    ],
)
def test_only_the_runner_gives_an_outcome(give):
    future = RunnerFuture()
    with pytest.raises(InvalidStateError):
        give(future)
    assert future.begin()
    future.deliver_error(OSError("gone"), report=print)
    assert isinstance(future.exception(), OSError)


def test_the_runners_thread_does_not_wait_for_itself():
    future = RunnerFuture()
    future.is_runner_here = lambda: True
    for wait_for in (future.result, future.exception):
        with pytest.raises(UsageError, match="cannot wait for the runner"):
            wait_for()
        with pytest.raises(UsageError):
            wait_for(5.0)
    future.begin()
    future.deliver(7, report=print)
    assert (future.result(), future.exception()) == (7, None)


@pytest.mark.parametrize(
    "ask",
    [
        lambda future: future.result(0),
        lambda future: future.exception(0),
        lambda future: future.done(),
        lambda future: future.cancel(),
        lambda future: future.add_done_callback(print),
    ],
    ids=["result", "exception", "done", "cancel", "add_done_callback"],
)
def test_whoever_is_interrupted_does_not_keep_the_runners_thread_waiting(ask):
    def prepare():
        future = RunnerFuture()

        def do():
            with suppress(TimeoutError):
                ask(future)

        return future, do

    interrupts = 0
    for future in each_interrupt(prepare):
        runners_thread = threading.Thread(target=future.begin, daemon=True)
        runners_thread.start()
        runners_thread.join(30.0)
        assert not runners_thread.is_alive()
        interrupts += 1
    assert interrupts
