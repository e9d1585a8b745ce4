"""Who is let in when there is too much to do, who is told what, and that nobody else suffers for it."""

import asyncio
import functools
import gzip
import json
import os
import re
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator, Optional

import pytest

from neuronbert.errors import DeadlineExceeded, Overloaded
from neuronbert.server.bodies import Unfinished
from neuronbert.server.exchange import Exchange
from neuronbert.server.failures import ClientGone
from neuronbert.server.limits import characters
from neuronbert.server.waiting import INLINE_BYTES, Tokenising
from server.hostile import (
    PATIENCE_S,
    QUESTION,
    asking,
    at_once,
    connected,
    counts,
    peak_mib,
    posted,
    rows_waiting,
    wait_until,
)
from server.served import Served, serving

MOST_PER_REQUEST = 16
MOST_PER_CLIENT = 20


@pytest.fixture(scope="module")
def busy(slow_artifact: Path, faulty_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a short queue before a slow model, and one beside it that words break."""
    with serving(
        tmp_path_factory.mktemp("busy"),
        *(f"slow={slow_artifact}", f"faulty={faulty_artifact}", "--threads", "1", "--max-queue", "16"),
        *("--max-rows-per-request", str(MOST_PER_REQUEST), "--in-flight-per-group", "1", "--max-body-bytes", "4000000"),
    ) as server:
        yield server


def test_overload_is_429_with_the_wait_in_it(busy: Served) -> None:
    busy.ask("/", {"inputs": QUESTION})  # now there is a measure of its speed
    answers = at_once([lambda: busy.ask("/", {"inputs": QUESTION})] * 48)
    refused = [answer for answer in answers if answer.status != 200]
    assert {answer.status for answer in refused} == {429}
    assert 16 <= len(answers) - len(refused) <= 40
    for answer in refused:
        assert answer.json["error_type"] == "overloaded"
        # Two batches of 8 wait, a quarter of a second each; the machine may be some times as slow.
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert 1 <= int(answer.headers["retry-after-ms"]) <= 30_000
        assert int(answer.headers["retry-after"]) == -(-int(answer.headers["retry-after-ms"]) // 1000)
        assert "x-should-retry" not in answer.headers
        assert "Runner" not in answer.json["error"]


def test_batches_and_single_requests_obey_one_rule_in_rows(busy: Served) -> None:
    """A request is let in whole while fewer rows than the queue holds wait, however many it has."""
    sizes = [1, 8, 16] * 8
    answers = at_once([lambda rows=rows: busy.ask("/", {"inputs": [QUESTION] * rows}) for rows in sizes])
    assert {answer.status for answer in answers} == {200, 429}
    for rows, answer in zip(sizes, answers):
        if answer.status == 200:
            assert len(answer.json) == rows if rows > 1 else isinstance(answer.json, (dict, list))
    let_in = sum(rows for rows, answer in zip(sizes, answers) if answer.status == 200)
    assert let_in < sum(sizes)
    wait_until(lambda: rows_waiting(busy, "slow") == 0, "the queue is empty")


@pytest.mark.parametrize(
    "inputs",
    [[QUESTION] * (MOST_PER_REQUEST + 1), {"question": "Who?", "context": "It was Jim Henson. " * 5000}],
    ids=["many", "long"],
)
def test_more_rows_than_one_request_may_have_are_413(busy: Served, inputs: Any) -> None:
    answer = busy.ask("/", {"inputs": inputs})
    assert answer.status == 413, answer
    assert answer.json["error_type"] == "too_large" and answer.json["path"] == "$.inputs"
    assert str(MOST_PER_REQUEST) in answer.json["error"] and "--max-rows-per-request" in answer.json["error"]
    assert "Runner" not in answer.json["error"]


def test_text_of_far_too_many_rows_is_413_before_it_is_tokenised(busy: Served) -> None:
    context = "It was Jim Henson. " * 200_000
    packed = gzip.compress(json.dumps({"inputs": {"question": "Who?", "context": context}}).encode())
    assert len(packed) < 30_000
    before = peak_mib(busy)
    answer = busy.ask("/", packed, {"Content-Encoding": "gzip"})
    assert answer.status == 413 and answer.json["path"] == "$.inputs", answer
    assert "characters" in answer.json["error"] and "--max-rows-per-request" in answer.json["error"]
    assert peak_mib(busy) - before < 100  # tokenised it has hundreds


class Tokenised:
    """What an Exchange knows of a server, and a tokenizer that takes as long as nobody says ``go``."""

    def __init__(self, *messages: str):
        self.service: Any = SimpleNamespace(
            settings=SimpleNamespace(request_timeout_s=None),
            tokenising=Tokenising(INLINE_BYTES + 1),
            unfinished=Unfinished(0),
        )
        self.messages = list(messages)
        self.go = threading.Event()

    async def receive(self) -> Any:
        if not self.messages:
            await asyncio.get_running_loop().create_future()
        return {"type": self.messages.pop()}

    async def tokenise(self, timeout_s: Optional[float] = None) -> Any:
        exchange = Exchange(self.service, {"headers": []}, self.receive)
        exchange.timeout_s = timeout_s
        prepare: Any = functools.partial(self.go.wait, PATIENCE_S)
        return await exchange.prepared(prepare, INLINE_BYTES + 1)


@pytest.mark.parametrize(("given_s", "most_s"), [(0.004, 0.0038), (0.5, 0.475), (2.0, 1.9), (60.0, 59.9), (None, None)])
def test_a_runner_has_less_time_than_the_client_gives(given_s: Optional[float], most_s: Optional[float]) -> None:
    exchange = Exchange(Tokenised().service, {"headers": []}, Tokenised().receive)
    exchange.timeout_s = given_s
    found_s = exchange._runner_timeout_s()
    assert (found_s is None) == (most_s is None)
    if found_s is not None and most_s is not None:
        assert 0 < found_s <= most_s * 1.000001  # it is less by what was needed to come here
        assert found_s > most_s - 0.1


def test_a_deadline_ends_the_wait_for_the_tokenizer() -> None:
    slow = Tokenised()
    with pytest.raises(DeadlineExceeded):
        asyncio.run(slow.tokenise(0.05))
    slow.go.set()


def test_a_client_that_goes_away_ends_the_wait_for_the_tokenizer() -> None:
    slow = Tokenised("http.disconnect")
    with pytest.raises(ClientGone):
        asyncio.run(slow.tokenise())
    slow.go.set()


def test_text_that_is_still_tokenised_counts_though_nobody_waits_for_it() -> None:
    slow = Tokenised("http.disconnect")

    async def ask_on() -> None:
        with pytest.raises(ClientGone):
            await slow.tokenise()
        with pytest.raises(Overloaded) as refused:
            await slow.tokenise()
        assert 0 < refused.value.wait_s < 1
        slow.go.set()
        while not slow.service.tokenising.has_room:
            await asyncio.sleep(0.001)
        assert await slow.tokenise() is True

    asyncio.run(ask_on())


def test_characters_are_counted_however_a_task_has_its_texts() -> None:
    assert characters(["one", ("two", "three"), {"question": "four", "texts": ["five"]}, 7, None]) == 19


# header → status of the answer
TIMEOUTS = [
    ("60000", 200),
    ("1e300", 200),
    ("30", 504),
    ("0.001", 504),
    ("0", 400),
    ("-5", 400),
    ("nan", 400),
    ("inf", 400),
    ("soon", 400),
    ("", 400),
    ("9" * 400, 400),
]


@pytest.mark.parametrize(("given", "status"), TIMEOUTS)
def test_a_request_says_how_long_it_waits(busy: Served, given: str, status: int) -> None:
    answer = busy.ask("/", {"inputs": QUESTION}, {"X-Request-Timeout-Ms": given})
    assert answer.status == status, answer
    if status == 504:
        assert answer.headers["x-should-retry"] == "false" and answer.json["error_type"] == "deadline_exceeded"
    if status == 400:
        assert "X-Request-Timeout-Ms" in answer.json["error"] and len(answer.json["error"]) < 200


def test_what_missed_its_deadline_is_given_up(busy: Served) -> None:
    before = counts(busy, "slow")
    assert busy.ask("/", {"inputs": [QUESTION] * 16}, {"X-Request-Timeout-Ms": "50"}).status == 504
    wait_until(lambda: rows_waiting(busy, "slow") == 0, "its rows left the queue")
    after = counts(busy, "slow")
    assert after["completed"] - before["completed"] < 16
    assert "Traceback" not in busy.text()


def test_poison_is_500_and_innocents_are_answered(busy: Served) -> None:
    words = ["dynamite", *["calm"] * 12]
    poison, *innocents = at_once([lambda word=word: busy.ask("/models/faulty", asking(word)) for word in words])
    assert poison.status == 500 and poison.json["error_type"] == "poison"
    assert poison.headers["x-should-retry"] == "false" and "retry-after" not in poison.headers
    assert "dynamite" not in poison.body.decode()
    assert [answer.status for answer in innocents] == [200] * 12
    assert len({answer.body for answer in innocents}) == 1


def test_what_the_backend_refuses_is_500_and_the_log_says_why(busy: Served) -> None:
    answer = busy.ask("/models/faulty", asking("refuse"), {"X-Request-Id": "refused-1"})
    assert answer.status == 500 and answer.json["error_type"] == "internal_error"
    assert "refused-1" in answer.json["error"] and "echo" not in answer.json["error"]
    assert "request refused-1 failed" in busy.text()


def test_a_killed_worker_loses_no_request(busy: Served) -> None:
    (child,) = [
        worker["pid"] for worker in busy.ask("/v2/models/slow/stats").json["runner"]["workers"] if worker["pid"]
    ]

    def kill() -> Any:
        wait_until(lambda: rows_waiting(busy, "slow") > 0, "something waits")
        os.kill(child, signal.SIGKILL)

    asks = [lambda: busy.ask("/", {"inputs": QUESTION})] * 12
    *answers, _ = at_once([*asks, kill])
    assert [answer.status for answer in answers] == [200] * 12
    assert counts(busy, "slow")["deaths"] >= 1


@pytest.mark.parametrize("word", ["Jim", "x" * 3000], ids=["short", "tokenised in a thread"])
def test_a_client_that_goes_away_frees_its_rows(busy: Served, word: str) -> None:
    def gone() -> int:
        lines = re.findall(r'requests_total{.*route="/",status="499"} (\d+)', busy.ask("/metrics").body.decode())
        return sum(map(int, lines))

    before, gone_before = counts(busy, "slow"), gone()
    connections = [connected(busy.port) for _ in range(2)]
    for connection in connections:
        connection.sendall(posted("/", {"inputs": [{"question": "Who was it?", "context": f"It was {word}."}] * 8}))
    if len(word) < 100:
        wait_until(lambda: counts(busy, "slow")["submitted"] == before["submitted"] + 16, "both wait")
    for connection in connections:
        connection.close()
    wait_until(lambda: gone() == gone_before + 2, "each is known to have gone")
    wait_until(lambda: rows_waiting(busy, "slow") == 0, "their rows are free")

    def since(name: str) -> int:
        return int(counts(busy, "slow")[name] - before[name])

    wait_until(lambda: since("submitted") == since("completed") + since("cancelled"), "each has its outcome")
    assert len(word) > 100 or since("cancelled") >= 8


def test_one_client_has_a_share_of_the_queue(slow_artifact: Path, tmp_path: Path) -> None:
    with serving(
        tmp_path,
        *(f"slow={slow_artifact}", "--threads", "1", "--max-rows-per-client", str(MOST_PER_CLIENT)),
        *("--api-key", "first-key", "--api-key", "second-key"),
    ) as server:

        def ask(key: str, rows: int) -> Any:
            return server.ask("/", {"inputs": [QUESTION] * rows}, {"X-Api-Key": key})

        hogs = at_once([lambda: ask("first-key", 5)] * 8 + [lambda: ask("second-key", 5)] * 2)
        assert {answer.status for answer in hogs[:8]} == {200, 429}
        assert [answer.status for answer in hogs[8:]] == [200, 200]  # whatever the first one does
        assert all("retry-after" in answer.headers for answer in hogs if answer.status == 429)
        # More than it may ever have: no use in asking again.
        never = ask("first-key", MOST_PER_CLIENT + 1)
        assert never.status == 413 and "retry-after" not in never.headers
        assert ask("first-key", MOST_PER_CLIENT).status == 200  # all that it had is given back
        assert "first-key" not in server.text()


def test_after_all_of_that_the_server_is_as_it_was(busy: Served) -> None:
    assert busy.ask("/", {"inputs": QUESTION}, {"X-Request-Timeout-Ms": str(PATIENCE_S * 1000)}).status == 200
    wait_until(lambda: busy.ask("/v2/health/ready").status == 200, "ready")
    assert busy.text().count("Traceback") == 1  # of what the backend refused


@pytest.mark.parametrize(
    ("timeout", "status"),
    [(60_000_000, 200), (30_000, 504), (1, 504), (0, 400), (-1, 400), (True, 400), ("soon", 400), (1e400, 400)],
)
def test_the_timeout_of_tritons_clients_is_in_microseconds(busy: Served, timeout: Any, status: int) -> None:
    inputs = [{"name": name, "datatype": "BYTES", "shape": [1], "data": [text]} for name, text in QUESTION.items()]
    answer = busy.ask("/v2/models/slow/infer", {"inputs": inputs, "parameters": {"timeout": timeout}})
    assert answer.status == status, answer
    assert (answer.headers.get("x-should-retry") == "false") == (status == 504)


@pytest.mark.parametrize("name", ["inputs", "timeout_s", "breakdown", "as_documents", "self", "top-k"])
def test_a_parameter_of_the_runner_is_none_of_a_request(busy: Served, name: str) -> None:
    inputs = [{"name": name, "datatype": "BYTES", "shape": [1], "data": [text]} for name, text in QUESTION.items()]
    answer = busy.ask("/v2/models/slow/infer", {"inputs": inputs, "parameters": {name: 1}})
    assert answer.status == 400 and answer.json["path"] == "$.parameters" and name in answer.json["error"]
