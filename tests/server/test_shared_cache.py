"""Answers that servers share in Redis: a real one, with forged answers, one that dies, one that never answers."""

import asyncio
import logging
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, AsyncIterator, Dict, Iterator, List, Optional

import pytest

from neuronbert.errors import UsageError
from neuronbert.server.cache import KEY_BYTES, Answer, Found
from server.served import Answer as Got
from server.served import Served, serving

redis = pytest.importorskip("redis")
PROGRAM = shutil.which("redis-server")
if PROGRAM is None:
    pytest.skip("there is no redis-server (Debian's package redis-server)", allow_module_level=True)

from neuronbert.server.shared_cache import (  # noqa: E402
    MOST_LATE,
    PATIENCE_S,
    PAUSE_S,
    PREFIX,
    SOCKET_TIMEOUT_S,
    SharedCache,
)

SECRET = "a secret of the tests"
KEY = bytes(range(KEY_BYTES))
NAME = PREFIX + KEY.hex().encode()
ANSWER = Answer(b'{"a":1}', b"application/json", ((b"x-truncated", b"0"),))


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Redis:
    """A redis-server of our own."""

    def __init__(self, folder: Path, port: int):
        command = [str(PROGRAM), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client = redis.Redis(port=port, socket_timeout=10)
        end = time.monotonic() + 30
        while True:
            try:
                self.client.ping()
                return
            except redis.exceptions.ConnectionError:
                assert time.monotonic() < end and self.process.poll() is None
                time.sleep(0.02)

    def kill(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_at(folder: Path, port: int) -> Iterator[Redis]:
    server = Redis(folder, port)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture()
def store(tmp_path: Path) -> Iterator[Redis]:
    with redis_at(tmp_path, free_port()) as server:
        yield server


@asynccontextmanager
async def shared_cache(url: str, secret: str = SECRET, is_there: bool = True) -> AsyncIterator[SharedCache]:
    cache = SharedCache(url, secret, ttl_s=60, most_bytes=10_000)
    cache.open()
    if is_there:
        await usable(cache)
    yield cache
    await cache.close()


async def usable(cache: SharedCache) -> None:
    end = time.monotonic() + 30
    while not cache._is_usable:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def written(cache: SharedCache) -> None:
    """Until nothing is under way."""
    while cache._tasks:
        await asyncio.wait(cache._tasks)


async def got(cache: SharedCache, key: bytes = KEY) -> Optional[Found]:
    """What it has, even where this machine is so busy that a first answer came too late."""
    while True:
        await usable(cache)
        missed = cache.unreachable + cache.late
        found = await cache.get(key)
        if cache.unreachable + cache.late == missed:
            return found


def test_what_one_puts_there_another_finds(store: Redis) -> None:
    async def run() -> None:
        async with shared_cache(store.url) as one, shared_cache(store.url) as other:
            assert await got(other) is None
            one.put(KEY, ANSWER)
            await written(one)
            found = await got(other)
            assert found is not None and found.answer == ANSWER and 0 <= found.age_s < 30
            assert await got(other, KEY[::-1]) is None
            assert (one.unverified, other.unverified) == (0, 0)

    asyncio.run(run())
    (name,) = store.client.keys()
    assert name == NAME
    assert 0 < store.client.pttl(name) <= 60_000


def test_what_is_not_signed_is_ignored_and_said_once(store: Redis, caplog: pytest.LogCaptureFixture) -> None:
    sealed = sealed_with(SECRET)
    forged = [
        sealed[:-1] + bytes([sealed[-1] ^ 1]),  # the body
        bytes([sealed[0] ^ 1]) + sealed[1:],  # the signature
        sealed[:20],
        sealed + b"x",
        b"x",
        bytes(50_000),  # of which no more is read than an answer may have
        sealed_with("another secret!!"),
    ]

    async def run() -> None:
        async with shared_cache(store.url) as cache:
            for number, value in enumerate(forged, start=1):
                store.client.set(NAME, value)
                assert await got(cache) is None
                assert cache.unverified == number
            store.client.set(PREFIX + KEY[::-1].hex().encode(), sealed)  # a true answer, to another question
            assert await got(cache, KEY[::-1]) is None
            assert cache.unverified == len(forged) + 1
            store.client.set(NAME, sealed)
            found = await got(cache)
            assert found is not None and found.answer == ANSWER

    with caplog.at_level(logging.WARNING, "neuronbert.server"):
        asyncio.run(run())
    assert len([record for record in caplog.records if "is not signed" in record.message]) == 1


def sealed_with(secret: str, age_s: float = 0) -> bytes:
    cache = SharedCache("redis://127.0.0.1", secret, ttl_s=60, most_bytes=10_000)
    return cache.sealed(KEY, ANSWER, time.time() - age_s)


@pytest.mark.parametrize(("age_s", "is_there"), [(61, False), (30, True), (-30, True)])
def test_an_answer_that_is_put_back_later_is_too_old(store: Redis, age_s: float, is_there: bool) -> None:
    """Below 0: of a machine whose clock is ahead."""
    store.client.set(NAME, sealed_with(SECRET, age_s))

    async def run() -> None:
        async with shared_cache(store.url) as cache:
            found = await got(cache)
            assert (found is not None) == is_there
            assert found is None or 0 <= found.age_s - max(0, age_s) < 20

    asyncio.run(run())


def test_what_is_too_large_is_not_shared(store: Redis) -> None:
    async def run() -> None:
        async with shared_cache(store.url) as cache:
            cache.put(KEY, Answer(bytes(11_000), b""))
            await written(cache)
            assert store.client.keys() == []

    asyncio.run(run())


# Above what a busy machine adds, and below what a connection would be waited for.
AT_MOST_S = SOCKET_TIMEOUT_S * 0.8


def test_one_that_stops_answering_is_left_alone_until_it_is_back(
    store: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with shared_cache(store.url) as cache:
            cache.put(KEY, ANSWER)
            assert await got(cache) is not None
            store.process.send_signal(signal.SIGSTOP)
            try:
                missed = cache.unreachable
                for _ in range(MOST_LATE):
                    assert cache.unreachable == missed
                    assert await asyncio.wait_for(cache.get(KEY), AT_MOST_S / MOST_LATE) is None
                assert cache.unreachable == missed + 1
                under_way = len(cache._tasks)
                for _ in range(100):  # which do not even ask
                    assert await cache.get(KEY) is None
                    cache.put(KEY, ANSWER)
                assert len(cache._tasks) <= under_way
            finally:
                store.process.send_signal(signal.SIGCONT)
            found = await got(cache)
            assert found is not None and found.answer == ANSWER

    with caplog.at_level(logging.INFO, "neuronbert.server"):
        asyncio.run(run())
    assert len([record for record in caplog.records if "can be used again" in record.message]) >= 1


def test_what_holds_this_process_up_is_not_the_fault_of_redis(store: Redis, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with shared_cache(store.url) as cache:
            cache.put(KEY, ANSWER)
            await written(cache)
            for _ in range(2 * MOST_LATE):
                asking = [asyncio.ensure_future(cache.get(KEY)) for _ in range(2 * MOST_LATE)]
                await asyncio.sleep(0)
                time.sleep(4 * PATIENCE_S)
                await asyncio.gather(*asking)
                assert (await got(cache)) is not None
            assert cache.late > MOST_LATE
            assert cache.unreachable == 0

    with caplog.at_level(logging.INFO, "neuronbert.server"):
        asyncio.run(run())
    assert not caplog.records


def test_the_log_does_not_hear_of_each_time_that_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        for _ in range(3):
            cache._failed("gone")
            cache._was_missed = False  # as when it is found again

    cache = SharedCache("redis://127.0.0.1:1", SECRET, ttl_s=60, most_bytes=10_000)
    with caplog.at_level(logging.INFO, "neuronbert.server"):
        asyncio.run(run())
    assert cache.unreachable == 3
    assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", ["down", "silent"])
def test_nobody_waits_for_one_that_was_never_there(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def run(port: int) -> None:
        async with shared_cache(f"redis://:hidden@127.0.0.1:{port}", is_there=False) as cache:
            end = time.monotonic() + 30
            while not cache.unreachable:
                assert await asyncio.wait_for(cache.get(KEY), AT_MOST_S) is None
                await asyncio.sleep(0.01)
                assert time.monotonic() < end

    with socket.socket() as listening, caplog.at_level(logging.WARNING, "neuronbert.server"):
        listening.bind(("127.0.0.1", 0))
        if kind == "silent":
            listening.listen()
        port = listening.getsockname()[1]
        asyncio.run(run(port))
    (record,) = [record for record in caplog.records if "cannot be used" in record.message]
    assert f"127.0.0.1:{port}" in record.message and "hidden" not in record.message


@pytest.mark.parametrize("url", ["redis://127.0.0.1:port", "redis://127.0.0.1:1/0?socket_timeout=soon"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="no URL of a Redis"):
        SharedCache(url, SECRET, ttl_s=60, most_bytes=10_000)


# ---------------------------------------------------------------------------- real servers


def question(text: str) -> Dict[str, Any]:
    return {"inputs": {"question": text, "context": "It was Jim Henson, who lived in London."}}


def errors(served: Served, reason: str) -> float:
    """Of neuronbert_cache_errors_total."""
    start = f'neuronbert_cache_errors_total{{reason="{reason}"}} '
    (line,) = [line for line in served.ask("/metrics").body.decode().splitlines() if line.startswith(start)]
    return float(line[len(start) :])


def test_servers_share_and_go_on_without(echo_artifact: Any, tmp_path: Path) -> None:
    port = free_port()
    arguments = [f"answers={echo_artifact.folder}", "--threads", "1", "--cache-bytes", "1000000", "--grace-s", "0"]
    arguments += ["--cache-url", f"redis://127.0.0.1:{port}/0"]
    environment = {"NEURONBERT_CACHE_SECRET": SECRET}
    with ExitStack() as stack:
        store = stack.enter_context(redis_at(tmp_path, port))
        one, other = [stack.enter_context(serving(tmp_path, *arguments, environment=environment)) for _ in range(2)]
        first, again = shared_answers(one, other, "a")
        assert again.body == first.body and "age" in again.headers
        assert again.headers["x-artifact-digest"] == first.headers["x-artifact-digest"]
        assert other.ask("/", question("a")).headers["x-cache"] == "HIT"

        # An answer to "b" that somebody without the secret changed.
        for number in range(10):  # on a busy machine it may not be looked at
            before = set(store.client.keys())
            put(one, store, f"b {number}")
            (name,) = set(store.client.keys()) - before
            store.client.set(name, store.client.get(name).replace(b'"score"', b'"SCORE"'))
            tampered = other.ask("/", question(f"b {number}"))
            assert tampered.headers["x-cache"] == "MISS" and b"SCORE" not in tampered.body
            if errors(other, "unverified"):
                break
        assert errors(other, "unverified") == 1

        put(one, store, "c")
        store.kill()
        lost: List[Got] = [other.ask("/", question(text)) for text in "cdefgh"]
        assert {(answer.status, answer.headers["x-cache"]) for answer in lost} == {(200, "MISS")}
        assert other.ask("/", question("a")).headers["x-cache"] == "HIT"  # of its own memory
        assert errors(other, "unreachable") >= 1
        assert other.text().count("cannot be used, answers go on") >= 1

        stack.enter_context(redis_at(tmp_path, port))
        time.sleep(PAUSE_S)
        shared_answers(one, other, "i")
        assert one.end() == other.end() == 0
        assert "Traceback" not in one.text() + other.text()
        assert SECRET not in one.text() + other.text()


def shared_answers(one: Served, other: Served, text: str) -> List[Got]:
    """The answers of both to a new question, of which the second is shared: on a busy machine maybe not the first."""
    for number in range(10):
        asked = question(f"{text} {number}" if number else text)
        first = one.ask("/", asked)
        time.sleep(0.1)  # nobody waits for what is put there
        again = other.ask("/", asked)
        assert first.headers["x-cache"] == "MISS"
        if again.headers["x-cache"] == "HIT":
            return [first, again]
        time.sleep(PAUSE_S)
    raise AssertionError("nothing is shared")


def put(served: Served, store: Redis, text: str) -> None:
    """Ask until the answer is in the store."""
    before = len(store.client.keys())
    end = time.monotonic() + 30
    while len(store.client.keys()) == before:
        assert time.monotonic() < end
        served.ask("/", question(text), {"Cache-Control": "no-cache"})
        time.sleep(0.1)
