"""``busy_wait``: the kernel's idle processors poll while somebody holds a file open.

The file, what is written to it and what it does: Linux, Documentation/power/pm_qos_interface.rst.
"""

import os
import struct
import time
from pathlib import Path

import pytest

from neuronbert import Runner
from neuronbert.errors import BackendFailed, UsageError
from neuronbert.runner import awake
from neuronbert.runner.awake import LATENCY_FILE, AwakeProcessors

POLLING = Path("/sys/devices/system/cpu/cpu0/cpuidle/state0")


def holders():
    """File descriptors of this process that keep processors awake."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{descriptor}") == str(awake.LATENCY_FILE)
        except FileNotFoundError:  # the folder's own
            pass
    return found


@pytest.fixture()
def latency_file(tmp_path, monkeypatch):
    """In place of the kernel's."""
    path = tmp_path / "cpu_dma_latency"
    path.touch()
    monkeypatch.setattr(awake, "LATENCY_FILE", path)
    return path


def test_it_asks_for_no_latency_until_it_is_closed(latency_file):
    processors = AwakeProcessors()
    assert struct.unpack("=i", latency_file.read_bytes()) == (0,)
    assert holders() == 1
    processors.close()
    assert holders() == 0


def test_a_runner_holds_it_as_long_as_it_is_open(latency_file, echo_artifact):
    with Runner(echo_artifact, workers=1, busy_wait=True) as runner:
        assert holders() == 1
        assert runner.submit("Who?", "It was me.").result(30)["answer"]
    assert holders() == 0


def test_no_runner_holds_it_unasked(latency_file, echo_artifact):
    with Runner(echo_artifact, workers=1):
        assert holders() == 0


def test_a_runner_that_cannot_start_lets_go_of_it(latency_file, echo_artifact):
    with pytest.raises(BackendFailed):
        Runner(echo_artifact, workers=1, start_timeout_s=0.001, busy_wait=True)
    assert holders() == 0


def test_where_it_is_not_to_be_had_nothing_is_started(latency_file, echo_artifact):
    latency_file.unlink()
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(UsageError, match="busy_wait: FileNotFoundError") as caught:
        Runner(echo_artifact, workers=1, busy_wait=True)
    assert "--device /dev/cpu_dma_latency" in caught.value.hint
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not os.access(LATENCY_FILE, os.W_OK), reason="this user may not ask for it")
@pytest.mark.skipif(not POLLING.exists(), reason="this kernel does not say how its processors idle")
def test_idle_processors_poll():
    name = (POLLING / "name").read_text().strip()
    if name != "POLL":
        pytest.skip(f"the first idle state is {name}")

    def polled():
        return int((POLLING / "usage").read_text())

    before, processors, deadline = polled(), AwakeProcessors(), time.monotonic() + 5
    try:
        while polled() == before:
            if time.monotonic() > deadline:
                pytest.skip("that processor is never idle")
            time.sleep(0.01)
    finally:
        processors.close()
