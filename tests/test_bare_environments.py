"""Where only some libraries are installed every command says which one it lacks, and how to get it; never a bug."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

import pytest
from bare_environments import ROOT, make_environment

from neuronbert.artifact.manifest import Artifact, load_artifact
from neuronbert.cli.main import cli
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.hardware.libraries import BASE

# Runs command lines in one process, which sees the libraries of its environment and no others.
RUN_ALL = """
import contextlib, io, json, sys
from neuronbert.cli.main import run
results = []
for arguments in json.loads(sys.argv[1]):
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = run(arguments)
    results.append([code, stdout.getvalue(), stderr.getvalue()])
print(json.dumps(results))
"""
QUESTIONS = ROOT / "examples" / "questions.jsonl"
SQUAD = ROOT / "examples" / "squad.json"


class Result(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def artifact(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that either engine can answer from, and torch, too."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    output = tmp_path_factory.mktemp("bare") / "artifact"
    backends = ["openvino", "onnxruntime", "torchscript"]
    compile_checkpoint(tiny_checkpoint, output, backend=backends, precision="fp32", skip_gate=True)
    return output


@pytest.fixture(scope="module")
def commands(artifact: Path, tiny_checkpoint: Path) -> Dict[str, List[str]]:
    """Every command, by its verb and what is special about it."""
    question = ["--question", "Who is it?", "--context", "It is me."]
    of_artifact = str(artifact)
    return {
        "inspect": ["inspect", of_artifact],
        "doctor": ["doctor", "--json"],
        "top": ["top"],
        "env": ["env", of_artifact],
        "plan": ["plan", str(tiny_checkpoint), "--json"],
        "plan demo": ["plan", "demo"],
        "answer": ["answer", of_artifact, "--json", *question],
        "classify": ["classify", of_artifact, "--text", "It is me."],
        "embed": ["embed", of_artifact, "--text", "It is me."],
        "rerank": ["rerank", of_artifact, "--query", "Who?", "--text", "It is me."],
        "tag": ["tag", of_artifact, "--text", "It is me."],
        "answer torchscript": ["answer", of_artifact, "--variant", "torchscript-fp32", *question],
        "run": [
            "run",
            of_artifact,
            "--workers",
            "1",
            "--input",
            str(QUESTIONS),
            "--output",
            "answers.jsonl",
        ],
        "evaluate": ["evaluate", of_artifact, str(SQUAD), "--limit", "2"],
        "evaluate demo": ["evaluate", of_artifact, str(SQUAD), "--against", "demo"],
        "evaluate checkpoint": ["evaluate", of_artifact, str(SQUAD), "--against", str(tiny_checkpoint)],
        "compile": ["compile", str(tiny_checkpoint), "compiled"],
        "compile demo": ["compile", "demo", "compiled"],
        "compile hub": ["compile", "some/checkpoint", "compiled", "--local-files-only"],
        "cascade": ["cascade", of_artifact, of_artifact, "cascade"],
        "sign": ["sign", of_artifact, "--key", "key"],
        "serve": ["serve", of_artifact],
        "benchmark": ["benchmark", of_artifact, "--workers", "1", "--concurrency", "1", "--longest-s", "1"],
        "benchmark loadgen": ["benchmark", of_artifact, "--loadgen"],
    }


def install(*extras: str, demo: bool = False) -> str:
    """What is to be typed, after the name of the Python."""
    packages = [f'"neuronbert[{",".join(extras)}]"'] if extras else []
    return " ".join(["-m pip install", *packages, *([str(ROOT / "examples" / "demo-checkpoint")] if demo else [])])


# The exit code, and the hint of what fails.
ANYWHERE = {
    "inspect": (0, ""),
    "doctor": (0, ""),
    "top": (0, ""),
    "env": (1, "neuronbert compile CHECKPOINT OUTPUT --backend neuron"),
    "plan": (0, ""),
    "plan demo": (1, install(demo=True)),
    **dict.fromkeys(
        ("classify", "rerank", "tag", "embed"), (1, "neuronbert answer {artifact} --question ... --context ...")
    ),
    "answer torchscript": (1, install("compile")),
    "evaluate demo": (1, install("compile", demo=True)),
    "evaluate checkpoint": (1, install("compile")),
    "compile": (1, install("compile")),
    "compile demo": (1, install("compile", demo=True)),
    "compile hub": (1, install("compile")),
    "sign": (1, install("sign")),
    "serve": (1, install("serve")),
    "benchmark loadgen": (1, install("loadgen") + ", or leave out --loadgen"),
}
FASTEST = "the extra of the engine that the artifact found to be faster"
ANSWERING = ("answer", "run", "evaluate", "benchmark")
EXPECTED: Dict[str, Dict[str, Any]] = {
    "": {**ANYWHERE, **dict.fromkeys((*ANSWERING, "cascade"), (1, FASTEST))},
    "openvino": {**ANYWHERE, **dict.fromkeys(ANSWERING[:-1], (0, ""))},  # one benchmark is enough
    "onnxruntime": {**ANYWHERE, **dict.fromkeys(ANSWERING, (0, ""))},
}


@pytest.mark.parametrize("extra", sorted(EXPECTED))
def test_what_is_missing_is_named_with_the_command_that_installs_it(
    extra: str, commands: Dict[str, List[str]], artifact: Path, tmp_path: Path
) -> None:
    assert {words[0] for words in commands.values()} == set(cli.commands)
    python = make_environment(tmp_path / "environment", *([extra] if extra else []))
    done = subprocess.run(
        [str(python), "-c", RUN_ALL, json.dumps([commands[name] for name in EXPECTED[extra]])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = dict(zip(EXPECTED[extra], (Result(*one) for one in json.loads(done.stdout))))
    backends = [variant["backend"] for variant in load_artifact(artifact).variants]
    backends.remove("torchscript")  # only loaded by name
    for name, (code, hint) in EXPECTED[extra].items():
        assert results[name].code == code, (name, results[name])
        found = re.findall(r"^  try: (.*)$", results[name].stderr, flags=re.MULTILINE)
        expected = install(backends[0]) if hint == FASTEST else hint.format(artifact=artifact)
        assert (found[0] if found else "").replace(f"{python} ", "") == expected, name
    if extra:
        assert f"{extra}-fp32" in results["evaluate"].stdout


@pytest.mark.parametrize("name", sorted(BASE))
@pytest.mark.parametrize("command", ["answer", "inspect"])
def test_what_neuronbert_itself_requires_is_named_too(name: str, command: str, echo_artifact: Artifact) -> None:
    of_question = ["--question", "Who?", "--context", "It is me."] if command == "answer" else []
    arguments = [command, str(echo_artifact.folder), *of_question]
    without = f"import sys; sys.modules[{name!r}] = None; from neuronbert.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", without, *arguments], capture_output=True, text=True)
    if f"{name} is not installed" in done.stdout + done.stderr:
        assert done.returncode == 1
        assert "-m pip install neuronbert" in done.stdout + done.stderr
    else:
        assert (command, name) in {("inspect", "numpy"), ("inspect", "tokenizers")} and done.returncode == 0
    assert "a bug" not in done.stderr and "Traceback" not in done.stderr
