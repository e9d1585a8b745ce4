"""A benchmark as a document: its points with their figures, their marks, and the facts that they rest on.

The document is {"schema_version", "kind", "neuronbert_version", "created_at", "command", "artifact", "environment",
"points": [...]}, of a server "server" as well. A point has ``COLUMNS`` (neuronperf's names where it has one), the
figures' intervals and the raw samples. forms.py writes it, report_file.py reads it back; ``neuronbert plan --measured``
uses it, and comparison.py compares two.
"""

import math
from datetime import datetime, timezone
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from neuronbert import __version__
from neuronbert.benchmark import statistics
from neuronbert.benchmark.columns import COLUMNS, LOAD
from neuronbert.benchmark.load import LoadResult
from neuronbert.benchmark.loadgen import OFFLINE, LoadGenResult
from neuronbert.hardware.prices import Price

Point = Dict[str, Any]  # column → value, with the figures' intervals and the raw samples
Document = Dict[str, Any]  # a whole report

# 1: the first.
SCHEMA_VERSION = 1
KIND = "neuronbert-benchmark"

# Equal in these columns, two points are the same question asked twice; the other columns are answers.
IDENTITY = (
    "instance_type", "engine", "variant", "mode", "precision", "emulated", "n_models", "workers_per_model", "threads",
    "pipeline_size", "batch_size", "sequence_length", "input", "protocol", "concurrency", "offered_qps",
)  # fmt: skip


def measured_point(setting: Mapping[str, Any], result: LoadResult, price: Optional[Price] = None) -> Point:
    """One point: the columns of ``setting``, the figures with their intervals, and the latencies they came from."""
    rate = statistics.mean(result.throughputs_per_s)._replace(value=result.throughput_per_s)
    latencies = statistics.latency_percentiles(result.latencies_ms)
    figures = {
        "throughput_avg": rate,
        **{f"latency_ms_p{percent}": estimate for percent, estimate in latencies.items()},
    }
    return {
        **dict.fromkeys(COLUMNS),
        **setting,
        **{name: None if estimate is None else _finite(estimate.value) for name, estimate in figures.items()},
        "cost_per_1m_inf": price.per_million(rate.value) if price and rate.value > 0 else None,
        "price": price._asdict() if price else None,
        "price_usd_per_hour": price.usd_per_hour if price else None,
        "price_region": price.region if price else None,
        "price_date": price.date if price else None,
        "errors": sum(result.errors.values()),
        "errors_by_class": result.errors,
        "steady": result.steady,
        "intervals": {
            name: [_finite(estimate.low), _finite(estimate.high)]
            for name, estimate in figures.items()
            if estimate is not None
        },
        "samples_ms": [round(latency, 3) for latency in result.latencies_ms],
    }


def loadgen_columns(point: Point, ours: LoadResult, theirs: Optional[LoadGenResult]) -> Point:
    """What MLPerf LoadGen measured at the same point, and our throughput as a share of its.

    The two draw different random arrivals: of the server scenario each throughput is taken relative to what came.
    """
    if theirs is None:
        return {}
    ratio = point["throughput_avg"] / theirs.throughput_per_s
    if theirs.scheduled_per_s and ours.arrived_per_s:
        ratio *= theirs.scheduled_per_s / ours.arrived_per_s
    latencies = {} if theirs.scenario == OFFLINE else theirs.latencies_ms
    return {
        "loadgen_scenario": theirs.scenario,
        "loadgen_throughput": theirs.throughput_per_s,
        **{f"loadgen_latency_ms_p{percent}": value for percent, value in latencies.items()},
        "loadgen_ratio": _finite(ratio),
        "loadgen_p50_ratio": _finite(point["latency_ms_p50"] / latencies[50])
        if 50 in latencies and point["latency_ms_p50"]
        else None,
        "loadgen_valid": theirs.valid,
        "loadgen_why_invalid": theirs.why_invalid,
        "loadgen_queries": theirs.queries,
        "loadgen_errors": theirs.errors,
        "loadgen_logs": theirs.logs,
    }


def _finite(value: float) -> Optional[float]:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def identity_of(point: Point, *without: str) -> Tuple[object, ...]:
    """What tells a point from the others of a report, leaving out the columns ``without``."""
    return tuple(point.get(name) for name in IDENTITY if name not in without)


def mark_knees(points: Iterable[Point]) -> None:
    """Set ``knee``: true for the one point of each curve where latency takes off (statistics.find_knee)."""
    for curve in curves_of(points):
        loads = [_load_point(point) for point in curve]
        knee = statistics.find_knee(loads, least_load=1 if curve[0]["offered_qps"] is None else None)
        for index, point in enumerate(curve):
            point["knee"] = index == knee


def curves_of(points: Iterable[Point]) -> List[List[Point]]:
    """The points of each configuration by rising load; clients that wait and requests that come are two curves."""
    curves: Dict[Tuple[object, ...], List[Point]] = {}
    for point in points:
        curves.setdefault((point["offered_qps"] is None, *identity_of(point, *LOAD)), []).append(point)
    return [sorted(curve, key=_load_of) for curve in curves.values()]


def _load_of(point: Point) -> float:
    return float(point["concurrency"] or point["offered_qps"] or 0)


def _load_point(point: Point) -> statistics.LoadPoint:
    # What refuses requests is past its knee, however soon it answers the others.
    rate = 0.0 if point["errors"] else point["throughput_avg"] or 0.0
    return statistics.LoadPoint(_load_of(point), rate, point["latency_ms_p95"] or 0.0)


def mark_target(points: Sequence[Point], latency_p95_ms: Optional[float]) -> None:
    """Set ``at_target``: true for each configuration's best point with a p95 within ``latency_p95_ms``."""
    best: Dict[Tuple[object, ...], Point] = {}
    for point in points:
        point["at_target"] = None if latency_p95_ms is None else False
        p95_ms = point["latency_ms_p95"]
        # Latencies are those of answered requests only, so a point with errors proves nothing.
        if latency_p95_ms is None or p95_ms is None or p95_ms > latency_p95_ms or point["errors"]:
            continue
        key = identity_of(point, *LOAD)
        if key not in best or point["throughput_avg"] > best[key]["throughput_avg"]:
            best[key] = point
    for point in best.values():
        point["at_target"] = True


def document_of(
    points: Sequence[Point],
    *,
    command: str,
    artifact: Mapping[str, object],
    environment: Mapping[str, object],
    asked: Optional[Mapping[str, object]] = None,
    server: Optional[Mapping[str, object]] = None,
    latency_p95_ms: Optional[float] = None,
    left_out: Optional[Mapping[str, int]] = None,
) -> Document:
    """The whole report: knees and what meets ``latency_p95_ms`` are marked, ``left_out`` is reason → missing points.

    ``server``: what was asked where, if it was a server.
    """
    mark_knees(points)
    mark_target(points, latency_p95_ms)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "neuronbert_version": __version__,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "artifact": dict(artifact),
        "environment": dict(environment),
        "asked": dict(asked or {}),
        **({} if server is None else {"server": dict(server)}),
        "latency_target_p95_ms": latency_p95_ms,
        "left_out": dict(left_out or {}),
        "points": list(points),
    }
