"""Changed artifacts and checkpoints load or are refused; and the tool that changes them notices when they do not."""

import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest

from neuronbert_tools import attack_files
from neuronbert_tools.attack_files import Child, Limits, attack, base_artifact, base_checkpoint, is_of_an_engine, main
from neuronbert_tools.file_mutations import changed

LIMITS = Limits(seconds=30, memory_bytes=2 << 30)


@pytest.mark.parametrize(("kind", "seed"), [("artifacts", 2026), ("checkpoints", 2026)])
def test_no_change_of_a_file_ends_in_anything_but_a_load_or_a_documented_error(kind, seed, capsys):
    counts = {"artifacts": 0, "checkpoints": 0, kind: 60}
    arguments = [f"--{name}={count}" for name, count in counts.items()]
    code = main([*arguments, f"--seed={seed}"])
    said = capsys.readouterr()
    report = json.loads(said.out)["attacks"][0]
    assert code == 0 and report["findings"] == [], said.err
    outcomes = report["outcomes"]
    assert sum(outcomes.values()) == 60
    # Changes that all load, or are all refused at the digest, would test nothing.
    assert outcomes["loaded"] >= 5 and sum(outcomes[name] for name in outcomes if name.endswith("Error")) >= 30


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {"artifact": base_artifact(folder / "artifact"), "checkpoint": base_checkpoint(folder / "checkpoint")}


@pytest.mark.parametrize("kind", ["artifact", "checkpoint"])
def test_what_is_not_changed_loads(bases, kind):
    attack_files.warm_up(kind, bases[kind], False)


def snapshot(folder: Path):
    return {
        path.relative_to(folder).as_posix(): (os.lstat(path).st_mode, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
        if not path.is_symlink()
    }


def test_the_same_seed_makes_the_same_change_and_another_one_another(bases, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    states = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        said = changed(Path(shutil.copytree(bases["artifact"], tmp_path / name)), random.Random(seed))
        states.append((said, snapshot(tmp_path / name)))
    assert states[0] == states[1] != states[2]


def test_an_error_that_is_not_documented_is_a_finding(bases, tmp_path, monkeypatch):
    def broken(folder, choice, trusted_key):
        raise KeyError("requires")

    monkeypatch.setattr(attack_files, "use_artifact", broken)
    found = attack("artifact", bases["artifact"], tmp_path / "it", "1", False)
    assert found["outcome"] == "FAULT" and "KeyError: 'requires'" in found["traceback"]


# A child whose first load never ends.
HANGS = """
import json, sys, time
first, count = json.loads(sys.argv[2])[2:4]
for number in range(first, first + count):
    print(json.dumps({"begins": number}), flush=True)
    time.sleep(0 if number else 600)
    print(json.dumps({"number": number, "outcome": "loaded"}), flush=True)
"""


def test_a_load_that_never_ends_is_a_finding_and_the_next_one_goes_on(bases, monkeypatch):
    """The child's first line says what begins; without a second one in time it is killed."""
    monkeypatch.setattr(attack_files, "module_command", lambda _, *arguments: [sys.executable, "-c", HANGS, *arguments])
    waiting = Limits(seconds=5, memory_bytes=LIMITS.memory_bytes)
    found = list(Child("artifact", bases["artifact"], 0, 3, 1, False, waiting).results())
    assert [(one["number"], one["outcome"]) for one in found] == [(0, "HUNG"), (1, "loaded"), (2, "loaded")]


# A child in which a library prints while it loads.
PRINTS = """
import json, sys
first, count = json.loads(sys.argv[2])[2:4]
for number in range(first, first + count):
    print(json.dumps({"begins": number}), flush=True)
    print("*** EP Error ***\\n" * (number == 1), end="no newline" * (number == 1), flush=True)
    print(json.dumps({"number": number, "outcome": "BackendFailed"}), flush=True)
"""


def test_what_is_printed_to_stdout_is_a_finding(bases, monkeypatch):
    monkeypatch.setattr(
        attack_files, "module_command", lambda _, *arguments: [sys.executable, "-c", PRINTS, *arguments]
    )
    found = list(Child("artifact", bases["artifact"], 0, 3, 1, False, LIMITS).results())
    assert [one["outcome"] for one in found] == ["BackendFailed", "PRINTED", "BackendFailed"]
    assert found[1]["traceback"] == "*** EP Error ***no newline"


def test_only_a_graph_file_alone_excuses_a_crash():
    graph = "variants/onnxruntime-fp32/model.onnx: bytes [1] changed"
    assert is_of_an_engine({"outcome": "DIED", "done": graph})
    assert not is_of_an_engine({"outcome": "DIED", "done": f"{graph}; config.json: cut to 5 bytes"})
    assert not is_of_an_engine({"outcome": "FAULT", "done": graph})


def test_a_changed_folder_is_kept_for_a_person(tmp_path, capsys):
    kept = tmp_path / "kept"
    assert main(["--artifacts", "30", "--checkpoints", "0", "--first", "7", "--keep", str(kept)]) == 0
    assert sorted(os.listdir(kept)) == sorted(f"artifact-{number}" for number in range(7, 37))
    said = capsys.readouterr().err
    assert "artifact 7: " in said
