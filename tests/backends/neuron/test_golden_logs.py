"""The error diagnosis, the log parsers and the census of a graph, on what AWS's software has really said and traced.

The texts and their sources are in tests/data/neuron-logs.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from neuronbert.backends.neuron import known_failures
from neuronbert.backends.neuron.compile_job import FAILURES, compiler_reasons, fell_back, refusal
from neuronbert.backends.neuron.failures import PipelineRefused, explained, known_failure
from neuronbert.backends.neuron.tracing import CompileReport, import_torch_neuron, report_of
from neuronbert.errors import BackendFailed, BackendUnavailable

LOGS = Path(__file__).resolve().parents[2] / "data" / "neuron-logs"
REPORTS = json.loads((LOGS / "errors.json").read_text(encoding="utf-8"))
TABLES = {
    "install": known_failures.INSTALL_FAILURES,
    "import": known_failures.IMPORT_FAILURES,
    "compile": FAILURES,
    "load": known_failures.RUNTIME_FAILURES,
    "run": known_failures.RUNTIME_FAILURES,
}
ERRORS = [report for report in REPORTS if report["diagnosis"]]
RECIPE = {"batch_size": 1, "sequence_length": 128, "compiler_args": ["--fast-math", "all"]}


def log_of(name):
    return (LOGS / name).read_text(encoding="utf-8")


def said(report):
    return f"{report['source']}: {report['text'][:60]}"


# ---- the diagnosis


def test_there_are_many_of_them_and_each_is_quoted_once():
    assert len({report["text"] for report in ERRORS}) >= 90
    assert len({(report["source"], report["text"]) for report in REPORTS}) == len(REPORTS)
    assert all(report["source"] and set(report) == {"source", "text", "situation", "diagnosis"} for report in REPORTS)


@pytest.mark.parametrize("report", ERRORS, ids=said)
def test_every_text_has_its_diagnosis_and_something_to_try(report):
    error = explained(report["text"], TABLES[report["situation"]], "cannot go on")
    failure = known_failure(report["text"], TABLES[report["situation"]])
    assert failure.name == report["diagnosis"]
    assert type(error) is failure.kind and failure.meaning in error.message
    assert all(line.strip() in error.message for line in report["text"].splitlines())
    assert error.hint == failure.advice and "\n" not in error.hint


@pytest.mark.parametrize("report", ERRORS, ids=said)
def test_a_text_means_the_same_in_a_whole_log(report):
    assert known_failure(report["text"], known_failures.ALL_FAILURES).name == report["diagnosis"]


@pytest.mark.parametrize("report", [report for report in REPORTS if not report["diagnosis"]], ids=said)
def test_what_is_no_failure_is_taken_for_none(report):
    """The deprecation of NEURONCORE_GROUP_SIZES, for one, stands above every real failure of such a worker."""
    assert known_failure(report["text"], known_failures.ALL_FAILURES) is None


# Of software whose format is public and of which no report with these values was sought: (source, text).
LIKE_NEURONS = [
    ("systemd", "systemd[1]: qa.service: Main process exited, code=exited, status=4/NOPERMISSION"),
    ("systemd", "systemd[1]: qa.service: Main process exited, code=exited, status=5/NOTINSTALLED"),
    ("systemd", "systemd[1]: qa.service: Main process exited, code=exited, status=10/n/a"),
    ("systemd", "systemd[1]: qa.service: Main process exited, code=killed, status=9/KILL"),
    ("systemd", "systemd[1]: qa.service: Killing process 1 (python) with signal SIGKILL."),
    ("systemd", "systemd[1]: qa.service: start operation timed out. Terminating."),
    ("subprocess", "subprocess.TimeoutExpired: Command '['ssh', 'host']' timed out after 30 seconds"),
    ("an application", "ERROR login: message=Invalid password"),
    ("pip", "ERROR: Could not find a version that satisfies the requirement requets (from versions: none)"),
    ("pip", "ERROR: No matching distribution found for requets"),
    ("pytorch", "The size of tensor a (512) must match the size of tensor b (514) at non-singleton dimension 1"),
    ("ld.so", "ImportError: /usr/lib/libfoo.so.1: undefined symbol: bar_init"),
    ("numpy", "TypeError: data type not understood"),
    ("linux mm/oom_kill.c", "kernel: Out of memory: Killed process 4182 (order-worker) total-vm:812044kB"),
    ("linux mm/page_alloc.c", "kernel: python: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL)"),
    ("our emulator", '        raise subprocess.TimeoutExpired(" ".join(command), options.compiler_timeout) from None'),
]


@pytest.mark.parametrize(("source", "text"), LIKE_NEURONS)
def test_what_other_software_says_is_not_taken_for_neurons(source, text):
    assert known_failure(text, known_failures.ALL_FAILURES) is None


@pytest.mark.parametrize("reason", ["Out of memory", "Memory cgroup out of memory"])
def test_a_compiler_that_the_kernel_killed_is_known_from_its_log(reason):
    """torvalds/linux, mm/oom_kill.c: ``%s: Killed process %d (%s) total-vm:…``, with one of these two reasons."""
    text = f"[18492.104] {reason}: Killed process 123 (neuron-cc) total-vm:8123400kB, anon-rss:7981200kB"
    assert known_failure(text, known_failures.ALL_FAILURES).name == "compiler-killed"


def test_every_failure_has_a_name_of_its_own():
    names = [failure.name for failure in known_failures.ALL_FAILURES]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[a-z-]+", name) for name in names)


def test_a_full_list_of_transfers_is_not_full_memory():
    """aws-neuron-sdk#369: both lines come together, and SDK 1.17.0 mended it; fewer copies would not have."""
    (report,) = (report for report in ERRORS if report["diagnosis"] == "transfer-lists-full")
    assert "status=4 message=Allocation Failure" in report["text"]
    error = explained(report["text"], known_failures.RUNTIME_FAILURES, "cannot load")
    assert "device memory is not full" in error.message and "1.17.0" in error.hint


# ---- the compiler's logs


def test_the_reasons_of_a_log_are_each_told_once():
    reasons = compiler_reasons(log_of("vits-neuron-cc-1.24.log"))
    assert [reason.split("[neuron-cc]: ")[-1] for reason in reasons] == [
        " An Internal Compiler Error has occurred",
        "Error message:  should not have any PF conflict",
        "Error class:    AssertionError",
        "WARNING:Neuron:torch.neuron.trace failed on _NeuronGraph$1025; falling back to native python function call",
        "ERROR:Neuron:neuron-cc failed with the following command line call:",
        "subprocess.SubprocessError: neuron-cc failed with the following command line call:",
        "ERROR:Neuron:list index out of range",
        "WARNING:Neuron:The neuron-cc (neuron compiler) process aborted (SIG_ABORT).  This is likely due to an "
        "unexpected condition internally (a bug).  Please lodge an issue at "
        "'https://github.com/aws/aws-neuron-sdk/issues'",
        "WARNING:Neuron:torch.neuron.trace was unable to compile > 50% of the operators in the compiled model!",
    ]


@pytest.mark.parametrize(
    ("name", "kind", "meaning", "advice"),
    [
        ("vits-neuron-cc-1.24.log", BackendFailed, "neuron-cc crashed", "--auto-cast"),
        ("bert-killed.log", BackendFailed, "was killed, most likely for memory", "32 GiB"),
        ("pipeline-refused.log", PipelineRefused, "refuses this number of pipeline cores", "auto"),
    ],
)
def test_a_failed_and_a_partly_failed_compile_say_why(tmp_path, name, kind, meaning, advice):
    nothing = "RuntimeError: No operations were successfully partitioned and compiled to neuron for this model"
    failed = refusal("\n".join([*compiler_reasons(log_of(name)), nothing]), RECIPE, LOGS / name)
    partly = fell_back(["25 aten::matmul would run on the CPU"], RECIPE, LOGS / name)
    for error in (failed, partly):
        assert type(error) is kind and meaning in error.message and advice in error.hint
    assert "fell back to the CPU: 25 aten::matmul would run" in partly.message


def test_a_model_that_fell_back_for_no_known_reason_names_the_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("Compiler status PASS\n")
    error = fell_back(["1 aten::mm would run on the CPU"], RECIPE, log)
    assert type(error) is BackendFailed and error.message.endswith(f"would run on the CPU; the log is {log}")
    assert error.hint == f"less {log}; another --auto-cast, --batch-size or --sequence-length may compile"


# ---- the census of a traced graph

# A class of torch's own stands for ``__torch__.torch.classes.neuron.Model``, which torch_neuron's library registers.
# lutzroeder/netron#930 found that argument in a real model: ``neuron::forward_v2_1(Tensor[] _0,
# __torch__.torch.classes.neuron.Model _1) -> (Tensor _0)``.
MODEL_CLASS = "__torch__.torch.classes.quantized.LinearPackedParamsBase"
# aws-neuron-sdk#681, a BERT's serialized code: ``_5 = torch.embedding(CONSTANTS.c3, _2); model = _NeuronGraph_32.model;
# _6 = ops.neuron.forward_v2_1([argument_2, _3, _4, _5], model); return (_6,)``.
BERT_681 = f"""graph(%self : Any, %argument_2 : Tensor, %_2 : Tensor, %_3 : Tensor, %_4 : Tensor, %c3 : Tensor):
  %padding : int = prim::Constant[value=-1]()
  %no : bool = prim::Constant[value=0]()
  %_5 : Tensor = aten::embedding(%c3, %_2, %padding, %no, %no)
  %_NeuronGraph_32 : Any = prim::GetAttr[name="_NeuronGraph#32"](%self)
  %model : {MODEL_CLASS} = prim::GetAttr[name="model"](%_NeuronGraph_32)
  %inputs : Tensor[] = prim::ListConstruct(%argument_2, %_3, %_4, %_5)
  %_6 : Tensor = neuron::forward_v2_1(%inputs, %model)
  %outputs : (Tensor) = prim::TupleConstruct(%_6)
  return (%outputs)
"""
# aws-neuron-sdk#1083: ``_NeuronGraph_0 = getattr(self, "_NeuronGraph#0"); model = _NeuronGraph_0.model;
# _0 = ops.neuron.forward_v2_1([argument_1], model); return _0``.
WHOLE_1083 = f"""graph(%self : Any, %argument_1 : Tensor):
  %_NeuronGraph_0 : Any = prim::GetAttr[name="_NeuronGraph#0"](%self)
  %model : {MODEL_CLASS} = prim::GetAttr[name="model"](%_NeuronGraph_0)
  %inputs : Tensor[] = prim::ListConstruct(%argument_1)
  %_0 : Tensor = neuron::forward_v2_1(%inputs, %model)
  return (%_0)
"""
# aws-neuron-sdk#298: ``_0 = ops.neuron.forward_1([argument_1], CONSTANTS.c0, CONSTANTS.c1, CONSTANTS.c2)``.
OLD_298 = """graph(%self : Any, %argument_1 : Tensor, %c0 : Tensor, %c1 : Tensor, %c2 : Tensor):
  %inputs : Tensor[] = prim::ListConstruct(%argument_1)
  %_0 : Tensor = neuron::forward_1(%inputs, %c0, %c1, %c2)
  return (%_0)
"""


@pytest.mark.parametrize(
    ("graph", "on_cpu"),
    [(BERT_681, {"aten::embedding": 1}), (WHOLE_1083, {}), (OLD_298, {})],
    ids=["#681", "#1083", "#298"],
)
def test_the_census_counts_a_real_graph(graph, on_cpu):
    torch = pytest.importorskip("torch")
    traced = SimpleNamespace(inlined_graph=torch._C.parse_ir(graph))
    report = report_of(traced, log_of("vits-neuron-cc-1.24.log"))
    assert report == CompileReport(30.61, 1, on_cpu) and report.fallback() == []
    assert report_of(traced, log_of("bert-killed.log")).percent_compiled is None  # it ends before that line


# ---- what does not import


@pytest.mark.parametrize("report", [report for report in ERRORS if report["situation"] == "import"], ids=said)
def test_what_fails_at_import_reaches_the_user_with_its_advice(monkeypatch, tmp_path, report):
    text = report["text"]
    kind = next((kind for kind in ("AttributeError", "TypeError") if kind in text), "ImportError")
    (tmp_path / "torch_neuron.py").write_text(f"raise {kind}({text!r})", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch_neuron", raising=False)
    with pytest.raises(BackendUnavailable) as caught:
        import_torch_neuron()
    failure = known_failure(report["text"], known_failures.IMPORT_FAILURES)
    assert failure.meaning in caught.value.message and text in caught.value.message
    assert caught.value.hint == failure.advice


def test_what_breaks_at_import_for_no_known_reason_stays_a_bug(monkeypatch, tmp_path):
    (tmp_path / "torch_neuron.py").write_text("raise AttributeError('nobody has seen this')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch_neuron", raising=False)
    with pytest.raises(AttributeError, match="nobody has seen this"):
        import_torch_neuron()


@pytest.mark.parametrize("real", [True, False])
def test_tensorflow_is_imported_before_torch_where_neuron_cc_is(tmp_path, real):
    """AWS's BERT tutorials: ``import tensorflow  # to workaround a protobuf version conflict issue``."""
    (tmp_path / "tensorflow.py").write_text("import sys; print('torch' in sys.modules)")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from neuronbert.backends.neuron import compile_job, tracing; "
        f"tracing.library_version = lambda name: '1.13.1' if {real} else None; compile_job.import_tensorflow()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ("False\n" if real else "")
