"""Core layouts: the instance table, the pipeline formula, each worker's environment, device memory."""

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import UsageError
from neuronbert.hardware import cores

BERT_BASE, BERT_LARGE, DISTILBERT = 85_054_464, 302_309_376, 42_527_232
instances = st.sampled_from(sorted(cores.INSTANCE_TYPES))


@pytest.mark.parametrize(
    "name, chips, total, vcpus, host, device, price",
    [
        ("inf1.xlarge", 1, 4, 4, 8, 8, 0.228),
        ("inf1.2xlarge", 1, 4, 8, 16, 8, 0.362),
        ("inf1.6xlarge", 4, 16, 24, 48, 32, 1.18),
        ("inf1.24xlarge", 16, 64, 96, 192, 128, 4.721),
    ],
)
def test_the_instance_table(name, chips, total, vcpus, host, device, price):
    instance = cores.instance_type(name)
    assert (instance.chips, instance.cores, instance.vcpus) == (chips, total, vcpus)
    assert (instance.host_memory_gib, instance.device_memory_gib) == (host, device)
    assert instance.usd_per_hour == price
    assert instance.prices[0].region == "us-east-1" and instance.prices[0].date


@pytest.mark.parametrize("name, price", [("inf1.xlarge", 0.368), ("inf1.6xlarge", 1.904)])
def test_the_prices_of_2021_are_kept_beside_the_newer_ones(name, price):
    assert cores.instance_type(name).prices[1].usd_per_hour == price
    assert cores.instance_type(name).prices[1].date.startswith("2021")


def test_an_unknown_instance_names_the_known_ones():
    with pytest.raises(UsageError, match="inf1.3xlarge.*\n.*inf1.xlarge"):
        cores.instance_type("inf1.3xlarge")


@pytest.mark.parametrize(
    "weights, expected",
    [(BERT_BASE, 16), (BERT_LARGE, 60), (DISTILBERT, 8), (1_000_000, 1), (9_999_999, 1), (10_000_000, 4),
     (29_999_999, 4), (30_000_000, 8), (90_000_000, 20), (110_000_000, 24), (2e7, 4), (1e12, 64)],
)  # fmt: skip
def test_the_pipeline_formula_rounds_half_up_with_a_floor_and_a_ceiling(weights, expected):
    assert cores.pipeline_cores(weights) == expected


@pytest.mark.parametrize("available, expected", [(4, 4), (16, 16), (64, 60), (1, 1)])
def test_the_formula_is_clamped_to_the_instance(available, expected):
    assert cores.pipeline_cores(BERT_LARGE, available) == expected


@given(st.integers(1, 10**10), st.integers(1, 64))
def test_the_formula_always_answers_between_one_and_the_cores_there_are(weights, available):
    chosen = cores.pipeline_cores(weights, available)
    assert 1 <= chosen <= available
    assert chosen == min(available, max(1, 4 * math.floor(weights / 2e7 + 0.5)))


@pytest.mark.parametrize("weights", [0, -1, float("nan"), float("inf"), "many", None, True, 1.5])
def test_a_number_of_weights_that_is_none_is_refused(weights):
    with pytest.raises(UsageError, match="number of parameters"):
        cores.pipeline_cores(weights)


@pytest.mark.parametrize(
    "weights, available, asked, sentence",
    [
        (BERT_BASE, 16, None, "16 pipeline cores: 4 * round(85,054,464 / 2e7) = 16"),
        (BERT_LARGE, 16, None,
         "16 pipeline cores: 4 * round(302,309,376 / 2e7) = 60, clamped to at most the 16 cores there are"),
        (1_000_000, 4, None, "1 pipeline cores: 4 * round(1,000,000 / 2e7) = 0, clamped to at least 1"),
        (BERT_BASE, 16, 4, "4 pipeline cores as asked (the formula says 4 * round(85,054,464 / 2e7) = 16)"),
    ],
)  # fmt: skip
def test_the_explanation_shows_what_was_asked_computed_and_clamped(weights, available, asked, sentence):
    choice = cores.choose_pipeline_cores(weights, available, asked)
    assert choice.sentence() == sentence
    assert choice.clamped == ("clamped" in sentence)


def test_cores_that_were_asked_for_are_never_silently_clamped():
    with pytest.raises(UsageError, match="pipeline of 8 cores does not fit 4 cores"):
        cores.choose_pipeline_cores(BERT_BASE, 4, asked=8)


@pytest.mark.parametrize(
    "instance, mode, width, groups, visible",
    [
        ("inf1.xlarge", "data-parallel", 1, "1,1,1,1", "0-3"),
        ("inf1.xlarge", "pipeline", 4, "4", "0-3"),
        ("inf1.6xlarge", "pipeline", 16, "16", "0-15"),
        ("inf1.6xlarge", "pipeline", 4, "4,4,4,4", "0-15"),
        ("inf1.6xlarge", "pipeline", 6, "6,6", "0-11"),
        ("inf1.24xlarge", "pipeline", 60, "60", "0-59"),
        ("inf1.xlarge", "pipeline", 1, "1,1,1,1", "0-3"),
    ],
)
def test_the_environment_of_a_whole_instance(instance, mode, width, groups, visible):
    layout = cores.layout_for(instance, mode, width)
    assert layout.environment() == {"NEURONCORE_GROUP_SIZES": groups, "NEURON_RT_VISIBLE_CORES": visible}


@pytest.mark.parametrize(
    "instance, mode, width, worker, groups, visible",
    [
        ("inf1.xlarge", "data-parallel", 1, 2, "1", "2"),
        ("inf1.6xlarge", "pipeline", 4, 3, "4", "12-15"),
        ("inf1.6xlarge", "pipeline", 2, 1, "2", "2-3"),
    ],
)
def test_a_worker_sees_its_own_share_only(instance, mode, width, worker, groups, visible):
    environment = cores.layout_for(instance, mode, width).worker_environment(worker)
    assert environment["NEURONCORE_GROUP_SIZES"] == groups
    assert environment["NEURON_RT_VISIBLE_CORES"] == visible


@pytest.mark.parametrize(
    "instance, mode, width, threads",
    [("inf1.xlarge", "data-parallel", 1, 1), ("inf1.xlarge", "pipeline", 4, 3), ("inf1.6xlarge", "data-parallel", 1, 1),
     ("inf1.6xlarge", "pipeline", 16, 3), ("inf1.2xlarge", "data-parallel", 1, 2)],
)  # fmt: skip
def test_host_threads_are_shared_out_and_bounded(instance, mode, width, threads):
    layout = cores.layout_for(instance, mode, width)
    assert layout.worker_environment(0)["OMP_NUM_THREADS"] == str(threads)


@given(instances, st.integers(1, 64))
def test_groups_are_contiguous_disjoint_and_fill_the_instance(instance, width):
    total = cores.instance_type(instance).cores
    if width > total:
        with pytest.raises(UsageError, match=f"{instance} has {total}"):
            cores.layout_for(instance, "pipeline", width)
        return
    layout = cores.layout_for(instance, "pipeline", width)
    flat = [core for group in layout.groups for core in group]
    assert flat == list(range(layout.used_cores))
    assert layout.used_cores + layout.idle_cores == total and layout.idle_cores < width
    assert all(len(group) == width for group in layout.groups)


@pytest.mark.parametrize("mode, in_flight", [("data-parallel", 2), ("pipeline", 4)])
def test_requests_in_flight_per_group(mode, in_flight):
    assert cores.layout_for("inf1.xlarge", mode, 1 if mode == "data-parallel" else 4).in_flight_per_group == in_flight


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("inf1.xlarge", "data-parallel", 4, 1), "data-parallel runs one model per core"),
        (("inf1.xlarge", "tensor-parallel", 1, 1), "no mode 'tensor-parallel'"),
        (("inf1.xlarge", "pipeline", 4, 2), "need 8 cores; inf1.xlarge has 4"),
        (("inf1.xlarge", "pipeline", 0, 1), "cores_per_model must be at least 1"),
        (("inf1.xlarge", "pipeline", 4, 0), "replicas must be at least 1"),
        (("g4dn.xlarge", "pipeline", 4, 1), "no instance type 'g4dn.xlarge'"),
    ],
)
def test_a_layout_checks_itself(arguments, message):
    with pytest.raises(UsageError, match=message):
        cores.CoreLayout(*arguments)


@pytest.mark.parametrize("worker", [-1, 4, True, "0"])
def test_a_worker_that_does_not_exist_is_named(worker):
    with pytest.raises(UsageError, match="there is no worker"):
        cores.layout_for("inf1.xlarge").worker_environment(worker)


def test_a_layout_describes_itself_as_data():
    described = cores.layout_for("inf1.6xlarge", "pipeline", 5).describe()
    assert described["groups"][2] == [10, 11, 12, 13, 14]
    assert (described["replicas"], described["idle_cores"]) == (3, 1)


@pytest.mark.parametrize("layers, cut, refused", [(1, 8, False), (1, 9, True), (2, 16, False), (12, 60, False)])
def test_a_pipeline_is_too_long_where_a_core_has_no_matrix_product(layers, cut, refused):
    why = cores.why_too_long(cut, layers * cores.PRODUCTS_PER_LAYER)
    assert bool(why) == refused == (layers < cores.fewest_layers(cut))
    assert not refused or f"({cut}) may not be suitable for this network" in why  # aws-neuron-sdk#618


# ---------------------------------------------------------------------------- environment

names = st.sampled_from([cores.GROUP_SIZES, cores.VISIBLE_CORES, cores.NUM_CORES, "OMP_NUM_THREADS", "PATH", "X"])
environments = st.dictionaries(names, st.text("0123456789,-", min_size=1), max_size=6)


@given(environments, instances, st.data())
def test_the_environment_is_restored_exactly(before, instance, data):
    layout = cores.layout_for(instance)
    worker = data.draw(st.integers(0, layout.replicas - 1))
    environ = dict(before)
    with pytest.raises(ZeroDivisionError):
        with cores.environment_set(layout.worker_environment(worker), environ) as inside:
            for name, value in layout.worker_environment(worker).items():
                assert inside[name] == value
            assert cores.NUM_CORES not in inside
            inside[cores.NUM_CORES] = "3"
            inside.pop("OMP_NUM_THREADS")
            raise ZeroDivisionError
    assert environ == before


def test_this_process_is_the_default(monkeypatch):
    monkeypatch.setenv(cores.NUM_CORES, "2")
    monkeypatch.delenv(cores.GROUP_SIZES, raising=False)
    with cores.environment_set({cores.GROUP_SIZES: "4"}):
        assert os.environ[cores.GROUP_SIZES] == "4" and cores.NUM_CORES not in os.environ
    assert cores.GROUP_SIZES not in os.environ and os.environ[cores.NUM_CORES] == "2"


@given(environments)
def test_group_sizes_and_num_cores_never_meet(base):
    merged = cores.merged_environment({cores.GROUP_SIZES: "1"}, base)
    assert cores.NUM_CORES not in merged
    merged = cores.merged_environment({cores.NUM_CORES: "1"}, base)
    assert cores.GROUP_SIZES not in merged
    with pytest.raises(UsageError, match="must not be set together"):
        cores.merged_environment({cores.NUM_CORES: "1", cores.GROUP_SIZES: "1"}, base)


# ---------------------------------------------------------------------------- device memory


def test_bert_base_takes_what_aws_says_it_takes():
    estimate = cores.estimate_device_memory(cores.layout_for("inf1.6xlarge"), BERT_BASE)
    assert estimate.bytes_per_copy == pytest.approx(200e6, rel=0.01)
    assert estimate.bytes_on_fullest_chip == pytest.approx(4 * 200e6, rel=0.01)


def test_a_pipeline_spreads_its_weights_over_its_chips():
    pipeline = cores.estimate_device_memory(cores.layout_for("inf1.6xlarge", "pipeline", 16), BERT_BASE)
    assert pipeline.bytes_on_fullest_chip == pytest.approx(pipeline.bytes_per_copy / 4, rel=0.01)


def test_a_layout_that_cannot_fit_is_refused_with_the_numbers():
    layout = cores.layout_for("inf1.xlarge")
    assert cores.require_device_memory(layout, BERT_LARGE, 2).fits
    with pytest.raises(UsageError) as refused:
        cores.require_device_memory(layout, BERT_LARGE, 4)
    assert "302,309,376 weights take 0.66 GiB a copy; 4 copies" in refused.value.message
    assert "times 4 buckets, put 10.60 GiB on the fullest chip of inf1.xlarge, which has 8 GiB" in refused.value.message


@given(st.integers(1, 10**9), st.integers(1, 8), instances)
def test_memory_grows_with_weights_and_buckets(weights, buckets, instance):
    layout = cores.layout_for(instance)
    one = cores.estimate_device_memory(layout, weights, buckets)
    more = cores.estimate_device_memory(layout, weights + 1, buckets + 1)
    assert more.bytes_on_fullest_chip > one.bytes_on_fullest_chip
    assert one.fits == (one.bytes_on_fullest_chip <= 8 * 1024**3)


def test_a_layout_may_begin_behind_another_models_cores() -> None:
    behind = cores.CoreLayout("inf1.6xlarge", cores.PIPELINE, 4, 2, first_core=5)
    assert behind.groups == (range(5, 9), range(9, 13))
    assert behind.environment()["NEURON_RT_VISIBLE_CORES"] == "5-12"
    assert behind.worker_environment(1)["NEURON_RT_VISIBLE_CORES"] == "9-12"
    with pytest.raises(UsageError, match="need 12 cores behind core 4; inf1.6xlarge has 16"):
        cores.CoreLayout("inf1.6xlarge", cores.PIPELINE, 4, 3, first_core=5)
    for wrong in (-1, 16, 1.5, True, None):
        with pytest.raises(UsageError, match="has no core"):
            cores.CoreLayout("inf1.6xlarge", cores.PIPELINE, 4, 1, first_core=wrong)  # type: ignore[arg-type]
