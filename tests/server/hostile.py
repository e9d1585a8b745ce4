"""What attacks a server, for the tests of this folder: raw sockets, many threads, artifacts that take time or break."""

import http.client
import json
import re
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, List, Sequence, TypeVar

from echo_files import with_echo

from neuronbert.checkpoint.tokenizer import Tokenizer
from server.served import Answer, Served

PATIENCE_S = 60.0  # for what takes a moment: a ceiling, on a busy machine
QUESTION = {"question": "Who was it?", "context": "It was Jim Henson, who lived in London."}
# Words in a question, and what happens to the worker that reads them.
FAULTS = {"dynamite": "exit", "refuse": "raise"}

Result = TypeVar("Result")


def slow_copy(artifact: Path, folder: Path, batch_s: float) -> Path:
    """A copy of an echo artifact whose batches, of up to 8 rows, take so long."""
    return with_echo(Path(shutil.copytree(artifact, folder)), batch_s=batch_s).folder


def faulty_copy(artifact: Path, folder: Path) -> Path:
    """A copy of an echo artifact with FAULTS."""
    tokenizer = Tokenizer.from_files(artifact)
    tokens = {tokenizer.backend.token_to_id(word): kind for word, kind in FAULTS.items()}
    return with_echo(Path(shutil.copytree(artifact, folder)), faults=tokens).folder


def asking(word: str) -> Any:
    """A body whose question has this word."""
    return {"inputs": {"question": f"what {word} was it", "context": "It was Jim Henson, who lived in London."}}


def bulk_line(number: int, word: str = "one") -> bytes:
    return json.dumps({"id": number, "question": f"what {word} was it", "context": f"a {number} b"}).encode() + b"\n"


def at_once(asks: Sequence[Callable[[], Result]]) -> List[Result]:
    """The results of all, each in a thread of its own."""
    with ThreadPoolExecutor(len(asks)) as threads:
        return [future.result(PATIENCE_S) for future in [threads.submit(ask) for ask in asks]]


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.02)


def counts(served: Served, model: str) -> Any:
    """What became of the model's inputs."""
    return served.ask(f"/v2/models/{model}/stats").json["runner"]["requests"]


def rows_waiting(served: Served, model: str) -> int:
    return int(served.ask(f"/v2/models/{model}/stats").json["runner"]["queue"]["rows"])


def resident_mib(served: Served) -> float:
    """Memory of the front-end process."""
    return _mib(served, "VmRSS")


def peak_mib(served: Served) -> float:
    """The most memory that the front-end process ever had."""
    return _mib(served, "VmHWM")


def _mib(served: Served, name: str) -> float:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(re.findall(rf"{name}:\s+(\d+)", status)[0]) / 1024


# ---------------------------------------------------------------------------- sockets


def connected(port: int, timeout_s: float = PATIENCE_S) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout_s)


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode("latin-1")


def posted(path: str, body: Any, *headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head("POST", path, f"Content-Length: {len(data)}", *headers) + data


def until_closed(connection: socket.socket) -> bytes:
    """All that the server sends until it closes the connection; a reset counts as that."""
    parts = []
    try:
        while True:
            part = connection.recv(65_536)
            if not part:
                break
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def next_answer(connection: socket.socket) -> Answer:
    """One answer of a connection that stays open. It must be all that the server has sent."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def statuses(data: bytes) -> List[int]:
    """Of the answers in ``data``."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)]
