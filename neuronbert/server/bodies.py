"""The body of a request: read within bounds, unpacked, and decoded as JSON. For ``exchange``."""

import zlib
from collections import Counter
from typing import Any, AsyncIterator, Awaitable, Callable, List, Mapping, MutableMapping, Optional
from typing import Counter as CounterOf

from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.failures import ClientGone, HttpError, retry_headers

with optional_imports():
    import msgspec

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

MOST_UNFINISHED_BODIES = 16  # of the largest that are taken, in memory while their rest is still to come
_WINDOW_BITS: Mapping[bytes, int] = {b"gzip": 31, b"deflate": 15}  # zlib's numbers for both formats


class Unfinished:
    """Counts what is there of bodies whose rest is still to come: slow clients must not fill the memory.

    most_bytes: of all clients together, of which one may have a quarter.
    """

    def __init__(self, most_bytes: int):
        self._most_bytes = most_bytes
        self._bytes: CounterOf[str] = Counter()
        self._total = 0  # of many clients it would be a long sum, for each part that comes

    def add(self, client: str, size_bytes: int) -> None:
        """So many more; HttpError 429 where that is too much."""
        self._bytes[client] += size_bytes
        self._total += size_bytes
        if self._bytes[client] > self._most_bytes // 4 or self._total > self._most_bytes:
            raise HttpError(
                429,
                f"{self._bytes[client]:,} bytes of this client's bodies wait for their rest, and those of others",
                hint="ask again later, or send smaller bodies",
                headers=retry_headers(None),
            )

    def remove(self, client: str, size_bytes: int) -> None:
        """They were finished, or given up."""
        self._bytes[client] -= size_bytes
        self._total -= size_bytes
        if not self._bytes[client]:
            del self._bytes[client]


class IncomingBody:
    """Reads what ASGI's ``receive`` gives, once."""

    def __init__(self, receive: Receive, headers: Mapping[bytes, bytes], unfinished: Unfinished):
        self.is_read = False  # all of it
        self._receive = receive
        self._headers = headers
        self._unfinished = unfinished

    async def unpacked(self, most: int, client: str) -> bytes:
        """All of the client's, unpacked; HttpError 413 for more than ``most`` bytes, packed or not."""
        declared = self._headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            raise _too_large(most)
        parts: List[bytes] = []
        received = counted = 0
        try:
            while not self.is_read:
                parts.append(await self._part())
                received += len(parts[-1])
                if received > most:
                    raise _too_large(most)
                if not self.is_read:
                    counted = received
                    self._unfinished.add(client, len(parts[-1]))
        finally:
            self._unfinished.remove(client, counted)
        packed = parts[0] if len(parts) == 1 else b"".join(parts)
        return _unpacked(packed, self._headers.get(b"content-encoding"), most)

    async def parts(self) -> AsyncIterator[bytes]:
        """It as it comes, in parts of any size; ClientGone where it ends too soon."""
        while not self.is_read:
            yield await self._part()

    async def _part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self.is_read = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def until_gone(self) -> None:
        """Until the client has gone. Once all of the body is read, and in one task at a time."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def decoded(body: bytes, decoder: "msgspec.json.Decoder[Any]") -> Any:
    """``body`` as JSON of the decoder's type; HttpError 400 with the place of what is wrong in it."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, at, place = str(error).partition(" - at `")
        raise HttpError(
            400, f"{place.rstrip('`')}: {message}" if at else message, path=place.rstrip("`") or "$"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, f"the body is no JSON: {error}", path="$") from None


def _too_large(most: int) -> HttpError:
    return HttpError(
        413,
        f"the body has more than the {most:,} bytes that this server takes",
        hint="fewer inputs in each request, or POST /v1/bulk",
    )


def _unpacked(body: bytes, encoding: Optional[bytes], most: int) -> bytes:
    """A body that came with this Content-Encoding; a small one may unpack to gigabytes, of which ``most`` are made."""
    name = (encoding or b"identity").strip().lower()
    if name == b"identity":
        return body
    if name not in _WINDOW_BITS:
        raise HttpError(415, f"Content-Encoding {name.decode('latin-1')[:40]!r} is not taken", hint="gzip or deflate")
    unpacking = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        unpacked = unpacking.decompress(body, most + 1)
    except zlib.error as error:
        raise HttpError(400, f"the body is no {name.decode()}: {error}") from None
    if len(unpacked) > most:
        raise _too_large(most)
    if not unpacking.eof:
        raise HttpError(400, f"the body is no {name.decode()}: it ends too soon")
    return unpacked
