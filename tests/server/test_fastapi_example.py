"""examples/fastapi_app.py: a Runner in somebody's own application."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest

from neuronbert.artifact.manifest import Artifact
from server.hostile import QUESTION, at_once, slow_copy
from server.served import START_S, ask

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@contextmanager
def application(artifact: Path) -> Iterator[str]:
    """The URL of its route."""
    pytest.importorskip("fastapi")
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(EXAMPLES), "--fd"]
    process = subprocess.Popen(
        [*command, str(listening.fileno())],
        pass_fds=[listening.fileno()],
        env={**os.environ, "NEURONBERT_ARTIFACT": str(artifact)},
        stderr=subprocess.PIPE,
        text=True,
    )
    listening.close()
    try:
        yield f"http://127.0.0.1:{port}/answers"  # the kernel holds the first request until the application is there
        process.terminate()
        assert process.wait(START_S) in (0, -15)
    finally:
        process.kill()
        process.communicate()


def test_the_example_answers_and_explains(echo_artifact: Artifact) -> None:
    with application(echo_artifact.folder) as url:
        answer = ask(url, QUESTION)
        assert answer.status == 200 and set(answer.json) == {"score", "start", "end", "answer"}
        wrong = ask(url, {**QUESTION, "question": ""})
        assert wrong.status == 400 and "empty" in wrong.json["error"]


def test_its_errors_have_their_statuses(echo_artifact: Artifact, tmp_path: Path) -> None:
    """A batch of 8 takes longer than a request may; two are with the worker, and how long they take is known then."""
    with application(slow_copy(echo_artifact.folder, tmp_path / "slow", 2.5)) as url:
        unmeasured = at_once([lambda: ask(url, QUESTION)] * 40)
        assert {answer.status for answer in unmeasured} == {200, 504}
        measured = at_once([lambda: ask(url, QUESTION)] * 40)
        refused = [answer for answer in measured if answer.status == 429]
        assert refused and all(1 <= int(answer.headers["retry-after"]) <= 30 for answer in refused)
