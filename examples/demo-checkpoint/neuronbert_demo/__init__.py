"""The demo checkpoint of neuronbert, as data: ``neuronbert compile demo`` finds it here."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "checkpoint"
