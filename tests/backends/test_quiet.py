"""What libraries print, log and report is kept away, and everything else is as it was afterwards."""

import importlib
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import List

import pytest

from neuronbert.backends.quiet import hidden_module, silence_tracing_warnings, stdout_discarded, stdout_to_stderr
from neuronbert.hardware.machine import library_version


def test_what_native_code_prints_inside_goes_to_stderr_and_afterwards_to_stdout(
    capfd: pytest.CaptureFixture[str],
) -> None:
    print("before")
    with stdout_to_stderr():
        print("from Python")
        os.write(1, b"from native code\n")
        os.system("echo from a child")
    print("after")
    out, err = capfd.readouterr()
    assert out.split("\n") == ["before", "after", ""]
    assert sorted(err.split("\n")) == ["", "from Python", "from a child", "from native code"]


def test_what_is_printed_inside_can_go_nowhere_and_errors_are_still_told(capfd: pytest.CaptureFixture[str]) -> None:
    with stdout_discarded():
        print("from Python")
        os.write(1, b"from native code\n")
        print("an error", file=sys.stderr)
    print("after")
    assert capfd.readouterr() == ("after\n", "an error\n")


def test_stdout_is_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        with stdout_to_stderr():
            raise OSError("no room")
    except OSError:
        os.write(1, b"here\n")
    assert capfd.readouterr().out == "here\n"


def test_a_hidden_module_cannot_be_imported_and_comes_back() -> None:
    with hidden_module("tabnanny"):
        with pytest.raises(ImportError):
            import tabnanny  # noqa: F401
    assert "tabnanny" not in sys.modules
    with hidden_module("json"):
        import json  # loaded before: left as it is
    assert json.loads("1") == 1


def test_a_hidden_module_is_there_for_other_threads() -> None:
    with hidden_module("tabnanny"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(importlib.import_module, "tabnanny").result().__name__ == "tabnanny"
        import tabnanny  # noqa: F401  # another thread has imported it
    del sys.modules["tabnanny"]


TVM_IN_THREADS = """
import os, sys, threading
from neuronbert.backends.quiet import import_tvm_runtime
faults = []
def guarded(function):
    def run():
        try:
            function()
        except BaseException as error:
            faults.append(repr(error))
    return threading.Thread(target=run)
def other():
    import torch
threads = [guarded(import_tvm_runtime) for _ in range(4)] + [guarded(other)]
before = dict(os.environ)
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert faults == [], faults
assert os.environ == before
"""


@pytest.mark.skipif(library_version("apache-tvm") is None, reason="apache-tvm is not installed")
def test_tvm_is_imported_beside_other_imports_and_leaves_the_environment_alone() -> None:
    done = subprocess.run([sys.executable, "-c", TVM_IN_THREADS], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


class Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: List[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def test_only_the_one_message_of_transformers_is_held_back() -> None:
    recorder = Recorder()
    log = logging.getLogger("transformers.modeling_utils")
    log.addHandler(recorder)  # transformers' own loggers do not hand on
    try:
        with silence_tracing_warnings():
            log.warning("`loss_type=None` was set in the config but it is unrecognized.")
            log.warning("weights are missing")
        log.warning("`loss_type=None` later")
    finally:
        log.removeHandler(recorder)
    assert recorder.messages == ["weights are missing", "`loss_type=None` later"]
