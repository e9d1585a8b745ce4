"""What AWS measured on inf1: the rows that the device model is fitted to, and those that it is not."""

import csv
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

from neuronbert.hardware.device_model import PUBLISHED_PATH, published_work
from neuronbert_tools.paths import ROOT

Row = Dict[str, str]  # column → text
CONFIGURATION = ("instance_type", "mode", "batch_size", "pipeline_cores")  # in the order that reports show them
# Rows of aws-neuron-sdk's tables that published_performance.csv does not have; nothing is ever fitted to them.
HELD_OUT_PATH = ROOT / "tests" / "data" / "published" / "held_out.csv"
TUTORIAL = "whole one-second windows"  # in the remark of its rows
TUTORIAL_BATCHES = 2040  # 30 times MRPC's 408 pairs, six at a time: src/examples/pytorch/bert_tutorial


def published_rows() -> List[Row]:
    """All of published_performance.csv, in the file's order."""
    return _read(PUBLISHED_PATH)


def blog_rows() -> List[Row]:
    """The eight rows of AWS's blog post, in its order."""
    return [row for row in published_rows() if "blog" in row["source"]]


def held_out_rows() -> List[Row]:
    """The rows that nothing is fitted to, in the file's order; ``remark`` says what is odd about one."""
    return _read(HELD_OUT_PATH)


def consistent_rows() -> List[Row]:
    """Those of them that do not contradict themselves."""
    return [row for row in held_out_rows() if not row["remark"].startswith("inconsistent")]


def _read(path: Path) -> List[Row]:
    with open(path, newline="", encoding="utf-8") as file:
        return [dict(row) for row in csv.DictReader(file)]


def configuration(row: Mapping[str, Any]) -> Tuple[str, ...]:
    """What a published row and a measurement of it have in common."""
    return tuple(str(row[name]) for name in CONFIGURATION)


def workload(row: Row) -> Tuple[Any, ...]:
    """What makes rows of several releases the same configuration: what ran, on what, and how many asked.

    The tutorial is a program of its own, with other tails than neuronperf.
    """
    work, load = published_work(row)
    tutorial = TUTORIAL in row.get("remark", "")
    return (work.shape.layers, work.batch_size, work.pipeline_cores, load["instance"], load["models"],
            load["in_flight"], tutorial)  # fmt: skip


def batches_in_flight(row: Row) -> float:
    """What a row's own figures say by Little's law: batches a second times the seconds that one takes."""
    return float(row["throughput_per_s"]) / int(row["batch_size"]) * float(row["p50_ms"]) / 1e3


def as_counted(row: Row, per_s: float) -> float:
    """The throughput that a row would give where ``per_s`` is true.

    The tutorial's bert_benchmark_utils.py counts the batches that begin and end within one second of the clock, and
    divides by the seconds touched: those at the edges are lost, and a run of T seconds touches T + 1 on average.
    """
    if TUTORIAL not in row.get("remark", ""):
        return per_s
    batch_size, callers = int(row["batch_size"]), int(row["client_threads"])
    batches_per_s = per_s / batch_size
    run_s = TUTORIAL_BATCHES / batches_per_s
    return batch_size * (batches_per_s - callers) * run_s / (run_s + 1)
