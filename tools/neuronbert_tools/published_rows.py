"""The rows of published_performance.csv: what AWS measured on inf1, and which configuration each was."""

import csv
from typing import Any, Dict, List, Mapping, Tuple

from neuronbert.hardware.device_model import PUBLISHED_PATH

Row = Dict[str, str]  # column → text
CONFIGURATION = ("instance_type", "mode", "batch_size", "pipeline_cores")  # in the order that reports show them


def published_rows() -> List[Row]:
    """All of them, in the file's order."""
    with open(PUBLISHED_PATH, newline="", encoding="utf-8") as file:
        return [dict(row) for row in csv.DictReader(file)]


def blog_rows() -> List[Row]:
    """The eight rows of AWS's blog post, in its order."""
    return [row for row in published_rows() if "blog" in row["source"]]


def configuration(row: Mapping[str, Any]) -> Tuple[str, ...]:
    """What a published row and a measurement of it have in common."""
    return tuple(str(row[name]) for name in CONFIGURATION)
