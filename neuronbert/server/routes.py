"""What a protocol says of its routes, for ``application`` to put together: paths, handlers, and how errors look."""

import functools
from typing import Any, AsyncIterator, Awaitable, Callable, NamedTuple, Optional, Tuple, Union

from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.exchange import Exchange
from neuronbert.server.failures import Failure, Header, HttpError

with optional_imports():
    import msgspec

JSON = b"application/json"


class Reply(NamedTuple):
    """An answer that is sent whole."""

    body: bytes
    content_type: bytes = JSON
    status: int = 200
    headers: Tuple[Header, ...] = ()


class Stream(NamedTuple):
    """An answer that is sent as it is made."""

    parts: AsyncIterator[bytes]
    content_type: bytes


Handler = Callable[[Exchange], Awaitable[Union[Reply, Stream]]]


class Route(NamedTuple):
    """One method of one path. ``body`` and ``answer`` are types that msgspec knows, for /openapi.json."""

    method: str
    path: str
    handler: Handler
    summary: str
    body: Any = None
    answer: Any = None
    is_open: bool = False  # to clients without a key
    content_type: str = "application/json"  # of its answer
    refusals: Tuple[int, ...] = ()  # statuses that few other routes have


class Protocol(NamedTuple):
    """Routes whose errors look alike."""

    name: str
    routes: Tuple[Route, ...]
    failure_body: Callable[[Failure], Any]


def json_reply(value: Any) -> Reply:
    """``value`` as JSON."""
    return Reply(msgspec.json.encode(value))


@functools.lru_cache(maxsize=256)
def decoder_of(kind: Any) -> "msgspec.json.Decoder[Any]":
    """The decoder of a type of bodies, made once."""
    return msgspec.json.Decoder(kind)


def text_of(exchange: Exchange, name: str) -> str:
    """A part of the path, such as the name of a model."""
    return str(exchange.scope["path_params"][name])


def optional_text_of(exchange: Exchange, name: str) -> Optional[str]:
    """A part of the path that not each of a handler's routes has."""
    value: Optional[str] = exchange.scope["path_params"].get(name)
    return value


def refuse_no_dimensions(dimensions: Optional[int]) -> None:
    """HttpError for embeddings of no numbers; None asks for all of them."""
    if dimensions is not None and dimensions < 1:
        raise HttpError(400, f"$.dimensions: {dimensions} are none", hint="1 or more", path="$.dimensions")
