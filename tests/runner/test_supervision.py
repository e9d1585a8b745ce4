import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import wait_until

from neuronbert.errors import BackendFailed
from neuronbert.runner import supervision
from neuronbert.runner.batching import FULL, BatchInFlight, BatchSize
from neuronbert.runner.messages import WorkerReady
from neuronbert.runner.supervision import (
    HALTED,
    HUNG,
    MAX_FAILED_STARTS,
    READY,
    STARTING,
    WAITING,
    WorkerHandle,
    WorkerPlace,
    backoff_s,
    death_by,
)
from neuronbert.runner.suspicion import MAX_DEATHS, Doer


@given(st.integers(1, 10_000))
def test_the_back_off_grows_to_a_limit(failures):
    assert 0.1 <= backoff_s(failures) <= backoff_s(failures + 1) <= 30.0


def test_a_worker_that_was_useful_begins_again():
    worker = WorkerHandle(0, WorkerPlace({}, None, 1, "CPU"))
    waits = [worker.schedule_restart(0.0) for _ in range(4)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8])
    worker.was_useful = True
    assert worker.schedule_restart(5.0) == pytest.approx(0.1)
    assert (worker.state, worker.start_at) == (WAITING, pytest.approx(5.1))


def test_who_ended_it_while_it_loaded_says_whether_it_can_start():
    worker = WorkerHandle(0, WorkerPlace({}, None, 1, "CPU"), start_error=BackendFailed("gone"))
    for _ in range(MAX_FAILED_STARTS - 1):
        worker.failed_starts = worker.failed_starts.plus(Doer.WORKER)
    for _ in range(MAX_DEATHS[Doer.ANYBODY] - 1):
        worker.failed_starts = worker.failed_starts.plus(Doer.ANYBODY)
    assert not worker.cannot_start
    worker.failed_starts = worker.failed_starts.plus(Doer.WORKER)
    assert worker.cannot_start
    worker.became_ready(WorkerReady(1, "echo", None, 1, 1, 0.1), 0.0)
    assert not worker.cannot_start


def batch(number):
    return BatchInFlight(number, [], BatchSize(1, 1, 1, 1), FULL, sent=0.0)


def test_a_worker_with_nothing_to_do_is_not_silent():
    worker = WorkerHandle(0, WorkerPlace({}, None, 1, "CPU"), state=READY, started=1.0)
    assert worker.silent_s(100.0) == 0.0
    worker.give(batch(1), 40.0)
    assert worker.silent_s(100.0) == 60.0
    worker.take_back(1, 100.0)
    assert worker.silent_s(200.0) == 0.0


def test_what_goes_on_beside_a_batch_that_hangs_does_not_hide_it():
    worker = WorkerHandle(0, WorkerPlace({}, None, 1, "CPU"), state=READY, concurrency=2)
    for number in range(1, 20):
        worker.give(batch(number), now=float(number))
        if number > 2:
            worker.take_back(number - 1, now=number + 0.5)
    assert worker.silent_s(20.0) == 19.0  # the first one


def test_a_batch_that_waits_in_the_worker_has_not_begun():
    worker = WorkerHandle(0, WorkerPlace({}, None, 1, "CPU"), state=READY, concurrency=1)
    worker.give(batch(1), 1.0)
    worker.give(batch(2), 2.0)
    worker.take_back(1, 50.0)
    assert worker.silent_s(51.0) == 1.0
    worker.forgive(0.5)
    assert worker.silent_s(51.0) == 0.5


@pytest.fixture()
def loading():
    """A worker whose process is still loading at 1 s."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield WorkerHandle(0, WorkerPlace({}, None, 1, "CPU"), state=STARTING, process=process, started=1.0)
        process.kill()


def test_a_block_that_gets_on_is_no_hang():
    worker = WorkerHandle(0, WorkerPlace({}, None, 1, "GPU"), state=READY)
    worker.give(batch(1), 1.0)
    for now in (50.0, 100.0, 150.0):
        assert worker.silent_s(now) <= 50.0
        assert worker.heard_of(1, now).number == 1
    assert worker.silent_s(211.0) == 61.0


@pytest.mark.parametrize(("sharing", "patience_s"), [(1, 60.0), (8, 480.0)])
def test_who_shares_a_device_may_take_as_many_times_as_long(loading, sharing, patience_s):
    worker = WorkerHandle(0, WorkerPlace({}, None, 1, "GPU", sharing), state=READY, process=loading.process)
    worker.give(batch(1), 0.0)
    assert worker.overdue(patience_s - 1, 600.0, 60.0) is None
    assert worker.overdue(patience_s + 1, 600.0, 60.0) is HUNG


def test_causes_of_death(monkeypatch):
    monkeypatch.setattr(supervision, "oom_kills", lambda: 3)
    assert death_by(0, 3).doer is Doer.ANYBODY  # whoever waited for it has its true code
    assert death_by(9, 3) == ("exited with code 9", Doer.WORKER)
    assert death_by(-signal.SIGSEGV, 3) == ("died of SIGSEGV", Doer.WORKER)
    assert death_by(-signal.SIGKILL, 3) == ("died of SIGKILL: killed from outside", Doer.ANYBODY)
    assert death_by(-signal.SIGUSR1, 3) == ("died of SIGUSR1: killed from outside", Doer.ANYBODY)
    assert death_by(-99, 3) == ("died of signal 99: killed from outside", Doer.ANYBODY)
    out_of_memory = death_by(-signal.SIGKILL, 2)
    assert "ran out of memory" in out_of_memory.cause and out_of_memory.doer is Doer.WORKER


def test_what_the_kernel_killed_before_a_trial_is_not_held_against_the_suspect(monkeypatch):
    kills = iter([3, 4, 4])
    monkeypatch.setattr(supervision, "oom_kills", lambda: next(kills))
    worker = WorkerHandle(0, WorkerPlace({}, None, 1, "CPU"), oom_kills=2)
    worker.begin_trial()
    assert death_by(-signal.SIGKILL, worker.oom_kills).doer is Doer.WORKER
    worker.oom_kills = 4
    assert death_by(-signal.SIGKILL, worker.oom_kills).doer is Doer.ANYBODY


def test_a_process_that_was_stopped_is_told_from_one_that_hangs(loading):
    assert loading.stall() is HUNG
    loading.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: loading.stall() is HALTED)
    loading.process.kill()
    loading.process.wait()
    assert loading.stall() is HUNG


def test_loading_takes_no_longer_than_it_may(loading):
    assert loading.overdue(600.0, 600.0, 60.0) is None
    assert loading.overdue(602.0, 600.0, 60.0) is HUNG
    loading.forgive(10.0)
    assert loading.overdue(602.0, 600.0, 60.0) is None


def test_one_that_is_stopped_while_it_loads_is_no_longer_loading(loading):
    loading.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: loading.stall() is HALTED)
    assert loading.overdue(100.0, 600.0, 60.0) is None
    assert loading.overdue(159.0, 600.0, 60.0) is None
    assert loading.overdue(161.0, 600.0, 60.0) is HALTED
    loading.process.send_signal(signal.SIGCONT)
    wait_until(lambda: loading.stall() is HUNG)
    assert loading.overdue(162.0, 600.0, 60.0) is None
    assert loading.stopped is None


class HeldByTheKernel:
    """A process that no kill ends."""

    def __init__(self):
        self.kills = 0
        self.code = None

    def poll(self):
        return self.code

    def wait(self, timeout):
        raise subprocess.TimeoutExpired("worker", timeout)

    def kill(self):
        self.kills += 1


def test_a_process_that_no_kill_ends_does_not_stop_the_runner():
    worker = WorkerHandle(0, WorkerPlace({}, None, 1, "CPU"), process=HeldByTheKernel())
    assert worker.end() is None
    assert worker.process.kills
    assert death_by(None, 0).doer is Doer.ANYBODY
    # Forgotten before it is gone, it is a ResourceWarning wherever Python's collector runs next (Popen.__del__).
    supervision._reap()
    assert worker.process in supervision._held_by_kernel
    worker.process.code = -signal.SIGKILL
    supervision._reap()
    assert worker.process not in supervision._held_by_kernel
