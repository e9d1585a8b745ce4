"""One revision of a hub checkpoint is fetched from a real HTTP server that answers as the hub does."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from tiny_checkpoints import write_checkpoint
from tiny_encoders import WIDTH, write_dense, write_json, write_sentence_folder

from neuronbert.checkpoint.hub import looks_like_hub_id
from neuronbert.checkpoint.loading import load_base_checkpoint
from neuronbert.errors import CheckpointError
from neuronbert.tasks.checkpoints import load_checkpoint, modules_of_tasks

OLD, NEW = "a" * 40, "b" * 40
SENTENCE_ENCODER = (
    "config.json", "model.safetensors", "sentence_bert_config.json", "tokenizer_config.json", "vocab.txt",
)  # fmt: skip


class Hub(ThreadingHTTPServer):
    """Repositories at their commits: {"owner/name": {commit: folder}}; main is the last commit."""

    daemon_threads = True

    def __init__(self, repositories: Dict[str, Dict[str, Path]]):
        super().__init__(("127.0.0.1", 0), HubAnswers)
        self.repositories = repositories
        self.asked: List[Tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubAnswers(BaseHTTPRequestHandler):
    """The two routes a download uses: what a repository holds, and one of its files."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        self.server.asked.append((self.command, path))
        if path.startswith("api/models/"):
            self._describe(*path[len("api/models/") :].partition("/tree/"))
        else:
            repository, _, rest = path.partition("/resolve/")
            commit, _, name = rest.partition("/")
            self._file(repository, commit, name)

    def _describe(self, rest: str, tree: str, tree_revision: str) -> None:
        repository, _, revision = rest.partition("/revision/")
        commit = self._commit(repository, tree_revision or revision)
        if not commit:
            return
        folder = self.server.repositories[repository][commit]
        paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        body: Any = {"id": repository, "modelId": repository, "sha": commit, "private": False, "downloads": 0,
                     "tags": [], "siblings": [{"rfilename": name} for name in paths]}  # fmt: skip
        if tree:
            body = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": etag(path)}
                for name, path in paths.items()
            ]
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: str, revision: str, name: str) -> None:
        commit = self._commit(repository, revision)
        if commit:
            path = self.server.repositories[repository][commit] / name
            self._send(200, path.read_bytes(), {"ETag": f'"{etag(path)}"', "X-Repo-Commit": commit})

    def _commit(self, repository: str, revision: str) -> str:
        if repository == "owner/gated" and self.headers.get("Authorization") != "Bearer hf_right":
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask its owner"})
            return ""
        if repository == "owner/broken":
            self._send(418, b"{}", {})
            return ""
        commits = self.server.repositories.get(repository, {})
        if not commits:
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository Not Found"})
            return ""
        if revision in ("", "main"):
            return list(commits)[-1]
        if revision not in commits:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Revision Not Found"})
            return ""
        return revision

    def _send(self, status: int, body: bytes, headers: Dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    root = tmp_path_factory.mktemp("hub")
    old = write_checkpoint(root / "old", "bert")
    new = write_checkpoint(root / "new", "bert", initializer_range=0.1)
    (new / "README.md").write_text("nobody needs this")
    (new / "modeling_evil.py").write_text("raise SystemExit('remote code ran')")
    config = json.loads((new / "config.json").read_text())
    config["auto_map"] = {"AutoModelForQuestionAnswering": "modeling_evil.Evil"}
    (new / "config.json").write_text(json.dumps(config))
    pickled = Path(shutil.copytree(old, root / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    sentences = write_sentence_folder(root / "sentences", kinds=("Pooling", "Dense", "Normalize"))
    write_dense(sentences / "2_Dense", WIDTH, 5)
    write_json(sentences / "onnx" / "config.json", {"nobody": "needs this"})
    below = Path(shutil.copytree(sentences, root / "below"))
    (below / "0_Transformer").mkdir()
    for name in SENTENCE_ENCODER:
        (below / name).rename(below / "0_Transformer" / name)
    entries = json.loads((below / "modules.json").read_text())
    entries[0]["path"] = "0_Transformer"
    write_json(below / "modules.json", entries)
    for folder in (sentences, below):
        (folder / "2_Dense" / "README.md").write_text("nobody needs this")
        (folder / "2_Dense" / "pytorch_model.bin").write_text("the same weights, as a pickle")
    return {"old": old, "new": new, "pickled": pickled, "sentences": sentences, "below": below}


@pytest.fixture(scope="module")
def hub(folders: Dict[str, Path]) -> Iterator[Hub]:
    models = {OLD: folders["old"], NEW: folders["new"]}
    others = {"gated": "old", "pickled": "pickled", "sentences": "sentences", "below": "below"}
    server = Hub(
        {"owner/reader": models, **{f"owner/{name}": {OLD: folders[folder]} for name, folder in others.items()}}
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


PROBE = """
import json, sys
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert.errors import NeuronBertError
for arguments in json.loads(sys.argv[1]):
    try:
        found = load_checkpoint(arguments.pop("source"), **arguments)
        print(json.dumps([found.source, found.revision, found.fingerprint]))
    except NeuronBertError as error:
        print(json.dumps([error.message, error.hint]))
"""


STDERR: List[str] = []  # the lines of the latest process


def load_in_a_process(url: str, cache: Path, *calls: Dict[str, Any], **environment: str) -> List[List[str]]:
    """What load_checkpoint gives for each call, where HF_ENDPOINT is ``url``: the hub library reads it at import."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "http"))}
    variables.update(HF_ENDPOINT=url, HF_HOME=str(cache), NO_PROXY="127.0.0.1", HF_HUB_DISABLE_TELEMETRY="1")
    variables.update(environment)
    command = [sys.executable, "-c", PROBE, json.dumps(calls)]
    done = subprocess.run(command, env=variables, capture_output=True, check=True, text=True)
    STDERR[:] = done.stderr.splitlines()
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_revision_pins_everything(hub: Hub, folders: Dict[str, Path], tmp_path: Path) -> None:
    hub.asked.clear()
    latest, pinned = load_in_a_process(
        hub.url, tmp_path, {"source": "owner/reader"}, {"source": "owner/reader", "revision": OLD}
    )
    assert latest == ["owner/reader", NEW, load_checkpoint(folders["new"]).fingerprint]
    assert pinned == ["owner/reader", OLD, load_checkpoint(folders["old"]).fingerprint]
    fetched = {path for command, path in hub.asked if "/resolve/" in path}
    names = {path.rsplit("/", 1)[1] for path in fetched}
    assert names == {"config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"}
    assert all(f"/resolve/{NEW}/" in path or f"/resolve/{OLD}/" in path for path in fetched)


@pytest.mark.parametrize(("name", "place"), [("sentences", ""), ("below", "0_Transformer/")])
def test_of_sentence_encoders_only_what_is_needed(
    hub: Hub, folders: Dict[str, Path], tmp_path: Path, name: str, place: str
) -> None:
    hub.asked.clear()
    call = {"source": f"owner/{name}"}
    expected = [f"owner/{name}", OLD, load_checkpoint(folders[name]).fingerprint]
    assert load_in_a_process(hub.url, tmp_path, call) == [expected]
    fetched = {path.partition(f"/resolve/{OLD}/")[2] for command, path in hub.asked if "/resolve/" in path}
    beside = {"modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"}
    dense = {"2_Dense/config.json", "2_Dense/model.safetensors"}
    assert fetched == {*(place + file for file in SENTENCE_ENCODER), *beside, *dense}
    assert load_in_a_process("http://127.0.0.1:9", tmp_path, {**call, "local_files_only": True}) == [expected]


def test_a_base_to_train_from_is_where_the_encoder_is(folders: Dict[str, Path]) -> None:
    base = load_base_checkpoint(folders["below"], modules=modules_of_tasks())
    assert base.config["hidden_size"] == WIDTH
    with pytest.raises(CheckpointError, match="has no config.json"):
        load_base_checkpoint(folders["below"])


def test_the_cache_serves_without_the_hub(hub: Hub, folders: Dict[str, Path], tmp_path: Path) -> None:
    load_in_a_process(hub.url, tmp_path, {"source": "owner/reader"})
    nowhere = "http://127.0.0.1:9"
    expected = ["owner/reader", NEW, load_checkpoint(folders["new"]).fingerprint]
    local = {"source": "owner/reader", "local_files_only": True}
    assert load_in_a_process(nowhere, tmp_path, {"source": "owner/reader"}, local) == [expected, expected]
    (line,) = STDERR  # of the first: the second asked for the cache
    assert re.fullmatch(rf"the hub cannot be reached \(.+\): owner/reader at {NEW} is from the cache", line)
    assert load_in_a_process(nowhere, tmp_path, {"source": "owner/reader"}, HF_HUB_OFFLINE="1") == [expected]


def test_refusals(hub: Hub, tmp_path: Path) -> None:
    absent, gated, opened, revision, pickled, broken = load_in_a_process(
        hub.url,
        tmp_path,
        {"source": "owner/absent"},
        {"source": "owner/gated"},
        {"source": "owner/gated", "token": "hf_right"},
        {"source": "owner/reader", "revision": "v9"},
        {"source": "owner/pickled"},
        {"source": "owner/broken"},
    )
    assert absent[0] == "owner/absent is neither a folder here nor a checkpoint the hub shows us (HTTP 401)"
    assert "HF_TOKEN" in absent[1]
    assert gated[0] == "owner/gated is gated: its owner asks for an agreement first"
    assert "https://huggingface.co/owner/gated" in gated[1] and "--token" in gated[1]
    assert opened[:2] == ["owner/gated", OLD]
    assert revision == ["owner/reader has no revision 'v9'", "a branch, tag or commit of that repository"]
    assert pickled[0].startswith("owner/pickled has its weights in pytorch_model.bin only, a pickle")
    assert "--allow-pickle" in pickled[1]
    assert broken[0] == "the hub refused owner/broken with HTTP 418"


def test_a_cache_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    ((message, hint),) = load_in_a_process(hub.url, tmp_path / "file", {"source": "owner/reader"})
    assert message.startswith("owner/reader cannot be kept in the hub's cache: Not a directory")
    assert "HF_HOME" in hint


def test_no_network(tmp_path: Path) -> None:
    online, local = load_in_a_process(
        "http://127.0.0.1:9",
        tmp_path,
        {"source": "owner/reader"},
        {"source": "owner/reader", "local_files_only": True, "revision": "v1"},
    )
    assert online[0].startswith("owner/reader is not a folder here, and the hub cannot be reached to fetch it ([Err")
    assert "network" in online[1] and '"demo"' in online[1]
    expected = "owner/reader at revision v1 is neither a folder here nor in the local hub cache, and downloading is off"
    assert local[0] == expected
    assert "--local-files-only" in local[1]


@pytest.mark.parametrize("name", ["deepset/minilm-uncased-squad2", "distilbert-base-cased-distilled-squad", "a/b.c_d"])
def test_hub_ids(name: str) -> None:
    assert looks_like_hub_id(name)


@pytest.mark.parametrize(
    "name", ["", ".", "./model", "/model", "a/b/c", "model/", "~/model", "a b", "a/..", "a--b", "é/b"]
)
def test_other_texts(name: str) -> None:
    assert not looks_like_hub_id(name)
