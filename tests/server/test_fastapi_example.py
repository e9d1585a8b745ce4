"""examples/fastapi_app.py: a Runner in somebody's own application."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from neuronbert.artifact.manifest import Artifact
from server.served import START_S, ask

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUESTION = {"question": "Who was it?", "context": "It was Jim Henson, who lived in London."}


def test_the_example_answers_and_explains(echo_artifact: Artifact) -> None:
    pytest.importorskip("fastapi")
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(EXAMPLES), "--fd"]
    process = subprocess.Popen(
        [*command, str(listening.fileno())],
        pass_fds=[listening.fileno()],
        env={**os.environ, "NEURONBERT_ARTIFACT": str(echo_artifact.folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    listening.close()
    try:
        url = f"http://127.0.0.1:{port}/answers"  # the kernel holds the first request until the application is there
        answer = ask(url, QUESTION)
        assert answer.status == 200 and set(answer.json) == {"score", "start", "end", "answer"}
        wrong = ask(url, {**QUESTION, "question": ""})
        assert wrong.status == 400 and "empty" in wrong.json["error"]
        process.terminate()
        assert process.wait(START_S) in (0, -15)
    finally:
        process.kill()
        process.communicate()
