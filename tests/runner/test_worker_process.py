import socket

import numpy as np
import pytest

from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.errors import BackendFailed
from neuronbert.runner import worker_process
from neuronbert.runner.messages import BatchFailed, BatchOrder, LoadFailed, WorkerReady
from neuronbert.runner.worker_process import Worker

ORDER = BatchOrder(7, Batch(*[np.ones((1, 4), np.int64)] * 3))


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("not even that")


class Session:
    """Raises what it is told to."""

    def __init__(self, error):
        self.error = error

    def run(self, batch):
        raise self.error


@pytest.fixture()
def worker():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Worker(theirs)


@pytest.mark.parametrize("error", [SystemExit(3), ZeroDivisionError("oops"), Unprintable(), KeyboardInterrupt()])
def test_whatever_a_session_raises_is_an_answer(worker, error):
    worker._session = Session(error)
    answer = worker._run(ORDER)
    assert isinstance(answer, BatchFailed) and answer.number == 7
    assert isinstance(answer.error, BackendFailed) and type(error).__name__ in answer.error.message


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.mark.parametrize(("error", "code"), [(EOFError(), 0), (MemoryError(), 1), (SystemExit(0), 1)])
def test_a_thread_that_cannot_go_on_ends_the_process(worker, monkeypatch, error, code):
    """The batch that it holds would never come back, while the others go on."""

    def end(code):
        raise Ended(code)

    def stop():
        raise error

    monkeypatch.setattr(worker_process.os, "_exit", end)
    monkeypatch.setattr(worker, "_run_received", stop)
    with pytest.raises(Ended) as ended:
        worker._run_or_end()
    assert ended.value.args == (code,)


def test_a_worker_that_cannot_have_its_threads_says_so_before_it_is_given_anything(worker, monkeypatch):
    """It said that it was ready and died of it, and the request that it was given by then was called poison."""
    started, sent = [], []

    def start(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)

    ready = WorkerReady(1, "echo-fp32", ThroughputPlan(4, 8, 4096), concurrency=4, parallel=4, load_s=0.1)
    monkeypatch.setattr(worker_process.threading.Thread, "start", start)
    monkeypatch.setattr(worker, "_load", lambda order: ready)
    monkeypatch.setattr(worker, "_send", sent.append)
    worker.serve(None)
    (said,) = sent
    assert isinstance(said, LoadFailed)
    assert said.error.message == "2 threads of the 3 for a worker's streams could be started: can't start new thread"
    assert "streams=" in said.error.hint
