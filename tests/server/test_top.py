"""``neuronbert top URL`` watches a server that runs elsewhere."""

import json

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
