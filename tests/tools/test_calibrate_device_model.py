"""README.md and docs/measurements.md say what calibration.json says."""

import copy
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from neuronbert.hardware.device_model import CALIBRATION_PATH, DeviceConstants
from neuronbert_tools.calibrate_device_model import (
    _coverage,
    _p95,
    _range,
    _throughput,
    differences,
    held_out_report,
)
from neuronbert_tools.published_rows import consistent_rows, published_rows

ROOT = Path(__file__).parents[2]
CALIBRATION = json.loads(CALIBRATION_PATH.read_text(encoding="utf-8"))


def test_the_readme_has_the_table_and_the_held_out_errors() -> None:
    command = [sys.executable, str(ROOT / "tools" / "calibrate_device_model"), "--table"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 2 + len(CALIBRATION["rows"]) + 2
    readme = re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
    for line in lines:
        assert re.sub(r"\s+", " ", line) in readme


def test_the_measurements_have_the_mean_errors() -> None:
    text = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    held_out = CALIBRATION["held_out"]
    groups = [held_out[name] for name in ("repeats", "new_configurations")]
    for errors in (
        *(held_out[name] for name in ("mean_errors", "mean_errors_as_printed", "mean_errors_with_inconsistent")),
        *(group["mean_errors"] for group in groups),
        groups[1]["mean_errors_of_configurations"],
    ):
        assert "| " + " | ".join(f"{value * 100:.1f} %" for value in errors.values()) + " |" in text
    fitted, left_out = (errors["throughput_per_s"] for errors in CALIBRATION["mean_errors"].values())
    most = CALIBRATION["largest_leave_one_out_error"]
    assert f"mean {fitted:.1%} and {left_out:.1%} in throughput, at most {most:.1%} left out".replace("%", " %") in text
    for found in CALIBRATION["likely_ranges"].values():
        assert f"{found['low']:.3g} to {found['high']:.3g} times" in text


def test_the_held_out_figures_are_those_of_the_constants() -> None:
    found = held_out_report(DeviceConstants.from_json(CALIBRATION["constants"]), published_rows())
    assert differences(CALIBRATION["held_out"], json.loads(json.dumps(found))) == []
    assert found["repeats"]["rows"] + found["new_configurations"]["rows"] == found["rows"] == len(consistent_rows())
    # What is published again for another release says less of a model than what is new.
    assert found["new_configurations"]["mean_errors"]["p99_ms"] > found["repeats"]["mean_errors"]["p99_ms"]


def test_a_stale_calibration_is_told_from_a_true_one() -> None:
    assert differences(CALIBRATION, CALIBRATION) == []
    for path in (
        ["constants", "host_call_s"],
        ["held_out", "mean_errors", "p99_ms"],
        ["likely_ranges", "p95_ms", "high"],
        ["rows", 3, "leave_one_out_errors", "throughput_per_s"],
    ):
        stale = copy.deepcopy(CALIBRATION)
        inner = functools.reduce(lambda part, name: part[name], path[:-1], stale)
        inner[path[-1]] += 0.03 * max(1, abs(inner[path[-1]])) if path[0] != "constants" else inner[path[-1]]
        (line,) = differences(CALIBRATION, stale)
        assert str(path[-1]) in line


def test_a_range_counts_each_configuration_once() -> None:
    """Ten configurations, of which one was published a hundred times and is far off."""
    of = {number: [(1.0, 1.0)] for number in range(9)}
    of[9] = [(2.0, 2.0)] * 100
    errors = [{"throughput_per_s": 1 / low - 1} for group in of.values() for low, _ in group]
    assert [_throughput(one)[0] for one in errors] == pytest.approx([low for group in of.values() for low, _ in group])
    assert _range(of.values(), 0.2) == {"low": 1.0, "high": 1.0}
    assert _coverage(of, 0.2) == 0.9  # the far one lies in no range of the others
    assert _p95({"p50_ms": 0.25, "p99_ms": -0.2}) == pytest.approx((0.8, 1.25))
    assert _p95({"p50_ms": 0.25, "p95_ms": 0.0, "p99_ms": -0.2}) == (1.0, 1.0)
