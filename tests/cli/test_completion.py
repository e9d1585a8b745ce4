"""The shells complete commands, options and checkpoints by the lines that the README gives."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import pytest

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
SHELLS = dict(re.findall(r"^\| (bash|zsh|fish) \| `~/\S+` \| `(.+?)` \|$", README, flags=re.MULTILINE))


@pytest.fixture()
def environment(tmp_path: Path) -> Dict[str, str]:
    """One in which the command is on the path."""
    command = tmp_path / "bin" / "neuronbert"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m neuronbert "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}


def completed(shell: str, environment: Dict[str, str], *words: str) -> List[str]:
    """What the shell is told for the last of ``words``, as the script that it reads asks for it."""
    number = words[-1] if shell == "fish" else str(len(words) - 1)
    asked = {"_NEURONBERT_COMPLETE": f"{shell}_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": number}
    done = subprocess.run(["neuronbert"], env={**environment, **asked}, capture_output=True, text=True)
    assert done.stderr == ""
    return re.split(r"[\n,\t]", done.stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_reads_a_script_by_the_line_of_the_readme(shell: str, environment: Dict[str, str]) -> None:
    assert f"_NEURONBERT_COMPLETE={shell}_source neuronbert" in SHELLS[shell]
    variable = {"_NEURONBERT_COMPLETE": f"{shell}_source"}
    done = subprocess.run(["neuronbert"], env={**environment, **variable}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_NEURONBERT_COMPLETE={shell}_complete" in done.stdout
    assert "compile" in completed(shell, environment, "neuronbert", "comp")
    assert "--precision" in completed(shell, environment, "neuronbert", "compile", "--prec")


def test_bash_completes_what_is_typed(environment: Dict[str, str], tmp_path: Path) -> None:
    script = SHELLS["bash"] + (
        '\nCOMP_WORDS=(neuronbert ins); COMP_CWORD=1; _neuronbert_completion neuronbert; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("inspect\n", "")


def test_a_checkpoint_is_the_demo_or_a_folder(environment: Dict[str, str]) -> None:
    assert completed("bash", environment, "neuronbert", "compile", "de") == ["plain", "demo", "file", "de", ""]
    assert completed("bash", environment, "neuronbert", "plan", "my") == ["file", "my", ""]
    assert completed("bash", environment, "neuronbert", "evaluate", "qa", "data", "--against", "d")[1] == "demo"
