"""The commands under tools/: the shell ones for real in a folder of their own."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import List

import pytest

from neuronbert.artifact.manifest import Artifact
from neuronbert.tasks.question_answering.squad import load_squad
from neuronbert_tools.launcher import launch

if sys.version_info < (3, 11):
    pytest.skip("what lies under tools/ is for the current stack's Pythons", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
SHELL_TOOLS = ["environment.sh", "quickstart", "test", "check"]
XQUAD = ROOT / "tests" / "data" / "xquad" / "xquad-en.json"


# --- the shell tools ---


def run_shell(root: Path, code: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run ``code`` after tools/environment.sh, with ``root`` as the repository root."""
    script = f'ROOT="$1"; cd "$ROOT"; . "{TOOLS}/environment.sh"\n{code}'
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "PYTHONPATH")}
    return subprocess.run(
        ["sh", "-euc", script, "tools/quickstart", str(root)],
        env={**environment, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def python_that_says(version: str, folder: Path) -> Path:
    """This interpreter, but claiming to be of another version."""
    path = folder / f"python-{version}"
    info = tuple(int(part) for part in version.split("."))
    patch = f"import sys; sys.version_info = {info!r} + ('final', 0); sys.argv.pop(0); exec(sys.argv[0])"
    # After -c CODE the arguments are as CODE alone would see them.
    path.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" -c "{patch}" "$@"\n')
    path.chmod(0o755)
    return path


def python_without_ensurepip(folder: Path) -> Path:
    """This interpreter, but failing as Debian's does without python3-venv."""
    path = folder / "python-without-ensurepip"
    path.write_text(
        '#!/bin/sh\nif [ "$2" = venv ] && [ "$3" != --without-pip ]; then mkdir "$3"; exit 1; fi\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def made_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a .venv that tools/environment.sh made."""
    root = tmp_path_factory.mktemp("checkout")
    made = run_shell(root, "make_venv", PYTHON=sys.executable)
    assert made.returncode == 0, made.stderr
    return root


@pytest.mark.parametrize("tool", SHELL_TOOLS)
def test_the_shell_reads_it(tool: str) -> None:
    assert subprocess.run(["sh", "-n", str(TOOLS / tool)]).returncode == 0


@pytest.mark.parametrize("version", ["3.8.18", "3.10.13", "3.14.0"])
def test_an_unsupported_python_is_named(version: str, tmp_path: Path) -> None:
    python = python_that_says(version, tmp_path)
    done = run_shell(tmp_path, "find_python", PYTHON=str(python))
    assert done.returncode == 1
    assert f"{python} is {version}; this needs 3.11 - 3.13" in done.stderr
    assert "try: install one of them, or name it: PYTHON=" in done.stderr


@pytest.mark.parametrize("version", ["3.11.0", "3.12.9", "3.13.1"])
def test_a_supported_python_is_taken(version: str, tmp_path: Path) -> None:
    python = python_that_says(version, tmp_path)
    done = run_shell(tmp_path, 'find_python; printf %s "$BASE_PYTHON"', PYTHON=str(python))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout).exists()


def test_a_python_that_does_not_run_is_named(tmp_path: Path) -> None:
    done = run_shell(tmp_path, "find_python", PYTHON=str(tmp_path / "absent"))
    assert done.returncode == 1
    assert f"PYTHON={tmp_path}/absent does not run" in done.stderr


def test_a_made_venv_is_used_again(made_venv: Path) -> None:
    assert run_shell(made_venv, "venv_works").returncode == 0
    assert run_shell(made_venv, "venv_works", PYTHON=sys.executable).returncode == 0


def test_a_venv_of_another_python_is_not_used(made_venv: Path, tmp_path: Path) -> None:
    other = python_that_says("3.12.99", tmp_path)
    assert run_shell(made_venv, "venv_works", PYTHON=str(other)).returncode != 0


def test_a_moved_venv_is_not_used(made_venv: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(made_venv, moved, symlinks=True)
    assert run_shell(moved, "venv_works").returncode != 0


@pytest.mark.parametrize("lost", ["bin/python", "bin/activate", "lib"])
def test_a_half_made_venv_is_not_used(made_venv: Path, tmp_path: Path, lost: str) -> None:
    # At its own place, so that it is the loss and not the place that is noticed.
    kept = tmp_path / "kept"
    (made_venv / ".venv" / lost).rename(kept)
    try:
        assert run_shell(made_venv, "venv_works").returncode != 0
    finally:
        kept.rename(made_venv / ".venv" / lost)
    assert run_shell(made_venv, "venv_works").returncode == 0


def test_what_is_installed_is_stamped(tmp_path: Path) -> None:
    """A changed requirement, a moved checkout or a failed start is noticed; nothing else is."""
    demo = "examples/demo-checkpoint/setup.cfg"
    for name in ("setup.cfg", "setup.py", "tools/constraints-current.txt", "neuronbert/__init__.py", demo):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "python").symlink_to(sys.executable)
    (scripts / "neuronbert").symlink_to(shutil.which("true") or "")
    assert run_shell(tmp_path, "is_installed dev").returncode != 0
    assert run_shell(tmp_path, 'stamp_text >"$VENV/.installed-dev"').returncode == 0
    assert run_shell(tmp_path, "is_installed dev").returncode == 0
    assert run_shell(tmp_path, "is_installed compile").returncode != 0

    (scripts / "neuronbert").unlink()
    assert run_shell(tmp_path, "is_installed dev").returncode != 0
    (scripts / "neuronbert").symlink_to(shutil.which("true") or "")
    assert run_shell(tmp_path, "is_installed dev").returncode == 0
    with (tmp_path / "setup.cfg").open("a") as setup:
        setup.write("# changed\n")
    assert run_shell(tmp_path, "is_installed dev").returncode != 0


@pytest.mark.slow
def test_a_python_without_ensurepip_gets_its_pip_elsewhere(tmp_path: Path) -> None:
    index = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", str(tmp_path / "download"), "pip"],
        capture_output=True,
    )
    if index.returncode != 0:
        pytest.skip("no package index can be reached")
    python = python_without_ensurepip(tmp_path)
    done = run_shell(tmp_path, "make_venv; venv_works", PYTHON=str(python))
    assert done.returncode == 0, done.stderr
    assert "has no working ensurepip" in done.stderr


def test_without_any_pip_the_package_to_install_is_named(tmp_path: Path) -> None:
    code = "borrow_pip() { return 1; }; download_pip() { return 1; }; make_venv"
    done = run_shell(tmp_path, code, PYTHON=str(python_without_ensurepip(tmp_path)))
    assert done.returncode == 1
    assert f"python3.{sys.version_info[1]}-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("arguments", [["--stack", "none"], ["--stack=none"]])
def test_an_unknown_stack_is_refused(arguments: List[str]) -> None:
    done = subprocess.run([str(TOOLS / "test"), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "there is no stack 'none'" in done.stderr and "--stack current, or --stack inf1" in done.stderr


def fake_python(path: Path, version: str) -> Path:
    """Something that says it is Python ``version``; with an empty one, what pyenv leaves of a Python switched off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n[ -n '{version}' ] && echo {version}\n")
    path.chmod(0o755)
    return path


def test_an_old_python_is_found_on_the_path_and_among_pyenvs(tmp_path: Path) -> None:
    on_path, pyenvs = tmp_path / "bin", tmp_path / "a pyenv" / "versions"
    variables = {"PATH": f"{on_path}:/usr/bin:/bin", "PYENV_ROOT": str(pyenvs.parent), "HOME": str(tmp_path)}
    assert run_shell(tmp_path, "python_of 3.4", **variables).returncode != 0
    installed = fake_python(pyenvs / "3.4.9" / "bin" / "python", "3.4.9")
    fake_python(pyenvs / "3.40.1" / "bin" / "python", "3.40.1")
    assert run_shell(tmp_path, "python_of 3.4", **variables).stdout.strip() == str(installed)
    shim = fake_python(on_path / "python3.4", "")
    assert run_shell(tmp_path, "python_of 3.4", **variables).stdout.strip() == str(installed)
    fake_python(shim, "3.4.2")
    assert run_shell(tmp_path, "python_of 3.4", **variables).stdout.strip() == str(shim)
    fake_python(on_path / "pyenv", str(pyenvs.parent))  # it says where its root is
    shim.unlink()
    assert run_shell(tmp_path, "python_of 3.4", **{**variables, "PYENV_ROOT": ""}).stdout.strip() == str(installed)


RUN_PYTEST = "-m pytest -n auto --maxprocesses 4 --dist loadfile"


def run_test_tool(
    root: Path, *arguments: str, found: str, fails: str = "nothing"
) -> "subprocess.CompletedProcess[str]":
    """tools/test where the Pythons ``found`` are, environments cost nothing, and pytest fails in that of ``fails``."""
    (root / "tools").mkdir(exist_ok=True)
    shutil.copy(TOOLS / "test", root / "tools" / "test")
    (root / "tools" / "environment.sh").write_text(f'''
. "{TOOLS}/environment.sh"
python_of() {{ case " {found} " in *" $1 "*) echo "/somewhere/python$1" ;; *) return 1 ;; esac; }}
ensure_old_transformers() {{ :; }}
ensure_environment() {{
    mkdir -p "$VENV/bin"
    cat >"$VENV/bin/python" <<'PYTHON'
#!/bin/sh
place=$(basename "$(dirname "$(dirname "$0")")")
echo "$place $PYTHONPATH $*"
case "$place" in *{fails}) exit 4 ;; esac
PYTHON
    chmod +x "$VENV/bin/python"
}}
''')
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "INF1_PYTHONS")}
    command = [str(root / "tools" / "test"), *arguments]
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def test_the_inf1_stack_runs_on_every_python_there_is(tmp_path: Path) -> None:
    done = run_test_tool(tmp_path, "--stack", "inf1", found="3.8 3.10")
    assert done.returncode == 0, done.stderr
    first, old, last = done.stdout.splitlines()
    assert first == f".venv-inf1-3.8  {RUN_PYTEST}" and last == f".venv-inf1-3.10  {RUN_PYTEST}"
    environment, tests = old.split(f" {RUN_PYTEST} ")
    assert environment == f".venv-inf1-3.8 {tmp_path}/.venv-inf1-3.8/transformers-4.6.0"
    assert tests.startswith("tests/backends/") and all((ROOT / test).is_file() for test in tests.split())


def test_chosen_tests_run_on_the_pythons_that_are_found(tmp_path: Path) -> None:
    done = run_test_tool(tmp_path, "--stack=inf1", "-k", "a name", found="3.10")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f".venv-inf1-3.10  {RUN_PYTEST} -k a name\n"
    assert "NOT RUN: inf1 stack on Python 3.8 (python3.8 was not found" in done.stderr


def test_a_failure_on_one_python_fails_the_inf1_stack_after_the_others(tmp_path: Path) -> None:
    done = run_test_tool(tmp_path, "--stack", "inf1", found="3.8 3.10", fails="3.8")
    assert done.returncode == 1
    assert "error: the inf1 stack failed: 3.8 3.8-transformers-4.6.0" in done.stderr
    assert f".venv-inf1-3.10  {RUN_PYTEST}" in done.stdout


def test_the_inf1_stack_without_its_pythons_fails_and_says_which(tmp_path: Path) -> None:
    done = run_test_tool(tmp_path, "--stack", "inf1", found="3.12")
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs one of python3.8 or python3.10" in done.stderr and "try: install one" in done.stderr


@pytest.mark.parametrize(("fails", "status"), [("nothing", 0), (".venv", 4)])
def test_the_current_stack_says_that_the_other_was_not_run(tmp_path: Path, fails: str, status: int) -> None:
    done = run_test_tool(tmp_path, "-x", found="3.10", fails=fails)
    assert (done.returncode, done.stdout) == (status, f".venv  {RUN_PYTEST} --no-loadscope-reorder -x\n")
    missing, unused = done.stderr.splitlines()
    assert missing.startswith("NOT RUN: inf1 stack (python3.8 was not found")
    assert unused.startswith("NOT RUN: inf1 stack on Python 3.10 (run it with: ") and "--stack inf1)" in unused


def test_the_environments_of_the_two_stacks_are_apart(tmp_path: Path) -> None:
    code = 'use_inf1 3.10 /somewhere/python3.10; printf "%s\\n" "$VENV" "$CONSTRAINTS" "$PYTHON"'
    done = run_shell(tmp_path, code)
    assert done.stdout.split() == [
        f"{tmp_path}/.venv-inf1-3.10",
        "tools/constraints-inf1.txt",
        "/somewhere/python3.10",
    ]
    refused = run_shell(tmp_path, f"use_inf1 3.10 {sys.executable}; find_python")
    assert refused.returncode == 1 and "this needs 3.10 - 3.10" in refused.stderr


# --- the job ---


def test_the_job_is_measured_against_the_engine(echo_artifact: Artifact) -> None:
    command = [sys.executable, str(TOOLS / "measure_job"), str(echo_artifact.folder), str(XQUAD)]
    options = ["--questions", "20", "--rounds", "1", "--workers", "1", "--target", "0"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["questions"] == 20
    assert set(report["samples"]) == set(report["median_ratios"]) == {"engine", "job, default", "job, 1 workers"}
    assert report["median_ratios"]["engine"] == {"questions_per_s": 1.0, "cpu_s": 1.0}
    assert "20 questions on" in done.stderr


# --- long and short documents ---


def test_long_documents_have_the_same_questions_and_leave_what_is_there_alone(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "make_documents"), "long", str(XQUAD), str(tmp_path / "long.json")]
    done = subprocess.run([*command, "--questions", "50"], capture_output=True, text=True, check=True)
    made = load_squad(tmp_path / "long.json")
    asked = {question.id: question for question in load_squad(XQUAD)}
    assert 40 <= len(made) <= 50 and f"{len(made)} questions about documents of 5," in done.stdout
    for question in made:
        assert asked[question.id].context in question.context and len(question.context.split()) >= 5000
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and "exists already" in again.stderr
    assert load_squad(tmp_path / "long.json") == made


def test_short_documents_are_the_sentences_with_the_answer(tmp_path: Path) -> None:
    output = tmp_path / "short.json"
    command = [sys.executable, str(TOOLS / "make_documents"), "short", str(XQUAD), str(output)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    made = load_squad(output)
    asked = {question.id: question for question in load_squad(XQUAD)}
    assert len(made) > len(asked) / 2
    for question in made:
        assert question.context in asked[question.id].context and 0 < len(question.context.split()) <= 30
        for answer, start in zip(question.answers, question.answer_starts):
            assert answer and question.context[start : start + len(answer)] == answer
    none = subprocess.run([*command[:-1], str(tmp_path / "none.json"), "--words", "1"], capture_output=True, text=True)
    assert none.returncode == 1 and "has no question for short documents" in none.stderr
    assert not (tmp_path / "none.json").exists()


# --- the Python commands ---

LAUNCHERS = [path for path in sorted(TOOLS.iterdir()) if path.is_file() and b"python3" in path.read_bytes()[:30]]


def test_the_commands_are_one_launcher_and_each_has_its_module() -> None:
    assert len(LAUNCHERS) == 27
    assert len({path.read_bytes() for path in LAUNCHERS}) == 1
    assert [path for path in LAUNCHERS if not os.access(path, os.X_OK)] == []
    assert [path for path in LAUNCHERS if not (TOOLS / "neuronbert_tools" / f"{path.stem}.py").is_file()] == []


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("torch", '-m pip install "neuronbert[compile]"'),
        ("scipy", ".venv/bin/python tools/anything, in the environment"),
    ],
)
def test_a_command_says_which_library_is_missing(
    missing: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = types.ModuleType("neuronbert_tools.anything")
    module.main = lambda arguments: importlib.import_module(missing)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert launch("tools/anything") == 1
    first, second = capsys.readouterr().err.splitlines()
    assert missing in first and first.startswith("error: ")
    assert second.startswith("  try: ") and said in second


@pytest.mark.parametrize("name", ["chaos", "finetune.py"])
def test_a_command_runs_from_any_folder_on_the_checkout(name: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(TOOLS / name), "--help"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout.splitlines()[0]
