"""Starts the other servers, each as its documentation advises, and ends all of their processes."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert.errors import BackendFailed
from neuronbert.hardware.machine import usable_cpus
from neuronbert_tools.paths import ROOT, TOOLS
from neuronbert_tools.server.asking import body_of
from neuronbert_tools.server.served import end_of

START_S = 180.0
END_S = 30.0
ONE_BY_ONE, BATCHES = "one by one", "in batches"


class Peer(NamedTuple):
    """A server: the distribution, the module that starts it, and the form in which it takes a question."""

    distribution: str
    module: str
    modes: Tuple[str, ...]
    body: str  # of overhead.write_bodies
    variables: Mapping[str, str] = {}


PEERS: Mapping[str, Peer] = {
    "litserve": Peer("litserve", "with_litserve", (ONE_BY_ONE, BATCHES), "object"),
    "bentoml": Peer("bentoml", "with_bentoml", (ONE_BY_ONE, BATCHES), "list", {"BENTOML_DO_NOT_TRACK": "True"}),
    # HAProxy, which comes with it, passes on ten times what its own proxy does.
    "ray": Peer(
        "ray",
        "with_ray",
        (ONE_BY_ONE, BATCHES),
        "object",
        {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_USAGE_STATS_ENABLED": "0"},
    ),
}


@contextmanager
def peer_serving(
    name: str, mode: str, python: Path, artifact: Path, logs: Path, workers: Optional[int]
) -> Iterator[str]:
    """The URL of a peer that answers; its processes are a group of their own, which is ended.

    BackendFailed, with the end of its log, where it does not answer within START_S.
    """
    peer, port = PEERS[name], free_port()
    log = logs / f"{name}.log"
    count = usable_cpus() if workers is None else workers
    arguments = [str(artifact), str(port), "batches" if mode == BATCHES else "single", str(count)]
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [str(python), "-m", f"neuronbert_tools.server.peers.{peer.module}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=peer_environment(python, peer.variables),
            cwd=logs,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}/"
    try:
        _await_answer(process, url, peer.body, log)
        yield url
    finally:
        _end_group(process)


def peer_environment(python: Path, variables: Mapping[str, str]) -> Dict[str, str]:
    """This process's variables with the checkout's packages, and the peer's commands on the path."""
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    places = os.pathsep.join([str(ROOT), str(TOOLS)])
    return {**os.environ, "PATH": path, "PYTHONPATH": places, **variables}


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def versions_of(python: Path, names: Sequence[str]) -> Dict[str, str]:
    """Name → version of these peers in their environment."""
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    command: List[str] = [str(python), "-I", "-c", code, *(PEERS[name].distribution for name in names)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(zip(names, printed.split()))


def _await_answer(process: "subprocess.Popen[bytes]", url: str, form: str, log: Path) -> None:
    question = json.loads(body_of(("Who was it?", "It was me.")))["inputs"]
    body = json.dumps({"inputs": question if form == "object" else [question]}).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with suppress(OSError):  # not there yet; HTTPError is one
            with opener.open(request, timeout=END_S) as answer:
                if b"score" in answer.read():
                    return
        time.sleep(0.2)
    raise BackendFailed(f"{url} did not answer:\n{end_of(log)}")


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    # The first process alone: it ends the others, also those that have left its group, as HAProxy of Ray's has.
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        pass  # it is killed with the others
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
