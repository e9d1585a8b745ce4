"""Fits the constants of neuronbert/hardware/device_model.py to the published rows and writes calibration.json.

    tools/calibrate_device_model            fit, print, write
    tools/calibrate_device_model --check    fit and compare with the file, write nothing; exit 1 if they differ

Needs scipy. The fit minimises the largest relative error of throughput; the leave-one-out figures say what the
model makes of a row it has not seen.
"""

import json
import math
from typing import Any, Dict, List, Sequence

import numpy as np
from scipy.optimize import least_squares

from neuronbert.hardware import device_model
from neuronbert_tools.console import new_parser
from neuronbert_tools.published_rows import Row, published_rows

# AWS's datasheet: a chip's device memory. The newest SDK reaches it, so it is given, not fitted.
STREAM_2_20 = 50 * 1024**3

# name: (starting value, weight of the belief in it, unit, meaning)
PARAMETERS = {
    "stream_1.13": (42e9, 0.02, "bytes/s", "device memory bandwidth of one chip with SDK 1.13 (datasheet: 50 GiB/s,"
                    " which 2.20 is taken to reach); also 1.17's, none of whose published rows streams"),
    "port": (25e9, 0.02, "bytes/s", "the most one core streams when the other cores of its chip are idle"),
    # AWS's own formula, 4 * round(weights / 2e7), gives a core 5 million weights of two bytes.
    "on_chip": (10e6, 0.5, "bytes", "on-chip memory of one core: weights and activations that fit are not streamed"),
    "call_1.13": (2e-4, 0.1, "s", "what the first stage spends on taking one batch from the host, SDK 1.13"),
    "call_later": (1.7e-4, 0.1, "s", "the same, SDK 1.17 and 2.20"),
    "host": (2.4e9, 0.1, "bytes/s", "rate at which a sequence's activations enter the first stage"),
    "movement": (1.6e8, 0.02, "bytes/s", "rate at which a core moves a sequence's activations"),
}  # fmt: skip
ORIGIN = np.log([start for start, _, _, _ in PARAMETERS.values()])
BELIEF = np.array([weight for _, weight, _, _ in PARAMETERS.values()])


def constants_of(logs: np.ndarray) -> device_model.DeviceConstants:
    value = dict(zip(PARAMETERS, np.exp(logs)))
    return device_model.DeviceConstants(
        stream_bytes_per_s={"1.13": value["stream_1.13"], "1.17": value["stream_1.13"], "2.20": STREAM_2_20},
        host_call_s={"1.13": value["call_1.13"], "1.17": value["call_later"], "2.20": value["call_later"]},
        port_bytes_per_s=value["port"],
        on_chip_bytes=value["on_chip"],
        host_bytes_per_s=value["host"],
        movement_bytes_per_s=value["movement"],
    )


def errors(constants: device_model.DeviceConstants, rows: List[Row]) -> np.ndarray:
    """Relative error of the modelled throughput, row by row."""
    relative = []
    for row in rows:
        work, load = device_model.published_work(row)
        modelled = device_model.predict(work, constants=constants, **load).throughput_per_s
        relative.append(modelled / float(row["throughput_per_s"]) - 1)
    return np.array(relative)


def fit(rows: List[Row], starts: int = 16) -> np.ndarray:
    """The constants with the smallest largest error; ties are settled by the prior."""
    random = np.random.default_rng(0)
    best = (math.inf, ORIGIN)
    for start in range(starts):
        guess = ORIGIN + (random.normal(0, 0.3, len(ORIGIN)) if start else 0)
        for power in (1, 2, 3):
            guess = least_squares(_objective, guess, max_nfev=200, args=(rows, power)).x
        worst = abs(errors(constants_of(guess), rows)).max()
        if worst < best[0]:
            best = (worst, guess)
    return best[1]


def _objective(logs: np.ndarray, rows: List[Row], power: int) -> np.ndarray:
    # A row that no other row resembles leaves its own constants free when it is left out: the prior holds them.
    clipped = np.clip(logs, ORIGIN - 3, ORIGIN + 3)
    misfit = np.abs(20 * errors(constants_of(clipped), rows)) ** power
    calls = logs[[name.startswith("call") for name in PARAMETERS]]
    # Beliefs for what the rows leave open: near the start, and one release's host call like another's.
    return np.concatenate([misfit, BELIEF * (logs - ORIGIN), 0.1 * (calls - calls.mean())])


def report(rows: List[Row], logs: np.ndarray) -> Dict[str, Any]:
    constants = constants_of(logs)
    residuals = errors(constants, rows)
    print(f"{'row':44}{'published':>11}{'modelled':>10}{'error':>8}{'left out':>10}")
    table = []
    for index, (row, residual) in enumerate(zip(rows, residuals)):
        other_rows = rows[:index] + rows[index + 1 :]
        left_out = float(errors(constants_of(fit(other_rows, starts=4)), [row])[0])
        table.append(_entry(row, constants, residual, left_out))
        name = f"{row['sdk_version']} {row['instance_type']} {row['mode']}"
        name += f" p{row['pipeline_cores']} b{row['batch_size']}"
        published, modelled = float(row["throughput_per_s"]), table[-1]["modelled_per_s"]
        print(f"{name:44}{published:>11.1f}{modelled:>10.1f}{residual:>8.1%}{left_out:>10.1%}")
    return {
        "schema_version": 1,
        "constants": _rounded(constants.__dict__),
        "free_parameters": {name: {"value": float(f"{math.exp(log):.6g}"), "unit": unit, "meaning": meaning}
                            for (name, (_, _, unit, meaning)), log in zip(PARAMETERS.items(), logs)},
        "rows": table,
        "largest_error": round(float(abs(residuals).max()), 4),
        "largest_leave_one_out_error": max(abs(entry["leave_one_out_error"]) for entry in table),
    }  # fmt: skip


def _entry(row: Row, constants: device_model.DeviceConstants, residual: float, left_out: float) -> Dict[str, Any]:
    work, load = device_model.published_work(row)
    modelled = device_model.predict(work, constants=constants, **load)
    published = {
        name: float(row[name]) if row[name] else None for name in ("throughput_per_s", "p50_ms", "p95_ms", "p99_ms")
    }
    return {
        "sdk_version": row["sdk_version"], "instance_type": row["instance_type"], "mode": row["mode"],
        "pipeline_cores": work.pipeline_cores, "batch_size": work.batch_size, "models": load["models"],
        "in_flight_per_model": load["in_flight"], "published": published,
        "modelled_per_s": round(modelled.throughput_per_s, 1),
        "modelled_latency_ms": round(modelled.latency_s * 1e3, 2),
        "error": round(float(residual), 4), "leave_one_out_error": round(left_out, 4),
    }  # fmt: skip


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return float(f"{value:.6g}")


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    rows = published_rows()
    calibration = report(rows, fit(rows))
    print(
        f"largest error {calibration['largest_error']:.1%}, left out {calibration['largest_leave_one_out_error']:.1%}"
    )
    if options.check:
        stored = json.loads(device_model.CALIBRATION_PATH.read_text(encoding="utf-8"))
        return int(abs(stored["largest_error"] - calibration["largest_error"]) > 0.002)
    device_model.CALIBRATION_PATH.write_text(json.dumps(calibration, indent=1) + "\n", encoding="utf-8")
    return 0
