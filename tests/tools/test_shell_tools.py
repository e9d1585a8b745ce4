"""The commands under tools/: the shell ones for real in a folder of their own, the comparison piece by piece."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.artifact.manifest import Artifact
from neuronbert_tools.launcher import launch
from neuronbert_tools.peers import cold_start, comparison, environments, summary
from neuronbert_tools.peers.children import Child, ChildFailed
from neuronbert_tools.peers.contenders import CONTENDERS
from neuronbert_tools.questions import squad_pairs

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


# --- the comparison: pure parts ---

BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}


def test_the_arithmetic_of_bert_base() -> None:
    matrices = 12 * (4 * 768 * 768 + 2 * 768 * 3072) + 2 * 768  # 84.9 million weights
    assert summary.operations([1], BERT_BASE) == 2 * matrices + 4 * 768 * 12
    assert summary.operations([128], BERT_BASE) == 2 * 128 * matrices + 4 * 128 * 128 * 768 * 12


@given(st.lists(st.integers(1, 512), min_size=1, max_size=20))
def test_arithmetic_adds_up_over_windows(tokens: List[int]) -> None:
    apart = sum(summary.operations([count], BERT_BASE) for count in tokens)
    assert summary.operations(tokens, BERT_BASE) == pytest.approx(apart)
    assert summary.operations([sum(tokens)], BERT_BASE) >= apart  # attention grows with the square


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=1, max_size=9))
def test_a_spread_holds_its_median(rounds: List[Any]) -> None:
    ratio = summary.ratios([a for a, _ in rounds], [b for _, b in rounds])
    assert ratio.low <= ratio.median <= ratio.high


def contender(**seconds: List[float]) -> Dict[str, Any]:
    by_mode = {mode.replace("_", "-"): values for mode, values in seconds.items()}
    return {"seconds": by_mode, "f1": 70.0, "peak_mib": 400.0, "load_s": 1.0, "facts": {}}


def example_report() -> Dict[str, Any]:
    model = {
        "note": "an example",
        "contenders": {
            "neuronbert": contender(one_by_one=[4.0, 4.0, 4.0], list=[2.0, 1.0, 2.0]),
            "transformers-fp32": contender(batch_1=[20.0, 20.0, 20.0], batch_8=[25.0, 25.0, 25.0]),
            "openvino-int8": contender(batch_1=[5.0, 5.0, 4.0], batch_8=[4.0, 4.0, 3.0]),
        },
        "failed": {"onnxruntime-fp32": "onnxruntime-fp32 died"},
        "gemm": [{"int8": {"a": 600.0, "b": 800.0}, "fp32": {"a": 100.0}}] * 3,
        "operations_per_question": 14e9,
    }
    model["summary"] = summary.summarize_model(model, questions=100)
    ours = {"answer_s": 0.8, "exit_s": 0.9, "peak_mib": 200.0}
    theirs = {"answer_s": 5.0, "exit_s": 5.5, "peak_mib": 500.0}
    score = {"variant": "openvino-int8", "exact_match": 50.0, "questions": 1190}
    report = {
        "workload": {"questions": 100},
        "models": {"bert-base": model},
        "start": {"neuronbert": [ours] * 3, "transformers-fp32": [theirs] * 3},
        "accuracy": {"chosen": {**score, "f1": 68.5}, "fp32": {**score, "f1": 69.9}},
        "warnings": ["the machine was busy"],
    }
    return {**report, "targets": [target._asdict() for target in summary.targets(report)]}


def test_a_summary_compares_best_modes_round_by_round() -> None:
    result = example_report()["models"]["bert-base"]["summary"]
    assert result["speed"]["neuronbert"]["mode"] == "list"
    assert result["speed"]["transformers-fp32"]["mode"] == "batch-1"
    assert result["best_peer"] == "openvino-int8"
    assert result["ratio_to"]["openvino-int8"] == {"median": 2.0, "low": 1.5, "high": 4.0}
    assert result["our_gops"]["median"] == pytest.approx(50 * 14)
    assert result["gemm"]["int8"]["our_share"]["median"] == pytest.approx(50 * 14 / 800)


def test_targets_are_met_or_not() -> None:
    met = {target["name"]: target["met"] for target in example_report()["targets"]}
    assert met == {
        "bert-base: speed / best peer": True,
        "bert-base: speed / transformers-fp32": True,
        "bert-base: speed / int8 GEMM": True,
        "demo: start to answer / transformers": True,
        "demo: peak memory of `answer`": True,
        "demo: F1 lost against FP32": False,  # 1.4 points
    }


def test_the_table_shows_all_of_it() -> None:
    text = summary.render(example_report())
    for wanted in (
        "list *",
        "2.00 [1.50, 4.00]",
        "FAILED onnxruntime-fp32: onnxruntime-fp32 died",
        "int8 GEMM: 800.00 [800.00, 800.00] Gop/s",
        "NOT MET",
        "68.50",
        "warning: the machine was busy",
    ):
        assert wanted in text


def test_a_part_that_was_not_measured_has_no_target() -> None:
    report = {"workload": {"questions": 1}, "models": {}, "start": {}, "accuracy": {}, "warnings": []}
    assert summary.targets(report) == []
    assert summary.render({**report, "targets": []}).strip() == ""


# --- the comparison: children and environments ---


def test_every_contender_has_its_environment() -> None:
    assert {contender.environment for contender in CONTENDERS.values()} == set(environments.ENVIRONMENTS)
    assert set(summary.SPEED_TARGETS) == set(comparison.NOTES)
    assert {summary.US, summary.BASELINE} <= set(CONTENDERS)


def test_what_the_comparison_reads_of_the_package_is_there() -> None:
    assert comparison.CALIBRATION.is_file() and (comparison.DEMO / "model.safetensors").is_file()


def test_the_peers_share_our_libraries() -> None:
    """The same releases of torch, numpy and the engines: what differs is the code around them."""
    ours = set(environments.CONSTRAINTS.read_text(encoding="utf-8").split())
    for environment in ("transformers", "optimum-onnx", "optimum-intel"):
        pins = [
            pin for pin in environments.ENVIRONMENTS[environment].requirements if not pin.startswith(("optimum", "tr"))
        ]
        assert pins and set(pins) <= ours


def test_the_workload_is_in_the_files_order() -> None:
    first = json.loads(XQUAD.read_text(encoding="utf-8"))["data"][0]["paragraphs"][0]
    assert next(squad_pairs(XQUAD)) == (first["qas"][0]["question"], first["context"])
    assert len(list(squad_pairs(XQUAD))) == 1190


@pytest.fixture()
def child(tmp_path: Path) -> Any:
    with Child("neuronbert", Path(sys.executable), environments.child_environment(1), tmp_path / "log") as child:
        yield child


def test_a_child_answers_and_counts(child: Child, echo_artifact: Artifact, tmp_path: Path) -> None:
    questions = {"data": str(XQUAD), "questions": 3}
    artifact = str(echo_artifact.folder)
    loaded = child.request("load", contender="neuronbert", model=artifact, prepared="", calibration="", threads=1)
    assert loaded["load_s"] > 0 and loaded["facts"]["variant"] == "echo-fp32"
    one_by_one = child.request("run", mode="one-by-one", **questions)
    together = child.request("run", mode="list", **questions)
    assert one_by_one["answers"] == together["answers"] and len(together["answers"]) == 3
    assert together["seconds"] > 0 and together["peak_mib"] > 10
    assert len(child.request("count_tokens", tokenizer_from=artifact, **questions)["tokens"]) >= 3
    gold = [
        question["answers"][0]["text"]
        for question in json.loads(XQUAD.read_text(encoding="utf-8"))["data"][0]["paragraphs"][0]["qas"][:3]
    ]
    assert child.request("score", answers=gold, **questions) == {"f1": 100.0}
    assert child.request("score", answers=["xyzzy"] * 3, **questions) == {"f1": 0.0}


def test_a_childs_error_names_the_contender_and_the_log(child: Child, tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="neuronbert could not load: .*absent") as failure:
        absent = str(tmp_path / "absent")
        child.request("load", contender="neuronbert", model=absent, prepared="", calibration="", threads=1)
    assert str(tmp_path / "log") in str(failure.value)
    assert "Traceback" in (tmp_path / "log").read_text()


def test_a_dead_child_is_noticed(tmp_path: Path) -> None:
    false = Path(shutil.which("false") or "")
    with Child("gone", false, dict(os.environ), tmp_path / "log") as child:
        with pytest.raises(ChildFailed, match="gone died with exit code 1 during run"):
            child.request("run", data="", questions=1, mode="list")


def measure_start_elsewhere(code: str) -> "subprocess.CompletedProcess[str]":
    """cold_start.measure_start of ``python -c code``, in a small process: this one has held too much memory."""
    measure = (
        "import os, sys; from neuronbert_tools.peers.cold_start import measure_start\n"
        "print(*measure_start([sys.executable, '-c', sys.argv[1]], os.environ, sys.stderr.buffer))"
    )
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    # exec() hands on the peak of the process it replaces, so a shell stands between this one and the measuring one.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", measure, code]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_start_is_timed_to_its_first_line() -> None:
    code = "import time; held = bytearray(100 << 20); print('answer', flush=True); time.sleep(2)"
    done = measure_start_elsewhere(code)
    assert done.returncode == 0, done.stderr
    answer_s, exit_s, peak_mib = map(float, done.stdout.split())
    assert exit_s - answer_s > 1
    assert 100 < peak_mib < 200


@pytest.mark.parametrize(
    "code, message",
    [
        ("held = bytearray(100 << 20); raise SystemExit(3)", "exited with 3 and printed b''"),
        ("held = bytearray(100 << 20)", "exited with 0 and printed b''"),
    ],
)
def test_a_start_without_an_answer_is_refused(code: str, message: str) -> None:
    assert message in measure_start_elsewhere(code).stderr


def test_a_peak_that_cannot_be_told_is_refused(tmp_path: Path) -> None:
    held = bytearray(os.urandom(1)) * (64 << 20)
    with (tmp_path / "log").open("ab") as log:
        with pytest.raises(RuntimeError, match="has held more memory than"):
            cold_start.measure_start([sys.executable, "-c", "print(1)"], os.environ, log)
    assert len(held) == 64 << 20


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--contenders", "keras"], "'keras' is not one of neuronbert, "),
        (["--models", "gpt"], "'gpt' is not one of demo, bert-base"),
        (["--rounds", "0"], "must be at least 1"),
        (["--data", "absent.json"], "there is no file absent.json"),
    ],
)
def test_a_wrong_option_is_refused(arguments: List[str], message: str) -> None:
    done = subprocess.run([sys.executable, str(TOOLS / "compare_peers"), *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


def test_the_job_is_measured_against_the_engine(echo_artifact: Artifact) -> None:
    command = [sys.executable, str(TOOLS / "measure_job"), str(echo_artifact.folder), str(XQUAD)]
    options = ["--questions", "20", "--rounds", "1", "--workers", "1", "--target", "0"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["questions"] == 20
    assert set(report["samples"]) == set(report["median_ratios"]) == {"engine", "job, default", "job, 1 workers"}
    assert report["median_ratios"]["engine"] == {"questions_per_s": 1.0, "cpu_s": 1.0}
    assert "20 questions on" in done.stderr


# --- the Python commands ---

LAUNCHERS = [path for path in sorted(TOOLS.iterdir()) if path.is_file() and b"python3" in path.read_bytes()[:30]]


def test_the_commands_are_one_launcher_and_each_has_its_module() -> None:
    assert len(LAUNCHERS) == 18
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
