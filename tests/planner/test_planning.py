"""Plans: the published conclusions for BERT-base, targets that cannot be met, prices, measured points, words."""

import functools
import json
import math
import re
from decimal import Decimal
from fractions import Fraction
from itertools import repeat

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import neuronbert
from neuronbert.benchmark.report import document_of
from neuronbert.cli.main import cli, run
from neuronbert.cli.plan_table import plan_text
from neuronbert.errors import CheckpointError, InputError, NoConfiguration, UsageError
from neuronbert.hardware import cores
from neuronbert.hardware.device_model import BERT_BASE, ModelShape, Work, predict
from neuronbert.hardware.gpu_model import full_batch, gpu_kinds, gpu_sizes, likely_range, runner_rate, sequences_per_s
from neuronbert.planner.candidates import BATCH_SIZES
from neuronbert.planner.explanation import explanation, spread
from neuronbert.planner.planning import plan
from neuronbert.planner.queueing import under_load

BERT_LARGE = ModelShape(24, 1024, 4096, 16, 302_309_376)
INF1 = list(cores.INSTANCE_TYPES)
CONFIG = {"model_type": "bert", "num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072,
          "num_attention_heads": 12}  # fmt: skip


# The cheapest instance with so many GPUs of a kind.
CHEAPEST_GPUS = (
    "g4dn.xlarge", "g4dn.12xlarge", "g4dn.metal", "g5.xlarge", "g5.12xlarge", "g5.48xlarge", "g6.xlarge", "g6.12xlarge",
    "g6.48xlarge", "g6e.xlarge", "g6e.12xlarge", "g6e.48xlarge", "p4d.24xlarge", "p5.4xlarge", "p5.48xlarge",
    "p5en.48xlarge",
)  # fmt: skip


def base_plan(**options):
    """The plan for BERT-base; one that was made before is the same."""
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    try:
        return _planned(tuple(sorted(options.items())))
    except TypeError:  # options that cannot be hashed or sorted
        return _plan(options)


@functools.lru_cache(maxsize=None)
def _planned(options):
    return _plan(dict(options))


def _plan(options):
    names = options.get("instance_type")
    more = {"instance_type": list(names)} if isinstance(names, tuple) else {}
    return plan(BERT_BASE, **{"sequence_length": 128, **options, **more})


@pytest.mark.parametrize("asked", [{}, {"throughput": 800, "latency_p95_ms": 60}, {"throughput": 5000}])
def test_bert_base_is_cheapest_data_parallel_at_batch_6_on_the_smallest_instance(asked):
    best = base_plan(objective="cost", **asked).best
    assert (best.mode, best.batch_size, best.instance_type) == ("data-parallel", 6, "inf1.xlarge")


@pytest.mark.parametrize("asked", [{}, {"throughput": 800, "latency_p95_ms": 60}, {"throughput": 100}])
def test_bert_base_is_soonest_done_in_a_pipeline_of_16_at_batch_1(asked):
    best = base_plan(objective="latency", instance_type=INF1, **asked).best
    assert (best.mode, best.pipeline_cores, best.batch_size) == ("pipeline", 16, 1)
    assert best.instance_type == "inf1.6xlarge" and best.formula


def test_most_from_one_instance_is_the_largest_one():
    assert base_plan(objective="throughput", instance_type=INF1).best.instance_type == "inf1.24xlarge"
    # Of those with eight GPUs that a Runner each cannot keep busy, the cheapest.
    assert base_plan(objective="throughput").best.instance_type == "p4d.24xlarge"


def test_every_layout_is_ranked_or_rejected_with_a_reason():
    found = base_plan(throughput=800, latency_p95_ms=25)
    everything = found.ranked + found.rejected
    expected = {
        (name, p, b)
        for name, size in cores.INSTANCE_TYPES.items()
        for p in (1, 2, 4, 8, 16)
        if p <= size.cores
        for b in BATCH_SIZES
    } | {(name, 1, full_batch(BERT_BASE, 128, gpu_sizes()[name].kind)) for name in CHEAPEST_GPUS}
    assert {(one.instance_type, one.pipeline_cores, one.batch_size) for one in everything} == expected
    assert len(everything) == len(expected)
    assert found.rejected and all(one.rejected for one in found.rejected)
    assert all(one.p95_ms <= 25 and not one.rejected for one in found.ranked)


@settings(max_examples=8)
@given(
    throughput=st.sampled_from([5.0, 90.0, 800.0, 7000.0]),
    limit=st.sampled_from([7.0, 30.0, 200.0]),
    headroom=st.sampled_from([0.0, 0.25, 0.6]),
)
def test_instances_keep_the_headroom_and_carry_the_load(throughput, limit, headroom):
    found = base_plan(throughput=throughput, latency_p95_ms=limit, headroom=headroom, instance_type=["inf1.6xlarge"])
    for one in found.ranked:
        assert one.instances * one.load_per_instance == pytest.approx(throughput)
        assert one.latency.utilisation <= 1 - headroom + 1e-9
        assert one.usd_per_million == pytest.approx(one.usd_per_hour / throughput / 3600 * 1e6)


def test_one_instance_fewer_would_not_do():
    few = {"throughput": 5000, "instance_type": ["inf1.xlarge", "inf1.2xlarge", "g4dn.xlarge"]}
    best = base_plan(**few).best
    assert 5000 / (best.instances - 1) > 0.75 * best.capacity_per_s
    tight = next(one for one in base_plan(latency_p95_ms=28, **few).ranked if one.instances > 2)
    fewer = 5000 / (tight.instances - 1)
    assert fewer > 0.75 * tight.capacity_per_s or under_load(tight.service, fewer).p95_s * 1e3 > 28


def test_the_published_throughputs_are_predicted_within_fifteen_percent():
    ranked = {(one.instance_type, one.pipeline_cores, one.batch_size): one for one in base_plan().ranked}
    for key, published in ((("inf1.xlarge", 1, 6), 1180.7), (("inf1.xlarge", 1, 8), 1095.4),
                           (("inf1.6xlarge", 16, 1), 2009.1)):  # fmt: skip
        assert ranked[key].capacity_per_s == pytest.approx(published, rel=0.15)


@pytest.mark.parametrize("shape, formula", [(BERT_BASE, 16), (BERT_LARGE, 60)])
def test_the_formulas_answer_is_a_candidate_and_marked(shape, formula):
    """The same number as hardware/cores.py chooses, for BERT-large too: 60 of inf1.24xlarge's 64 cores."""
    found = plan(shape, sequence_length=128, objective="latency", instance_type=["inf1.24xlarge"])
    marked = [one for one in found.ranked + found.rejected if one.formula]
    assert {one.pipeline_cores for one in marked} == {formula} == {cores.pipeline_cores(shape.weights, 64)}
    assert not any(one.rejected for one in marked)
    assert "formula" in plan_text(found)


def test_a_model_too_large_for_a_chip_is_rejected_with_the_numbers():
    giant = ModelShape(96, 4096, 16384, 64, 19_000_000_000)
    with pytest.raises(NoConfiguration, match="does not fit device memory"):
        plan(giant, instance_type=["inf1.xlarge"])


@pytest.mark.parametrize("load", [None, 800.0])
def test_an_impossible_latency_names_the_nearest_and_that_one_can_be_had(load):
    with pytest.raises(NoConfiguration) as caught:
        base_plan(latency_p95_ms=1, throughput=load, instance_type=INF1)
    assert caught.value.exit_code == 5
    assert re.search(r"nearest is pipeline × 16, batch 1, inf1.6xlarge: 5\.\d+ ms", caught.value.message)
    reachable = float(re.search(r"--latency-p95-ms ([\d.]+)", caught.value.hint).group(1))
    assert base_plan(latency_p95_ms=reachable, throughput=load, instance_type=INF1).best.pipeline_cores == 16


@pytest.mark.parametrize("batch_size", [1, 3, 6, 8])
def test_a_request_that_meets_no_other_takes_what_one_caller_sees(batch_size):
    """Published with one caller (2.20, inf1.xlarge): p99 8.0 ms at batch 1 and 10.7 at batch 3."""
    ranked = base_plan(throughput=5, instance_type=["inf1.xlarge"]).ranked
    (one,) = [one for one in ranked if (one.pipeline_cores, one.batch_size) == (1, batch_size)]
    alone_ms = predict(Work(BERT_BASE, batch_size, 128, 1, 1), instance="inf1.xlarge").p95_s * 1e3
    assert one.service_ms == pytest.approx(alone_ms) and alone_ms <= one.p95_ms < 1.05 * alone_ms
    published_ms = {1: 8.0, 3: 10.7}.get(batch_size, one.p95_ms)
    assert one.p95_ms == pytest.approx(published_ms, rel=0.05)


def test_a_latency_that_one_caller_gets_can_be_planned_for():
    found = base_plan(throughput=5, latency_p95_ms=10, instance_type=["inf1.xlarge"])
    assert {one.batch_size for one in found.ranked if one.pipeline_cores == 1} == {1, 2}


def test_a_plan_takes_as_long_again_when_its_cores_share_the_machine():
    ranked = [base_plan(throughput=load, instance_type=["inf1.xlarge"]).ranked for load in (5, 400, 800)]
    p95 = [next(one.p95_ms for one in found if (one.pipeline_cores, one.batch_size) == (1, 6)) for found in ranked]
    assert p95[0] * 1.5 < p95[1] < p95[2]


def test_what_the_compiler_refuses_is_not_planned():
    """neuron-cc cuts one layer over eight cores at most, in the emulator and here: one rule, hardware/cores.py."""
    shape = ModelShape(1, 768, 3072, 12, 7_087_872)
    found = plan(shape, sequence_length=128, objective="latency", instance_type=["inf1.6xlarge"])
    assert max(one.pipeline_cores for one in found.ranked) == 8
    assert {one.rejected for one in found.rejected} == {
        "neuron-cc refuses it: The requested number of neuroncore-pipeline-cores (16) may not be suitable for this "
        "network"
    }


@pytest.mark.parametrize("asked, why", [({}, "384 tokens instead of 128"), ({"sequence_length": 128}, None)])
def test_a_range_beyond_what_was_published_is_called_extrapolated(asked, why):
    found = plan(BERT_BASE, instance_type=["inf1.xlarge"], **asked)
    assert found.best.as_dict()["extrapolated"] == why
    assert ("extrapolated" in plan_text(found)) == bool(why)


def test_only_the_instances_asked_for():
    found = base_plan(instance_type=["inf1.xlarge,inf1.2xlarge"])
    assert {one.instance_type for one in found.ranked + found.rejected} == {"inf1.xlarge", "inf1.2xlarge"}


@pytest.mark.parametrize(
    "options, why",
    [({"throughput": 0}, "--throughput must be above 0"), ({"throughput": 1e-7}, "at least 1e-06.*, not 1e-07"),
     ({"throughput": math.nan}, "--throughput"),
     ({"latency_p95_ms": -1}, "--latency-p95-ms"), ({"objective": "joy"}, "no objective 'joy'"),
     ({"headroom": 1}, "--headroom"), ({"headroom": -0.1}, "--headroom"), ({"sequence_length": 0}, "--sequence-length"),
     ({"sdk_release": "1.12"}, "SDK release"),
     ({"sdk_release": 2.20}, "SDK release 2.2"), ({"sdk_release": None}, "SDK release None"),
     ({"in_flight": 0}, "--in-flight"), ({"in_flight": True}, "--in-flight"),
     ({"instance_type": ["inf1.3xlarge"]}, "no price for 'inf1.3xlarge'")],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, why):
    with pytest.raises(UsageError, match=why):
        base_plan(**options)


@pytest.mark.parametrize("number", [Decimal("300"), Fraction(300), np.float16(300), np.int64(300)])
def test_whatever_number_the_load_and_the_headroom_are_the_plan_is_plain_json(number):
    options = {"instance_type": ["inf1.xlarge"], "latency_p95_ms": 60.0, "headroom": 0.25, "throughput": 300.0}
    expected = base_plan(**options).as_dict()
    found = base_plan(**{**options, "throughput": number, "headroom": type(number)(1) / 4}).as_dict()
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(expected))


def test_an_instance_nobody_can_predict_or_measured_is_no_configuration():
    with pytest.raises(NoConfiguration, match="c5.xlarge.*\n.*inf1.xlarge.*g6.xlarge.*--measured"):
        base_plan(instance_type=["c5.xlarge"])


def test_prices_of_a_file_decide(tmp_path):
    path = tmp_path / "prices.json"
    one = {"region": "mars", "date": "2030-01", "source": "offer", "usd_per_hour": {"inf1.24xlarge": 0.01}}
    path.write_text(json.dumps({"schema_version": 1, "lists": [one]}))
    found = base_plan(throughput=800, prices=path)
    assert found.best.instance_type == "inf1.24xlarge"
    assert any("0.01 USD/h in mars, 2030-01 (offer)" in line for line in explanation(found.target, found.ranked))


# ---------------------------------------------------------------------------- measured points


def report(tmp_path, *points, broken=(), **changes):
    point = {"instance_type": "c5.xlarge", "engine": "openvino", "variant": "openvino-int8", "precision": "int8",
             "mode": None, "emulated": False, "n_models": 1, "pipeline_size": 1, "batch_size": 8, "concurrency": 32,
             "offered_qps": None, "intervals": {},
             "throughput_avg": 100.0, "latency_ms_p50": 80.0, "latency_ms_p95": 88.0, "sequence_length": 128,
             "errors": 0}  # fmt: skip
    document = document_of(
        [{**point, **changes, **one} for one in points or ({},)], command="", artifact={}, environment={}
    )
    document["points"] = [{**one, **dict(change)} for one, change in zip(document["points"], broken or repeat({}))]
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps(document))
    return path


def measured_ones(found):
    return [one for one in [*found.ranked, *found.rejected] if one.measured]


def test_a_measured_point_joins_with_its_price_and_its_command(tmp_path):
    found = base_plan(throughput=50, measured=report(tmp_path))
    one = next(one for one in found.ranked if one.measured)
    assert one.capacity_per_s == pytest.approx(100) and one.spread == pytest.approx(1.1)
    assert one.price.usd_per_hour == 0.17 and one.instances == 1
    assert "--backend openvino --precision int8" in one.compile_command
    assert one.p95_ms >= 80 * 1.1


def test_a_cheap_enough_measured_point_wins_and_is_called_measured(tmp_path):
    found = base_plan(throughput=50, measured=report(tmp_path, throughput_avg=5000.0))
    assert found.best.measured and explanation(found.target, found.ranked)[1].startswith("  Measured on c5.xlarge")


def test_a_fast_measured_point_is_written_out(tmp_path):
    text = plan_text(base_plan(throughput=50, measured=report(tmp_path, throughput_avg=1180.7, latency_ms_p50=2000.0)))
    assert " 1,180 " in text and not re.search(r"\de\+\d", text)


@pytest.mark.parametrize(
    "range_, shown",
    [((99.96, 999.9), "100–1,000"), ((0.5, 12.345), "0.5–12.3"), ((1061.4, 1270.2), "1,060–1,270"),
     ((999.4, 123456.0), "999–123,000")],
)  # fmt: skip
def test_a_range_is_never_in_powers_of_ten(range_, shown):
    assert spread(*range_) == shown


def test_this_machine_has_no_price_until_a_file_gives_it_one(tmp_path):
    measured = report(tmp_path, instance_type="this machine")
    found = base_plan(throughput=50, measured=measured)
    assert [one.rejected for one in found.rejected if one.measured] == [
        "no price for this machine: --prices FILE with its dollars an hour"
    ]
    fast = base_plan(objective="latency", throughput=50, measured=measured)
    assert any(one.measured and one.usd_per_million is None for one in fast.ranked)
    assert "?" in plan_text(fast._replace(ranked=[one for one in fast.ranked if one.measured]))


def test_a_point_of_another_length_is_rejected(tmp_path):
    found = base_plan(measured=report(tmp_path, sequence_length=384))
    assert any(one.rejected == "was measured at 384 tokens" for one in found.rejected)


def test_a_configuration_is_its_point_of_most_throughput(tmp_path):
    loads = [{"concurrency": 1, "throughput_avg": 20.0}, {"concurrency": 32}, {"concurrency": 16, "errors": 3}]
    assert [one.capacity_per_s for one in measured_ones(base_plan(measured=report(tmp_path, *loads)))] == [100]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"emulated": True}, "emulated device"),
        ({"errors": 3}, "3 errors"),
        ({"throughput_avg": None}, "0 answers/s"),
        ({"throughput_avg": 0.0, "latency_ms_p50": None}, "0 answers/s"),
    ],
)
def test_what_tells_nothing_is_rejected_with_the_reason(tmp_path, changes, why):
    found = base_plan(measured=report(tmp_path, {**changes}))
    assert [why in one.rejected for one in measured_ones(found)] == [True]


def test_a_measured_layout_of_cores_has_the_command_that_makes_it(tmp_path):
    point = {"instance_type": "inf1.xlarge", "engine": "neuron", "variant": "neuron-b1-s128-p4", "precision": "bf16",
             "mode": "pipeline", "pipeline_size": 4, "batch_size": 1}  # fmt: skip
    (one,) = measured_ones(base_plan(measured=report(tmp_path, point)))
    assert one.name == "pipeline × 4, batch 1, inf1.xlarge"
    assert one.compile_command.endswith(
        "--backend neuron --instance-type inf1.xlarge --mode pipeline --neuroncore-pipeline-cores 4 --batch-size 1 "
        "--sequence-length 128"
    )


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"batch_size": "many"}, r"benchmark.json: points\[1\].batch_size is 'many'"),
        ({"throughput_avg": "fast"}, r"benchmark.json: points\[1\].throughput_avg is 'fast'"),
        ({"mode": "pipeline", "pipeline_size": 4}, "point 2 of .*benchmark.json: .*c5.xlarge"),
    ],
)
def test_a_broken_point_is_named(tmp_path, broken, why):
    with pytest.raises(InputError, match=why):
        base_plan(measured=report(tmp_path, {}, {}, broken=[{}, broken]))


def test_a_point_that_lacks_its_p95_is_rejected(tmp_path):
    (one,) = measured_ones(base_plan(measured=report(tmp_path, latency_ms_p95=None)))
    assert "gave 100.0 answers/s" in one.rejected


# ---------------------------------------------------------------------------- GPUs


def gpus_of(found):
    return [one for one in [*found.ranked, *found.rejected] if one.device == "gpu"]


def test_a_fast_gpu_takes_no_more_than_one_runner_feeds_it():
    (one,) = base_plan(instance_type=["p5.4xlarge"]).ranked
    assert one.capacity_per_s == runner_rate().value < sequences_per_s(BERT_BASE, 128, gpu_kinds()["H100"])
    (eight,) = base_plan(instance_type=["p5.48xlarge"]).ranked
    assert eight.capacity_per_s == 8 * runner_rate().value
    # A batch is as soon done as ever.
    assert one.service_ms == eight.service_ms < 1e3 * one.batch_size / runner_rate().value


def test_a_gpu_is_predicted_by_its_datasheet_and_called_predicted():
    (one,) = base_plan(instance_type=["g6.12xlarge"]).ranked
    assert one.capacity_per_s == pytest.approx(4 * sequences_per_s(BERT_BASE, 128, gpu_kinds()["L4"]))
    found = one.as_dict()
    assert (found["source"], found["device"], found["n_models"], found["casts"]) == ("predicted", "gpu", 4, None)
    assert found["extrapolated"] == "128 tokens instead of 177, 12 layers of 768 instead of 24 of 1024"
    low, high = likely_range("throughput_per_s")
    assert found["capacity_per_instance_low"] == pytest.approx(low * one.capacity_per_s, rel=1e-4)
    assert found["capacity_per_instance_high"] == pytest.approx(high * one.capacity_per_s, rel=1e-4)
    assert found["latency_ms_p95_low"] < found["latency_ms_p95"] < found["latency_ms_p95_high"]
    assert one.price.usd_per_hour == 4.6016 and one.name == "cuda fp16, batch 32, g6.12xlarge"


def test_devices_are_ranked_together():
    names = ["inf1.6xlarge", "inf1.24xlarge", "g5.xlarge", "g6e.xlarge", "p5.4xlarge"]
    ranked = base_plan(throughput=20000, latency_p95_ms=20, instance_type=names).ranked
    assert {one.device for one in ranked} == {"inf1", "gpu"}
    costs = [float(f"{one.usd_per_million:.3g}") for one in ranked]
    assert costs == sorted(costs)


def test_a_size_with_more_cpus_beside_the_same_gpu_is_predicted_where_it_is_asked_for():
    assert [one.instance_type for one in base_plan(instance_type=["g5.16xlarge"]).ranked] == ["g5.16xlarge"]
    assert {one.instance_type for one in gpus_of(base_plan())} == set(CHEAPEST_GPUS)


def test_the_prices_of_a_file_say_which_size_of_a_gpu_is_cheapest(tmp_path):
    path = tmp_path / "prices.json"
    one = {"region": "mars", "date": "2030-01", "source": "offer", "usd_per_hour": {"g5.16xlarge": 0.01}}
    path.write_text(json.dumps({"schema_version": 1, "lists": [one]}))
    names = {one.instance_type for one in gpus_of(base_plan(prices=path))}
    assert "g5.16xlarge" in names and "g5.xlarge" not in names


def test_a_model_too_large_for_a_gpu_is_rejected_with_the_numbers():
    giant = ModelShape(96, 4096, 16384, 64, 19_000_000_000)
    found = plan(giant, instance_type=["g6.xlarge", "p5.4xlarge"])
    assert [one.instance_type for one in found.ranked] == ["p5.4xlarge"]
    assert [one.rejected for one in found.rejected] == [
        "does not fit GPU memory: 38.0 GB of weights in 16 bits, and 19.2 of L4's memory are for them"
    ]


def test_an_impossible_latency_names_a_gpu_where_one_comes_nearest():
    with pytest.raises(NoConfiguration, match=r"nearest is cuda fp16, batch 72, p5.48xlarge: 3\.\d+ ms") as caught:
        base_plan(latency_p95_ms=1, throughput=800.0, instance_type=[*INF1, "p5.48xlarge"])
    reachable = float(re.search(r"--latency-p95-ms ([\d.]+)", caught.value.hint).group(1))
    assert base_plan(latency_p95_ms=reachable, throughput=800.0, instance_type=["p5.48xlarge"]).best.device == "gpu"


def test_a_measured_gpu_joins_as_a_cpu_does(tmp_path):
    point = {"instance_type": "g6.xlarge", "engine": "cuda", "variant": "cuda-bf16", "precision": "bf16",
             "throughput_avg": 2500.0, "latency_ms_p50": 12.0, "latency_ms_p95": 12.6, "batch_size": 32}  # fmt: skip
    found = base_plan(throughput=2000, measured=report(tmp_path, point, {}))
    measured = {one.device: one for one in measured_ones(found)}
    one = measured["gpu"]
    assert measured["cpu"].instance_type == "c5.xlarge"
    assert one.capacity_per_s == pytest.approx(2500) and one.price.usd_per_hour == 0.8048
    assert one.capacity_range_per_s == (one.capacity_per_s,) * 2 and one.as_dict()["source"] == "measured"
    assert one.compile_command.endswith("--backend cuda --precision bf16")


def test_a_measured_openvino_on_a_gpu_instance_is_a_cpu(tmp_path):
    (one,) = measured_ones(base_plan(measured=report(tmp_path, instance_type="g6.xlarge")))
    assert one.device == "cpu" and one.price.usd_per_hour == 0.8048


def test_the_words_say_what_a_prediction_for_a_gpu_rests_on():
    found = base_plan(objective="throughput", instance_type=["p5.48xlarge", "g6.xlarge"])
    text = " ".join(plan_text(found).split())
    assert "H100: each of the 8 GPUs holds a whole copy" in text and "989.4 TFLOPS of its datasheet" in text
    assert "GPUs are predicted, not measured: " in text and "extrapolated: nothing in 16 bits is published" in text
    assert "Inferentia" not in text and "--auto-cast" not in text


def test_the_best_of_each_device_is_in_the_table_and_among_the_reasons(tmp_path):
    found = base_plan(throughput=800, latency_p95_ms=90, measured=report(tmp_path, throughput_avg=900.0))
    text = plan_text(found)
    for device in ("cpu", "gpu"):
        best = next(one for one in found.ranked if one.device == device)
        assert f"Not {best.name}: costs " in text
        assert f"{found.ranked.index(best) + 1:<3}" in text and text.count(best.name) >= 2


# ---------------------------------------------------------------------------- words and the command line


@pytest.mark.parametrize("objective", ["cost", "latency", "throughput"])
def test_the_words_say_choice_reason_price_and_command(objective):
    found = base_plan(objective=objective, throughput=800, latency_p95_ms=60, instance_type=INF1)
    said = " ".join(explanation(found.target, found.ranked))
    for part in (found.best.name, "95 of 100 within", "us-east-1, 2024-09", "USD for a million", "Not ",
                 f"make it: {found.best.compile_command}"):  # fmt: skip
        assert part in said
    text = plan_text(found)
    tables = [line for line in text.splitlines() if "neuronbert compile" not in line]  # commands are not broken
    assert max(map(len, tables)) <= 180 and "Ruled out" in text or not found.rejected


def test_the_compile_command_is_one_the_command_line_takes():
    bests = (
        base_plan().best,
        base_plan(objective="latency", instance_type=INF1).best,
        base_plan(objective="latency").best,
    )
    # The published rows, so the predictions, are of --fast-math all; on a GPU, of 16 bits.
    for one, end in zip(bests, ("--auto-cast all", "--auto-cast all", "--backend cuda --precision fp16")):
        assert one.compile_command.endswith(end)
        words = one.compile_command.split()
        assert words[:2] == ["neuronbert", "compile"]
        known = {option for parameter in cli.commands["compile"].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_the_package_offers_it():
    assert neuronbert.plan is plan


@pytest.fixture()
def config_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_a_folder_needs_no_weights(config_folder):
    assert plan(str(config_folder), sequence_length=128).shape == BERT_BASE


def test_an_encoder_below_its_folder(config_folder):
    (config_folder / "0_Transformer").mkdir()
    (config_folder / "config.json").rename(config_folder / "0_Transformer" / "config.json")
    entries = [{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (config_folder / "modules.json").write_text(json.dumps(entries))
    assert plan(str(config_folder), sequence_length=128).shape == BERT_BASE


def test_a_config_that_is_none(config_folder):
    (config_folder / "config.json").write_text("[")
    with pytest.raises(CheckpointError, match="config.json is no JSON that can be read"):
        plan(str(config_folder))


def test_an_artifact_plans_what_it_was_compiled_from(echo_artifact):
    found = plan(str(echo_artifact.folder), sequence_length=128)
    assert found.source == echo_artifact.manifest["checkpoint"]["source"]
    assert found.shape.weights == echo_artifact.manifest["checkpoint"]["encoder_parameters"]


def test_the_verb_prints_the_plan(config_folder):
    arguments = ["plan", str(config_folder), "--sequence-length", "128", "--throughput", "800"]
    result = CliRunner().invoke(cli, [*arguments, "--latency_p95_ms", "60", "--instance-type", "inf1.xlarge"])
    assert result.exit_code == 0 and result.output.startswith("Lowest cost: data-parallel, batch 6, inf1.xlarge")
    document = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)
    assert document["best"]["cost_per_1m_inf"] == pytest.approx(0.0792, abs=1e-3)
    assert document["best"]["price"]["region"] == "us-east-1"
    assert any(one["formula"] for one in document["ranked"])


def test_the_verb_exits_with_5_when_nothing_will_do(config_folder, capsys):
    assert run(["plan", str(config_folder), "--latency-p95-ms", "1"]) == 5
    assert "try: --latency-p95-ms" in capsys.readouterr().err


def test_an_older_sdk_is_predicted_slower():
    old, new = (
        base_plan(sdk_release=release, objective="throughput", instance_type=["inf1.xlarge"])
        for release in ("1.13", "2.20")
    )
    assert old.best.capacity_per_s < new.best.capacity_per_s


@pytest.mark.parametrize("release", ["1.15", "2.10", "1.17.0"])
def test_every_release_can_be_planned_for(release):
    found = base_plan(sdk_release=release, instance_type=["inf1.xlarge"])
    assert found.target.sdk_release == ".".join(release.split(".")[:2]) and found.best.mode == "data-parallel"


def test_a_prediction_is_a_range_and_a_measurement_a_point(tmp_path):
    found = base_plan(throughput=800, measured=report(tmp_path))
    best = found.best.as_dict()
    assert best["capacity_per_instance_low"] < best["capacity_per_instance"] < best["capacity_per_instance_high"]
    assert best["latency_ms_p95_low"] < best["latency_ms_p95"] < best["latency_ms_p95_high"]
    assert best["casts"] == "all"
    low, high = found.best.capacity_range_per_s
    said = " ".join(explanation(found.target, found.ranked))
    assert re.search(r"likely [\d,]+–[\d,]+ sequences/s an instance, and a p95 of \d+(\.\d)?–\d+(\.\d)? ms", said)
    assert low <= 1180.7 <= high  # published for this layout
    (one,) = measured_ones(found)
    assert one.capacity_range_per_s == (one.capacity_per_s,) * 2 and one.as_dict()["casts"] is None


def test_what_another_precision_costs_is_said_to_be_unknown():
    text = " ".join(plan_text(base_plan(instance_type=["inf1.xlarge"])).split())
    assert "Predictions are for --auto-cast all" in text and "has not been published" in text


def test_one_request_in_flight_leaves_a_core_waiting_for_the_host():
    def capacity(in_flight):
        (one,) = [one for one in base_plan(instance_type=["inf1.xlarge"], in_flight=in_flight).ranked
                  if (one.pipeline_cores, one.batch_size) == (1, 6)]  # fmt: skip
        return one.capacity_per_s

    assert capacity(1) < capacity(2) == pytest.approx(capacity(None))


def test_the_blogs_two_data_parallel_rows_of_batch_6_come_in_their_order():
    """A sequence costs a little more on inf1.6xlarge's cores, as published: 985/s on 4 cores, 3880/s on 16."""
    ranked = base_plan(sdk_release="1.13", headroom=0, in_flight=1).ranked
    found = {one.instance_type: one for one in ranked if (one.pipeline_cores, one.batch_size) == (1, 6)}
    assert found["inf1.6xlarge"].capacity_per_s < 3.99 * found["inf1.xlarge"].capacity_per_s


def test_progress_counts_every_configuration():
    counts = []
    result = plan(
        BERT_BASE, sequence_length=128, instance_type=["inf1.xlarge"], progress=lambda *two: counts.append(two)
    )
    total = len(result.ranked) + len(result.rejected)
    assert counts == [(number, total) for number in range(1, total + 1)]
