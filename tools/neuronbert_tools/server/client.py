"""An HTTP/1.1 client for load: keep-alive connections in one event loop, whole messages out, whole answers in.

It costs a fraction of what the server does, and it notices what a polite client would not: an answer that nobody asked
for, and a connection that ends before its answer.
"""

import asyncio
import gc
import time
from typing import Any, Coroutine, Dict, List, NamedTuple, Optional, Tuple, TypeVar

from neuronbert.errors import BackendFailed
from neuronbert.hardware.libraries import optional_imports

Result = TypeVar("Result")


class Answer(NamedTuple):
    """What came back. Headers have small letters; ``seconds`` is from the last byte sent to the last received."""

    status: int
    headers: Dict[str, str]
    body: bytes
    seconds: float


class Lost(Exception):
    """The connection ended before the answer."""


class Connection(asyncio.Protocol):
    """One connection, with at most one request on it."""

    def __init__(self) -> None:
        self.surplus_bytes = 0  # that answer no request
        self.is_open = False
        self._transport: Any = None
        self._received = bytearray()
        self._began = 0.0
        self._waiting: Optional[asyncio.Future[Answer]] = None

    async def ask(self, request: bytes) -> Answer:
        """Its answer; Lost where the connection ends first."""
        if not self.is_open:  # it ended between two requests
            raise Lost
        self._waiting = asyncio.get_running_loop().create_future()
        self._began = time.perf_counter()
        self._transport.write(request)
        return await self._waiting

    def abort(self) -> None:
        """Go away in the middle of whatever there is; nobody waits for the answer any more."""
        self._waiting = None
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    # ---- the transport's side

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:
            self.surplus_bytes += len(data)
            return
        self._received += data
        answer = self._whole_answer()
        if answer is not None:
            waiting, self._waiting = self._waiting, None
            if not waiting.done():
                waiting.set_result(answer)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self.is_open = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(Lost())

    def _whole_answer(self) -> Optional[Answer]:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        status, headers = parse_head(bytes(self._received[:end]))
        whole = end + 4 + int(headers.get("content-length", 0))
        if len(self._received) < whole:
            return None
        body = bytes(self._received[end + 4 : whole])
        self.surplus_bytes += len(self._received) - whole
        self._received.clear()
        return Answer(status, headers, body, time.perf_counter() - self._began)


def parse_head(head: bytes) -> Tuple[int, Dict[str, str]]:
    """Status and headers of an answer, in small letters."""
    first, *lines = head.decode("latin-1").split("\r\n")
    named = (line.partition(":") for line in lines)
    return int(first.split(" ", 2)[1]), {name.lower(): value.strip() for name, _, value in named}


class Connections:
    """Connections to one server, opened when all others are busy."""

    def __init__(self, port: int):
        self.opened: List[Connection] = []
        self._idle: List[Connection] = []
        self._port = port

    async def ask(self, request: bytes) -> Answer:
        """The answer of whichever connection is free; Lost as of Connection."""
        connection = await self.take()
        answer = await connection.ask(request)
        if answer.headers.get("connection") != "close":
            self._idle.append(connection)
        return answer

    async def take(self) -> Connection:
        """A connection that the caller has for itself."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self._port)
        self.opened.append(made)
        return made

    async def open(self, count: int) -> None:
        """Have so many idle ones, so that opening them is not timed."""
        self._idle += await asyncio.gather(*(self.take() for _ in range(count)))

    def close(self) -> None:
        for connection in self.opened:
            if connection.is_open:
                connection.close()


def run_loop(work: "Coroutine[Any, Any, Result]") -> Result:
    """The result of ``work`` in an event loop of its own, that of the server's library: it costs less than Python's.

    Python does not look for garbage meanwhile: among a minute's answers it would take longer than many an answer does,
    and be measured as the server's time.
    """
    with optional_imports():
        import uvloop
    loop = uvloop.new_event_loop()
    gc.disable()
    try:
        return loop.run_until_complete(work)
    finally:
        gc.enable()
        loop.run_until_complete(asyncio.sleep(0))  # connections that were closed say goodbye
        loop.close()


def expect_ok(answer: Answer) -> Answer:
    """``answer`` where its status is 200; else BackendFailed, with what it says."""
    if answer.status != 200:
        raise BackendFailed(f"the server answered {answer.status}: {answer.body[:300].decode('utf-8', 'replace')}")
    return answer
