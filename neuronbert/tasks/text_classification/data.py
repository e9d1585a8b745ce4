"""Files of texts with their labels, for gate.py and evaluation.py: CSV, TSV (as GLUE's) and JSON lines."""

import math
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.errors import InputError, as_real, shown_value
from neuronbert.tasks.base import PathLike
from neuronbert.tasks.labels import label_number
from neuronbert.tasks.records import Record, field, read_records, refuse_without
from neuronbert.tasks.rows import TextOrPair, TextPair
from neuronbert.tasks.text_classification.inputs import Asked, as_input
from neuronbert.tasks.text_classification.lines import LINES
from neuronbert.tasks.text_classification.problem import MULTI_LABEL, REGRESSION, Problem

# The names that GLUE, banking77 and others use, the first one ours.
TEXT = ("text", "sentence", "sentence1", "#1 String")
OTHER = ("text_pair", "sentence2", "#2 String")
LABEL = ("label", "labels", "category", "intent", "score", "Quality")
FORM = 'a .csv or .tsv file with the columns text, label (and text_pair), or lines of {"text": ..., "label": ...}'
MANY = 'the labels that a text has, by name or number: ["a", "b"], or a|b in a table'

Label = Union[int, float, Tuple[int, ...]]  # a label's number; a score; the numbers of several labels


class RawText(NamedTuple):
    """A text of a file, with what the file says of its label."""

    line_number: int
    asked: TextOrPair
    label: Any  # None: nothing


class LabelledText(NamedTuple):
    """A text, with its label where the file has one."""

    asked: TextOrPair
    label: Optional[Label]


def load_raw(path: PathLike, limit: Optional[int] = None) -> List[RawText]:
    """The texts of a file, of its first ``limit`` records; InputError for one without the column ``text``."""
    return _raw_texts(read_records(path, FORM), path, limit)


def load_labelled(path: PathLike, limit: Optional[int] = None) -> List[RawText]:
    """``load_raw``, and InputError for a text without a label."""
    raw = load_raw(path, limit)
    for text in raw:
        if text.label is None:
            raise InputError(f"{path}, line {text.line_number}: the text has no label", hint=FORM)
    return raw


def _raw_texts(records: Sequence[Record], path: PathLike, limit: Optional[int] = None) -> List[RawText]:
    refuse_without(records, TEXT, path, FORM)
    return [_raw(record, path) for record in records[:limit]]


def _raw(record: Record, path: PathLike) -> RawText:
    text, other = field(record, TEXT), field(record, OTHER)
    for name, value in (("text", text), ("text_pair", other)):
        if not isinstance(value, str) and not (name == "text_pair" and value is None):
            what = "missing or empty" if value is None else f"{shown_value(value)}, no text"
            raise InputError(f"{path}, line {record.line_number}: {name} is {what}", hint=FORM)
    return RawText(record.line_number, text if other is None else TextPair(text, other), field(record, LABEL))


def load_texts(path: PathLike) -> List[Asked]:
    """The inputs of a file without their labels; JSON lines may hold rankings too."""
    records = read_records(path, FORM)
    if any("query" in record.fields for record in records):
        faults = ((record, LINES.fault(record.fields)) for record in records)
        for record, fault in faults:
            if fault is not None:
                raise InputError(f"{path}, line {record.line_number}: {fault}", hint=LINES.hint)
        return [as_input(record.fields) for record in records]
    return [raw.asked for raw in _raw_texts(records, path)]


def labelled(raw: RawText, problem: Problem, path: PathLike) -> LabelledText:
    """A text with its label as ``problem`` counts it; InputError for a label that the checkpoint lacks."""
    try:
        return LabelledText(raw.asked, None if raw.label is None else _label(raw.label, problem))
    except InputError as error:
        raise InputError(f"{path}, line {raw.line_number}: {error.message}", hint=error.hint) from None


def _label(label: Any, problem: Problem) -> Label:
    if problem.kind == REGRESSION:
        score = as_real(_number(label))
        if score is None or not math.isfinite(score):
            raise InputError(f"the label {shown_value(label)} is no score", hint="a number for each text")
        return score
    if problem.kind == MULTI_LABEL:
        numbers = sorted(label_number(each, problem.labels) for each in several(label))
        if len(set(numbers)) < len(numbers):  # a 0 or 1 for each label, which would be read as two of them
            raise InputError(f"the labels {shown_value(label)} name one twice", hint=MANY)
        return tuple(numbers)
    return label_number(label, problem.labels)


def several(label: Any) -> List[Any]:
    """The labels that a text has at once: those of a list, or between the strokes of ``a|b``."""
    return [each for each in (label if isinstance(label, list) else str(label).split("|")) if each != ""]


def _number(label: Any) -> Any:
    try:
        return float(label) if isinstance(label, str) else label
    except ValueError:
        return None
