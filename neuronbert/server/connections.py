"""One connection: uvicorn's HTTP/1.1 protocol, with bounds on how long a client may take to say what it wants.

Behind a head that is too long, or that takes too long, nobody knows where the next request begins: the connection ends.
"""

import asyncio
from typing import Any, Optional, Type

from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.settings import ServerSettings

with optional_imports():
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LEAST_BYTES_PER_S = 1024  # of a body, once ``body_timeout_s`` has passed
_TOO_LARGE = (431, "Request Header Fields Too Large")
_TOO_SLOW = (408, "Request Timeout")


def connections_of(settings: ServerSettings) -> Type[asyncio.Protocol]:
    """The class of a server's connections."""

    class Connection(_BoundedConnection):
        limits = settings

    return Connection


class _BoundedConnection(HttpToolsProtocol):  # type: ignore[misc,unused-ignore]
    """Counts the bytes of a head, and times head and body."""

    limits: ServerSettings

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self._timer: Optional[asyncio.TimerHandle] = None
        self._head_bytes = 0
        self._body_bytes = 0
        self._began_s = 0.0
        self._is_in_head = True

    # ---- the transport's side

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect(self.limits.head_timeout_s)

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > self.limits.max_head_bytes:
            self._end(_TOO_LARGE)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    # ---- the parser's side

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._body_bytes = True, 0
        self._expect(self.limits.head_timeout_s)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._expect(self.limits.body_timeout_s)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._expect_nothing()
        self._head_bytes = 0
        super().on_message_complete()

    # ---- time

    def _expect(self, timeout_s: float) -> None:
        self._expect_nothing()
        self._began_s = self.loop.time()
        self._timer = self.loop.call_later(timeout_s, self._look)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """The time is over: it ends, unless a body comes as fast as it should, or it is us who do not read it."""
        if not self._is_in_head:
            due_s = self._began_s + self.limits.body_timeout_s + self._body_bytes / LEAST_BYTES_PER_S
            wait_s = 1.0 if self.flow.read_paused else due_s - self.loop.time()
            if wait_s > 0:
                self._timer = self.loop.call_later(wait_s, self._look)
                return
        self._end(_TOO_SLOW)

    def _end(self, answer: Any) -> None:
        """Say why, where no answer has begun, and end the connection."""
        self._expect_nothing()
        if self.transport.is_closing():
            return
        if self._is_in_head and (self.cycle is None or self.cycle.response_complete):
            status, reason = answer
            body = b'{"error":"%s"}' % reason.encode()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status, reason.encode(), len(body), body)
            )
        self.transport.close()
