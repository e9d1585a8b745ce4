"""tools/measure_server: its requests, client, figures and goals by themselves, and a small run of each measurement."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.artifact.manifest import Artifact
from neuronbert.errors import BackendFailed, UsageError
from neuronbert_tools.measure_server import main
from neuronbert_tools.server import asking, chaos, goals, hey, loads, overhead, overload, throughput
from neuronbert_tools.server.client import Answer, Connections, Lost, expect_ok, parse_head, run_loop
from neuronbert_tools.server.peers import processes as peers

for library in ("starlette", "uvicorn", "uvloop", "msgspec", "prometheus_client"):
    pytest.importorskip(library)

PRINTED = """
Summary:
  Total:	2.2538 secs
  Requests/sec:	709.9150

Status code distribution:
  [200]	1599 responses
  [429]	1 responses
"""


# ---------------------------------------------------------------------------- requests


def test_the_one_question_has_its_size() -> None:
    pair = asking.pair_of_size(asking.questions(1)[0], asking.BODY_BYTES)
    assert len(asking.body_of(pair)) == asking.BODY_BYTES
    assert json.loads(asking.body_of(pair))["inputs"] == {"question": pair[0], "context": pair[1]}


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_size_that_cannot_be_had_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"{size} bytes"):
        asking.pair_of_size(("Who?", "It was me."), size)


def test_a_message_is_a_whole_request() -> None:
    head, _, body = asking.message(80, b"{}", path="/x", timeout_s=0.5).partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"POST /x HTTP/1.1"
    assert b"X-Request-Timeout-Ms: 500" in head and b"Content-Length: 2" in head and body == b"{}"
    assert b"Timeout" not in asking.message(80, b"{}")


@given(count=st.integers(1, 200), share=st.floats(0, 0.99), seed=st.integers(0, 5))
def test_so_many_requests_repeat_earlier_ones(count: int, share: float, seed: int) -> None:
    pairs = [(str(number), "") for number in range(count)]
    repeats = round(count * share)
    if repeats == count:  # the first has nothing to repeat
        return
    asked = asking.with_repeats(pairs, count, share, seed)
    assert len(asked) == count and len(set(asked)) == count - repeats
    assert list(dict.fromkeys(asked)) == pairs[: count - repeats]


def test_too_few_questions_to_repeat_are_refused() -> None:
    with pytest.raises(UsageError, match="6 different questions are more than 2"):
        asking.with_repeats([("a", ""), ("b", "")], 10, 0.4)
    with pytest.raises(UsageError, match="more than there are"):
        throughput.questions_of(10_000)


# ---------------------------------------------------------------------------- the client


@contextmanager
def speaking(*parts: bytes, closes: bool = False) -> Iterator[int]:
    """The port of a server that says ``parts`` to the first request of its one connection, whatever it is."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                for part in parts:
                    connection.sendall(part)
                if not closes:
                    while connection.recv(65_536):
                        pass

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


def asked(port: int) -> Tuple[Any, int]:
    """What the client makes of the first answer, and the bytes that answer nothing."""

    async def ask() -> Tuple[Any, int]:
        pool = Connections(port)
        try:
            answer: Any = await pool.ask(b"x")
        except Lost as lost:
            answer = lost
        await asyncio.sleep(0.05)
        pool.close()
        return answer, pool.opened[0].surplus_bytes

    return run_loop(ask())


def test_an_answer_in_pieces_is_one() -> None:
    with speaking(b"HTTP/1.1 429 Too Many\r\nRetry-After: 2\r\nContent-", b"Length: 4\r\n\r\nab", b"cd") as port:
        answer, surplus = asked(port)
    assert (answer.status, answer.headers["retry-after"], answer.body, surplus) == (429, "2", b"abcd", 0)
    assert answer.seconds > 0


def test_what_nobody_asked_for_is_noticed() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with speaking(whole + whole) as port:
        answer, surplus = asked(port)
    assert answer.status == 200 and surplus == len(whole)


def test_half_an_answer_is_lost() -> None:
    with speaking(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", closes=True) as port:
        assert isinstance(asked(port)[0], Lost)


def test_what_is_not_200_is_said() -> None:
    with pytest.raises(BackendFailed, match="answered 503: why"):
        expect_ok(Answer(503, {}, b"why", 0.0))
    assert parse_head(b"HTTP/1.1 204 No\r\nA: b:c") == (204, {"a": "b:c"})


# ---------------------------------------------------------------------------- figures


def test_heys_figures_are_read() -> None:
    assert hey.parse_hey(PRINTED) == hey.HeyReport(709.915, 1599)
    assert hey.parse_hey(PRINTED.replace("[200]", "[201]")).ok == 0
    with pytest.raises(BackendFailed, match="no rate"):
        hey.parse_hey("nothing")


def test_where_hey_is_missing_its_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError) as error:
        hey.require_hey()
    assert error.value.hint == "apt-get install hey"


@pytest.mark.parametrize(("value", "is_least", "met"), [(1.0, True, True), (0.9, True, False), (1.1, False, False)])
def test_a_goal_is_met_or_missed(value: float, is_least: bool, met: bool) -> None:
    goal = goals.Goal("a figure", value, 1.0, is_least)
    assert goal.document()["met"] is goal.met is met
    assert goals.goal_lines([goal])[0].startswith("met" if met else "MISSED")


def test_overhead_is_above_submit_and_a_peer_is_its_fastest_mode() -> None:
    found = {
        "Runner.submit": {"cpu_us": 500.0, "requests_per_s": 1.0},
        "serve": {"cpu_us": 600.0, "requests_per_s": 3000.0},
        "litserve, one by one": {"requests_per_s": 1000.0},
        "litserve, in batches": {"requests_per_s": 2000.0},
    }
    above, rate, times = overhead.goals_of(found)
    assert (above.value, above.met, rate.value, rate.met) == (100.0, True, 3000.0, True)
    assert (times.value, times.met) == (1.5, False) and "litserve" in times.what


def test_throughput_is_the_median_of_the_rounds_ratios() -> None:
    def of(*rates: float) -> List[Dict[str, float]]:
        return [{"questions_per_s": rate} for rate in rates]

    samples = {
        throughput.ENGINE: of(100, 50, 200),
        throughput.RUNNER: of(100, 100, 100),
        throughput.HTTP: of(90, 50, 190),
        throughput.REPEATS: of(10, 10, 10),
        throughput.CACHED: of(15, 17, 20),
    }
    engine, runner, cached = throughput.goals_of(samples)
    assert (engine.value, runner.value, cached.value) == (0.95, 0.9, 1.7)
    del samples[throughput.CACHED]
    assert len(throughput.goals_of(samples)) == 2


def test_a_flood_is_counted_by_how_it_ended() -> None:
    def arrival(status: int, seconds: float, **headers: str) -> loads.Arrival:
        return loads.Arrival(0.001, Answer(status, {"retry-after": "1", **headers}, b"", seconds))

    arrivals = [arrival(200, 0.1)] * 6 + [arrival(200, 0.6), arrival(429, 0.002), arrival(504, 0.5), arrival(500, 0.1)]
    without = loads.Arrival(0.0, Answer(429, {}, b"", 0.001))
    found = overload.flood_figures([*arrivals, without, loads.Arrival(0.0, None)], 1.0, 0.5, 7.0)
    assert found["answered_of_capacity"] == 1.0 and found["late"] == 1 and found["refused"] == 2
    assert found["refused_without_retry_after"] == 1 and found["expired"] == 1 and found["others"] == 2
    missed = [goal.what for goal in overload.goals_of(found, 0.5) if not goal.met]
    assert missed == ["p99 ms of the answered", "refused without Retry-After", "neither 200, 429 nor 504"]


def test_a_flood_that_nobody_answers_has_figures() -> None:
    assert overload.flood_figures([loads.Arrival(0.0, None)], 1.0, 0.5, 7.0)["answered_p99_ms"] == 0.0


EXPECTED = {"answer": "a", "start": 0, "end": 1, "score": 0.5}


@pytest.mark.parametrize(
    ("status", "found", "outcome"),
    [
        (200, EXPECTED, "right"),
        (200, {**EXPECTED, "score": 0.50001}, "right"),
        (200, {**EXPECTED, "score": 0.51}, "wrong"),
        (200, {**EXPECTED, "end": 2}, "wrong"),
        (429, {}, "status 429"),
    ],
)
def test_an_outcome_is_right_wrong_or_a_status(status: int, found: Dict[str, Any], outcome: str) -> None:
    assert chaos.outcome_of(Answer(status, {}, json.dumps(found).encode(), 0.1), EXPECTED) == outcome


CALM: Dict[str, Any] = {
    "requests": 10,
    "outcomes": {"right": 9, "left": 1},
    "surplus_bytes": 0,
    "killed": 3,
    "reloaded": 2,
    "exit_code": 0,
    "resources": {
        name: {"descriptors": 9, "threads": 5, "children": 2, "memory_mib": 70} for name in ("before", "after")
    },
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outcomes": {"right": 8, "left": 1, "wrong": 1}}, "1 x wrong"),
        ({"outcomes": {"right": 8, "left": 1, "status 503": 1}}, "1 x status 503"),
        ({"outcomes": {"right": 8, "left": 1, "lost": 1}}, "1 x lost"),
        ({"requests": 11}, "11 requests have 10 outcomes"),
        ({"surplus_bytes": 3}, "3 bytes answer no request"),
        ({"killed": 0}, "no worker was killed"),
        ({"reloaded": 1}, "1 of 2 reloads succeeded"),
        ({"exit_code": -9}, "after SIGTERM the server's exit code was -9"),
        (
            {
                "resources": {
                    "before": CALM["resources"]["before"],
                    "after": {**CALM["resources"]["after"], "children": 3},
                }
            },
            "children grew from 2 to 3",
        ),
    ],
)
def test_what_does_not_hold_after_chaos_is_said(changes: Dict[str, Any], said: str) -> None:
    assert chaos.complaints(CALM) == []
    assert chaos.complaints({**CALM, **changes}) == [said]


def test_a_reload_waits_for_the_one_before_it() -> None:
    class Loading:
        at_once = most_at_once = 0

        def post(self, path: str) -> None:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            time.sleep(0.1)
            self.at_once -= 1

    server = Loading()
    reloader = chaos.Reloader(server, 3)  # type: ignore[arg-type]
    for number in range(3):
        reloader.answered(number)
    reloader.end()
    assert (reloader.reloaded, server.most_at_once) == (2, 1)


def test_only_the_servers_own_process_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not chaos.kill_child(child.pid, child.pid)
        assert child.poll() is None
        assert chaos.kill_child(child.pid, os.getpid())
    assert child.returncode == -9
    assert not chaos.kill_child(child.pid, os.getpid())


# ---------------------------------------------------------------------------- the peers


def test_peers_need_a_python_and_have_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no peer 'flask'"):
        main(["overhead", "--peers", "flask", "--peer-python", sys.executable])
    with pytest.raises(UsageError, match="a Python that has them"):
        main(["overhead", "--peers", "litserve"])


def test_a_peer_that_does_not_come_up_is_said_and_ended(echo_artifact: Artifact, tmp_path: Path) -> None:
    modules = {peer.module for peer in peers.PEERS.values()}
    assert all((Path(peers.__file__).parent / f"{module}.py").is_file() for module in modules)
    bare = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")]
    subprocess.run(bare, check=True)
    python = tmp_path / "bare" / "bin" / "python"
    with pytest.raises(BackendFailed, match="No module named"):
        with peers.peer_serving("litserve", peers.ONE_BY_ONE, python, echo_artifact.folder, tmp_path, 1):
            raise AssertionError("it has no litserve")


def test_a_peer_finds_the_checkout_and_its_own_commands() -> None:
    found = peers.peer_environment(Path("/somewhere/bin/python"), {"A": "b"})
    assert found["PATH"].split(os.pathsep)[0] == "/somewhere/bin" and found["A"] == "b"
    assert str(peers.ROOT) in found["PYTHONPATH"].split(os.pathsep)


# ---------------------------------------------------------------------------- small runs


def measured(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """The document of a run whose exit code is 0."""
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr()
    assert "load average before" in printed.err
    document = json.loads(printed.out)
    assert document["measured"] == arguments[0] and document["machine"] and document["load"]
    return document


@pytest.mark.slow
def test_overhead_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("hey") is None:
        pytest.skip("hey is not installed")
    found = measured(capsys, "overhead", "--requests", 320, "--rounds", 2, "--workers", 1)
    assert set(found["medians"]) == {"Runner.submit", "serve", "serve --no-access-log"}
    assert all(len(rounds) == 2 for rounds in found["rounds"].values())
    assert found["medians"]["serve"]["cpu_us"] > 0 and len(found["goals"]) == 2


@pytest.mark.slow
def test_throughput_is_measured(echo_artifact: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "report.json"
    arguments = ("--artifact", echo_artifact.folder, "--requests", 40, "--rounds", 1, "--json", copy)
    found = measured(capsys, "throughput", *arguments)
    assert found == json.loads(copy.read_text())
    assert {"Engine.answer", "Runner.map", "HTTP", "HTTP, 40 % repeated"} <= set(found["medians"])
    with pytest.raises(UsageError, match="a real model"):
        main(["throughput"])


@pytest.mark.slow
def test_overload_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, "overload", "--seconds", 1, "--workers", 1)["medians"]
    assert found["refused"] > 0 and found["answered"] > 0
    assert found["refused_without_retry_after"] == 0 and found["others"] == 0


@pytest.mark.slow
def test_chaos_is_survived(capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, "chaos", "--requests", 400, "--texts", 20, "--period-s", 0.5)
    assert found["complaints"] == [] and found["killed"] > 0 and found["reloaded"] == 2
    assert found["outcomes"] == {"right": 392, "left": 8}


@pytest.mark.slow
def test_a_start_is_measured(echo_artifact: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    found = measured(capsys, "start", "--artifact", echo_artifact.folder, "--rounds", 1)
    names = {"ready_s", "worker_load_s", "import_openvino_s", "import_web_stack_s", "python_s"}
    assert set(found["medians"]) == names and len(found["rounds"]) == 2  # one that is not counted


def test_the_help_says_how_the_peers_environment_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert 'pip install litserve bentoml "ray[serve]"' in capsys.readouterr().out
