"""The handler of SIGTERM by itself; test_job.py and test_runner.py send real ones."""

import os
import signal

import pytest

from neuronbert.runner import sigterm


class Ended(Exception):
    """Stands for the end of the process."""


def test_the_signal_that_ends_a_drained_process_is_sent_until_it_does(monkeypatch):
    """One that comes just before the main thread begins to wait interrupts nothing."""
    happened = []

    def kill(pid, number):
        happened.append((pid, number))
        if len(happened) == 4:
            raise Ended

    monkeypatch.setattr(sigterm, "AGAIN_S", 0)
    monkeypatch.setattr(os, "kill", kill)
    handler = sigterm.SigtermHandler(lambda: None, lambda: happened.append("closed"))
    with pytest.raises(Ended):
        handler._drain_and_signal()
    assert happened == ["closed", *[(os.getpid(), signal.SIGTERM)] * 3]
