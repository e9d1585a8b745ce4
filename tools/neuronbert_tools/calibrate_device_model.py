"""Fits the constants of neuronbert/hardware/device_model.py to the published rows and writes calibration.json.

    tools/calibrate_device_model            fit, print, write
    tools/calibrate_device_model --check    fit and compare with the file, write nothing; exit 1 if they differ
    tools/calibrate_device_model --table    print the file as README.md and docs/measurements.md have it; no fit

Needs scipy. Each row gives a throughput and what percentiles it has; the fit minimises the squares of their relative
errors. Leave-one-out figures say what the model makes of a row it has not seen, those of held_out.csv (never fitted
to) what it makes of the rest of AWS's tables.
"""

import json
import math
import statistics
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from neuronbert.hardware import device_model
from neuronbert_tools.console import new_parser
from neuronbert_tools.published_rows import Row, as_counted, batches_in_flight, held_out_rows, published_rows

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
    "contention_2.20": (6e-4, 0.05, "s", "mean wait for a vCPU per sequence and other caller on it, SDK 2.20; rows of"
                        " 1.13 and 1.17 show none"),
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
        contention_s={"1.17": 0.0, "2.20": value["contention_2.20"]},
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


def calibration_of(rows: Sequence[Row]) -> Dict[str, Any]:
    """The document that calibration.json is."""
    logs = fit(rows)
    constants = device_model.DeviceConstants.from_json(_rounded(constants_of(logs).__dict__))
    table = []
    for index, row in enumerate(rows):
        others = [*rows[:index], *rows[index + 1 :]]
        table.append(_entry(row, constants, constants_of(fit(others, logs, steps=20))))
    return {
        "schema_version": 2,
        "constants": constants.__dict__,
        "free_parameters": {name: {"value": float(f"{math.exp(log):.6g}"), "unit": unit, "meaning": meaning}
                            for (name, (_, _, unit, meaning)), log in zip(PARAMETERS.items(), logs)},
        "rows": table,
        "mean_errors": {kind: _mean_errors([row[kind] for row in table]) for kind in KINDS},
        "largest_leave_one_out_error": max(abs(row["leave_one_out_errors"]["throughput_per_s"]) for row in table),
        "held_out": held_out_report(constants),
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


def held_out_report(constants: device_model.DeviceConstants) -> Dict[str, Any]:
    """Mean errors over the rows that nothing was fitted to, and the range in which 8 of 10 of them lie."""
    errors: List[Dict[str, float]] = []
    plain: List[Dict[str, float]] = []  # with the tutorial's throughput taken as it is printed
    inconsistent: List[Dict[str, float]] = []
    for row in held_out_rows():
        figures = figures_of(row, constants)
        counted = {**figures, "throughput_per_s": as_counted(row, figures["throughput_per_s"])}
        if row["remark"].startswith("inconsistent"):
            inconsistent.append(errors_of(row, counted))
        else:
            errors.append(errors_of(row, counted))
            plain.append(errors_of(row, figures))
    return {
        "rows": len(errors),
        "mean_errors": _mean_errors(errors),
        "mean_errors_as_printed": _mean_errors(plain),
        "inconsistent_rows": len(inconsistent),
        "mean_errors_with_inconsistent": _mean_errors(errors + inconsistent),
        "likely_ranges": {name: _likely(errors, name) for name in ("throughput_per_s", "p95_ms")},
    }


def _mean_errors(errors: Sequence[Mapping[str, float]]) -> Dict[str, float]:
    found = {name: [abs(row[name]) for row in errors if name in row] for name in WEIGHTS}
    return _shares({name: statistics.mean(values) for name, values in found.items() if values})


def _likely(errors: Sequence[Mapping[str, float]], name: str) -> Tuple[float, float]:
    """Published over modelled: the first and the last tenth cut off.

    A p95 is judged by what lies on both sides of it: most rows have p50 and p99 alone.
    """
    names = ("p50_ms", "p99_ms") if name == "p95_ms" else (name,)
    ratios = [1 / (1 + row[column]) for row in errors for column in names if column in row]
    low, *_, high = statistics.quantiles(ratios, n=10)
    return round(low, 3), round(high, 3)


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
    print(f"  the tutorial's throughput as printed: {_listed(held_out['mean_errors_as_printed'])}")
    print(
        f"  with {held_out['inconsistent_rows']} rows that contradict themselves: "
        f"{_listed(held_out['mean_errors_with_inconsistent'])}"
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
    errors = held_out["mean_errors"]
    return (
        f"On {held_out['rows']} rows that it was not fitted to, mean errors are {errors['throughput_per_s']:.1%} in "
        f"throughput, {errors['p50_ms']:.1%} in p50 and {errors['p99_ms']:.1%} in p99."
    )


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
        return int(_differ(stored["mean_errors"], calibration["mean_errors"]))
    device_model.CALIBRATION_PATH.write_text(json.dumps(calibration, indent=1) + "\n", encoding="utf-8")
    return 0


def _differ(stored: Mapping[str, Mapping[str, float]], found: Mapping[str, Mapping[str, float]]) -> bool:
    return any(abs(stored[kind][name] - value) > 0.002 for kind in found for name, value in found[kind].items())
