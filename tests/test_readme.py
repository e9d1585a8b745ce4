"""The README runs as it is typed: every command and every snippet, from top to bottom, with what they print.

In an environment with what tools/quickstart installs, and no more.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List, NamedTuple

import pytest
from bare_environments import make_environment

from neuronbert.artifact.manifest import Artifact

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What is not run here, each marked in the README by a remark in brackets: the rest of a command's line.
NOT_RUN = {
    "tools/quickstart": "continuous integration runs it; here `qa-artifact` is the demo of all tests",
    "tools/test": "runs this",
    "neuronbert compile demo my-artifact": "a minute; tests/compiler/test_compilation.py compiles with auto",
    "neuronbert compile demo both": "a minute; tests/conftest.py:demo_artifact is this one",
    "neuronbert cascade small-artifact": "needs two readers; tests/compiler/test_make_cascade.py makes cascades",
    "neuronbert benchmark both": "3 minutes; a shorter sweep is run",
    "neuronbert benchmark qa-artifact --scenario server --request-rate 20:80:20 --latency": "a minute",
    "neuronbert benchmark qa-artifact --scenario server --request-rate 20:80:20 --compare": "a minute",
    "neuronbert compile demo qa-inf1": "minutes on the emulator; tests/backends/neuron compiles smaller ones",
    "neuronbert serve qa-artifact": "until Ctrl-C; tests/server starts such servers",
    "curl localhost:8080/": "needs the command before it; tests/server runs the lines of docs/serving.md",
    "neuronbert env qa-inf1": "needs what the command before it makes",
    "neuronbert compile demo fast-artifact": "minutes; tests/compiler/test_ladder.py walks up from a tiny model",
    "neuronbert compile demo qa-tvm": "a quarter of an hour; tests/backends/tvm compiles smaller ones",
    "neuronbert answer qa-tvm": "needs what the command before it makes",
    "neuronbert compile demo qa-gpu": "needs a GPU; tests/backends/cuda compiles on the CPU path of the same code",
    "neuronbert benchmark qa-gpu": "needs what the command before it makes",
    "tools/finetune.py": "a minute; tests/tools/test_finetune.py trains smaller ones",
    "neuronbert compile ../intents": "needs what the command before it makes, as the next two do",
    "neuronbert compile cross-encoder": "needs the network",
    "neuronbert compile dslim": "needs the network",
    "neuronbert tag tagger": "needs what the command before it makes",
    "neuronbert rerank ranker": "needs what the command before it makes",
    "neuronbert classify intents-artifact": "tests/tasks/text_classification asks such artifacts",
    "neuronbert compile sentence-transformers": "needs the network",
    "neuronbert evaluate encoder": "needs what the command before it makes",
    "neuronbert compile demo demo-encoder": "a minute; tests/tasks/feature_extraction compiles smaller ones",
    "neuronbert embed demo-encoder": "tests/tasks/feature_extraction asks such artifacts",
    "neuronbert run demo-encoder": "tests/tasks/feature_extraction runs such jobs",
    "neuronbert evaluate intents-artifact": "tests/tasks/text_classification evaluates such artifacts",
}


class Command(NamedTuple):
    """A command of a console block."""

    line: str  # what a shell reads
    remark: str  # in brackets at its end; "" where there is none
    output: List[str]  # what the README says that it prints; "..." is any number of lines


def blocks(language: str) -> List[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> List[Command]:
    found: List[Command] = []
    for block in blocks("console"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                typed, _, remark = line[2:].partition("# (")
                found.append(Command(typed.strip(), remark.rstrip(")"), []))
            else:
                found[-1].output.append(line)
    return [command._replace(output="\n".join(command.output).strip("\n").splitlines()) for command in found]


def reasons(command: Command) -> List[str]:
    return [why for beginning, why in NOT_RUN.items() if command.line.startswith(beginning)]


def test_what_is_not_run_is_marked_for_readers_and_known_here() -> None:
    marked = [command for command in commands() if command.remark]
    assert [command.line for command in marked if len(reasons(command)) != 1] == []
    assert [command.line for command in commands() if not command.remark and reasons(command)] == []
    assert len(marked) == len(NOT_RUN)
    # A block that a shell or Python could read has a tag, so that nothing escapes by having none.
    tags = re.findall(r"^```(\w*)$", README, flags=re.MULTILINE)[::2]
    assert set(tags) == {"console", "python", "diff"}


def test_the_index_of_sections_goes_from_the_start_to_the_details() -> None:
    sections = re.findall(r"^## (.*)$", README, flags=re.MULTILINE)
    assert sections[:5] == [
        "Quickstart",
        "On the command line",
        "In Python",
        "Many requests at once",
        "Measure and plan",
    ]


@pytest.fixture(scope="module")
def clone(demo_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a clone after tools/quickstart: the examples, ``qa-artifact``, and its environment."""
    folder = tmp_path_factory.mktemp("parent") / "clone"
    script = (ROOT / "tools" / "quickstart").read_text(encoding="utf-8")
    extras = re.findall(r"^ensure_environment (\S+)$", script, flags=re.MULTILINE)[0].split(",")
    python = make_environment(folder / ".venv", *extras)
    command = python.with_name("neuronbert")
    command.write_text(f"#!{python}\nfrom neuronbert.__main__ import main\nmain()\n", encoding="utf-8")
    command.chmod(0o755)
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("demo-checkpoint"))
    shutil.copytree(demo_artifact.folder, folder / "qa-artifact")
    (folder / "tmp").mkdir()
    return folder


def run(arguments: List[str], clone: Path) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(clone / ".venv" / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT / "examples" / "demo-checkpoint"),
        "TMPDIR": str(clone / "tmp"),  # `top` sees the runners of other tests otherwise
        "XDG_RUNTIME_DIR": str(clone / "tmp"),
    }
    return subprocess.run(arguments, cwd=clone, env=environment, capture_output=True, text=True, timeout=600)


def comparable(line: str) -> str:
    """A line without what differs from machine to machine: scores, the fastest variant, the width of a column."""
    line = re.sub(r"openvino-(fp32|int8)", "openvino", re.sub(r"\d\.\d+", "#", line))
    return re.sub(r"\s+", " ", line).strip()


def matches(expected: List[str], printed: List[str]) -> bool:
    """Whether these lines were printed; "..." stands for any number of them."""
    if not expected:
        return not printed
    if expected[0] == "...":
        return any(matches(expected[1:], printed[start:]) for start in range(len(printed) + 1))
    return bool(printed) and expected[0] == printed[0] and matches(expected[1:], printed[1:])


@pytest.mark.slow
def test_every_command_runs_as_typed_and_prints_what_the_readme_says(clone: Path) -> None:
    ran = 0
    for command in commands():
        if command.remark:
            continue
        done = run(["bash", "-c", command.line], clone)
        assert done.returncode == 0, (command.line, done.stderr)
        ran += 1
        if command.output:
            expected, printed = command.output, done.stdout.strip("\n").splitlines()
            assert matches([*map(comparable, expected)], [*map(comparable, printed)]), (command.line, done.stdout)
        elif command.line.startswith("neuronbert "):
            assert (done.stdout or done.stderr).strip(), command.line
    assert ran >= 9 and (clone / "report.html").stat().st_size > 10_000
    assert len((clone / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 30


@pytest.mark.slow
def test_every_snippet_runs_and_prints_what_the_readme_says(clone: Path) -> None:
    script = "\n".join(blocks("python"))
    (clone / "snippets.py").write_text(script, encoding="utf-8")
    done = run(["python", "snippets.py"], clone)
    assert done.returncode == 0, done.stderr
    # A comment of its own line says what the line before it prints.
    said: Dict[str, str] = dict(re.findall(r"^ *(print\(.*)\n *# (.*)$", script, flags=re.MULTILINE))
    assert len(said) == script.count("print(") >= 4
    assert [comparable(line) for line in done.stdout.splitlines()] == [comparable(line) for line in said.values()]
