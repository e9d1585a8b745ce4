"""What went wrong with a request, as an HTTP status, headers and a message; each protocol gives it its own body."""

import math
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

from neuronbert.errors import (
    DeadlineExceeded,
    InputError,
    NeuronBertError,
    Overloaded,
    PoisonRequest,
    UsageError,
)

Header = Tuple[bytes, bytes]

UNKNOWN_WAIT_S = 1.0  # before anything was measured
RESTART_WAIT_S = 2.0  # in which a worker is up again, or a server replaced


class HttpError(NeuronBertError):
    """A request that is refused with a status of its own."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        hint: Optional[str] = None,
        path: Optional[str] = None,
        headers: Tuple[Header, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.http_status = status
        self.path = path
        self.headers = headers

    def __reduce__(self) -> Tuple[Any, ...]:
        return HttpError, (self.http_status, self.message), self.__dict__


class Places(NamedTuple):
    """Where a protocol's body has what a task was asked, for errors to name.

    of_input: of an input's field, of which either may be unknown. names: of options that the protocol calls otherwise.
    """

    of_input: Callable[[Optional[int], Optional[str]], str]
    options: str = "$.parameters"
    names: Mapping[str, str] = {}

    def of_option(self, name: Optional[str]) -> str:
        """The place of an option, or where it is unknown of all of them."""
        return self.options if name is None else f"{self.options}.{self.names.get(name, name)}"


def listed(place: str) -> Callable[[Optional[int], Optional[str]], str]:
    """``of_input`` for a list of inputs at ``place``."""
    return lambda number, field: place + ("" if number is None else f"[{number}]") + (f".{field}" if field else "")


def inputs_at(place: str, inputs: Any) -> Callable[[Optional[int], Optional[str]], str]:
    """``of_input`` for ``inputs`` at ``place``, which may be one that is in no list; of a list of one the first."""
    if not isinstance(inputs, list):
        return lambda number, field: listed(place)(None, field)
    only = 0 if len(inputs) == 1 else None
    return lambda number, field: listed(place)(only if number is None else number, field)


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Failure(NamedTuple):
    """A failed request, whatever its protocol."""

    status: int
    kind: str  # "invalid_request", "overloaded", ...
    message: str
    path: Optional[str] = None  # of what is wrong in the body, such as $.inputs.question
    headers: Tuple[Header, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether nobody thought of it, so that the log must have all of it."""
        return self.kind == KINDS[500]


KINDS: Mapping[int, str] = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    411: "invalid_request",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "overloaded",
    500: "internal_error",
    503: "unavailable",
    504: "deadline_exceeded",
}
_NEVER_AGAIN: Header = (b"x-should-retry", b"false")


def failure_of(error: BaseException, request_id: str) -> Failure:
    """What a client is told of ``error``: of what is no fault of its own only where the server's log has more."""
    if isinstance(error, HttpError):
        return Failure(error.http_status, _kind(error.http_status), _said(error), error.path, error.headers)
    if isinstance(error, _OF_THE_REQUEST):
        status = error.http_status
        kind = "poison" if isinstance(error, PoisonRequest) else _kind(status)
        return Failure(status, kind, _said(error), _path_in(error.message), _headers_of(error))
    if isinstance(error, NeuronBertError) and error.http_status == 503:
        message = f"this model takes no requests at the moment (request {request_id})"
        return Failure(503, _kind(503), message, headers=retry_headers(RESTART_WAIT_S))
    return Failure(500, _kind(500), f"the server failed: its log says more of request {request_id}")


def forget_frames(error: Optional[BaseException]) -> None:
    """Drop the tracebacks of an error that is dealt with, and of those behind it.

    A frame in one refers to a future, that to the error, and that to its traceback: all of a request, body included,
    would be kept until Python looks for such garbage, which a server has it do seldom (``process.COLLECTED_AFTER``).
    """
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


# Whose messages are about the request alone: those of others may name what is on the server.
_OF_THE_REQUEST = (InputError, UsageError, Overloaded, DeadlineExceeded, PoisonRequest)


def is_of_the_request(error: BaseException) -> bool:
    """Whether everybody who asks the same would fail likewise: then nobody need try again."""
    if isinstance(error, HttpError):
        return 400 <= error.http_status < 500 and error.http_status not in _OF_THE_MOMENT
    return isinstance(error, (InputError, UsageError, PoisonRequest))


_OF_THE_MOMENT = (408, 409, 429)


def _headers_of(error: NeuronBertError) -> Tuple[Header, ...]:
    if isinstance(error, Overloaded):
        return retry_headers(error.wait_s)
    return (_NEVER_AGAIN,) if isinstance(error, (DeadlineExceeded, PoisonRequest)) else ()


def _kind(status: int) -> str:
    return KINDS.get(status, "invalid_request" if status < 500 else "internal_error")


def _said(error: NeuronBertError) -> str:
    return error.message if error.hint is None else f"{error.message} (try: {error.hint})"


def _path_in(message: str) -> Optional[str]:
    """The place in the body that a message begins with."""
    first = message.split(": ", 1)[0]
    return first if first.startswith("$") else None


def retry_headers(wait_s: Optional[float]) -> Tuple[Header, ...]:
    """When it is worth asking again, in whole seconds (RFC 9110, 10.2.3), and in milliseconds for those that read it.

    wait_s: as the runner predicts; None where nothing was measured yet.
    """
    wait_s = UNKNOWN_WAIT_S if wait_s is None else wait_s
    return (
        (b"retry-after", str(max(1, math.ceil(wait_s))).encode()),
        (b"retry-after-ms", str(max(1, math.ceil(wait_s * 1000))).encode()),
    )


def failure_body(failure: Failure) -> Dict[str, Any]:
    """A message, the kind, and the place: of protocols whose clients look at the message alone."""
    body: Dict[str, Any] = {"error": failure.message, "error_type": failure.kind}
    if failure.path is not None:
        body["path"] = failure.path
    return body
