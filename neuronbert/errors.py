"""Every error that a user can meet: one root class, and with each class its exit code and HTTP status."""

import copy
import math
import os
import shlex
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, Optional, Tuple, Type, Union


class NeuronBertError(Exception):
    """Root of all errors raised on purpose.

    ``message`` says what was wrong and with which value; ``hint`` says what to do next, and the command line prints it
    after ``try:``. ``field`` is the name of the option, or of the part of an input, that was wrong, where it was one.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, message: str, *, hint: Optional[str] = None, field: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.field = field

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  try: {self.hint}"

    def at(self, place: str) -> "NeuronBertError":
        """The same error with the place of what was wrong in front."""
        moved = self.again()
        moved.message = f"{place}: {self.message}"
        moved.args = (moved.message,)
        return moved

    def again(self) -> "NeuronBertError":
        """The same error for somebody else: one that is raised again keeps all that it was raised through before."""
        return copy.copy(self)

    def __reduce__(self) -> Tuple[Any, ...]:
        # With all that a class adds to it: its constructor knows message and hint only.
        return _rebuild, (type(self), self.message, self.hint), self.__dict__


def _rebuild(kind: Type[NeuronBertError], message: str, hint: Optional[str]) -> NeuronBertError:
    return kind(message, hint=hint)


def quoted(path: Union[str, "os.PathLike[str]"]) -> str:
    """``path`` for a command in a ``hint``: one word of a shell, and never an option."""
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def in_words(error: BaseException) -> str:
    """Class and message of anybody's error, for a message of ours; also of one whose ``str`` raises."""
    try:
        message = str(error)
    except Exception as broken:
        message = f"(its message cannot be made: {type(broken).__name__})"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


class UsageError(NeuronBertError, ValueError):
    """Options that contradict each other or name something that does not exist."""

    exit_code = 2
    http_status = 400


def counted(number: int, noun: str) -> str:
    """``1 core`` or ``2 cores``, for messages."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class CheckpointError(NeuronBertError, ValueError):
    """A checkpoint that cannot be found, read or served."""

    http_status = 400


class ArtifactError(NeuronBertError, ValueError):
    """An artifact that is missing, damaged, too new, or not made for this machine."""


class ArtifactChanged(ArtifactError):
    """An artifact that was replaced by another while it was in use."""


class SignatureError(ArtifactError):
    """An artifact without a signature by a trusted key, where one is demanded."""


class InputError(NeuronBertError, ValueError):
    """A question, context or data file that cannot be answered as it is."""

    http_status = 400


class TooManyRows(InputError):
    """Inputs that need more rows (windows) of the model than one request may."""

    http_status = 413


class OutputError(NeuronBertError, OSError):
    """A place to write to that is in use, read-only or full."""


class BackendUnavailable(NeuronBertError, RuntimeError):
    """A backend whose libraries or hardware are not on this machine."""

    http_status = 503


class MissingLibrary(BackendUnavailable, ImportError):
    """An optional library that is not installed, or cannot be imported; the hint is the command that installs it."""


class BackendFailed(NeuronBertError, RuntimeError):
    """A backend that was there and broke: export, load, self-test or inference."""


class DeviceLost(BackendFailed):
    """An accelerator that this process can use no more; another process may."""


class GateRefused(NeuronBertError, RuntimeError):
    """A compiled variant that does not agree with the FP32 reference."""

    exit_code = 4


class NoConfiguration(NeuronBertError, RuntimeError):
    """No configuration satisfies the constraints asked for."""

    exit_code = 5


class Overloaded(NeuronBertError, RuntimeError):
    """A runner whose queue is full, or too long for the deadline; ``wait_s`` is the predicted wait, None if unknown."""

    http_status = 429

    def __init__(self, message: str, *, hint: Optional[str] = None, wait_s: Optional[float] = None) -> None:
        super().__init__(message, hint=hint)
        self.wait_s = wait_s


class DeadlineExceeded(NeuronBertError, TimeoutError):
    """A request that was dropped because its result would have come too late."""

    http_status = 504


class PoisonRequest(NeuronBertError, RuntimeError):
    """A request that one worker after the other died of, or was killed with, while it held nothing else."""


class RunnerClosed(NeuronBertError, RuntimeError):
    """A runner that takes no more requests."""

    http_status = 503


# ---------------------------------------------------------------------- values of options

LARGEST_COUNT = 2**31 - 1  # what libraries take for a number of things


def as_whole(value: object) -> Optional[int]:
    """``value`` as an int if it is a whole number, numpy's too; else None. True is none, and 7.0 is not whole."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def as_real(value: object) -> Optional[float]:
    """``value`` as a float if it is a number that a float can hold, a Decimal too; else None. NaN is none."""
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return None if math.isnan(number) else number


def shown_value(value: object) -> str:
    """``value`` as a message shows it: on one line, and short."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # that of a whole number of more than 4,300 digits raises, as may that of any object
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def positive(name: str, value: Optional[int]) -> Optional[int]:
    """``value`` as an int if it is a whole number of at least 1, None if it is None, else UsageError."""
    number = as_whole(value)
    if value is not None and (number is None or number < 1):
        raise UsageError(
            f"{name} must be a whole number of at least 1, not {shown_value(value)}",
            hint=f"{name}=1, or leave it out",
            field=name,
        )
    if number is not None and number > LARGEST_COUNT:
        raise UsageError(f"{name} must be a whole number up to {LARGEST_COUNT}, not {shown_value(value)}", field=name)
    return number


def count_of(name: str, value: int) -> int:
    """``value`` as an int; UsageError unless it is a whole number of at least 1."""
    number = positive(name, value)
    if number is None:
        raise UsageError(f"{name} must be a whole number of at least 1, not None", hint="leave it out", field=name)
    return number


def above_zero(name: str, value: float) -> float:
    """``value`` as a float; UsageError unless it is a number above 0. Infinity is one: no limit."""
    number = as_real(value)
    if number is None or not number > 0:
        raise UsageError(
            f"{name} must be above 0, not {shown_value(value)}", hint=f"{name}=1.5, for example", field=name
        )
    return number


def not_below_zero(name: str, value: float) -> float:
    """``value`` as a float; UsageError unless it is a number of at least 0. Infinity is one: no limit."""
    number = as_real(value)
    if number is None or number < 0:
        raise UsageError(
            f"{name} must be a number of at least 0, not {shown_value(value)}", hint=f"{name}=0", field=name
        )
    return number


def yes_or_no(name: str, value: object) -> bool:
    """``value`` as a bool; UsageError unless it is True or False, 1 or 0, or numpy's."""
    kind = type(value)
    if kind is bool or as_whole(value) in (0, 1) or (kind.__module__, kind.__name__[:4]) == ("numpy", "bool"):
        return bool(value)
    raise UsageError(f"{name} must be True or False, not {shown_value(value)}", field=name)


def refuse_uncallable(name: str, value: object, hint: str) -> None:
    """Raise UsageError unless ``value`` is a function, or None."""
    if value is not None and not callable(value):
        raise UsageError(f"{name} must be a function, not {shown_value(value)}", hint=hint)


def is_path(value: object) -> bool:
    """Whether ``value`` can be the path of a file: a NUL cannot be in one, nor can half a character."""
    try:
        text = os.fspath(value)  # type: ignore[call-overload]  # TypeError for what is none
        return isinstance(text, str) and b"\0" not in os.fsencode(text)
    except (TypeError, UnicodeEncodeError):
        return False


def refuse_no_path(name: str, value: object) -> None:
    """Raise UsageError unless ``value`` can be the path of a file. A number is none, though ``open`` takes it."""
    if not is_path(value):
        raise UsageError(f"{name} must be the path of a file, not {shown_value(value)}", hint=f"{name}='PATH'")


def text_or_none(name: str, value: Optional[str]) -> Optional[str]:
    """``value`` if it is a str or None, else UsageError."""
    if value is None or isinstance(value, str):
        return value
    raise UsageError(
        f"{name} must be a name, not {shown_value(value)}", hint=f"{name}=NAME, or leave it out", field=name
    )
