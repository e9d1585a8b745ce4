"""POST /v1/bulk: any number of lines in order, in bounded memory, behind others; and how it cuts lines."""

import asyncio
import json
import shutil
import socket
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.artifact.manifest import Artifact
from neuronbert.server.bulk import MOST_BEFORE_THE_FIRST, MOST_UNREAD, LineSplitter, Unread
from server.hostile import (
    PATIENCE_S,
    QUESTION,
    at_once,
    bulk_line,
    connected,
    counts,
    head,
    posted,
    resident_mib,
    rows_waiting,
    slow_copy,
    until_closed,
    wait_until,
)
from server.served import Served, serving

MAX_BODY_BYTES = 50_000
MOST_GROWTH_MIB = 32.0
MANY = 2000
LONG = 40_000  # characters
STALLED_S = 2.0  # without a byte that the server takes


@pytest.fixture(scope="module")
def bulk(
    echo_artifact: Artifact, slow_artifact: Path, faulty_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("bulk")
    shutil.copytree(echo_artifact.folder, folder / "quick")
    with serving(
        folder,
        *(f"quick={folder / 'quick'}", f"slow={slow_artifact}", f"faulty={faulty_artifact}", "--threads", "1"),
        *("--max-body-bytes", str(MAX_BODY_BYTES), "--allow-reload"),
    ) as server:
        yield server


def lines_of(server: Served, body: bytes, model: Optional[str] = "quick") -> List[Any]:
    answer = server.ask("/v1/bulk" if model is None else f"/v1/bulk?model={model}", body)
    assert answer.status == 200 and answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.splitlines()]


# ---------------------------------------------------------------------------- lines


def test_each_line_has_its_answer_in_order(bulk: Served) -> None:
    too_long = b'{"question": "a", "context": "' + b"x" * MAX_BODY_BYTES + b'"}\n'
    body = b"".join(
        [
            bulk_line(7),
            b"\n",
            b"   \r\n",
            bulk_line(8).replace(b"\n", b"\r\n"),
            b"{\n",
            b"[1]\n",
            b'{"id": "mine", "question": "", "context": "a"}\n',
            b'{"id": [], "question": "a", "context": "a"}\n',
            b'{"question": "a", "context": "b", "top_k": 0}\n',
            b"\xff\xfe\n",
            b"\0\n",
            too_long,
            b'{"question": "Who?", "context": "It was \\ud800"}\n',
            bulk_line(9).rstrip(b"\n"),
        ]
    )
    lines = lines_of(bulk, body)
    assert [line["line"] for line in lines] == [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert [line.get("id") for line in lines if "answer" in line] == [7, 8, 9]
    assert next(line["id"] for line in lines if line["line"] == 7) == "mine"
    assert all(("answer" in line) != ("error" in line) for line in lines)
    assert "--max-body-bytes" in next(line["error"] for line in lines if line["line"] == 12)
    assert "Runner" not in json.dumps(lines)


@pytest.mark.parametrize("body", [b"", b"\n", b"\r\n\n  \n"])
def test_no_lines_are_no_answers(bulk: Served, body: bytes) -> None:
    assert lines_of(bulk, body) == []


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("?model=nobody", {}, 404),
        ("?top_k=3", {}, 400),
        ("?model=%ff", {}, 404),
        ("?", {"Content-Encoding": "gzip"}, 415),
    ],
)
def test_what_cannot_be_done_is_said_before_any_line(bulk: Served, query: str, headers: Any, status: int) -> None:
    answer = bulk.ask(f"/v1/bulk{query}", bulk_line(1), headers)
    assert answer.status == status and answer.json["error"]


def test_a_line_is_answered_before_the_next_is_sent(bulk: Served) -> None:
    with connected(bulk.port) as connection, connection.makefile("rb") as answers:
        connection.sendall(head("POST", "/v1/bulk", "Transfer-Encoding: chunked"))
        while answers.readline() != b"\r\n":  # the head is there before the first line
            pass
        for number in range(5):
            line = bulk_line(number)
            for part in (line[:9], line[9:]):
                connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            size = int(answers.readline(), 16)
            assert json.loads(answers.read(size))["id"] == number
            answers.readline()
        connection.sendall(b"0\r\n\r\n")
        assert answers.readline() == b"0\r\n"


def test_a_poisonous_line_has_an_error_and_the_rest_is_answered(bulk: Served) -> None:
    words = ["calm", "dynamite", "calm", "refuse", "calm"]
    lines = lines_of(bulk, b"".join(bulk_line(number, word) for number, word in enumerate(words)), "faulty")
    assert [line["id"] for line in lines] == [0, 1, 2, 3, 4]
    assert ["error" in line for line in lines] == [False, True, False, True, False]
    assert "dynamite" not in bulk.text()


def test_a_client_that_does_not_read_holds_the_server_up(bulk: Served) -> None:
    # Lines that need no model, with answers as long as they are: what both sockets keep is a fifth of all of them.
    body = b"".join(b'{"id": "%d:%s"}\n' % (number, b"x" * LONG) for number in range(MANY))
    data = memoryview(posted("/v1/bulk", body, "Connection: close"))
    before = resident_mib(bulk)
    with connected(bulk.port, STALLED_S) as connection:
        sent = 0
        try:
            while sent < len(data):
                sent += connection.send(data[sent : sent + 65_536])
        except socket.timeout:
            pass
        assert sent < len(data) // 2
        assert resident_mib(bulk) - before < MOST_GROWTH_MIB
        connection.settimeout(PATIENCE_S)
        sending = threading.Thread(target=connection.sendall, args=(data[sent:],))
        sending.start()
        answer = until_closed(connection)
        sending.join(PATIENCE_S)
    assert [int(each) for each in _between(answer, b'"id": "', b":")] == list(range(MANY))
    assert answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("longest_bytes", "lines", "size_bytes"),
    [(0, MOST_BEFORE_THE_FIRST, 0), (3, MOST_UNREAD, 0), (40, 25, 0), (2000, 1, 0), (3, 25, 40), (3, 1, 1000)],
)
def test_lines_are_read_on_once_answers_were(longest_bytes: int, lines: int, size_bytes: int) -> None:
    """There are so many lines of that size, where the longest answer so far was so long."""
    told: List[bool] = []

    async def read() -> None:
        unread = Unread(1000, told.append)
        if longest_bytes:
            unread.add(0)
            unread.remove(0, longest_bytes)
            told.clear()
        for _ in range(lines):
            await asyncio.wait_for(unread.room(), PATIENCE_S)
            unread.add(size_bytes)
        waiting = asyncio.ensure_future(unread.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        unread.remove(size_bytes, longest_bytes)
        await asyncio.wait_for(waiting, PATIENCE_S)
        for _ in range(lines - 1):
            unread.remove(size_bytes, longest_bytes)

    asyncio.run(read())
    assert told == [True, False]


def _between(data: bytes, before: bytes, after: bytes) -> List[bytes]:
    return [part.split(after, 1)[0] for part in data.split(before)[1:]]


def head_and_more(connection: socket.socket) -> bytes:
    """What comes with the head of an answer that is 200."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536)
    assert data.startswith(b"HTTP/1.1 200 OK")
    return data


# ---------------------------------------------------------------------------- beside others


def test_it_gives_way(bulk: Served) -> None:
    """Whoever waits for one answer is served though hundreds of lines, of ten seconds in all, came before."""
    with connected(bulk.port) as connection:
        connection.sendall(posted("/v1/bulk?model=slow", b"".join(bulk_line(number) for number in range(400))))
        wait_until(lambda: counts(bulk, "slow")["submitted"] > 8, "it has begun")
        for _ in range(3):
            before = counts(bulk, "slow")["completed"]
            assert bulk.ask("/models/slow", {"inputs": QUESTION}).status == 200
            assert counts(bulk, "slow")["completed"] - before <= 8 * 5  # a few batches
    wait_until(lambda: rows_waiting(bulk, "slow") == 0, "its rows are free")


def test_a_client_that_goes_away_frees_its_rows(bulk: Served) -> None:
    before = counts(bulk, "slow")["submitted"]
    with connected(bulk.port) as connection:
        connection.sendall(posted("/v1/bulk?model=slow", b"".join(bulk_line(number) for number in range(400))))
        wait_until(lambda: counts(bulk, "slow")["submitted"] > before + 8, "it has begun")
    wait_until(lambda: bool(bulk.text().splitlines()[-1].count("POST /v1/bulk")), "its end is known")
    asked = counts(bulk, "slow")["submitted"] - before
    assert asked < 100  # a few batches of 8
    wait_until(lambda: rows_waiting(bulk, "slow") == 0, "its rows are free")
    assert counts(bulk, "slow")["submitted"] - before == asked


def test_a_reload_in_the_middle_loses_no_line(bulk: Served) -> None:
    load = "/v2/repository/models/slow/load"
    body = b"".join(bulk_line(number) for number in range(60))
    with connected(bulk.port) as connection:
        connection.sendall(posted("/v1/bulk?model=slow", body, "Connection: close"))
        begun = head_and_more(connection)
        assert bulk.ask(load, {}).status == 200
        data = begun + until_closed(connection)
    assert data.endswith(b"0\r\n\r\n") and b"error" not in data
    assert [int(each) for each in _between(data, b'"id": ', b",")] == list(range(60))


def test_lines_that_the_old_model_had_no_time_for_are_asked_again(slow_artifact: Path, tmp_path: Path) -> None:
    arguments = (f"slow={slow_artifact}", "--threads", "1", "--allow-reload", "--drain-timeout-s", "0")
    with serving(tmp_path, *arguments, "--in-flight-per-group", "1") as server, connected(server.port) as connection:
        connection.sendall(posted("/v1/bulk", b"".join(map(bulk_line, range(30))), "Connection: close"))
        begun = head_and_more(connection)
        wait_until(lambda: counts(server, "slow")["submitted"] >= 16, "the runner has several batches")
        assert server.ask("/v2/repository/models/slow/load", {}).status == 200
        data = begun + until_closed(connection)
    assert data.endswith(b"0\r\n\r\n") and b"error" not in data
    assert [int(each) for each in _between(data, b'"id": ', b",")] == list(range(30))


def test_lines_of_a_model_that_is_taken_out_have_errors_each(bulk: Served) -> None:
    with connected(bulk.port) as connection:
        body = b"".join(bulk_line(number) for number in range(60))
        connection.sendall(posted("/v1/bulk?model=slow", body, "Connection: close"))
        begun = head_and_more(connection)
        assert bulk.ask("/v2/repository/models/slow/unload", {}).status == 200
        data = begun + until_closed(connection)
    assert data.endswith(b"0\r\n\r\n") and b"takes no requests" in data
    assert [int(each) for each in _between(data, b'"line": ', b",")] == list(range(1, 61))
    assert "takes no more requests" not in bulk.text()  # no traceback
    assert bulk.ask("/v2/repository/models/slow/load", {}).status == 200


def test_a_client_that_waits_for_each_answer_has_all_its_time_for_each_line(
    echo_artifact: Artifact, tmp_path: Path
) -> None:
    """Neither the model's time is the client's, nor the time that earlier lines took."""
    slower = slow_copy(echo_artifact.folder, tmp_path / "slower", 0.8)
    with serving(tmp_path, str(slower), "--threads", "1", "--body-timeout-s", "1.5") as server:
        with connected(server.port) as connection, connection.makefile("rb") as answers:
            connection.sendall(head("POST", "/v1/bulk", "Transfer-Encoding: chunked"))
            while answers.readline() != b"\r\n":
                pass
            for number in range(4):
                line = bulk_line(number)
                connection.sendall(b"%x\r\n%s\r\n" % (len(line), line))
                assert json.loads(answers.read(int(answers.readline(), 16)))["id"] == number
                answers.readline()
            assert answers.read() == b""  # of one that sends no more the connection is ended


def test_under_overload_lines_get_their_turn_and_are_not_counted_as_refused(
    slow_artifact: Path, tmp_path: Path
) -> None:
    with serving(tmp_path, f"slow={slow_artifact}", "--threads", "1", "--max-queue", "8") as server:
        is_over = threading.Event()

        def hammer() -> int:
            refused = 0
            while not is_over.is_set():
                refused += server.ask("/", {"inputs": QUESTION}).status == 429
            return refused

        def ask_lines() -> List[Any]:
            try:
                wait_until(lambda: counts(server, "slow")["refused"] > 20, "the queue is full")
                return lines_of(server, b"".join(map(bulk_line, range(24))), "slow")
            finally:
                is_over.set()

        asks: List[Callable[[], Any]] = [hammer] * 32
        *refused, lines = at_once([*asks, ask_lines])
        assert [line["id"] for line in lines if "answer" in line] == list(range(24))
        assert counts(server, "slow")["refused"] == sum(refused)


def test_lines_wait_for_their_clients_share(slow_artifact: Path, tmp_path: Path) -> None:
    with serving(tmp_path, f"slow={slow_artifact}", "--threads", "1", "--max-rows-per-client", "4") as server:
        with connected(server.port) as connection:
            connection.sendall(posted("/v1/bulk", b"".join(map(bulk_line, range(40))), "Connection: close"))
            wait_until(lambda: server.ask("/", {"inputs": [QUESTION] * 4}).status == 429, "lines have their share")
            data = until_closed(connection)
        assert b'"error"' not in data
        assert [int(each) for each in _between(data, b'"id": ', b",")] == list(range(40))
        assert server.ask("/", {"inputs": [QUESTION] * 4}).status == 200  # all of it is given back


def test_each_line_has_the_time_that_the_request_says(bulk: Served) -> None:
    body = b"".join(map(bulk_line, range(3)))
    late = bulk.ask("/v1/bulk?model=slow", body, {"X-Request-Timeout-Ms": "20"})
    assert [list(json.loads(line)) for line in late.body.splitlines()] == [["line", "id", "error"]] * 3
    assert b"0.02 s" in late.body
    wait_until(lambda: rows_waiting(bulk, "slow") == 0, "their rows are free")
    in_time = bulk.ask("/v1/bulk?model=slow", body, {"X-Request-Timeout-Ms": "60000"})
    assert ["answer" in json.loads(line) for line in in_time.body.splitlines()] == [True] * 3


def test_a_line_of_far_too_much_text_has_an_error_before_it_is_tokenised(
    echo_artifact: Artifact, tmp_path: Path
) -> None:
    with serving(tmp_path, str(echo_artifact.folder), "--threads", "1", "--max-rows-per-request", "4") as server:
        long = json.dumps({"id": 1, "question": "Who?", "context": "It was Jim. " * 100_000}).encode() + b"\n"
        first, second, third = lines_of(server, bulk_line(0) + long + bulk_line(2), None)
        assert "characters" in second["error"] and "answer" in first and "answer" in third


# ---------------------------------------------------------------------------- cutting

PARTS = st.lists(st.text("ab\n\r", max_size=12).map(str.encode), max_size=12)


@given(PARTS, st.integers(1, 10))
def test_lines_are_cut_where_a_newline_is_however_they_come(parts: List[bytes], most_bytes: int) -> None:
    splitter = LineSplitter(most_bytes)
    cut = [line for part in parts for line in splitter.feed(part)] + splitter.end()
    *ended, last = b"".join(parts).split(b"\n")
    expected = [*ended, last] if last else ended
    assert [line.number for line in cut] == list(range(1, len(expected) + 1))
    assert [line.text for line in cut] == [text if len(text) <= most_bytes else None for text in expected]


@given(st.integers(1, 100), st.lists(st.integers(0, 1000), max_size=50))
def test_of_a_line_that_is_too_long_nothing_is_kept(most_bytes: int, sizes: List[int]) -> None:
    splitter = LineSplitter(most_bytes)
    for size in sizes:
        assert splitter.feed(b"x" * size) == []
        assert sum(map(len, splitter._kept)) <= most_bytes
