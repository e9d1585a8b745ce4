"""How many sequences an NVIDIA GPU takes in a second: pure arithmetic for the planner, beside device_model.py for inf1.

A GPU whose batches are full spends its time in matrix products, so it takes

    sequences/s = share * dense 16-bit rate / FLOPs of a sequence

with ``ModelShape.flops`` (the weights' products, and attention's) and one constant: ``share``, which
``gpu_calibration.json`` has with its source. Where somebody has published BERT on a kind of GPU in 16 bits, ``share``
is at most the best of that, for not every chip reaches as much of its datasheet: T4's rows say a third. What is
published in 8 bits limits nothing, for the prediction is for 16.

Nothing is predicted for batches that leave multiprocessors idle: launches and memory then count, and no datasheet says
how much. ``full_batch`` is the least that is predicted.

Tables: ``gpu_kinds.csv`` (datasheets), ``gpu_sizes.csv`` (which EC2 size has which GPUs), and
``published_gpu_performance.csv``, whose ``tokens`` are means without padding. Of MLPerf's SQuAD they are 177: of rows
of 384 tokens 54 % are padding (openreview.net/forum?id=3nzKUh9a4M), which NVIDIA's program leaves out. Its README
(closed/NVIDIA/code/bert/tensorrt) has the precisions: INT8 for 99 % of FP32's F1, FP16 for 99.9 %, and there FP8 for
the products on Hopper.
"""

import csv
import functools
import json
import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from neuronbert.errors import UsageError, counted
from neuronbert.hardware.device_model import BERT_BASE, ModelShape

KINDS_PATH = Path(__file__).with_name("gpu_kinds.csv")
SIZES_PATH = Path(__file__).with_name("gpu_sizes.csv")
PUBLISHED_PATH = Path(__file__).with_name("published_gpu_performance.csv")
CALIBRATION_PATH = Path(__file__).with_name("gpu_calibration.json")

BERT_LARGE = ModelShape(layers=24, hidden=1024, intermediate=4096, heads=16, weights=302_309_376)
PUBLISHED_SHAPES = {"bert-base": BERT_BASE, "bert-large": BERT_LARGE}
SIXTEEN_BITS = ("fp16", "bf16")
BYTES_PER_WEIGHT = 2
# The rest is for activations, the framework and its kernels.
WEIGHTS_SHARE_OF_MEMORY = 0.8
# Of the smallest product of a layer, tokens × hidden, in tiles of 128 × 128: with three tiles for each multiprocessor
# the last round, which some of them sit out, costs a quarter at most.
TILE = 128
TILES_PER_MULTIPROCESSOR = 3
ROUND_BATCH_TO = 8


class GpuKind(NamedTuple):
    """A chip by its datasheet."""

    name: str
    memory_bytes: int
    multiprocessors: int
    dense_flops_per_s: float  # of matrix products in 16 bits, without sparsity
    source: str


class GpuSize(NamedTuple):
    """An EC2 instance type and its GPUs."""

    instance_type: str
    kind: GpuKind
    gpus: int


class PublishedRow(NamedTuple):
    """What somebody published of BERT on GPUs."""

    model: str
    accuracy_target: Optional[float]  # MLPerf's: the share of FP32's F1 that is kept
    system: str
    submitter: str
    round: str  # of MLPerf; empty for others
    date: str  # year-month
    kind: GpuKind
    gpus: int
    precision: str
    scenario: str
    tokens: int
    throughput_per_s: float  # sequences, all GPUs together
    p95_ms: Optional[float]
    usd_per_million: Optional[float]  # where the cost was published
    source: str

    @property
    def per_gpu_per_s(self) -> float:
        """Sequences a second of one GPU."""
        return self.throughput_per_s / self.gpus

    @property
    def share(self) -> float:
        """Of the chip's dense 16-bit rate; more than 1 is possible in 8 bits."""
        flops = PUBLISHED_SHAPES[self.model].flops(self.tokens)
        return self.per_gpu_per_s * flops / self.kind.dense_flops_per_s

    @property
    def name(self) -> str:
        """As pictures and their keys call it."""
        kept = f", {100 * self.accuracy_target:g} % of FP32's F1" if self.accuracy_target else ""
        where = " ".join(part for part in (self.system, self.round, self.scenario) if part)
        return f"{self.kind.name}, {self.precision}: {self.model}, {self.tokens} tokens{kept} ({where}, {self.date})"


# ---------------------------------------------------------------------------- tables


@functools.lru_cache(maxsize=1)
def gpu_kinds() -> Mapping[str, GpuKind]:
    """Every kind of GPU by its name."""
    return {
        row["gpu"]: GpuKind(
            row["gpu"],
            int(row["memory_gb"]) * 10**9,
            int(row["multiprocessors"]),
            float(row["dense_16_bit_tflops"]) * 1e12,
            row["source"],
        )
        for row in _rows(KINDS_PATH)
    }


@functools.lru_cache(maxsize=1)
def gpu_sizes() -> Mapping[str, GpuSize]:
    """Every EC2 size with GPUs by its name."""
    return {
        row["instance_type"]: GpuSize(row["instance_type"], gpu_kinds()[row["gpu"]], int(row["gpus"]))
        for row in _rows(SIZES_PATH)
    }


@functools.lru_cache(maxsize=1)
def published_rows() -> Tuple[PublishedRow, ...]:
    """All of ``published_gpu_performance.csv``."""
    return tuple(
        PublishedRow(
            model=row["model"],
            accuracy_target=_optional(row["accuracy_target"]),
            system=row["system"],
            submitter=row["submitter"],
            round=row["round"],
            date=row["date"],
            kind=gpu_kinds()[row["gpu"]],
            gpus=int(row["gpus"]),
            precision=row["precision"],
            scenario=row["scenario"],
            tokens=int(row["tokens"]),
            throughput_per_s=float(row["throughput_per_s"]),
            p95_ms=_optional(row["p95_ms"]),
            usd_per_million=_optional(row["usd_per_1m"]),
            source=row["source"],
        )
        for row in _rows(PUBLISHED_PATH)
    )


def _rows(path: Path) -> List[Dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _optional(text: str) -> Optional[float]:
    return float(text) if text else None


class Constant(NamedTuple):
    """One that was measured, and who says so."""

    value: float
    source: str


@functools.lru_cache(maxsize=1)
def calibrated_share() -> Constant:
    """The share of the dense 16-bit rate that ships with the package."""
    return _constant("share_of_matrix_rate")


@functools.lru_cache(maxsize=1)
def runner_rate() -> Constant:
    """The most sequences a second that one Runner feeds to a GPU."""
    return _constant("runner_rate")


def _constant(name: str) -> Constant:
    found: Dict[str, Any] = json.loads(CALIBRATION_PATH.read_text(encoding="utf-8"))[name]
    return Constant(float(found["value"]), str(found["source"]))


# ---------------------------------------------------------------------------- prediction


def share_of(kind: GpuKind) -> float:
    """The share of the dense 16-bit rate that is predicted for ``kind``: at most what was published of it."""
    return min([calibrated_share().value, *sorted(row.share for row in rows_of(kind))[-1:]])


def rows_of(kind: GpuKind) -> List[PublishedRow]:
    """What was published of ``kind`` in 16 bits."""
    return [row for row in published_rows() if row.kind == kind and row.precision in SIXTEEN_BITS]


def sequences_per_s(shape: ModelShape, tokens: int, kind: GpuKind) -> float:
    """What one GPU takes in a second with full batches of sequences of ``tokens``; UsageError for no tokens."""
    if tokens < 1:
        raise UsageError(f"a sequence has at least 1 token, not {tokens}")
    return share_of(kind) * kind.dense_flops_per_s / shape.flops(tokens)


def full_batch(shape: ModelShape, tokens: int, kind: GpuKind) -> int:
    """Sequences of the smallest batch that a prediction is for: one that keeps every multiprocessor busy."""
    tiles = TILES_PER_MULTIPROCESSOR * kind.multiprocessors
    sequences = tiles * TILE * TILE / shape.hidden / tokens
    return max(1, math.ceil(sequences / ROUND_BATCH_TO)) * ROUND_BATCH_TO


def why_no_room(shape: ModelShape, kind: GpuKind) -> str:
    """Why the encoder does not fit the memory of one GPU; empty where it does."""
    needed, room = BYTES_PER_WEIGHT * shape.weights, WEIGHTS_SHARE_OF_MEMORY * kind.memory_bytes
    if needed <= room:
        return ""
    return f"{needed / 1e9:.1f} GB of weights in 16 bits, and {room / 1e9:.1f} of {kind.name}'s memory are for them"


def likely_range(figure: str) -> Tuple[float, float]:
    """(low, high): a predicted "throughput_per_s" or "p95_ms" times these is where all published figures lie.

    Of those in 16 bits, which are few and of other programs than ours: what is published over what is predicted for the
    same work, its least and its most. A latency is taken to change as much the other way, waiting included.
    """
    ratios = [row.share / share_of(row.kind) for row in published_rows() if row.precision in SIXTEEN_BITS]
    low, high = min(ratios), max(ratios)
    return {"throughput_per_s": (low, high), "p95_ms": (1 / high, 1 / low)}[figure]


def unlike_published(shape: ModelShape, tokens: int, kind: GpuKind) -> str:
    """What no published row in 16 bits has of a model, its length and a GPU; empty where one has all."""
    rows = rows_of(kind)
    if not rows:
        return f"nothing in 16 bits is published of {kind.name}"
    unlike = min((_unlike(shape, tokens, row) for row in rows), key=len)
    return ", ".join(unlike)


def _unlike(shape: ModelShape, tokens: int, row: PublishedRow) -> List[str]:
    published, unlike = PUBLISHED_SHAPES[row.model], []
    if tokens != row.tokens:
        unlike.append(f"{counted(tokens, 'token')} instead of {row.tokens}")
    if shape != published:
        sizes = f"{published.layers} of {published.hidden}"
        unlike.append(f"{counted(shape.layers, 'layer')} of {shape.hidden} instead of {sizes}")
    return unlike
