"""Asks a server over connections that stay open, as load.py's clients do: a request of bytes, an answer's status.

A reader of its own, not http.client: beside a server on the same cores, what a request costs here is missing there, and
the library's takes three times as long.
"""

import socket
import ssl
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Deque, Dict, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from neuronbert.benchmark.load import AnsweredWith
from neuronbert.benchmark.request_bodies import HttpRequest

MOST_LINE_BYTES = 65_536
MOST_HEADERS = 200
MOST_BODY_BYTES = 1 << 28
IDLE_S = 2.0  # after which a connection is opened anew: a server may close one that idles just when it is asked
KEPT_ANSWERS = 10_000  # whose Server-Timing is kept, the latest
BODY_STATUSES = range(200, 300)


class BrokenAnswer(ConnectionError):
    """Bytes that are no answer of HTTP/1.1, or the end of them too soon."""


class Answer(NamedTuple):
    """What a server said. Names of headers are in small letters."""

    status: int
    reason: str
    headers: Dict[str, str]
    body: bytes


class Server(NamedTuple):
    """Where requests go, what each has in its head, and how long an answer is waited for."""

    url: str
    headers: Mapping[str, str]
    timeout_s: float
    tls: Optional[ssl.SSLContext]  # None: http


class Connection:
    """One connection, made when it is first used, and again when it was closed or has idled. For one thread."""

    def __init__(self, server: Server):
        parts = urlsplit(server.url)
        self._timeout_s = server.timeout_s
        self._tls = server.tls
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        head = {"Host": parts.netloc, "Content-Type": "application/json", **server.headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self._socket: Optional[socket.socket] = None
        self._answers: Optional[BinaryIO] = None
        self._used_at = 0.0

    def ask(self, request: HttpRequest) -> Answer:
        """The answer to a POST, of any status.

        Raises TimeoutError, and any other OSError; behind one the connection is closed.
        """
        if time.monotonic() - self._used_at > IDLE_S:
            self.close()
        try:
            answer = self._asked(request)
        except socket.timeout:  # TimeoutError itself only since Python 3.10
            self.close()
            raise TimeoutError(f"no answer within {self._timeout_s:g} s") from None
        except (OSError, ValueError) as error:
            self.close()
            raise error if isinstance(error, OSError) else BrokenAnswer(str(error)) from None
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        self._used_at = time.monotonic()
        return answer

    def _asked(self, request: HttpRequest) -> Answer:
        if self._socket is None:
            self._open()
        assert self._socket is not None and self._answers is not None
        head = f"POST {self._prefix}{request.path} HTTP/1.1\r\n{self._head}Content-Length: {len(request.body)}\r\n\r\n"
        self._socket.sendall(head.encode("latin-1") + request.body)
        return read_answer(self._answers)

    def _open(self) -> None:
        opened = socket.create_connection((self._host, self._port), self._timeout_s)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            opened = self._tls.wrap_socket(opened, server_hostname=self._host)
        self._socket, self._answers = opened, opened.makefile("rb")

    def close(self) -> None:
        """Close it; the next request opens it again."""
        if self._answers is not None:
            self._answers.close()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._answers = None


def read_answer(stream: BinaryIO) -> Answer:
    """The next answer of ``stream`` (RFC 9112), past those with a status of 1xx. ValueError for what is none."""
    while True:
        version, status, reason = _status(_line(stream))
        headers = _headers(stream)
        if status >= 200:
            break
    if version == "HTTP/1.0":
        headers.setdefault("connection", "close")
    if status in (204, 304):
        return Answer(status, reason, headers, b"")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return Answer(status, reason, headers, _chunks(stream))
    if "content-length" in headers:
        return Answer(status, reason, headers, _exactly(stream, _size(headers["content-length"], 10)))
    headers["connection"] = "close"
    return Answer(status, reason, headers, stream.read(MOST_BODY_BYTES))


def _status(line: str) -> Tuple[str, int, str]:
    version, _, rest = line.partition(" ")
    code, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or len(code) != 3 or not code.isdigit():
        raise ValueError(f"{line[:60]!r} is no status of HTTP/1.1")
    return version, int(code), reason


def _headers(stream: BinaryIO) -> Dict[str, str]:
    found: Dict[str, str] = {}
    for _ in range(MOST_HEADERS):
        line = _line(stream)
        if not line:
            return found
        name, _, value = line.partition(":")
        found[name.lower()] = value.strip()
    raise ValueError(f"more than {MOST_HEADERS} headers")


def _line(stream: BinaryIO) -> str:
    line = stream.readline(MOST_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise ValueError("the connection ended, or a line did not")
    return line.decode("latin-1").rstrip("\r\n")


def _chunks(stream: BinaryIO) -> bytes:
    parts: List[bytes] = []
    while True:
        size = _size(_line(stream).partition(";")[0].strip(), 16)
        if not size:
            break
        parts.append(_exactly(stream, size))
        _line(stream)
    _headers(stream)
    return b"".join(parts)


def _size(digits: str, base: int) -> int:
    size = int(digits, base)
    if not 0 <= size <= MOST_BODY_BYTES:
        raise ValueError(f"a body of {size:,} bytes")
    return size


def _exactly(stream: BinaryIO, count: int) -> bytes:
    body = stream.read(count)
    if len(body) < count:
        raise ValueError("the connection ended within an answer")
    return body


class HttpClient:
    """A client of load.py that asks in the caller's thread, over a connection of that thread's own."""

    def __init__(self, server: Server):
        self._server = server
        self._own = threading.local()
        self._all: List[Connection] = []  # append() is atomic
        self.timings: Deque[str] = deque(maxlen=KEPT_ANSWERS)  # Server-Timing of the latest answers

    def submit(self, item: HttpRequest) -> "Future[object]":
        """A future that is done: whoever waits for answers waits here."""
        future: Future[object] = Future()
        try:
            self.ask(item)
            future.set_result(None)
        except Exception as error:
            future.set_exception(error)
        return future

    def ask(self, item: HttpRequest) -> None:
        """Raises AnsweredWith for an answer that is none, and as Connection.ask."""
        answer = self._connection().ask(item)
        if answer.status not in BODY_STATUSES:
            raise AnsweredWith(answer.status)
        timing = answer.headers.get("server-timing")
        if timing is not None:
            self.timings.append(timing)

    def _connection(self) -> Connection:
        connection: Optional[Connection] = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = Connection(self._server)
            self._all.append(connection)
        return connection

    def close(self) -> None:
        """Once nobody asks any more."""
        for connection in self._all:
            connection.close()


class NoFreeConnection(ConnectionError):
    """As many requests as this process may have connections are not answered yet."""


class SendingClient(HttpClient):
    """A client of load.py that never waits: every request has a thread, and its connection, that is free or new.

    With ``most`` requests unanswered the next one fails as NoFreeConnection.
    """

    def __init__(self, server: Server, most: int):
        super().__init__(server)
        self._free = threading.Semaphore(most)
        self._threads = ThreadPoolExecutor(most, "connection")

    def submit(self, item: HttpRequest) -> "Future[object]":
        """A future that ends with the answer."""
        if not self._free.acquire(blocking=False):
            raise NoFreeConnection
        return self._threads.submit(self._ask_and_free, item)

    def _ask_and_free(self, item: HttpRequest) -> None:
        try:
            self.ask(item)
        finally:
            self._free.release()

    def close(self) -> None:
        """Once nobody asks any more."""
        self._threads.shutdown()
        super().close()
