"""Floods the multi-worker runner without a pause, and measures whether long and retried requests wait longer.

    tools/measure_fairness                        # 60 s on echo workers, one killed every 5 s
    tools/measure_fairness --seconds 20 --workers 1 --json fairness.json

Two threads ask short questions as fast as they are let in. Beside them one asks documents of 24 windows, one waits in
the line of ``map``, and now and then a worker is killed, so that what it held is asked again. A latency is counted from
the first try, refusals included. The exit code is 1 if the p99 of documents or of retried requests is more than 3 times
that of the others, or if there was none of a kind.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Sequence

from neuronbert import Runner
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import Overloaded
from neuronbert.hardware.machine import environment
from neuronbert.tasks.question_answering.windows import encode_examples
from neuronbert_tools.artifacts import echo_artifact
from neuronbert_tools.console import add_report_option, new_parser, print_document, print_message
from neuronbert_tools.load import in_threads, percentile
from neuronbert_tools.questions import Pair

SHORT = ("Who was it?", "It was me, in the box, with the rest of them.")
SHORT_ONES, DOCUMENTS, RETRIED, MAPPED = "short", "documents", "retried", "documents in map"
FLOODERS = 2
MOST = 3.0  # times the p99 of the short ones
REFUSED_S = 0.001  # between a refusal and the next try


def document(tokenizer: Tokenizer, windows: int) -> Pair:
    """A question whose context takes ``windows`` windows."""
    words: List[str] = []
    while len(encode_examples(tokenizer, [("Which one?", " ".join(words) or "none")])[0].windows) < windows:
        words += [f"number{len(words) + more}" for more in range(20)]
    return "Which one?", " ".join(words)


class Flood:
    """Callers that ask until ``seconds`` are over; ``latencies_s`` by kind of request."""

    def __init__(self, runner: Runner, long: Pair, seconds: float):
        self.latencies_s: Dict[str, List[float]] = defaultdict(list)
        self._runner, self._long = runner, long
        self._end = time.perf_counter() + seconds

    def callers(self, kill_every_s: float) -> List[Callable[[], None]]:
        """What runs side by side."""
        short = partial(self._ask, SHORT_ONES, SHORT, 0.0)
        return [*[short] * FLOODERS, partial(self._ask, DOCUMENTS, self._long, 0.2), self._map,
                partial(self._kill, kill_every_s)]  # fmt: skip

    def _is_over(self) -> bool:
        return time.perf_counter() >= self._end

    def _ask(self, kind: str, pair: Pair, pause_s: float) -> None:
        while not self._is_over():
            began = time.perf_counter()
            while not self._is_over():
                try:
                    future = self._runner.submit(*pair, breakdown=True)
                except Overloaded:
                    time.sleep(REFUSED_S)
                    continue
                future.add_done_callback(partial(self._done, kind, began))
                break
            time.sleep(pause_s)

    def _done(self, kind: str, began: float, future: Any) -> None:
        was_retried = future.result().breakdown["deaths"] > 0
        self.latencies_s[RETRIED if was_retried else kind].append(time.perf_counter() - began)

    def _map(self) -> None:
        while not self._is_over():
            began = time.perf_counter()
            list(self._runner.map([self._long]))
            self.latencies_s[MAPPED].append(time.perf_counter() - began)

    def _kill(self, every_s: float) -> None:
        choice = random.Random(0)
        while not self._is_over():
            time.sleep(every_s)
            ready = [worker["pid"] for worker in self._runner.stats()["workers"] if worker["state"] == "ready"]
            if ready:
                os.kill(choice.choice(ready), signal.SIGKILL)


def measure(options: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    """Flood it; the figures of each kind of request."""
    artifact = echo_artifact(folder / "echo", batch_s=options.batch_s)
    long = document(Tokenizer.from_files(artifact.folder), options.windows)
    with Runner(artifact, workers=options.workers, max_queue=options.max_queue) as runner:
        flood = Flood(runner, long, options.seconds)
        in_threads(flood.callers(options.kill_every_s))
        runner.close()
        requests = runner.stats()["requests"]
    kinds = {kind: figures(latencies) for kind, latencies in sorted(flood.latencies_s.items())}
    short = kinds[SHORT_ONES]["p99_ms"]
    return {
        "requests": requests,
        "kinds": {kind: {**each, "p99_ratio": each["p99_ms"] / short} for kind, each in kinds.items()},
    }


def figures(latencies_s: Sequence[float]) -> Dict[str, float]:
    """Count and percentiles."""
    return {
        "count": len(latencies_s),
        "p50_ms": percentile(latencies_s, 50) * 1000,
        "p99_ms": percentile(latencies_s, 99) * 1000,
    }


def complaints(kinds: Mapping[str, Mapping[str, float]]) -> List[str]:
    """What does not hold."""
    missing = [f"no request of this kind: {kind}" for kind in (DOCUMENTS, MAPPED, RETRIED) if kind not in kinds]
    return missing + [
        f"{kind}: the p99 is {each['p99_ratio']:.1f} times that of the short ones"
        for kind, each in kinds.items()
        if each["p99_ratio"] > MOST
    ]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = new_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the flood (default: 60)")
    parser.add_argument("--workers", type=int, default=2, help="default: 2")
    parser.add_argument("--windows", type=int, default=24, help="of a document (default: 24)")
    parser.add_argument("--batch-s", type=float, default=0.05, help="that a batch takes (default: 0.05)")
    parser.add_argument("--max-queue", type=int, default=1024, help="of the runner (default: 1024)")
    parser.add_argument("--kill-every-s", type=float, default=5.0, help="default: 5")
    add_report_option(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    for kind, each in found["kinds"].items():
        print_message(
            f"{kind:<17}{each['count']:>7}  p50 {each['p50_ms']:>7.0f} ms  p99 {each['p99_ms']:>7.0f} ms  "
            f"{each['p99_ratio']:.2f} x"
        )
    wrong = complaints(found["kinds"])
    print_message("\n".join(f"WRONG: {complaint}" for complaint in wrong) or "nobody waits for a flood to end")
    print_document({"machine": environment(), **found}, options.json, indent=2)
    return 1 if wrong else 0
