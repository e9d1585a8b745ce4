"""The report that a person with an inf1 instance sends back, made on the emulator."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuronbert.artifact.manifest import read_manifest, write_manifest
from neuronbert.emulator.unknowns import UNKNOWNS
from neuronbert.errors import OutputError, UsageError
from neuronbert_tools.acceptance import processes
from neuronbert_tools.acceptance.probes import NOT_ASKED, probes
from neuronbert_tools.acceptance.recipes import demo, published, published_casts
from neuronbert_tools.acceptance.steps import Acceptance, Options
from neuronbert_tools.inf1_acceptance import main, parse
from neuronbert_tools.published_rows import published_rows

SCRIPT = Path(__file__).parents[2] / "tools" / "inf1_acceptance"


def accept(folder, *arguments, **environment):
    command = [sys.executable, str(SCRIPT), "--output", str(folder / "report.json"), *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEURON")}
    emulated = {"NEURONBERT_EMULATE_DIR": str(folder / "emulator"), "NEURONBERT_CACHE": str(folder / "cache")}
    done = subprocess.run(
        command, env={**kept, **emulated, **environment}, capture_output=True, text=True, timeout=1800
    )
    report = folder / "report.json"
    return done, json.loads(report.read_text()) if report.exists() else None


def test_the_report_is_one_document_with_every_step(tmp_path):
    done, report = accept(tmp_path, "--only", "doctor", NEURONBERT_EMULATE="inf1.6xlarge")
    assert done.returncode == 0, done.stderr
    assert report["emulated"] is True and report["instance_type"] == "inf1.6xlarge"
    assert report["whole_instance"]["NEURON_RT_VISIBLE_CORES"] == "0-15"
    (step,) = report["steps"]
    assert step["ok"] and {"neuron cores", "torch-neuron"} <= {check["name"] for check in step["result"]["checks"]}


def test_another_machine_and_an_unknown_step_are_usage_errors(tmp_path):
    done, report = accept(tmp_path, "--instance-type", "m5.large")
    assert done.returncode == 2 and "no inf1 instance" in done.stderr and report is None
    done, report = accept(tmp_path, "--only", "everything", NEURONBERT_EMULATE="inf1.xlarge")
    assert done.returncode == 2 and "--only takes doctor, demo, rows, unknowns" in done.stderr
    done, report = accept(tmp_path, "--casts", "fp32", NEURONBERT_EMULATE="inf1.xlarge")
    assert done.returncode == 2 and "--casts takes compiler, all, ours" in done.stderr
    done, report = accept(tmp_path, "--artifacts", "nowhere", NEURONBERT_EMULATE="inf1.xlarge")
    assert done.returncode == 2 and "--artifacts nowhere: there is no such folder" in done.stderr


@pytest.fixture
def emulated(monkeypatch, tmp_path):
    """An emulated inf1.xlarge, and the folder that one is in."""
    monkeypatch.setenv("NEURONBERT_EMULATE", "inf1.xlarge")
    monkeypatch.setenv("NEURONBERT_EMULATE_DIR", str(tmp_path / "emulator"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_report_is_of_the_instance_that_runs(emulated, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--instance-type", "inf1.24xlarge"])
    assert ended.value.code == 2
    expected = "--instance-type inf1.24xlarge, and this is inf1.xlarge: only --compile-only is for another machine"
    assert expected in capsys.readouterr().err
    assert parse(["--instance-type", "inf1.xlarge"]).instance_type == parse([]).instance_type == "inf1.xlarge"
    elsewhere = ["--instance-type", "inf1.24xlarge", "--compile-only", "compiled"]
    assert parse(elsewhere).instance_type == "inf1.24xlarge"


@pytest.mark.parametrize(
    "arguments",
    [("--seconds", text) for text in ("0", "-1", "nan", "inf", "1e9", "soon")]
    + [("--layers", text) for text in ("0", "-3", "13", "all")]
    + [("--rows", text) for text in ("", "first", "1,,2")],
)
def test_odd_numbers_are_usage_errors(emulated, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        parse(["=".join(arguments)])
    assert ended.value.code == 2 and f"argument {arguments[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rows", "99"), "inf1.xlarge can run no published row 99\n  try: --rows with some of 1,2,5,"),
        (("--rows", "0,1"), "no published row 0\n"),
        (("--rows", "4", "--only", "rows"), "inf1.xlarge can run no published row 4"),  # 16 cores
        (("--compile-only", "compiled", "--only", "doctor"), "--only doctor loads no artifact"),
    ],
)
def test_a_run_that_would_do_nothing_of_what_was_asked_is_refused(emulated, arguments, words):
    with pytest.raises(UsageError, match=words):
        main(arguments)
    assert [path.name for path in emulated.iterdir()] == []


def test_places_that_cannot_be_written_are_refused_before_anything_runs(emulated, monkeypatch):
    monkeypatch.setattr(Acceptance, "step", lambda *_: pytest.fail("a step ran"))
    (emulated / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write .*report.json: No such file or directory"):
        main(["--output", str(emulated / "nowhere" / "report.json")])
    with pytest.raises(OutputError, match="cannot write .*: Is a directory"):
        main(["--output", str(emulated)])
    for folder in (emulated / "file", emulated / "file" / "below"):
        with pytest.raises(OutputError, match="a part of the path is a file"):
            main(["--compile-only", str(folder)])
    assert [path.name for path in emulated.iterdir()] == ["file"]


@pytest.mark.slow
def test_the_demo_compiles_and_answers_in_both_modes(tmp_path, neuron_cache):
    # What tests/backends/neuron/test_neuron_demo.py compiled is not compiled again.
    variables = {"NEURONBERT_EMULATE": "inf1.xlarge", "NEURONBERT_CACHE": str(neuron_cache)}
    done, report = accept(tmp_path, "--only", "demo", "--layers", "1", **variables)
    assert done.returncode == 0, done.stderr
    assert report["failed"] == []
    steps = {step["name"]: step["result"] for step in report["steps"]}
    assert [variant["name"] for variant in steps["compile the demo, data-parallel"]["variants"]] == [
        "neuron-b1-s128-p1",
        "neuron-b1-s384-p1",
    ]
    assert steps["answer, data-parallel"]["answer"] == steps["answer, pipeline"]["answer"] == "Jim Henson"


def test_the_random_bert_base_is_a_checkpoint_without_a_pickle(tmp_path):
    folder = tmp_path / "bert-base"
    code = (
        "import sys; from pathlib import Path\n"
        "from neuronbert_tools.acceptance.bert_base import write_bert_base\n"
        "write_bert_base(Path(sys.argv[1]), 1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), str(SCRIPT.parent)])}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    from neuronbert.tasks.checkpoints import load_checkpoint

    assert load_checkpoint(folder).config["num_hidden_layers"] == 1


# ---- like with like


def test_each_published_row_is_compared_with_what_was_compiled_as_it_was():
    # src/benchmark/pytorch of aws-neuron-sdk v2.20.2 compiles with neuronperf, whose default is --fast-math all; the
    # tutorials and the blog post give no --fast-math.
    rows = published_rows()
    assert {published_casts(row) for row in rows if "blog" in row["source"]} == {"compiler"}
    sdk = {row["mode"]: published_casts(row) for row in rows if "aws-neuron-sdk" in row["source"]}
    assert sdk == {"data-parallel": "all", "pipeline": "compiler"}
    arguments = {casts: published(rows[0], casts, 12).arguments("inf1.xlarge") for casts in ("compiler", "all", "ours")}
    assert arguments["compiler"][-2:] == ["--auto-cast", "compiler"]
    assert arguments["all"][-2:] == ["--auto-cast", "all"]
    assert "--auto-cast" not in arguments["ours"]


def test_six_layer_models_are_measured_with_six_layers():
    row = {**published_rows()[0], "model": "distilbert-base-uncased"}
    assert [published(row, "all", layers).layers for layers in (12, 1)] == [6, 1]
    assert published(published_rows()[0], "all", 12).layers == 12
    # A quick look at 16 cores has work for each of them, or the compiler refuses (aws-neuron-sdk#618).
    wide = {**published_rows()[0], "pipeline_cores": "16"}
    assert [published(wide, "all", layers).layers for layers in (12, 1)] == [12, 2]


@pytest.mark.slow
def test_a_larger_machine_compiles_and_the_instance_only_measures(tmp_path):
    chosen = ("--only", "rows", "--rows", "10", "--casts", "compiler,all", "--layers", "1", "--seconds", "0.5")
    folder = tmp_path / "compiled"
    # A machine without a chip: whatever loads fails there.
    elsewhere = {"NEURONBERT_EMULATE": "inf1.xlarge", "NEURONBERT_EMULATE_FAULTS": "no-driver"}
    done, report = accept(tmp_path, *chosen, "--compile-only", str(folder), **elsewhere)
    assert done.returncode == 0, done.stderr
    names = [f"bert-base-1-layers-p1-b1-s128-{casts}" for casts in ("compiler", "all")]
    assert [step["name"] for step in report["steps"]] == [f"compile {name}" for name in names]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert report["steps"][0]["result"]["variants"][0]["compiler_args"] == []
    assert report["steps"][1]["result"]["variants"][0]["compiler_args"] == ["--fast-math", "all"]
    # And one whose compiler does not work.
    here = {"NEURONBERT_EMULATE": "inf1.xlarge", "NEURONBERT_EMULATE_FAULTS": "compiler-missing"}
    done, report = accept(
        tmp_path, *chosen, "--artifacts", str(folder), NEURONBERT_CACHE=str(tmp_path / "none"), **here
    )
    assert done.returncode == 0, done.stderr
    assert [step["result"]["casts"] for step in report["steps"]] == ["compiler", "all"]
    assert [step["result"]["inferences"] > 0 for step in report["steps"]] == [True] * 2
    (row,) = report["like_with_like"]
    assert row["casts"] == "all" and row["published"]["throughput_per_s"] == "125.7" and row["ratio"] > 0


# ---- what else is on stdout, and what does not end

DOCUMENT = {"answer": "Jim Henson", "nested": {"a": [1, {}]}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        (
            "2021-Aug-27 23:22:12.0323 28078:28078 ERROR   NRT:nrt_init   Unable to determine Neuron Driver version.\n",
            "\n",
        ),
        ("........", ""),  # neuron-cc ends no line with its dots
        (
            'INFO:Neuron:Compiling with command line: --io-config {"inputs": {"0:0": [[1, 128, 768], "float32"]}}\n{',
            "\n...\n",
        ),
        ("[W runtime.cpp:167] {unclosed\n", "\nCompiler status PASS\n"),
        ("", '\nINFO: closing {"device": 0}\n'),
        ('INFO: opening [{"device": 0}]\n', '\nINFO: closing [{"device": 0}]\n[]\n[0]'),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_result_is_found_among_what_the_libraries_print(before, after, indent):
    assert processes.document_with("answer", before + json.dumps(DOCUMENT, indent=indent) + after) == DOCUMENT
    devices = [{"neuron_device": 0, "neuroncore_ids": [0, 1]}]
    text = before + json.dumps(devices, indent=indent) + after
    assert processes.document_with("neuron_device", text, opening="[") == devices


def test_no_result_is_an_error_with_what_was_printed():
    with pytest.raises(ValueError, match="no JSON document with 'answer' in: .*Compiler status PASS"):
        processes.document_with("answer", '{"device": 0} Compiler status PASS')


def test_every_verb_that_is_asked_prints_the_key_by_which_its_result_is_known(echo_artifact):
    artifact = echo_artifact.folder
    asked = {
        "doctor": (),
        "inspect": (artifact,),
        "evaluate": (artifact, SCRIPT.parents[1] / "examples" / "squad.json"),
        "answer": (artifact, "--question", "Who?", "--context", "It was me."),
    }
    for name, arguments in asked.items():
        assert processes.KEYS[name] in processes.verb(name, *arguments)
    # What takes longer is read by the slow tests.
    assert processes.KEYS.keys() - asked.keys() == {"compile"}


def noisy(code):
    """The command of a process whose stdout holds what a log line, a compiler and no encoding leave there, and more."""
    noise = "import os, sys, time; os.write(1, b'INFO {\\xff}\\n........'); os.write(2, b'words\\xff');"
    return [sys.executable, "-c", noise + code]


def test_a_noisy_child_is_understood(monkeypatch):
    module = "from neuronbert_tools.acceptance.processes import print_found"
    closing = """print('INFO: closing {"device": 0}')"""
    paths = f"sys.path[:0] = {[str(SCRIPT.parents[1]), str(SCRIPT.parent)]}"
    command = noisy(f"{paths}; {module}; print_found({{'sequences_per_s': 1.5}}); {closing}")
    monkeypatch.setattr(processes, "module_command", lambda *_: command)
    result = processes.child("acceptance.child", {}, "measure", "artifact")
    assert result["sequences_per_s"] == 1.5 and result["exit_code"] == 0
    # The runtime's words may be on either.
    assert result["stderr"].startswith("words") and result["stdout"].endswith('{"device": 0}\n')
    assert processes.measure(Path("artifact"), {}, 1, 0.1) == {"exit_code": 0, "sequences_per_s": 1.5}


def test_a_child_that_fails_says_so_with_both_its_streams(monkeypatch):
    monkeypatch.setattr(processes, "module_command", lambda *_: noisy("sys.exit(3)"))
    with pytest.raises(RuntimeError, match=r"(?s)words.*INFO"):
        processes.measure(Path("artifact"), {}, 1, 0.1)


def running(state):
    """Whether the process of a /proc/PID/stat is there, and no zombie that nobody waits for."""
    try:
        return state.read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_that_hangs_is_ended_with_what_it_started():
    # aws-neuron-sdk#978: a compile that never ended.
    child = "import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    ended = processes.run([sys.executable, "-c", child], limit_s=5)
    assert ended.code == -9 and ended.words.endswith("killed after 5 s")
    state = Path(f"/proc/{ended.out.strip()}/stat")
    limit = time.monotonic() + 60  # a killed process is gone when the kernel comes to it
    while time.monotonic() < limit and running(state):
        time.sleep(0.05)
    assert not running(state)


def test_a_step_that_fails_is_recorded_and_the_report_is_there_after_each(tmp_path):
    saved = []
    options = Options("out.json", "inf1.xlarge", ["doctor"], 1.0, 1, ["ours"], [], [], None)
    acceptance = Acceptance(options, tmp_path, lambda steps: saved.append(len(steps)))
    assert acceptance.step("fails", lambda: 1 / 0) is None
    assert acceptance.step("works", lambda: 2) == 2
    assert saved == [1, 2]
    failed, worked = acceptance.steps
    assert (failed["ok"], failed["error"]) == (False, "ZeroDivisionError: division by zero")
    assert (worked["ok"], worked["result"]) == (True, 2)


def test_whatever_the_steps_load_can_be_compiled_elsewhere(tmp_path):
    options = Options("out.json", "inf1.6xlarge", ["demo", "rows", "unknowns"], 1.0, 1, ["all", "ours"], [], [], None)
    asked = []

    class Recording(Acceptance):
        def artifact(self, recipe):
            asked.append(recipe)
            raise RuntimeError("not here")

        def compiled(self, recipe):
            asked.append(recipe)
            return {}

    run = Recording(options, tmp_path, lambda steps: None)
    run.demo()
    run.rows()
    run.unknowns()
    assert set(asked) <= set(run.recipes()) and len(set(asked)) > 20
    assert len({recipe.name for recipe in run.recipes()}) == len(set(run.recipes()))


def compiled_for(folder, recipe, instance):
    """The echo artifact in ``folder`` made to look as if ``recipe`` had been compiled for ``instance``."""
    manifest = read_manifest(folder)
    recorded = {"inputs": [], "instance_type": instance, "mode": "data-parallel", "pipeline": None}
    recorded.update(refused_pipeline_cores=[], auto_cast="matmult", auto_cast_type=None, compiler_timeout_s=None)
    shape = {"backend": "neuron", "batch_size": 1, "sequence_length": 128, "pipeline_cores": 1}
    variants = [{**manifest["variants"][0], **shape, "recipe": recorded, "compile_s": 1.0}]
    kept = {key: value for key, value in manifest.items() if key != "digest"}
    write_manifest(folder, {**kept, "variants": variants})
    folder.rename(folder.with_name(recipe.name))


@pytest.mark.parametrize("option", ["--artifacts", "--compile-only"])
def test_artifacts_of_an_instance_with_other_cores_are_refused_and_not_loaded(emulated, echo_copy, option, monkeypatch):
    monkeypatch.setattr(Acceptance, "step", lambda *_: None)
    arguments = ["--only", "demo", option, str(emulated)]
    compiled_for(echo_copy, demo(1), "inf1.24xlarge")
    with pytest.raises(UsageError, match="was compiled for inf1.24xlarge, not for inf1.xlarge") as refused:
        main(arguments)
    assert refused.value.hint.endswith("--compile-only FOLDER --instance-type inf1.xlarge")
    # Another size with as many cores has the same layout: nobody compiles for hours again.
    compiled_for((emulated / demo(1).name).rename(echo_copy), demo(1), "inf1.2xlarge")
    assert main(arguments) == 0


def test_what_the_emulators_table_calls_unknown_is_asked_or_has_a_reason(tmp_path):
    options = Options("out.json", "inf1.xlarge", ["unknowns"], 1.0, 1, ["ours"], [], [], None)
    steps = []

    class Recording(Acceptance):
        def step(self, name, work):
            steps.append(name)
            return name

        def artifact(self, recipe):
            return tmp_path

    Recording(options, tmp_path, lambda steps: None).unknowns()
    unknown = {entry.name for entry in UNKNOWNS}
    assert {probe.unknown for probe in probes(4)} <= unknown
    asked = {name.partition(":")[0] for name in steps} & unknown
    assert asked | set(NOT_ASKED) == unknown and not asked & set(NOT_ASKED)
    assert all(NOT_ASKED.values())
