"""The command line: every verb, every exit code, every bad input, as a person types them."""

import dataclasses
import errno
import fcntl
import inspect
import json
import os
import pty
import resource
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

import neuronbert
from neuronbert.artifact.manifest import Artifact
from neuronbert.artifact.signing import sign_artifact
from neuronbert.cli.boundary import without_token
from neuronbert.cli.doctor.examination import examine
from neuronbert.cli.main import CONTEXT_SETTINGS, cli, run
from neuronbert.cli.top import running
from neuronbert.hardware.libraries import PURPOSES
from neuronbert.runner.core_environment import core_environment
from neuronbert.server.settings import ServerSettings
from neuronbert.tasks import TASKS, load_options, load_task
from neuronbert.tasks.base import option_kinds
from neuronbert.tasks.option import METADATA
from neuronbert.tasks.question_answering import gate
from neuronbert.tasks.question_answering.squad import SquadQuestion, load_squad, squad_document
from neuronbert.tasks.samples import gate_path

CONTEXT = "Jim Henson built the first Kermit in 1955 from his mother's old coat."
QUESTION = "Who built the first Kermit?"


@pytest.fixture(autouse=True)
def no_progress(monkeypatch):
    """However long a busy machine takes: tests/cli/test_progress.py is about those lines."""
    monkeypatch.setattr("neuronbert.cli.progress.DELAY_S", 3600.0)


def invoke(capsys, *arguments):
    """(exit code, stdout, stderr) of one command line."""
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *arguments, code=1):
    """The error line of a command that must fail with one message, a try: line and nothing on stdout."""
    actual, out, err = invoke(capsys, *arguments)
    lines = err.strip().splitlines()
    assert (actual, out) == (code, "")
    assert [line.split(":")[0].strip() for line in lines[-2:]] == ["error", "try"], err
    return lines[-2]


def lines_file(folder: Path, *lines) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def ask(**more):
    return {"question": QUESTION, "context": CONTEXT, **more}


# What works.


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_every_verb_has_help_and_json(capsys, verb):
    code, out, _ = invoke(capsys, verb, "--help")
    assert code == 0
    assert "--json" in out
    assert cli.commands[verb].help.strip()


def test_help_and_inspect_load_no_backend(echo_artifact):
    code = (
        "import sys; from neuronbert.cli.main import run; run(['--help']); "
        f"run(['inspect', {str(echo_artifact.folder)!r}]); "
        "sys.exit(len({'numpy', 'torch', 'transformers', 'openvino', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_version(capsys):
    assert invoke(capsys, "--version")[1].strip() == f"neuronbert, version {neuronbert.__version__}"


def test_a_module_run_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "neuronbert", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == f"neuronbert, version {neuronbert.__version__}"


def test_compile_inspect_answer_evaluate(capsys, tmp_path):
    output = tmp_path / "artifact"
    code, out, err = invoke(
        capsys, "compile", "demo", output, "--backend", "echo", "--precision", "fp32", "--skip-gate"
    )
    assert (code, out.splitlines()[-1]) == (0, f"{output}: echo-fp32")
    assert "echo-fp32: compiling" in err
    code, out, _ = invoke(capsys, "inspect", output)
    assert code == 0
    assert "SKIPPED" in out
    assert "all 6 files verified" in out
    code, out, _ = invoke(capsys, "answer", output, "--question", QUESTION, "--context", CONTEXT)
    assert code == 0
    assert "characters" in out


@pytest.mark.parametrize("flag", ["--top-k", "--top_k"])
def test_both_spellings_of_an_option(capsys, echo_artifact, flag):
    code, out, _ = invoke(
        capsys, "answer", echo_artifact.folder, "--question", QUESTION, "--context", CONTEXT, flag, 3, "--json"
    )
    assert code == 0
    assert len(json.loads(out)["answers"]) == 3


EVERY_KIND = tuple(kind for task in TASKS for kind in option_kinds(load_task(task)))
# Each verb's function, and the classes whose fields its **options are.
FUNCTIONS = {
    "compile": (neuronbert.compile_checkpoint, ()),
    "cascade": (neuronbert.make_cascade, ()),
    "inspect": (neuronbert.load_artifact, ()),
    "sign": (sign_artifact, ()),
    "answer": (neuronbert.pipeline, option_kinds(load_task("question-answering"))),
    "classify": (neuronbert.pipeline, option_kinds(load_task("text-classification"))),
    "rerank": (neuronbert.pipeline, option_kinds(load_task("text-classification"))),
    "tag": (neuronbert.pipeline, option_kinds(load_task("token-classification"))),
    "embed": (neuronbert.pipeline, option_kinds(load_task("feature-extraction"))),
    "evaluate": (neuronbert.evaluate_artifact, EVERY_KIND),
    "env": (core_environment, ()),
    "run": (neuronbert.run_job, EVERY_KIND),
    "serve": (neuronbert.serve, (ServerSettings,)),
    "top": (running, ()),
    "benchmark": (neuronbert.benchmark_artifact, ()),
    "plan": (neuronbert.plan, ()),
    "doctor": (examine, ()),
}
# What only one of the two has: how the command line reads and prints, and what has no meaning beside it.
ONLY_PYTHON = {"progress", "on_step", "on_point", "facts", "on_skip", "on_unsaid", "on_ready", "screen"}
TEXTS = {text.name for task in TASKS for verb in load_options(task).VERBS for text in verb.texts}
ONLY_COMMAND_LINE = {"as_json", "input_", "once", "log", "plot", "url", *TEXTS}
WITHOUT_MEANING = {
    "evaluate": {"top_k", "details", "return_texts", "aggregation_strategy"},
    # It is for that task, and its argument is the model.
    **{verb.name: {"task", "model"} for task in TASKS for verb in load_options(task).VERBS},
}
# What a function hands on by name, or leaves to another.
HANDED_ON = {
    **{
        verb.name: {"on_error": "fail", "input_format": None, "output_format": None}
        for task in TASKS
        for verb in load_options(task).VERBS
    },
    "plan": {"revision": None, "token": None, "local_files_only": False, "allow_pickle": False},
}


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_a_verb_has_the_options_of_its_function_and_their_defaults(verb, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    function, classes = FUNCTIONS[verb]
    expected = {
        parameter.name: parameter.default
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in ONLY_PYTHON
    }
    every = [field for kind in classes for field in dataclasses.fields(kind)]
    of_options = [field for field in every if METADATA in field.metadata]  # a list, say, is for Python alone
    for field in of_options:  # where tasks differ, the command line leaves it to the task
        same = {other.default for other in of_options if other.name == field.name}
        expected[field.name] = field.default if len(same) == 1 else None
    expected.update(HANDED_ON.get(verb, {}))
    for name in WITHOUT_MEANING.get(verb, ()):
        del expected[name]
    command = cli.commands[verb]
    required = {option.name: option.opts[0] for option in command.params if option.required}
    line = [word for name, flag in required.items() for word in ([flag, "x"] if flag.startswith("-") else ["x"])]
    given = command.make_context(verb, line, **CONTEXT_SETTINGS).params
    options = {name: value for name, value in given.items() if name not in {*required, *ONLY_COMMAND_LINE}}
    assert set(options) == set(expected) - {*required, "folder"}
    for name, value in options.items():
        value, wanted = (",".join(one) if isinstance(one, tuple) else one for one in (value, expected[name]))
        assert str(value) == str(wanted), name


def test_evaluate_reads_as_it_is_told(capsys, tmp_path, echo_artifact):
    question = SquadQuestion("a", QUESTION, CONTEXT, ("Jim Henson",), False, (0,))
    (tmp_path / "data.json").write_text(json.dumps(squad_document([question], "1.1")))
    arguments = ["evaluate", echo_artifact.folder, tmp_path / "data.json", "--json"]

    def answered(*options):
        code, out, _ = invoke(capsys, *arguments, *options)
        assert code == 0
        return json.loads(out)["predictions"]["a"]

    assert len(answered("--max-answer-len", 1, "--max-seq-len", 20, "--doc-stride", 4).split()) == 1
    assert answered("--null-threshold", "-1e9") == ""
    assert refused(capsys, *arguments[:-1], "--max-seq-len", 3)


def test_details_are_json_even_where_no_answer_is_infinitely_better(capsys, echo_artifact):
    arguments = ["answer", echo_artifact.folder, "--question", QUESTION, "--details"]
    code, out, _ = invoke(capsys, *arguments, "--context", " ", "--json")
    assert (code, json.loads(out, parse_constant=pytest.fail)["null_difference"]) == (0, None)
    assert "window 0, null difference" in invoke(capsys, *arguments, "--context", CONTEXT)[1]
    assert "null difference inf" in invoke(capsys, *arguments, "--context", " ")[1]


def test_answer_prints_what_the_old_pipeline_returned(capsys, demo_artifact):
    code, out, _ = invoke(
        capsys, "answer", demo_artifact.folder, "--question", QUESTION, "--context", CONTEXT, "--json"
    )
    answer = json.loads(out)
    assert code == 0
    assert set(answer) == {"score", "start", "end", "answer"}
    assert CONTEXT[answer["start"] : answer["end"]] == answer["answer"] == "Jim Henson"


def test_a_file_is_answered_line_by_line(capsys, tmp_path, echo_artifact):
    path = lines_file(tmp_path, ask(id="a"), "", ask(top_k=2))
    code, out, _ = invoke(capsys, "answer", echo_artifact.folder, "--input", path)
    first, second = map(json.loads, out.splitlines())
    assert code == 0
    assert (first["line"], first["id"]) == (1, "a")
    assert (second["line"], len(second["answers"])) == (3, 2)


def test_stdin_is_answered(echo_artifact):
    done = subprocess.run(
        [sys.executable, "-m", "neuronbert", "answer", str(echo_artifact.folder), "--input", "-", "--json"],
        input=json.dumps(ask()), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert [result["line"] for result in json.loads(done.stdout)["results"]] == [1]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("as_json", [["--json"], []])
def test_results_can_always_be_printed(tmp_path, echo_artifact, encoding, as_json):
    identity = "whole \U0001f600, \u4e2d"
    path = lines_file(tmp_path, json.dumps(ask(id=identity)))
    command = [sys.executable, "-m", "neuronbert", "answer", str(echo_artifact.folder), "--input", str(path), *as_json]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    document = json.loads(done.stdout.decode(encoding))
    assert (document["results"][0] if as_json else document)["id"] == identity


def test_half_a_surrogate_pair_is_refused_in_a_line_and_escaped_from_an_argument(capsys, tmp_path, echo_artifact):
    path = lines_file(tmp_path, ask(), json.dumps(ask(context="Jim \udc00Henson")))
    assert "line 2: context holds half of a surrogate pair" in refused(
        capsys, "answer", echo_artifact.folder, "--input", path
    )
    command = [sys.executable, "-m", "neuronbert", "answer", echo_artifact.folder, "--question", "Who?", "--context"]
    done = subprocess.run([*command, b"a\xffb"], env={**os.environ, "PYTHONIOENCODING": "utf-8"}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("utf-8").startswith("a\\udcffb  (score")


def test_skip_answers_the_good_lines_and_lists_the_bad(capsys, tmp_path, echo_artifact):
    path = lines_file(
        tmp_path, ask(id=1), "{broken", ask(question=""), ask(question="why " * 500), ask(doc_stride=9999), ask(id=5)
    )
    code, out, err = invoke(capsys, "answer", echo_artifact.folder, "--input", path, "--on-error", "skip")
    assert code == 0
    documents = [json.loads(line) for line in out.splitlines()]
    assert [(line["line"], line.get("id"), "error" in line) for line in documents] == [
        (1, 1, False),
        *((number, None, True) for number in (2, 3, 4, 5)),
        (6, 5, False),
    ]
    assert [line.split(":")[0] for line in err.splitlines()] == [f"skipped line {number}" for number in (2, 3, 4, 5)]


def test_run_writes_the_lines_of_answer_to_a_file(capsys, tmp_path, echo_artifact):
    path = lines_file(tmp_path, ask(id="a"), "{", ask(top_k=2))
    _, printed, _ = invoke(capsys, "answer", echo_artifact.folder, "--input", path, "--on-error", "skip")
    command = ["run", echo_artifact.folder, "--input", path, "--output", tmp_path / "out", "--workers", 1]
    code, out, err = invoke(capsys, *command, "--on_error", "skip")
    assert (code, out) == (0, "")
    assert (tmp_path / "out").read_text(encoding="utf-8") == printed
    skipped, summary = err.splitlines()
    assert skipped.startswith("skipped line 2: ")
    assert (
        summary.startswith(f"{tmp_path / 'out'}: 3 lines, 1 skipped, in ")
        and " a second, loading not counted)" in summary
    )


def test_run_under_json_is_one_document(capsys, tmp_path, echo_artifact):
    command = ["run", echo_artifact.folder, "--input", lines_file(tmp_path, ask()), "--output", tmp_path / "out"]
    code, out, _ = invoke(capsys, *command, "--max-answer-len", 3, "--json")
    assert code == 0
    assert json.loads(out)["answered"] == 1


def test_doctor_says_what_this_machine_can_run(capsys):
    code, out, _ = invoke(capsys, "doctor", "--json")
    assert code == 0
    assert {"name", "found"} <= set(json.loads(out)["checks"][0])


def test_doctor_explains_a_log(capsys, monkeypatch, tmp_path):
    """aws-neuron-sdk#439: the cause stands first, and what follows from it below."""
    log = tmp_path / "log"
    log.write_text(
        "WARNING:Neuron:torch.neuron.trace failed on _NeuronGraph$698; falling back to native python function call\n"
        "INFO:Neuron:Compile command returned: -9\nINFO:Neuron:Compile command returned: -9\n" + "x" * 300 + "\n"
    )
    code, out, _ = invoke(capsys, "doctor", "--log", log)
    assert code == 0
    assert out.splitlines()[0] == "neuron-cc was killed, most likely for memory"
    assert out.splitlines()[1] == "    INFO:Neuron:Compile command returned: -9"
    assert out.splitlines()[2].startswith("  try: compile on a machine with 32 GiB")
    assert out.count("try:") == 2
    code, out, _ = invoke(capsys, "doctor", "--log", log, "--json")
    assert [one["name"] for one in json.loads(out)["diagnoses"]] == ["compiler-killed", "partly-compiled"]
    log.write_text("all is well\n")
    assert invoke(capsys, "doctor", "--log", log)[:2] == (0, "nothing in this log is a known failure\n")
    assert invoke(capsys, "doctor", "--log", tmp_path / "none")[0] == 2


# What is refused: one line with the value, a try: line, nothing written.


@pytest.fixture()
def nothing_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "out").exists()
    assert [name for name in os.listdir(tmp_path) if "partial" in name] == []


def test_run_refuses_an_output_that_exists(capsys, tmp_path, echo_artifact):
    (tmp_path / "there").write_text("precious")
    command = ["run", echo_artifact.folder, "--input", lines_file(tmp_path, ask()), "--output", tmp_path / "there"]
    assert "exists already" in refused(capsys, *command)
    assert (tmp_path / "there").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--workers", 10_000], 2, "10,000 workers"),
        (["--doc-stride", 9999], 2, "9999"),
        (["--variant", "gpu"], 1, "gpu"),
    ],
)
def test_run_refuses_what_cannot_be_done(capsys, nothing_written, echo_artifact, arguments, code, words):
    path = lines_file(nothing_written, ask())
    command = ["run", echo_artifact.folder, "--input", path, "--output", "out", *arguments]
    assert words in refused(capsys, *command, code=code)


def test_compile_refuses_an_unknown_checkpoint(capsys, nothing_written):
    assert "no-such-folder" in refused(capsys, "compile", "./no-such-folder", "out")


def test_compile_refuses_a_folder_without_config(capsys, nothing_written):
    (nothing_written / "empty").mkdir()
    assert "config.json" in refused(capsys, "compile", "empty", "out")


def test_compile_refuses_a_model_that_is_not_cached_without_network(capsys, nothing_written, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(nothing_written / "cache"))
    assert "someone/model" in refused(capsys, "compile", "someone/model", "out", "--local-files-only")


def test_compile_refuses_the_wrong_architecture(capsys, nothing_written):
    (nothing_written / "gpt").mkdir()
    (nothing_written / "gpt" / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    assert "gpt2" in refused(capsys, "compile", "gpt", "out")


def test_compile_refuses_an_output_that_exists(capsys, tmp_path, monkeypatch):
    (tmp_path / "it is there").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "exists already" in refused(capsys, "compile", "demo", "it is there")
    for name in ("it is there", "", ".", "..", str(tmp_path), "/"):  # nobody is told to remove anything
        hint = invoke(capsys, "compile", "demo", name)[2].splitlines()[-1]
        assert hint == "  try: another name, or move away what is there"
    assert "it is there would be written, and is the input ./it is there" in refused(
        capsys, "compile", "./it is there", "it is there"
    )


def test_compile_refuses_an_empty_name(capsys, nothing_written):
    assert "there is no checkpoint ''" in refused(capsys, "compile", "", "out")


def test_the_gate_has_its_own_exit_code(capsys, nothing_written, tiny_checkpoint, monkeypatch):
    # Few questions: echo agrees with the reference on none of them.
    monkeypatch.setattr(gate, "MIN_QUESTIONS", 20)
    monkeypatch.setattr(gate, "gate_questions", lambda *_: load_squad(gate_path())[:20])
    options = ["--backend", "echo", "--precision", "fp32", "--threads", "1"]
    assert "the gate refuses echo-fp32" in refused(capsys, "compile", tiny_checkpoint, "out", *options, code=4)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_compile_refuses_a_read_only_place(capsys, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "permission denied" in refused(capsys, "compile", "demo", tmp_path / "locked" / "out")


def test_compile_says_that_the_disk_is_full(capsys, nothing_written, monkeypatch):
    def full(self, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "the disk is full" in refused(
        capsys, "compile", "demo", "out", "--backend", "echo", "--precision", "fp32", "--skip-gate"
    )


def test_what_is_no_artifact_says_what_it_is(capsys, tmp_path):
    def hint(path):
        return invoke(capsys, "inspect", path)[2].splitlines()[1]

    (tmp_path / "checkpoint").mkdir()
    assert hint(tmp_path / "checkpoint") == "  try: name the folder that neuronbert compile wrote"
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    assert hint(tmp_path / "checkpoint") == f"  try: neuronbert compile {tmp_path / 'checkpoint'} OUTPUT"
    # Not a command that would make one there: most such names are mistyped, or that of a checkpoint.
    assert hint(tmp_path / "absent").endswith("neuronbert compile wrote: neuronbert compile CHECKPOINT FOLDER")


@pytest.mark.parametrize("verb", [["inspect"], ["answer", "--question", "q", "--context", "c"]])
def test_a_damaged_artifact_is_refused_by_every_verb(capsys, echo_copy, verb):
    (echo_copy / "tokenizer.json").write_bytes(b"{}")
    assert "tokenizer.json was changed" in refused(capsys, verb[0], echo_copy, *verb[1:])


@pytest.mark.parametrize(
    ("question", "context", "words"),
    [("", CONTEXT, "question"), (QUESTION, "", "context"), ("why " * 500, CONTEXT, "500 tokens")],
    ids=["no question", "no context", "long question"],
)
def test_answer_refuses_what_cannot_be_asked(capsys, echo_artifact, question, context, words):
    assert words in refused(capsys, "answer", echo_artifact.folder, "--question", question, "--context", context)


@pytest.mark.parametrize(
    "line",
    ["{broken", '"text"', '{"question": "q"}', '{"question": "", "context": "c"}', '{"question": 1, "context": "c"}'],
)
def test_a_broken_line_is_named_and_nothing_is_answered(capsys, tmp_path, echo_artifact, line):
    path = lines_file(tmp_path, ask(), ask(), line, ask())
    assert "line 3" in refused(capsys, "answer", echo_artifact.folder, "--input", path)


@pytest.mark.parametrize("fault", [{"question": "why " * 500}, {"top_k": 0}, {"doc_stride": 9999}])
def test_what_cannot_be_asked_is_named_by_its_line(capsys, tmp_path, echo_artifact, fault):
    path = lines_file(tmp_path, ask(), ask(**fault))
    assert "line 2" in refused(capsys, "answer", echo_artifact.folder, "--input", path)


def test_hints_are_for_whoever_typed_the_command(capsys, tmp_path, echo_artifact):
    arguments = ["answer", echo_artifact.folder, "--context", CONTEXT, "--question"]
    _, _, err = invoke(capsys, *arguments, "why " * 500)
    assert err.splitlines()[1] == "  try: a shorter question, a max_question_len of 190, or a larger max_seq_len"
    _, out, err = invoke(capsys, *arguments, QUESTION, "--doc-stride", 9999, "--json")
    assert err.splitlines()[1] == "  try: neuronbert answer --help"
    assert json.loads(out)["try"] == "neuronbert answer --help"


def test_binary_input_is_refused(capsys, tmp_path, echo_artifact):
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 20)
    for arguments in (["answer", echo_artifact.folder, "--input"], ["evaluate", echo_artifact.folder]):
        assert "is binary" in refused(capsys, *arguments, tmp_path / "binary")


def test_endless_input_is_refused_before_it_is_all_read(capsys, echo_artifact, monkeypatch):
    monkeypatch.setattr("neuronbert.tasks.lines.MAX_LINE_BYTES", 1 << 20)
    assert "line 1 of the input is binary" in refused(capsys, "answer", echo_artifact.folder, "--input", "/dev/zero")
    assert "/dev/zero is a device, not a file" in refused(capsys, "evaluate", echo_artifact.folder, "/dev/zero")


def test_a_missing_input_file_is_named(capsys, echo_artifact):
    assert "nothing.jsonl" in refused(capsys, "answer", echo_artifact.folder, "--input", "nothing.jsonl")


@pytest.mark.parametrize(
    "arguments",
    [["answer"], ["answer", "x", "--top-k", "0"], ["answer", "x", "--nonsense"], ["nonsense"], ["compile", "demo"]],
)
def test_usage_errors(capsys, arguments):
    code, out, err = invoke(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "Usage:" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--question", "q"], "--context is missing"),
        (["--context", "c"], "--question is missing"),
        (["--question", "q", "--context", "c", "--input", "-"], "--input takes the place of --question and --context"),
        (["--question", "q", "--context", "c", "--doc-stride", "9999"], "`doc_stride` (9999) is larger than"),
    ],
)
def test_contradictory_options(capsys, echo_artifact, options, words):
    assert words in refused(capsys, "answer", echo_artifact.folder, *options, code=2)


def test_compile_knows_its_backends(capsys, nothing_written):
    assert "tensorrt" in refused(capsys, "compile", "demo", "out", "--backend", "tensorrt", code=2)


def test_errors_under_json_are_one_document_too(capsys):
    code, out, _ = invoke(capsys, "inspect", "nothing", "--json")
    assert code == 1
    assert json.loads(out)["exit_code"] == 1


def test_a_bug_keeps_its_traceback(capsys, monkeypatch, echo_artifact):
    monkeypatch.setattr("neuronbert.artifact.manifest.load_artifact", lambda folder, **_: 1 / 0)
    code, _, err = invoke(capsys, "inspect", echo_artifact.folder)
    path = Path(err.split("report it with ")[1].split(",")[0])
    assert code == 3
    assert "ZeroDivisionError" in path.read_text()
    path.unlink()


def test_a_library_that_another_one_misses_is_no_bug(capsys, monkeypatch, echo_artifact):
    def load(folder, **_):
        raise ModuleNotFoundError("No module named 'onnx'", name="onnx")

    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr("neuronbert.artifact.manifest.load_artifact", load)
    code, _, err = invoke(capsys, "inspect", echo_artifact.folder)
    assert (code, err.splitlines()[0].partition(":")[2]) == (1, " onnx is not installed: needed " + PURPOSES["compile"])
    assert 'pip install "neuronbert[compile]"' in err.splitlines()[1]


def test_a_bug_where_no_log_can_be_kept_shows_its_traceback(capsys, monkeypatch, echo_artifact):
    monkeypatch.setattr("neuronbert.artifact.manifest.load_artifact", lambda folder, **_: 1 / 0)
    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda *_, **__: open("/dev/null/log"))
    code, _, err = invoke(capsys, "inspect", echo_artifact.folder)
    assert (code, err.splitlines()[-1]) == (3, "  try: report it with the traceback above")
    assert "ZeroDivisionError" in err


def test_a_full_disk_is_no_bug_wherever_it_is_met(capsys, monkeypatch, echo_artifact):
    def full(folder, **_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some/cache")

    monkeypatch.setattr("neuronbert.artifact.manifest.load_artifact", full)
    assert "cannot write some/cache: No space left" in refused(capsys, "inspect", echo_artifact.folder)


def test_a_token_is_not_in_the_log():
    arguments = ["compile", "--token", "hf_secret", "--token=hf_secret", "a", "b"]
    assert without_token(arguments) == ["compile", "--token", "***", "--token=***", "a", "b"]


@pytest.mark.parametrize("arguments", [["inspect", "nothing"], ["inspect", "--nope"], ["answer", "x", "--top-k", "0"]])
def test_under_json_every_ending_is_one_document(capsys, arguments):
    code, out, _ = invoke(capsys, *arguments, "--json")
    assert json.loads(out)["exit_code"] == code != 0


def inspect_into(artifact: Artifact, stdout: str):
    command = f"{sys.executable} -m neuronbert inspect {artifact.folder} {stdout}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True)


def test_a_result_that_cannot_be_written_is_no_bug(echo_artifact):
    done = inspect_into(echo_artifact, ">/dev/full")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        "error: cannot write the result: No space left on device",
    )


@pytest.mark.parametrize("arguments", ["inspect {artifact}", "inspect {artifact} --json", "--help"])
def test_a_terminal_that_has_gone_is_no_bug(echo_artifact, arguments):
    """As one that was closed over a command in the background."""
    ours, theirs = pty.openpty()
    command = f"read; exec {sys.executable} -m neuronbert {arguments.format(artifact=echo_artifact.folder)}"
    pipe = {"stdin": subprocess.PIPE, "stdout": theirs, "stderr": subprocess.PIPE}
    with subprocess.Popen(["bash", "-c", command], **pipe, start_new_session=True) as process:
        os.close(theirs)
        os.close(ours)
        err = process.communicate(b"\n")[1].decode()
    assert (process.returncode, err.splitlines()[0]) == (1, "error: cannot write the result: Input/output error")


@pytest.mark.parametrize("unbuffered", ["", "1"])  # then Python itself passes over what is not written
def test_nor_is_a_result_that_is_larger_than_a_file_may_be(tmp_path, echo_artifact, unbuffered):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))

    command = [sys.executable, "-m", "neuronbert", "inspect", str(echo_artifact.folder)]
    with open(tmp_path / "out", "wb") as file:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        pipe = subprocess.PIPE
        done = subprocess.run(command, stdout=file, stderr=pipe, text=True, preexec_fn=limit, env=environment)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "error: cannot write the result: File too large")


@pytest.mark.parametrize("verb", ["answer", "run"])
def test_a_pause_is_not_the_end_of_a_stdin_that_does_not_wait(tmp_path, echo_artifact, verb):
    """Python takes it for that: what came later was left out, and the exit code was 0."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    command = [sys.executable, "-m", "neuronbert", verb, str(echo_artifact.folder), "--input", "-"]
    command += ["--output", str(tmp_path / "out")] if verb == "run" else []
    with subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE) as process:
        os.close(reading)
        with open(writing, "wb") as file:
            for _ in range(2):
                file.write(json.dumps(ask()).encode() + b"\n")
                file.flush()
                wait_until_read(file)
        out = process.communicate()[0]
    assert process.returncode == 0
    assert len(((tmp_path / "out").read_bytes() if verb == "run" else out).splitlines()) == 2


def wait_until_read(pipe) -> None:
    """Until the other end has read what there is, and has looked for more."""
    ended = time.monotonic() + 60
    while struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0] and time.monotonic() < ended:
        time.sleep(0.1)
    time.sleep(0.3)


def test_a_stdout_that_does_not_wait_gets_all_of_the_result(tmp_path, echo_artifact):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    lines = lines_file(tmp_path, *[ask()] * 1500)  # more than the pipe takes at once
    command = [sys.executable, "-m", "neuronbert", "answer", str(echo_artifact.folder), "--input", str(lines)]
    with subprocess.Popen(command, stdout=writing) as process, open(reading, "rb") as file:
        os.close(writing)
        time.sleep(1)
        found = file.read()
    assert (process.returncode, len(found.splitlines())) == (0, 1500)


def test_nobody_needs_to_listen(echo_artifact):
    assert (inspect_into(echo_artifact, ">&-").returncode, inspect_into(echo_artifact, ">&-").stderr) == (0, "")


def test_a_run_may_be_in_any_thread(echo_artifact, capsys):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run(["inspect", str(echo_artifact.folder)])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_the_command_s_own_options_are_no_line_s_fault(capsys, tmp_path, echo_artifact):
    arguments = ["answer", echo_artifact.folder, "--input", lines_file(tmp_path, ask()), "--doc-stride", 9999]
    assert "error: `doc_stride` (9999) is larger" in refused(capsys, *arguments, "--on-error", "skip", code=2)


def test_a_file_without_a_question_is_refused(capsys, tmp_path, echo_artifact):
    assert "no question" in refused(capsys, "answer", echo_artifact.folder, "--input", lines_file(tmp_path, ""))


def test_a_reader_that_leaves_is_no_error(echo_artifact):
    command = f"{sys.executable} -m neuronbert inspect {echo_artifact.folder} --json | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", ["--help", "inspect {artifact}", "answer {artifact} --input {lines}"])
def test_a_reader_that_left_before_is_no_error(tmp_path, echo_artifact, arguments):
    lines = lines_file(tmp_path, *[ask()] * 3)
    arguments = arguments.format(artifact=echo_artifact.folder, lines=lines)
    # The command begins when its reader is gone: the named pipe ends the waiting.
    os.mkfifo(tmp_path / "gone")
    command = f"(read < {tmp_path}/gone; exec {sys.executable} -m neuronbert {arguments})"
    command += f" | (exec <&-; echo > {tmp_path}/gone); exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_that_breaks_elsewhere_is_no_success(capsys, monkeypatch, echo_artifact):
    def load(folder, **_):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr("neuronbert.artifact.manifest.load_artifact", load)
    code, _, err = invoke(capsys, "inspect", echo_artifact.folder)
    assert code == 3
    Path(err.split("report it with ")[1].split(",")[0]).unlink()


@pytest.mark.parametrize(
    "streams", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1", "| true", "2>&1 | true", ">&- 2>&-"]
)
@pytest.mark.parametrize(
    ("arguments", "code"), [("inspect /nonexistent", 1), ("inspect --nonsense", 2), ("nonsense", 2)]
)
def test_the_exit_code_of_an_error_survives_that_it_cannot_be_said(arguments, code, streams):
    command = f"{sys.executable} -m neuronbert {arguments} --json {streams}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["answer", "--input", "-"], ["run", "--input", "-", "--output", "out"]])
@pytest.mark.parametrize("stdin", [None, "closed"])
def test_a_closed_stdin_is_named(capsys, monkeypatch, nothing_written, echo_artifact, arguments, stdin):
    if stdin is not None:
        stdin = open(os.devnull)
        stdin.close()
    monkeypatch.setattr("sys.stdin", stdin)
    verb, *options = arguments
    assert "stdin, which is closed" in refused(capsys, verb, echo_artifact.folder, *options)


@pytest.mark.parametrize(
    "arguments",
    [
        "run {artifact} --input {lines} --output out",
        "benchmark {artifact} --report report.json",
        "compile demo out --backend echo --skip-gate",
        "doctor",
    ],
)
def test_a_working_directory_that_is_gone_is_no_bug(tmp_path, echo_artifact, arguments):
    arguments = arguments.format(artifact=echo_artifact.folder, lines=lines_file(tmp_path, ask()))
    (tmp_path / "gone").mkdir()
    command = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec {sys.executable} -m neuronbert {arguments}"
    environment = {**os.environ, "PYTHONPATH": str(Path(neuronbert.__file__).parents[1])}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    assert done.returncode == (0 if arguments == "doctor" else 1)
    said = done.stdout if arguments == "doctor" else done.stderr
    assert "the working directory no longer exists" in said and "try: cd into one that does" in said
    assert arguments != "doctor" or "numpy" in said


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_command_line_waits_without_spinning_unless_its_user_says_otherwise(before, after):
    code = "import os, sys; from neuronbert.cli.main import main\n"
    code += "try: main(['--version'])\nexcept SystemExit: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment.update({} if before is None else {"OMP_WAIT_POLICY": before})
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{after} False"


def test_an_artifact_for_another_machine_says_what_it_needs(echo_artifact):
    from neuronbert.engine.engine import Engine
    from neuronbert.errors import ArtifactError

    variant = {**echo_artifact.variants[0], "requires": {"cpu_flags": ["amx_int8"], "libraries": {"nolib": ">=9"}}}
    with pytest.raises(ArtifactError, match="amx_int8.*nolib"):
        Engine(Artifact(echo_artifact.folder, {**echo_artifact.manifest, "variants": [variant]}))
