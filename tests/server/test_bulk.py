"""POST /v1/bulk: any number of lines in order, in bounded memory, behind others; and how it cuts lines."""

import json
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.artifact.manifest import Artifact
from neuronbert.server.bulk import LineSplitter
from server.hostile import (
    PATIENCE_S,
    QUESTION,
    bulk_line,
    connected,
    counts,
    head,
    posted,
    resident_mib,
    rows_waiting,
    until_closed,
    wait_until,
)
from server.served import Served, serving

MAX_BODY_BYTES = 50_000
MOST_GROWTH_MIB = 64.0
MANY = 20_000


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


def lines_of(server: Served, body: bytes, model: str = "quick") -> List[Any]:
    answer = server.ask(f"/v1/bulk?model={model}", body)
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


def test_many_lines_in_bounded_memory_though_nobody_reads_at_first(bulk: Served) -> None:
    lines_of(bulk, b"".join(map(bulk_line, range(100))))
    before = resident_mib(bulk)
    # Most of them need no model, which would take its time.
    body = b"".join(bulk_line(number) if number % 20 == 0 else b'{"id": %d}\n' % number for number in range(MANY))
    with connected(bulk.port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sending = threading.Thread(target=connection.sendall, args=(posted("/v1/bulk", body, "Connection: close"),))
        sending.start()
        time.sleep(0.5)  # a slow reader: it must hold the server up, not fill it
        data = until_closed(connection)
        sending.join(PATIENCE_S)
    ids = [int(each) for each in _between(data, b'"id": ', b",")]
    assert ids == list(range(MANY)) and data.endswith(b"0\r\n\r\n")
    assert resident_mib(bulk) - before < MOST_GROWTH_MIB


def _between(data: bytes, before: bytes, after: bytes) -> List[bytes]:
    return [part.split(after, 1)[0] for part in data.split(before)[1:]]


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
        assert b"200 OK" in connection.recv(65_536)
        assert bulk.ask(load, {}).status == 200
        data = until_closed(connection)
    assert data.endswith(b"0\r\n\r\n") and b"error" not in data
    assert [int(each) for each in _between(data, b'"id": ', b",")][-59:] == list(range(1, 60))


def test_lines_of_a_model_that_is_taken_out_have_errors_each(bulk: Served) -> None:
    with connected(bulk.port) as connection:
        body = b"".join(bulk_line(number) for number in range(60))
        connection.sendall(posted("/v1/bulk?model=slow", body, "Connection: close"))
        assert b"200 OK" in connection.recv(65_536)
        assert bulk.ask("/v2/repository/models/slow/unload", {}).status == 200
        data = until_closed(connection)
    assert data.endswith(b"0\r\n\r\n") and b"takes no requests" in data
    assert [int(each) for each in _between(data, b'"line": ', b",")][-1] == 60
    assert "takes no more requests" not in bulk.text()  # no traceback
    assert bulk.ask("/v2/repository/models/slow/load", {}).status == 200


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
