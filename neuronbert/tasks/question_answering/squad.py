"""Reads and writes SQuAD files (v1.1 and v2.0), questions with their right answers, for gate.py and evaluation.py."""

import json
from pathlib import Path
from typing import Any, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from neuronbert.errors import InputError
from neuronbert.hardware.untrusted import Refusal, json_value, read_given
from neuronbert.tasks.base import Document, PathLike
from neuronbert.tasks.lines import file_text, shown, surrogate_fault, text_fault

MOST_BYTES = 1 << 30  # the training data of SQuAD v2.0 has 4 % of it
_SQUAD_FORM = (
    'a SQuAD file has the form {"data": [{"paragraphs": [{"context": "...", '
    '"qas": [{"id": "...", "question": "...", "answers": [...]}]}]}]}'
)


class SquadQuestion(NamedTuple):
    """One question of a SQuAD file. ``answers`` is empty when the context does not answer it."""

    id: str
    question: str
    context: str
    answers: Tuple[str, ...]
    is_impossible: bool
    answer_starts: Tuple[int, ...] = ()  # characters into the context, one for each of ``answers``


class SquadData(NamedTuple):
    """The questions of a SQuAD file and the version, "1.1" or "2.0", whose metrics apply to them."""

    version: str
    questions: List[SquadQuestion]


def load_squad(path: PathLike) -> List[SquadQuestion]:
    """The questions of a SQuAD v1.1 or v2.0 file; InputError says what is wrong with it, and where."""
    return load_squad_data(path).questions


def load_squad_data(path: PathLike) -> SquadData:
    """The questions and the version of a SQuAD file; InputError says what is wrong with it, and where."""
    name = str(path)
    document = _parse_document(_read_text(Path(path)), name)
    questions = list(_walk(document, name))
    if not questions:
        raise InputError(f"{name} holds no question", hint=_SQUAD_FORM)
    _refuse_duplicates(questions, name)
    return SquadData(_detect_version(document, questions), questions)


def squad_document(questions: Sequence[SquadQuestion], version: str) -> Document:
    """The SQuAD JSON of ``questions``, with one paragraph for each run of the same context."""
    paragraphs: List[Document] = []
    for item in questions:
        if not paragraphs or paragraphs[-1]["context"] != item.context:
            paragraphs.append({"context": item.context, "qas": []})
        answers = [{"text": text, "answer_start": start} for text, start in zip(item.answers, item.answer_starts)]
        qa: Document = {"id": item.id, "question": item.question, "answers": answers}
        if version == "2.0":
            qa["is_impossible"] = item.is_impossible
        paragraphs[-1]["qas"].append(qa)
    return {"version": version, "data": [{"title": "", "paragraphs": paragraphs}]}


def _read_text(path: Path) -> str:
    raw = read_given(path, Refusal(InputError, f"check the path; {_SQUAD_FORM}"), MOST_BYTES)
    if not raw.strip():
        raise InputError(f"{path} is empty", hint=_SQUAD_FORM)
    return file_text(raw, str(path), hint=_SQUAD_FORM)


def _parse_document(text: str, name: str) -> Any:
    try:
        return json_value(text)
    except json.JSONDecodeError as error:
        hint = _SQUAD_FORM
        if error.msg == "Extra data":
            hint = f"this looks like JSON lines, which `neuronbert answer --input` reads; {hint}"
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{name} is not JSON: {error.msg} at {place}", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} cannot be read as JSON: {error}", hint=_SQUAD_FORM) from None


def _walk(document: Any, name: str) -> Iterator[SquadQuestion]:
    for article, where in _items(document, "data", name, ""):
        for paragraph, place in _items(article, "paragraphs", name, where):
            context = _text(paragraph, "context", name, place)
            for qa, spot in _items(paragraph, "qas", name, place):
                yield _question(qa, context, name, spot)


def _question(qa: Any, context: str, name: str, where: str) -> SquadQuestion:
    question = _text(qa, "question", name, where)
    answers = [
        (_text(answer, "text", name, place, empty=True), answer.get("answer_start", -1))
        for answer, place in _items(qa, "answers", name, where)
    ]
    for _, start in answers:
        if not isinstance(start, int) or isinstance(start, bool):
            raise _wrong(name, f"{where}.answers", f"answer_start is {shown(start)}, not a whole number")
    texts = tuple(text for text, _ in answers)
    return SquadQuestion(
        _identity(qa, name, where), question, context, texts, not texts, tuple(start for _, start in answers)
    )


def _identity(qa: Mapping[str, Any], name: str, where: str) -> str:
    value = qa.get("id")
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise _wrong(name, where, f"id is {shown(value)}, not a string" if "id" in qa else "the key 'id' is missing")
    fault = surrogate_fault("id", value) if isinstance(value, str) else None
    if fault:
        raise _wrong(name, where, fault)
    return str(value)


def _items(holder: Any, key: str, name: str, where: str) -> Iterator[Tuple[Any, str]]:
    """The members of the list under ``key``, each with its path, such as data[0].paragraphs[3]."""
    values = _get(holder, key, name, where)
    place = f"{where}.{key}" if where else key
    if not isinstance(values, list):
        raise _wrong(name, place, f"a list is expected here, not {shown(values)}")
    for index, value in enumerate(values):
        yield value, f"{place}[{index}]"


def _text(holder: Any, key: str, name: str, where: str, *, empty: bool = False) -> str:
    value = _get(holder, key, name, where)
    fault = None if empty and value == "" else text_fault(key, value)
    if fault:
        raise _wrong(name, where, fault)
    return str(value)


def _get(holder: Any, key: str, name: str, where: str) -> Any:
    if not isinstance(holder, dict):
        raise _wrong(name, where, f"an object is expected here, not {shown(holder)}")
    if key not in holder:
        raise _wrong(name, where, f"the key {key!r} is missing")
    return holder[key]


def _wrong(name: str, where: str, what: str) -> InputError:
    return InputError(f"{name}, {where or 'top level'}: {what}", hint=_SQUAD_FORM)


def _refuse_duplicates(questions: Sequence[SquadQuestion], name: str) -> None:
    seen = set()
    twice = []
    for item in questions:
        if item.id in seen:
            twice.append(item.id)
        seen.add(item.id)
    if twice:
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        hint = "give every question its own id: predictions are matched to questions by it"
        raise InputError(f"{name} uses the id {twice[0]!r} more than once{more}", hint=hint)


def _detect_version(document: Mapping[str, Any], questions: Sequence[SquadQuestion]) -> str:
    """The file's own version or, as many copies lack it, 2.0 if a question has no answer."""
    named = str(document.get("version", "")).lstrip("v").startswith("2")
    return "2.0" if named or any(item.is_impossible for item in questions) else "1.1"
