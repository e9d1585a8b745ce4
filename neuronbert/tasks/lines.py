"""Reads inputs from lines for engine and runner, whatever the task, whose LineForm says what a line must hold.

JSON lines are read here; line_formats.py has the others.
"""

import json
import os
import sys
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Callable, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

from neuronbert.errors import InputError, NeuronBertError, UsageError
from neuronbert.tasks.base import Document, Input, Keywords, LineForm, PathLike

MAX_LINE_BYTES = 1 << 26  # far longer than any line of text
PASS_OVER_BYTES = 1 << 20  # of a longer line, at a time

Identity = Union[str, int, None]  # of a line, given by whoever wrote it
Raw = Union[str, bytes]  # a line as it was read
NumberedLines = Iterator[Tuple[int, Raw]]  # the first line of a file is number 1


class Entry(NamedTuple):
    """What a file says of one input: one of its lines, or in a table a row, which may have several lines."""

    line_number: int  # where it begins, from 1
    fields: Optional[Document] = None  # None of a blank line, and of a broken one
    fault: Optional[str] = None  # why it is broken
    raw: Raw = b""  # of a broken one, its first line


class InputLine(NamedTuple):
    """One entry of a file that can be asked; ``keywords`` are the options that it sets for itself."""

    line_number: int  # from 1
    id: Identity
    input: Input
    keywords: Keywords


class SkippedLine(NamedTuple):
    """A line that has no result, with the reason in words, and its id where that could be read."""

    line_number: int  # from 1
    reason: str
    id: Identity = None

    def document(self) -> Document:
        """The error line that takes the place of the result."""
        return {**line_head(self.line_number, self.id), "error": self.reason}


def line_head(line_number: int, identity: Identity) -> Document:
    """How the document for a line begins, be it a result or an error."""
    return {"line": line_number} if identity is None else {"line": line_number, "id": identity}


def json_line(document: Document) -> str:
    """The document as a line of JSON that every reader takes: characters as they are, half surrogate pairs escaped."""
    text = json.dumps(document, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a result quotes its input only where that is valid, but a reason may quote anything
        text = json.dumps(document)
    return text + "\n"


def stdin_bytes() -> BinaryIO:
    """stdin as it comes; InputError where there is none, as under ``<&-``."""
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("the input is to come from stdin, which is closed", hint="a file in place of -, or < FILE")
    with suppress(OSError, ValueError):  # it is no file
        os.set_blocking(sys.stdin.fileno(), True)  # else Python takes a pause of its writer for the end
    return sys.stdin.buffer


@contextmanager
def open_lines(path: PathLike, hint: str) -> Iterator[BinaryIO]:
    """The file at ``path``, or stdin for "-", as bytes; InputError for a file that cannot be opened."""
    if path == "-":
        yield stdin_bytes()
        return
    try:
        file = open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint=hint) from None
    with file:
        yield file


@contextmanager
def reading(file: BinaryIO) -> Iterator[None]:
    """Turn what the system says against reading ``file`` inside the block (a disk that fails) into an InputError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NeuronBertError):
            raise
        name = getattr(file, "name", "the input")
        raise InputError(
            f"cannot read {name}: {error.strerror or error}", hint="a copy of it on another disk"
        ) from None


class BoundedLines:
    """The lines of a file or pipe in bounded memory: of one longer than MAX_LINE_BYTES only the beginning is kept.

    ``line_text`` says that such a line is broken. Its rest is read only when that is wanted (``pass_over``, or the
    next line): it may have no end. ``read`` is given every byte that leaves the file, and ``count`` is the number of
    lines that were begun. Where the file ended the lines end: a file that grew meanwhile would go on in the middle of
    its last line.
    """

    def __init__(self, file: BinaryIO, read: Callable[[bytes], None] = lambda data: None):
        self._file = file
        self._read = read
        self.count = 0
        self.is_inside = False  # a line whose end was not reached
        self.is_ended = False

    def next(self) -> bytes:
        """The next line; empty at the end."""
        self.pass_over()
        if self.is_ended:
            return b""
        line = self._readline(MAX_LINE_BYTES + 1)
        self._read(line)
        self.count += bool(line)
        self.is_inside = is_too_long(line) and not line.endswith(b"\n")
        self.is_ended = not self.is_inside and not line.endswith(b"\n")
        return line

    def pass_over(self) -> None:
        """Read on to the end of the line."""
        while self.is_inside:
            rest = self._readline(PASS_OVER_BYTES)
            self._read(rest)
            self.is_ended = not rest
            self.is_inside = bool(rest) and not rest.endswith(b"\n")

    def _readline(self, most_bytes: int) -> bytes:
        with reading(self._file):
            return self._file.readline(most_bytes)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.next, b"")

    def numbered(self) -> NumberedLines:
        """The lines with their numbers."""
        for line in self:
            yield self.count, line


def is_too_long(line: Raw) -> bool:
    """Whether a line has more than MAX_LINE_BYTES."""
    return len(line) > MAX_LINE_BYTES


class BrokenLine(Exception):
    """Raised for a line that is no input; its text says why, ``id`` whose it is where that is known."""

    def __init__(self, reason: str, id: Identity = None):
        super().__init__(reason)
        self.id = id


class LineReader:
    """Iterates over the inputs of entries; with ``on_error="skip"`` the bad ones are in ``skipped``.

    A broken entry raises InputError naming its line, with ``hint``, or is skipped. Binary input is refused either way,
    until the first good line of a file.
    """

    def __init__(self, entries: Iterable[Entry], form: LineForm, hint: str, on_error: str = "fail"):
        if on_error not in ("fail", "skip"):
            raise UsageError(f"on_error is {on_error!r}", hint="fail or skip")
        self.skipped: List[SkippedLine] = []
        self._entries = entries
        self._form = form
        self._hint = hint
        self._skip = on_error == "skip"

    def __iter__(self) -> Iterator[InputLine]:
        # Once one line was read, the file is text, whatever a later line holds.
        started: Optional[bool] = None
        for entry in self._entries:
            started = entry.line_number > 1 if started is None else started
            if entry.fault is not None and not started:
                refuse_binary(entry.raw, f"line {entry.line_number} of the input", hint=self._hint)
            try:
                line = _input_line(entry, self._form)
            except BrokenLine as reason:
                if not self._skip:
                    hint = f"{self._hint}; or --on-error skip"
                    raise InputError(f"line {entry.line_number}: {reason}", hint=hint) from None
                self.skipped.append(SkippedLine(entry.line_number, str(reason), reason.id))
                continue
            if line is not None:
                started = True
                yield line


def read_lines(lines: Iterable[Raw], form: LineForm, on_error: str = "fail") -> LineReader:
    """Inputs from JSON lines, read as they are asked for; blank lines and a UTF-8 byte order mark are skipped.

    ``lines`` is a list, or a file or stream best opened in binary mode. Broken lines are as for LineReader.
    """
    return LineReader(json_entries(enumerate(lines, start=1)), form, form.hint, on_error)


def read_json_line(number: int, raw: Raw, form: LineForm) -> Union[InputLine, SkippedLine, None]:
    """The input of one line, or what is wrong with it; None for a blank one."""
    try:
        return _input_line(_json_entry(number, raw), form)
    except BrokenLine as reason:
        return SkippedLine(number, str(reason), reason.id)


def refuse_binary(raw: Raw, place: str, *, hint: str) -> None:
    """Raise InputError for gzip, UTF-16 and other binary data: JSON text never holds a NUL byte."""
    start = raw[:4] if isinstance(raw, bytes) else b""
    if start[:2] == b"\x1f\x8b":
        raise InputError(f"{place} is gzip-compressed", hint="unpack it first: gunzip FILE")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{place} is UTF-16, not UTF-8", hint="convert it: iconv -f UTF-16 -t UTF-8 FILE")
    if (b"\0" in raw) if isinstance(raw, bytes) else ("\0" in raw):
        raise InputError(f"{place} is binary, not text", hint=hint)


def file_text(raw: bytes, name: str, *, hint: str) -> str:
    """The text of a whole file, without its byte order mark; InputError for one that is none."""
    refuse_binary(raw, name, hint=hint)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = wrong_byte(error)
        raise InputError(f"{name}, line {line} is not UTF-8 text ({byte})", hint="convert it to UTF-8") from None


def wrong_byte(error: UnicodeDecodeError) -> Tuple[int, str]:
    """The first byte that is no UTF-8, in words, behind the number of its line among those that were decoded."""
    # The place counts from behind the byte order mark, where there is one, as the error's object does.
    return error.object.count(b"\n", 0, error.start) + 1, f"byte 0x{error.object[error.start]:02x}"


def line_text(number: int, raw: Raw) -> str:
    """The text of line ``number``; BrokenLine where it is none. The file's byte order mark is left out."""
    if is_too_long(raw):
        raise BrokenLine(f"longer than {MAX_LINE_BYTES >> 20} MiB: is it text?")
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
    except UnicodeDecodeError as error:
        raise BrokenLine(f"not UTF-8 text ({wrong_byte(error)[1]})") from None
    if "\0" in text:
        raise BrokenLine(f"a NUL byte at column {text.index(chr(0)) + 1}, which no text holds")
    return text.lstrip("\ufeff") if number == 1 else text


def json_entries(lines: NumberedLines) -> Iterator[Entry]:
    """The entry of each line, which is a JSON object."""
    for number, raw in lines:
        yield _json_entry(number, raw)


def _json_entry(number: int, raw: Raw) -> Entry:
    try:
        text = line_text(number, raw)
        return Entry(number, _json_fields(text) if text.strip() else None)
    except BrokenLine as reason:
        return Entry(number, fault=str(reason), raw=raw)


def _json_fields(text: str) -> Document:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise BrokenLine(f"not JSON ({error.msg} at column {error.pos + 1})") from None
    except (ValueError, RecursionError) as error:
        raise BrokenLine(f"cannot be read as JSON ({error})") from None
    except MemoryError:  # nested lists take many times the bytes of their text
        raise BrokenLine("its JSON needs more memory than there is") from None
    if not isinstance(record, dict):
        raise BrokenLine(f"a JSON object is expected, not {shown(record)}")
    return record


def _input_line(entry: Entry, form: LineForm) -> Optional[InputLine]:
    """The input of an entry; None for a blank line, BrokenLine for what can be none."""
    if entry.fault is not None:
        raise BrokenLine(entry.fault)
    record = entry.fields
    if record is None:
        return None
    identity = record.get("id")
    fault = id_fault(identity)
    if fault:
        raise BrokenLine(fault)
    fault = form.fault(record) or _keyword_fault(record, form)
    if fault:
        raise BrokenLine(fault, identity)
    keywords = {key: record[key] for key in form.keywords if record.get(key) is not None}
    return InputLine(entry.line_number, identity, form.input(record), keywords)


def id_fault(identity: Any) -> Optional[str]:
    """What is wrong with a line's id, which is written back beside its result; None: nothing."""
    if isinstance(identity, bool) or not isinstance(identity, (str, int, type(None))):
        return f"id is {shown(identity)}, neither a string nor a whole number"
    return surrogate_fault("id", identity) if isinstance(identity, str) else None


def _keyword_fault(record: Document, form: LineForm) -> Optional[str]:
    for key, kind in form.keywords.items():
        value = record.get(key)
        if value is not None and not _is_of(kind, value):
            return f"{key} is {shown(value)}, not {_KINDS[kind]}"
    return None


# What a line's keyword may be, in words.
_KINDS: Mapping[type, str] = {int: "a whole number", bool: "true or false", float: "a number", str: "a string"}


def _is_of(kind: type, value: Any) -> bool:
    """Whether a JSON value is of a keyword's type. bool is an int to Python, but true is no number; 1 is one."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def text_fault(key: str, value: Any) -> Optional[str]:
    """What is wrong with ``value`` as a text, such as a question; None: nothing."""
    if not isinstance(value, str):
        return f"{key} is {shown(value)}, not a string"
    if not value:
        return f"{key} is empty"
    return surrogate_fault(key, value)


def surrogate_fault(key: str, value: str) -> Optional[str]:
    """What is wrong with ``value`` if it is no Unicode text: JSON can escape half of a surrogate pair."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"{key} holds half of a surrogate pair (\\u{ord(value[error.start]):04x}) at character {error.start}"
    return None


def shown(value: Any) -> str:
    """A value as JSON would write it, short enough for one line."""
    try:
        text = json.dumps(value)
    except (RecursionError, MemoryError, ValueError):  # reading nests deeper than writing, numbers may be too long
        return "something too large to show"
    return text if len(text) <= 60 else text[:57] + "..."
