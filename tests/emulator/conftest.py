"""A fresh emulator for each test, and child processes that share its cores."""

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from neuronbert import emulator  # noqa: E402

REPOSITORY = HERE.parent.parent


@pytest.fixture(autouse=True)
def no_neuron_variables(monkeypatch):
    for name in list(os.environ):
        if name.startswith("NEURON"):
            monkeypatch.delenv(name)


@pytest.fixture
def start_emulator(tmp_path):
    """Turns an emulator on, and gives torch_neuron; stopping it afterwards gives everything back."""

    def start(instance="inf1.xlarge", **options):
        emulator.stop()
        emulator.use(instance, directory=str(options.pop("directory", tmp_path / "emulator")), **options)
        import torch_neuron

        return torch_neuron

    pytest.importorskip("torch")
    yield start
    emulator.stop()


@pytest.fixture
def torch_neuron(start_emulator):
    """torch_neuron on an emulated inf1.xlarge."""
    return start_emulator()


@pytest.fixture
def neuron_log(caplog):
    caplog.set_level(logging.INFO, logger="Neuron")
    return caplog


@pytest.fixture
def child(tmp_path):
    """Runs Python in a process of its own, with the same defect and the same cores."""

    def start(code, environment=(), stdin=None):
        prelude = f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(REPOSITORY)!r}]\nimport mutations\n"
        prelude += "mutations.break_this_process()\n"
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", prelude + textwrap.dedent(code)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **dict(environment)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    started = []

    def run(*arguments, **named):
        process = start(*arguments, **named)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
