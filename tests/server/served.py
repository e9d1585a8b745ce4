"""A real server in a process of its own, for the tests of this folder."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple
from urllib.error import HTTPError

START_S = 120.0  # on a busy machine

# Not through a proxy of the machine's.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# What it says once it is ready, as text and as JSON.
_SERVING = re.compile(
    r'^serving .* at (http\S+)$|^{.*"message": "serving .*", "url": "(http[^"]+)"}$', flags=re.MULTILINE
)


class Answer(NamedTuple):
    """What a server said. Headers have small letters."""

    status: int
    headers: Dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """A running ``neuronbert serve``."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path):
        self.process = process
        self.log = log
        self.url = self._url()

    def _url(self) -> str:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            found = _SERVING.search(self.text())
            if found:
                return found[1] or found[2]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the server did not come up:\n{self.text()}")

    def text(self) -> str:
        """Its stderr so far."""
        return self.log.read_text(encoding="utf-8")

    def logged(self, text: str) -> str:
        """The line of its log with this text, which it writes within a moment."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            for line in self.text().splitlines():
                if text in line:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"the log has no {text!r}:\n{self.text()}")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(
        self, path: str, body: Any = None, headers: Optional[Mapping[str, str]] = None, method: Optional[str] = None
    ) -> Answer:
        """One request; ``body`` is JSON unless it is bytes already."""
        return ask(self.url + path, body, headers, method)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after this signal."""
        self.process.send_signal(number)
        return self.process.wait(START_S)


def ask(
    url: str, body: Any = None, headers: Optional[Mapping[str, str]] = None, method: Optional[str] = None
) -> Answer:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with _opener.open(request, timeout=START_S) as answer:
            return Answer(answer.status, _small(answer.headers.items()), answer.read())
    except HTTPError as error:
        with error:
            return Answer(error.code, _small(error.headers.items()), error.read())


def _small(items: Sequence[Tuple[str, str]]) -> Dict[str, str]:
    return {name.lower(): value for name, value in items}


@contextmanager
def serving(folder: Path, *arguments: str, environment: Optional[Mapping[str, str]] = None) -> Iterator[Served]:
    """``neuronbert serve`` with these arguments at a free port; killed at the end where it still runs."""
    with started(folder, *arguments, environment=environment) as (process, log):
        yield Served(process, log)


@contextmanager
def started(
    folder: Path, *arguments: str, environment: Optional[Mapping[str, str]] = None
) -> Iterator[Tuple["subprocess.Popen[str]", Path]]:
    """The process, with its stderr in a file, as soon as it is there."""
    log = folder / f"serve-{time.monotonic_ns()}.log"
    command: List[str] = [sys.executable, "-m", "neuronbert", "serve", *arguments]
    if "--port" not in arguments:
        command += ["--port", "0"]
    with open(log, "w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            command, stderr=stderr, stdout=subprocess.DEVNULL, text=True, env={**os.environ, **(environment or {})}
        )
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
