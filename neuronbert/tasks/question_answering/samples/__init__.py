"""The questions in the package: 200 to calibrate int8 with, 600 for the gate to ask (see README.md beside them)."""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def calibration_path() -> Path:
    """SQuAD v1.1 file of 200 questions, one for each of 200 paragraphs, none of them in the gate's file."""
    return _FOLDER / "calibration.json"


def gate_path() -> Path:
    """SQuAD v1.1 file of 600 questions on 300 paragraphs, none of them in the calibration file."""
    return _FOLDER / "gate.json"
