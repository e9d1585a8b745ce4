"""What a person is told while variants are built; that they are built, tests/compiler/test_compilation.py holds."""

from types import SimpleNamespace

import pytest

from neuronbert import emulator
from neuronbert.backends.neuron.target import NeuronTarget
from neuronbert.compiler import exporter
from neuronbert.compiler.exporter import Exporter


@pytest.mark.parametrize(("state", "warned"), [(None, True), ({"emulated": True}, False)])
def test_a_small_host_is_warned_of_before_neuron_cc_is_started(monkeypatch, tmp_path, state, warned):
    """aws-neuron-sdk#439: neuron-cc was killed for memory; the emulator's compiler takes little."""
    said = []
    monkeypatch.setattr(exporter, "memory_bytes", lambda: 8 << 30)
    monkeypatch.setattr(emulator, "state", lambda: state)
    exporting = Exporter(
        SimpleNamespace(on_step=lambda *_: None), tmp_path, threads=1, tuning_minutes=0, progress=said.append
    )
    monkeypatch.setattr(exporting, "_export_variant", lambda *_: said.append("compiling"))
    target = NeuronTarget.of()
    trial = SimpleNamespace(candidate=SimpleNamespace(backend="neuron"))
    exporting._export_each_bucket(trial, {}, target, target.plan(85_054_464))
    assert said[-1] == "compiling"
    assert any("8.0 GiB" in line and "try:" in line for line in said) is warned
