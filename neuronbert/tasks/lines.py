"""Reads inputs from JSON lines for engine and runner, whatever the task, whose LineForm says what a line must hold."""

import json
import os
import sys
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Callable, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Union

from neuronbert.errors import InputError, NeuronBertError, UsageError
from neuronbert.tasks.base import Document, Input, Keywords, LineForm, PathLike

MAX_LINE_BYTES = 1 << 26  # far longer than any line of text
PASS_OVER_BYTES = 1 << 20  # of a longer line, at a time

Identity = Union[str, int, None]  # of a line, given by whoever wrote it


class InputLine(NamedTuple):
    """One line of a JSONL file; ``keywords`` are the options that it sets for itself."""

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

    ``LineReader`` says that such a line is broken. Its rest is read only when that is wanted (``pass_over``, or the
    next line): it may have no end. ``read`` is given every byte that leaves the file. Where the file ended the lines
    end: a file that grew meanwhile would go on in the middle of its last line.
    """

    def __init__(self, file: BinaryIO, read: Callable[[bytes], None] = lambda data: None):
        self._file = file
        self._read = read
        self.is_inside = False  # a line whose end was not reached
        self.is_ended = False

    def next(self) -> bytes:
        """The next line; empty at the end."""
        self.pass_over()
        if self.is_ended:
            return b""
        line = self._readline(MAX_LINE_BYTES + 1)
        self._read(line)
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


def is_too_long(line: Union[str, bytes]) -> bool:
    """Whether a line has more than MAX_LINE_BYTES."""
    return len(line) > MAX_LINE_BYTES


class BrokenLine(Exception):
    """Raised for a line that is no input; its text says why, ``id`` whose it is where that is known."""

    def __init__(self, reason: str, id: Identity = None):
        super().__init__(reason)
        self.id = id


class LineReader:
    """Iterates over the inputs of JSON lines; with ``on_error="skip"`` the bad lines are in ``skipped``."""

    def __init__(self, lines: Iterable[Union[str, bytes]], form: LineForm, on_error: str = "fail", first_line: int = 1):
        if on_error not in ("fail", "skip"):
            raise UsageError(f"on_error is {on_error!r}", hint="fail or skip")
        self.skipped: List[SkippedLine] = []
        self._lines = lines
        self._form = form
        self._skip = on_error == "skip"
        self._first_line = first_line

    def __iter__(self) -> Iterator[InputLine]:
        # Once one line was read, the file is text, whatever a later line holds.
        started = self._first_line > 1
        for number, raw in enumerate(self._lines, start=self._first_line):
            if not started:
                refuse_binary(raw, f"line {number} of the input", hint=self._form.hint)
            try:
                line = _parse_line(raw, number, self._form)
            except BrokenLine as reason:
                if not self._skip:
                    hint = f"{self._form.hint}; or --on-error skip"
                    raise InputError(f"line {number}: {reason}", hint=hint) from None
                self.skipped.append(SkippedLine(number, str(reason), reason.id))
                continue
            if line is not None:
                started = True
                yield line


def read_lines(
    lines: Iterable[Union[str, bytes]], form: LineForm, on_error: str = "fail", first_line: int = 1
) -> LineReader:
    """Inputs from JSON lines, read as they are asked for; blank lines and a UTF-8 byte order mark are skipped.

    ``lines`` is a list, or a file or stream best opened in binary mode. A broken line raises InputError
    naming its number, or with ``on_error="skip"`` is added to the reader's ``skipped``. Binary input is refused either
    way, until the first good line. ``first_line`` is the number of the first of ``lines`` in its file, where the lines
    before it were read already.
    """
    return LineReader(lines, form, on_error, first_line)


def refuse_binary(raw: Union[str, bytes], place: str, *, hint: str) -> None:
    """Raise InputError for gzip, UTF-16 and other binary data: JSON text never holds a NUL byte."""
    start = raw[:4] if isinstance(raw, bytes) else b""
    if start[:2] == b"\x1f\x8b":
        raise InputError(f"{place} is gzip-compressed", hint="unpack it first: gunzip FILE")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{place} is UTF-16, not UTF-8", hint="convert it: iconv -f UTF-16 -t UTF-8 FILE")
    if (b"\0" in raw) if isinstance(raw, bytes) else ("\0" in raw):
        raise InputError(f"{place} is binary, not text", hint=hint)


def _parse_line(raw: Union[str, bytes], number: int, form: LineForm) -> Optional[InputLine]:
    if is_too_long(raw):
        raise BrokenLine(f"longer than {MAX_LINE_BYTES >> 20} MiB: is it text?")
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
    except UnicodeDecodeError as error:
        raise BrokenLine(f"not UTF-8 text (byte 0x{error.object[error.start]:02x})") from None
    if "\0" in text:
        raise BrokenLine(f"a NUL byte at column {text.index(chr(0)) + 1}, which JSON text never holds")
    text = text.lstrip("\ufeff") if number == 1 else text
    if not text.strip():
        return None
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
    identity = record.get("id")
    fault = id_fault(identity)
    if fault:
        raise BrokenLine(fault)
    fault = form.fault(record) or _keyword_fault(record, form)
    if fault:
        raise BrokenLine(fault, identity)
    keywords = {key: record[key] for key in form.keywords if record.get(key) is not None}
    return InputLine(number, identity, form.input(record), keywords)


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
