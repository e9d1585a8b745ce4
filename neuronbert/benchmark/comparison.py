"""Compares two benchmark reports: refuses unlike ones, and says which figures differ by more than the noise of both."""

import math
from pathlib import Path
from typing import Any, Callable, List, Sequence, Union

from neuronbert.benchmark import statistics
from neuronbert.benchmark.columns import figure, heading, with_unit
from neuronbert.benchmark.naming import Names
from neuronbert.benchmark.points import OPEN, Setting
from neuronbert.benchmark.report import Document, Point, identity_of
from neuronbert.errors import GateRefused, UsageError

# Parts of a report, with the facts of each that must be equal before two are compared.
ALIKE = (
    ("artifact", ("fingerprint",)),
    ("environment", ("cpu_model", "usable_cpus", "memory_bytes", "gpus")),
    ("asked", ("questions", "request_distribution", "emulation")),
    # Over HTTP and without are two things; so are two machines, and two ways to ask.
    ("server", ("host", "protocol", "timeout_ms", "known_by_name")),
)
# Figures that are compared, and whether more is better.
FIGURES = (("throughput_avg", True), ("latency_ms_p95", False))


def refuse_unlike(before: Document, after: Document) -> None:
    """Raise UsageError, naming every difference, when two reports are of other machines, artifacts or requests."""
    unlike = []
    for part, keys in ALIKE:
        old, new = before.get(part) or {}, after.get(part) or {}
        unlike += [
            f"{part}.{key}: {old.get(key)!r} and {new.get(key)!r}"
            for key in keys
            if not _same(key, old.get(key), new.get(key))
        ]
    if unlike:
        raise UsageError(
            "these reports cannot be compared: " + "; ".join(unlike), hint="measure both on one machine, of one model"
        )


def _same(key: str, old: Any, new: Any) -> bool:
    if key == "memory_bytes" and old and new:  # a kernel update changes it by some pages
        return bool(abs(old - new) <= 0.01 * old)
    if key == "gpus":  # reports from before they were recorded have none
        return bool((old or []) == (new or []))
    return bool(old == new)


def refuse_disjoint(points: Sequence[Point], settings: Sequence[Setting]) -> None:
    """Raise UsageError when ``points``, of the report to compare with, are none of ``settings``, to be measured."""
    if not any(_is_of(point, setting) for point in points for setting in settings):
        raise UsageError("the report to compare with has none of these points", hint="the same options for both")


def _is_of(point: Point, setting: Setting) -> bool:
    if (point["variant"], point["batch_size"]) != (setting.variant, setting.batch_size):
        return False
    number = point["offered_qps"] if setting.load.kind == OPEN else point["concurrency"]
    return number is not None and setting.load.number in (None, number)


def compare_reports(before: Document, after: Document) -> List[statistics.Difference]:
    """Throughput and p95 of every point that both reports have; UsageError for unlike reports or no such point."""
    refuse_unlike(before, after)
    old = {identity_of(point): point for point in before["points"]}
    pairs = [(old[identity_of(point)], point) for point in after["points"] if identity_of(point) in old]
    if not pairs:
        raise UsageError("these reports have no point in common", hint="the same options for both")
    names = Names(after["points"])
    return [
        statistics.compare(
            names.point(new_point),
            with_unit(*heading(name)),
            _estimate(old_point, name),
            _estimate(new_point, name),
            more_is_better=more_is_better,
        )
        for old_point, new_point in pairs
        for name, more_is_better in FIGURES
        if old_point.get(name) is not None and new_point.get(name) is not None
    ]


def _estimate(point: Point, name: str) -> statistics.Estimate:
    low, high = point["intervals"][name]
    return statistics.Estimate(point[name], -math.inf if low is None else low, math.inf if high is None else high)


def refuse_slower(before: Document, after: Document, path: Union[str, Path], progress: Callable[[str], None]) -> None:
    """Pass every difference to ``progress``.

    Raises GateRefused when a figure is slower than in ``before``, which was read from ``path``.
    """
    old, new = ((report.get("server") or {}).get("digest") for report in (before, after))
    if old != new:
        progress(f"compiled anew, from the same weights: artifact {str(old)[:16]} → {str(new)[:16]}")
    differences = compare_reports(before, after)
    for difference in differences:
        change = f"{figure(difference.before.value)} → {figure(difference.after.value)}"
        progress(f"{difference.verdict:6} {difference.point}: {difference.figure} {change}")
    worse = statistics.slower(differences)
    if worse:
        first = worse[0]
        raise GateRefused(
            f"{len(worse)} of {len(differences)} figures are slower than in {path}, beyond the noise of both; "
            f"{first.figure} of {first.point} was {figure(first.before.value)} and is {figure(first.after.value)}",
            hint="measure both again on an idle machine before believing it",
        )
