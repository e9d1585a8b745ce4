"""README.md and docs/measurements.md say what calibration.json says."""

import json
import re
import subprocess
import sys
from pathlib import Path

from neuronbert.hardware.device_model import CALIBRATION_PATH

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
    for name in ("mean_errors", "mean_errors_as_printed", "mean_errors_with_inconsistent"):
        assert "| " + " | ".join(f"{value * 100:.1f} %" for value in held_out[name].values()) + " |" in text
    fitted, left_out = (errors["throughput_per_s"] for errors in CALIBRATION["mean_errors"].values())
    most = CALIBRATION["largest_leave_one_out_error"]
    assert f"mean {fitted:.1%} and {left_out:.1%} in throughput, at most {most:.1%} left out".replace("%", " %") in text
