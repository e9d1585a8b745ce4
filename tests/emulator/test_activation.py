"""The emulator is explicit, announced, inherited by children, and nothing beside a real device."""

import os
import sys
from types import ModuleType

import pytest

from neuronbert import emulator
from neuronbert.emulator import activation, modules
from neuronbert.errors import UsageError


@pytest.fixture(autouse=True)
def off():
    emulator.stop()
    yield
    emulator.stop()


def test_nothing_happens_unasked():
    assert emulator.use_environment() is False
    assert emulator.settings() is None and emulator.state() is None
    assert not any(isinstance(finder, modules.EmulatorFinder) for finder in sys.meta_path)


def test_the_environment_asks(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("NEURONBERT_EMULATE", "inf1.6xlarge")
    monkeypatch.setenv("NEURONBERT_EMULATE_DIR", str(tmp_path))
    monkeypatch.setenv("NEURONBERT_EMULATE_FAULTS", "crash@3:once, nan")
    monkeypatch.setenv("NEURONBERT_EMULATE_UNKNOWNS", "group-sizes=ignored")
    assert emulator.use_environment() is True
    assert emulator.settings().directory == tmp_path
    assert emulator.state() == {
        "emulated": True, "instance_type": "inf1.6xlarge", "timed": False, "release": None,
        "faults": ["crash@3:once", "nan"], "unknowns": ["group-sizes=ignored"],
    }  # fmt: skip
    assert capsys.readouterr().err == (
        "neuronbert: emulating inf1.6xlarge, with faults crash@3:once, nan, assuming group-sizes=ignored; "
        "no Inferentia device is used\n"
    )


def test_it_is_announced_once_and_children_inherit_it(capsys, tmp_path):
    emulator.use("inf1.xlarge", directory=str(tmp_path), unknowns="exec-timeout=2")
    emulator.use("inf1.xlarge", directory=str(tmp_path), unknowns="exec-timeout=2")
    assert capsys.readouterr().err.count("emulating") == 1
    inherited = activation.settings_from(os.environ)
    assert inherited == emulator.settings()


def test_stopping_leaves_no_trace(tmp_path):
    before = dict(os.environ)
    emulator.use("inf1.xlarge", directory=str(tmp_path))
    emulator.stop()
    assert dict(os.environ) == before and "torch_neuron" not in sys.modules


def test_a_real_device_wins_over_use_if_no_device(monkeypatch, tmp_path):
    (tmp_path / "neuron0").touch()
    monkeypatch.setattr(activation, "DEVICE_FILES", str(tmp_path / "neuron[0-9]*"))
    assert emulator.use_if_no_device("inf1.xlarge") is False
    assert emulator.settings() is None
    (tmp_path / "neuron0").unlink()
    assert emulator.use_if_no_device("inf1.xlarge", directory=str(tmp_path)) is True


def test_the_environment_wins_over_use_if_no_device(monkeypatch):
    monkeypatch.setenv("NEURONBERT_EMULATE", "inf1.6xlarge")
    assert emulator.use_if_no_device("inf1.xlarge") is True
    assert emulator.settings().instance == "inf1.6xlarge"


def test_the_real_package_is_never_replaced(monkeypatch):
    real = ModuleType("torch_neuron")
    real.__version__ = "1.13.1.2.11.13.0"
    monkeypatch.setitem(sys.modules, "torch_neuron", real)
    with pytest.raises(RuntimeError, match="the real torch_neuron is imported already"):
        emulator.use("inf1.xlarge")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"instance": "inf1.9xlarge"}, "no instance type 'inf1.9xlarge'"),
        ({"instance": "inf1.xlarge", "faults": "meteor"}, "no fault 'meteor'"),
        ({"instance": "inf1.xlarge", "faults": "crash@0"}, "no fault 'crash@0'"),
        ({"instance": "inf1.xlarge", "unknowns": "weather=fine"}, "nothing is unknown about 'weather'"),
        ({"instance": "inf1.xlarge", "unknowns": "exec-timeout"}, "exec-timeout has no behaviour ''"),
        ({"instance": "inf1.xlarge", "unknowns": "model-argument=class"}, "cannot be emulated: torch takes such"),
        ({"instance": "inf1.xlarge", "release": "9.9", "recorded": "x"}, "no timing for SDK release '9.9'"),
        ({"instance": "inf1.xlarge", "release": "2.20"}, "answers with recorded logits, and was given none"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(options, message):
    with pytest.raises(UsageError, match=message):
        emulator.use(**options)
    assert emulator.settings() is None


def test_another_instance_needs_a_stop_first(tmp_path):
    pytest.importorskip("torch")
    emulator.use("inf1.xlarge", directory=str(tmp_path))
    import torch_neuron  # noqa: F401

    with pytest.raises(RuntimeError, match="stop"):
        emulator.use("inf1.6xlarge", directory=str(tmp_path))
