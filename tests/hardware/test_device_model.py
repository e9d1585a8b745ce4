"""The device model against what AWS published, and against common sense where nothing was."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import UsageError
from neuronbert.hardware import device_model as dm

with open(dm.PUBLISHED_PATH, newline="", encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))

DISTILBERT = dm.ModelShape(6, 768, 3072, 12, 42_527_232)
BERT_LARGE = dm.ModelShape(24, 1024, 4096, 16, 302_309_376)
CALIBRATION = json.loads(dm.CALIBRATION_PATH.read_text(encoding="utf-8"))


def name_of(row):
    return f"{row['sdk_version']}-{row['instance_type']}-p{row['pipeline_cores']}-b{row['batch_size']}"


@pytest.mark.parametrize("row", ROWS, ids=map(name_of, ROWS))
def test_published_throughput_within_five_percent(row):
    work, load = dm.published_work(row)
    assert dm.predict(work, **load).throughput_per_s == pytest.approx(float(row["throughput_per_s"]), rel=0.05)


@pytest.mark.parametrize("row", ROWS, ids=map(name_of, ROWS))
def test_published_latency_within_ten_percent(row):
    work, load = dm.published_work(row)
    latency_ms = dm.predict(work, **load).latency_s * 1e3
    for column in ("p50_ms", "p95_ms"):
        if row[column]:
            assert latency_ms == pytest.approx(float(row[column]), rel=0.10)


# Rows of AWS's 2.20 tables that the constants were not fitted to.
@pytest.mark.parametrize(
    "shape, batch, models, in_flight, published",
    [(dm.BERT_BASE, 8, 4, 2, 1095.4), (DISTILBERT, 8, 4, 2, 1876)],
)
def test_rows_that_were_not_fitted_within_fifteen_percent(shape, batch, models, in_flight, published):
    work = dm.Work(shape, batch, 128, 1, models)
    assert dm.predict(work, models=models, in_flight=in_flight).throughput_per_s == pytest.approx(published, rel=0.15)


def test_the_calibration_says_what_it_is():
    assert len(CALIBRATION["rows"]) == len(ROWS) == 13
    assert len(CALIBRATION["free_parameters"]) == 7
    assert all(entry["meaning"] and entry["unit"] for entry in CALIBRATION["free_parameters"].values())
    assert CALIBRATION["largest_error"] < 0.05
    left_out = [abs(row["leave_one_out_error"]) for row in CALIBRATION["rows"]]
    assert max(left_out) == CALIBRATION["largest_leave_one_out_error"] < 0.15


@pytest.mark.parametrize("row, calibrated", list(zip(ROWS, CALIBRATION["rows"])), ids=map(name_of, ROWS))
def test_the_residuals_are_those_of_the_constants(row, calibrated):
    work, load = dm.published_work(row)
    error = dm.predict(work, **load).throughput_per_s / float(row["throughput_per_s"]) - 1
    assert calibrated["error"] == pytest.approx(error, abs=2e-4)


def test_a_release_sets_streaming_and_overhead_only():
    work = dm.Work(dm.BERT_BASE, 1, 128, 16, 4, "1.13")
    slow, fast = (sum(dm.stage_seconds(work._replace(release=release))) for release in ("1.13", "2.20"))
    assert slow > fast
    constants = dm.calibrated()
    assert set(constants.stream_bytes_per_s) == set(constants.host_call_s) == set(dm.RELEASES)


@pytest.mark.parametrize(
    "config, shape",
    [
        ({"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
         dm.BERT_BASE),
        ({"n_layers": 6, "dim": 768, "hidden_dim": 3072, "n_heads": 12}, DISTILBERT),
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


shapes = st.sampled_from([dm.BERT_BASE, DISTILBERT, BERT_LARGE])
works = st.builds(
    dm.Work, shapes, st.integers(1, 16), st.sampled_from([64, 128, 256, 384, 512]), st.integers(1, 64),
    st.integers(1, 4), st.sampled_from(dm.RELEASES),
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


@given(works, st.integers(1, 16), st.integers(1, 64))
def test_littles_law_holds(work, models, in_flight):
    found = dm.predict(work, models=models, in_flight=in_flight)
    batches_per_s = found.throughput_per_s / work.batch_size
    assert batches_per_s * found.latency_s == pytest.approx(models * in_flight)
    assert found.latency_s >= found.service_s - 1e-12 and 0 < found.utilisation <= 1 + 1e-9
    more = dm.predict(work, models=models, in_flight=in_flight + 1)
    assert more.throughput_per_s >= found.throughput_per_s - 1e-9


def test_the_lowest_latency_is_the_pipeline_and_the_lowest_cost_is_data_parallel():
    pipeline = dm.predict(dm.Work(dm.BERT_BASE, 1, 128, 16, 4), in_flight=12)
    single = dm.predict(dm.Work(dm.BERT_BASE, 6, 128, 1, 4), models=4, in_flight=2)
    assert pipeline.latency_s < single.latency_s
    assert 1.18 / pipeline.throughput_per_s > 2.5 * 0.228 / single.throughput_per_s
