"""``busy_wait``: the kernel's idle processors poll while somebody holds a file open.

The file, what is written to it and what it does: Linux, Documentation/power/pm_qos_interface.rst. Where they poll:
Documentation/admin-guide/pm/cpuidle.rst, on /sys/devices/system/cpu/cpu*/cpuidle/state* and on current_driver.
"""

import errno
import os
import struct
import time
from pathlib import Path

import pytest

from neuronbert import Runner
from neuronbert.backends.echo import FAULTS_VARIABLE
from neuronbert.cli import main as cli
from neuronbert.errors import BackendFailed, UsageError
from neuronbert.runner import awake, dispatcher
from neuronbert.runner.awake import LATENCY_FILE, PROCESSORS, awake_processors

POLLING = PROCESSORS / "cpu0" / "cpuidle" / "state0"


def holders():
    """File descriptors of this process that keep processors awake."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{descriptor}") == str(awake.LATENCY_FILE)
        except FileNotFoundError:  # the folder's own
            pass
    return found


def open_files():
    return sorted(os.listdir("/proc/self/fd"))


def processors(folder, driver, *states):
    """What Linux shows of a machine whose one processor idles in ``states``."""
    (folder / "cpuidle").mkdir(parents=True)
    (folder / "cpuidle" / "current_driver").write_text(f"{driver}\n")
    for number, state in enumerate(states):
        (folder / "cpu0" / "cpuidle" / f"state{number}").mkdir(parents=True)
        (folder / "cpu0" / "cpuidle" / f"state{number}" / "name").write_text(f"{state}\n")
    return folder


@pytest.fixture()
def latency_file(tmp_path, monkeypatch):
    """In place of the kernel's, on a machine that heeds it."""
    path = tmp_path / "cpu_dma_latency"
    path.touch()
    monkeypatch.setattr(awake, "LATENCY_FILE", path)
    monkeypatch.setattr(awake, "PROCESSORS", processors(tmp_path / "cpu", "intel_idle", "POLL", "C1", "C6"))
    return path


def test_it_asks_for_no_latency_until_the_end_of_the_block(latency_file):
    with awake_processors():
        assert struct.unpack("=i", latency_file.read_bytes()) == (0,)
        assert holders() == 1
    assert holders() == 0


def test_a_runner_holds_it_as_long_as_it_is_open(latency_file, echo_artifact):
    with Runner(echo_artifact, workers=1, busy_wait=True) as runner:
        assert holders() == 1
        assert runner.submit("Who?", "It was me.").result(30)["answer"]
    assert holders() == 0


def test_no_runner_holds_it_unasked(latency_file, echo_artifact):
    with Runner(echo_artifact, workers=1):
        assert holders() == 0


def test_a_runner_that_cannot_start_lets_go_of_it(latency_file, faulty_artifact, monkeypatch):
    monkeypatch.delenv(FAULTS_VARIABLE)  # without it no worker can load that artifact
    with pytest.raises(BackendFailed):
        Runner(faulty_artifact, workers=1, busy_wait=True)
    assert holders() == 0


def test_so_does_one_that_gets_no_pipe(latency_file, echo_artifact, monkeypatch):
    def inbox():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(dispatcher, "Inbox", inbox)
    before = open_files()
    with pytest.raises(OSError, match="Too many open files"):
        Runner(echo_artifact, workers=1, busy_wait=True)
    assert open_files() == before


def test_so_does_one_that_gets_no_thread(latency_file, echo_artifact, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    before = open_files()
    monkeypatch.setattr(dispatcher.threading.Thread, "start", start)
    with pytest.raises(BackendFailed, match="^the runner's thread cannot be started: can't start new thread") as caught:
        Runner(echo_artifact, workers=1, busy_wait=True)
    assert "ulimit -u" in caught.value.hint
    assert open_files() == before


def test_so_does_one_that_is_interrupted_before_its_thread_is_there(latency_file, echo_artifact, monkeypatch):
    def start(thread):
        raise KeyboardInterrupt

    before = open_files()
    monkeypatch.setattr(dispatcher.threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        Runner(echo_artifact, workers=1, busy_wait=True)
    assert open_files() == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_so_does_one_whose_end_fails(latency_file, echo_artifact, monkeypatch):
    runner = Runner(echo_artifact, workers=1, busy_wait=True)
    end_all = runner._dispatcher._pool.end_all

    def end_and_fail():
        end_all()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(runner._dispatcher._pool, "end_all", end_and_fail)
    runner.close()
    assert holders() == 0 and runner._dispatcher.has_ended


def test_where_it_is_not_to_be_had_nothing_is_started(latency_file, echo_artifact):
    latency_file.unlink()
    before = open_files()
    with pytest.raises(UsageError, match="busy_wait: FileNotFoundError") as caught:
        Runner(echo_artifact, workers=1, busy_wait=True)
    assert "--device /dev/cpu_dma_latency" in caught.value.hint
    assert open_files() == before and not latency_file.exists()


def test_where_it_cannot_be_written_it_is_let_go_of(latency_file, monkeypatch):
    """/dev/full: can be opened, and takes nothing (man 4 full)."""
    monkeypatch.setattr(awake, "LATENCY_FILE", Path("/dev/full"))
    with pytest.raises(UsageError, match="busy_wait: OSError: .*No space left on device"), awake_processors():
        pass
    assert holders() == 0


@pytest.mark.parametrize(
    ("driver", "states"),
    [("none", []), ("psci_idle", ["WFI", "cpu-sleep"]), ("acpi_idle", ["C1", "POLL"])],
)
def test_where_it_would_do_nothing_it_is_refused(latency_file, tmp_path, monkeypatch, driver, states):
    monkeypatch.setattr(awake, "PROCESSORS", processors(tmp_path / "other", driver, *states))
    with pytest.raises(UsageError, match=rf"no processor .* can poll .* \(cpuidle driver: {driver}\)") as caught:
        with awake_processors():
            pass
    assert "modprobe cpuidle_haltpoll force=1" in caught.value.hint
    assert latency_file.read_bytes() == b""


def test_so_it_is_where_the_kernel_says_nothing_of_it(latency_file, tmp_path, monkeypatch):
    monkeypatch.setattr(awake, "PROCESSORS", tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"\(cpuidle driver: none\)"), awake_processors():
        pass


@pytest.mark.parametrize("verb", ["run", "benchmark"])
def test_the_option_is_refused_with_what_to_do(latency_file, echo_artifact, tmp_path, capsys, verb):
    latency_file.unlink()
    arguments = [verb, str(echo_artifact.folder), "--busy-wait"]
    if verb == "run":
        (tmp_path / "questions.jsonl").write_text('{"question": "Who?", "context": "It was me."}\n')
        arguments += ["--input", str(tmp_path / "questions.jsonl"), "--output", str(tmp_path / "answers.jsonl")]
    assert cli.run(arguments) == UsageError.exit_code
    captured = capsys.readouterr()
    said, hint = captured.err.strip().splitlines()[-2:]
    assert said.startswith("error: busy_wait: FileNotFoundError: ") and hint.startswith("  try: as root, ")
    assert captured.out == "" and not list(tmp_path.glob("answers.jsonl*"))


def test_the_option_reaches_the_runner(latency_file, echo_artifact, tmp_path, capsys):
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions.write_text('{"question": "Who?", "context": "It was me."}\n')
    arguments = ["run", str(echo_artifact.folder), "--input", str(questions), "--output", str(answers), "--busy-wait"]
    assert cli.run(arguments) == 0
    assert struct.unpack("=i", latency_file.read_bytes()) == (0,)
    assert holders() == 0 and len(answers.read_text().splitlines()) == 1


@pytest.mark.skipif(not os.access(LATENCY_FILE, os.W_OK), reason="this user may not ask for it")
@pytest.mark.skipif(not POLLING.exists(), reason="this kernel does not say how its processors idle")
def test_idle_processors_poll():
    name = (POLLING / "name").read_text().strip()
    if name != "POLL":
        pytest.skip(f"the first idle state is {name}")

    def entered(state):
        return int((POLLING.parent / state / "usage").read_text())

    def polled():
        return entered("state0")

    def slept():
        return sum(entered(state.name) for state in POLLING.parent.glob("state*")) - polled()

    with awake_processors():
        time.sleep(0.01)  # a processor that slept when it was asked has woken up by now
        before, slept_before, deadline = polled(), slept(), time.monotonic() + 5
        while polled() == before:
            if time.monotonic() > deadline:
                assert slept() == slept_before, "it was idle, and did not poll"
                pytest.skip("that processor is never idle")
            time.sleep(0.01)
