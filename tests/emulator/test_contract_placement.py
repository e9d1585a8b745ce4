"""Reference §1.8: which cores a model gets, and what torch_neuron.experimental changes."""

import io

import pytest
from contract import contract
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.emulator.placement import NotEnoughCores, Placer


def layout(cores, widths, groups=None):
    placer = Placer(cores, groups)
    return [(run[0], run[-1]) for run in map(placer.place, widths)]


@contract("§1.8", "first-core-always")
def test_two_visible_cores():
    assert layout(2, [1, 2, 1]) == [(0, 0), (0, 1), (1, 1)]


@contract("§1.8", "groups-in-order")
def test_groups_of_three_four_and_one():
    assert layout(8, [3, 4, 1], (3, 4, 1)) == [(0, 2), (3, 6), (7, 7)]


@contract("§1.8", "groups-ignored")
def test_two_groups_of_two_wrap_round():
    assert layout(8, [2, 2, 1, 1, 1], (2, 2)) == [(0, 1), (2, 3), (0, 0), (2, 2), (0, 0)]


@contract("§1.8", "wide-model-refused")
def test_a_model_wider_than_every_group_goes_across_them():
    assert layout(8, [3], (2, 2)) == [(0, 2)]


@contract("§1.8", "first-core-always")
def test_models_go_linearly_to_the_least_used_cores():
    assert layout(4, [1, 1, 1, 1, 1]) == [(0, 0), (1, 1), (2, 2), (3, 3), (0, 0)]
    assert layout(8, [2, 2, 2, 2]) == [(0, 1), (2, 3), (4, 5), (6, 7)]


@given(st.integers(1, 16), st.lists(st.integers(1, 4), max_size=12))
def test_every_model_is_within_the_cores_and_use_is_counted(cores, widths):
    placer = Placer(cores)
    placed = []
    for width in widths:
        if width > cores:
            with pytest.raises(NotEnoughCores):
                placer.place(width)
            continue
        run = placer.place(width)
        assert 0 <= run[0] and run[-1] < cores and len(run) == width
        placed.append(run)
    assert sum(placer.used) == sum(len(run) for run in placed)
    for run in placed:
        placer.release(run)
    assert set(placer.used) <= {0}


# ---------------------------------------------------------------------------- on the device

torch = pytest.importorskip("torch")

from models import Dense, reload  # noqa: E402

STATE = torch.rand(2, 8)


def compiled(cores=1, layers=2):
    return torch.neuron.trace(
        Dense(layers, layers).eval(), STATE, compiler_args=["--neuroncore-pipeline-cores", str(cores)]
    )


def cores_of(module):
    from neuronbert.emulator import compiled_ops

    (payload,) = compiled_ops.payloads_of(module).values()
    return [(replica.cores[0], replica.cores[-1]) for replica in compiled_ops.loaded(payload).replicas]


@contract("§1.8", "first-core-always")
def test_each_load_takes_the_next_core(torch_neuron):
    first, second, third = (reload(compiled()) for _ in range(3))
    assert [cores_of(module) for module in (first, second, third)] == [[(0, 0)], [(1, 1)], [(2, 2)]]


def test_one_module_shared_by_threads_uses_one_core(torch_neuron):
    from concurrent.futures import ThreadPoolExecutor

    module = reload(compiled())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: module(STATE), range(16)))
    assert cores_of(module) == [(0, 0)]


@contract("§1.8", "one-replica")
def test_more_cores_than_a_model_needs_make_replicas(start_emulator, monkeypatch):
    torch_neuron = start_emulator("inf1.6xlarge")
    monkeypatch.setenv("NEURON_RT_NUM_CORES", "8")
    module = reload(compiled(2))
    torch_neuron.experimental.set_neuron_cores(module, 2, 4)
    assert cores_of(module) == [(2, 3), (4, 5)]


@contract("§1.8", "no-round-robin")
def test_replicas_are_used_in_turn(torch_neuron):
    from neuronbert.emulator import current

    module = reload(compiled())
    torch_neuron.experimental.set_multicore(module)
    for _ in range(8):
        module(STATE)
    assert [current.runtime().counters.per_core(core) for core in range(4)] == [2, 2, 2, 2]


@contract("§1.8", "context-ignored")
def test_a_context_matters_during_load(torch_neuron):
    source = compiled()
    with torch_neuron.experimental.neuron_cores_context(start_nc=3):
        module = reload(source)
    assert cores_of(module) == [(3, 3)]


@contract("§1.8", "context-leaks")
def test_a_context_matters_only_during_load(torch_neuron):
    source = compiled()
    before = reload(source)
    with torch_neuron.experimental.neuron_cores_context(start_nc=3):
        assert cores_of(before) == [(0, 0)]
    assert cores_of(reload(source)) == [(1, 1)]


@contract("§1.8", "context-ignored")
def test_the_multicore_context_replicates_over_all_cores(torch_neuron):
    source = compiled()
    with torch_neuron.experimental.multicore_context():
        module = reload(source)
    assert cores_of(module) == [(core, core) for core in range(4)]


@contract("§1.8", "multicore-is-one")
def test_set_multicore_replicates_over_all_cores(torch_neuron):
    module = reload(compiled(2))
    torch_neuron.experimental.set_multicore(module)
    assert cores_of(module) == [(0, 1), (2, 3)]


@contract("§1.8", "set-cores-ignored")
def test_set_neuron_cores_unloads_and_reloads(torch_neuron):
    module = reload(compiled())
    assert cores_of(module) == [(0, 0)]
    torch_neuron.experimental.set_neuron_cores(module, 2)
    assert cores_of(module) == [(2, 2)]


@contract("§1.8", "any-count")
@pytest.mark.parametrize("count", [1, 5])
def test_an_nc_count_that_cannot_be_is_a_value_error(torch_neuron, count):
    with pytest.raises(ValueError, match="nc_count"):
        torch_neuron.experimental.set_neuron_cores(reload(compiled(2)), 0, count)


@pytest.mark.parametrize("start, count", [(-2, -1), (0, 0), (0, -2)])
def test_nonsense_placements_are_value_errors(torch_neuron, start, count):
    with pytest.raises(ValueError):
        torch_neuron.experimental.set_neuron_cores(reload(compiled()), start, count)


def test_a_runtime_that_cannot_start_is_a_runtime_error(start_emulator, capfd):
    torch_neuron = start_emulator(faults="no-driver")
    with pytest.raises(RuntimeError, match="could not be initialized"):
        torch_neuron.experimental.set_neuron_cores(compiled(), 0)


@contract("§1.8", "nothing-unloaded")
def test_a_module_that_is_gone_leaves_its_core(torch_neuron):
    import gc

    module = reload(compiled())
    assert cores_of(module) == [(0, 0)]
    other = reload(compiled())
    assert cores_of(other) == [(1, 1)]
    del module
    gc.collect()
    assert cores_of(reload(compiled())) == [(0, 0)]


@contract("§0.4", "same-load-twice")
def test_each_load_of_a_file_is_a_load_of_its_own(torch_neuron):
    buffer = io.BytesIO()
    torch.jit.save(compiled(), buffer)
    modules = []
    for _ in range(4):
        buffer.seek(0)
        modules.append(torch.jit.load(buffer))
    assert sorted(cores_of(module)[0][0] for module in modules) == [0, 1, 2, 3]
