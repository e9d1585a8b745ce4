import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.runner import supervision
from neuronbert.runner.supervision import READY, WAITING, WorkerHandle, WorkerPlace, backoff_s, cause_of_death


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


def test_a_worker_with_nothing_to_do_does_not_stall():
    worker = WorkerHandle(0, WorkerPlace({}, None, 1, "CPU"), state=READY, last_progress=1.0)
    assert worker.stalled_s(100.0) == 0.0
    worker.in_flight[1] = object()
    assert worker.stalled_s(100.0) == 99.0


def test_causes_of_death(monkeypatch):
    monkeypatch.setattr(supervision, "oom_kills", lambda: 3)
    assert cause_of_death(9, 3, stalled=False) == "exited with code 9"
    assert cause_of_death(-signal.SIGSEGV, 3, stalled=False) == "died of SIGSEGV"
    assert cause_of_death(-signal.SIGKILL, 3, stalled=False) == "died of SIGKILL: killed from outside"
    assert "ran out of memory" in cause_of_death(-signal.SIGKILL, 2, stalled=False)
    assert "hung" in cause_of_death(-signal.SIGKILL, 3, stalled=True)
    assert cause_of_death(-99, 3, stalled=False) == "died of signal 99"
