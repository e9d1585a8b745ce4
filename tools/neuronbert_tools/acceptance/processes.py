"""Starts what a step needs: the verbs of neuronbert, and children that hold cores until they end (child.py).

What one found is a JSON document on its stdout, known by its key: Neuron's runtime and compiler print there, too,
before it and after it, and their lines may hold documents of their own.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any, Dict, Mapping, NamedTuple, Optional, Sequence

from neuronbert.backends.child import python_environment
from neuronbert_tools.processes import module_command, verb_command

CORE_VARIABLES = ("NEURON_RT_VISIBLE_CORES", "NEURON_RT_NUM_CORES", "NEURONCORE_GROUP_SIZES")
LAST_WORDS = 4000  # characters that are kept of what a process wrote
LIMIT_S = 1800.0  # for a process that loads and runs
COMPILE_LIMIT_S = 4 * 3600.0  # for one that compiles: 40 minutes a model have been seen (aws-neuron-sdk#364)
QUESTION = "Who built the first Kermit?"
CONTEXT = "Jim Henson built the first Kermit in 1955 from his mother's old coat."
ANSWER = "Jim Henson"
Found = Dict[str, Any]
# What every result of a verb has, and nothing else that is printed beside it.
KEYS = {"answer": "answer", "compile": "manifest", "doctor": "checks", "evaluate": "metrics", "inspect": "variants"}
FOUND = "neuronbert_found"  # a child's only key


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    words: str  # the last of stderr


def run(command: Sequence[str], variables: Optional[Mapping[str, str]] = None, limit_s: float = LIMIT_S) -> Ended:
    """Run a command with the core variables given and no others; after ``limit_s`` all that it started is killed."""
    inherited = {name: value for name, value in os.environ.items() if name not in CORE_VARIABLES}
    # Files, not pipes: a compiler that outlives its parent would keep a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            command,
            env=python_environment({**inherited, **(variables or {})}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=words,
            start_new_session=True,
        )
        late = ""
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            late = f"\nkilled after {limit_s:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return Ended(process.returncode, text_of(out), text_of(words)[-LAST_WORDS:] + late)


def text_of(file: IO[bytes]) -> str:
    """All that was written to the file, whatever the bytes."""
    file.seek(0)
    return file.read().decode("utf-8", errors="replace")


def document_with(key: str, text: str, opening: str = "{") -> Any:
    """The last JSON object in ``text`` that has ``key``, whatever is printed around it, on its line too.

    With ``opening="["`` the last list whose first object has it. ValueError with the end of the text for none.
    """
    decoder = json.JSONDecoder()
    found, position = None, text.find(opening)
    while position >= 0:
        try:
            document, end = decoder.raw_decode(text, position)
        except ValueError:
            document, end = None, position + 1
        first = document[0] if isinstance(document, list) and document else document
        if isinstance(first, dict) and key in first:
            found = document
        position = text.find(opening, end)
    if found is None:
        raise ValueError(f"no JSON document with {key!r} in: {text[-LAST_WORDS:]}")
    return found


def print_found(found: Found) -> None:
    """Inside a child: what it found, for ``child``."""
    print("\n" + json.dumps({FOUND: found}), flush=True)


def verb(name: str, *arguments: object, limit_s: float = LIMIT_S) -> Any:
    """What a verb of neuronbert prints under --json; RuntimeError with its words when it fails."""
    ended = run(verb_command(name, *arguments, "--json"), limit_s=limit_s)
    if ended.code:
        raise RuntimeError(f"neuronbert {name} ended with {ended.code}: {ended.words}")
    return document_with(KEYS[name], ended.out)


def answered(artifact: Path) -> Any:
    """The artifact's answer to QUESTION; RuntimeError when that is not ANSWER."""
    answer = verb("answer", artifact, "--question", QUESTION, "--context", CONTEXT)
    if answer["answer"] != ANSWER:
        raise RuntimeError(f"the answer is {answer}, not {ANSWER!r}")
    return answer


def child(module: str, variables: Mapping[str, str], *arguments: object, limit_s: float = LIMIT_S) -> Found:
    """How a process of ``module`` with ``variables`` ended, what it wrote, and what it found."""
    ended = run(module_command(module, *arguments), variables, limit_s)
    found = document_with(FOUND, ended.out)[FOUND] if ended.code == 0 else {}
    # The runtime's words may be on either.
    return {"exit_code": ended.code, "stderr": ended.words, "stdout": ended.out[-LAST_WORDS:], **found}


def measure(artifact: Path, variables: Mapping[str, str], in_flight: int, seconds: float) -> Found:
    """Throughput and latency on the cores that ``variables`` name; RuntimeError with the child's words."""
    arguments = ("measure", artifact, in_flight, seconds)
    result = child("acceptance.child", variables, *arguments, limit_s=LIMIT_S + 2 * seconds)
    written = {name: result.pop(name) for name in ("stderr", "stdout")}
    if result["exit_code"]:
        raise RuntimeError("\n".join(filter(None, written.values())))
    return result


def spoken(artifact: Path, variables: Mapping[str, str]) -> Found:
    """Whether a load with ``variables`` works, and what is written about it."""
    return child("acceptance.child", variables, "load", artifact)
