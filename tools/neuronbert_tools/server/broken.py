"""Broken HTTP messages: good ones that were changed, and what a server makes of each on a connection of its own."""

import asyncio
import gzip
import json
import random
import time
from typing import Callable, List, NamedTuple, Sequence

from neuronbert_tools.server.client import run_loop
from neuronbert_tools.server.verdict import Said, said_in

AT_ONCE = 200  # some are ended by the clock, and nobody waits for them one by one
QUIET_S = 1.0  # after an answer: no more of them come
QUESTION = {"question": "Who was it?", "context": "It was Jim Henson, who lived in London."}
TENSORS = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in sorted(QUESTION.items())]
ANSWERED, CLOSED, HANGS = "answered", "closed", "hangs"

Mangle = Callable[[random.Random, bytes], bytes]


# ---------------------------------------------------------------------------- the messages


def head(method: str, path: str, *headers: str) -> bytes:
    """The head of a good request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode("latin-1")


def posted(path: str, body: bytes, *headers: str) -> bytes:
    """A good request with a body."""
    return head("POST", path, *headers, f"Content-Length: {len(body)}") + body


def broken_messages(seed: int, count: int) -> List[bytes]:
    """So many of them, each of which is a good one that was changed once or twice; the same for the same seed."""
    chance = random.Random(seed)
    question = json.dumps({"inputs": QUESTION}).encode()
    tensors = json.dumps({"inputs": TENSORS}).encode()
    whole = [
        posted("/", question),
        posted("/models/model", question, "Content-Type: application/json", "X-Request-Timeout-Ms: 500"),
        posted("/v1/bulk", b'{"question": "a", "context": "b"}\n{\n'),
        posted("/embed", b'{"inputs": "a"}', "Content-Encoding: gzip"),
        posted("/", gzip.compress(question, mtime=0), "Content-Encoding: gzip"),
        posted("/v2/models/model/infer", tensors),
        posted("/v2/models/model/infer", tensors + b"\x01\0\0\0a", f"Inference-Header-Content-Length: {len(tensors)}"),
        head("GET", "/"),
        head("GET", "/metrics"),
    ]
    return [_changed(chance, chance.choice(whole)) for _ in range(count)]


def _changed(chance: random.Random, data: bytes) -> bytes:
    for _ in range(chance.choice((1, 1, 2))):
        data = chance.choice(MANGLES)(chance, data) or b"\0"
    return data


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def _garble(chance: random.Random, data: bytes) -> bytes:
    mangled = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        mangled[chance.randrange(len(mangled))] = chance.randrange(256)
    return bytes(mangled)


def _insert(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + chance.choice([b"\0", b"\r", b"\n", b"\r\n\r\n", b"\xff", b" ", b":", b"\x1b[31m"]) + data[at:]


def _lengthen(chance: random.Random, data: bytes) -> bytes:
    length = chance.choice([b"0", b"7", b"-7", b"999999999", b"0x10", b"", b"1 2", b"18446744073709551616"])
    return data.replace(
        b"Content-Length: ", b"Content-Length: " + length + chance.choice([b"", b"\r\nContent-Length: "])
    )


def _smuggle(chance: random.Random, data: bytes) -> bytes:
    coding = chance.choice([b"chunked", b"Chunked", b"xchunked", b"chunked, chunked", b" chunked", b"\x0bchunked", b""])
    header = chance.choice([b"Transfer-Encoding: ", b"Transfer-Encoding : ", b"Transfer_Encoding: ", b"TE: "])
    return data.replace(b"Host: x\r\n", b"Host: x\r\n" + header + coding + b"\r\n")


def _chunk(chance: random.Random, data: bytes) -> bytes:
    size = chance.choice([b"0", b"5", b"-1", b"fffffff", b"ffffffffffffffffff", b"g", b"", b"5;" + b"x" * 5000])
    body = size + chance.choice([b"\r\n", b"\n", b"\r"]) + b"{}{}{" + chance.choice([b"\r\n0\r\n\r\n", b"0", b""])
    return head("POST", chance.choice(["/", "/v1/bulk", "/embed"]), "Transfer-Encoding: chunked") + body


def _grow(chance: random.Random, data: bytes) -> bytes:
    name = chance.choice([b"Cookie", b"Authorization", b"X-Request-Id", b"Content-Encoding", b"a" * 5000])
    return data.replace(b"Host: x\r\n", name + b": " + b"x" * chance.choice([100, 5000, 200_000]) + b"\r\n")


def _repeat(chance: random.Random, data: bytes) -> bytes:
    """A header twice or many times, with another value or the same."""
    first, _, rest = data.partition(b"\r\n")
    header = chance.choice([*rest.partition(b"\r\n\r\n")[0].split(b"\r\n"), b"X-Request-Timeout-Ms: -1", b"Expect: x"])
    others = [header, header + b"0", header.partition(b":")[0] + b": \xff\xfe"]
    return b"\r\n".join([first, *[chance.choice(others)] * chance.choice([1, 2, 5000]), rest])


def _pipeline(chance: random.Random, data: bytes) -> bytes:
    return data * chance.randint(2, 20) + _garble(chance, data)


def _path(chance: random.Random, data: bytes) -> bytes:
    path = chance.choice(
        [b"//", b"/%00", b"/%", b"/%ff%fe", b"/../..", b"*", b"", b"http://", b"http://[::1", b"/?\0", b"/#"]
        + [b"/models/%ff", b"/models/\xc3\xa4", b"/v1/bulk?model=%ff", b"/v2/models/model/versions/%00/infer"]
    )
    return data.replace(b" / ", b" " + path + b" ").replace(
        b" HTTP/1.1", chance.choice([b" HTTP/1.1", b"", b" HTTP/0.9", b" HTTP/1.0", b" HTTP/2.0"])
    )


def _method(chance: random.Random, data: bytes) -> bytes:
    of_http = [b"HEAD", b"PUT", b"OPTIONS", b"TRACE", b"CONNECT", b"PRI", b"QUERY", b"M-SEARCH"]
    return chance.choice([*of_http, b"post", b"", b"G\xc3\x8bT", b"X" * 70_000]) + data[data.find(b" ") :]


def _upgrade(chance: random.Random, data: bytes) -> bytes:
    to = chance.choice([b"h2c", b"websocket", b"TLS/1.0", b"\xff"])
    return data.replace(b"Host: x\r\n", b"Host: x\r\nConnection: Upgrade\r\nUpgrade: " + to + b"\r\n")


def _body(chance: random.Random, data: bytes) -> bytes:
    """What HTTP has nothing against: the length is right, and what is in it is not."""
    first, separator, body = data.partition(b"\r\n\r\n")
    if not body:
        return _garble(chance, data)
    changed = chance.choice([_cut, _garble, _insert, _noise])(chance, body)
    return first.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % len(changed)) + separator + changed


def _tensors(chance: random.Random, data: bytes) -> bytes:
    """A header that says where in a body the tensors begin, which they do not."""
    at = chance.choice([b"0", b"1", b"-1", b"999999999999", b"1e2", b"\xff", b"20, 20"])
    return data.replace(b"Host: x\r\n", b"Host: x\r\nInference-Header-Content-Length: " + at + b"\r\n")


def _noise(chance: random.Random, data: bytes) -> bytes:
    return bytes(chance.randrange(256) for _ in range(chance.randint(1, 2000)))


MANGLES: Sequence[Mangle] = (
    _cut, _garble, _insert, _lengthen, _smuggle, _chunk, _grow, _repeat, _pipeline, _path, _method, _upgrade, _body,
    _tensors, _noise,
)  # fmt: skip


# ---------------------------------------------------------------------------- what becomes of them


class Outcome(NamedTuple):
    """What became of a message: all that was said to it, how the connection ended, and when."""

    answers: Sequence[Said]
    end: str
    seconds: float


def send_broken(port: int, messages: Sequence[bytes], seed: int, bound_s: float) -> List[Outcome]:
    """Send each over a connection of its own, AT_ONCE of them side by side; every other one says that no more comes.

    HANGS is what is neither answered nor closed within ``bound_s``.
    """
    return run_loop(_send_all(port, messages, seed, bound_s))


async def _send_all(port: int, messages: Sequence[bytes], seed: int, bound_s: float) -> List[Outcome]:
    chance, room = random.Random(seed), asyncio.Semaphore(AT_ONCE)

    async def send(message: bytes, says_end: bool) -> Outcome:
        async with room:
            return await _send(port, message, says_end, bound_s)

    return await asyncio.gather(*(send(message, chance.random() < 0.5) for message in messages))


async def _send(port: int, message: bytes, says_end: bool, bound_s: float) -> Outcome:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = last = time.monotonic()
    received, answers = b"", said_in(b"")
    try:
        writer.write(message)
        if says_end:
            writer.write_eof()
        while True:
            left_s = QUIET_S if answers else began + bound_s - last
            part = await asyncio.wait_for(reader.read(65_536), left_s)
            last = time.monotonic()
            if not part:
                end = CLOSED
                break
            received += part
            answers = said_in(received)
    except asyncio.TimeoutError:  # before OSError: it is one in later Pythons
        end = ANSWERED if answers else HANGS
    except OSError:  # a reset ends it too
        end, last = CLOSED, time.monotonic()
    finally:
        writer.transport.abort()
    return Outcome(answers, end, last - began)
