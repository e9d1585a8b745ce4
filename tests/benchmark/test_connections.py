"""The client over HTTP against answers of every form, whole and broken."""

import io
import itertools
import socket
import threading
import time
from contextlib import contextmanager
from typing import Callable, Iterator, List

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_server import STAGES, made_server

from neuronbert.benchmark import connections
from neuronbert.benchmark.connections import (
    Answer,
    BrokenAnswer,
    Connection,
    HttpClient,
    NoFreeConnection,
    SendingClient,
    Server,
    read_answer,
)
from neuronbert.benchmark.load import Period, closed_loop, open_loop
from neuronbert.benchmark.request_bodies import HttpRequest

ASKED = HttpRequest("/models/answers", b"{}")
SHORT = Period(warm_up_s=0.05, window_s=0.1, longest_s=0.3)


def server_at(url: str, timeout_s: float = 10.0) -> Server:
    return Server(url, {}, timeout_s, None)


def read(raw: bytes) -> Answer:
    return read_answer(io.BytesIO(raw))


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5))
def test_a_body_in_chunks_or_with_its_length_or_to_the_end_is_the_same(parts: List[bytes]) -> None:
    body = b"".join(parts)
    chunks = b"".join(b"%x;name=value\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: 1\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    counted = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\ncontent-LENGTH: %d\r\n\r\n%s" % (len(body), body)
    ended = b"HTTP/1.0 200 OK\r\n\r\n" + body
    assert read(chunked + b"next").body == read(counted + b"next").body == read(ended).body == body
    assert read(ended).headers["connection"] == "close" and "connection" not in read(counted).headers


@given(st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"]))
def test_bytes_are_an_answer_or_a_value_error(raw: bytes, before: bytes) -> None:
    try:
        assert 200 <= read(before + raw).status <= 999
    except ValueError:
        pass


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n",
    ],
)
def test_a_broken_answer_is_one(raw: bytes) -> None:
    with pytest.raises(ValueError):
        read(raw)


@contextmanager
def socket_server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Each connection is handed to ``serve``, in a thread of its own, and closed behind it."""
    threads: List[threading.Thread] = []

    def served(accepted: socket.socket) -> None:
        with accepted:
            serve(accepted)

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    accepted, _ = listening.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=served, args=(accepted,), daemon=True))
                threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    for thread in (accepting, *threads):
        thread.join(10)


def test_a_connection_is_kept_and_opened_anew_where_it_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count(1)

    def serve(accepted: socket.socket) -> None:
        number = next(numbers)
        while accepted.recv(65_536):
            close = b"Connection: close\r\n" if number == 1 else b""
            accepted.sendall(b"HTTP/1.1 200 OK\r\n%sContent-Length: 1\r\n\r\n%d" % (close, number))

    with socket_server(serve) as url:
        connection = Connection(server_at(url))
        assert [connection.ask(ASKED).body for _ in range(3)] == [b"1", b"2", b"2"]
        monkeypatch.setattr(connections, "IDLE_S", 0.0)  # it may have been closed meanwhile
        assert connection.ask(ASKED).body == b"3"
        connection.close()


def test_what_does_not_answer_is_an_error_of_its_kind() -> None:
    with socket_server(lambda accepted: accepted.close()) as url, pytest.raises(ConnectionError):
        Connection(server_at(url)).ask(ASKED)
    with socket_server(lambda accepted: accepted.sendall(b"?\r\n")) as url, pytest.raises(BrokenAnswer):
        Connection(server_at(url)).ask(ASKED)
    with socket_server(lambda accepted: time.sleep(0.5)) as url, pytest.raises(TimeoutError, match=r"within 0\.1 s"):
        Connection(server_at(url, 0.1)).ask(ASKED)
    with pytest.raises(ConnectionRefusedError):
        Connection(server_at("http://127.0.0.1:9")).ask(ASKED)


def test_both_loops_count_answers_and_errors_by_status() -> None:
    with made_server() as made:
        waiting, sending = HttpClient(server_at(made.url)), SendingClient(server_at(made.url), 64)
        closed = closed_loop(waiting, [ASKED], concurrency=2, period=SHORT)
        opened = open_loop(sending, [ASKED], rate_per_s=100, period=SHORT)
        assert closed.latencies_ms and opened.latencies_ms and closed.errors == opened.errors == {}
        assert set(waiting.timings) == set(sending.timings) == {STAGES}
        made.answer = (429, {"error": "full"})
        assert set(closed_loop(waiting, [ASKED], concurrency=2, period=SHORT).errors) == {"429"}
        assert set(open_loop(sending, [ASKED], rate_per_s=100, period=SHORT).errors) == {"429"}
        waiting.close()
        sending.close()
    gone = HttpClient(server_at(made.url))
    assert set(closed_loop(gone, [ASKED], concurrency=1, period=SHORT).errors) == {"ConnectionRefusedError"}


def test_an_open_loop_never_waits_for_a_connection() -> None:
    release = threading.Event()

    def serve(accepted: socket.socket) -> None:
        accepted.recv(65_536)
        release.wait(10)
        accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socket_server(serve) as url:
        client = SendingClient(server_at(url), 2)
        pending = [client.submit(ASKED) for _ in range(2)]
        with pytest.raises(NoFreeConnection):
            client.submit(ASKED)
        release.set()
        assert [future.result(10) for future in pending] == [None, None]
        client.close()
