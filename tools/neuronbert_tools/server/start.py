"""The cold start of the server: from the process's start to ready, beside what a worker and its library take alone."""

import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from neuronbert.backends.child import python_environment
from neuronbert.errors import BackendFailed
from neuronbert_tools.artifacts import echo_artifact
from neuronbert_tools.console import print_message
from neuronbert_tools.processes import module_command
from neuronbert_tools.server.goals import Goal, goal_lines, medians
from neuronbert_tools.server.peers.processes import free_port
from neuronbert_tools.server.served import END_S, end_of, serve_command

MOST_S = 1.5
POLL_S = 0.01
START_S = 120.0


WEB_STACK = ("uvicorn", "starlette.routing", "msgspec")


class StartOptions(NamedTuple):
    """Of the command line."""

    artifact: Optional[Path]
    rounds: int
    workers: Optional[int]


def measure_start(folder: Path, options: StartOptions) -> Dict[str, Any]:
    """All in turns; the first turn, which finds nothing in the page cache and writes bytecode, is not counted."""
    # With it set every process would compile all modules again, as no service's does from its second start on.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    artifact = echo_artifact(folder / "echo").folder if options.artifact is None else options.artifact
    turns: Dict[str, Callable[[], float]] = {
        "ready_s": lambda: ready_s(artifact, folder, options.workers),
        "worker_load_s": lambda: process_s(module_command("server.load_engine", artifact)),
        "import_openvino_s": lambda: process_s(module_command("server.import_modules", "openvino")),
        "import_web_stack_s": lambda: process_s(module_command("server.import_modules", *WEB_STACK)),
        "python_s": lambda: process_s(module_command("server.import_modules")),
    }
    rounds: List[Dict[str, float]] = []
    for number in range(options.rounds + 1):
        rounds.append({name: turn() for name, turn in turns.items()})
        print_message(f"round {number}: {rounds[-1]}")
    found = medians(rounds[1:])
    goals = goals_of(found)
    print_message("\n".join([*(f"{name:<24} {value:.3f}" for name, value in found.items()), *goal_lines(goals)]))
    return {
        "artifact": str(options.artifact or "echo"),
        "medians": found,
        "goals": [goal.document() for goal in goals],
        "rounds": rounds,
    }


def ready_s(artifact: Path, logs: Path, workers: Optional[int]) -> float:
    """Seconds from the process's start to the first 200 of /v2/health/ready."""
    port, log = free_port(), logs / "start.log"
    more = [] if workers is None else ["--workers", workers]
    command = serve_command(artifact, port, *more)
    with open(log, "wb") as stderr:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, env=python_environment(os.environ)
        )
    try:
        while time.perf_counter() < began + START_S and process.poll() is None:
            if _is_ready(f"http://127.0.0.1:{port}/v2/health/ready"):
                return time.perf_counter() - began
            time.sleep(POLL_S)
    finally:
        process.terminate()
        process.wait(END_S)
    raise BackendFailed(f"the server was not ready within {START_S:.0f} s:\n{end_of(log)}")


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _is_ready(url: str) -> bool:
    try:
        with _opener.open(url, timeout=END_S) as answer:
            return bool(answer.status == 200)
    except OSError:  # nobody listens yet, or 503
        return False


def process_s(command: Sequence[str]) -> float:
    """Seconds of a process from start to end."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=python_environment(os.environ))
    return time.perf_counter() - began


def goals_of(found: Mapping[str, float]) -> List[Goal]:
    """What the medians should be."""
    return [Goal("seconds to ready", found["ready_s"], MOST_S, is_least=False)]
