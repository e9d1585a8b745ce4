"""Files that nobody vouches for, as bytes and as JSON: regular files only, of a bounded size, of a form that is known.

``schema`` says what a document must look like. Everything that reads a checkpoint, an artifact, a record of a job or a
file that a person names comes through here, so that a file can be wrong in one way only: as the error that its reader
names. Streams, which may be pipes, are for tasks/lines.py.
"""

import errno
import hashlib
import json
import math
import os
import re
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Type

from neuronbert.errors import NeuronBertError, quoted
from neuronbert.hardware.schema import Schema, shown

MEBIBYTE = 1 << 20
# Parsed, a byte of hostile JSON can take 24: none of our documents comes near this size.
DOCUMENT_BYTES = 4 * MEBIBYTE
READ_BYTES = MEBIBYTE  # at a time
# The deepest that transformers, tokenizers or we write is about ten.
MAX_DEPTH = 64
MAX_DIGITS = 400  # of a number: a double has at most 309 before its point

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a symbolic link"),
)
_TOO_DEEP = "it is nested too deeply"
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Refusal(NamedTuple):
    """How the files of one kind are refused: the class of the error, and what to do about a damaged file."""

    error: Type[NeuronBertError]
    hint: str

    def of(self, message: str) -> NeuronBertError:
        """The error with this message."""
        return self.error(message, hint=self.hint)


def read_file(path: Path, refusal: Refusal, limit_bytes: int = DOCUMENT_BYTES, *, links: bool = True) -> bytes:
    """The bytes of a regular file; ``refusal`` for anything else, more than ``limit_bytes``, and what is unreadable.

    FileNotFoundError passes through: what a missing file means, the caller knows. Without ``links`` a symbolic link is
    refused too.
    """
    with open_regular(path, refusal, links=links) as file, readable(path, refusal):
        return file.read(refuse_large(path, file, limit_bytes, refusal))


def read_optional(path: Path, refusal: Refusal, limit_bytes: int = DOCUMENT_BYTES) -> Optional[bytes]:
    """As ``read_file``; None where there is nothing at ``path``."""
    try:
        return read_file(path, refusal, limit_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_given(path: Path, refusal: Refusal, limit_bytes: int = DOCUMENT_BYTES) -> bytes:
    """As ``read_file``, of a file that a person named: one that is not there is refused as well."""
    try:
        return read_file(path, refusal, limit_bytes)
    except (FileNotFoundError, NotADirectoryError):
        raise refusal.of(f"there is no file {path}") from None


def is_there(path: Path, refusal: Refusal) -> bool:
    """Whether there is anything at ``path``, be it a link to nothing; ``refusal`` where that cannot be told."""
    try:
        with readable(path, refusal):
            os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextmanager
def open_regular(path: Path, refusal: Refusal, *, links: bool = True) -> Iterator[BinaryIO]:
    """A regular file, opened to be read; ``refusal`` for what is none, or cannot be read.

    Opening a named pipe or a device can wait for ever, or do something. FileNotFoundError passes through, but not for
    a symbolic link to nothing.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if links else os.O_NOFOLLOW)
    with readable(path, refusal):
        refuse_irregular(path, os.stat(path) if links else os.lstat(path), refusal)
        descriptor = os.open(str(path), flags)
    with os.fdopen(descriptor, "rb") as file:
        # What was looked at may have been replaced since.
        refuse_irregular(path, os.fstat(descriptor), refusal)
        yield file


def refuse_large(path: Path, file: BinaryIO, limit_bytes: int, refusal: Refusal) -> int:
    """The size of a file in bytes; ``refusal`` for more than ``limit_bytes``."""
    size = os.fstat(file.fileno()).st_size
    if size > limit_bytes:
        raise refusal.of(f"{path} has {size:,} bytes, and more than {limit_bytes:,} make no sense for it")
    return size


def refuse_irregular(path: Path, found: os.stat_result, refusal: Refusal) -> None:
    """Raise ``refusal`` unless ``found`` is of a regular file."""
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "something else")
        raise refusal.of(f"{path} is {kind}, not a file")


@contextmanager
def readable(path: Path, refusal: Refusal) -> Iterator[None]:
    """Turn what the system says against reading ``path`` inside the block into ``refusal``'s error."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise refusal.of(f"{path} is a symbolic link to {os.readlink(path)!r}, which is not there") from None
        raise
    except OSError as error:
        if isinstance(error, NeuronBertError):  # of a refusal inside the block: OutputError is one too
            raise
        if error.errno == errno.ELOOP:
            raise refusal.of(f"{path} is a symbolic link, not a file") from None
        where = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else path
        raise refusal.error(f"{where} cannot be read: {error.strerror}", hint=_permission_hint(where, error)) from error


def _permission_hint(path: Path, error: OSError) -> str:
    look = f"ls -ld {quoted(path)}"
    return f"{look}, then chmod" if error.errno in (errno.EACCES, errno.EPERM) else look


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file of our own, in hexadecimal."""
    with open(path, "rb") as file:
        return sha256_of_stream(file)


def sha256_of_stream(file: BinaryIO) -> str:
    """The SHA-256 of what is left to read of ``file``, in hexadecimal."""
    sha = hashlib.sha256()
    for block in blocks_of(file):
        sha.update(block)
    return sha.hexdigest()


def blocks_of(file: BinaryIO, most_bytes: Optional[int] = None) -> Iterator[bytes]:
    """What is left to read of ``file``, of that the first ``most_bytes``; fewer where it ends before."""
    left = math.inf if most_bytes is None else most_bytes
    while left > 0:
        block = file.read(int(min(READ_BYTES, left)))
        if not block:
            return
        yield block
        left -= len(block)


# ---------------------------------------------------------------------- JSON


def read_document(
    path: Path, schema: Schema, refusal: Refusal, limit_bytes: int = DOCUMENT_BYTES, *, links: bool = True
) -> Dict[str, Any]:
    """The JSON object in a file, which fits ``schema``; ``refusal`` says where it does not. See ``read_file``."""
    return document_of(read_file(path, refusal, limit_bytes, links=links), str(path), schema, refusal)


def document_of(raw: bytes, name: str, schema: Schema, refusal: Refusal) -> Dict[str, Any]:
    """The JSON object in ``raw``, the content of the file called ``name``, which fits ``schema``."""
    document = json_object(raw, name, refusal)
    refuse_unfit(document, name, schema, refusal)
    return document


def refuse_unfit(document: Mapping[str, Any], name: str, schema: Schema, refusal: Refusal) -> None:
    """Raise ``refusal`` unless ``document``, from the file called ``name``, fits ``schema``."""
    fault = schema.fault(document)
    if fault is not None:
        raise refusal.of(f"{name}: {fault}")


def json_object(raw: bytes, name: str, refusal: Refusal) -> Dict[str, Any]:
    """The JSON object in ``raw``, of any form, but no name twice, no NaN, no half character, nothing endless."""
    document = _json_of(raw, name, refusal)
    if not isinstance(document, dict):
        raise refusal.of(f"{name} holds {shown(document)}, not a JSON object")
    return document


def json_list(raw: bytes, name: str, refusal: Refusal) -> List[Any]:
    """The JSON list in ``raw``, of any form, as ``json_object``."""
    document = _json_of(raw, name, refusal)
    if not isinstance(document, list):
        raise refusal.of(f"{name} holds {shown(document)}, not a JSON list")
    return document


def _json_of(raw: bytes, name: str, refusal: Refusal) -> Any:
    try:
        text = raw.decode("utf-8")
        document = json_value(text)
        if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH or _SURROGATE_ESCAPE.search(text):
            _refuse_odd_values(document)
    except RecursionError:
        raise refusal.of(f"{name} is no JSON that can be read: {_TOO_DEEP}") from None
    except ValueError as error:
        raise refusal.of(f"{name} is no JSON that can be read: it is truncated or damaged ({error})") from None
    return document


def json_value(text: str) -> Any:
    """The value of a JSON text; ValueError where not every reader takes it for the same, RecursionError if too deep."""
    return json.loads(
        text, object_pairs_hook=_object, parse_int=_whole, parse_float=_finite, parse_constant=_no_constant
    )


def _refuse_odd_values(document: Any) -> None:
    """ValueError for half a character (of an escape; it can be written nowhere), RecursionError for deep nesting."""
    waiting: List[Tuple[Any, int]] = [(document, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str) and _SURROGATE.search(value):
            raise ValueError(f"half a character in {shown(value)}")
        if isinstance(value, (dict, list)):
            if depth > MAX_DEPTH:
                raise RecursionError
            items = [*value, *value.values()] if isinstance(value, dict) else value
            waiting.extend((item, depth + 1) for item in items)


def _object(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for name, value in pairs:
        if name in found:  # of two values, one reader takes the first and another the last
            raise ValueError(f"it has {shown(name)} twice")
        found[name] = value
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:  # each digit more makes every other one slower to read
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number too large, {text[:40]}")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name}, which is no number of JSON")
