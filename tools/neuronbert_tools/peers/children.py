"""The parent's side of worker.py: one long-lived child per contender, so that loading a model is never timed."""

import json
import subprocess
from pathlib import Path
from typing import IO, Mapping, Optional

from neuronbert_tools.paths import ROOT
from neuronbert_tools.peers import worker
from neuronbert_tools.peers.worker import Reply

WORKER = Path(worker.__file__)


class ChildFailed(RuntimeError):
    """A child that died or replied with an error; the message names the log that says why."""


class Child:
    """A worker in its environment. One request at a time: only one contender works at any moment."""

    def __init__(self, name: str, python: Path, environment: Mapping[str, str], log: Path):
        self.name = name
        self.log = log
        self._log_file: IO[bytes] = log.open("ab")
        self._process = subprocess.Popen(
            [str(python), str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            text=True,
            encoding="utf-8",
            env=dict(environment),
            cwd=ROOT,
        )

    def request(self, do: str, **arguments: object) -> Reply:
        """Ask for one operation of worker.Worker and wait for its reply."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, "with": arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing reply below says so
        line = self._process.stdout.readline()
        reply: Optional[Reply] = json.loads(line) if line else None
        if reply is None:
            raise ChildFailed(f"{self.name} died with exit code {self._process.wait()} during {do}: see {self.log}")
        if "error" in reply:
            raise ChildFailed(f"{self.name} could not {do}: {reply['error']} (see {self.log})")
        return reply

    def close(self) -> None:
        """End the child, and wait until its memory is free again."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log_file.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
