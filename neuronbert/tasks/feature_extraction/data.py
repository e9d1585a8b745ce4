"""Files of texts for gate.py and evaluation.py: pairs with a score, queries with the texts that answer them, texts."""

import math
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from neuronbert.errors import InputError, as_real, shown_value
from neuronbert.tasks.base import PathLike
from neuronbert.tasks.question_answering.squad import load_squad
from neuronbert.tasks.records import Record, field, read_records, refuse_without

# The names that STS files and sentence-transformers' examples use, the first one ours.
TEXT = ("text", "sentence1", "sentence", "text1", "query", "anchor")
OTHER = ("text_pair", "sentence2", "text2", "positive", "document", "passage")
SCORE = ("score", "similarity_score", "label")
QUERY, POSITIVE = ("query", "anchor"), ("positive", "document", "passage")
SQUAD_SUFFIX = ".json"
PAIRS_FORM = (
    'a .csv or .tsv file with the columns text, text_pair, score, or lines of {"text": ..., "text_pair": ..., '
    '"score": ...}'
)
FORM = (
    f'{PAIRS_FORM}; for a search the columns query, positive, lines of {{"query": ..., "positive": ... or [...]}}, or '
    "a SQuAD .json file, whose questions are to find their paragraphs"
)


class ScoredPair(NamedTuple):
    """A text, or two texts and how alike they are, where the file says it."""

    text: str
    text_pair: Optional[str] = None
    score: Optional[float] = None


class Search(NamedTuple):
    """Queries, and documents by number, of which some are right for each query."""

    queries: List[str]
    documents: List[str]
    relevant: List[Set[int]]  # of each query, numbers of documents


def is_search(path: PathLike) -> bool:
    """Whether a file says what queries are to find: its kind says so, or its first record, which then has no score."""
    if Path(path).suffix.lower() == SQUAD_SUFFIX:
        return True
    first = read_records(path, FORM)[0]
    names_both = any(name in first.fields for name in QUERY) and any(name in first.fields for name in POSITIVE)
    return names_both and field(first, SCORE) is None


def load_texts(path: PathLike) -> List[str]:
    """The texts of a file of any of the forms, each once, without scores."""
    if is_search(path):
        search = load_search(path)
        return list(dict.fromkeys([*search.queries, *search.documents]))
    pairs = load_pairs(path)
    return list(dict.fromkeys(text for pair in pairs for text in pair[:2] if text is not None))


def load_pairs(path: PathLike, limit: Optional[int] = None) -> List[ScoredPair]:
    """The pairs, or single texts, of a file's first ``limit`` records; InputError names the line of a faulty one."""
    records = read_records(path, PAIRS_FORM)
    refuse_without(records, TEXT, path, PAIRS_FORM)
    return [_pair(record, path) for record in records[:limit]]


def _pair(record: Record, path: PathLike) -> ScoredPair:
    other = field(record, OTHER)
    score = None if other is None else field(record, SCORE)  # a text alone may have a label of another task
    return ScoredPair(
        _text(record, TEXT, path),
        None if other is None else _text(record, OTHER, path),
        None if score is None else _score(score, record, path),
    )


def _text(record: Record, names: Tuple[str, ...], path: PathLike) -> str:
    value = field(record, names)
    if not isinstance(value, str):
        what = "missing or empty" if value is None else f"{shown_value(value)}, no text"
        raise InputError(f"{path}, line {record.line_number}: {names[0]} is {what}", hint=FORM)
    return value


def _score(value: Any, record: Record, path: PathLike) -> float:
    try:
        number = as_real(float(value) if isinstance(value, str) else value)
    except ValueError:
        number = None
    if number is None or not math.isfinite(number):
        raise InputError(f"{path}, line {record.line_number}: the score {shown_value(value)} is no number", hint=FORM)
    return number


def load_search(path: PathLike, limit: Optional[int] = None) -> Search:
    """The first ``limit`` queries of a file, and every document in it; InputError names the line of a faulty one.

    Records of an equal query are one, for which the documents of all of them are right.
    """
    if Path(path).suffix.lower() == SQUAD_SUFFIX:
        asked = [(question.question, _one(question.context)) for question in load_squad(path)]
    else:
        records = read_records(path, FORM)
        refuse_without(records, QUERY, path, FORM)
        asked = [(_text(record, QUERY, path), _positives(record, path)) for record in records]
    numbers: Dict[str, int] = {}
    relevant: Dict[str, Set[int]] = {}
    for query, texts in asked:
        relevant.setdefault(query, set()).update(numbers.setdefault(text, len(numbers)) for text in texts)
    return Search(list(relevant)[:limit], list(numbers), list(relevant.values())[:limit])


def _one(text: str) -> Sequence[str]:
    return [text]


def _positives(record: Record, path: PathLike) -> Sequence[str]:
    value = field(record, POSITIVE)
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        what = "missing or empty" if value in (None, []) else f"{shown_value(value)}, no text"
        raise InputError(f"{path}, line {record.line_number}: positive is {what}", hint=FORM)
    return texts
