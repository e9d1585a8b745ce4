"""The life of a server: it starts, is told to end or to load again, loses workers, and says what it should to whom."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List

import click
import pytest
from echo_files import with_echo

from neuronbert.artifact.manifest import Artifact
from neuronbert.cli.main import CONTEXT_SETTINGS
from neuronbert.cli.verbs.serving import serve_
from server.hostile import (
    PATIENCE_S,
    QUESTION,
    asking,
    bulk_line,
    connected,
    counts,
    head,
    until_closed,
    wait_until,
)
from server.served import Answer, Served, ask, serving, started

ASKED = {"inputs": QUESTION}
KEYS = ("first-secret-key", "second-secret-key")
SECRET_TEXT = "zanzibar"
HANDSHAKE_S = 30.0  # a ceiling


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


def in_background(server: Served, count: int, answers: List[Answer], path: str = "/") -> List[threading.Thread]:
    threads = [threading.Thread(target=lambda: answers.append(server.ask(path, ASKED))) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


# ---------------------------------------------------------------------------- the end


def test_sigterm_is_not_ready_at_once_and_goes_on_until_all_is_answered(slow_artifact: Path, tmp_path: Path) -> None:
    with serving(tmp_path, f"slow={slow_artifact}", "--threads", "1", "--grace-s", "2") as server:
        answers: List[Answer] = []
        asking_now = in_background(server, 40, answers)
        wait_until(lambda: counts(server, "slow")["submitted"] == 40, "all of them wait")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.ask("/v2/health/ready").status == 503, "not ready")
        assert server.ask("/v2/health/live").status == 200
        assert "draining" in server.ask("/health").json["error"]
        assert server.ask("/", ASKED).status == 200  # during the grace
        assert server.process.wait(PATIENCE_S) == 0
        for thread in asking_now:
            thread.join(PATIENCE_S)
        assert [answer.status for answer in answers] == [200] * 40
        assert "Traceback" not in server.text() and "error" not in server.text().replace("error=", "")


def test_what_was_accepted_in_the_last_moment_is_finished(slow_artifact: Path, tmp_path: Path) -> None:
    with serving(tmp_path, f"slow={slow_artifact}", "--threads", "1", "--grace-s", "0") as server:
        answers: List[Answer] = []
        asking_now = in_background(server, 24, answers)
        wait_until(lambda: counts(server, "slow")["submitted"] == 24, "all of them wait")
        assert server.end(signal.SIGTERM) == 0
        for thread in asking_now:
            thread.join(PATIENCE_S)
        assert [answer.status for answer in answers] == [200] * 24


def test_what_cannot_be_finished_in_time_is_503_to_be_asked_elsewhere(slow_artifact: Path, tmp_path: Path) -> None:
    limits = ("--grace-s", "0", "--drain-timeout-s", "0.5", "--threads", "1")
    with serving(tmp_path, f"slow={slow_artifact}", *limits) as server, connected(server.port) as bulk:
        line = bulk_line(1)
        bulk.sendall(head("POST", "/v1/bulk", "Transfer-Encoding: chunked") + b"%x\r\n%s\r\n" % (len(line), line))
        answers: List[Answer] = []
        asking_now = in_background(server, 80, answers)
        wait_until(lambda: counts(server, "slow")["submitted"] >= 80, "all of them wait")
        assert server.end(signal.SIGTERM) == 0
        for thread in asking_now:
            thread.join(PATIENCE_S)
        assert {answer.status for answer in answers} == {200, 503} and len(answers) == 80
        assert all("retry-after" in answer.headers for answer in answers if answer.status == 503)
        assert not until_closed(bulk).endswith(b"0\r\n\r\n")  # it was not ended by its client
        assert "Traceback" not in server.text()


@pytest.mark.parametrize(
    ("signals", "code"),
    [((signal.SIGTERM, signal.SIGTERM), 0), ((signal.SIGINT,), 0), ((signal.SIGHUP, signal.SIGTERM), 0)],
    ids=["twice", "Ctrl-C", "the terminal has gone"],
)
def test_other_ways_to_end_it(echo_artifact: Artifact, tmp_path: Path, signals: Any, code: int) -> None:
    with serving(tmp_path, f"a={echo_artifact.folder}", "--threads", "1", "--grace-s", "3600") as server:
        for number in signals:
            server.process.send_signal(number)
            time.sleep(0.1)  # two of one kind would be one
        assert server.process.wait(PATIENCE_S) == code  # and not after the grace
        assert "Traceback" not in server.text()


@pytest.mark.parametrize("delay_s", [0.0, 0.2, 0.5])
def test_sigterm_while_it_starts(echo_artifact: Artifact, tmp_path: Path, delay_s: float) -> None:
    """From when it has its address."""
    port = free_port()
    arguments = (f"a={echo_artifact.folder}", "--threads", "1", "--port", str(port), "--grace-s", "0")
    with started(tmp_path, *arguments) as (process, log):
        wait_until(lambda: _is_taken(port), "it has its address")
        time.sleep(delay_s)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
        assert "Traceback" not in log.read_text() and "error:" not in log.read_text()


@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_sighup_while_it_starts(echo_artifact: Artifact, tmp_path: Path, delay_s: float) -> None:
    """What it asks for is being done."""
    port = free_port()
    arguments = (f"a={echo_artifact.folder}", "--threads", "1", "--port", str(port), "--grace-s", "0", "--allow-reload")
    with started(tmp_path, *arguments) as (process, log):
        wait_until(lambda: _is_taken(port), "it has its address")
        time.sleep(delay_s)
        process.send_signal(signal.SIGHUP)
        server = Served(process, log)
        assert server.ask("/", ASKED).status == 200
        assert server.end() == 0, log.read_text()


def _is_taken(port: int) -> bool:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", port))
            return False
        except OSError:
            return True


# ---------------------------------------------------------------------------- the start


def test_it_lives_before_it_is_ready(echo_artifact: Artifact, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = (f"a={echo_artifact.folder}", "--threads", "1", "--port", str(port))
    pause = {"PYTHONPATH": f"{_slow_worker(tmp_path)}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with started(tmp_path, *arguments, environment=pause) as (process, log):
        wait_until(lambda: _status(url, "/v2/health/live") == 200, "it lives")
        loading = [ask(url + path) for path in ("/v2/health/ready", "/ping", "/v2/models/a/ready")]
        refused = [ask(url + path, body) for path, body in (("/", ASKED), ("/embed", {"inputs": "a"}))]
        (tmp_path / "go").touch()
        assert [answer.status for answer in [*loading, *refused]] == [503] * 5
        assert all("loaded" in answer.json["error"] for answer in refused)
        assert all(answer.headers["retry-after"] for answer in [*loading, *refused])
        server = Served(process, log)
        assert server.ask("/v2/health/ready").status == 200 and server.ask("/", ASKED).status == 200


def _status(url: str, path: str) -> int:
    try:
        return ask(url + path).status
    except OSError:
        return 0


def _slow_worker(folder: Path) -> Path:
    """A folder for PYTHONPATH: workers wait for a file before they do anything."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(
        "import os, time\n"
        "if b'serve' not in open('/proc/self/cmdline', 'rb').read().split(b'\\0'):\n"
        f"    while not os.path.exists({str(folder / 'go')!r}):\n"
        f"        open({str(folder / 'waits')!r}, 'w').close()\n"
        "        time.sleep(0.02)\n"
    )
    return folder / "site"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["NOWHERE"], 1, "NOWHERE"),
        (["BROKEN"], 1, "was changed"),
        (["a=ECHO", "b=BROKEN"], 1, "was changed"),
        (["a=ECHO", "--port", "TAKEN"], 1, "cannot listen at 127.0.0.1:"),
        (["a=ECHO", "--host", "no.such.host.invalid"], 2, "there is no address"),
        (["a=ECHO", "a=BROKEN"], 2, "both be called 'a'"),
        (["a b=ECHO"], 2, "cannot be the name of a model"),
        (["a=ECHO", "--ssl-keyfile", "JSON"], 2, "needs a key and a certificate"),
        (["a=ECHO", "--ssl-keyfile", "JSON", "--ssl-certfile", "JSON"], 2, "no certificate with its private key"),
        (["a=ECHO", "--ssl-keyfile", "ECHO", "--ssl-certfile", "ECHO"], 2, "cannot be read"),
        (["a=ECHO", "--api-key", "two words"], 2, "visible ASCII"),
        (["a=ECHO", "--grace-s", "-1"], 2, "grace_s"),
        (["a=ECHO", "--keep-alive-s", "nan"], 2, "keep_alive_s"),
        (["a=ECHO", "--variant", "none-such"], 1, "none-such"),
    ],
)
def test_what_keeps_it_from_starting_is_said(
    echo_artifact: Artifact, echo_copy: Path, tmp_path: Path, arguments: List[str], code: int, said: str
) -> None:
    (echo_copy / "variants" / "echo-fp32" / "echo.json").write_text("{}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = {
            "ECHO": str(echo_artifact.folder),
            "BROKEN": str(echo_copy),
            "TAKEN": str(taken.getsockname()[1]),
            "JSON": str(echo_copy / "variants" / "echo-fp32" / "echo.json"),
        }
        for word, value in words.items():
            arguments = [argument.replace(word, value) for argument in arguments]
        with started(tmp_path, *arguments) as (process, log):
            found = process.wait(PATIENCE_S)
            text = log.read_text()
    assert found == code, text
    assert said in text and "Traceback" not in text and "a bug in neuronbert" not in text


def test_options_without_an_end_are_taken(echo_artifact: Artifact, tmp_path: Path) -> None:
    endless = [word for name in ENDLESS for word in (f"--{name}", "inf")]
    with serving(tmp_path, f"a={echo_artifact.folder}", "--threads", "1", *endless) as server:
        assert server.ask("/", ASKED).status == 200
        assert server.ask("/", ASKED).status == 200
        assert server.end(signal.SIGINT) == 0
        assert "Traceback" not in server.text()


ENDLESS = ("keep-alive-s", "drain-timeout-s", "grace-s", "head-timeout-s", "body-timeout-s", "request-timeout-s")


# ---------------------------------------------------------------------------- options as environment variables

# Not of the server alone: docs/cli says where they are from.
NOT_VARIABLES = {"trusted_key", "as_json"}


def another_value(option: click.Option) -> str:
    """What the option takes in its variable, and is not its default."""
    if option.is_flag:
        return "0" if option.default is True else "1"
    if isinstance(option.type, click.Choice):
        return next(choice for choice in option.type.choices if choice != option.default)
    return "3" if option.type.name in ("integer", "integer range", "float", "float range") else "some words"


def test_every_option_is_also_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    options = [option for option in serve_.params if isinstance(option, click.Option)]
    told = [option for option in options if option.name not in NOT_VARIABLES]
    assert len(told) > 25
    untold = serve_.make_context("serve", ["ARTIFACT"], **CONTEXT_SETTINGS).params
    for option in told:
        monkeypatch.setenv(f"NEURONBERT_{option.name.upper()}", another_value(option))
    found = serve_.make_context("serve", ["ARTIFACT"], **CONTEXT_SETTINGS).params
    for option in told:
        assert found[option.name] != untold[option.name], option.name
    assert found["api_key"] == ("some", "words")
    monkeypatch.setenv("NEURONBERT_ARTIFACTS", "a=b c")
    assert serve_.make_context("serve", [], **CONTEXT_SETTINGS).params["artifacts"] == ("a=b", "c")
    monkeypatch.setenv("NEURONBERT_PORT", "tcp://10.0.0.1:8080")  # a Kubernetes service's, and none of ours
    assert serve_.make_context("serve", ["ARTIFACT"], **CONTEXT_SETTINGS).params["port"] == untold["port"]
    with pytest.raises(click.UsageError):
        monkeypatch.setenv("NEURONBERT_PORT", "none")
        serve_.make_context("serve", ["ARTIFACT"], **CONTEXT_SETTINGS)


# ---------------------------------------------------------------------------- reloading


@pytest.fixture(scope="module")
def reloadable(echo_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of two models whose folders may be changed: NAME is in .folder / NAME."""
    folder = tmp_path_factory.mktemp("reloadable")
    for name in ("first", "second"):
        shutil.copytree(echo_artifact.folder, folder / name)
    places = [f"{name}={folder / name}" for name in ("first", "second")]
    with serving(folder, *places, "--threads", "1", "--allow-reload", "--log-format", "json") as server:
        yield server


@pytest.fixture()
def gated(echo_artifact: Artifact, tmp_path: Path) -> Iterator[Served]:
    """A server whose next workers wait for the file "go", having made "waits"."""
    gate = {"PYTHONPATH": f"{_slow_worker(tmp_path)}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    (tmp_path / "go").touch()
    arguments = (f"a={echo_artifact.folder}", "--threads", "1", "--allow-reload", "--grace-s", "0")
    with serving(tmp_path, *arguments, environment=gate) as server:
        (tmp_path / "go").unlink()
        yield server
        (tmp_path / "go").touch()  # for a worker that still waits: it finds nobody, and ends


def folder_of(server: Served, name: str) -> Path:
    return server.log.parent / name


def replace(folder: Path, **more: Any) -> str:
    """Put another artifact in the place of this one, as a deployment does: by renaming. Its digest."""
    new, old = folder.with_name("new"), folder.with_name("old")
    shutil.copytree(folder, new)
    digest = str(with_echo(new, **more).manifest["digest"])
    folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old)
    return digest


def digest_of(server: Served, name: str) -> str:
    return server.ask(f"/models/{name}", ASKED).headers["x-artifact-digest"]


def test_a_reload_under_load_loses_no_request(reloadable: Served) -> None:
    before = digest_of(reloadable, "first")
    digest = replace(folder_of(reloadable, "first"), modulus=997)
    stop, answers = threading.Event(), []

    def keep_asking() -> None:
        while not stop.is_set():
            answers.append(reloadable.ask("/models/first", ASKED))

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    loaded = reloadable.ask("/v2/repository/models/first/load", {})
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert loaded.status == 200 and loaded.json["digest"] == digest != before
    assert {answer.status for answer in answers} == {200} and len(answers) > 20
    # Each answer is by the artifact that it names.
    by_digest: Dict[str, set] = {}
    for answer in [*answers, reloadable.ask("/models/first", ASKED)]:
        by_digest.setdefault(answer.headers["x-artifact-digest"], set()).add(answer.body)
    assert set(by_digest) == {before, digest} and all(len(bodies) == 1 for bodies in by_digest.values())


def test_a_broken_artifact_leaves_the_old_one(reloadable: Served) -> None:
    before = digest_of(reloadable, "second")
    path = folder_of(reloadable, "second") / "variants" / "echo-fp32" / "echo.json"
    good = path.read_bytes()
    path.write_text("{}")
    refused = reloadable.ask("/v2/repository/models/second/load", {}, {"X-Request-Id": "broken-1"})
    path.write_bytes(good)
    assert refused.status == 422 and "stays" in refused.json["error"]
    assert str(folder_of(reloadable, "second")) not in refused.body.decode()
    assert digest_of(reloadable, "second") == before
    assert reloadable.ask("/v2/health/ready").status == 200
    assert "was changed" in reloadable.text()


def test_what_is_taken_out_is_not_found_and_the_rest_is_ready(reloadable: Served) -> None:
    assert reloadable.ask("/v2/repository/models/second/unload", {}).status == 200
    for path in ("/models/second", "/v2/models/second/infer", "/v1/bulk?model=second"):
        assert reloadable.ask(path, ASKED).status == 404
    assert reloadable.ask("/v2/health/ready").status == 200
    assert [each["state"] for each in reloadable.ask("/v2/repository/index", {}).json] == ["READY", "UNAVAILABLE"]
    assert "second" not in str(reloadable.ask("/info").json)
    assert reloadable.ask("/v2/repository/models/second/unload", {}).status == 200  # again
    assert reloadable.ask("/v2/repository/models/second/load", {}).status == 200
    assert reloadable.ask("/models/second", ASKED).status == 200


def test_of_two_reloads_at_once_one_is_refused(gated: Served) -> None:
    load = "/v2/repository/models/a/load"
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(gated.ask, load, {})
        wait_until(lambda: (gated.log.parent / "waits").exists(), "the first is loading")
        assert gated.ask(load, {}).status == 409 == gated.ask("/v2/repository/models/a/unload", {}).status
        (gated.log.parent / "go").touch()
        assert first.result(PATIENCE_S).status == 200
    assert gated.ask("/v2/repository/models/nobody/load", {}).status == 404


def test_the_end_waits_for_no_load(gated: Served) -> None:
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(gated.ask, "/v2/repository/models/a/load", {})
        wait_until(lambda: (gated.log.parent / "waits").exists(), "it is loading")
        assert gated.end() == 0  # its worker waits for a file that never comes
        refused = loading.result(PATIENCE_S)
    assert refused.status == 503 and refused.headers["retry-after"]
    assert "Traceback" not in gated.text()


def test_without_any_model_it_is_not_ready(gated: Served) -> None:
    assert gated.ask("/v2/repository/models/a/unload", {}).status == 200
    not_ready = gated.ask("/v2/health/ready")
    assert not_ready.status == 503 and not_ready.headers["retry-after"]
    refused = gated.ask("/", ASKED)
    assert refused.status == 404 and "try: none is loaded" in refused.json["error"]
    assert gated.ask("/metrics").status == 200


def test_sighup_loads_again(reloadable: Served) -> None:
    digest = replace(folder_of(reloadable, "first"), modulus=983)
    reloadable.process.send_signal(signal.SIGHUP)
    wait_until(lambda: digest_of(reloadable, "first") == digest, "the new one is in place")
    assert reloadable.ask("/v2/health/ready").status == 200


def test_each_line_of_the_log_is_json(reloadable: Served) -> None:
    reloadable.ask("/models/first", ASKED, {"X-Request-Id": "json-1"})
    reloadable.ask("/a%0a%1b[31m%00%22", headers={"X-Request-Id": "json-2"})
    reloadable.logged("json-2")
    documents = [json.loads(line) for line in reloadable.text().splitlines()]
    assert all({"at", "level", "logger", "message"} <= set(document) for document in documents)
    by_id = {document.get("request_id"): document for document in documents}
    assert by_id["json-1"]["status"] == 200 and by_id["json-1"]["model"] == "first"
    assert by_id["json-2"]["message"] == 'GET /a\n\x1b[31m\0"'
    ready = next(document for document in documents if document.get("event") == "ready")
    assert ready["message"] == "worker ready" and ready["worker"] == 0 and ready["pid"] > 0
    assert [document["url"] for document in documents if "url" in document] == [reloadable.url]


def test_monitors_are_not_in_the_log_while_all_is_well(served: Served) -> None:
    quiet = ("/health", "/ping", "/metrics", "/v2/health/live", "/v2/health/ready")
    of_model = ("/v2/models/labels/stats", "/v2/models/labels/ready", "/v2/models/labels/versions/1/stats")
    for path in (*quiet, *of_model):
        assert served.ask(path, headers={"X-Request-Id": "monitor-1"}).status == 200
    assert served.ask("/v2/models/nobody/stats", headers={"X-Request-Id": "monitor-2"}).status == 404
    assert served.ask("/info", headers={"X-Request-Id": "monitor-3"}).status == 200
    served.logged("monitor-3")
    assert "monitor-1" not in served.text() and "monitor-2" in served.text()


def test_without_leave_nothing_is_reloaded(served: Served) -> None:
    for verb in ("load", "unload"):
        refused = served.ask(f"/v2/repository/models/answers/{verb}", {})
        assert refused.status == 403 and "--allow-reload" in refused.json["error"]


# ---------------------------------------------------------------------------- workers


def test_it_is_ready_while_a_worker_is(faulty_artifact: Path, tmp_path: Path) -> None:
    with serving(tmp_path, f"a={faulty_artifact}", "--threads", "1") as server:
        (worker,) = server.ask("/v2/models/a/stats").json["runner"]["workers"]
        os.kill(worker["pid"], signal.SIGSTOP)  # it is there, and takes its time to die
        os.kill(worker["pid"], signal.SIGKILL)
        wait_until(lambda: counts(server, "a")["deaths"] >= 1, "its death is known")
        statuses = set()
        while 200 not in statuses:
            statuses.add(server.ask("/v2/health/ready").status)
            assert server.ask("/v2/health/live").status == 200
        assert statuses <= {200, 503}
        assert server.ask("/", ASKED).status == 200
        restarts = re.findall(r"worker_restarts_total{.*} (\d+)", server.ask("/metrics").body.decode())
        assert restarts == ["1"]


def test_where_no_worker_can_start_it_says_so_until_another_artifact_is_loaded(
    echo_artifact: Artifact, tmp_path: Path
) -> None:
    """A deployment puts another artifact in the folder, and the worker dies before it is loaded."""
    folder = Path(shutil.copytree(echo_artifact.folder, tmp_path / "a"))
    with serving(tmp_path, f"a={folder}", "--threads", "1", "--allow-reload") as server:
        (worker,) = server.ask("/v2/models/a/stats").json["runner"]["workers"]
        digest = replace(folder, modulus=983)
        os.kill(worker["pid"], signal.SIGKILL)
        wait_until(lambda: server.ask("/v2/models/a/stats").json["runner"]["workers"][0]["unable"], "it cannot start")
        answer = server.ask("/", ASKED)
        assert (answer.status, answer.json["error_type"]) == (503, "unavailable") and "retry-after" in answer.headers
        lines = server.ask("/v1/bulk", bulk_line(1)).body.decode()
        assert "takes no requests at the moment" in lines
        told = server.ask("/v2/models/a/stats").body.decode() + server.ask("/metrics").body.decode() + lines
        assert str(tmp_path) not in told and "the server's log says why" in told
        assert "Traceback" not in server.text() and "another artifact" in server.text()
        assert server.ask("/v2/repository/models/a/load", {}).status == 200
        answer = server.ask("/", ASKED)
        assert (answer.status, answer.headers["x-artifact-digest"]) == (200, digest)


# ---------------------------------------------------------------------------- whom it lets in, and what it tells


@pytest.fixture(scope="module")
def locked(faulty_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    keys = {"NEURONBERT_API_KEY": KEYS[1]}
    with serving(
        tmp_path_factory.mktemp("locked"), f"a={faulty_artifact}", "--threads", "1", environment=keys
    ) as server:
        yield server


CLOSED = ["/info", "/metrics", "/v2", "/v1/models", "/v2/models/a", "/v2/models/a/stats", "/v2/models/a/ready"]


@pytest.mark.parametrize("path", CLOSED)
def test_without_a_key_nothing_is_told(locked: Served, path: str) -> None:
    refused = locked.ask(path)
    assert refused.status == 401 and refused.headers["www-authenticate"].startswith("Bearer")
    assert locked.ask(path, headers={"Authorization": f"Bearer {KEYS[1]}"}).status == 200


def test_workers_do_not_get_the_keys(locked: Served) -> None:
    stats = locked.ask("/v2/models/a/stats", headers={"X-Api-Key": KEYS[1]}).json
    (worker,) = stats["runner"]["workers"]
    environment = Path(f"/proc/{worker['pid']}/environ").read_bytes()
    assert b"PATH=" in environment and KEYS[1].encode() not in environment


@pytest.mark.parametrize("path", ["/", "/invocations", "/models/a", "/embed", "/v1/embeddings", "/v1/bulk"])
def test_without_a_key_nothing_is_answered(locked: Served, path: str) -> None:
    assert locked.ask(path, b"{").status == 401  # and the body is not looked at


@pytest.mark.parametrize("path", ["/", "/v2/health/live", "/v2/health/ready", "/health", "/ping", "/openapi.json"])
def test_health_and_the_page_are_open(locked: Served, path: str) -> None:
    assert locked.ask(path).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": f"Bearer {KEYS[1]}"}, 200),
        ({"Authorization": f"bearer  {KEYS[1]} "}, 200),
        ({"X-Api-Key": KEYS[1]}, 200),
        ({"Authorization": f"Bearer {KEYS[1]}x"}, 401),
        ({"Authorization": f"Bearer {KEYS[1][:-1]}"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": f"Basic {KEYS[1]}"}, 401),
        ({"Authorization": KEYS[1]}, 401),
        ({"X-Api-Key": ""}, 401),
        ({"X-Api-Key": "\xff" * 100}, 401),
        ({"X-Api-Key": KEYS[0]}, 401),
        ({"Cookie": f"key={KEYS[1]}"}, 401),
    ],
)
def test_a_key_is_one_or_none(locked: Served, headers: Dict[str, str], status: int) -> None:
    answer = locked.ask("/", ASKED, headers)
    assert answer.status == status
    assert KEYS[1] not in answer.body.decode() and KEYS[1] not in str(answer.headers)


def test_a_key_in_the_url_is_none(locked: Served) -> None:
    assert locked.ask(f"/info?api_key={KEYS[1]}").status == 401


def test_neither_keys_nor_texts_are_in_the_log_nor_folders_in_an_error(
    locked: Served, served: Served, artifacts: Dict[str, Path]
) -> None:
    key = {"X-Api-Key": KEYS[1]}
    bodies: List[Any] = [
        asking(SECRET_TEXT),
        asking(f"{SECRET_TEXT} dynamite"),
        asking(f"{SECRET_TEXT} refuse"),
        {"inputs": SECRET_TEXT},
        {"inputs": [SECRET_TEXT]},
        {"inputs": {"question": SECRET_TEXT}},
        {"inputs": {"question": SECRET_TEXT, "context": 7}},
        {"inputs": {"question": SECRET_TEXT, "context": ""}},
        {"inputs": {"question": SECRET_TEXT * 2000, "context": "a"}, "parameters": {"max_seq_len": 3}},
        f'{{"inputs": "{SECRET_TEXT}'.encode(),
        SECRET_TEXT.encode(),
    ]
    said = [locked.ask("/", body, key) for body in bodies]
    lines = bulk_line(1, SECRET_TEXT) + f'["{SECRET_TEXT}"]\n{SECRET_TEXT}\n'.encode() + bulk_line(2, "refuse")
    said.append(locked.ask("/v1/bulk", lines, key))
    assert SECRET_TEXT not in locked.text() and not any(key in locked.text() for key in KEYS)
    for path in ("/nothing", "/models/nobody", "/v2/models/a/versions/7", "/models/..%2f..%2fetc%2fpasswd"):
        said.append(locked.ask(path, {}, key))
    said += [served.ask(path, {"inputs": 7}) for path in ("/", "/models/labels", "/embed", "/predict", "/v1/bulk")]
    folders = [str(locked.log.parent.parent), *(str(folder.parent) for folder in artifacts.values())]
    for answer in said:
        assert not any(folder in answer.body.decode() for folder in folders), answer
        assert "Traceback" not in answer.body.decode()


# ---------------------------------------------------------------------------- addresses, TLS


def test_it_listens_at_an_address_of_ipv6(echo_artifact: Artifact, tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(tmp_path, f"a={echo_artifact.folder}", "--threads", "1", "--host", "::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert server.ask("/", ASKED).status == 200


def test_tls(echo_artifact: Artifact, tmp_path: Path) -> None:
    key, certificate = _self_signed(tmp_path)
    files = ("--ssl-keyfile", str(key), "--ssl-certfile", str(certificate), "--grace-s", "0", "--head-timeout-s", "2")
    with serving(tmp_path, f"a={echo_artifact.folder}", "--threads", "1", *files) as server:
        assert server.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        request = urllib.request.Request(f"{server.url}/", json.dumps(ASKED).encode())
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=PATIENCE_S) as answer:
            assert answer.status == 200
        with connected(server.port, HANDSHAKE_S) as silent:
            assert silent.recv(1) == b""  # without a handshake it is closed, long before asyncio's minute
        with pytest.raises(OSError):  # plain HTTP at its port
            ask(server.url.replace("https", "http") + "/v2/health/live")
        with context.wrap_socket(connected(server.port, HANDSHAKE_S), server_hostname="127.0.0.1") as idle:
            idle.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            assert idle.recv(15) == b"HTTP/1.1 200 OK"
            # It reads no more, and says no goodbye: that is not waited for as long as for an answer.
            assert server.end() == 0 and "Traceback" not in server.text()
            assert "graceful shutdown exceeded" not in server.text()
    other_key, _ = _self_signed(tmp_path / "other")
    with started(
        tmp_path, f"a={echo_artifact.folder}", "--ssl-keyfile", str(other_key), "--ssl-certfile", str(certificate)
    ) as (process, log):
        assert process.wait(PATIENCE_S) == 2 and "no certificate with its private key" in log.read_text()


def _self_signed(folder: Path) -> Any:
    """A key and a certificate for 127.0.0.1, in PEM."""
    x509 = pytest.importorskip("cryptography.x509")
    import ipaddress

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    return folder / "key.pem", folder / "certificate.pem"
