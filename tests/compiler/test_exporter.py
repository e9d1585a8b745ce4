"""What a person is told while variants are built; that they are built, tests/compiler/test_compilation.py holds."""

from types import SimpleNamespace

import pytest

from neuronbert import emulator
from neuronbert.backends import echo
from neuronbert.backends.neuron.target import NeuronTarget
from neuronbert.compiler import exporter
from neuronbert.compiler.candidates import Candidate
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


def test_auto_leaves_out_what_answers_a_row_by_the_others(monkeypatch, tmp_path):
    monkeypatch.setattr(echo, "batch_invariant", lambda precision: False)
    said = []
    exporting = Exporter(SimpleNamespace(), tmp_path, threads=1, tuning_minutes=0, progress=said.append)
    trial = exporting.build(Candidate("echo", "fp32", explicit=False))
    assert trial.outcome == "not built" and "depend on the other rows" in trial.why
    assert said == [f"echo-fp32: {trial.why}"] and not list(tmp_path.iterdir())
