"""A made-up server in a thread of this process, for the tests of what a benchmark makes of answers."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, Iterator, List, Optional, Tuple

DIGEST = "d" * 64
STAGES = "tokenise;dur=1, queue;dur=2, batch_wait;dur=3, worker_wait;dur=4, device;dur=5, decode;dur=6, total;dur=21"


def info(**changes: Any) -> Dict[str, Any]:
    """What /info of a neuronbert server says."""
    variant = {"name": "neuron-b1", "backend": "neuron", "precision": "bf16", "batch_size": 1}
    model = {
        "name": "answers",
        "task": "question-answering",
        "digest": DIGEST,
        "emulated": False,
        "checkpoint": {"fingerprint": "f" * 64, "source": "demo"},
        "variants": [variant],
        "workers": 4,
        "offers": [],
        **changes,
    }
    return {"version": "0.1.0", "models": [model]}


class MadeServer:
    """Answers GET as ``said`` by path, and POST as ``answer``; keeps what it was posted."""

    def __init__(self) -> None:
        self.said: Dict[str, Tuple[int, Any]] = {"/info": (200, info())}
        self.answer: Tuple[int, Any] = (200, {"answer": "Jim"})
        self.headers: Dict[str, str] = {"Server-Timing": STAGES, "X-Artifact-Digest": DIGEST}
        self.asked: List[Tuple[str, Dict[str, str], Any]] = []
        self.url = ""


@contextmanager
def made_server() -> Iterator[MadeServer]:
    made = MadeServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._send(*made.said.get(self.path, (404, {"error": "no such route"})))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            self._send(*made.answer, made.headers)

        def _send(self, status: int, document: Any, headers: Optional[Dict[str, str]] = None) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
