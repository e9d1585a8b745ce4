"""The server asked for four times what it can answer: who is refused, how fast, and what the others get.

By default on the echo backend with batches that take a time: a device of known speed, which no load slows down.
"""

from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from neuronbert_tools.artifacts import echo_artifact
from neuronbert_tools.console import print_message
from neuronbert_tools.load import percentile
from neuronbert_tools.server.asking import (
    BODY_BYTES,
    body_of,
    load_questions_artifact,
    message,
    pair_of_size,
    questions,
)
from neuronbert_tools.server.goals import Goal, goal_lines, medians
from neuronbert_tools.server.loads import Arrival, closed_loop_for, open_loop
from neuronbert_tools.server.served import serving

BATCH_S = 0.1
TIMES_CAPACITY = 4
CLIENTS_AT_CAPACITY = 64  # that wait for their answers
LEAST_OF_CAPACITY = 0.97
MOST_REFUSAL_MS = 5.0


class OverloadOptions(NamedTuple):
    """Of the command line."""

    artifact: Optional[Path]
    seconds: float
    deadline_s: float
    rounds: int
    workers: Optional[int]


def measure_overload(folder: Path, options: OverloadOptions) -> Dict[str, Any]:
    """Capacity, the flood, and capacity again, in each round; what is answered is held against the mean of the two."""
    if options.artifact is None:
        artifact = echo_artifact(folder / "echo", batch_s=BATCH_S).folder
    else:
        artifact = load_questions_artifact(options.artifact).folder
    workers = [] if options.workers is None else ["--workers", options.workers]
    body = body_of(pair_of_size(questions(1)[0], BODY_BYTES))
    with serving(artifact, folder, *workers) as server:
        patient, hurried = (message(server.port, body, timeout_s=each) for each in (None, options.deadline_s))
        capacity_s = max(1.0, options.seconds / 6)

        def capacity() -> float:
            return closed_loop_for(server.port, patient, CLIENTS_AT_CAPACITY, capacity_s).per_s

        rounds, before = [], capacity()
        for number in range(options.rounds):
            rate = TIMES_CAPACITY * before
            connections = int(2 * before * options.deadline_s) + CLIENTS_AT_CAPACITY
            flood = open_loop(server.port, hurried, rate, options.seconds, connections)
            after = capacity()
            rounds.append(flood_figures(flood, options.seconds, options.deadline_s, (before + after) / 2))
            print_message(f"round {number + 1}: {rounds[-1]}")
            before = after
    found = medians(rounds)
    goals = goals_of(found, options.deadline_s)
    print_message("\n".join([f"{name:<28} {value:,.3f}" for name, value in found.items()]))
    print_message("\n".join(goal_lines(goals)))
    return {
        "device": "echo, batches of a fixed time" if options.artifact is None else str(options.artifact),
        "deadline_ms": options.deadline_s * 1000,
        "seconds": options.seconds,
        "times_capacity": TIMES_CAPACITY,
        "medians": found,
        "goals": [goal.document() for goal in goals],
        "rounds": rounds,
    }


def flood_figures(
    arrivals: Sequence[Arrival], seconds: float, deadline_s: float, capacity_per_s: float
) -> Dict[str, float]:
    """How the requests of an open loop ended; times of what nobody met are 0."""
    answers = [arrival.answer for arrival in arrivals if arrival.answer is not None]
    of_status: Dict[int, List[float]] = {}
    for answer in answers:
        of_status.setdefault(answer.status, []).append(answer.seconds * 1000)
    answered_ms, refused_ms = of_status.get(200, []), of_status.get(429, [])
    no_retry = sum(answer.status == 429 and not answer.headers.get("retry-after") for answer in answers)
    return {
        "capacity_per_s": capacity_per_s,
        "asked": len(arrivals),
        "answered": len(answered_ms),
        "answered_of_capacity": len(answered_ms) / seconds / capacity_per_s,
        "answered_p50_ms": _percentile(answered_ms, 50),
        "answered_p99_ms": _percentile(answered_ms, 99),
        "late": sum(taken_ms > deadline_s * 1000 for taken_ms in answered_ms),
        "refused": len(refused_ms),
        "refused_p50_ms": _percentile(refused_ms, 50),
        "refused_p99_ms": _percentile(refused_ms, 99),
        "refused_without_retry_after": no_retry,
        "expired": len(of_status.get(504, [])),
        "others": len(arrivals) - sum(len(of_status.get(status, [])) for status in (200, 429, 504)),
        "sent_late_p99_ms": _percentile([arrival.late_s * 1000 for arrival in arrivals], 99),
    }


def _percentile(values: Sequence[float], percent: float) -> float:
    return percentile(values, percent) if values else 0.0


def goals_of(found: Mapping[str, float], deadline_s: float) -> List[Goal]:
    """What the medians should be."""
    return [
        Goal("answered, of capacity", found["answered_of_capacity"], LEAST_OF_CAPACITY, is_least=True),
        Goal("p99 ms of the answered", found["answered_p99_ms"], deadline_s * 1000, is_least=False),
        Goal("p99 ms of a refusal", found["refused_p99_ms"], MOST_REFUSAL_MS, is_least=False),
        Goal("refused without Retry-After", found["refused_without_retry_after"], 0, is_least=False),
        Goal("neither 200, 429 nor 504", found["others"], 0, is_least=False),
    ]
