"""Signals: what runs is interrupted and leaves nothing half-made; what has ended ends as it would have."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest

from neuronbert.cli.main import run
from neuronbert.errors import BackendFailed


def test_an_interrupt_during_the_imports_is_one():
    code = """import sys
class Interrupts:
    def find_spec(self, name, *_):
        if name == "click":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from neuronbert.__main__ import main
main()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def heed_hangups():
    """In the child: SIGHUP as usual, even where the tests run under nohup; stdin is its terminal if it can be."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if os.isatty(0) and os.getsid(0) == os.getpid():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def compile_command(checkpoint, output):
    return [sys.executable, "-m", "neuronbert", "compile", checkpoint, output, "--backend", "echo"]


@pytest.mark.parametrize("signs", [[signal.SIGINT], [signal.SIGHUP, signal.SIGTERM, signal.SIGHUP]])
def test_a_signal_during_compile_leaves_nothing(tmp_path, tiny_checkpoint, signs):
    command = compile_command(tiny_checkpoint, tmp_path / "out")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_hangups) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "answering" in line)
        assert any("partial" in name for name in os.listdir(tmp_path))
        for sign in signs:
            process.send_signal(sign)
        assert process.wait(timeout=120) == 130
        assert process.stderr.read().strip().splitlines()[-1] == "interrupted"
    assert os.listdir(tmp_path) == []


def test_a_terminal_that_is_closed_during_compile_leaves_nothing(tmp_path, tiny_checkpoint):
    ours, its = pty.openpty()
    process = subprocess.Popen(
        compile_command(tiny_checkpoint, tmp_path / "out"),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=heed_hangups,
    )
    os.close(its)
    said = b""
    while b"answering" not in said:
        said += os.read(ours, 4096)
    assert any("partial" in name for name in os.listdir(tmp_path))
    os.close(ours)
    assert process.wait(timeout=120) == 130
    assert os.listdir(tmp_path) == []


def test_nohup_is_respected(tmp_path, tiny_checkpoint, monkeypatch, capsys):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        def load(folder, **_):
            os.kill(os.getpid(), signal.SIGHUP)
            raise BackendFailed("went on")

        monkeypatch.setattr("neuronbert.artifact.manifest.load_artifact", load)
        assert run(["inspect", "some/artifact"]) == BackendFailed.exit_code
        assert "went on" in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("made_of_it", [KeyboardInterrupt, BackendFailed, RuntimeError])
def test_an_interrupt_is_one_whatever_a_library_makes_of_it(capsys, monkeypatch, request, made_of_it):
    # A shell starts what runs in its background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def load(folder, **_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt as error:
            raise made_of_it("the callback failed") from error

    monkeypatch.setattr("neuronbert.artifact.manifest.load_artifact", load)
    assert run(["inspect", "some/artifact"]) == 130
    said = capsys.readouterr()
    assert (said.out, said.err.strip()) == ("", "interrupted")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


MAIN = """
from neuronbert.cli.main import main
main(sys.argv[1:])"""
# Python's own end takes a tenth of a second, and longer here, after Python has given up its handlers.
SLOW_END = """import os, sys, time
class End:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(2, b"ended\\n")
        sleep(1)
end = End()"""
# A library's thread, which Python waits for.
ENDLESS = """import sys, threading, time
def hang():
    threading.main_thread().join()
    print("ended", file=sys.stderr, flush=True)
    time.sleep(600)
threading.Thread(target=hang).start()"""
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


def started(before, *arguments):
    """A command line in a process of its own, with pipes for what it prints."""
    return subprocess.Popen(
        [sys.executable, "-c", before + MAIN, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_hangups,
    )


@pytest.mark.parametrize("sign", SIGNALS)
def test_a_signal_after_the_result_changes_nothing(echo_artifact, sign):
    arguments = ("answer", echo_artifact.folder, "--question", "Who?", "--context", "It was me.", "--json")
    with started(SLOW_END, *arguments) as process:
        assert process.stderr.readline() == "ended\n"
        process.send_signal(sign)
        assert (process.wait(timeout=60), process.stderr.read()) == (0, "")
        assert "answer" in json.load(process.stdout)


def test_nor_does_one_after_another(tmp_path, tiny_checkpoint):
    with started(SLOW_END, *compile_command(tiny_checkpoint, tmp_path / "out")[3:], "--json") as process:
        next(line for line in process.stderr if "answering" in line)
        process.send_signal(signal.SIGTERM)
        next(line for line in process.stderr if line == "ended\n")
        process.send_signal(signal.SIGINT)
        assert (process.wait(timeout=60), process.stderr.read()) == (130, "")
        assert json.load(process.stdout)["exit_code"] == 130
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("sign", SIGNALS)
def test_nor_does_one_while_an_error_is_being_said(tmp_path, capsys, monkeypatch, sign):
    monkeypatch.setattr("neuronbert.cli.boundary.note", lambda _: os.kill(os.getpid(), sign))
    before = [signal.getsignal(number) for number in SIGNALS]
    assert run(["inspect", str(tmp_path / "missing"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["exit_code"] == 1
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("sign", SIGNALS)
def test_a_process_that_hangs_at_its_end_is_ended_by_a_signal_with_the_exit_code_it_has(tmp_path, sign):
    with started(ENDLESS, "inspect", tmp_path / "missing", "--json") as process:
        next(line for line in process.stderr if line == "ended\n")
        for _ in range(600):  # those of the first second change nothing
            process.send_signal(sign)
            time.sleep(0.1)
            if process.poll() is not None:
                break
        process.kill()
        assert (process.returncode, process.stderr.read()) == (1, "")
        assert json.load(process.stdout)["exit_code"] == 1
