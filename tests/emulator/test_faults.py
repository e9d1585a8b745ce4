"""Faults by name: when they strike, and what the rest of the contract tests leaves over."""

import pytest

from neuronbert.emulator.faults import EXECUTE, FAULTS, Fault, FaultPlan, parse_faults


@pytest.mark.parametrize("text", ["crash", "crash@5", "crash:once", "nan@2:once"])
def test_a_fault_prints_as_it_was_written(text):
    (fault,) = parse_faults(text)
    assert str(fault) == text


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_strikes_its_own_event_and_no_other(name, tmp_path):
    plan = FaultPlan((Fault(name),), tmp_path)
    event = FAULTS[name][0]
    assert plan.due(event) == name
    assert all(plan.due(other) is None for other in ("compile", "init", "load", "execute") if other != event)


def test_a_fault_can_wait(tmp_path):
    plan = FaultPlan(parse_faults("nan@3"), tmp_path)
    assert [plan.due(EXECUTE) for _ in range(4)] == [None, None, "nan", "nan"]


def test_once_means_once_for_all_processes(tmp_path):
    first, restarted = (FaultPlan(parse_faults("crash:once"), tmp_path) for _ in range(2))
    assert first.due(EXECUTE) == "crash"
    assert restarted.due(EXECUTE) is None


def test_a_crash_kills_the_process(child, tmp_path):
    pytest.importorskip("torch")
    process = child(
        f"""
        from neuronbert import emulator
        emulator.use("inf1.xlarge", directory={str(tmp_path)!r}, faults="crash")
        import torch, torch_neuron
        from models import Dense
        torch.neuron.trace(Dense().eval(), torch.rand(2, 8))(torch.rand(2, 8))
        """
    )
    process.communicate()
    assert process.returncode == -9
