"""Behind each claim of SECURITY.md stands a test; here that they exist, and those that belong to no one module."""

import ast
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import write_checkpoint

from neuronbert import Runner, load_artifact
from neuronbert.artifact.manifest import SELFTEST_NAME, Artifact
from neuronbert.artifact.self_test_file import read_self_test
from neuronbert.backends.outputs import PER_ROW, Output
from neuronbert.errors import ArtifactError
from neuronbert.tasks.checkpoints import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
CLAIMS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_the_page_names_its_tests() -> None:
    assert len(CLAIMS) >= 25
    assert PAGE.count("::test_") == len(CLAIMS), "one is not written as the others"


@pytest.mark.parametrize(("path", "name"), CLAIMS, ids=[name for _, name in CLAIMS])
def test_every_claim_has_a_test(path: str, name: str) -> None:
    body = ast.parse((ROOT / path).read_bytes()).body
    assert name in [node.name for node in body if isinstance(node, ast.FunctionDef)]


def test_the_readme_leads_to_it() -> None:
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_remote_code_never_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder = write_checkpoint(tmp_path, "bert")
    (folder / "modeling_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModelForQuestionAnswering"), "modeling_evil.Evil")
    (folder / "config.json").write_text(json.dumps(config))
    load_checkpoint(folder).torch_model()
    assert not (tmp_path / "ran").exists()


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> object:
        return Path.touch, (self.path,)


def test_a_pickle_in_the_self_test_is_not_loaded(echo_copy: Path, tmp_path: Path) -> None:
    artifact = load_artifact(echo_copy)
    array = np.empty((1, 1), dtype=object)
    array[0, 0] = Evil(tmp_path / "ran")
    names = ("input_ids", "attention_mask", "token_type_ids", "logits")
    np.savez(echo_copy / SELFTEST_NAME, **dict.fromkeys(names, array))
    with pytest.raises(ArtifactError):
        read_self_test(artifact.folder, [Output("logits", PER_ROW)])
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")
def test_a_worker_listens_on_nothing(echo_artifact: Artifact) -> None:
    with Runner(echo_artifact, workers=1) as runner:
        folder = Path("/proc", str(runner.stats()["workers"][0]["pid"]))
        links = [os.readlink(path) for path in (folder / "fd").iterdir()]
        inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
        assert inodes
        for protocol in ("tcp", "tcp6", "udp", "udp6"):
            table = folder / "net" / protocol
            lines = table.read_text().splitlines()[1:] if table.exists() else []
            assert not inodes & {line.split()[9] for line in lines}
        named = [line.split() for line in (folder / "net" / "unix").read_text().splitlines()[1:]]
        assert {words[6] for words in named if len(words) > 7} & inodes == set()
