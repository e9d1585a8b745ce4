"""Reads questions: SQuAD files (v1.1 and v2.0) for measuring, JSON lines for answering."""

import json
import os
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.errors import InputError, UsageError

PathLike = Union[str, "os.PathLike[str]"]

# Answer options a line may set for itself, by their type.
LINE_KEYWORDS: Mapping[str, type] = {
    "top_k": int,
    "doc_stride": int,
    "max_answer_len": int,
    "max_seq_len": int,
    "max_question_len": int,
    "handle_impossible_answer": bool,
    "align_to_words": bool,
}
MAX_LINE_BYTES = 1 << 26  # far more than any document
_LINE_FORM = 'one JSON object a line: {"question": "...", "context": "..."}, "id" if you like'
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


class QuestionLine(NamedTuple):
    """One line of a JSONL file of questions; ``keywords`` are the answer options it sets for itself."""

    line_number: int  # from 1
    id: Union[str, int, None]
    question: str
    context: str
    keywords: Dict[str, Any]


class SkippedLine(NamedTuple):
    """A line that could not be read, with the reason in words."""

    line_number: int  # from 1
    reason: str


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


def bounded_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file or pipe; InputError for an endless one, which binary input may hold."""
    for number in count(1):
        line = file.readline(MAX_LINE_BYTES)
        if not line:
            return
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise InputError(f"line {number} is longer than {MAX_LINE_BYTES >> 20} MiB: is it text?", hint=_LINE_FORM)
        yield line


class _BrokenLine(Exception):
    """Why a line is no question."""


class QuestionReader:
    """Iterates over the questions of JSON lines; with ``on_error="skip"`` the bad lines are in ``skipped``."""

    def __init__(self, lines: Iterable[Union[str, bytes]], on_error: str = "fail", first_line: int = 1):
        if on_error not in ("fail", "skip"):
            raise UsageError(f"on_error is {on_error!r}", hint="fail or skip")
        self.skipped: List[SkippedLine] = []
        self._lines = lines
        self._skip = on_error == "skip"
        self._first_line = first_line

    def __iter__(self) -> Iterator[QuestionLine]:
        # Whether a question was read: from then on the input is text, whatever a line of it holds.
        started = self._first_line > 1
        for number, raw in enumerate(self._lines, start=self._first_line):
            if not started:
                _refuse_binary(raw, f"line {number} of the input", hint=_LINE_FORM)
            try:
                line = _parse_line(raw, number)
            except _BrokenLine as reason:
                if not self._skip:
                    hint = f"{_LINE_FORM}; or --on-error skip"
                    raise InputError(f"line {number}: {reason}", hint=hint) from None
                self.skipped.append(SkippedLine(number, str(reason)))
                continue
            if line is not None:
                started = True
                yield line


def read_questions(lines: Iterable[Union[str, bytes]], on_error: str = "fail", first_line: int = 1) -> QuestionReader:
    """Questions from JSON lines, read as they are asked for; blank lines and a UTF-8 byte order mark are passed over.

    ``lines`` is a list, or a file or stream best opened in binary mode. A broken line raises InputError
    naming its number, or with ``on_error="skip"`` is added to the reader's ``skipped``. Input that
    turns out to be binary before its first question is refused either way. ``first_line`` is the number of the first
    line given, of an input whose beginning was read before.
    """
    return QuestionReader(lines, on_error, first_line)


def question_line(question: str, context: str, id: Union[str, int, None] = None, **keywords: Any) -> str:
    """The JSON line, without its newline, that ``read_questions`` reads back as this question."""
    head = {} if id is None else {"id": id}
    return json.dumps({**head, "question": question, "context": context, **keywords}, ensure_ascii=False)


def squad_document(questions: Sequence[SquadQuestion], version: str) -> Dict[str, Any]:
    """The SQuAD JSON of ``questions``, with one paragraph for each run of the same context."""
    paragraphs: List[Dict[str, Any]] = []
    for item in questions:
        if not paragraphs or paragraphs[-1]["context"] != item.context:
            paragraphs.append({"context": item.context, "qas": []})
        answers = [{"text": text, "answer_start": start} for text, start in zip(item.answers, item.answer_starts)]
        qa: Dict[str, Any] = {"id": item.id, "question": item.question, "answers": answers}
        if version == "2.0":
            qa["is_impossible"] = item.is_impossible
        paragraphs[-1]["qas"].append(qa)
    return {"version": version, "data": [{"title": "", "paragraphs": paragraphs}]}


def _read_text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(4096)
            _refuse_binary(raw, str(path), hint=_SQUAD_FORM)  # before all of something huge is read
            raw += file.read()
    except FileNotFoundError:
        raise InputError(f"there is no file {path}", hint="check the path; it should name a SQuAD JSON file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="it should name a readable file") from error
    if not raw.strip():
        raise InputError(f"{path} is empty", hint=_SQUAD_FORM)
    _refuse_binary(raw, str(path), hint=_SQUAD_FORM)
    return _decode(raw, str(path))


def _refuse_binary(raw: Union[str, bytes], place: str, *, hint: str) -> None:
    """A NUL never occurs in JSON text, so one byte is enough to know."""
    start = raw[:4] if isinstance(raw, bytes) else b""
    if start[:2] == b"\x1f\x8b":
        raise InputError(f"{place} is gzip-compressed", hint="unpack it first: gunzip FILE")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{place} is UTF-16, not UTF-8", hint="convert it: iconv -f UTF-16 -t UTF-8 FILE")
    if (b"\0" in raw) if isinstance(raw, bytes) else ("\0" in raw):
        raise InputError(f"{place} is binary, not JSON text", hint=hint)


def _decode(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        value = f"byte 0x{raw[error.start]:02x}"
        raise InputError(f"{place}, line {line} is not UTF-8 text ({value})", hint="convert it to UTF-8") from None


def _parse_document(text: str, name: str) -> Any:
    try:
        return json.loads(text)
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
            raise _wrong(name, f"{where}.answers", f"answer_start is {_shown(start)}, not a whole number")
    texts = tuple(text for text, _ in answers)
    return SquadQuestion(
        _identity(qa, name, where), question, context, texts, not texts, tuple(start for _, start in answers)
    )


def _identity(qa: Mapping[str, Any], name: str, where: str) -> str:
    value = qa.get("id")
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise _wrong(name, where, f"id is {_shown(value)}, not a string" if "id" in qa else "the key 'id' is missing")
    return str(value)


def _items(holder: Any, key: str, name: str, where: str) -> Iterator[Tuple[Any, str]]:
    """The members of the list under ``key``, each with its place in words such as data[0].paragraphs[3]."""
    values = _get(holder, key, name, where)
    place = f"{where}.{key}" if where else key
    if not isinstance(values, list):
        raise _wrong(name, place, f"a list is expected here, not {_shown(values)}")
    for index, value in enumerate(values):
        yield value, f"{place}[{index}]"


def _text(holder: Any, key: str, name: str, where: str, *, empty: bool = False) -> str:
    value = _get(holder, key, name, where)
    fault = None if empty and value == "" else _text_fault(key, value)
    if fault:
        raise _wrong(name, where, fault)
    return value


def _get(holder: Any, key: str, name: str, where: str) -> Any:
    if not isinstance(holder, dict):
        raise _wrong(name, where, f"an object is expected here, not {_shown(holder)}")
    if key not in holder:
        raise _wrong(name, where, f"the key {key!r} is missing")
    return holder[key]


def _wrong(name: str, where: str, what: str) -> InputError:
    return InputError(f"{name}, {where or 'top level'}: {what}", hint=_SQUAD_FORM)


def _text_fault(key: str, value: Any) -> Optional[str]:
    """What is wrong with ``value`` as a question, context or answer, in words."""
    if not isinstance(value, str):
        return f"{key} is {_shown(value)}, not a string"
    if not value:
        return f"{key} is empty"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"{key} holds half of a surrogate pair (\\u{ord(value[error.start]):04x}) at character {error.start}"
    return None


def _shown(value: Any) -> str:
    """A value as JSON would write it, short enough for one line."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
    """By the file's own word or, as many copies lack it, by a question that has no answer."""
    named = str(document.get("version", "")).lstrip("v").startswith("2")
    return "2.0" if named or any(item.is_impossible for item in questions) else "1.1"


def _parse_line(raw: Union[str, bytes], number: int) -> Optional[QuestionLine]:
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
    except UnicodeDecodeError as error:
        raise _BrokenLine(f"not UTF-8 text (byte 0x{error.object[error.start]:02x})") from None
    if "\0" in text:
        raise _BrokenLine(f"a NUL byte at column {text.index(chr(0)) + 1}, which JSON text never holds")
    text = text.lstrip("\ufeff") if number == 1 else text
    if not text.strip():
        return None
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise _BrokenLine(f"not JSON ({error.msg} at column {error.pos + 1})") from None
    except (ValueError, RecursionError) as error:
        raise _BrokenLine(f"cannot be read as JSON ({error})") from None
    if not isinstance(record, dict):
        raise _BrokenLine(f"a JSON object is expected, not {_shown(record)}")
    fault = _record_fault(record)
    if fault:
        raise _BrokenLine(fault)
    keywords = {key: record[key] for key in LINE_KEYWORDS if record.get(key) is not None}
    return QuestionLine(number, record.get("id"), record["question"], record["context"], keywords)


def _record_fault(record: Mapping[str, Any]) -> Optional[str]:
    for key in ("question", "context"):
        fault = _text_fault(key, record[key]) if key in record else f"the key {key!r} is missing"
        if fault:
            return fault
    identity = record.get("id")
    if isinstance(identity, bool) or not isinstance(identity, (str, int, type(None))):
        return f"id is {_shown(identity)}, neither a string nor a whole number"
    for key, kind in LINE_KEYWORDS.items():
        value = record.get(key)
        # bool is an int to Python, but true is no top_k.
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            return f"{key} is {_shown(value)}, not {'a whole number' if kind is int else 'true or false'}"
    return None
