"""Every error that a user can meet: one root class, and with each class its exit code and HTTP status."""

import os
import shlex
from typing import Any, Optional, Tuple, Type, Union


class NeuronBertError(Exception):
    """Root of all errors raised on purpose.

    ``message`` says what was wrong and with which value; ``hint`` says what to do next, and the command line prints it
    after ``try:``.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, message: str, *, hint: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  try: {self.hint}"

    def __reduce__(self) -> Tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint)


def _rebuild(kind: Type[NeuronBertError], message: str, hint: Optional[str]) -> NeuronBertError:
    return kind(message, hint=hint)


def quoted(path: Union[str, "os.PathLike[str]"]) -> str:
    """``path`` for a command in a ``hint``: one word of a shell, and never an option."""
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


class UsageError(NeuronBertError, ValueError):
    """Options that contradict each other or name something that does not exist."""

    exit_code = 2
    http_status = 400


def positive(name: str, value: Optional[int]) -> Optional[int]:
    """``value`` if it is None or a whole number of at least 1, else UsageError."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UsageError(
            f"{name} must be a whole number of at least 1, not {value!r}", hint=f"{name}=1, or leave it out"
        )
    return value


def counted(number: int, noun: str) -> str:
    """``1 core`` or ``2 cores``, for messages."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class CheckpointError(NeuronBertError, ValueError):
    """A checkpoint that cannot be found, read or served."""

    http_status = 400


class ArtifactError(NeuronBertError, ValueError):
    """An artifact that is missing, damaged, too new, or not made for this machine."""


class InputError(NeuronBertError, ValueError):
    """A question, context or data file that cannot be answered as it is."""

    http_status = 400


class OutputError(NeuronBertError, OSError):
    """A place to write to that is in use, read-only or full."""


class BackendUnavailable(NeuronBertError, RuntimeError):
    """A backend whose libraries or hardware are not on this machine."""

    http_status = 503


class MissingLibrary(BackendUnavailable, ImportError):
    """An optional library that is not installed; the hint is the command that installs it."""


class BackendFailed(NeuronBertError, RuntimeError):
    """A backend that was there and broke: export, load, self-test or inference."""


class GateRefused(NeuronBertError, RuntimeError):
    """A compiled variant that does not agree with the FP32 reference."""

    exit_code = 4


class NoConfiguration(NeuronBertError, RuntimeError):
    """No configuration satisfies the constraints asked for."""

    exit_code = 5


class Overloaded(NeuronBertError, RuntimeError):
    """A runner whose queue is full, or too long for the deadline; ``wait_s`` is the predicted wait, None if unknown."""

    http_status = 503

    def __init__(self, message: str, *, hint: Optional[str] = None, wait_s: Optional[float] = None) -> None:
        super().__init__(message, hint=hint)
        self.wait_s = wait_s


class DeadlineExceeded(NeuronBertError, TimeoutError):
    """A request that was dropped because its result would have come too late."""

    http_status = 504


class PoisonRequest(NeuronBertError, RuntimeError):
    """A request that two workers died of."""


class RunnerClosed(NeuronBertError, RuntimeError):
    """A runner that takes no more requests."""

    http_status = 503
