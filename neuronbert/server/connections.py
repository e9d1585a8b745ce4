"""One connection: uvicorn's HTTP/1.1 protocol, with bounds on what a client may send and how long it may take for it.

Behind a head that is broken, too long or too slow nobody knows where the next request begins: the connection ends.
"""

import asyncio
import functools
import resource
from collections import deque
from typing import Any, Deque, List, NamedTuple, Optional, Tuple, Type

from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.settings import ServerSettings
from neuronbert.server.writes import GatheredWrites

with optional_imports():
    import httptools
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

COLON_AND_END_BYTES = len(": \r\n")  # of a header
LEAST_BYTES_PER_S = 1024  # of a body, in each ``body_timeout_s`` that it takes
MOST_PIPELINED = 256  # requests that wait for the answer of one before them; each costs memory and a place in the loop
RESERVED_FILES = 128  # of those that the process may have open, for workers, artifacts and logs
MOST_FILES = 65_536  # that it asks for
# In a scope's extensions:
GONE = "neuronbert.gone"  # tells whether the client has gone, at once and without waiting
OWING = "neuronbert.owing"  # is told whether the client waits for answers to what it has sent of a body


class _Refusal(NamedTuple):
    status: int
    reason: str


_BROKEN = _Refusal(400, "Bad Request")
_TOO_SLOW = _Refusal(408, "Request Timeout")
_TOO_MANY = _Refusal(429, "Too Many Requests")
_TOO_LARGE = _Refusal(431, "Request Header Fields Too Large")
_TOO_BUSY = _Refusal(503, "Service Unavailable")


class _Refused(Exception):
    """Ends the parsing of a message."""


class _Clock:
    """Of one message: since when its client has sent how much of the body."""

    def __init__(self) -> None:
        self.began_s = 0.0
        self.body_bytes = 0
        self.is_stopped = False

    def restart(self, now_s: float) -> None:
        self.began_s, self.body_bytes = now_s, 0


def connections_of(settings: ServerSettings) -> Type[asyncio.Protocol]:
    """The class of a server's connections, as many of which as this process may have files."""

    class Connection(_BoundedConnection):
        limits = settings
        most_connections = max(1, _most_files() - RESERVED_FILES)

    return Connection


def _most_files() -> int:
    """How many files this process may have open, once the limit is as high as it may be: 1,024 are soon used up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST_FILES if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


class _BoundedConnection(HttpToolsProtocol):  # type: ignore[misc,unused-ignore]
    """Counts the bytes of heads, and times heads and bodies."""

    limits: ServerSettings
    most_connections: int

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self._writes: GatheredWrites
        self._timer: Optional[asyncio.TimerHandle] = None
        self._head_bytes = 0  # of a message, and of what stands behind a chunked body
        self._quiet_bytes = 0  # since the parser said anything: one header without an end, empty lines, ...
        self._clock = _Clock()
        self._unwanted_bytes = 0  # of a body, since its request was answered
        self._unread_bytes = 0  # of answers, when it was last looked
        self._is_in_head = True
        self._is_in_message = False
        self._is_lost = False
        self._unanswered: Deque[Any] = deque()  # uvicorn's cycles of what was asked, in order
        self._refusal = _BROKEN

    # ---- the transport's side

    def connection_made(self, transport: Any) -> None:
        self._writes = GatheredWrites(transport, self.loop)
        super().connection_made(self._writes)  # type: ignore[arg-type,unused-ignore]
        self._expect(self.limits.head_timeout_s)
        if len(self.connections) > self.most_connections:
            self._end(_TOO_BUSY)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._quiet_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._end(self._refusal)
            return
        if self._quiet_bytes > max(self.limits.max_head_bytes, len(data)):
            self._end(_TOO_LARGE)
        elif not self._is_in_message and self._timer is None and not self._unanswered:
            # Empty lines, or the rest of a body that was refused: it idles as before.
            self._expect(self.limits.keep_alive_s)

    def _feed(self, data: bytes) -> None:
        """Parse; where a client would rather speak another protocol, go on in this one (RFC 9110, 7.8)."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self.parser.get_method() == b"CONNECT":  # what follows is no HTTP
                    raise httptools.HttpParserError("CONNECT") from None
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
                self.parser = self._new_parser()

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        if hasattr(parser, "set_dangerous_leniencies"):  # as uvicorn: a request behind the last one is read
            parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._is_lost = True
        self._writes.forget()  # uvicorn writes until it has heard of it
        self._expect_nothing()
        self._tell_gone()
        super().connection_lost(exc)

    # ---- the parser's side

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._clock = clock = _Clock()
        extensions: Any = {GONE: lambda: self._is_lost, OWING: functools.partial(self._owe, clock)}
        self.scope["extensions"] = extensions
        self._is_in_head = self._is_in_message = True
        self._head_bytes = self._quiet_bytes = self._unwanted_bytes = 0
        self._expect(self.limits.head_timeout_s)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)
        self._quiet_bytes = 0
        if self._head_bytes > self.limits.max_head_bytes:
            self._refuse(_TOO_LARGE)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + COLON_AND_END_BYTES
        self._quiet_bytes = 0
        if self._head_bytes > self.limits.max_head_bytes:
            self._refuse(_TOO_LARGE)
        if self._is_in_head:  # those behind a body are nobody's business: the request has begun
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if len(self.pipeline) >= MOST_PIPELINED:
            self._refuse(_TOO_MANY)
        self._is_in_head = False
        self._expect(self.limits.body_timeout_s)
        super().on_headers_complete()
        self._unanswered.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._quiet_bytes = 0
        self._clock.body_bytes += len(body)
        super().on_body(body)
        if self.cycle.response_complete:
            # It was refused, and most clients read no answer before all of the body is sent.
            self._unwanted_bytes += len(body)
            if self._unwanted_bytes > self.limits.max_body_bytes:
                self.transport.close()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._expect_nothing()
        self._is_in_message = False
        super().on_message_complete()

    def _refuse(self, refusal: _Refusal) -> None:
        self._refusal = refusal
        raise _Refused

    def _head_without_upgrade(self) -> bytes:
        """The head once more, for another parser, as if the client had not asked for another protocol."""
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in _without_upgrade(self.headers)]
        return b"\r\n".join([*lines, b"", b""])

    # ---- time

    def _expect(self, timeout_s: float) -> None:
        self._expect_nothing()
        self._clock.restart(self.loop.time())
        self._timer = self.loop.call_later(timeout_s, self._look)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _owe(self, clock: _Clock, is_owing: bool) -> None:
        """A client that waits for an answer before it sends more has all its time again once it has the last one."""
        clock.is_stopped = is_owing
        clock.restart(self.loop.time())

    def _look(self) -> None:
        """The time is over: it ends, unless a body comes as fast as it should, or it is us who hold it up."""
        if not self._is_in_message:  # nor did it say anything
            self.transport.close()
            return
        wait_s = 0.0 if self._is_in_head else self._wait_for_body_s()
        if wait_s > 0:
            self._timer = self.loop.call_later(wait_s, self._look)
        else:
            self._end(_TOO_SLOW)

    def _wait_for_body_s(self) -> float:
        """Until the body may be too slow; 0 where it is. What came fast earns nobody hours of silence."""
        clock, timeout_s, now_s = self._clock, self.limits.body_timeout_s, self.loop.time()
        if self.flow.read_paused or clock.is_stopped:  # it is us who hold it up
            clock.restart(now_s)
            return min(1.0, timeout_s)
        if now_s < clock.began_s + timeout_s:
            return clock.began_s + timeout_s - now_s
        if clock.body_bytes < LEAST_BYTES_PER_S * timeout_s:
            return 0.0
        clock.restart(now_s)
        return timeout_s

    def on_response_complete(self) -> None:
        self._unanswered.popleft()
        super().on_response_complete()
        if self.transport.is_closing():  # once all is sent, which a client that reads nothing would keep from happening
            self._unread_bytes = 0
            self.loop.call_later(self.limits.keep_alive_s, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """The connection idles: it ends, unless an answer is still being read."""
        unread = 0 if self._is_lost else self.transport.get_write_buffer_size()
        if unread and unread != self._unread_bytes:
            self._unread_bytes = unread
            self.timeout_keep_alive_task = self.loop.call_later(
                self.limits.keep_alive_s, self.timeout_keep_alive_handler
            )
        elif unread:
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    # ---- the end

    def _tell_gone(self) -> None:
        """Whoever works for an answer need not go on: uvicorn tells the last of several only."""
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def _may_answer(self) -> bool:
        """Whether what is written now is the answer of the message that is read."""
        if self._is_in_message and not self._is_in_head:
            return len(self._unanswered) == 1 and not self.cycle.response_started
        return not self._unanswered

    def _end(self, refusal: _Refusal) -> None:
        """Say why, where that cannot be taken for a part of another answer, and end the connection."""
        self._expect_nothing()
        if self.transport.is_closing():
            return
        if self._may_answer():
            body = b'{"error":"%s"}' % refusal.reason.encode()
            retry = b"retry-after: 1\r\n" if refusal in (_TOO_MANY, _TOO_BUSY) else b""
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                % (refusal.status, refusal.reason.encode(), len(body))
                + retry
                + b"connection: close\r\n\r\n"
                + body
            )
        self._tell_gone()
        self.transport.close()


def _without_upgrade(headers: List[Tuple[bytes, bytes]]) -> List[Tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name not in (b"upgrade", b"http2-settings", b"connection")]
    connection = [value.strip() for name, values in headers if name == b"connection" for value in values.split(b",")]
    rest = [value for value in connection if value.lower() not in (b"upgrade", b"http2-settings")]
    return [*kept, (b"connection", b", ".join(rest))] if rest else kept
