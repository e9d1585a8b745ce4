"""The neuron backend on the emulator: what it compiles, where it loads it, what it refuses and how it says so."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from emulated import compile_emulated
from tiny_source import TinySource, difference, random_batch

from neuronbert.artifact.manifest import Artifact
from neuronbert.backends import load_backend
from neuronbert.backends.base import Batch
from neuronbert.backends.neuron import backend
from neuronbert.cli.main import run
from neuronbert.engine.engine import Engine
from neuronbert.errors import BackendFailed, BackendUnavailable, InputError, UsageError
from neuronbert.tasks.question_answering.options import WindowOptions
from neuronbert.tasks.question_answering.task import OUTPUTS

pytest.importorskip("torch")
VISIBLE = "NEURON_RT_VISIBLE_CORES"
PAIR = ("who was jim henson?", "jim henson was a nice puppet")


def changed(artifact, **entries):
    """The artifact with its manifest's variants changed, as if they had been written so."""
    manifest = json.loads(json.dumps(artifact.manifest))
    for variant in manifest["variants"]:
        variant.update(entries)
    return Artifact(artifact.folder, manifest)


def held_cores():
    """Which cores of the emulator are held, and how many models are on each."""
    from neuronbert.emulator import settings
    from neuronbert.emulator.tools import core_states

    return {state.core: state.info.get("models") for state in core_states(settings()) if state.held}


# ---- compiling


def test_the_manifest_says_what_was_compiled_and_how(data_parallel_artifact, pipeline_artifact):
    names = [variant["name"] for variant in data_parallel_artifact.variants]
    assert names == ["neuron-b2-s64-p1", "neuron-b2-s128-p1"]
    (variant,) = pipeline_artifact.variants
    assert variant["name"] == "neuron-b1-s64-p2"
    assert (variant["batch_size"], variant["sequence_length"], variant["pipeline_cores"]) == (1, 64, 2)
    cast = ["--fast-math", "fp32-cast-matmult-fp16", "no-fast-relayout"]
    assert variant["compiler_args"] == ["--neuroncore-pipeline-cores", "2", *cast]
    assert variant["precision"] == "fp16"
    assert variant["emulated"] is True and variant["versions"]["torch-neuron"].endswith("+emulated")
    assert variant["requires"] == {"device": "neuron-emulated"}
    assert 50 < variant["percent_compiled"] < 100
    assert variant["recipe"]["subgraphs"] == 1
    assert variant["recipe"]["operators_on_cpu"]["aten::embedding"] == 3
    folder = f"variants/{variant['name']}"
    assert sorted(variant["files"]) == [f"{folder}/compile.log", f"{folder}/model.neuron"]


def test_the_log_of_the_compiler_is_kept(pipeline_artifact):
    log = (pipeline_artifact.folder / "variants/neuron-b1-s64-p2/compile.log").read_text()
    assert "Compiler status PASS" in log and "percent compiled" in log
    assert "arguments: ['--neuroncore-pipeline-cores', '2'," in log  # neuron-cc's own log


def test_compiling_leaves_the_cores_to_others(
    start_emulator, tiny_checkpoint, neuron_cache, tmp_path, pipeline_artifact
):
    from neuronbert.compiler.compilation import compile_checkpoint

    start_emulator()
    options = {"mode": "pipeline", "neuroncore_pipeline_cores": 2, "batch_size": 1, "sequence_length": 64}
    compile_checkpoint(tiny_checkpoint, tmp_path / "out", backend="neuron", skip_gate=True, **options)
    assert held_cores() == {}


def test_what_was_compiled_is_not_compiled_again(start_emulator, monkeypatch, neuron_cache):
    from neuronbert.backends.neuron import backend as neuron
    from neuronbert.backends.neuron import compile_job as neuron_compile
    from neuronbert.backends.neuron.target import NeuronTarget

    start_emulator()
    source = TinySource()
    target = NeuronTarget.of(sequence_length=32)
    plan = target.plan(10_000)
    recipe = target.recipe(plan, plan.buckets[0])
    first = neuron_compile.compile_bucket(source, recipe, neuron.compiler_versions())

    def never(*_):
        raise AssertionError("the compiler was started")

    monkeypatch.setattr(neuron_compile, "run_job", never)
    assert neuron_compile.compile_bucket(source, recipe, neuron.compiler_versions()) == first
    for other in ({**recipe, "batch_size": 2}, {**recipe, "compiler_args": ["--fast-math", "all"]}):
        with pytest.raises(AssertionError, match="was started"):
            neuron_compile.compile_bucket(source, other, neuron.compiler_versions())
    with pytest.raises(AssertionError, match="was started"):
        neuron_compile.compile_bucket(source, recipe, {**neuron.compiler_versions(), "torch-neuron": "2"})
    first.model.write_bytes(first.model.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="was started"):  # damaged
        neuron_compile.compile_bucket(source, recipe, neuron.compiler_versions())


COMPILES = """
import sys
sys.path.insert(0, sys.argv[1])
from tiny_source import TinySource
from neuronbert.backends import load_backend
from neuronbert.backends.neuron import compile_job as neuron_compile
from neuronbert.backends.neuron.target import NeuronTarget
neuron = load_backend("neuron")
real = neuron_compile.run_job
def counted(*arguments):
    print("compiled")
    return real(*arguments)
neuron_compile.run_job = counted
target = NeuronTarget.of(sequence_length=48)
plan = target.plan(10_000)
neuron_compile.compile_bucket(TinySource(), target.recipe(plan, plan.buckets[0]), neuron.compiler_versions())
"""


@pytest.mark.slow
def test_two_processes_that_want_the_same_compile_it_once(start_emulator, neuron_cache, tmp_path):
    start_emulator()
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(here))}
    command = [sys.executable, "-W", "ignore", "-c", COMPILES, here]
    children = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [child.communicate(timeout=300) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert sorted(out for out, _ in outputs) == ["", "compiled\n"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "options", "words", "advice"),
    [
        ("compile-failure", {}, "neuron-cc failed inside itself(.|\n)*Internal Compiler Error", "log"),
        ("compile-killed", {}, "returned: -9", "32 GiB"),
        ("compiler-missing", {}, "check that neuron-cc is installed", "pip.repos.neuron.amazonaws.com"),
        ("compile-hang", {"compiler_timeout": 1}, "took longer than the 1 s it was given", "--compiler-timeout"),
        ("fallback", {}, "aten::linear.* would run on the CPU", "--auto-cast"),
    ],
)
def test_a_compiler_that_fails_is_an_error_and_its_log_is_named(
    tiny_checkpoint, neuron_cache, tmp_path, faults, options, words, advice
):
    with pytest.raises((BackendFailed, BackendUnavailable), match=words) as caught:
        compile_emulated(tiny_checkpoint, tmp_path, faults=faults, sequence_length=32, **options)
    assert advice in caught.value.hint
    (log,) = {path for path in (neuron_cache / "neuron" / "failed").iterdir() if str(path) in str(caught.value)}
    assert log.stat().st_size > 0
    assert not (tmp_path / "artifact").exists()


@pytest.mark.slow
def test_a_pipeline_that_the_compiler_refuses_is_retried_smaller_only_with_auto(neuron_cache, tmp_path):
    from tiny_checkpoints import write_checkpoint

    # 1 layer has 9 matrix products and so at most 9 stages on the emulator; 52M weights, for which the formula says 12.
    wide = write_checkpoint(
        tmp_path / "wide",
        "bert",
        num_hidden_layers=1,
        hidden_size=1024,
        intermediate_size=23500,
        max_position_embeddings=64,
    )
    lines = []
    pipeline = {"instance": "inf1.6xlarge", "instance_type": "inf1.6xlarge", "mode": "pipeline", "sequence_length": 32}
    artifact = compile_emulated(wide, tmp_path, progress=lines.append, **pipeline)
    (variant,) = artifact.variants
    assert variant["pipeline_cores"] == 8
    assert variant["recipe"]["refused_pipeline_cores"] == [12]
    assert any("(12) may not be suitable" in line and "trying 8 pipeline cores" in line for line in lines)
    with pytest.raises(BackendFailed, match="refuses this number of pipeline cores") as caught:
        compile_emulated(wide, tmp_path / "asked", neuroncore_pipeline_cores=12, **pipeline)
    assert "auto" in caught.value.hint


@pytest.mark.parametrize(
    ("recipe", "named"),
    [({"compiler_timeout_s": None}, {}), ({}, {}), ({"compiler_timeout_s": 90.0}, {"compiler_timeout": 90})],
)
def test_compiler_timeout_is_an_int_or_left_out(monkeypatch, tmp_path, recipe, named):
    """api-compilation-python-api.rst: an int."""
    import torch

    from neuronbert.backends.neuron import tracing

    asked = {}
    traced = torch.nn.Identity()
    fake = SimpleNamespace(trace=lambda model, inputs, **options: asked.update(options) or traced)
    monkeypatch.setattr(tracing, "import_torch_neuron", lambda: fake)
    assert tracing.trace(torch.nn.Identity(), (), {"compiler_args": ["-O2"], **recipe}, tmp_path) is traced
    assert asked == {"compiler_args": ["-O2"], "compiler_workdir": str(tmp_path), **named}
    assert all(isinstance(value, int) for name, value in asked.items() if name == "compiler_timeout")


def test_a_fallback_is_told_from_what_belongs_on_the_cpu():
    from neuronbert.backends.neuron.tracing import CompileReport

    assert CompileReport(98.2, 1, {"aten::embedding": 3, "aten::add": 2}).fallback() == []
    (reason,) = CompileReport(51.2, 1, {"aten::embedding": 3, "aten::linear": 12, "aten::softmax": 2}).fallback()
    assert reason == "12 aten::linear, 2 aten::softmax would run on the CPU (51.20 % of the operators are compiled)"
    (reason,) = CompileReport(None, 0, {"aten::linear": 13}).fallback()
    assert "no neuron::forward node" in reason


# ---- loading


def test_it_answers_as_fp32_does_whatever_the_batch(start_emulator, data_parallel_artifact, tiny_checkpoint):
    from neuronbert.backends.reference import ReferenceSession
    from neuronbert.tasks.checkpoints import load_checkpoint

    start_emulator()
    reference = ReferenceSession(load_checkpoint(str(tiny_checkpoint)).torch_model(), OUTPUTS)
    with Engine(data_parallel_artifact, streams=1) as engine:
        for rows, tokens, padding in ((1, 9, 0), (2, 64, 5), (3, 65, 7), (5, 128, 20)):
            batch = random_batch(rows, tokens, seed=rows, padding=padding)
            batch = batch._replace(input_ids=batch.input_ids % 70)
            logits = engine.session.run(batch)
            assert logits["start_logits"].shape == (rows, tokens)
            assert difference(logits, reference.run(batch), batch.attention_mask) < 0.02
        with pytest.raises(InputError, match="129 tokens does not fit the longest bucket"):
            engine.session.run(random_batch(1, 129))


def test_many_threads_get_what_one_gets(start_emulator, data_parallel_artifact, monkeypatch):
    monkeypatch.setenv(VISIBLE, "0-3")
    start_emulator()
    pairs = [(PAIR[0], PAIR[1] + " a" * count) for count in range(0, 90, 7)]
    with Engine(data_parallel_artifact) as engine:
        assert engine.session.concurrency == 8  # 4 cores, 2 requests for each
        together = engine.answer(pairs)
        with ThreadPoolExecutor(8) as pool:
            alone = list(pool.map(lambda pair: engine.answer([pair])[0], pairs))
    for one, other in zip(together, alone):
        assert one[0]["answer"] == other[0]["answer"]
        assert one[0]["score"] == pytest.approx(other[0]["score"], rel=1e-4)


def test_longer_contexts_are_cut_to_the_longest_bucket(start_emulator, data_parallel_artifact):
    start_emulator()
    with Engine(data_parallel_artifact, streams=1) as engine:
        longest = WindowOptions(max_seq_len=384)
        for options in (WindowOptions(), longest, WindowOptions(max_seq_len=384, doc_stride=128)):
            (example,) = engine.encode([(PAIR[0], "nice puppet " * 200)], options)
            assert max(len(window.input_ids) for window in example.windows) == 128
            assert len(example.windows) < 10
        assert engine.answer([(PAIR[0], "nice puppet " * 200)])


@pytest.mark.parametrize(("visible", "cores"), [("0-3", {0: 2, 1: 2, 2: 2, 3: 2}), ("2", {2: 2})])
def test_every_core_that_is_given_gets_every_bucket(
    start_emulator, data_parallel_artifact, monkeypatch, visible, cores
):
    monkeypatch.setenv(VISIBLE, visible)
    start_emulator()
    with Engine(data_parallel_artifact):
        assert held_cores() == cores


@pytest.mark.parametrize("unknowns", ["group-sizes=honoured", "group-sizes=ignored"])
def test_a_pipeline_takes_neighbouring_cores(start_emulator, pipeline_artifact, monkeypatch, capfd, unknowns):
    monkeypatch.setenv(VISIBLE, "0-3")
    monkeypatch.setenv("NEURONCORE_GROUP_SIZES", "2,2")
    start_emulator(unknowns=unknowns)
    with Engine(pipeline_artifact) as engine:
        assert held_cores() == {0: 1, 1: 1, 2: 1, 3: 1}
        assert engine.session.concurrency == 4  # 2 pipelines, 2 requests in each
        assert engine.answer([PAIR])
    # kserve#2714: torch-neuron 1.12 warns in every process that has the variable.
    assert capfd.readouterr().err.count("NEURONCORE_GROUP_SIZES is being deprecated") == 1


@pytest.mark.parametrize(
    ("variables", "unknowns", "cores"),
    [
        ({"NEURON_RT_NUM_CORES": "2", "NEURONCORE_GROUP_SIZES": "1,1"}, "num-cores-with-group-sizes=accepted", [0, 1]),
        ({"NEURON_RT_NUM_CORES": "2", "NEURONCORE_GROUP_SIZES": "1,1"}, "num-cores-with-group-sizes=refused", None),
        ({"NEURON_RT_NUM_CORES": "1,1"}, "num-cores-list=groups", [0, 1]),
        ({"NEURON_RT_NUM_CORES": "1,1"}, "num-cores-list=refused", None),
        ({VISIBLE: "3-4"}, "visible-cores-beyond=invalid", None),
        ({VISIBLE: "3-4"}, "visible-cores-beyond=not-available", None),
    ],
)
def test_whatever_the_runtime_makes_of_the_variables_is_used_or_explained(
    start_emulator, data_parallel_artifact, monkeypatch, variables, unknowns, cores
):
    """The entries of the emulator's unknowns.py that are about variables, with their sources there."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    start_emulator(unknowns=unknowns)
    if cores is None:
        with pytest.raises(BackendUnavailable, match="Neuron") as caught:
            Engine(data_parallel_artifact)
        assert "neuronbert doctor" in caught.value.hint
    else:
        with Engine(data_parallel_artifact):
            assert sorted(held_cores()) == cores


def test_without_variables_it_takes_what_it_needs_and_not_all(start_emulator, pipeline_artifact):
    start_emulator("inf1.6xlarge")
    before = dict(os.environ)
    with Engine(pipeline_artifact, streams=1):
        assert sorted(held_cores()) == [0, 1]
    assert dict(os.environ) == before


def test_without_variables_many_questions_get_the_layout_it_was_compiled_for(start_emulator, pipeline_artifact):
    start_emulator("inf1.6xlarge")
    with Engine(pipeline_artifact):
        assert sorted(held_cores()) == [0, 1, 2, 3]


def test_variables_changed_too_late_are_an_error(start_emulator, data_parallel_artifact, monkeypatch):
    monkeypatch.setenv(VISIBLE, "0-1")
    start_emulator()
    with Engine(data_parallel_artifact):
        monkeypatch.setenv(VISIBLE, "0-3")
        with pytest.raises(BackendFailed, match="was started with .*=0-1 and keeps its 2 core.*=0-3 now has no effect"):
            Engine(data_parallel_artifact)
        monkeypatch.setenv(VISIBLE, "0-1")
        Engine(data_parallel_artifact).close()


def test_a_pipeline_wider_than_its_cores_is_refused(start_emulator, pipeline_artifact, monkeypatch):
    monkeypatch.setenv(VISIBLE, "1")
    start_emulator()
    with pytest.raises(BackendUnavailable, match="over 2 cores, and NEURON_RT_VISIBLE_CORES=1 gives this process 1"):
        Engine(pipeline_artifact)
    assert held_cores() == {}


@pytest.mark.parametrize(
    ("faults", "words", "advice"),
    [
        # No variable is set, and one core is asked for: a count, as in aws-neuron-sdk#453.
        ("cores-taken", r"NeuronCore\(s\) not available - Requested:1 Available:0", "neuronbert env"),
        ("no-driver", "Unable to determine Neuron Driver version", "aws-neuronx-dkms=2.24"),
        ("old-driver", "requires Neuron Driver version 2.0 or greater", "aws-neuronx-dkms=2.24"),
        ("device-memory", "status=4 message=Allocation Failure", "buckets"),
        ("invalid-model", "status=2 message=Invalid", "compile the artifact again"),
        ("neff-version", "NEFF version mismatch supported: 1.1 received: 2.0", "torch-neuron==1.13.1"),
        ("numerical-error", "status=1003 message=Numerical Error", "--auto-cast-type bf16"),
        ("dead-runtime", "same logits when attention_mask and token_type_ids change places", "doctor"),
        ("nan", "NaN or Inf", "--auto-cast-type bf16"),
        ("nan@20", "NaN or Inf", "--auto-cast-type bf16"),
    ],
)
def test_what_the_runtime_says_is_kept_and_advised(start_emulator, data_parallel_artifact, faults, words, advice):
    start_emulator(faults=faults)
    with pytest.raises((BackendFailed, BackendUnavailable), match=words) as caught:
        with Engine(data_parallel_artifact, streams=1) as engine:
            for _ in range(20):
                engine.answer([PAIR])
    assert advice in caught.value.hint


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize(
    ("faults", "words", "advice"),
    [
        ("cores-taken", "another process holds NeuronCores", "neuronbert env"),
        ("device-memory", "device memory is full", "buckets"),
    ],
)
def test_a_load_that_fails_is_advised_where_it_fails(
    start_emulator, data_parallel_artifact, monkeypatch, faults, words, advice, lazily
):
    """torch.jit.load fails (aws-neuron-sdk#718, #625, kserve#2714); in 2021 it was the first inference (#369)."""
    import torch

    import neuronbert.backends.neuron.backend as neuron
    from neuronbert.emulator import jit_load

    def never(*_):
        raise AssertionError("an inference")

    start_emulator(faults=faults)
    load_backend("neuron").check_available("fp16")  # from here on torch.jit.load is torch_neuron's
    with monkeypatch.context() as patched:
        if lazily:
            patched.setattr(torch.jit, "load", jit_load.read)
        else:
            patched.setattr(neuron.NeuronSession, "_call", never)
        with pytest.raises((BackendFailed, BackendUnavailable), match=words) as caught:
            Engine(data_parallel_artifact, streams=1)
    assert advice in caught.value.hint


def test_a_timeout_is_told(start_emulator, data_parallel_artifact, monkeypatch):
    monkeypatch.setenv("NEURON_RT_EXEC_TIMEOUT", "0.01")
    start_emulator(faults="timeout")
    with pytest.raises(BackendFailed, match="status=5 message=Timeout Exceeded") as caught:
        Engine(data_parallel_artifact, streams=1)
    assert "NEURON_RT_EXEC_TIMEOUT" in caught.value.message


def test_a_core_that_computes_wrong_numbers_fails_the_self_test(start_emulator, data_parallel_artifact):
    start_emulator()
    with pytest.raises(BackendFailed, match="neuron-b2-s64-p1 .* fails its self-test"):
        Engine(changed(data_parallel_artifact, selftest_tolerance=1e-9), streams=1)


def test_what_is_written_to_stderr_while_loading_is_passed_on(
    start_emulator, data_parallel_artifact, capfd, monkeypatch
):
    import neuronbert.backends.neuron.backend as neuron

    start_emulator()
    loud = neuron.NeuronSession.__init__

    def shout(*arguments):
        os.write(2, b"from C\n")
        print("from Python", file=sys.stderr)
        loud(*arguments)

    monkeypatch.setattr(neuron.NeuronSession, "__init__", shout)
    Engine(data_parallel_artifact, streams=1, variant="neuron-b2-s64-p1").close()
    assert "from C\nfrom Python\n" in capfd.readouterr().err


def test_one_bucket_can_be_asked_for(start_emulator, data_parallel_artifact):
    start_emulator()
    with Engine(data_parallel_artifact, streams=1, variant="neuron-b2-s64-p1") as engine:
        assert engine.plan.lengths == (64,)


def test_a_closed_session_says_so(start_emulator, data_parallel_artifact):
    start_emulator()
    engine = Engine(data_parallel_artifact, streams=1)
    engine.close()
    with pytest.raises(BackendFailed, match="closed"):
        engine.session.run(random_batch(1, 9))


# ---- what is not the same machine


def test_an_emulated_artifact_is_refused_where_nothing_is_emulated(start_emulator, data_parallel_artifact, monkeypatch):
    real = ModuleType("torch_neuron")
    real.__version__, real.trace = "1.13.1.2.11.13.0", None
    monkeypatch.setitem(sys.modules, "torch_neuron", real)
    variant = data_parallel_artifact.variants[0]
    backend = load_backend("neuron")
    with pytest.raises(BackendUnavailable, match=r"was compiled by an emulator \(1.13.1.2.11.13.0\+emulated\)"):
        backend.load(data_parallel_artifact.variant_folder(variant), variant, outputs=OUTPUTS, threads=1, streams=1)
    from neuronbert.errors import ArtifactError

    with pytest.raises(ArtifactError, match="needs the emulated device it was compiled on"):
        Engine(data_parallel_artifact)


def test_a_real_artifact_is_refused_by_the_emulator(start_emulator, data_parallel_artifact):
    start_emulator()
    real = changed(data_parallel_artifact, emulated=False)
    with pytest.raises(BackendUnavailable, match=r"compiled for NeuronCores, and torch_neuron is emulated here"):
        Engine(real)


def test_the_placeholder_of_pypi_is_quoted(start_emulator, monkeypatch, tmp_path):
    placeholder = 'raise ImportError("WRONG PACKAGE. Please install the package from Neuron")'
    (tmp_path / "torch_neuron.py").write_text(placeholder)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch_neuron", raising=False)
    with pytest.raises(BackendUnavailable, match="WRONG PACKAGE") as caught:
        load_backend("neuron").check_available("fp16")
    assert "pip.repos.neuron.amazonaws.com" in caught.value.hint


def test_fp32_is_refused_in_words():
    with pytest.raises(BackendUnavailable, match="multiplies in 16 bits"):
        load_backend("neuron").check_available("fp32")


def test_the_backend_does_not_know_the_emulator():
    from pathlib import Path

    import neuronbert

    package = Path(neuronbert.__file__).parent
    for module in (package / "backends" / "neuron").glob("*.py"):
        assert "emulator import" not in module.read_text()
        assert "neuronbert.emulator" not in module.read_text()
    importing = [
        path.name for path in package.rglob("*.py")
        if 'import_module("torch_neuron")' in path.read_text() and "emulator" not in str(path)
    ]  # fmt: skip
    assert importing == ["tracing.py"]


# ---- a device in a child process


def test_a_device_in_a_child_answers_and_frees_its_cores(start_emulator, data_parallel_artifact):
    from neuronbert.backends.isolated import load_isolated

    start_emulator()
    folders = [data_parallel_artifact.variant_folder(variant) for variant in data_parallel_artifact.variants]
    with Engine(data_parallel_artifact, streams=1) as engine:
        batch = random_batch(3, 80)
        batch = Batch(batch.input_ids % 70, batch.attention_mask, batch.token_type_ids)
        expected = engine.session.run(batch)
        session = load_isolated(folders, data_parallel_artifact.variants, OUTPUTS, threads=1)
        assert sorted(held_cores()) == [0, 1]
        np.testing.assert_array_equal(session.run(batch)["start_logits"], expected["start_logits"])
        session.close()
        assert sorted(held_cores()) == [0]


def test_a_child_that_dies_or_fails_is_an_error(start_emulator, data_parallel_artifact):
    from neuronbert.backends.isolated import load_isolated

    variants = data_parallel_artifact.variants[:1]
    folders = [data_parallel_artifact.variant_folder(variants[0])]
    start_emulator(faults="crash")
    with pytest.raises(BackendFailed, match="the process that held the device ended by signal 9"):
        load_isolated(folders, variants, OUTPUTS, threads=1)
    start_emulator(faults="device-memory")
    with pytest.raises(BackendFailed, match="status=4 message=Allocation Failure") as caught:
        load_isolated(folders, variants, OUTPUTS, threads=1)
    assert "buckets" in caught.value.hint
    assert held_cores() == {}


def test_unknown_options_are_usage_errors_before_any_work(start_emulator, tmp_path):
    from neuronbert.compiler.compilation import compile_checkpoint

    with pytest.raises(UsageError, match="one model per core, not one over 4"):
        compile_checkpoint("no checkpoint", tmp_path / "out", backend="neuron", neuroncore_pipeline_cores=4)
    start_emulator()
    with pytest.raises(UsageError, match="513 is more than the model's 512 positions"):
        compile_checkpoint("demo", tmp_path / "out", backend="neuron", sequence_length=513, skip_gate=True)
    assert not (tmp_path / "out").exists()


# ---- stdout


def printing(function, text):
    """``function``, which writes a line to the descriptor of stdout first, as native code does."""

    def prints(*arguments, **named):
        os.write(1, text)
        return function(*arguments, **named)

    return prints


def test_what_the_runtime_prints_on_stdout_is_kept_out_of_a_commands_result(
    start_emulator, data_parallel_artifact, monkeypatch, capfd
):
    """nrt-troubleshoot.rst: "You will see the following error message in runtime logs from stdout console"."""
    import torch

    start_emulator()
    monkeypatch.setattr(torch.jit, "load", printing(torch.jit.load, b"NRT loads\n"))
    monkeypatch.setattr(backend.NeuronSession, "run", printing(backend.NeuronSession.run, b"NRT runs\n"))
    question, context = PAIR
    folder = str(data_parallel_artifact.folder)
    assert run(["answer", folder, "--question", question, "--context", context, "--json"]) == 0
    out, err = capfd.readouterr()
    assert "answer" in json.loads(out)
    assert "NRT loads" in err and "NRT runs" in err


def test_loading_leaves_stdout_alone_and_goes_by_what_the_runtime_says_there(
    start_emulator, data_parallel_artifact, monkeypatch, capfd
):
    import torch

    start_emulator(faults="invalid-model:once")
    line = b"ERROR  TDRV:db_vtpb_get_mla_and_tpb  Could not find VNC id 4\n"
    monkeypatch.setattr(torch.jit, "load", printing(torch.jit.load, line))
    with pytest.raises(BackendUnavailable, match="needs more NeuronCores than this process sees"):
        Engine(data_parallel_artifact, streams=1)
    with Engine(data_parallel_artifact, streams=1):
        print("mine")
    out, err = capfd.readouterr()
    assert out == "mine\n" and "Could not find VNC id 4" in err
