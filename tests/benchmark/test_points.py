"""Which points a sweep has: options as people type them, over variants with dynamic and with static shapes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neuronbert.benchmark.points import (
    CLOSED,
    OFFLINE,
    OPEN,
    Axes,
    LoadSpec,
    loads_of,
    numbers,
    settings_of,
    template_variant,
    whole_numbers,
)
from neuronbert.errors import ArtifactError, UsageError

ONE = [LoadSpec(CLOSED, 1)]
CPU = {"name": "openvino-int8", "backend": "openvino", "precision": "int8", "batch_size": None,
       "sequence_length": None, "pipeline_cores": None}  # fmt: skip


def neuron(batch_size, sequence_length, cores):
    name = f"neuron-b{batch_size}-s{sequence_length}-p{cores}"
    return {"name": name, "backend": "neuron", "precision": "fp16", "batch_size": batch_size,
            "sequence_length": sequence_length, "pipeline_cores": cores}  # fmt: skip


def shapes(settings):
    return [(one.variant, one.batch_size, one.sequence_length, one.text) for one in settings]


def test_dynamic_shapes_take_what_is_asked():
    assert shapes(settings_of([CPU], Axes(), ONE)) == [("openvino-int8", 8, None, True)]
    settings = settings_of([CPU], Axes(batch_size="1,4", sequence_length="128", workers="1,2", threads="1"), ONE)
    assert [(one.batch_size, one.workers, one.threads, one.text) for one in settings] == [
        (1, 1, 1, False),
        (1, 2, 1, False),
        (4, 1, 1, False),
        (4, 2, 1, False),
    ]


def test_static_shapes_are_those_that_were_compiled():
    compiled = [neuron(1, 128, 1), neuron(6, 128, 1)]
    assert shapes(settings_of(compiled, Axes(), ONE)) == [
        ("neuron-b1-s128-p1", 1, 128, True),
        ("neuron-b6-s128-p1", 6, 128, True),
    ]


def test_without_an_axis_only_the_chosen_shapes_are_measured():
    settings = settings_of([neuron(1, 128, 1), neuron(4, 128, 4)], Axes(), ONE)
    assert [one.variant for one in settings] == ["neuron-b1-s128-p1", "neuron-b4-s128-p4"]


def test_static_shapes_that_are_missing_are_named():
    settings = settings_of([neuron(1, 128, 1)], Axes(batch_size="1,4", neuroncore_pipeline_cores="1,4"), ONE)
    assert [(one.variant, one.mode) for one in settings] == [
        ("neuron-b1-s128-p1", "data-parallel"),
        ("neuron-b1-s128-p4", "pipeline"),
        ("neuron-b4-s128-p1", "data-parallel"),
        ("neuron-b4-s128-p4", "pipeline"),
    ]


def test_a_shape_is_compiled_like_one_of_its_backend_and_a_variant_is_its_own_template():
    quick = {**CPU, "name": "quick"}
    tuned = {"name": "tvm-b1-s128", "backend": "tvm", "precision": "fp32", "batch_size": 1,
             "sequence_length": 128, "pipeline_cores": None}  # fmt: skip
    (alone,) = settings_of([quick], Axes(), ONE)
    assert template_variant([CPU, quick], alone) is quick
    settings = settings_of([tuned], Axes(sequence_length="128,256"), ONE)
    assert [one.variant for one in settings] == ["tvm-b1-s128", "tvm-b1-s256"]
    assert [template_variant([quick, tuned], one) for one in settings] == [tuned, tuned]
    with pytest.raises(ArtifactError, match="no variant whose recipe neuron-b1-s128-p1 could follow"):
        template_variant([CPU, quick, tuned], settings_of([neuron(1, 128, 1)], Axes(), ONE)[0])


def test_cores_on_a_cpu_are_refused():
    with pytest.raises(UsageError, match="no NeuronCores"):
        settings_of([CPU], Axes(neuroncore_pipeline_cores="4"), ONE)


def test_threads_on_neuron_cores_are_refused():
    with pytest.raises(UsageError, match="--threads is for CPUs"):
        settings_of([neuron(1, 128, 1)], Axes(threads="2"), ONE)


def test_loads():
    assert loads_of(None, "1,2", "", loadgen=False) == [LoadSpec(CLOSED, 1), LoadSpec(CLOSED, 2)]
    assert loads_of(None, "", "", loadgen=False) == [LoadSpec(CLOSED, number) for number in (1, 2, 4, 8, 16)]
    assert loads_of(None, "", "50:100:50", loadgen=False) == [LoadSpec(OPEN, 50), LoadSpec(OPEN, 100)]
    assert loads_of("server", "", "", loadgen=False) == [LoadSpec(OFFLINE, None), LoadSpec(OPEN, None)]
    assert loads_of("offline", "", "", loadgen=True) == [LoadSpec(OFFLINE, None)]
    assert loads_of(None, "", "", loadgen=True) == [LoadSpec(CLOSED, 1), LoadSpec(OFFLINE, None), LoadSpec(OPEN, None)]
    assert loads_of(None, "", "40", loadgen=True) == [LoadSpec(CLOSED, 1), LoadSpec(OFFLINE, None), LoadSpec(OPEN, 40)]


@pytest.mark.parametrize(
    ("scenario", "concurrency", "rate", "loadgen"),
    [("offline", "4", "", False), (None, "4", "50", False), (None, "4", "", True), ("offline", "", "50", False)],
)
def test_options_that_contradict_each_other_are_refused(scenario, concurrency, rate, loadgen):
    with pytest.raises(UsageError, match="asks otherwise|is for the server scenario"):
        loads_of(scenario, concurrency, rate, loadgen=loadgen)


@pytest.mark.parametrize("concurrency", ["20000", "1,4097", "1:99999999999"])
def test_more_clients_than_a_machine_has_threads_for_are_refused(concurrency):
    with pytest.raises(UsageError, match="--concurrency is .*, and a benchmark has at most 4,096 clients"):
        loads_of(None, concurrency, "", loadgen=False)


def test_numbers():
    assert numbers("1,2,4", "x") == [1, 2, 4]
    assert numbers("1:16", "x") == [1, 2, 4, 8, 16]
    assert numbers("50:400:150,3", "x") == [50, 200, 350, 3]
    assert numbers("", "x") == []
    for text in ("a", "4:1", "1:2:0", "1:2:3:4", "-1", ",", "inf", "nan", "1:1e9:1", "1e-300:1e300", "1:1e308:1e-10"):
        with pytest.raises(UsageError, match="x is"):
            numbers(text, "x")
    with pytest.raises(UsageError, match="must be whole"):
        whole_numbers("1.5", "x")


@given(st.integers(1, 1000), st.integers(0, 999), st.integers(1, 300))
@example(1, 999, 1)
@example(7, 0, 1)
def test_a_range_has_its_steps(first, more, step):
    assert numbers(f"{first}:{first + more}:{step}", "x") == list(range(first, first + more + 1, step))
