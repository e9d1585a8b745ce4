"""The text in the package: 200 questions to calibrate int8 with, 600 for gates to ask (see README.md beside them)."""

from pathlib import Path
from typing import List, NamedTuple

from neuronbert.errors import InputError
from neuronbert.hardware.untrusted import Refusal, json_object, read_given

_FOLDER = Path(__file__).resolve().parent
_DAMAGED = Refusal(InputError, "install neuronbert again: its own files are damaged")


class QuestionOnText(NamedTuple):
    """A question, and the paragraph that it is about."""

    question: str
    paragraph: str


def calibration_path() -> Path:
    """SQuAD v1.1 file of 200 questions, one for each of 200 paragraphs, none of them in the gate's file."""
    return _FOLDER / "calibration.json"


def gate_path() -> Path:
    """SQuAD v1.1 file of 600 questions on 300 paragraphs, none of them in the calibration file."""
    return _FOLDER / "gate.json"


def shipped_texts(path: Path) -> List[QuestionOnText]:
    """The questions of one of the two files, for the tasks that have no answers to compare."""
    document = json_object(read_given(path, _DAMAGED), str(path), _DAMAGED)
    return [
        QuestionOnText(asked["question"], paragraph["context"])
        for article in document["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]
