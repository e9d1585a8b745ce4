"""What the points of a report are called for a person: what they have in common, what tells them apart, their load.

Pure: points in, words out. forms.py, page.py and the command line name points with it.
"""

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from neuronbert.benchmark.columns import figure
from neuronbert.errors import counted

Point = Mapping[str, Any]


class Names:
    """The names of a report's points: ``shared`` is what all have in common, and is left out of the others."""

    def __init__(self, points: Sequence[Point]):
        parts = [configuration_parts(point) for point in points]
        common = {part for part in parts[0] if all(part in others for others in parts)} if parts else set()
        # What readers look for first stays even where all have the same.
        self._common = common - {leading_part(point) for point in points}
        self.shared: List[str] = [part for part in parts[0] if part in self._common] if parts else []

    def configuration(self, point: Point) -> str:
        """What tells a point's configuration from the others: "batch 1, 2 threads"."""
        return ", ".join(part for part in configuration_parts(point) if part not in self._common)

    def point(self, point: Point) -> str:
        """Configuration and load: "batch 1, 2 clients"."""
        return f"{self.configuration(point)}, {load_of(point)}"


def configuration_parts(point: Point) -> List[str]:
    """What a point was measured with, apart from its load, in words; the parts that are usual are left out."""
    size, length = point.get("pipeline_size") or 1, point.get("sequence_length")
    text = "real text" if point.get("input") == "text" else None
    parts = [
        point.get("instance_type"),
        "-".join(str(point[name]) for name in ("engine", "precision") if point.get(name)) or point.get("variant"),
        "EMULATED" if point.get("emulated") else None,
        f"pipeline × {size}" if size > 1 else point.get("mode"),
        counted(point["n_models"], "worker") if point.get("n_models") else None,
        _threads(point),
        leading_part(point),
        f"rows of {length} tokens" if length else text,
    ]
    return [str(part) for part in parts if part]


def leading_part(point: Point) -> str:
    """What readers look for first: the batch size, or of a server, whose batches are its own, how it was asked."""
    size = point.get("batch_size")
    return f"{point['protocol']} over HTTP" if size is None and point.get("protocol") else f"batch {size}"


def _threads(point: Point) -> Optional[str]:
    if not point.get("threads"):
        return None
    each = " each" if point.get("n_models") != 1 else ""
    return counted(point["threads"], "thread") + each


def full_name(point: Point) -> str:
    """All that a point was measured with, its load included."""
    return ", ".join([*configuration_parts(point), load_of(point)])


def load_of(point: Point) -> str:
    """How the requests came: "2 clients" that wait for their answers, or "40 requests/s"."""
    if point.get("concurrency"):
        return counted(point["concurrency"], "client")
    rate = point.get("offered_qps")
    return f"{rate:,g} {'request' if rate == 1 else 'requests'}/s" if rate else "no load"


def measured_text(point: Point) -> str:
    """What a point reached: "60.2/s at p95 92.1 ms"."""
    p95 = point["latency_ms_p95"]
    return f"{figure(point['throughput_avg'] or 0)}/s" + ("" if p95 is None else f" at p95 {figure(p95)} ms")


# ---------------------------------------------------------------------------- the best of a report


def best_points(points: Sequence[Point], latency_p95_ms: Any = None) -> List[Tuple[Point, str]]:
    """The point to take of each workload, and by what criterion.

    Points whose rows have different lengths answer different questions: each length is a workload. Within a latency
    target the best has the most throughput; without one it is the knee of the most power (statistics.find_knee), and
    where no curve has a knee, the most throughput.
    """
    workloads: Dict[object, List[Point]] = {}
    for point in points:
        if point["throughput_avg"] and point["latency_ms_p95"] is not None:
            length = point.get("sequence_length") if point.get("input") == "tokens" else None
            workloads.setdefault(length, []).append(point)
    return [_best(workload, latency_p95_ms) for workload in workloads.values()]


def _best(points: Sequence[Point], latency_p95_ms: Any) -> Tuple[Point, str]:
    kept = [point for point in points if point.get("at_target")]
    if latency_p95_ms is not None:
        target = f"p95 of {latency_p95_ms:g} ms"
        if kept:
            return max(kept, key=_rate), f"the most throughput within a {target}"
        return min(points, key=_p95), f"the lowest p95, for nothing stayed within a {target}"
    knees = [point for point in points if point.get("knee")]
    if knees:
        return max(knees, key=lambda point: _rate(point) / _p95(point)), "the knee: beyond it, latency takes off"
    return max([point for point in points if not point["errors"]] or points, key=_rate), "the most throughput"


def _rate(point: Point) -> float:
    return float(point["throughput_avg"])


def _p95(point: Point) -> float:
    return max(float(point["latency_ms_p95"]), 1e-9)


def sentences(points: Sequence[Point], latency_p95_ms: Any = None) -> List[str]:
    """One sentence for each workload: "batch 1, 2 clients: 60/s at p95 92 ms (the knee: ...)"."""
    names = Names(points)
    best = best_points(points, latency_p95_ms)
    return [f"{names.point(point)}: {measured_text(point)}{_cost(point)} ({why})" for point, why in best] or [
        "nothing was answered"
    ]


def _cost(point: Point) -> str:
    cost = point.get("cost_per_1m_inf")
    return "" if cost is None else f", {figure(cost)} USD for a million"
