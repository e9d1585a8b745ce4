"""Runs the multi-worker runner under load while its workers are killed, stopped and poisoned, and counts the outcomes.

    tools/chaos                                   # 20,000 requests through the echo backend, poison among them
    tools/chaos --artifact qa-artifact            # a compiled artifact (its workers are killed and stopped only)
    tools/chaos --requests 2000 --json chaos.json

Kills come at random, one in ``--period-s`` on average; one in five is a SIGSTOP, which must be noticed. One request in
``--document-every`` is a document of many windows, and on echo one in 2,000 is poison.

Every accepted request must have exactly one outcome, no request that is not poison may be refused, and every answer
must be the one that a single process gives (the same text, start and end; the score within 1e-4). Memory, file
descriptors and processes are counted before and after. The exit code is 1 if any of that does not hold.
"""

import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert import Engine, Runner
from neuronbert.artifact.manifest import Artifact, load_artifact
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import Overloaded, PoisonRequest
from neuronbert.hardware.machine import environment
from neuronbert_tools.artifacts import echo_artifact
from neuronbert_tools.console import add_report_option, new_parser, print_document, print_message
from neuronbert_tools.load import in_threads
from neuronbert_tools.paths import DEMO, XQUAD
from neuronbert_tools.questions import Pair, squad_pairs

POISON = ("Where is the dynamite?", "It is in the box.")
POISON_EVERY = 2000  # requests
STOP_EVERY = 5  # kills
DOCUMENTS = 8  # different ones
CONTEXTS_OF_A_DOCUMENT = 40
SCORE_TOLERANCE = 1e-4
LOST = ("TimeoutError", "CancelledError")  # of a future: no outcome


class Options(NamedTuple):
    """The command line's options; their defaults and meanings are in ``parse``."""

    artifact: Optional[Path]
    variant: Optional[str]
    requests: int
    texts: int
    document_every: int
    workers: int
    period_s: float
    kill_loading: bool
    hang_s: float
    seed: int
    json: Optional[Path]

    def is_poison(self, number: int) -> bool:
        """Whether request ``number`` is the one that its worker dies of: only an echo artifact's workers know it."""
        return self.artifact is None and number % POISON_EVERY == POISON_EVERY // 2

    def text_of(self, number: int) -> int:
        """Which of the texts request ``number`` is about; the documents come after ``texts`` others."""
        if self.document_every and number % self.document_every == 0:
            return self.texts + number // self.document_every % DOCUMENTS
        return number % self.texts


def document(pairs: Sequence[Pair], number: int) -> Pair:
    """A question over many contexts, and so over many windows."""
    contexts = list(dict.fromkeys(context for _, context in pairs))
    first = number % len(contexts)
    return pairs[number][0], " ".join((contexts[first:] + contexts[:first])[:CONTEXTS_OF_A_DOCUMENT])


def poisonable(folder: Path) -> Artifact:
    """An echo artifact whose worker exits when it reads the word of ``POISON``."""
    token = Tokenizer.from_files(DEMO).backend.token_to_id("dynamite")
    return echo_artifact(folder / "echo", faults={token: "exit"}, batch_s=0.005)


class Killer(threading.Thread):
    """Kills a worker at random, one in ``period_s`` on average; some it stops instead, which must be noticed.

    Loading ones only with ``kill_loading``, and those are not stopped: that is noticed after minutes.
    """

    def __init__(self, runner: Runner, options: Options):
        super().__init__(name="killer", daemon=True)
        self.killed = self.stopped = 0
        self._runner, self._period_s, self._choice = runner, options.period_s, random.Random(options.seed)
        self._states = ("ready", "starting") if options.kill_loading else ("ready",)
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(self._choice.expovariate(1 / self._period_s)):
            workers = [worker for worker in self._runner.stats()["workers"] if worker["state"] in self._states]
            if not workers:
                continue
            worker = self._choice.choice(workers)
            assert worker["pid"] is not None
            stop = worker["state"] == "ready" and (self.killed + self.stopped) % STOP_EVERY == STOP_EVERY - 1
            try:
                os.kill(worker["pid"], signal.SIGSTOP if stop else signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.stopped += stop
            self.killed += not stop

    def end(self) -> None:
        self._ending.set()
        self.join()


def resources() -> Dict[str, int]:
    """What must not grow: this process's memory (MiB), its file descriptors, threads and children."""
    with open("/proc/self/status", encoding="utf-8") as file:
        status = dict(line.split(":", 1) for line in file)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "memory_mib": int(status["VmRSS"].split()[0]) // 1024,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "children": len(children),
        "shared_memory": len(os.listdir("/dev/shm")),
    }


def ask_all(runner: Runner, pairs: Sequence[Pair], options: Options) -> List[Tuple[int, "Future[Any]"]]:
    """Submit every request from two threads, waiting where the queue is full; (number of the request, future)."""
    asked: List[Tuple[int, Future[Any]]] = []

    def client(first: int) -> None:
        for number in range(first, options.requests, 2):
            pair = POISON if options.is_poison(number) else pairs[options.text_of(number)]
            while True:
                try:
                    asked.append((number, runner.submit(*pair)))
                    break
                except Overloaded:
                    time.sleep(0.01)

    in_threads([partial(client, first) for first in range(2)])
    return asked


def outcome_of(future: "Future[Any]", expected: Optional[Mapping[str, Any]]) -> str:
    """How a request ended: right, wrong, the class of its error, or "answered poison" (``expected`` is None)."""
    try:
        answer = future.result(300)
    except Exception as error:
        return type(error).__name__
    if expected is None:
        return "answered poison"
    same = all(answer[name] == expected[name] for name in ("answer", "start", "end"))
    return "right" if same and abs(answer["score"] - expected["score"]) <= SCORE_TOLERANCE else "wrong"


def chaos(options: Options, folder: Path) -> Dict[str, Any]:
    """Run it; the report's figures."""
    artifact = poisonable(folder) if options.artifact is None else load_artifact(options.artifact)
    pairs = list(squad_pairs(XQUAD))[: options.texts]
    pairs += [document(pairs, number) for number in range(DOCUMENTS)]
    with Engine(artifact, variant=options.variant) as engine:
        expected = [ranked[0] for ranked in engine.answer(pairs)]
    before = resources()
    began = time.monotonic()
    with Runner(artifact, variant=options.variant, workers=options.workers, hang_timeout_s=options.hang_s) as runner:
        killer = Killer(runner, options)
        killer.start()
        with_workers = resources()
        outcomes = count_outcomes(ask_all(runner, pairs, options), expected, options)
        killer.end()
        stats = runner.stats()
    after = resources()
    return {
        "requests": options.requests,
        "seconds": time.monotonic() - began,
        "killed": killer.killed,
        "stopped": killer.stopped,
        "outcomes": outcomes,
        **tally(outcomes, options.requests),
        "statistics": stats,
        "resources": {"before": before, "with_workers": with_workers, "after": after},
    }


def count_outcomes(
    asked: Sequence[Tuple[int, "Future[Any]"]], expected: Sequence[Mapping[str, Any]], options: Options
) -> Dict[str, int]:
    """How many requests ended in which way; waits for all of them."""
    outcomes: List[str] = []
    for number, future in asked:
        if options.is_poison(number):
            outcomes.append(f"poison: {outcome_of(future, None)}")
        else:
            outcomes.append(outcome_of(future, expected[options.text_of(number)]))
    return dict(Counter(outcomes))


def tally(outcomes: Mapping[str, int], requests: int) -> Dict[str, int]:
    """The three figures that must be 0."""
    return {
        "refused_innocents": outcomes.get(PoisonRequest.__name__, 0),
        "wrong": outcomes.get("wrong", 0),
        "lost": requests - sum(outcomes.values()) + sum(outcomes.get(name, 0) for name in LOST),
    }


def complaints(report: Mapping[str, Any]) -> List[str]:
    """What does not hold."""
    outcomes, requests = dict(report["outcomes"]), report["statistics"]["requests"]
    wrong = []
    if sum(outcomes.values()) != report["requests"]:
        wrong.append(f"{report['requests']} requests have {sum(outcomes.values())} outcomes")
    innocents = outcomes.pop(PoisonRequest.__name__, 0)
    if innocents:
        wrong.append(f"{innocents} innocent requests were refused as poison")
    wrong += [f"{count} x {name}" for name, count in outcomes.items() if name not in ("right", "poison: PoisonRequest")]
    if requests["submitted"] != requests["completed"] + requests["failed"]:
        wrong.append(f"accepted and finished do not agree: {requests}")
    before, after = report["resources"]["before"], report["resources"]["after"]
    for name in ("descriptors", "threads", "children", "shared_memory"):
        if after[name] > before[name]:
            wrong.append(f"{name} grew from {before[name]} to {after[name]}")
    return wrong


def parse(arguments: Sequence[str]) -> Options:
    parser = new_parser(__doc__)
    parser.add_argument("--artifact", type=Path, help="default: an echo artifact, with poison among the requests")
    parser.add_argument("--variant", help="of the artifact")
    parser.add_argument("--requests", type=int, default=20_000, help="default: 20000")
    parser.add_argument("--texts", type=int, default=200, help="different questions among them (default: 200)")
    parser.add_argument("--document-every", type=int, default=100, help="a document in so many; 0: none (default: 100)")
    parser.add_argument("--workers", type=int, default=2, help="default: 2")
    parser.add_argument("--period-s", type=float, default=1.0, help="between two kills, on average (default: 1)")
    parser.add_argument("--kill-loading", action="store_true", help="also workers that are still loading")
    parser.add_argument("--hang-s", type=float, default=2.0, help="hang_timeout_s of the runner (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of who is killed (default: 0)")
    add_report_option(parser)
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = {"machine": environment(), **chaos(options, Path(folder))}
    wrong = complaints(report)
    print_message(
        f"{report['requests']} requests in {report['seconds']:.0f} s; {report['killed']} workers killed, "
        f"{report['stopped']} stopped: {report['refused_innocents']} innocents refused, {report['wrong']} wrong, "
        f"{report['lost']} lost"
    )
    print_message(f"outcomes: {report['outcomes']}")
    print_message(f"resources: {report['resources']}")
    print_message(
        "\n".join(f"WRONG: {complaint}" for complaint in wrong)
        or "every request had its one outcome, and nothing leaked"
    )
    print_document(report, options.json, indent=2)
    return 1 if wrong else 0
