"""tools/measure_server hostile: what it sends, how it judges what comes back, and a small run of it."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server.served import serving

from neuronbert.artifact.manifest import Artifact
from neuronbert.errors import BackendFailed, UsageError
from neuronbert_tools.measure_server import main
from neuronbert_tools.paths import ROOT
from neuronbert_tools.server import broken, fuzzing, hostile, slow
from neuronbert_tools.server.asking import message
from neuronbert_tools.server.client import Answer
from neuronbert_tools.server.loads import Arrival
from neuronbert_tools.server.verdict import Said, said_in

for library in ("starlette", "uvicorn", "uvloop", "msgspec", "prometheus_client"):
    pytest.importorskip(library)

REPORT = ROOT / "tests" / "data" / "schemathesis" / "report.ndjson"
EMPTY = fuzzing.Fuzzed(0, {}, {}, 0, 0, 0.0, [], [], [])


# ---------------------------------------------------------------------------- what may be said


@pytest.mark.parametrize(
    ("status", "headers", "body", "is_allowed"),
    [
        (200, {}, b"", True),
        (404, {}, b"", True),
        (500, {}, b'{"error":"the server failed"}', False),
        (500, {"x-should-retry": "false"}, b'{"error":"workers died of it"}', True),
        (503, {"retry-after": "2"}, b'{"error":"draining"}', True),
        (504, {}, b'{"message":"too late"}', True),
        (503, {}, b"", False),
        (501, {}, b'{"error":"what is that"}', False),
        (302, {}, b"", False),
    ],
)
def test_what_is_a_fault_of_the_servers(status: int, headers: Dict[str, str], body: bytes, is_allowed: bool) -> None:
    assert Said(status, headers, body).is_allowed is is_allowed


def test_answers_are_found_one_behind_the_other() -> None:
    refused = b"HTTP/1.1 400 Bad Request\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"
    found = said_in(b"HTTP/1.1 100 Continue\r\n\r\n" + refused + b"HTTP/1.1 500 No\r\n\r\n")
    assert [answer.status for answer in found] == [400, 500]
    assert found[0].headers["a"] == "b" and found[0].body == b"{}"
    assert said_in(b"") == said_in(b"HTTP/1.1 2") == []


# ---------------------------------------------------------------------------- schemathesis


def recorded() -> Any:
    with open(REPORT, encoding="utf-8") as lines:
        return fuzzing.read_report(lines)


def test_its_report_is_read() -> None:
    cases, troubles = recorded()
    said = {case.operation: case.said and case.said.status for case in cases}
    assert said == {"GET /hang": None, "GET /reset": None, "GET /five": 500, "GET /ok": 200, "GET /busy": 503}
    ok = next(case for case in cases if case.operation == "GET /ok")
    assert ok.request["method"] == "GET" and ok.request["uri"].endswith("/ok?q=0")
    assert json.loads(ok.said.body)["error"] == "x" and ok.said.headers["content-type"] == "application/json"
    assert 0 < ok.seconds < 1
    assert ["GET /hang: ReadTimeout" in troubles[0], "GET /reset: ConnectionError" in troubles[1]] == [True, True]


def test_rounds_add_up_and_say_what_went_wrong() -> None:
    cases, troubles = recorded()
    once = fuzzing.add_round(EMPTY, cases, troubles, {"seed": 1})
    twice = fuzzing.add_round(once, cases, [], {"seed": 2})
    assert (twice.cases, twice.not_allowed, twice.unanswered) == (2 * len(cases), 2, 2 * once.unanswered)
    assert twice.statuses == {500: 2, 200: 2, 503: 2} and twice.operations["GET /ok"] == 2
    assert [each["seed"] for each in twice.rounds] == [1, 2] and twice.rounds[1]["cases"] == len(cases)
    assert {each["operation"] for each in once.wrong} == {"GET /hang", "GET /reset", "GET /five"}
    assert once.wrong[0]["said"]["status"] == 500
    json.dumps(twice._asdict())


def test_a_round_without_a_case_is_the_last() -> None:
    with pytest.raises(BackendFailed, match="no case of /openapi.json: why"):
        fuzzing.add_round(EMPTY, [], ["why"], {})


@pytest.mark.parametrize("line", ["nothing", "[]", '{"ScenarioFinished": {}}', '{"a": 1, "b": 2}'])
def test_a_report_of_another_kind_is_refused(line: str) -> None:
    with pytest.raises(BackendFailed, match="report is not as"):
        fuzzing.read_report([line])


def environment(folder: Path, *, has_it: bool = True, code: int = 0) -> Path:
    """A Python that does of schemathesis' what the tool asks for: its report is the one that was recorded."""
    python = folder / "python"
    lines = [line for line in REPORT.read_text().splitlines() if "GET /ok" in line]
    python.write_text(
        f"#!{sys.executable}\nimport sys\nif '-c' in sys.argv:\n    print('4.32.5')\n    sys.exit({int(not has_it)})\n"
        f"path = [word for word in sys.argv if word.startswith('--report-ndjson-path=')][0].partition('=')[2]\n"
        f"if {code} < 2:\n    open(path, 'w').write({lines!r}[0])\nprint('what it says')\nsys.exit({code})\n"
    )
    python.chmod(0o755)
    return python


class Described:
    """As much of a server as fuzzing needs."""

    url = "http://127.0.0.1:1"

    def get(self, path: str) -> Any:
        return {"paths": {"/": {"get": {}, "post": {}}}}


def test_rounds_have_seeds_of_their_own_until_there_are_enough_cases(tmp_path: Path) -> None:
    found = fuzzing.fuzz(Described(), environment(tmp_path, code=1), tmp_path, 3, 7)  # type: ignore[arg-type]
    assert found.cases == 3 and [each["seed"] for each in found.rounds] == [7, 8, 9]
    assert not list(tmp_path.glob("*.ndjson"))


def test_where_it_cannot_begin_its_words_are_said(tmp_path: Path) -> None:
    with pytest.raises(BackendFailed, match="exit code 2:\nwhat it says"):
        fuzzing.fuzz(Described(), environment(tmp_path, code=2), tmp_path, 3, 7)  # type: ignore[arg-type]


def test_an_environment_without_it_is_refused_before_anything_starts(tmp_path: Path) -> None:
    assert fuzzing.require_schemathesis(environment(tmp_path)) == "4.32.5"
    with pytest.raises(UsageError, match="needs a Python"):
        main(["hostile"])
    with pytest.raises(UsageError, match="cannot be run: No such file"):
        main(["hostile", "--fuzz-python", str(tmp_path / "nothing")])
    python = environment(tmp_path, has_it=False)
    with pytest.raises(UsageError, match="was not found") as error:
        main(["hostile", "--fuzz-python", str(python)])
    assert error.value.hint is not None and f"{python} -m pip install schemathesis" in error.value.hint


@pytest.mark.parametrize("option", ["--cases", "--messages", "--slow", "--seconds"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_none_of_something_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["hostile", option, value])
    assert option in capsys.readouterr().err


# ---------------------------------------------------------------------------- broken messages


def test_the_same_seed_breaks_alike() -> None:
    messages = broken.broken_messages(3, 200)
    assert messages == broken.broken_messages(3, 200) != broken.broken_messages(4, 200)
    assert messages[:50] == broken.broken_messages(3, 50)
    assert len(set(messages)) > 150 and all(messages)


@given(seed=st.integers(0, 2**32), mangle=st.sampled_from(broken.MANGLES))
def test_whatever_is_broken_already_can_be_broken_again(seed: int, mangle: broken.Mangle) -> None:
    chance = random.Random(seed)
    noise = bytes(chance.randrange(256) for _ in range(chance.randint(1, 50)))
    for data in (noise, b"\0", broken.head("GET", "/"), broken.posted("/", b"{}")):
        assert isinstance(mangle(chance, data), bytes)


@contextmanager
def saying(said: bytes, closes: bool) -> Iterator[int]:
    """The port of a server that says this to whatever comes, and closes the connection or keeps it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept: List[socket.socket] = []

        def speak() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.sendall(said)
                if closes:
                    connection.close()
                else:
                    kept.append(connection)

        threading.Thread(target=speak, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    for connection in kept:
        connection.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "closes", "end", "statuses"),
    [
        (OK + OK, False, broken.ANSWERED, [200, 200]),
        (OK, True, broken.CLOSED, [200]),
        (b"", True, broken.CLOSED, []),
        (b"", False, broken.HANGS, []),
        (b"HTTP/1.1 2", False, broken.HANGS, []),
    ],
)
def test_a_message_is_answered_or_its_connection_closed_or_it_hangs(
    said: bytes, closes: bool, end: str, statuses: List[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broken, "QUIET_S", 0.2)
    with saying(said, closes) as port:
        for outcome in broken.send_broken(port, [b"GET", b"POST"], 0, 0.4):
            assert (outcome.end, [answer.status for answer in outcome.answers]) == (end, statuses)
            assert outcome.seconds < 0.4


def test_what_should_have_ended_otherwise_can_be_sent_again() -> None:
    fault, fine = Said(500, {}, b"{}"), Said(400, {}, b"{}")
    outcomes = [
        broken.Outcome([fine], broken.CLOSED, 0.1),
        broken.Outcome([fine, fault], broken.ANSWERED, 0.2),
        broken.Outcome([], broken.HANGS, 9.0),
        broken.Outcome([], broken.CLOSED, 0.1),
    ]
    found = hostile.broken_figures([b"a", b"b", b"c", b"d"], outcomes)
    assert (found["not_allowed"], found["hang"], found["slowest_s"]) == (1, 1, 9.0)
    assert found["statuses"] == {400: 2, 500: 1}
    assert found["ends"] == {"closed": 1, "answered": 1, "hangs": 1, "no answer": 1}
    assert [(each["message"], each["end"]) for each in found["wrong"]] == [("Yg==", "answered"), ("Yw==", "hangs")]
    json.dumps(found)


# ---------------------------------------------------------------------------- slow connections


def test_slow_clients_come_back_when_they_are_ended_and_go_when_they_are_told(
    echo_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "BYTE_S", 0.1)
    limits = ("--head-timeout-s", "0.5", "--body-timeout-s", "0.5", "--threads", "1")
    with serving(tmp_path, str(echo_artifact.folder), *limits) as server:
        files = Path(f"/proc/{server.process.pid}/fd")
        before = len(os.listdir(files))
        with slow.slow_clients(server.port, 20, message(server.port, b"x" * 500), 0) as clients:
            assert len(os.listdir(files)) >= before + 15
            time.sleep(2)
            assert server.ask("/v2/health/live").status == 200
        assert clients.ended["408"] >= 20 and set(clients.ended) == {"408"}
        assert clients.fewest >= 5 and clients.sent_bytes > 100
        end = time.monotonic() + 30
        while len(os.listdir(files)) > before:
            assert time.monotonic() < end, "connections of clients that have gone are still open"
            time.sleep(0.05)


def test_slow_clients_that_are_not_let_in_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow, "BYTE_S", 0.05)
    monkeypatch.setattr(slow, "OPEN_S", 0.5)
    with saying(b"HTTP/1.1 503 No\r\n\r\n", closes=True) as port:
        with slow.slow_clients(port, 4, message(port, b"{}"), 0) as clients:
            pass
    assert clients.ended.get("503", 0) >= 4 and clients.fewest == 0
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with slow.slow_clients(unused.getsockname()[1], 2, message(1, b"{}"), 0) as clients:
            pass
    assert clients.ended[slow.REFUSED] >= 2


def test_more_connections_than_there_may_be_files_are_refused() -> None:
    slow.allow_connections(1)
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (300, 400))\n"
        "from neuronbert_tools.server.slow import allow_connections\n"
        "allow_connections(100)\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 356\n"
        "try:\n    allow_connections(1000)\nexcept Exception as error:\n    print(error)\n"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tools")])
    said = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert "1000 slow connections need 1256 open files" in said.stdout and "--slow 144" in said.stdout


def test_latencies_are_of_what_was_answered() -> None:
    arrivals = [Arrival(0.001, Answer(200, {}, b"", 0.002))] * 9
    found = hostile.latencies([*arrivals, Arrival(0.0, Answer(429, {}, b"", 9.0)), Arrival(0.0, None)])
    assert (found["asked"], found["answered"], found["p50_ms"], found["p99_ms"]) == (11, 9, 2.0, 2.0)
    assert hostile.latencies([])["p99_ms"] == 0.0


# ---------------------------------------------------------------------------- what holds

OPTIONS = hostile.HostileOptions(None, Path("python"), 100, 10, 50, 1.0, None, 0)
HELD = {"memory_mib": 70, "peak_mib": 71, "descriptors": 18, "threads": 4, "children": 1}
CALM: Dict[str, Any] = {
    "fuzzed": {"cases": 100, "not_allowed": 0, "unanswered": 0, "seconds": 1.0, "slowest_s": 0.1, "statuses": {200: 9}},
    "broken": {"messages": 10, "not_allowed": 0, "hang": 0, "slowest_s": 1.0, "statuses": {400: 10}, "ends": {}},
    "slow": {"connections": 50, "fewest_open": 48, "ended": {"408": 3}},
    "asked": {name: {"asked": 9, "answered": 9, "p99_ms": 5.0, "p50_ms": 3.0} for name in ("alone", "beside")},
    "resources": {"before": HELD, "after": HELD},
    "tracebacks": 0,
    "exit_code": 0,
}


def complaints(report: Dict[str, Any], troubles: List[str]) -> List[str]:
    told = {**report, "fuzzed": {**report["fuzzed"], "troubles": troubles}}
    return hostile.complaints(told, hostile.goals_of(told, OPTIONS))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fuzzed": {"cases": 99}}, ["cases of /openapi.json: 99"]),
        ({"fuzzed": {"not_allowed": 1}}, ["of them answered by a fault of the server's: 1"]),
        ({"fuzzed": {"unanswered": 2}}, ["of them not answered: 2"]),
        ({"broken": {"not_allowed": 1}}, ["broken messages answered by a fault of the server's: 1"]),
        ({"broken": {"hang": 1}}, ["broken messages neither answered nor ended: 1"]),
        ({"slow": {"fewest_open": 20}}, ["slow connections open: 20"]),
        (
            {"asked": {"beside": {**CALM["asked"]["beside"], "answered": 8}}},
            ["requests of the client that behaves without a 200: 1"],
        ),
        ({"asked": {"beside": {**CALM["asked"]["beside"], "p99_ms": 50.0}}}, []),  # a goal that is missed, no more
        ({"resources": {"after": {**HELD, "peak_mib": 170}}}, ["MiB that the main process grew: 100"]),
        ({"resources": {"after": {**HELD, "descriptors": 19}}}, ["descriptors grew from 18 to 19"]),
        ({"resources": {"after": {**HELD, "children": 2}}}, ["children grew from 1 to 2"]),
        ({"resources": {"after": {**HELD, "threads": 20}}}, ["threads more than before: 16"]),
        ({"tracebacks": 1}, ["tracebacks in its log: 1"]),
        ({"exit_code": 1}, ["after SIGTERM the server's exit code was 1"]),
    ],
)
def test_what_does_not_hold_is_said(changes: Dict[str, Any], said: List[str]) -> None:
    assert complaints(CALM, []) == []
    assert complaints(CALM, ["why"]) == ["schemathesis: why"]
    changed = {
        name: {**CALM[name], **changes[name]} if isinstance(changes.get(name), dict) else changes.get(name, CALM[name])
        for name in CALM
    }
    assert complaints(changed, []) == said
    assert all(not goal.met for goal in hostile.goals_of(changed, OPTIONS) if goal.what == hostile.TIMES_CALM) is (
        said == []
    )


def test_the_figures_are_shown() -> None:
    shown = "\n".join(hostile.figure_lines(CALM))
    assert "9 x 200" in shown and "10 x 400" in shown and "at least 48" in shown and "descriptors 18" in shown


def test_the_bound_of_memory_is_that_of_the_servers_own_limits() -> None:
    assert hostile.most_growth_mib(500) == 64 + 16 + 500 / 16


@pytest.mark.slow
def test_an_attack_is_survived(echo_artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All but schemathesis, in whose place a report is that was recorded."""
    python = environment(tmp_path)
    counts = ["--cases=1", "--messages=8", "--slow=20", "--seconds=1", "--seed=1"]  # a seed that waits for no clock
    code = main(["hostile", f"--artifact={echo_artifact.folder}", f"--fuzz-python={python}", *counts])
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (code, found["complaints"]) == (0, []), printed.err
    assert found["measured"] == "hostile" and found["schemathesis"] == "4.32.5"
    assert found["broken"]["messages"] == 8 and found["slow"]["fewest_open"] >= 18
    assert found["asked"]["beside"]["answered"] == found["asked"]["beside"]["asked"] == 50
    assert set(found["resources"]) == {"before", "fuzzed", "broken messages", "slow connections", "after"}
    assert "cases of /openapi.json" in printed.err
