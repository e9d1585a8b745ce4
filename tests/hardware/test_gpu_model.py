"""The arithmetic that predicts GPUs: tables with sources, a share that published figures cut, honest ranges."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import UsageError
from neuronbert.hardware import gpu_model
from neuronbert.hardware.device_model import BERT_BASE, DISTIL, ModelShape
from neuronbert.hardware.gpu_model import (
    BERT_LARGE,
    GpuKind,
    full_batch,
    gpu_kinds,
    gpu_sizes,
    likely_range,
    published_rows,
    sequences_per_s,
    share_of,
    unlike_published,
    why_no_room,
)
from neuronbert.hardware.prices import shipped_prices

KINDS = gpu_kinds()
GPUS = {
    "g4dn": ("T4", {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "16xlarge": 1, "12xlarge": 4, "metal": 8}),
    "g5": ("A10G", {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "16xlarge": 1, "12xlarge": 4, "24xlarge": 4,
                    "48xlarge": 8}),
    "p4d": ("A100", {"24xlarge": 8}), "p5": ("H100", {"4xlarge": 1, "48xlarge": 8}), "p5en": ("H200", {"48xlarge": 8}),
}  # fmt: skip
GPUS["g6"], GPUS["g6e"] = ("L4", GPUS["g5"][1]), ("L40S", GPUS["g5"][1])


@pytest.fixture()
def share(monkeypatch):
    """The calibrated share, as a function that sets it."""
    return lambda value: monkeypatch.setattr(gpu_model, "calibrated_share", lambda: gpu_model.Constant(value, "a test"))


def test_the_gpus_of_every_size():
    expected = {
        f"{family}.{size}": (kind, gpus) for family, (kind, sizes) in GPUS.items() for size, gpus in sizes.items()
    }
    assert {name: (size.kind.name, size.gpus) for name, size in gpu_sizes().items()} == expected


def test_every_size_has_a_price():
    assert set(gpu_sizes()) <= set(shipped_prices().names)


@pytest.mark.parametrize("path", [gpu_model.KINDS_PATH, gpu_model.SIZES_PATH, gpu_model.PUBLISHED_PATH])
def test_every_row_of_a_table_names_its_source(path):
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(row["source"].strip() and None not in row and None not in row.values() for row in rows)


def test_the_share_names_its_source():
    written = json.loads(gpu_model.CALIBRATION_PATH.read_text())["share_of_matrix_rate"]
    assert gpu_model.calibrated_share() == (written["value"], written["source"])
    assert 0 < written["value"] <= 1 and written["source"]


def test_the_rate_of_a_runner_names_its_source():
    written = json.loads(gpu_model.CALIBRATION_PATH.read_text())["runner_rate"]
    assert gpu_model.runner_rate() == (written["value"], written["source"]) and written["source"]


def test_a_published_figure_of_one_gpu_is_that_of_all_divided():
    with open(gpu_model.PUBLISHED_PATH, newline="", encoding="utf-8") as file:
        written = [float(row["per_gpu_per_s"]) for row in csv.DictReader(file)]
    assert written == pytest.approx([row.per_gpu_per_s for row in published_rows()], rel=1e-5)


def test_the_published_tables_hold_what_a_plan_is_held_against():
    rows = {(row.kind.name, row.accuracy_target, row.scenario): row for row in published_rows()}
    for kind in ("H100", "H200"):
        assert {(kind, target, way) for target in (0.99, 0.999) for way in ("Offline", "Server")} <= set(rows)
    assert rows["H100", 0.99, "Offline"].per_gpu_per_s == pytest.approx(70116.2 / 8)
    blog = rows["T4", None, ""]
    assert blog.usd_per_million == 0.20 and blog.tokens == 128
    assert shipped_prices().price("g4dn.xlarge").per_million(blog.throughput_per_s) == pytest.approx(0.20, abs=1e-4)


def test_a_sequence_of_bert_base_by_hand():
    """2 * 85,054,464 weights * 128 tokens, and 4 * 128^2 * 768 * 12 of attention: 22.4 GFLOPs."""
    flops = 2 * 85_054_464 * 128 + 4 * 128**2 * 768 * 12
    assert sequences_per_s(BERT_BASE, 128, KINDS["H100"]) == pytest.approx(share_of(KINDS["H100"]) * 989.4e12 / flops)


def test_a_share_is_cut_by_what_was_published_of_the_chip_in_16_bits(share):
    share(0.9)
    mlperf = 1603.33 / 8 * BERT_LARGE.flops(177) / 65e12  # T4's row in fp16, of eight
    assert share_of(KINDS["T4"]) == pytest.approx(mlperf)
    assert share_of(KINDS["A100"]) == pytest.approx(14003.8 / 8 * BERT_LARGE.flops(177) / 312e12)
    assert share_of(KINDS["H100"]) == 0.9  # whose rows are in 8 bits
    share(0.1)
    assert {share_of(kind) for kind in KINDS.values()} == {0.1}


@given(value=st.floats(0.05, 1.0))
def test_every_published_figure_in_16_bits_lies_in_the_likely_range(value):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gpu_model, "calibrated_share", lambda: gpu_model.Constant(value, "a test"))
        low, high = likely_range("throughput_per_s")
        for row in published_rows():
            if row.precision == "fp16":
                predicted = sequences_per_s(gpu_model.PUBLISHED_SHAPES[row.model], row.tokens, row.kind)
                assert low * predicted <= row.per_gpu_per_s * (1 + 1e-9)
                assert row.per_gpu_per_s <= high * predicted * (1 + 1e-9)
        assert likely_range("p95_ms") == pytest.approx((1 / high, 1 / low))


SHAPES = st.builds(
    lambda layers, heads: ModelShape(layers, 64 * heads, 256 * heads, heads, layers * 12 * (64 * heads) ** 2),
    layers=st.integers(1, 48), heads=st.integers(1, 32),
)  # fmt: skip


@given(shape=SHAPES, tokens=st.integers(1, 4096), kind=st.sampled_from(sorted(KINDS)))
def test_more_tokens_are_fewer_sequences_and_smaller_full_batches(shape, tokens, kind):
    gpu = KINDS[kind]
    assert sequences_per_s(shape, tokens + 1, gpu) < sequences_per_s(shape, tokens, gpu)
    batch = full_batch(shape, tokens, gpu)
    assert batch % 8 == 0 and batch >= full_batch(shape, tokens + 1, gpu)
    tiles = batch * tokens / 128 * shape.hidden / 128
    assert tiles >= 3 * gpu.multiprocessors - 1e-6
    assert batch == 8 or (batch - 8) * tokens * shape.hidden / 128**2 < 3 * gpu.multiprocessors


@given(tokens=st.integers(1, 512), rate=st.floats(1e12, 1e15), times=st.floats(1.01, 20))
def test_a_faster_chip_takes_as_much_more(tokens, rate, times):
    slow, fast = (GpuKind("X", 10**10, 40, one, "a test") for one in (rate, times * rate))
    assert sequences_per_s(DISTIL, tokens, fast) == pytest.approx(times * sequences_per_s(DISTIL, tokens, slow))


def test_a_sequence_without_tokens_is_refused():
    with pytest.raises(UsageError, match="at least 1 token, not 0"):
        sequences_per_s(BERT_BASE, 0, KINDS["T4"])


@pytest.mark.parametrize(
    "shape, tokens, kind, said",
    [
        (BERT_LARGE, 177, "L4", ""), (BERT_BASE, 128, "T4", ""), (BERT_LARGE, 177, "T4", ""),
        (BERT_LARGE, 384, "L4", "384 tokens instead of 177"),
        (BERT_BASE, 384, "T4", "384 tokens instead of 128"),
        (DISTIL, 128, "T4", "6 layers of 768 instead of 12 of 768"),
        (BERT_BASE, 128, "A100", "128 tokens instead of 177, 12 layers of 768 instead of 24 of 1024"),
        (BERT_LARGE, 177, "H100", "nothing in 16 bits is published of H100"),
        (BERT_BASE, 128, "A10G", "nothing in 16 bits is published of A10G"),
    ],
)  # fmt: skip
def test_what_no_published_row_has_is_said(shape, tokens, kind, said):
    assert unlike_published(shape, tokens, KINDS[kind]) == said


def test_a_model_that_does_not_fit_is_refused_with_the_numbers():
    giant = ModelShape(96, 4096, 16384, 64, 19_000_000_000)
    assert why_no_room(giant, KINDS["L4"]) == "38.0 GB of weights in 16 bits, and 19.2 of L4's memory are for them"
    assert why_no_room(giant, KINDS["H100"]) == why_no_room(BERT_LARGE, KINDS["T4"]) == ""
