"""The server while its workers are killed, its artifact is loaded again and its clients go away: how each request ends.

Requests stay below what the queue takes, so each must be answered, and as a single process answers it.
"""

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from neuronbert import Engine
from neuronbert.hardware.machine import process_fields
from neuronbert_tools.artifacts import echo_artifact
from neuronbert_tools.console import print_message
from neuronbert_tools.server.asking import body_of, load_questions_artifact, message, questions
from neuronbert_tools.server.client import Answer, Connections, Lost, run_loop
from neuronbert_tools.server.resources import grown, settled
from neuronbert_tools.server.served import MODEL, Server, serving

BATCH_S = 0.02
SCORE_TOLERANCE = 1e-4
LEAVES_EVERY = 50  # requests
LONGEST_STAY_S = 0.02  # of a client that goes away
RELOADS = 2
RIGHT, WRONG, LEFT, LOST = "right", "wrong", "left", "lost"
PARENT_FIELD = 1  # of process_fields


class ChaosOptions(NamedTuple):
    """Of the command line."""

    artifact: Optional[Path]
    requests: int
    connections: int
    period_s: float
    texts: int
    workers: int
    seed: int


class Outcomes(NamedTuple):
    """How the requests ended, and bytes that answer none."""

    counts: Dict[str, int]
    surplus_bytes: int


def measure_chaos(folder: Path, options: ChaosOptions) -> Dict[str, Any]:
    """Run it; ``complaints`` in the report are what does not hold."""
    if options.artifact is None:
        artifact = echo_artifact(folder / "echo", batch_s=BATCH_S)
    else:
        artifact = load_questions_artifact(options.artifact)
    pairs = questions(options.texts)
    with Engine(artifact) as engine:
        expected = [ranked[0] for ranked in engine.answer(pairs)]
    bodies = [body_of(pair) for pair in pairs]
    with serving(artifact.folder, folder, "--allow-reload", "--workers", options.workers) as server:
        # What is made once, such as the threads of a first reload, is there before anything is counted.
        ask_all(server, bodies, expected, options._replace(requests=len(bodies)), lambda number: None)
        server.post(f"/v2/repository/models/{MODEL}/load")
        before = settled(server, None)
        killer, reloader = Killer(server, options), Reloader(server, options.requests)
        killer.start()
        began = time.monotonic()
        outcomes = ask_all(server, bodies, expected, options, reloader.answered)
        took_s = time.monotonic() - began
        killer.end()
        reloader.end()
        after = settled(server, before)
        exit_code = server.end()
    report: Dict[str, Any] = {
        "requests": options.requests,
        "seconds": took_s,
        "killed": killer.killed,
        "reloaded": reloader.reloaded,
        "outcomes": outcomes.counts,
        "surplus_bytes": outcomes.surplus_bytes,
        "resources": {"before": before, "after": after},
        "exit_code": exit_code,
    }
    wrong = complaints(report)
    print_message(
        f"{options.requests} requests in {took_s:.0f} s, {killer.killed} workers killed, {reloader.reloaded} reloads: "
        f"{outcomes.counts}"
    )
    print_message(f"resources: before {before}, after {after}")
    print_message(
        "\n".join(f"WRONG: {each}" for each in wrong) or "every request had its one status, and nothing leaked"
    )
    return {**report, "complaints": wrong}


class Killer(threading.Thread):
    """Kills a worker of the server, any that is ready, once in a period."""

    def __init__(self, server: Server, options: ChaosOptions):
        super().__init__(name="killer", daemon=True)
        self.killed = 0
        self._server, self._period_s = server, options.period_s
        self._choice = random.Random(options.seed)
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(self._period_s):
            ready = [worker["pid"] for worker in self._server.workers if worker["state"] == "ready"]
            if ready and kill_child(self._choice.choice(ready), self._server.process.pid):
                self.killed += 1

    def end(self) -> None:
        """No more of them."""
        self._ending.set()
        self.join()


def kill_child(pid: int, parent: int) -> bool:
    """SIGKILL for a process that still is this parent's; whether it was."""
    try:
        if int(process_fields(pid)[PARENT_FIELD]) != parent:
            return False
        os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


class Reloader:
    """Has the artifact loaded again RELOADS times, evenly spread over the requests, in threads of its own."""

    def __init__(self, server: Server, requests: int):
        self.reloaded = 0
        self._server = server
        self._at = {requests * (number + 1) // (RELOADS + 1) for number in range(RELOADS)}
        self._threads: List[threading.Thread] = []
        self._one_at_a_time = threading.Lock()  # a server refuses to load what it is loading already

    def answered(self, number: int) -> None:
        """Called when the request of this number begins."""
        if number in self._at:
            self._threads.append(threading.Thread(target=self._reload, daemon=True))
            self._threads[-1].start()

    def _reload(self) -> None:
        with self._one_at_a_time:
            self._server.post(f"/v2/repository/models/{MODEL}/load")
            self.reloaded += 1

    def end(self) -> None:
        """Wait for the last."""
        for thread in self._threads:
            thread.join()


def ask_all(
    server: Server,
    bodies: Sequence[bytes],
    expected: Sequence[Mapping[str, Any]],
    options: ChaosOptions,
    begins: Callable[[int], None],
) -> Outcomes:
    """Ask so many requests over so many connections, and wait for all; ``begins`` is called with each one's number."""
    requests = [message(server.port, body) for body in bodies]
    return run_loop(_ask_all(server.port, requests, expected, options, begins))


async def _ask_all(
    port: int,
    requests: Sequence[bytes],
    expected: Sequence[Mapping[str, Any]],
    options: ChaosOptions,
    begins: Callable[[int], None],
) -> Outcomes:
    pool, numbers = Connections(port), iter(range(options.requests))
    stay_s = random.Random(options.seed)
    outcomes: List[str] = []

    async def client(own: Iterator[int]) -> None:
        for number in own:
            begins(number)
            text = number % len(requests)
            if number % LEAVES_EVERY == LEAVES_EVERY - 1:
                outcomes.append(await _leave(pool, requests[text], stay_s.uniform(0, LONGEST_STAY_S)))
                continue
            try:
                outcomes.append(outcome_of(await pool.ask(requests[text]), expected[text]))
            except (Lost, ConnectionError):
                outcomes.append(LOST)

    await asyncio.gather(*(client(numbers) for _ in range(options.connections)))
    surplus = sum(connection.surplus_bytes for connection in pool.opened)
    pool.close()
    return Outcomes(dict(Counter(outcomes)), surplus)


async def _leave(pool: Connections, request: bytes, stay_s: float) -> str:
    """Ask, and go away in the middle."""
    connection = await pool.take()
    waiting = asyncio.ensure_future(connection.ask(request))
    ended, _ = await asyncio.wait([waiting], timeout=stay_s)
    waiting.cancel()
    connection.abort()
    return LOST if ended and waiting.exception() is not None else LEFT


def outcome_of(answer: Answer, expected: Mapping[str, Any]) -> str:
    """RIGHT, WRONG, or the status of a request that was not answered."""
    if answer.status != 200:
        return f"status {answer.status}"
    found = json.loads(answer.body)
    same = all(found[name] == expected[name] for name in ("answer", "start", "end"))
    return RIGHT if same and abs(found["score"] - expected["score"]) <= SCORE_TOLERANCE else WRONG


def complaints(report: Mapping[str, Any]) -> List[str]:
    """What does not hold."""
    outcomes, asked = dict(report["outcomes"]), report["requests"]
    wrong = [f"{count} x {name}" for name, count in sorted(outcomes.items()) if name not in (RIGHT, LEFT)]
    if sum(outcomes.values()) != asked:
        wrong.append(f"{asked} requests have {sum(outcomes.values())} outcomes")
    if report["surplus_bytes"]:
        wrong.append(f"{report['surplus_bytes']} bytes answer no request")
    if not report["killed"]:
        wrong.append("no worker was killed")
    if report["reloaded"] != RELOADS:
        wrong.append(f"{report['reloaded']} of {RELOADS} reloads succeeded")
    if report["exit_code"] != 0:
        wrong.append(f"after SIGTERM the server's exit code was {report['exit_code']}")
    return wrong + grown(report["resources"]["before"], report["resources"]["after"])
