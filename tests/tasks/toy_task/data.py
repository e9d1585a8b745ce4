"""Labelled sentences, in files of JSON: a list of {"text": ..., "label": ...}."""

import json
from pathlib import Path
from typing import Any, List, NamedTuple

from neuronbert.errors import InputError

SAMPLE = Path(__file__).with_name("sample.json")
CALIBRATION = Path(__file__).with_name("calibration.json")


class Sentence(NamedTuple):
    """A text and the name of its label."""

    text: str
    label: str


def load_sentences(path: Any) -> List[Sentence]:
    """The sentences of a file; InputError for one that holds none."""
    try:
        return [Sentence(entry["text"], entry["label"]) for entry in json.loads(Path(path).read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {path}: {error!r}", hint="a list of texts and labels") from None
