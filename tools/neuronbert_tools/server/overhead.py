"""What the server costs: CPU of its main process above Runner.submit's, and its rate beside other servers'.

Everything is started for its turn and ended after it, so that nothing else runs while one is asked.
The one question is asked again and again: its context is tokenised once, in all contenders alike, for each keeps the
latest texts (neuronbert/checkpoint/recent_texts.py).
"""

import json
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from neuronbert_tools.artifacts import echo_artifact
from neuronbert_tools.console import print_message
from neuronbert_tools.processes import run_module
from neuronbert_tools.server.asking import BODY_BYTES, body_of, pair_of_size, questions
from neuronbert_tools.server.goals import Goal, goal_lines, medians, table
from neuronbert_tools.server.hey import CONNECTIONS, ask_with_hey, require_hey
from neuronbert_tools.server.peers.processes import PEERS, peer_serving, versions_of
from neuronbert_tools.server.served import serving
from neuronbert_tools.server.turns import Turn, in_rounds

MOST_OVERHEAD_US = 120.0
LEAST_PER_S = 2500.0
LEAST_TIMES_PEER = 2.0
WARM_UP = 512
SUBMIT, SERVED, UNLOGGED = "Runner.submit", "serve", "serve --no-access-log"


class OverheadOptions(NamedTuple):
    """Of the command line."""

    requests: int
    rounds: int
    workers: Optional[int]
    peers: Sequence[str]
    peer_python: Optional[Path]


def measure_overhead(folder: Path, options: OverheadOptions) -> Dict[str, Any]:
    """All contenders in turns, each with the same artifact and the same question."""
    require_hey()
    artifact = echo_artifact(folder / "echo").folder
    bodies = write_bodies(folder)
    turns = contenders(artifact, folder, bodies, options)
    samples = in_rounds(turns, options.rounds)
    found = {name: medians(rounds) for name, rounds in samples.items()}
    goals = goals_of(found)
    print_message("\n".join([*table(found), *goal_lines(goals)]))
    return {
        "body_bytes": BODY_BYTES,
        "connections": CONNECTIONS,
        "workers": options.workers,
        "peers": versions_of(options.peer_python, options.peers) if options.peer_python else {},
        "medians": found,
        "overhead_us": {name: found[name]["cpu_us"] - found[SUBMIT]["cpu_us"] for name in (SERVED, UNLOGGED)},
        "goals": [goal.document() for goal in goals],
        "rounds": samples,
    }


def write_bodies(folder: Path) -> Dict[str, Path]:
    """The one question as a file for each form in which it is asked: "object", and "list" of one."""
    pair = pair_of_size(questions(1)[0], BODY_BYTES)
    written = {"object": folder / "object.json", "list": folder / "list.json"}
    written["object"].write_bytes(body_of(pair))
    written["list"].write_text(json.dumps({"inputs": [{"question": pair[0], "context": pair[1]}]}))
    return written


def contenders(artifact: Path, folder: Path, bodies: Mapping[str, Path], options: OverheadOptions) -> Dict[str, Turn]:
    """Each contender's turn, by name."""
    workers = [] if options.workers is None else ["--workers", options.workers]

    def submit() -> Dict[str, float]:
        arguments = (artifact, bodies["object"], options.requests, CONNECTIONS, options.workers or 0)
        found: Dict[str, float] = json.loads(run_module("server.submit_cost", *arguments, variables={}))
        return found

    def served(*more: object) -> Turn:
        def turn() -> Dict[str, float]:
            with serving(artifact, folder, *workers, *more) as server:
                ask_with_hey(server.url, bodies["object"], WARM_UP)
                cpu_s = server.cpu_s
                report = ask_with_hey(server.url, bodies["object"], options.requests)
                cpu_us = (server.cpu_s - cpu_s) / report.ok * 1e6
            return {"requests_per_s": report.requests_per_s, "cpu_us": cpu_us}

        return turn

    def peer(name: str, mode: str) -> Turn:
        def turn() -> Dict[str, float]:
            assert options.peer_python is not None
            with peer_serving(name, mode, options.peer_python, artifact, folder, options.workers) as url:
                body = bodies[PEERS[name].body]
                ask_with_hey(url, body, WARM_UP)
                return {"requests_per_s": ask_with_hey(url, body, options.requests).requests_per_s}

        return turn

    turns: Dict[str, Turn] = {SUBMIT: submit, SERVED: served(), UNLOGGED: served("--no-access-log")}
    for name in options.peers:
        turns.update({f"{name}, {mode}": peer(name, mode) for mode in PEERS[name].modes})
    return turns


def goals_of(found: Mapping[str, Mapping[str, float]]) -> List[Goal]:
    """What the medians should be. A peer is measured by its fastest mode."""
    overhead_us = found[SERVED]["cpu_us"] - found[SUBMIT]["cpu_us"]
    ours = found[SERVED]["requests_per_s"]
    goals = [
        Goal("CPU us of a request above Runner.submit's", overhead_us, MOST_OVERHEAD_US, is_least=False),
        Goal("requests/s", ours, LEAST_PER_S, is_least=True),
    ]
    for name in PEERS:
        modes = [figures["requests_per_s"] for each, figures in found.items() if each.partition(",")[0] == name]
        if modes:
            goals.append(Goal(f"times {name}'s requests/s", ours / max(modes), LEAST_TIMES_PEER, is_least=True))
    return goals
