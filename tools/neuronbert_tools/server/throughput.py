"""The server beside the engine that it serves: questions a second over HTTP, and with repeated requests and the cache.

Everything is loaded for its turn and closed after it, so that nothing else runs while one is asked.
"""

import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert import Engine, Runner
from neuronbert.errors import UsageError
from neuronbert_tools.console import print_message
from neuronbert_tools.questions import Pair
from neuronbert_tools.server.asking import body_of, load_questions_artifact, message, questions, with_repeats
from neuronbert_tools.server.goals import Goal, goal_lines, medians, table
from neuronbert_tools.server.loads import closed_loop
from neuronbert_tools.server.served import Server, serving
from neuronbert_tools.server.turns import Turn, in_rounds

LEAST_OF_ENGINE = 0.97
LEAST_WITH_CACHE = 1.6
REPEATED = 0.4  # of the requests
CACHE_BYTES = 100_000_000
WARM_UP = 32
ENGINE, RUNNER, HTTP = "Engine.answer", "Runner.map", "HTTP"
REPEATS, CACHED = "HTTP, 40 % repeated", "HTTP, 40 % repeated, cache"


class ThroughputOptions(NamedTuple):
    """Of the command line."""

    artifact: Path
    requests: int
    rounds: int
    connections: int
    workers: Optional[int]


def measure_throughput(folder: Path, options: ThroughputOptions) -> Dict[str, Any]:
    """All in turns over the same questions."""
    artifact = load_questions_artifact(options.artifact)
    turns = contenders(artifact.folder, folder, options)
    samples = in_rounds(turns, options.rounds)
    found = {name: medians(rounds) for name, rounds in samples.items()}
    goals = goals_of(samples)
    print_message("\n".join([*table(found), *goal_lines(goals)]))
    return {
        "artifact": artifact.manifest["digest"],
        "requests": options.requests,
        "connections": options.connections,
        "workers": options.workers,
        "medians": found,
        "goals": [goal.document() for goal in goals],
        "rounds": samples,
    }


def questions_of(count: int) -> Tuple[List[Pair], List[Pair]]:
    """What is asked, and other questions to warm up with; UsageError for more than there are."""
    pairs = questions()
    if count > len(pairs) - WARM_UP:
        raise UsageError(f"{count} questions are more than there are", hint=f"--requests {len(pairs) - WARM_UP}")
    return pairs[:count], pairs[-WARM_UP:]


def contenders(artifact: Path, folder: Path, options: ThroughputOptions) -> Dict[str, Turn]:
    """Each contender's turn, by name."""
    asked, warm_up = questions_of(options.requests)
    repeated = with_repeats(asked, options.requests, REPEATED)
    workers = [] if options.workers is None else ["--workers", options.workers]

    def engine() -> Dict[str, float]:
        with Engine.for_many(artifact) as loaded:
            loaded.answer(warm_up)
            return rate_of(lambda: loaded.answer(asked), len(asked))

    def runner() -> Dict[str, float]:
        with Runner(artifact, workers=options.workers) as loaded:
            list(loaded.map(warm_up))
            return rate_of(lambda: list(loaded.map(asked)), len(asked))

    def http(pairs: Sequence[Pair], *more: object) -> Turn:
        def turn() -> Dict[str, float]:
            with serving(artifact, folder, *workers, *more) as server:
                _ask(server, warm_up, options.connections)
                return _ask(server, pairs, options.connections)

        return turn

    return {
        ENGINE: engine,
        RUNNER: runner,
        HTTP: http(asked),
        REPEATS: http(repeated),
        CACHED: http(repeated, "--cache-bytes", CACHE_BYTES),
    }


def rate_of(answer: Callable[[], object], count: int) -> Dict[str, float]:
    """Questions a second of one call that answers ``count``."""
    began = time.perf_counter()
    answer()
    return {"questions_per_s": count / (time.perf_counter() - began)}


def _ask(server: Server, pairs: Sequence[Pair], connections: int) -> Dict[str, float]:
    requests = [message(server.port, body_of(pair)) for pair in pairs]
    cpu_s = server.cpu_s
    rate = closed_loop(server.port, requests, min(connections, len(requests)))
    server_cpu_us = (server.cpu_s - cpu_s) / len(requests) * 1e6
    return {"questions_per_s": rate.per_s, "server_cpu_us": server_cpu_us, "client_cpu_us": rate.client_cpu_us}


def goals_of(samples: Mapping[str, Sequence[Mapping[str, float]]]) -> List[Goal]:
    """Medians of the ratios within a round: a machine's speed drifts from one to the next."""
    goals = [
        Goal(f"HTTP's questions/s of {ENGINE}'s", ratio(samples, HTTP, ENGINE), LEAST_OF_ENGINE, is_least=True),
        Goal(f"HTTP's questions/s of {RUNNER}'s", ratio(samples, HTTP, RUNNER), LEAST_OF_ENGINE, is_least=True),
    ]
    if CACHED in samples:
        times = ratio(samples, CACHED, REPEATS)
        goals.append(Goal("times the questions/s with the cache", times, LEAST_WITH_CACHE, is_least=True))
    return goals


def ratio(samples: Mapping[str, Sequence[Mapping[str, float]]], one: str, other: str) -> float:
    """The median, over the rounds, of one's questions a second by the other's."""
    pairs = zip(samples[one], samples[other])
    return medians([{"ratio": a["questions_per_s"] / b["questions_per_s"]} for a, b in pairs])["ratio"]
