"""A benchmark as a document: JSON with the raw samples, CSV, Markdown, and one HTML page that needs no network.

The document is {"schema_version", "kind", "neuronbert_version", "created_at", "command", "artifact", "environment",
"points": [...]}; a point has ``COLUMNS`` (neuronperf's names where it has one), the figures' intervals and the raw
samples. ``neuronbert plan --measured`` reads it; comparison.py compares two.
"""

import csv
import io
import json
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from neuronbert import __version__
from neuronbert.artifact.files import output_errors, replace_file
from neuronbert.benchmark import statistics
from neuronbert.benchmark.load import LoadResult
from neuronbert.benchmark.loadgen import OFFLINE, LoadGenResult
from neuronbert.errors import InputError, UsageError
from neuronbert.hardware.prices import Price

Point = Dict[str, Any]  # column → value, with the figures' intervals and the raw samples
Document = Dict[str, Any]  # a whole report

TEMPLATE_PATH = Path(__file__).with_name("report.html")
# 1: the first.
SCHEMA_VERSION = 1
KIND = "neuronbert-benchmark"

# neuronperf's names, then ours.
COLUMNS = (
    "model_filename", "instance_type", "n_models", "workers_per_model", "pipeline_size", "batch_size",
    "sequence_length", "throughput_avg", "latency_ms_p50", "latency_ms_p90", "latency_ms_p95", "latency_ms_p99",
    "cost_per_1m_inf", "price_usd_per_hour", "price_region", "price_date", "engine", "variant", "mode", "precision",
    "emulated", "threads", "input", "concurrency", "offered_qps", "errors",
    "padding_ratio", "steady", "knee", "at_target", "cold_start_s", "host_cpu_us", "memory_bytes", "loadgen_throughput",
    "loadgen_latency_ms_p50", "loadgen_latency_ms_p90", "loadgen_latency_ms_p95", "loadgen_ratio", "loadgen_p50_ratio",
    "loadgen_valid",
)  # fmt: skip
# Equal in these columns, two points are the same question asked twice; the other columns are answers.
IDENTITY = (
    "instance_type", "engine", "variant", "mode", "precision", "emulated", "n_models", "workers_per_model", "threads",
    "pipeline_size", "batch_size", "sequence_length", "input", "concurrency", "offered_qps",
)  # fmt: skip
# A curve runs over the load (concurrency or rate), a knee over batch sizes.
LOAD = ("concurrency", "offered_qps")


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
    """Set ``knee`` on the points of each configuration: true for the smallest batch size near the plateau."""
    families: Dict[Tuple[object, ...], List[Point]] = {}
    for point in points:
        # Without the variant: a static one has its batch size in its name.
        families.setdefault(identity_of(point, "batch_size", "variant", *LOAD), []).append(point)
    for family in families.values():
        best: Dict[int, float] = {}
        for point in family:
            size = point["batch_size"]
            best[size] = max(best.get(size, 0.0), point["throughput_avg"] or 0.0)
        knee = statistics.find_knee(best)
        for point in family:
            point["knee"] = len(best) > 1 and point["batch_size"] == knee


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
    latency_p95_ms: Optional[float] = None,
    left_out: Optional[Mapping[str, int]] = None,
) -> Document:
    """The whole report: knees and what meets ``latency_p95_ms`` are marked, ``left_out`` is reason → missing points."""
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
        "latency_target_p95_ms": latency_p95_ms,
        "left_out": dict(left_out or {}),
        "points": list(points),
    }


def read_report(path: Union[str, Path]) -> Document:
    """A report that was written as JSON; InputError for anything else and for a newer schema."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", hint="a JSON report of neuronbert benchmark"
        ) from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", hint="a JSON report of neuronbert benchmark") from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise InputError(f"{path} is not a report of neuronbert benchmark")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path} has schema {document.get('schema_version')}, this version reads {SCHEMA_VERSION}")
    points = document.get("points")
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise InputError(f"{path} is not a report of neuronbert benchmark: it has no points")
    for part in ("artifact", "environment", "asked"):
        if not isinstance(document.get(part), dict):
            raise InputError(f"{path} is not a report of neuronbert benchmark: it has no {part}")
    return dict(document)


# ---------------------------------------------------------------------------- writers


def as_json(document: Document) -> str:
    """Everything, the raw samples included."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(document: Document) -> str:
    """One line for each point; an empty field for what was not measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(document["points"])
    return text.getvalue()


def as_markdown(document: Document) -> str:
    """A table of the columns that have a value, then what the figures rest on."""
    points = document["points"]
    columns = [name for name in COLUMNS if any(point.get(name) is not None for point in points)]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(point.get(name)) for name in columns) + " |" for point in points]
    prices = dict.fromkeys(Price(**point["price"]).sentence() for point in points if point.get("price"))
    facts = [
        f"`{document['command']}`",
        f"measured {document['created_at']}, neuronbert {document['neuronbert_version']}",
    ]
    facts += [*_costs(document), *(f"cost {price}" for price in prices)]
    facts += [f"{count} point(s) left out: {why}" for why, count in document.get("left_out", {}).items()]
    return "\n".join([*lines, "", *(f"* {fact}" for fact in facts)]) + "\n"


def _costs(document: Document) -> List[str]:
    """The highest throughput, and the highest within the latency target: no service runs at saturation."""
    points = [point for point in document["points"] if point["throughput_avg"]]
    limit = document.get("latency_target_p95_ms")
    wanted = [("saturated", points)]
    if limit is not None:
        wanted.append((f"p95 within {limit:g} ms", [point for point in points if point.get("at_target")]))
    return [f"{name}: {_most(candidates)}" for name, candidates in wanted]


def _most(points: Sequence[Point]) -> str:
    if not points:
        return "no point that was measured"
    best = max(points, key=lambda point: point["throughput_avg"])
    cost = f", {best['cost_per_1m_inf']:.3g} USD for a million" if best["cost_per_1m_inf"] else ""
    return f"{best['throughput_avg']:.4g}/s{cost} ({label_of(best)})"


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "\\|")


def label_of(point: Point) -> str:
    """Everything that tells a point from others, in words."""
    return ", ".join(f"{name} {point[name]}" for name in IDENTITY if point.get(name) not in (None, False))


def as_html(document: Document) -> str:
    """One self-contained page: curves, cost, the table, the machine, the command, the samples."""
    # "</script>" or "<!--" within the data would end or open an element of the page.
    data = json.dumps(document, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return TEMPLATE_PATH.read_text(encoding="utf-8").replace("__REPORT__", data, 1)


WRITERS = {".json": as_json, ".csv": as_csv, ".md": as_markdown, ".html": as_html}


def refuse_unwritable(path: Union[str, Path]) -> None:
    """UsageError, before anything is measured, for a report that could not be written."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITERS:
        raise UsageError(f"a report is not written as {suffix or 'a file without a suffix'}: {path}",
                         hint=f"a name that ends in {', '.join(WRITERS)}")  # fmt: skip
    if not Path(path).absolute().parent.is_dir():
        raise UsageError(f"there is no folder {Path(path).parent} for the report", hint=f"mkdir -p {Path(path).parent}")


def write_report(document: Document, path: Union[str, Path]) -> None:
    """Write the form that the suffix of ``path`` names.

    Raises UsageError for any other suffix, OutputError for a place that cannot be written.
    """
    refuse_unwritable(path)
    target = Path(path)
    with output_errors(target):
        replace_file(target, WRITERS[target.suffix.lower()](document))
