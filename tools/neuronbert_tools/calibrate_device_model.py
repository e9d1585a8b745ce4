"""Fits the constants of neuronbert/hardware/device_model.py to the published rows and writes calibration.json.

    tools/calibrate_device_model            fit, print, write
    tools/calibrate_device_model --check    fit and compare with the file, write nothing; exit 1 if they differ
    tools/calibrate_device_model --table    print the file as README.md and docs/measurements.md have it; no fit

Needs scipy. Each row gives a throughput and what percentiles it has; the fit minimises the squares of their relative
errors. Leave-one-out figures say what the model makes of a row it has not seen, those of held_out.csv (never fitted
to) what it makes of the rest of AWS's tables.
"""

import itertools
import json
import math
import statistics
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from neuronbert.hardware import device_model
from neuronbert_tools.console import new_parser
from neuronbert_tools.published_rows import (
    Row,
    as_counted,
    batches_in_flight,
    consistent_rows,
    held_out_rows,
    published_rows,
    workload,
)

# AWS's datasheet: a chip's device memory. The newest SDK reaches it, so it is given, not fitted.
STREAM_2_20 = 50 * 1024**3

# name: (starting value, weight of the belief in it, unit, meaning)
PARAMETERS = {
    "stream_1.13": (42e9, 0.02, "bytes/s", "device memory bandwidth of one chip with SDK 1.13 (datasheet: 50 GiB/s,"
                    " which 2.20 is taken to reach)"),
    "port": (25e9, 0.02, "bytes/s", "the most one core streams when the other cores of its chip are idle"),
    # AWS's own formula, 4 * round(weights / 2e7), gives a core 5 million weights of two bytes.
    "on_chip": (11e6, 0.1, "bytes", "on-chip memory of one core: weights and activations that fit are not streamed"),
    "movement": (3.2e9, 0.05, "bytes/s", "rate at which a core moves a sequence's activations, once a layer"),
    "entry": (4e9, 0.1, "bytes/s", "rate at which inputs enter the first stage over the link to the device"),
    "call": (1e-3, 0.1, "s", "the host's own work in a call: embeddings, TorchScript, the driver"),
    "issue_1.13": (2e-4, 0.1, "s", "handing a batch to the first stage, SDK 1.13"),
    "issue_1.17": (1e-4, 0.1, "s", "the same, SDK 1.17 and later"),
    "contention_2.20": (2e-9, 0.05, "s/byte", "mean wait for a vCPU per byte of inputs and other call on it, SDK 2.20;"
                        " rows of 1.13 and 1.17 show none"),
}  # fmt: skip
ORIGIN = np.log([start for start, _, _, _ in PARAMETERS.values()])
BELIEF = np.array([weight for _, weight, _, _ in PARAMETERS.values()])
# An error of 1 % in throughput weighs as much as these of a percentile: tails are published to two digits.
KINDS = ("errors", "leave_one_out_errors")
WEIGHTS = {"throughput_per_s": 1.0, "p50_ms": 0.7, "p95_ms": 0.7, "p99_ms": 0.4}


def constants_of(logs: np.ndarray) -> device_model.DeviceConstants:
    value = {name: float(number) for name, number in zip(PARAMETERS, np.exp(logs))}
    return device_model.DeviceConstants(
        stream_bytes_per_s={"1.13": value["stream_1.13"], "2.20": STREAM_2_20},
        issue_s={"1.13": value["issue_1.13"], "1.17": value["issue_1.17"]},
        contention_s_per_byte={"1.17": 0.0, "2.20": value["contention_2.20"]},
        port_bytes_per_s=value["port"],
        on_chip_bytes=value["on_chip"],
        host_call_s=value["call"],
        entry_bytes_per_s=value["entry"],
        movement_bytes_per_s=value["movement"],
    )


def figures_of(row: Row, constants: device_model.DeviceConstants) -> Dict[str, float]:
    """What the model says of a row, by the row's own columns."""
    work, load = device_model.published_work(row)
    found = device_model.predict(work, constants=constants, **load)
    percentiles = {"p50_ms": found.p50_s, "p95_ms": found.p95_s, "p99_ms": found.p99_s}
    return {"throughput_per_s": found.throughput_per_s, **{name: s * 1e3 for name, s in percentiles.items()}}


def errors_of(row: Row, figures: Mapping[str, float]) -> Dict[str, float]:
    """Relative errors of the figures that a row has."""
    return {name: figures[name] / float(row[name]) - 1 for name in WEIGHTS if row[name]}


def fit(rows: Sequence[Row], start: np.ndarray = ORIGIN, steps: int = 40) -> np.ndarray:
    """Logarithms of the constants with the least squares of errors; what rows leave open stays near the belief."""

    from scipy.optimize import least_squares

    def misfit(logs: np.ndarray) -> np.ndarray:
        constants = constants_of(logs)
        errors = [
            20 * WEIGHTS[name] * error
            for row in rows
            for name, error in errors_of(row, figures_of(row, constants)).items()
        ]
        return np.concatenate([errors, BELIEF * (logs - ORIGIN)])

    # Percentiles of a simulation are steps on a small scale: differences are taken over a larger one.
    solution: np.ndarray = least_squares(misfit, start, diff_step=1e-3, max_nfev=steps).x
    return solution


Errors = Dict[str, float]
Refit = Callable[[Callable[[Row], bool]], device_model.DeviceConstants]


def refit_to(rows: Sequence[Row]) -> Refit:
    """A fit to those of ``rows`` that are kept; the same rows are fitted to once.

    It starts where the fit to all rows did, not at its result, which knows the rows that are left out.
    """
    known: Dict[Tuple[int, ...], device_model.DeviceConstants] = {}

    def refit(keeps: Callable[[Row], bool]) -> device_model.DeviceConstants:
        kept = tuple(number for number, row in enumerate(rows) if keeps(row))
        if kept not in known:
            known[kept] = constants_of(fit([rows[number] for number in kept]))
        return known[kept]

    return refit


def calibration_of(rows: Sequence[Row]) -> Dict[str, Any]:
    """The document that calibration.json is."""
    logs, refit = fit(rows), refit_to(rows)
    constants = device_model.DeviceConstants.from_json(_rounded(constants_of(logs).__dict__))
    table = [_entry(row, constants, refit(lambda other, left_out=row: other is not left_out)) for row in rows]  # type: ignore[misc]
    unseen = {what: refit(lambda other, left_out=what: workload(other) != left_out) for what in map(workload, rows)}  # type: ignore[misc]
    return {
        "schema_version": 3,
        "constants": constants.__dict__,
        "free_parameters": {name: {"value": float(f"{math.exp(log):.6g}"), "unit": unit, "meaning": meaning}
                            for (name, (_, _, unit, meaning)), log in zip(PARAMETERS.items(), logs)},
        "rows": table,
        "mean_errors": {kind: _mean_errors([row[kind] for row in table]) for kind in KINDS},
        "largest_leave_one_out_error": max(abs(row["leave_one_out_errors"]["throughput_per_s"]) for row in table),
        "held_out": held_out_report(constants, rows),
        "likely_ranges": likely_ranges([*rows, *consistent_rows()], constants, unseen),
    }  # fmt: skip


def _entry(row: Row, constants: device_model.DeviceConstants, left_out: device_model.DeviceConstants) -> Dict[str, Any]:
    figures = figures_of(row, constants)
    return {
        **{name: row[name] for name in ("model", "sdk_version", "instance_type", "mode")},
        **{name: int(row[name]) for name in ("pipeline_cores", "batch_size", "models")},
        "published": {name: float(row[name]) for name in WEIGHTS if row[name]},
        "modelled": {name: float(f"{value:.5g}") for name, value in figures.items()},
        "errors": _shares(errors_of(row, figures)),
        "leave_one_out_errors": _shares(errors_of(row, figures_of(row, left_out))),
    }


def counted_errors(row: Row, constants: device_model.DeviceConstants) -> Errors:
    """Errors with the throughput as the row's own program counts it."""
    figures = figures_of(row, constants)
    return errors_of(row, {**figures, "throughput_per_s": as_counted(row, figures["throughput_per_s"])})


def held_out_report(constants: device_model.DeviceConstants, fitted: Sequence[Row]) -> Dict[str, Any]:
    """Mean errors over the rows that nothing was fitted to.

    Those that publish a configuration of a fitted row again, for another release, are told from new configurations.
    """
    rows, known = consistent_rows(), set(map(workload, fitted))
    inconsistent = [row for row in held_out_rows() if row not in rows]
    errors = [counted_errors(row, constants) for row in rows]
    of: Dict[Tuple[Any, ...], List[Errors]] = {}
    for row, found in zip(rows, errors):
        of.setdefault(workload(row), []).append(found)
    return {
        "rows": len(errors),
        "mean_errors": _mean_errors(errors),
        "mean_errors_as_printed": _mean_errors([errors_of(row, figures_of(row, constants)) for row in rows]),
        "inconsistent_rows": len(inconsistent),
        "mean_errors_with_inconsistent": _mean_errors(
            errors + [counted_errors(row, constants) for row in inconsistent]
        ),
        "repeats": _group({what: found for what, found in of.items() if what in known}),
        "new_configurations": _group({what: found for what, found in of.items() if what not in known}),
    }


def _group(of: Mapping[Any, Sequence[Errors]]) -> Dict[str, Any]:
    """Mean errors over rows, and over configurations, each of which counts once."""
    return {
        "rows": sum(map(len, of.values())),
        "configurations": len(of),
        "mean_errors": _mean_errors([error for errors in of.values() for error in errors]),
        "mean_errors_of_configurations": _mean_errors([_mean_errors(errors) for errors in of.values()]),
    }


# ---------------------------------------------------------------------------- ranges

COVERAGE = 0.8  # of the figures of a configuration that was left out
CUTS = (0.10, 0.09, 0.08, 0.07, 0.06, 0.05)  # left out on either side: the most that leaves the coverage
Bracket = Tuple[float, float]  # published over modelled: the lowest and the highest that it may be


def likely_ranges(
    rows: Sequence[Row],
    constants: device_model.DeviceConstants,
    unseen: Mapping[Tuple[Any, ...], device_model.DeviceConstants],
) -> Dict[str, Any]:
    """Where 8 of 10 published figures of a configuration lie that the constants were not fitted to.

    ``unseen`` has the constants without each configuration that they are fitted to.
    """
    ranges: Dict[str, Any] = {}
    for figure, bracket in (("throughput_per_s", _throughput), ("p95_ms", _p95)):
        of: Dict[Tuple[Any, ...], List[Bracket]] = {}
        for row in rows:
            of.setdefault(workload(row), []).append(bracket(counted_errors(row, unseen.get(workload(row), constants))))
        cut = next(cut for cut in CUTS if _coverage(of, cut) >= COVERAGE)
        ranges[figure] = {**_range(of.values(), cut), "configurations": len(of), "coverage": _coverage(of, cut)}
    return ranges


def _throughput(errors: Errors) -> Bracket:
    ratio = 1 / (1 + errors["throughput_per_s"])
    return ratio, ratio


def _p95(errors: Errors) -> Bracket:
    """A row without p95 is judged by p50 and p99, which lie on both sides of it."""
    names = ("p95_ms",) if "p95_ms" in errors else ("p50_ms", "p99_ms")
    ratios = [1 / (1 + errors[name]) for name in names if name in errors]
    return min(ratios), max(ratios)


def _range(configurations: Iterable[Sequence[Bracket]], cut: float) -> Dict[str, float]:
    """The first and the last ``cut`` left out; every configuration weighs the same however often it was published."""
    groups = list(configurations)
    lows, highs = ([(bracket[side], 1 / len(group)) for group in groups for bracket in group] for side in (0, 1))
    left_out = cut * len(groups)
    return {"low": round(_passed(sorted(lows), left_out), 3), "high": round(_passed(sorted(highs)[::-1], left_out), 3)}


def _passed(weighted: Sequence[Tuple[float, float]], weight: float) -> float:
    """The value at which so much of the weight has been passed."""
    passed = itertools.accumulate(share for _, share in weighted)
    return next(value for (value, _), total in zip(weighted, passed) if total >= weight - 1e-9)


def _coverage(of: Mapping[Any, Sequence[Bracket]], cut: float) -> float:
    """What share of a configuration's figures lies in the range of all others; each configuration counts once."""
    shares = []
    for left_out, group in of.items():
        found = _range((others for what, others in of.items() if what != left_out), cut)
        shares.append(statistics.mean(found["low"] <= low and high <= found["high"] for low, high in group))
    return round(statistics.mean(shares), 3)


def _mean_errors(errors: Sequence[Mapping[str, float]]) -> Dict[str, float]:
    found = {name: [abs(row[name]) for row in errors if name in row] for name in WEIGHTS}
    return _shares({name: statistics.mean(values) for name, values in found.items() if values})


def _shares(errors: Mapping[str, float]) -> Dict[str, float]:
    return {name: round(value, 4) for name, value in errors.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return float(f"{value:.6g}")


def row_name(row: Mapping[str, Any]) -> str:
    """A row as tables call it."""
    cut = row["pipeline_cores"] if row["mode"] == "pipeline" else row["models"]
    layout = f"{row['mode']} × {cut}, batch {row['batch_size']}"
    return f"{row['model']}, {row['sdk_version']}, {row['instance_type']}, {layout}"


def show(calibration: Mapping[str, Any]) -> None:
    """Print the fit row by row, then what the model says of rows it has not seen."""
    print(f"{'row':86}{'published':>10}{'modelled':>10}{'error':>8}{'left out':>10}{'p50/p95':>9}{'p99':>8}")
    for row in calibration["rows"]:
        errors, left_out = row["errors"], row["leave_one_out_errors"]
        middle = errors.get("p50_ms", errors.get("p95_ms"))
        print(
            f"{row_name(row):86}{row['published']['throughput_per_s']:>10.1f}{row['modelled']['throughput_per_s']:>10.1f}"
            f"{errors['throughput_per_s']:>8.1%}{left_out['throughput_per_s']:>10.1%}{_percent(middle):>9}"
            f"{_percent(errors.get('p99_ms')):>8}"
        )
    for name, errors in calibration["mean_errors"].items():
        print(f"mean {name.replace('_', ' ')}: {_listed(errors)}")
    held_out = calibration["held_out"]
    print(f"{held_out['rows']} rows that were not fitted to, mean errors: {_listed(held_out['mean_errors'])}")
    for name in ("repeats", "new_configurations"):
        group = held_out[name]
        print(f"  {name.replace('_', ' ')}, {group['rows']} rows: {_listed(group['mean_errors'])}")
        means = _listed(group["mean_errors_of_configurations"])
        print(f"    each of {group['configurations']} configurations counted once: {means}")
    print(f"  the tutorial's throughput as printed: {_listed(held_out['mean_errors_as_printed'])}")
    print(
        f"  with {held_out['inconsistent_rows']} rows that contradict themselves: "
        f"{_listed(held_out['mean_errors_with_inconsistent'])}"
    )
    for figure, found in calibration["likely_ranges"].items():
        print(
            f"range of {figure}: {found['low']} to {found['high']} of the prediction; of a configuration left out, "
            f"{found['coverage']:.0%} of the figures lie in the range of the {found['configurations'] - 1} others"
        )


def markdown(calibration: Mapping[str, Any]) -> str:
    """The table of README.md: each row's error where it is fitted to, and where it is left out."""
    lines = [
        "| published row | sequences/s | fitted | left out | p50 or p95, ms | fitted | left out | p99, left out |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in calibration["rows"]:
        errors, left_out = row["errors"], row["leave_one_out_errors"]
        middle = "p50_ms" if "p50_ms" in errors else "p95_ms"
        latency = f"{middle[:3]} {row['published'][middle]:g}"
        lines.append(
            f"| {row_name(row)} | {row['published']['throughput_per_s']:g} | {errors['throughput_per_s']:+.1%} | "
            f"{left_out['throughput_per_s']:+.1%} | {latency} | {errors[middle]:+.1%} | "
            f"{left_out[middle]:+.1%} | {_percent(left_out.get('p99_ms'))} |"
        )
    fitted, left_out = (calibration["mean_errors"][kind] for kind in KINDS)
    lines.append(
        f"| mean | | {fitted['throughput_per_s']:.1%} | {left_out['throughput_per_s']:.1%} | p50 | "
        f"{fitted['p50_ms']:.1%} | {left_out['p50_ms']:.1%} | {left_out['p99_ms']:.1%} |"
    )
    return "\n".join(lines)


def held_out_sentence(calibration: Mapping[str, Any]) -> str:
    """What README.md says of rows that nothing was fitted to."""
    held_out = calibration["held_out"]
    new, repeats = held_out["new_configurations"], held_out["repeats"]
    return (
        f"On {held_out['rows']} rows that it was not fitted to, mean errors are {_three(held_out['mean_errors'])}. "
        f"{repeats['rows']} of them are fitted configurations published again for another release: "
        f"{_three(repeats['mean_errors'])}. The {new['rows']} rows of {new['configurations']} new configurations: "
        f"{_three(new['mean_errors'])}."
    )


def _three(errors: Errors) -> str:
    throughput, p50, p99 = (errors[name] for name in ("throughput_per_s", "p50_ms", "p99_ms"))
    return f"{throughput:.1%} in throughput, {p50:.1%} in p50 and {p99:.1%} in p99"


def _percent(value: Optional[float]) -> str:
    return "" if value is None else f"{value:+.1%}"


def _listed(errors: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1%}" for name, value in errors.items())


def show_held_out(constants: device_model.DeviceConstants) -> None:
    """Print every held-out row with its errors, and what Little's law says of it."""
    for row in held_out_rows():
        figures = figures_of(row, constants)
        figures["throughput_per_s"] = as_counted(row, figures["throughput_per_s"])
        print(
            f"{row_name(row)}, {batches_in_flight(row):.2f} of {row['client_threads']} in flight: "
            f"{_listed(errors_of(row, figures))}{row['remark'] and '; ' + row['remark']}"
        )


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--held-out", action="store_true", help="print each held-out row as well")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(arguments)
    if options.table:
        stored = json.loads(device_model.CALIBRATION_PATH.read_text(encoding="utf-8"))
        print(markdown(stored))
        print(held_out_sentence(stored))
        return 0
    calibration = calibration_of(published_rows())
    show(calibration)
    if options.held_out:
        show_held_out(device_model.DeviceConstants.from_json(calibration["constants"]))
    if options.check:
        stored = json.loads(device_model.CALIBRATION_PATH.read_text(encoding="utf-8"))
        differ = differences(stored, json.loads(json.dumps(calibration)))
        print("\n".join(differ) or f"{device_model.CALIBRATION_PATH.name} is what the rows say")
        return int(bool(differ))
    device_model.CALIBRATION_PATH.write_text(json.dumps(calibration, indent=1) + "\n", encoding="utf-8")
    return 0


def differences(stored: Any, found: Any, name: str = "") -> List[str]:
    """What two calibrations do not agree on, each by its place: errors by 0.2 points, other numbers by 2 %."""
    if isinstance(stored, Mapping) and isinstance(found, Mapping):
        return [
            line
            for key in {**stored, **found}
            for line in differences(stored.get(key), found.get(key), f"{name}.{key}" if name else key)
        ]
    if isinstance(stored, list) and isinstance(found, list) and len(stored) == len(found):
        return [
            line
            for number, pair in enumerate(zip(stored, found))
            for line in differences(*pair, name=f"{name}[{number}]")
        ]
    same = stored == found
    if isinstance(stored, float) and isinstance(found, float):
        same = math.isclose(stored, found, rel_tol=0.02, abs_tol=0.002 if "error" in name else 0.0)
    return [] if same else [f"{name}: {stored} in the file, {found} now"]
