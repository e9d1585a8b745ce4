"""The device model against what AWS published, and against common sense where nothing was."""

import collections
import csv
import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuronbert.errors import UsageError
from neuronbert.hardware import device_model as dm

with open(dm.PUBLISHED_PATH, newline="", encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))

BERT_LARGE = dm.ModelShape(24, 1024, 4096, 16, 302_309_376)
CALIBRATION = json.loads(dm.CALIBRATION_PATH.read_text(encoding="utf-8"))
HELD_OUT_PATH = Path(__file__).parents[1] / "data" / "published" / "held_out.csv"
with open(HELD_OUT_PATH, newline="", encoding="utf-8") as file:
    HELD_OUT = list(csv.DictReader(file))
CONSISTENT = [row for row in HELD_OUT if not row["remark"].startswith("inconsistent")]


def name_of(row):
    return f"{row['model']}-{row['sdk_version']}-{row['instance_type']}-p{row['pipeline_cores']}-b{row['batch_size']}"


def predicted(row):
    work, load = dm.published_work(row)
    found = dm.predict(work, **load)
    return {"throughput_per_s": found.throughput_per_s, "p50_ms": found.p50_s * 1e3, "p95_ms": found.p95_s * 1e3,
            "p99_ms": found.p99_s * 1e3}  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=map(name_of, ROWS))
def test_fitted_rows_within_five_percent_and_their_percentiles_within_ten(row):
    found = predicted(row)
    assert found["throughput_per_s"] == pytest.approx(float(row["throughput_per_s"]), rel=0.05)
    for column in ("p50_ms", "p95_ms", "p99_ms"):
        if row[column]:
            assert found[column] == pytest.approx(float(row[column]), rel=0.10)


# The targets of what is shown on rows that nothing was fitted to.
@pytest.mark.parametrize("column, most", [("throughput_per_s", 0.06), ("p50_ms", 0.06), ("p99_ms", 0.12)])
def test_mean_errors_on_rows_that_were_not_fitted(column, most):
    errors = [abs(predicted(row)[column] / float(row[column]) - 1) for row in CONSISTENT if row[column]]
    assert len(errors) > 100 and statistics.mean(errors) < most


def test_no_row_is_both_fitted_and_held_out():
    def identity(row):
        return tuple(row[name] for name in ("model", "sdk_version", "instance_type", "mode", "batch_size", "models"))

    assert not {identity(row) for row in ROWS} & {identity(row) for row in CONSISTENT if row["remark"] == ""}


@pytest.mark.parametrize("row", HELD_OUT, ids=map(name_of, HELD_OUT))
def test_a_remark_says_where_a_row_contradicts_itself(row):
    """Little's law: throughput times latency over the batch is what is in flight, and that is the client's threads."""
    in_flight = float(row["throughput_per_s"]) * float(row["p50_ms"]) / int(row["batch_size"]) / 1e3
    # A mean far above the median (a tail) counts fewer; nothing counts more.
    contradicts = not 0.8 <= in_flight / int(row["client_threads"]) <= 1.05 or float(row["p99_ms"]) < float(
        row["p50_ms"]
    )
    assert row["remark"].startswith("inconsistent") == contradicts


def test_the_calibration_says_what_it_is():
    assert len(CALIBRATION["rows"]) == len(ROWS) == 16
    assert len(CALIBRATION["free_parameters"]) == 9
    assert all(entry["meaning"] and entry["unit"] for entry in CALIBRATION["free_parameters"].values())
    assert CALIBRATION["mean_errors"]["errors"]["throughput_per_s"] < 0.02
    left_out = [abs(row["leave_one_out_errors"]["throughput_per_s"]) for row in CALIBRATION["rows"]]
    assert max(left_out) == CALIBRATION["largest_leave_one_out_error"]
    assert CALIBRATION["held_out"]["rows"] == len(CONSISTENT)


@pytest.mark.parametrize("row, calibrated", list(zip(ROWS, CALIBRATION["rows"])), ids=map(name_of, ROWS))
def test_the_residuals_are_those_of_the_constants(row, calibrated):
    found = predicted(row)
    for column, error in calibrated["errors"].items():
        assert error == pytest.approx(found[column] / float(row[column]) - 1, abs=2e-4)


@pytest.mark.parametrize("figure", ["throughput_per_s", "p95_ms"])
def test_eight_of_ten_published_figures_lie_in_the_likely_range(figure):
    low, high = dm.likely_range(figure)
    assert low < 1 < high
    # Of configurations whose figures neither the constants nor the range know, each counted once.
    assert 0.8 <= CALIBRATION["likely_ranges"][figure]["coverage"] < 0.95
    of = collections.defaultdict(list)
    for row in CONSISTENT:
        if row[figure]:
            within = low <= float(row[figure]) / predicted(row)[figure] <= high
            of[row["model"][:6], row["batch_size"], row["instance_type"], row["client_threads"]].append(within)
    assert statistics.mean(statistics.mean(group) for group in of.values()) > 0.7


@pytest.mark.parametrize(
    "shape, length, unlike",
    [(dm.BERT_BASE, 128, ""), (dm.DISTIL, 128, ""), (dm.BERT_BASE, 384, "384 tokens instead of 128"),
     (BERT_LARGE, 128, "24 layers of 1024 instead of 12 or 6 of 768"),
     (BERT_LARGE, 512, "512 tokens instead of 128, 24 layers of 1024 instead of 12 or 6 of 768")],
)  # fmt: skip
def test_what_no_published_row_has_is_named(shape, length, unlike):
    assert dm.unlike_published(shape, length) == unlike


@pytest.mark.parametrize("in_flight", [50, 200, 500, 1000, 1901])
def test_many_callers_get_no_more_than_the_capacity(in_flight):
    """Callers who wait for a core want no vCPU: their waits for one do not grow with their number."""
    work = dm.Work(dm.BERT_BASE, 6, 128, 1, 4)
    few, many = (dm.predict(work, models=4, in_flight=calls, instance="inf1.xlarge") for calls in (8, in_flight))
    assert many.throughput_per_s == pytest.approx(few.throughput_per_s, rel=0.02)
    assert many.throughput_per_s <= 1.001 * 4 * 6 / many.bottleneck_s and many.utilisation <= 1.001


def waits(work, batches_per_s, **load):
    load = {"instance": "inf1.xlarge", "round_s": 0.02, "models": 4, "in_flight": 2, **load}
    return dm.host_waits(work, batches_per_s, **load)


def test_waits_grow_with_the_load_and_with_the_tokens_and_there_are_none_at_rest():
    short, long = (dm.Work(dm.BERT_BASE, 6, tokens, 1, 4) for tokens in (16, 512))
    assert waits(short, 0.0).mean_s == 0 < waits(short, 50.0).mean_s < waits(short, 100.0).mean_s
    assert waits(long, 50.0).contention_s == pytest.approx(32 * waits(short, 50.0).contention_s)
    assert waits(short, 50.0, in_flight=5000).contention_s == waits(short, 50.0).contention_s


@pytest.mark.parametrize("processes", [0, -1, 9])
def test_callers_are_in_as_many_processes_as_there_can_be(processes):
    work = dm.Work(dm.BERT_BASE, 6, 128, 1, 4)
    with pytest.raises(UsageError, match=f"8 callers are in 1 to 8 processes, not {processes}"):
        dm.predict(work, models=4, in_flight=2, processes=processes)


# ---------------------------------------------------------------------------- what the physics says


def test_half_the_layers_move_and_stream_half():
    whole, half = (
        dm.stage_seconds(dm.Work(shape, 4, 128, 1, 4))[0] - dm.entry_seconds(dm.Work(shape, 4, 128, 1, 4))
        for shape in (dm.BERT_BASE, dm.DISTIL)
    )
    assert half == pytest.approx(whole / 2, rel=0.1)


def test_percentiles_spread_where_processes_share_vcpus():
    work = dm.Work(dm.DISTIL, 8, 128, 1, 4)
    apart = dm.predict(work, models=4, in_flight=2, instance="inf1.xlarge")
    together = dm.predict(work, models=4, in_flight=2, instance="inf1.xlarge", processes=1)
    roomy = dm.predict(work, models=4, in_flight=2, instance="inf1.2xlarge")
    assert apart.p50_s < apart.p95_s < apart.p99_s
    assert apart.p99_s / apart.p50_s > 1.3 > together.p99_s / together.p50_s
    assert roomy.p99_s < apart.p99_s


def test_one_caller_shares_memory_with_cores_that_wait_as_well():
    work = dm.Work(dm.BERT_BASE, 1, 128, 1, 4, "1.13")
    alone, beside = (dm.predict(work, models=4, in_flight=calls) for calls in (1, 2))
    assert alone.bottleneck_s < beside.bottleneck_s == pytest.approx(max(dm.stage_seconds(work)))


def test_the_blogs_two_data_parallel_rows_of_batch_6_come_in_their_order():
    """Sixteen cores' inputs enter over one link: a call waits longer than on inf1.xlarge (published: 24.9, 25.8 ms)."""
    small, large = (
        dm.predict(dm.Work(dm.BERT_BASE, 6, 128, 1, 4, "1.13"), models=models, processes=1, instance=instance)
        for models, instance in ((4, "inf1.xlarge"), (16, "inf1.6xlarge"))
    )
    assert large.p95_s > 1.01 * small.p95_s
    assert large.throughput_per_s < 4 * small.throughput_per_s


def test_casts_of_matrix_products_only_keep_wide_activations():
    every, products = (
        dm.stage_seconds(dm.Work(dm.BERT_BASE, 6, 128, 1, 4, casts=casts))[0] for casts in ("all", "matmul")
    )
    assert products > every
    with pytest.raises(UsageError, match="no casts 'int8'"):
        dm.stage_seconds(dm.Work(dm.BERT_BASE, 6, 128, 1, 4, casts="int8"))


@pytest.mark.parametrize(
    "release, known", [("1.15", "1.15"), ("2.10", "2.10"), ("1.17.0", "1.17"), ("2.20.2", "2.20"), ("2.32.0", "2.20")]
)
def test_every_release_has_a_timing(release, known):
    assert dm.known_release(release) == known
    assert dm.stage_seconds(dm.Work(dm.BERT_BASE, 1, 128, 1, 4, release))


@pytest.mark.parametrize("release", ["1.12", "1.20", "3.0", "2", "new", "2.20.0.1"])
def test_what_is_no_release_is_refused(release):
    with pytest.raises(UsageError, match="no timing for SDK release") as refused:
        dm.known_release(release)
    assert "1.13 to 2.20" in refused.value.hint


@pytest.mark.parametrize("release", [2.20, None, 2, ["2.20"]])
def test_a_release_is_a_text(release):
    """2.20 is the number 2.2."""
    with pytest.raises(UsageError, match="no timing for SDK release") as refused:
        dm.known_release(release)
    assert "a text such as" in refused.value.hint


def test_a_constant_between_two_releases_lies_between_theirs():
    anchors = {"1.13": 1.0, "2.20": 2.0}
    values = [dm.at_release(anchors, release) for release in dm.RELEASES]
    assert values[0] == 1 and values[-1] == 2 and values == sorted(values)
    assert dm.at_release({"1.17": 5.0}, "1.13") == 5


def test_an_older_release_is_slower():
    work = dm.Work(dm.BERT_BASE, 1, 128, 1, 4)
    assert [
        sum(dm.stage_seconds(work._replace(release=release))) for release in ("1.13", "1.15", "2.10", "2.20")
    ] == sorted(
        (sum(dm.stage_seconds(work._replace(release=release))) for release in ("1.13", "1.15", "2.10", "2.20")),
        reverse=True,
    )


def test_more_cores_than_halves_are_allowed():
    """neuron-cc takes what is no multiple of 4 (7 cores in aws-neuron-sdk#291), and BERT-large's formula says 60."""
    assert len(dm.stage_seconds(dm.Work(BERT_LARGE, 1, 128, 60, 4))) == 60
    assert dm.largest_share(BERT_LARGE, 60) == 1 / 60
    assert dm.largest_share(dm.BERT_BASE, 7) == 4 / 24


@pytest.mark.parametrize(
    "config, shape",
    [
        ({"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
         dm.BERT_BASE),
        ({"n_layers": 6, "dim": 768, "hidden_dim": 3072, "n_heads": 12}, dm.DISTIL),
        ({"num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
         BERT_LARGE),
    ],
)  # fmt: skip
def test_shapes_are_read_from_a_config(config, shape):
    assert dm.ModelShape.from_config(config) == shape


def test_a_config_without_layers_is_named():
    with pytest.raises(UsageError, match="num_hidden_layers, n_layers"):
        dm.ModelShape.from_config({"hidden_size": 768})


@pytest.mark.parametrize("change", [{"release": "3.0"}, {"batch_size": 0}, {"pipeline_cores": 0}])
def test_impossible_work_is_refused(change):
    with pytest.raises(UsageError):
        dm.stage_seconds(dm.Work(dm.BERT_BASE, 1, 128, 1, 4)._replace(**change))


shapes = st.sampled_from([dm.BERT_BASE, dm.DISTIL, BERT_LARGE])
works = st.builds(
    dm.Work, shapes, st.integers(1, 16), st.sampled_from([64, 128, 256, 384, 512]), st.integers(1, 64),
    st.integers(1, 4), st.sampled_from(dm.RELEASES), st.sampled_from(sorted(dm.ACTIVATION_BYTES)),
)  # fmt: skip


@given(works)
def test_more_work_never_takes_less_time(work):
    for larger in (
        work._replace(batch_size=work.batch_size + 1),
        work._replace(sequence_length=work.sequence_length + 64),
        work._replace(active_cores_per_chip=4),
    ):
        assert sum(dm.stage_seconds(larger)) >= sum(dm.stage_seconds(work)) - 1e-12


@given(works)
def test_one_stage_a_core_the_first_the_slowest(work):
    stages = dm.stage_seconds(work)
    assert len(stages) == work.pipeline_cores and min(stages) >= 0 and max(stages) == stages[0]


@settings(max_examples=40)
@given(works, st.integers(1, 16), st.integers(1, 16))
def test_littles_law_holds(work, models, in_flight):
    found = dm.predict(work, models=models, in_flight=in_flight)
    batches_per_s = found.throughput_per_s / work.batch_size
    assert batches_per_s * found.latency_s == pytest.approx(models * in_flight)
    assert found.latency_s >= found.service_s - 1e-12 and 0 < found.utilisation <= 1.001
    more = dm.predict(work, models=models, in_flight=in_flight + 1)
    assert more.throughput_per_s >= 0.99 * found.throughput_per_s  # its waits are drawn, and longer


def test_the_lowest_latency_is_the_pipeline_and_the_lowest_cost_is_data_parallel():
    pipeline = dm.predict(dm.Work(dm.BERT_BASE, 1, 128, 16, 4), in_flight=12)
    single = dm.predict(dm.Work(dm.BERT_BASE, 6, 128, 1, 4), models=4, in_flight=2)
    assert pipeline.latency_s < single.latency_s
    assert 1.18 / pipeline.throughput_per_s > 2.5 * 0.228 / single.throughput_per_s
