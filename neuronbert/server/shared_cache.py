"""Answers that several servers share, in Redis: what ``caching`` asks where its own process has none.

Whoever may write to that Redis could put answers there. So each is signed (HMAC-SHA256 of key and value, RFC 2104), and
one that does not verify is none. A request waits PATIENCE_S for it at most. After an error, or MOST_LATE answers in a
row that came later than that, answers go on without it, and it is asked every PAUSE_S, by nobody who waits, whether it
is there again.
"""

import asyncio
import hashlib
import hmac
import math
import time
from typing import Any, Awaitable, Optional, Set, Tuple
from urllib.parse import urlsplit

from neuronbert.errors import UsageError
from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.cache import Answer, Found
from neuronbert.server.failures import Header
from neuronbert.server.logs import log

with optional_imports():
    import msgspec
    import redis.asyncio
    import redis.exceptions

PATIENCE_S = 0.005  # 50 times what a Redis on the same machine takes
MOST_LATE = 5  # in a row: one may be late because this process was busy
PAUSE_S = 1.0
SAY_AGAIN_S = 60.0  # the log hears no more often that it cannot be used
SOCKET_TIMEOUT_S = 1.0  # for what no request waits for, such as a connection
CONNECTIONS = 8  # made before they are needed: that takes milliseconds, and with TLS more
MOST_WRITES = 256  # under way at once; what comes then is not shared
PREFIX = b"neuronbert:"
MAC_BYTES = 32

_Stored = Tuple[float, bytes, Tuple[Header, ...], bytes]  # Unix time, content type, headers, body
_FAILURES = (redis.exceptions.RedisError, OSError, asyncio.TimeoutError)  # of the library; what is late is none


class SharedCache:
    """Answers in the Redis at ``url``, under ``secret``, for ``ttl_s`` each; UsageError for a URL that is none.

    most_bytes: of an answer. ``unreachable`` and ``unverified`` count what went wrong, and ``late`` the answers that a
    request did not wait for.
    """

    def __init__(self, url: str, secret: str, *, ttl_s: float, most_bytes: int):
        self._url = url
        self._secret = secret.encode()
        self._ttl_s = ttl_s
        self._most_bytes = most_bytes
        self._is_usable = False
        self._was_missed = False  # it was said that it cannot be used
        self._missed_said_at_s = -math.inf
        self._late_in_a_row = 0
        self._late_at_s = -math.inf
        self._tasks: Set[asyncio.Task[Any]] = set()
        self._decoder = msgspec.msgpack.Decoder(_Stored)
        self._connected: Any = None
        self.unreachable = self.unverified = self.late = 0
        try:
            redis.asyncio.connection.parse_url(url)
        except ValueError as error:
            raise UsageError(f"cache_url is no URL of a Redis: {error}", hint="redis://HOST:6379/0") from None

    def open(self) -> None:
        """Begin to use it. In the loop of all other calls."""
        self._task(self._connect(0))

    async def get(self, key: bytes) -> Optional[Found]:
        """The answer of this key, if there is one that verifies, is not too old and comes at once. Never raises."""
        if not self._is_usable:
            return None
        asked_at_s = time.monotonic()
        asking = self._task(self._read(_name(key)))
        await asyncio.wait({asking}, timeout=PATIENCE_S)
        if not asking.done():
            self._count_late(asked_at_s)
            return None
        self._late_in_a_row = 0
        sealed = asking.result()
        return self._opened(key, sealed) if sealed else None

    async def _read(self, name: bytes) -> Optional[bytes]:
        # One byte more than is ours to take: what a stranger put there may be as large as Redis allows.
        most = MAC_BYTES + self._most_bytes
        try:
            sealed: bytes = await self._redis().getrange(name, 0, most)
        except _FAILURES as error:
            self._failed(str(error))
            return None
        return sealed

    def _count_late(self, asked_at_s: float) -> None:
        """Those that were waited for together are one in the row: what held this process up held up all of them."""
        self.late += 1
        if asked_at_s < self._late_at_s:
            return
        self._late_at_s = time.monotonic()
        self._late_in_a_row += 1
        if self._late_in_a_row >= MOST_LATE:
            self._failed(f"{MOST_LATE} answers in a row took more than {PATIENCE_S * 1000:.0f} ms")

    def put(self, key: bytes, answer: Answer) -> None:
        """Share an answer that was just made; nobody waits for that."""
        sealed = self.sealed(key, answer, time.time())
        if not self._is_usable or len(self._tasks) >= MOST_WRITES or len(sealed) > MAC_BYTES + self._most_bytes:
            return
        milliseconds = max(1, int(min(self._ttl_s, _LONGEST_TTL_S) * 1000))
        self._task(self._write(_name(key), sealed, milliseconds))

    async def _write(self, name: bytes, sealed: bytes, milliseconds: int) -> None:
        try:
            await self._redis().set(name, sealed, px=milliseconds)
        except _FAILURES as error:
            self._failed(str(error))

    def sealed(self, key: bytes, answer: Answer, made_at_s: float) -> bytes:
        """An answer as it is stored; ``made_at_s`` is Unix time."""
        stored: _Stored = (made_at_s, answer.content_type, answer.headers, answer.body)
        value: bytes = msgspec.msgpack.encode(stored)
        return self._mac(key, value) + value

    def _opened(self, key: bytes, sealed: bytes) -> Optional[Found]:
        mac, value = sealed[:MAC_BYTES], sealed[MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(key, value)):
            self.unverified += 1
            if self.unverified == 1:
                log.warning(
                    "an answer in the shared cache is not signed with this server's secret: it is ignored, as others "
                    "like it will be (neuronbert_cache_errors_total counts them)"
                )
            return None
        made_at_s, content_type, headers, body = self._decoder.decode(value)
        age_s = max(0.0, time.time() - made_at_s)  # the clocks of two machines differ
        return Found(Answer(body, content_type, headers), age_s) if age_s < self._ttl_s else None

    def _mac(self, key: bytes, value: bytes) -> bytes:
        return hmac.new(self._secret, key + value, hashlib.sha256).digest()

    # ---- the connection

    def _redis(self) -> Any:
        """Made in the loop that uses it: on Python 3.8 its locks belong to the loop in which they are made."""
        if self._connected is None:
            pool = redis.asyncio.BlockingConnectionPool.from_url(
                self._url,
                max_connections=CONNECTIONS,
                timeout=SOCKET_TIMEOUT_S,
                socket_timeout=SOCKET_TIMEOUT_S,
                socket_connect_timeout=SOCKET_TIMEOUT_S,
                retry=None,
            )
            self._connected = redis.asyncio.Redis.from_pool(pool)
        return self._connected

    def _task(self, doing: Awaitable[Any]) -> "asyncio.Task[Any]":
        """A task that goes on when nobody waits for it any more."""
        task: asyncio.Task[Any] = asyncio.ensure_future(doing)  # type: ignore[assignment]  # it is given a coroutine
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _connect(self, after_s: float) -> None:
        """Make the connections, and make them again until that succeeds."""
        await asyncio.sleep(after_s)
        while not self._is_usable:
            try:
                await asyncio.gather(*(self._redis().ping() for _ in range(CONNECTIONS)))
            except _FAILURES as error:
                self._missed(str(error))
                await asyncio.sleep(PAUSE_S)
            else:
                self._is_usable = True
                self._late_in_a_row = 0
        if self._was_missed:
            self._was_missed = False
            log.info("the shared cache at %s can be used again", _place(self._url))

    def _failed(self, reason: str) -> None:
        """Do without it until ``_connect`` has found it again. Of several that failed together the first does that."""
        self._missed(reason)
        if self._is_usable:
            self._is_usable = False
            self._task(self._connect(PAUSE_S))

    def _missed(self, reason: str) -> None:
        self.unreachable += 1
        now_s = time.monotonic()
        if not self._was_missed and now_s - self._missed_said_at_s >= SAY_AGAIN_S:
            self._was_missed, self._missed_said_at_s = True, now_s
            said = reason or f"no answer within {SOCKET_TIMEOUT_S:.0f} s"
            log.warning("the shared cache at %s cannot be used, answers go on: %s", _place(self._url), said)

    async def close(self) -> None:
        """Give up what is under way, and the connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._connected is not None:
            await self._connected.aclose()


_LONGEST_TTL_S = 10 * 366 * 86_400.0  # Redis refuses times that overflow


def _name(key: bytes) -> bytes:
    return PREFIX + key.hex().encode()


def _place(url: str) -> str:
    """Where it is, without the password that the URL may have."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
