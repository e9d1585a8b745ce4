"""Ten things that went wrong for users of inf1, as stories: what was done, what the bare SDK does, what happens here.

The numbers are those of issues in aws-neuron-sdk. "Bare" is torch_neuron used as its tutorials do, on the emulator.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from emulated import compile_emulated
from tiny_source import TinySource

from neuronbert.engine.engine import Engine
from neuronbert.errors import BackendFailed, BackendUnavailable, UsageError
from neuronbert.runner.core_environment import core_environment

torch = pytest.importorskip("torch")
VISIBLE = "NEURON_RT_VISIBLE_CORES"
PAIR = ("who was jim henson?", "jim henson was a nice puppet")
ROOT = Path(__file__).parents[3]


def example(rows=2, tokens=64):
    ids = torch.randint(5, 60, (rows, tokens), generator=torch.Generator().manual_seed(0))
    return ids, torch.ones_like(ids), torch.zeros_like(ids)


def bare_path(artifact, name="neuron-b2-s64-p1"):
    """A traced model as a user would have saved it."""
    return str(artifact.folder / "variants" / name / "model.neuron")


def models_by_core():
    from neuronbert.emulator import settings
    from neuronbert.emulator.tools import core_states

    return {state.core: state.info.get("models") for state in core_states(settings()) if state.held}


@pytest.fixture
def process(start_emulator):
    """Python in a process of its own, on the same emulator; its first line of output says that it got so far."""
    children = []

    def start(code, **environment):
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


HOLDS = """
import sys, torch
from neuronbert.engine.engine import Engine
try:
    engine = Engine({folder!r}, streams={streams})
except Exception as error:
    print(type(error).__name__, str(error).replace(chr(10), " "))
    sys.exit(1)
print("loaded", flush=True)
sys.stdin.read()
"""


def test_1_part_of_the_model_silently_runs_on_the_cpu(start_emulator):
    """#157, #172, #618, #677: the compiler cannot take a part of the model, and throughput falls to a tenth."""
    start_emulator(faults="fallback")
    import torch_neuron

    from neuronbert.backends.neuron.tracing import report_of

    model = TinySource().torch_model()
    traced = torch_neuron.trace(model, example(2, 32))  # bare: no exception, and a module that answers
    operators = [node.kind() for node in traced.inlined_graph.nodes()]
    assert "neuron::forward" in str(operators) and operators.count("aten::linear") > 0
    (reason,) = report_of(traced, "").fallback()  # here: what compile_bucket refuses, with its reason
    assert "aten::linear" in reason and "would run on the CPU" in reason


def test_2_only_one_core_works(start_emulator, data_parallel_artifact, monkeypatch):
    """#299, #341, #265: four threads share one loaded model, and neuron-top shows one busy core of four."""
    start_emulator()
    import torch_neuron  # noqa: F401

    model = torch.jit.load(bare_path(data_parallel_artifact))
    model(*example())
    assert models_by_core() == {0: 1, 1: 0, 2: 0, 3: 0}  # bare
    monkeypatch.setenv(VISIBLE, "0-3")
    start_emulator()
    with Engine(data_parallel_artifact):
        assert models_by_core() == {0: 2, 1: 2, 2: 2, 3: 2}  # here: a copy of both buckets on every core


def test_3_the_first_process_takes_all_cores(start_emulator, data_parallel_artifact, process):
    """#453, #471, #924: a second gunicorn worker dies at its first request."""
    start_emulator()
    import torch_neuron  # noqa: F401

    torch.jit.load(bare_path(data_parallel_artifact))(*example())
    assert sorted(models_by_core()) == [0, 1, 2, 3]  # bare: one small model holds the instance
    start_emulator()
    children = []
    for worker in (0, 1):  # here: each worker sees its own core
        variables = core_environment(data_parallel_artifact, worker=worker).variables
        children.append(process(HOLDS.format(folder=str(data_parallel_artifact.folder), streams=None), **variables))
    assert [child.stdout.readline() for child in children] == ["loaded\n"] * 2
    assert sorted(models_by_core()) == [0, 1]


def test_3b_cores_that_are_taken_are_free_when_their_holder_is_killed(start_emulator, data_parallel_artifact, process):
    start_emulator()
    code = HOLDS.format(folder=str(data_parallel_artifact.folder), streams=None)
    first = process(code, **{VISIBLE: "0-3"})
    assert first.stdout.readline() == "loaded\n"
    second = process(code, **{VISIBLE: "2-3"})
    said = second.stdout.readline()
    assert said.startswith("BackendUnavailable")
    assert "NeuronCore(s) not available - Requested:nc2-nc3 Available:0" in said  # the documented text, kept
    assert "another process holds NeuronCores" in said and "neuronbert env" in said  # and our advice
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert process(code, **{VISIBLE: "2-3"}).stdout.readline() == "loaded\n"


def test_4_a_variable_set_too_late_does_nothing(start_emulator, data_parallel_artifact, monkeypatch):
    """#407, #1072: the notebook sets the number of cores in its third cell, and nothing changes."""
    start_emulator()
    import torch_neuron  # noqa: F401

    torch.jit.load(bare_path(data_parallel_artifact))(*example())
    monkeypatch.setenv(VISIBLE, "0")
    torch.jit.load(bare_path(data_parallel_artifact))(*example())
    assert sorted(models_by_core()) == [0, 1, 2, 3]  # bare: not a word
    monkeypatch.delenv(VISIBLE)
    start_emulator()
    with Engine(data_parallel_artifact, streams=1):
        monkeypatch.setenv(VISIBLE, "0")
        with pytest.raises(BackendFailed, match="VISIBLE_CORES=0 now has no effect") as caught:
            Engine(data_parallel_artifact)
        assert "restart the process" in caught.value.hint


def test_5_a_runtime_that_is_not_there_gives_numbers(start_emulator, data_parallel_artifact):
    """#325, #303: accuracy drops to chance at a remarkable speed."""
    start_emulator(faults="dead-runtime")
    import torch_neuron  # noqa: F401

    start, end = torch.jit.load(bare_path(data_parallel_artifact))(*example())
    assert not start.any() and not end.any()  # bare: no error
    start_emulator(faults="dead-runtime")
    with pytest.raises(BackendFailed, match="the runtime is not running and its numbers mean nothing"):
        Engine(data_parallel_artifact, streams=1)
    # A runtime that dies later is no longer constant from the start: the self-test compares with FP32.
    start_emulator(faults="dead-runtime@4")
    with pytest.raises(BackendFailed):
        Engine(data_parallel_artifact, streams=1)


def test_6_padding_becomes_nan(start_emulator, data_parallel_artifact, monkeypatch):
    """#456, #474: transformers >= 4.20 masks with the smallest float32, which 16 bits turn into -Inf."""
    from neuronbert.checkpoint import reference_model

    start_emulator()
    import torch_neuron

    ids, mask, types = example(2, 32)
    partial = torch.stack([mask[0], torch.zeros_like(mask[0])])  # as the tutorials pad a partial batch
    with monkeypatch.context() as patched:
        patched.setattr(reference_model, "MASKED_SCORE", float(torch.finfo(torch.float32).min))
        arguments = ["--fast-math", "fp32-cast-all-fp16"]
        bare = torch_neuron.trace(TinySource().torch_model(), (ids, mask, types), compiler_args=arguments)
    start, _ = bare(ids, partial, types)
    assert torch.isnan(start).any()  # bare
    start_emulator()
    with Engine(data_parallel_artifact, streams=1) as engine:  # here: one question in a bucket of two rows
        (answer,) = engine.answer([PAIR])[0]
        assert np.isfinite(answer["score"])


def test_7_dynamic_batches_break_on_bert(start_emulator, data_parallel_artifact):
    """#405, #609, #681, #861: a mask that is the same for all rows enters the subgraph with a batch of 1."""

    class OneMask(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = TinySource().torch_model()

        def forward(self, ids, mask, types):
            return self.model(ids, mask[:1], types)

    start_emulator()
    import torch_neuron

    traced = torch_neuron.trace(OneMask(), example(1, 32), dynamic_batch_size=True)
    with pytest.raises(RuntimeError, match="Inconsistent batch sizes found on inputs"):  # bare
        traced(*example(3, 32))
    start_emulator()
    with Engine(data_parallel_artifact, streams=1) as engine:  # here: static shapes, and any number of questions
        assert len(engine.answer([PAIR] * 5)) == 5


def test_8_a_pipeline_is_asked_one_question_at_a_time(start_emulator, pipeline_artifact, monkeypatch):
    """#467, #268, #344, #198: which group size, how many workers, and why is it slower than one core?"""
    monkeypatch.setenv(VISIBLE, "0")
    start_emulator()
    import torch_neuron  # noqa: F401

    ids, mask, types = example(1)
    with pytest.raises(RuntimeError, match="status=2 message=Invalid"):  # bare: too few cores, and it does not say so
        torch.jit.load(bare_path(pipeline_artifact, "neuron-b1-s64-p2"))(ids, mask, types)
    start_emulator()
    with pytest.raises(BackendUnavailable, match="runs over 2 cores, and .* gives this process 1"):
        Engine(pipeline_artifact)
    result = core_environment(pipeline_artifact, instance_type="inf1.xlarge")
    assert result.variables == {"NEURONCORE_GROUP_SIZES": "2,2", VISIBLE: "0-3"}
    assert any("keep 2 requests in flight for each" in line for line in result.explanation)
    for name, value in result.variables.items():
        monkeypatch.setenv(name, value)
    start_emulator()
    with Engine(pipeline_artifact) as engine:
        assert engine.session.concurrency == 4  # many questions keep every stage of both pipelines busy by themselves


def test_9_the_device_runs_out_of_memory(start_emulator, data_parallel_artifact, tmp_path):
    """#302, #369, #625: the sixteenth copy of BERT-large does not load, in production."""
    start_emulator(faults="device-memory")
    import torch_neuron  # noqa: F401

    with pytest.raises(RuntimeError, match="status=4 message=Allocation Failure"):  # bare: a number
        torch.jit.load(bare_path(data_parallel_artifact))(*example())
    start_emulator(faults="device-memory")
    with pytest.raises(BackendFailed, match="device memory is full"):
        Engine(data_parallel_artifact, streams=1)
    from neuronbert.backends.neuron.target import NeuronTarget

    with pytest.raises(UsageError, match="does not fit device memory: .* 8 GiB"):  # before anything is compiled
        NeuronTarget.of(sequence_length="64,128,192,256,320,384", batch_size="1,6").plan(302_309_376)


def test_10_the_compiler_dies_on_a_small_host(start_emulator, tiny_checkpoint, neuron_cache, tmp_path):
    """#439, #490, #1064: neuron-cc is killed for memory, and what is raised is about something else."""
    start_emulator(faults="compile-killed")
    import torch_neuron

    with pytest.raises(RuntimeError, match="No operations were successfully partitioned") as bare:
        torch_neuron.trace(TinySource().torch_model(), example(2, 32))
    assert "-9" not in str(bare.value)
    with pytest.raises(BackendFailed, match="was killed, most likely for memory(.|\n)*returned: -9") as caught:
        compile_emulated(tiny_checkpoint, tmp_path, faults="compile-killed", sequence_length=16)
    assert "32 GiB or more" in caught.value.hint
