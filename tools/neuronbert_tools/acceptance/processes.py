"""Starts what a step needs: the verbs of neuronbert, and children that hold cores until they end (child.py)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence

from neuronbert.backends.child import python_environment
from neuronbert_tools.processes import module_command, verb_command

CORE_VARIABLES = ("NEURON_RT_VISIBLE_CORES", "NEURON_RT_NUM_CORES", "NEURONCORE_GROUP_SIZES")
LAST_WORDS = 4000  # characters of stderr that are kept
QUESTION = "Who built the first Kermit?"
CONTEXT = "Jim Henson built the first Kermit in 1955 from his mother's old coat."
ANSWER = "Jim Henson"


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    words: str  # the last of stderr


def run(command: Sequence[str], variables: Optional[Mapping[str, str]] = None) -> Ended:
    """Run a command with the core variables given and no others."""
    inherited = {name: value for name, value in os.environ.items() if name not in CORE_VARIABLES}
    done = subprocess.run(
        command,
        env=python_environment({**inherited, **(variables or {})}),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    return Ended(done.returncode, done.stdout, done.stderr[-LAST_WORDS:])


def verb(name: str, *arguments: object) -> Any:
    """What a verb of neuronbert prints under --json; RuntimeError with its words when it fails."""
    ended = run(verb_command(name, *arguments, "--json"))
    if ended.code:
        raise RuntimeError(f"neuronbert {name} ended with {ended.code}: {ended.words}")
    return json.loads(ended.out)


def answered(artifact: Path) -> Any:
    """The artifact's answer to QUESTION; RuntimeError when that is not ANSWER."""
    ended = run(verb_command("answer", artifact, "--json", "--question", QUESTION, "--context", CONTEXT))
    if ended.code:
        raise RuntimeError(ended.words)
    answer = json.loads(ended.out)
    if answer["answer"] != ANSWER:
        raise RuntimeError(f"the answer is {answer}, not {ANSWER!r}")
    return answer


def child(mode: str, artifact: Path, variables: Mapping[str, str], *arguments: object) -> Dict[str, Any]:
    """How a child that loads ``artifact`` with ``variables`` ended, and what it found."""
    ended = run(module_command("acceptance.child", mode, artifact, *arguments), variables)
    result = json.loads(ended.out.splitlines()[-1]) if ended.code == 0 else {}
    return {"exit_code": ended.code, "stderr": ended.words, **result}


def measure(artifact: Path, variables: Mapping[str, str], in_flight: int, seconds: float) -> Dict[str, Any]:
    """Throughput and latency on the cores that ``variables`` name; RuntimeError with the child's words."""
    result = child("measure", artifact, variables, in_flight, seconds)
    if result["exit_code"]:
        raise RuntimeError(result["stderr"])
    return result


def held(artifact: Path, variables: Mapping[str, str]) -> Dict[str, Any]:
    """The cores a process with ``variables`` holds, by neuron-ls."""
    return child("held", artifact, variables)


def spoken(artifact: Path, variables: Mapping[str, str]) -> Dict[str, Any]:
    """Whether a load with ``variables`` works, and what is written to stderr."""
    return child("load", artifact, variables)
