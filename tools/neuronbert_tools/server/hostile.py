"""The server attacked: odd requests of its own description, broken messages, and clients that send a byte a second.

It has the limits that it has by default. Every attack is at one server, so what one leaves behind is there in the next.
"""

import base64
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from neuronbert.checkpoint import recent_texts
from neuronbert.server.settings import ServerSettings
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
from neuronbert_tools.server.broken import HANGS, Outcome, broken_messages, send_broken
from neuronbert_tools.server.fuzzing import SHOWN_CASES, fuzz, require_schemathesis
from neuronbert_tools.server.goals import Goal, goal_lines
from neuronbert_tools.server.loads import Arrival, closed_loop, open_loop
from neuronbert_tools.server.resources import grown, resources, settled
from neuronbert_tools.server.served import serving
from neuronbert_tools.server.slow import SlowClients, allow_connections, slow_clients

LIMITS = ServerSettings()
# What a message may wait for that never says all it should: the slowest of the server's clocks, on a busy machine.
MOST_ANSWER_S = max(LIMITS.head_timeout_s, LIMITS.body_timeout_s, LIMITS.keep_alive_s) + 15
WARM_UP = 64
RATE_PER_S = 50  # of the client that behaves
TIMES_CALM, MOST_TIMES_CALM = "times its p99 without the slow ones", 2.0
LEAST_OPEN = 0.9  # of the slow connections: those that were ended take a moment to come back
LEAKS = ("descriptors", "children")
MOST_THREADS = 8  # more than before: the pool that tokenises long texts has none until it is given one
MIB = 1 << 20


class HostileOptions(NamedTuple):
    """Of the command line."""

    artifact: Optional[Path]
    python: Path
    cases: int
    messages: int
    slow: int
    seconds: float
    workers: Optional[int]
    seed: int


def measure_hostile(folder: Path, options: HostileOptions) -> Dict[str, Any]:
    """All attacks, one behind the other; ``complaints`` in the report are what does not hold."""
    version = require_schemathesis(options.python)
    allow_connections(options.slow)
    if options.artifact is None:
        artifact = echo_artifact(folder / "echo").folder
    else:
        artifact = load_questions_artifact(options.artifact).folder
    workers = [] if options.workers is None else ["--workers", options.workers]
    with serving(artifact, folder, *workers) as server:
        good = message(server.port, body_of(pair_of_size(questions(1)[0], BODY_BYTES)))
        closed_loop(server.port, [good] * WARM_UP, 1)
        held = {"before": settled(server, None)}
        began = time.monotonic()
        fuzzed = fuzz(server, options.python, folder, options.cases, options.seed)
        fuzzed_s = time.monotonic() - began
        held["fuzzed"] = resources(server)
        messages = broken_messages(options.seed, options.messages)
        outcomes = send_broken(server.port, messages, options.seed, MOST_ANSWER_S)
        held["broken messages"] = resources(server)
        asked = {"alone": latencies(open_loop(server.port, good, RATE_PER_S, options.seconds, 1))}
        with slow_clients(server.port, options.slow, good, options.seed) as slow:
            asked["beside"] = latencies(open_loop(server.port, good, RATE_PER_S, options.seconds, 1))
            held["slow connections"] = resources(server)
        held["after"] = settled(server, held["before"], LEAKS)
        exit_code = server.end()
        tracebacks = server.log.read_text(encoding="utf-8", errors="replace").count("Traceback")
    report: Dict[str, Any] = {
        "artifact": str(options.artifact or "echo"),
        "schemathesis": version,
        "seed": options.seed,
        "workers": options.workers,
        "fuzzed": {**fuzzed._asdict(), "seconds": fuzzed_s},
        "broken": broken_figures(messages, outcomes),
        "slow": {"connections": options.slow, **slow_figures(slow)},
        "asked": asked,
        "resources": held,
        "tracebacks": tracebacks,
        "exit_code": exit_code,
    }
    goals = goals_of(report, options)
    wrong = complaints(report, goals)
    print_message("\n".join([*figure_lines(report), *goal_lines(goals), *(f"WRONG: {each}" for each in wrong)]))
    return {**report, "goals": [goal.document() for goal in goals], "complaints": wrong}


# ---------------------------------------------------------------------------- figures


def broken_figures(messages: Sequence[bytes], outcomes: Sequence[Outcome]) -> Dict[str, Any]:
    """How they ended; ``wrong`` are the first that should have ended otherwise, with the message, to be sent again."""
    not_allowed = [any(not answer.is_allowed for answer in outcome.answers) for outcome in outcomes]
    wrong = [
        {
            "message": base64.b64encode(sent).decode(),
            "end": outcome.end,
            "said": [answer.document() for answer in outcome.answers],
        }
        for sent, outcome, is_wrong in zip(messages, outcomes, not_allowed)
        if is_wrong or outcome.end == HANGS
    ]
    ends = Counter(outcome.end if outcome.answers or outcome.end == HANGS else "no answer" for outcome in outcomes)
    return {
        "messages": len(outcomes),
        "statuses": Counter(answer.status for outcome in outcomes for answer in outcome.answers),
        "ends": ends,
        "not_allowed": sum(not_allowed),
        "hang": ends[HANGS],
        "slowest_s": max(outcome.seconds for outcome in outcomes),
        "wrong": wrong[:SHOWN_CASES],
    }


def slow_figures(slow: SlowClients) -> Dict[str, Any]:
    """What became of the slow connections."""
    return {"fewest_open": slow.fewest, "sent_bytes": slow.sent_bytes, "ended": dict(slow.ended)}


def latencies(arrivals: Sequence[Arrival]) -> Dict[str, float]:
    """Of a client that behaves; times of what was not answered are in none."""
    answered_ms = [
        arrival.answer.seconds * 1000
        for arrival in arrivals
        if arrival.answer is not None and arrival.answer.status == 200
    ]
    return {
        "asked": len(arrivals),
        "answered": len(answered_ms),
        "p50_ms": percentile(answered_ms, 50) if answered_ms else 0.0,
        "p99_ms": percentile(answered_ms, 99) if answered_ms else 0.0,
        "sent_late_p99_ms": percentile([arrival.late_s * 1000 for arrival in arrivals], 99) if arrivals else 0.0,
    }


def most_growth_mib(slow: int) -> float:
    """What the main process may come to hold beside what it had, by its own limits.

    The texts that are kept with their tokens, a body, and of every slow connection a head that has no end.
    """
    return (recent_texts.MAX_BYTES + LIMITS.max_body_bytes + slow * LIMITS.max_head_bytes) / MIB


# ---------------------------------------------------------------------------- what should be


def goals_of(report: Mapping[str, Any], options: HostileOptions) -> List[Goal]:
    """What the figures should be."""
    fuzzed, broken, slow, asked = (report[name] for name in ("fuzzed", "broken", "slow", "asked"))
    before, after = (report["resources"][name] for name in ("before", "after"))
    times_calm = asked["beside"]["p99_ms"] / max(asked["alone"]["p99_ms"], 1e-9)
    unanswered = sum(each["asked"] - each["answered"] for each in asked.values())
    growth = after["peak_mib"] - before["memory_mib"]

    def none_of(what: str, value: float) -> Goal:
        return Goal(what, value, 0, is_least=False)

    return [
        Goal("cases of /openapi.json", fuzzed["cases"], options.cases, is_least=True),
        none_of("of them answered by a fault of the server's", fuzzed["not_allowed"]),
        none_of("of them not answered", fuzzed["unanswered"]),
        none_of("broken messages answered by a fault of the server's", broken["not_allowed"]),
        none_of("broken messages neither answered nor ended", broken["hang"]),
        Goal("slow connections open", slow["fewest_open"], int(LEAST_OPEN * options.slow), is_least=True),
        none_of("requests of the client that behaves without a 200", unanswered),
        Goal(TIMES_CALM, times_calm, MOST_TIMES_CALM, is_least=False),
        Goal("MiB that the main process grew", growth, most_growth_mib(options.slow), is_least=False),
        Goal("threads more than before", after["threads"] - before["threads"], MOST_THREADS, is_least=False),
        none_of("tracebacks in its log", report["tracebacks"]),
    ]


def complaints(report: Mapping[str, Any], goals: Sequence[Goal]) -> List[str]:
    """What does not hold. How long something takes is the machine's too, and no complaint."""
    wrong = [f"{goal.what}: {goal.value:g}" for goal in goals if not goal.met and goal.what != TIMES_CALM]
    wrong += [f"schemathesis: {trouble}" for trouble in report["fuzzed"]["troubles"]]
    if report["exit_code"] != 0:
        wrong.append(f"after SIGTERM the server's exit code was {report['exit_code']}")
    return wrong + grown(report["resources"]["before"], report["resources"]["after"], LEAKS)


def figure_lines(report: Mapping[str, Any]) -> List[str]:
    """The figures, for a person."""
    fuzzed, broken, slow = report["fuzzed"], report["broken"], report["slow"]
    lines = [
        f"{fuzzed['cases']:,} cases in {fuzzed['seconds']:.0f} s: {statuses_of(fuzzed)}; the slowest "
        f"{fuzzed['slowest_s'] * 1000:.0f} ms",
        f"{broken['messages']:,} broken messages: {statuses_of(broken)}; {dict(broken['ends'])}; the slowest "
        f"{broken['slowest_s']:.1f} s",
        f"{slow['connections']} slow connections, of which at least {slow['fewest_open']} were open; ended: "
        f"{slow['ended']}",
    ]
    for name, figures in report["asked"].items():
        lines.append(f"{name:<28} " + "  ".join(f"{each} {value:,.1f}" for each, value in figures.items()))
    for name, figures in report["resources"].items():
        lines.append(f"{name:<28} " + "  ".join(f"{each} {value}" for each, value in figures.items()))
    return lines


def statuses_of(figures: Mapping[str, Any]) -> str:
    """How often each status came, as text."""
    return ", ".join(f"{count:,} x {status}" for status, count in sorted(figures["statuses"].items()))
