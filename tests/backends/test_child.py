"""Every process that we start in a folder full of modules named like the libraries': none of them is run."""

import ast
import json
import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import neuronbert
from neuronbert.backends.child import is_working_directory, python_command, python_environment, start_child

ROOT = Path(neuronbert.__file__).parents[1]
NAMES = (
    "_collections_abc codecs collections concurrent ctypes dataclasses encodings enum functools hashlib importlib io "
    "json linecache logging multiprocessing neuronbert numpy os pathlib pickle runpy selectors signal site "
    "sitecustomize socket struct subprocess threading tokenizers torch types typing usercustomize zipfile"
).split()
SAFE_GRANDCHILDREN = pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH is of Python 3.11")


@pytest.fixture()
def trap(tmp_path):
    """A folder with modules that note that they were run, and then fail."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in NAMES:
        path = folder / name / "__init__.py" if name == "neuronbert" else folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(folder / 'ran')!r}, 'a').write('{name} '); raise SystemExit")
    return folder


def ran(trap):
    """The names of the modules that were run."""
    return (trap / "ran").read_text().split() if (trap / "ran").exists() else []


def run_in(trap, script, *arguments, python_path=""):
    """Run a script that lies elsewhere, as a console script does; its stdout."""
    file = trap.parent / "script.py"
    file.write_text(textwrap.dedent(script))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [python_path])])}
    command = [sys.executable, "-W", "ignore", str(file), *map(str, arguments)]
    done = subprocess.run(command, cwd=trap, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_trap_snaps(trap):
    subprocess.run([sys.executable, "-c", "import json"], cwd=trap, env={**os.environ, "PYTHONSAFEPATH": ""})
    assert "json" in ran(trap)


RUNNER = """
    import sys
    from neuronbert import Runner
    with Runner(sys.argv[1], workers=1) as runner:
        print(runner.submit("Who?", "It was me.").result()["answer"])
"""
COMMAND = """
    import sys
    from neuronbert.cli.main import main
    main(sys.argv[1:])
"""
COMPILE_JOB = """
    import sys
    from pathlib import Path
    from neuronbert.backends.neuron.compile_job import run_job
    print(run_job(Path(sys.argv[1]), None))
"""
DEVICE_PROCESS = """
    import sys
    from neuronbert import load_artifact
    from neuronbert.backends.isolated import DeviceProcess
    from neuronbert.tasks import load_task
    artifact = load_artifact(sys.argv[1])
    process = DeviceProcess(
        [artifact.variant_folder(artifact.variants[0])], artifact.variants[:1], load_task(artifact.task).outputs({}), 1
    )
    print(process.precision)
    process.close()
"""


def test_a_worker_runs_nothing_of_the_working_directory(trap, echo_artifact):
    assert run_in(trap, RUNNER, echo_artifact.folder).strip()
    assert ran(trap) == []


def test_nor_does_a_job_started_as_a_command(trap, echo_artifact):
    (trap / "questions.jsonl").write_text('{"question": "Who?", "context": "It was me."}\n')
    run_in(trap, COMMAND, "run", echo_artifact.folder, "--input", "questions.jsonl", "--output", "answers.jsonl")
    assert json.loads((trap / "answers.jsonl").read_text())["answer"]
    assert ran(trap) == []


def test_nor_does_the_process_that_compiles_a_bucket(trap, tmp_path):
    assert "job.json" in run_in(trap, COMPILE_JOB, tmp_path)  # which it looks for once all is imported
    assert ran(trap) == []


def test_nor_does_the_process_that_holds_a_device(trap, echo_artifact):
    assert run_in(trap, DEVICE_PROCESS, echo_artifact.folder).strip() == "fp32"
    assert ran(trap) == []


def test_python_m_neuronbert_leaves_the_working_directory_as_soon_as_it_can(trap):
    """What Python itself imports for -m cannot be helped, nor a package of this name."""
    for path in trap.rglob("*.py"):
        if path.stem not in ("json", "numpy", "pathlib", "dataclasses", "logging"):
            path.unlink()
    (trap / "neuronbert").rmdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": ""}
    command = [sys.executable, "-m", "neuronbert", "--version"]
    done = subprocess.run(command, cwd=trap, env=environment, capture_output=True, text=True)
    assert neuronbert.__version__ in done.stdout, done.stderr
    assert ran(trap) == []


@pytest.fixture()
def probe(trap, monkeypatch):
    """What child_probe says when it is started from inside the trap."""
    monkeypatch.chdir(trap)

    def ask(*arguments):
        with start_child("child_probe", *arguments, stdout=subprocess.PIPE) as child:
            said = json.loads(child.stdout.read())
        assert child.returncode == 7
        return said

    return ask


@pytest.mark.parametrize("entry", ["", ".", "..", "../data", "{trap}", "{link}"])
def test_the_working_directory_is_dropped_however_it_is_written(trap, probe, monkeypatch, entry):
    link = trap.parent / "link"
    link.symlink_to(trap)
    monkeypatch.setattr(sys, "path", [*sys.path, entry.format(trap=trap, link=link)])
    said = probe("path", 5)
    assert said["directory"] == str(trap) and said["arguments"] == ["path", "5"]
    assert not any(map(is_working_directory, said["path"]))
    assert ran(trap) == []


@pytest.mark.parametrize("python_path", [":", ".", "./:..", ":{elsewhere}", "{elsewhere}::", "../data"])
def test_what_pythonpath_means_by_the_working_directory_is_dropped(trap, probe, monkeypatch, tmp_path, python_path):
    monkeypatch.setenv("PYTHONPATH", python_path.format(elsewhere=tmp_path / "elsewhere"))
    said = probe("nested" if sys.version_info >= (3, 11) else "path")
    assert not any(map(is_working_directory, said["path"]))
    assert (str(tmp_path / "elsewhere") in said["path"]) == ("elsewhere" in python_path)
    assert ran(trap) == []


def test_an_absolute_pythonpath_is_the_users_own_choice(trap, monkeypatch):
    monkeypatch.chdir(trap)
    assert python_environment({"PYTHONPATH": f"{trap}:/opt/own"})["PYTHONPATH"] == f"{trap}:/opt/own"
    assert "PYTHONPATH" not in python_environment({"PYTHONPATH": ""})
    assert "PYTHONPATH" not in python_environment({})


@SAFE_GRANDCHILDREN
def test_what_a_child_starts_runs_nothing_of_it_either(trap, probe):
    probe("tracker")
    probe("nested")
    assert ran(trap) == []


def test_a_child_runs_this_copy_of_the_package_from_inside_its_folder(monkeypatch):
    """The checkout's root is no place to import from, and the package in it is found all the same."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    facts = json.loads(python_command("neuronbert.cli.main")[2])
    assert facts["packages"] == {"neuronbert": neuronbert.__file__}
    assert str(ROOT) not in facts["search_path"]
    done = subprocess.run(python_command("neuronbert.cli.main", "--version"), capture_output=True, text=True)
    assert neuronbert.__version__ in done.stdout, done.stderr


def test_a_working_directory_that_is_gone(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with start_child("child_probe", "path", stdout=subprocess.DEVNULL) as child:
        pass
    assert child.returncode == 1  # os.getcwd() in the probe: it was started


# ---------------------------------------------------------------------------- standard streams that were closed


def test_a_child_prints_into_no_file_that_has_the_number_of_a_closed_stderr(tmp_path):
    """An output that was opened meanwhile, say: it held what the engines in the workers print."""
    script = """
        import os, sys, time
        sys.path[:0] = sys.argv[2:]
        output = open(sys.argv[1], "w")
        assert output.fileno() == 2
        from neuronbert.backends.child import standard_error, start_child
        start_child("child_probe", "print", stdout=standard_error()).wait()
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    words = [
        sys.executable,
        str(tmp_path / "script.py"),
        str(tmp_path / "output"),
        str(ROOT),
        str(Path(__file__).parent),
    ]
    subprocess.run(["bash", "-c", f"{shlex.join(words)} 2>&-"], check=True)
    assert (tmp_path / "output").read_text() == ""


@pytest.mark.parametrize("close", ["2>&-", "<&- >&- 2>&-", "<&- 2>&-", ">&-"])
def test_no_file_of_a_command_has_the_number_of_a_closed_stream(tmp_path, close):
    script = """
        import os, sys
        sys.path.insert(0, sys.argv[2])
        from neuronbert.cli import main
        def run_group(*_):
            with open(sys.argv[1], "w") as output:
                output.write(str(output.fileno()))
            return 7 if all(os.get_inheritable(number) for number in range(3)) else 8
        main.run_group = run_group
        main.main([])
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "output"), str(ROOT)]
    assert subprocess.run(["bash", "-c", f"{shlex.join(words)} {close}"]).returncode == 7
    assert int((tmp_path / "output").read_text()) > 2


TOKENISED = """
    import ctypes, os, signal, subprocess, sys, threading
    from pathlib import Path
    sys.path[:0] = sys.argv[2:]
    from neuronbert.backends import child
    from neuronbert.checkpoint.tokenizer import Tokenizer
    def tokenise():
        tokenizer.backend.encode_batch(["a text"] * 1000)
    def start():
        child.start_child("child_probe", "path", stdout=subprocess.DEVNULL).wait()
    def forked(*functions):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            for function in functions:
                function()
            os._exit(0)
        return os.waitpid(pid, 0)[1]
    tokenizer = Tokenizer.from_files(Path(sys.argv[1]))
    tokenise()
"""


def run_tokenised(tmp_path, artifact, script):
    """What a script prints whose process has tokenised, with threads of tokenizers' own."""
    (tmp_path / "script.py").write_text(textwrap.dedent(TOKENISED) + textwrap.dedent(script))
    words = [sys.executable, tmp_path / "script.py", artifact.folder, ROOT, Path(__file__).parent]
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_that_has_tokenised_prints_nothing_when_it_starts_a_child(tmp_path, echo_artifact):
    """tokenizers 0.13 writes to the stdout of a process that Python 3.8 forks; a job's results are there."""
    script = """
        start()
        print(ctypes.CDLL(None).getenv(b"TOKENIZERS_PARALLELISM"))
    """
    assert run_tokenised(tmp_path, echo_artifact, script) == "0\n"


def test_a_fork_that_tokenizers_has_mended_stays_so(tmp_path, echo_artifact):
    """Of a server that loads before it forks, for example: where it is not, tokenising waits for ever."""
    assert run_tokenised(tmp_path, echo_artifact, "print(forked(start, tokenise))").splitlines()[-1] == "0"


def test_a_fork_while_a_child_is_started_is_whole(tmp_path, echo_artifact):
    script = """
        inside, leave = threading.Event(), threading.Event()
        def starts():
            with child._silent_forks():
                inside.set()
                leave.wait(1)
        thread = threading.Thread(target=starts)
        thread.start()
        inside.wait()
        print(forked(start, tokenise))
    """
    assert run_tokenised(tmp_path, echo_artifact, script).splitlines()[-1] == "0"


# ---------------------------------------------------------------------------- no other way to start Python

# They name the interpreter in a text, and start nothing.
ONLY_TELL = {
    "neuronbert/emulator/neuron_cc.py",
    "neuronbert/emulator/runtime.py",
    "neuronbert/hardware/libraries.py",
    "neuronbert/cli/boundary.py",
    "tools/neuronbert_tools/make_golden.py",
}
# They start the Python of another environment, which has servers to measure beside ours, in a folder of their own.
OF_PEERS = {
    "tools/neuronbert_tools/server/peers/processes.py",
    "tools/neuronbert_tools/server/peers/with_bentoml.py",
}
SOURCES = [path for folder in ("neuronbert", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]


def starts_python(tree):
    """Whether code names its own interpreter, or gives an interpreter -c or -m without -I."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("executable", "_base_executable"):
            return True
        if isinstance(node, (ast.List, ast.Tuple)):
            words = [part.value if isinstance(part, ast.Constant) else None for part in node.elts]
            if {"-c", "-m"}.intersection(words[1:]) and "-I" not in words:
                return True
    return False


def test_one_module_starts_python():
    starting = {str(path.relative_to(ROOT)) for path in SOURCES if starts_python(ast.parse(path.read_bytes()))}
    assert starting - ONLY_TELL - OF_PEERS == {"neuronbert/backends/child.py"}


@pytest.mark.parametrize("code", ["[sys.executable, 'x']", "run(('python', '-m', name))", "[python, '-c', code]"])
def test_other_ways_would_be_seen(code):
    assert starts_python(ast.parse(code))


def test_a_child_waits_without_spinning_unless_its_user_says_otherwise():
    assert python_environment({})["OMP_WAIT_POLICY"] == "PASSIVE"
    assert python_environment({"OMP_WAIT_POLICY": "ACTIVE"})["OMP_WAIT_POLICY"] == "ACTIVE"
