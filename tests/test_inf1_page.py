"""docs/inf1.md runs as it is typed, on the emulator: every `$` line, in order; a tiny model stands in for the demo."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from neuronbert.hardware.neuron import DRIVER_RELEASE, NEURON_INDEX, TOOLS_RELEASE

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "inf1.md").read_text(encoding="utf-8")


def commands() -> List[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    return [line[2:] for line in lines]


def test_the_page_pins_what_the_package_says() -> None:
    for package, release in (("aws-neuronx-dkms", DRIVER_RELEASE), ("aws-neuronx-tools", TOOLS_RELEASE)):
        assert f"'{package}={release}'" in PAGE and f"'{package}-{release}'" in PAGE
    assert NEURON_INDEX in PAGE and "-c tools/constraints-inf1.txt" in PAGE
    tags = re.findall(r"^```(\w*)$", PAGE, flags=re.MULTILINE)[::2]
    # What only a real machine runs is sh: a line of neuronbert there would run nowhere.
    assert set(tags) == {"sh", "console", "text", "ini", "dockerfile"}
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        assert not re.search(r"^neuronbert ", block, flags=re.MULTILINE)


def typed(heading: str) -> List[str]:
    """The lines of the blocks under a heading that go to a shell or into a Dockerfile, each joined where it goes on."""
    section = re.findall(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)[0]
    blocks = re.findall(r"^```(?:sh|dockerfile)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(line.split()) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def test_the_third_step_needs_nothing_of_the_second() -> None:
    # The machine that only compiles has no driver, and began as empty as the instance.
    lines = typed("3. Python and neuronbert")
    apt = lines.index("sudo apt-get install -y git g++ python3.8-venv")
    assert "sudo apt-get update" in lines[:apt]
    yum = lines.index("sudo yum install -y git gcc-c++")
    assert "sudo amazon-linux-extras install -y python3.8" in lines
    assert max(apt, yum) < lines.index("git clone REPOSITORY neuronbert && cd neuronbert")
    installing = [line for line in typed("2. Driver and tools") if " install " in line]
    assert installing and not [line for line in installing if re.search(r"\b(git|g\+\+|gcc|python)", line)]


def test_the_dockerfile_is_the_third_step() -> None:
    dockerfile, step = typed("In a container"), typed("3. Python and neuronbert")
    assert dockerfile[0] == "FROM ubuntu:20.04" and not [line for line in dockerfile if "sudo" in line]
    (packages,) = [line for line in dockerfile if "apt-get install" in line]
    assert "apt-get update && " in packages and packages.endswith(" git g++ python3.8-venv")
    pip = [line for line in step if line.startswith("python -m pip install -e ")]
    assert len(pip) == 1 and f"RUN {pip[0]}" in dockerfile
    assert [line for line in dockerfile if "git clone REPOSITORY" in line and "python3.8 -m venv" in line]


def test_the_page_is_found() -> None:
    assert "(docs/inf1.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def clone(tmp_path: Path, tiny_checkpoint: Path) -> Path:
    """A folder like a clone, with the command on a path of its own."""
    pytest.importorskip("torch")
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("demo-checkpoint"))
    command = folder / ".venv" / "bin" / "neuronbert"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!{sys.executable}\nfrom neuronbert.__main__ import main\nmain()\n", encoding="utf-8")
    command.chmod(0o755)
    return folder


def substituted(command: str, checkpoint: Path) -> str:
    """The command with another checkpoint, whose weights mean nothing: nobody asks the gate about them."""
    line = re.sub(r"\bdemo\b", shlex.quote(str(checkpoint)), command)
    needs_no_gate = command.startswith("neuronbert compile") and "--no-device" not in command
    return f"{line} --skip-gate" if needs_no_gate else line


@pytest.mark.slow
def test_every_command_of_the_page_runs_on_the_emulator(clone: Path, tiny_checkpoint: Path, neuron_cache: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEURON")}
    environment = {
        **kept,
        "PATH": os.pathsep.join([str(clone / ".venv" / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "examples" / "demo-checkpoint"])),
        "TMPDIR": str(clone),  # `top` sees the runners of other tests otherwise
        "XDG_RUNTIME_DIR": str(clone),
        "NEURONBERT_CACHE": str(neuron_cache),
        "NEURONBERT_EMULATE": "inf1.xlarge",
        "NEURONBERT_EMULATE_DIR": str(clone / "emulator"),
    }
    printed = {}
    for command in commands():
        done = subprocess.run(
            ["bash", "-c", substituted(command, tiny_checkpoint)],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout or done.stderr or not command.startswith("neuronbert "), command
        printed[command] = done.stdout
    assert len(printed) >= 14
    assert "export NEURON_RT_VISIBLE_CORES=0-3" in printed["neuronbert env qa-inf1"]
    assert "export NEURON_RT_VISIBLE_CORES=0\n" in printed["neuronbert env qa-inf1 --worker 0"]
    assert "EMULATED" in printed["neuronbert inspect qa-inf1-carried"]
    made = {str(path.relative_to(clone)) for path in (clone / "qa-inf1").rglob("*")}
    for name in ("neuronbert.json", "config.json", "tokenizer.json", "selftest.npz"):
        assert name in PAGE and f"qa-inf1/{name}" in made
    for folder in re.findall(r"^(qa-inf1/variants/\S+)/", PAGE, flags=re.MULTILINE):
        assert {f"{folder}/model.neuron", f"{folder}/compile.log"} <= made
