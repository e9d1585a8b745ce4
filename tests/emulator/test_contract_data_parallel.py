"""Reference §1.5: torch.neuron.DataParallel."""

import warnings

import pytest

torch = pytest.importorskip("torch")

from contract import contract  # noqa: E402
from models import Dense  # noqa: E402


def state(rows):
    return torch.rand(rows, 8, generator=torch.Generator().manual_seed(7))


def compiled(rows=2, cores=1):
    return torch.neuron.trace(Dense().eval(), state(rows), compiler_args=["--neuroncore-pipeline-cores", str(cores)])


def close(left, right):
    return left.shape == right.shape and (left - right).abs().max() < 0.05


@contract("§1.5", "one-worker")
def test_two_workers_a_core(torch_neuron):
    assert torch.neuron.DataParallel(compiled()).num_workers == 8
    assert torch.neuron.DataParallel(compiled(), device_ids=[0, 2]).num_workers == 4


@contract("§1.5", "split-by-two")
def test_a_batch_is_split_over_the_cores(torch_neuron):
    parallel = torch.neuron.DataParallel(compiled())
    assert close(parallel(state(8)), Dense()(state(8)))
    assert parallel.split_size == 2
    parallel(state(2))
    assert parallel.split_size == 1


@contract("§1.5", "all-on-one-core")
def test_every_core_works(torch_neuron):
    from neuronbert.emulator import current

    torch.neuron.DataParallel(compiled())(state(8))
    assert all(current.runtime().counters.per_core(core) for core in range(4))


@contract("§1.5", "device-names-refused")
def test_cores_have_numbers_or_names(torch_neuron):
    assert torch.neuron.DataParallel(compiled(), device_ids=["nc:1", 3]).device_ids == [1, 3]


def test_device_ids_are_relative_to_the_process(start_emulator, monkeypatch):
    start_emulator("inf1.6xlarge")
    monkeypatch.setenv("NEURON_RT_VISIBLE_CORES", "8-9")
    assert torch.neuron.DataParallel(compiled()).device_ids == [0, 1]
    with pytest.raises(ValueError, match="from 0 to 1"):
        torch.neuron.DataParallel(compiled(), device_ids=[8])


@contract("§1.5", "rows-lost")
def test_dynamic_batching_is_automatic(torch_neuron):
    assert close(torch.neuron.DataParallel(compiled(rows=1))(state(11)), Dense()(state(11)))


@contract("§1.5", "dynamic-stays")
def test_without_dynamic_batching_each_core_gets_the_compiled_batch(torch_neuron):
    parallel = torch.neuron.DataParallel(compiled())
    parallel.disable_dynamic_batching()
    assert close(parallel(state(8)), Dense()(state(8)))
    with pytest.raises(RuntimeError, match="dynamic batching is off"):
        parallel(state(9))


@contract("§1.5", "pipelines-accepted")
def test_pipelined_models_are_not_supported(torch_neuron):
    with pytest.raises(RuntimeError, match="compiled with NeuronCore Pipeline"):
        torch.neuron.DataParallel(compiled(cores=2))


@contract("§1.5", "anonymous-core")
def test_a_failure_names_its_core(start_emulator):
    start_emulator(faults="numerical-error")
    parallel = torch.neuron.DataParallel(compiled(), device_ids=[3])
    with pytest.raises(RuntimeError, match=r"Caught RuntimeError on neuroncore 3\."):
        parallel(state(2))


@contract("§1.5", "no-dim-warning")
def test_another_dimension_warns_that_dynamic_batching_is_off(torch_neuron):
    module = compiled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.neuron.DataParallel(module, dim=1)
    assert any("dynamic batching is only possible along dimension 0" in str(warning.message) for warning in caught)
