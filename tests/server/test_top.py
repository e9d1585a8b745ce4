"""``neuronbert top URL`` watches a server that runs elsewhere."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, List

import pytest

from neuronbert.cli.main import run
from neuronbert.cli.remote import RemoteRunners
from neuronbert.errors import InputError, UsageError
from server.served import Served


def test_top_shows_each_model_of_a_server(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["top", served.url, "--once"]) == 0
    shown = capsys.readouterr().out
    for name in ("answers", "labels", "ranks", "tags", "embeds"):
        assert f"{served.url} {name} (echo-fp32), up 0:" in shown
    assert shown.count("queue 0 of 1,024 rows") == 5
    assert run(["top", served.url, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runners"]) == 5


def test_rates_are_taken_between_two_looks(served: Served) -> None:
    server = RemoteRunners(served.url)
    assert server.running()[1]["rows_per_s"] is None
    served.ask("/models/labels", {"inputs": "jim"})
    assert (server.running()[1]["rows_per_s"] or 0) > 0


def test_of_a_model_that_was_loaded_again_there_are_no_rates_yet(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = RemoteRunners(served.url)
    watched.running()
    ask = watched._server.ask

    def reloaded(path: str, form: Any) -> Dict[str, Any]:
        found = ask(path, form)
        for model in found.get("models", ()):
            model["loaded_at"] += 1.0
        return found

    monkeypatch.setattr(watched._server, "ask", reloaded)
    assert all(runner["rows_per_s"] is None for runner in watched.running())
    assert all(runner["rows_per_s"] is not None for runner in watched.running())


def test_a_key_goes_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONBERT_API_KEY", "a-secret-key")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    seen: List[str] = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(307)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(InputError, match="says to ask .*/elsewhere instead"):
            RemoteRunners(url).running()
        server.shutdown()
        thread.join()
    assert seen == ["/info"]


def test_a_server_that_does_not_answer_is_named(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["top", "http://127.0.0.1:9", "--once"]) == 1
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no URL"):
        RemoteRunners("127.0.0.1:8080")
    with pytest.raises(InputError, match="404"):
        RemoteRunners(served.url + "/elsewhere").running()
    watched = RemoteRunners(served.url)
    seen = watched.running()
    monkeypatch.setattr(watched._server, "url", "http://127.0.0.1:9")
    assert watched.running_or_last() == seen
