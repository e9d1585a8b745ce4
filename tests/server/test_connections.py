"""Raw sockets against a server: broken messages, slow clients, and what HTTP/1.1 lets a client do."""

import json
import resource
import socket
import time
from pathlib import Path
from typing import Iterator

import pytest

from neuronbert.artifact.manifest import Artifact
from neuronbert_tools.server import broken
from server.hostile import (
    PATIENCE_S,
    QUESTION,
    asking,
    connected,
    head,
    next_answer,
    posted,
    resident_mib,
    statuses,
    until_closed,
    wait_until,
)
from server.served import Served, serving, started

LIVE = head("GET", "/v2/health/live")
LAST = head("GET", "/v2/health/live", "Connection: close")
MAX_HEAD_BYTES = 4096
MAX_BODY_BYTES = 100_000
BROKEN_MESSAGES = 1000
MOST_GROWTH_MIB = 64.0  # of all of them together


@pytest.fixture(scope="module")
def strict(echo_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with little patience, so that the tests need little of it."""
    with serving(
        tmp_path_factory.mktemp("strict"),
        *(f"answers={echo_artifact.folder}", "--threads", "1", "--head-timeout-s", "1", "--body-timeout-s", "1"),
        *("--keep-alive-s", "1", "--max-head-bytes", str(MAX_HEAD_BYTES), "--max-body-bytes", str(MAX_BODY_BYTES)),
    ) as server:
        yield server


def said(server: Served, data: bytes) -> bytes:
    """All that the server says to ``data`` until it closes the connection, which it does within a minute."""
    with connected(server.port) as connection:
        try:
            connection.sendall(data)
        except ConnectionError:  # it has heard enough
            pass
        return until_closed(connection)


# ---------------------------------------------------------------------------- heads


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x00\x00\x00\x00", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nNo colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        # What a proxy in front might read otherwise: one of both is a lie.
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (head("GET", "/v2", "A: " + "x" * MAX_HEAD_BYTES), 431),  # in one packet, whole
        (head("GET", "/" + "x" * MAX_HEAD_BYTES), 431),
        (head("GET", "/v2", *["A: b"] * (MAX_HEAD_BYTES // 6)), 431),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 500_000, 431),  # without an end
        (posted("/", {"inputs": QUESTION}, "Transfer-Encoding: gzip"), 400),
    ],
)
def test_a_broken_head_is_refused_and_the_connection_ends(strict: Served, data: bytes, status: int) -> None:
    answer = said(strict, data)
    # Where more is sent than is read, a reset may take the answer away.
    assert statuses(answer) == [status] or (len(data) > 100_000 and not answer), answer
    if answer:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_what_stands_behind_a_chunked_body_is_bounded_and_no_header(strict: Served) -> None:
    chunked = head("POST", "/v2/repository/index", "Transfer-Encoding: chunked", "Connection: close")
    fine = said(strict, chunked + b"2\r\n{}\r\n0\r\nX-Request-Id: a-trailer\r\n\r\n")
    assert statuses(fine) == [200] and b"a-trailer" not in fine
    before = resident_mib(strict)
    said(strict, chunked + b"2\r\n{}\r\n0\r\n" + b"a: %s\r\n" % (b"x" * 1000) * 20_000)
    said(strict, chunked + b"2;" + b"x" * 20_000_000)
    assert resident_mib(strict) - before < MOST_GROWTH_MIB


def test_a_head_that_drips_is_ended(strict: Served) -> None:
    with connected(strict.port) as connection:
        for byte in LIVE:
            try:
                connection.sendall(bytes([byte]))
            except ConnectionError:
                break
            time.sleep(0.1)
        else:
            pytest.fail("a head of several seconds was let pass")
        assert statuses(until_closed(connection)) in ([408], [])


def test_a_body_that_drips_is_ended(strict: Served) -> None:
    with connected(strict.port) as connection:
        connection.sendall(head("POST", "/", "Content-Length: 100") + b"{")
        answer = until_closed(connection)
    assert statuses(answer) == [408]


def test_a_body_that_came_fast_earns_no_long_silence(strict: Served) -> None:
    """By its bytes alone it would have a minute."""
    with connected(strict.port) as connection:
        connection.sendall(head("POST", "/", f"Content-Length: {MAX_BODY_BYTES}") + b" " * 61_440)
        began = time.monotonic()
        answer = until_closed(connection)
    assert statuses(answer) == [408] and time.monotonic() - began < 30


@pytest.mark.parametrize("first", [b"", LIVE, LIVE + b"\r\n", LIVE + b"\r\n" * 5000])
def test_a_connection_that_idles_is_closed(strict: Served, first: bytes) -> None:
    assert statuses(said(strict, first)) == [200] * bool(first)


def test_a_connection_idles_behind_a_body_that_was_refused(strict: Served) -> None:
    with connected(strict.port) as connection:
        connection.sendall(head("POST", "/nothing", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n")
        assert next_answer(connection).status == 404
        connection.sendall(b"0\r\n\r\n")
        assert until_closed(connection) == b""


def test_slow_connections_do_not_stop_the_others(served: Served) -> None:
    slow = [connected(served.port) for _ in range(250)]
    try:
        for byte in LIVE[:10]:
            for connection in slow:
                connection.sendall(bytes([byte]))
            assert served.ask("/", {"inputs": QUESTION}).status == 200
        for connection in slow:
            connection.sendall(LIVE[10:])
        assert {next_answer(connection).status for connection in slow} == {200}
    finally:
        for connection in slow:
            connection.close()


def test_more_connections_than_files_leave_some_for_the_workers(faulty_artifact: Path, tmp_path: Path) -> None:
    arguments = (f"a={faulty_artifact}", "--threads", "1", "--head-timeout-s", "2")
    with started(tmp_path, *arguments) as (process, log):
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (100, 300))  # the second is as high as it may be
        server = Served(process, log)
        silent = [connected(server.port) for _ in range(400)]
        refused = [status for connection in silent[200:] for status in statuses(until_closed(connection))]
        assert refused.count(503) > 100
        for connection in silent:
            connection.close()
        wait_until(lambda: is_let_in(server), "there is room again")
        assert server.ask("/", asking("dynamite")).status == 500  # its worker dies, and another one is started
        assert server.ask("/", asking("calm")).status == 200


def is_let_in(server: Served) -> bool:
    try:
        return server.ask("/v2/health/live").status == 200
    except OSError:
        return False


# ---------------------------------------------------------------------------- bodies


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, MAX_BODY_BYTES * 2 - 100])
def test_a_body_that_is_too_large_is_413_and_the_client_gets_to_read_it(
    strict: Served, is_chunked: bool, size: int
) -> None:
    """Most clients send all of a body before they look for an answer."""
    with connected(strict.port) as connection:
        if is_chunked:
            connection.sendall(head("POST", "/", "Transfer-Encoding: chunked"))
            connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size))
        else:
            connection.sendall(posted("/", b"x" * size))
        answer = next_answer(connection)
        assert answer.status == 413 and str(f"{MAX_BODY_BYTES:,}") in answer.json["error"]
        connection.sendall(LIVE)
        assert next_answer(connection).status == 200


def test_a_body_without_an_end_is_not_read_for_ever(strict: Served) -> None:
    part = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with connected(strict.port) as connection:
        with pytest.raises(ConnectionError):
            connection.sendall(head("POST", "/nothing", "Transfer-Encoding: chunked"))
            for _ in range(2000):
                connection.sendall(part)


def test_expect_100_continue(strict: Served) -> None:
    body = json.dumps({"inputs": QUESTION}).encode()
    with connected(strict.port) as connection:
        connection.sendall(head("POST", "/", "Expect: 100-continue", f"Content-Length: {len(body)}"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert next_answer(connection).status == 200
    # What will not be read is not asked for; and nobody knows whether it comes.
    refused = said(strict, head("POST", "/", "Expect: 100-continue", f"Content-Length: {MAX_BODY_BYTES + 1}"))
    assert statuses(refused) == [413] and b"connection: close" in refused


# ---------------------------------------------------------------------------- what HTTP/1.1 offers


def test_pipelined_requests_are_answered_in_order(strict: Served) -> None:
    paths = ["/v2/health/live", "/nothing", "/v2", "/models/nobody", "/v2/health/ready"] * 10
    data = b"".join(posted(path, {}) if "models" in path else head("GET", path) for path in paths)
    expected = [{"/nothing": 404, "/models/nobody": 404}.get(path, 200) for path in paths]
    answer = said(strict, data + posted("/", {"inputs": QUESTION}) + LAST)
    assert statuses(answer) == [*expected, 200, 200]


def test_more_pipelined_requests_than_anybody_needs_end_the_connection(strict: Served) -> None:
    before = resident_mib(strict)
    answer = said(strict, posted("/", {"inputs": QUESTION}) + LIVE * 10_000)
    assert len(statuses(answer)) < 300
    assert resident_mib(strict) - before < MOST_GROWTH_MIB
    assert "Traceback" not in strict.text()


def test_head_has_the_headers_of_get_and_no_body(strict: Served) -> None:
    for path in ("/", "/v2/health/live", "/metrics", "/nothing"):
        answer = said(strict, head("HEAD", path, "Connection: close"))
        _, _, body = answer.partition(b"\r\n\r\n")
        assert statuses(answer) == [404 if path == "/nothing" else 200] and body == b""
        assert b"content-length: " in answer and b"content-length: 0" not in answer


@pytest.mark.parametrize("in_two", [False, True])
def test_a_client_that_asks_for_http_2_is_answered_in_http_1(strict: Served, in_two: bool) -> None:
    """As the JDK's does with each POST that is not encrypted; its body is not forgotten, nor its next request."""
    asked = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
    data = posted("/", {"inputs": QUESTION}, *asked)
    with connected(strict.port) as connection:
        for _ in range(2):
            at = data.index(b"\r\n\r\n") + 4 if in_two else len(data)
            connection.sendall(data[:at])
            if in_two:
                time.sleep(0.05)
                connection.sendall(data[at:])
            assert next_answer(connection).status == 200
    web_socket = head(
        "GET", "/v2/health/live", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"
    )
    with connected(strict.port) as connection:
        connection.sendall(web_socket)
        assert next_answer(connection).status == 200


@pytest.mark.parametrize(
    "data",
    [b"GET /v2/health/live HTTP/1.0\r\n\r\n", head("GET", "http://elsewhere/v2/health/live", "Connection: close")],
)
def test_old_versions_and_whole_urls_are_answered(strict: Served, data: bytes) -> None:
    assert statuses(said(strict, data)) == [200]


def test_a_client_that_reads_nothing_does_not_keep_its_connection(strict: Served) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", strict.port))
        connection.settimeout(0.5)
        try:
            for _ in range(2000):
                connection.sendall(head("GET", "/openapi.json") * 8)
        except (socket.timeout, ConnectionError):
            pass

        def is_closed() -> bool:
            try:
                connection.send(b"\r\n")
                return False
            except socket.timeout:
                return False
            except ConnectionError:
                return True

        wait_until(is_closed, "it is closed")


# ---------------------------------------------------------------------------- broken messages, many of them


def test_broken_messages_hurt_nobody(strict: Served) -> None:
    before, log_before = resident_mib(strict), len(strict.text())
    messages = broken.broken_messages(14, BROKEN_MESSAGES)
    outcomes = broken.send_broken(strict.port, messages, 14, PATIENCE_S)
    answers = [answer for outcome in outcomes for answer in outcome.answers]
    assert not [answer for answer in answers if not answer.is_allowed]
    assert {200, 400} <= {answer.status for answer in answers}
    assert broken.HANGS not in {outcome.end for outcome in outcomes}
    assert "Traceback" not in strict.text()[log_before:]
    assert strict.ask("/", {"inputs": QUESTION}).status == 200
    assert resident_mib(strict) - before < MOST_GROWTH_MIB
