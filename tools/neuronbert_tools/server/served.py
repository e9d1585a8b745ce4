"""A running ``neuronbert serve``, for every measurement: in a process of its own, at a free port of this machine."""

import json
import os
import subprocess
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple

from neuronbert.backends.child import python_environment
from neuronbert.errors import BackendFailed
from neuronbert.hardware.machine import process_cpu_s
from neuronbert_tools.processes import verb_command

MODEL = "model"  # its name there
END_S = 60.0
SHOWN_CHARACTERS = 2000  # of a log

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # not through a proxy of the machine's


class Server(NamedTuple):
    """A server that is ready."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def cpu_s(self) -> float:
        """User and system time of its main process so far; its workers are other processes."""
        return process_cpu_s(self.process.pid)

    @property
    def workers(self) -> List[Dict[str, Any]]:
        """What its runner says of each worker."""
        found: List[Dict[str, Any]] = self.get(f"/v2/models/{MODEL}/stats")["runner"]["workers"]
        return found

    def get(self, path: str) -> Any:
        """The JSON of a route."""
        with _opener.open(self.url + path, timeout=END_S) as answer:
            return json.loads(answer.read())

    def post(self, path: str) -> None:
        """Ask for something that has no body; HTTPError where it is refused."""
        request = urllib.request.Request(self.url + path, b"", method="POST")
        with _opener.open(request, timeout=END_S) as answer:
            answer.read()

    def end(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.terminate()
        return self.process.wait(END_S)


@contextmanager
def serving(artifact: Path, logs: Path, *options: object) -> Iterator[Server]:
    """A server of ``artifact`` that is ready, with these options; its stderr goes to a file in ``logs``.

    BackendFailed, with the end of that file, for one that does not come up.
    """
    log = logs / f"serve-{len(list(logs.glob('serve-*.log')))}.log"
    with open(log, "wb") as stderr:
        process = subprocess.Popen(
            serve_command(artifact, 0, "--json", *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=python_environment(os.environ),
        )
    assert process.stdout is not None
    with process.stdout:
        try:
            told = b"".join(_through(process.stdout, b"}\n"))
            if not told:
                raise BackendFailed(f"the server did not come up:\n{end_of(log)}")
            yield Server(process, json.loads(told)["url"], log)
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _through(lines: Iterable[bytes], last: bytes) -> Iterator[bytes]:
    for line in lines:
        yield line
        if line == last:
            return


def serve_command(artifact: Path, port: int, *options: object) -> List[str]:
    """The command that serves ``artifact`` as MODEL; it ends without a grace."""
    return verb_command("serve", f"{MODEL}={artifact}", "--port", port, "--grace-s", 0, *options)


def end_of(log: Path) -> str:
    """The last of a log, for a message."""
    return log.read_text(encoding="utf-8", errors="replace")[-SHOWN_CHARACTERS:]
