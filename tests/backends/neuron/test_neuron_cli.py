"""The command line for inf1: what is passed on, what is printed, which exit code."""

import json
import re

import pytest

from neuronbert.cli.main import run
from neuronbert.compiler import compilation as compiler
from neuronbert.compiler.compilation import compile_checkpoint

PAIR = ("--question", "who was jim henson?", "--context", "jim henson was a nice puppet")


def invoke(capsys, *arguments):
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


class Stop(Exception):
    """Ends a command where its options have arrived."""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {"batch_size": ("1",), "sequence_length": ("384",), "mode": "data-parallel"}),
        (("--batch-size", "1,6", "--sequence-length", "128"), {"batch_size": ("1,6",), "sequence_length": ("128",)}),
        (("--sequence_length", "128", "--sequence_length", "384"), {"sequence_length": ("128", "384")}),
        (("--mode", "pipeline", "--neuroncore-pipeline-cores", "8"), {"neuroncore_pipeline_cores": "8"}),
        (("--auto-cast", "all", "--auto-cast-type", "fp16"), {"auto_cast": "all", "auto_cast_type": "fp16"}),
        (("--instance-type", "inf1.6xlarge"), {"instance_type": "inf1.6xlarge"}),
        (("--compiler-timeout", "60"), {"compiler_timeout": 60}),
        (("--no-device",), {"no_device": True}),
    ],
)
def test_options_arrive_as_they_were_given(monkeypatch, arguments, expected):
    seen = {}

    def stop(checkpoint, output, **options):
        seen.update(options)
        raise Stop

    monkeypatch.setattr(compiler, "compile_checkpoint", stop)
    run(["compile", "demo", "out", "--backend", "neuron", *arguments])
    assert expected.items() <= seen.items()


def test_the_command_line_and_python_have_the_same_defaults(monkeypatch):
    import inspect

    seen = {}
    monkeypatch.setattr(compiler, "compile_checkpoint", lambda checkpoint, output, **options: seen.update(options))
    run(["compile", "demo", "out"])
    defaults = {name: one.default for name, one in inspect.signature(compile_checkpoint).parameters.items()}
    for name in (
        "instance_type",
        "mode",
        "neuroncore_pipeline_cores",
        "auto_cast",
        "auto_cast_type",
        "compiler_timeout",
        "no_device",
    ):
        assert seen[name] == defaults[name], name
    for name in ("batch_size", "sequence_length"):
        assert seen[name] == (str(defaults[name]),), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--neuroncore-pipeline-cores", "4"), "data-parallel runs one model per core, not one over 4 cores"),
        (("--mode", "pipeline", "--neuroncore-pipeline-cores", "8"), "a pipeline of 8 cores does not fit 4 cores"),
        (("--precision", "fp32"), "no backend of neuron offers fp32"),
        (("--batch-size", "0"), "--batch-size must be a whole number of at least 1"),
        (
            ("--no-device", "--backend", "openvino"),
            "--no-device is for what is compiled for Inferentia, not for openvino",
        ),
    ],
)
def test_contradictions_exit_with_2_and_leave_nothing(capsys, tmp_path, arguments, words):
    code, out, err = invoke(capsys, "compile", "demo", tmp_path / "out", "--backend", "neuron", *arguments)
    assert (code, out) == (2, "")
    assert words in err and "try:" in err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_fit_is_refused_before_anything_is_compiled(capsys, tmp_path, start_emulator):
    start_emulator()
    lengths = ",".join(map(str, range(16, 512, 2)))
    more = ("--skip-gate", "--sequence-length", lengths, "--batch-size", "1,2,3")
    code, _, err = invoke(capsys, "compile", "demo", tmp_path / "out", "--backend", "neuron", *more)
    assert code == 2
    assert "does not fit device memory" in err and "8 GiB" in err and ": compiling" not in err


def test_answer_and_inspect_on_the_twin(capsys, start_emulator, data_parallel_artifact):
    start_emulator()
    code, out, _ = invoke(capsys, "answer", data_parallel_artifact.folder, "--json", *PAIR)
    assert code == 0 and set(json.loads(out)) == {"score", "start", "end", "answer"}
    code, out, _ = invoke(capsys, "inspect", data_parallel_artifact.folder)
    assert code == 0 and "neuron-b2-s64-p1 (EMULATED)" in out and "2 × 64" in out


def test_without_the_twin_it_says_what_is_missing(capsys, data_parallel_artifact, monkeypatch):
    monkeypatch.delenv("NEURONBERT_EMULATE", raising=False)
    code, _, err = invoke(capsys, "answer", data_parallel_artifact.folder, *PAIR)
    assert code == 1 and "needs the emulated device it was compiled on (NEURONBERT_EMULATE=inf1.xlarge)" in err


def test_cores_that_are_taken_exit_with_1_the_documented_text_and_advice(
    capsys, start_emulator, data_parallel_artifact
):
    start_emulator(faults="cores-taken")
    code, out, err = invoke(capsys, "answer", data_parallel_artifact.folder, *PAIR)
    assert (code, out) == (1, "")
    assert re.search(r"NeuronCore\(s\) not available - Requested:[1-4] Available:0", err)  # a count: no variable is set
    assert err.strip().splitlines()[-1].startswith("  try: neuronbert doctor says who holds them")


def test_env_is_what_a_shell_evaluates(capsys, pipeline_artifact):
    code, out, err = invoke(capsys, "env", pipeline_artifact.folder)
    assert code == 0
    assert out == "export NEURONCORE_GROUP_SIZES=2,2\nexport NEURON_RT_VISIBLE_CORES=0-3\n"
    assert "2 pipeline cores as asked (the formula says" in err
    code, out, _ = invoke(capsys, "env", pipeline_artifact.folder, "--worker", 1, "--json")
    document = json.loads(out)
    assert document["environment"]["NEURON_RT_VISIBLE_CORES"] == "2-3"
    assert document["layout"]["cores_per_model"] == 2
    code, _, err = invoke(capsys, "env", pipeline_artifact.folder, "--worker", 2)
    assert code == 2 and "there is no worker 2" in err


def test_doctor_says_who_holds_the_emulated_cores(capsys, start_emulator, data_parallel_artifact):
    from neuronbert.engine.engine import Engine

    start_emulator()
    with Engine(data_parallel_artifact, streams=1):
        code, out, _ = invoke(capsys, "doctor")
    assert code == 0
    assert "+emulated" in out and "NEURONBERT_EMULATE=inf1.xlarge stands in for it" in out
    assert "held by process" in out and "(emulated inf1.xlarge)" in out


def test_doctor_names_an_instance_that_cannot_be_emulated(capsys, monkeypatch):
    monkeypatch.setenv("NEURONBERT_EMULATE", "inf9.huge")
    code, out, _ = invoke(capsys, "doctor")
    assert code == 0 and "there is no instance type 'inf9.huge'" in out


def test_a_twin_that_does_not_exist_is_a_usage_error(capsys, monkeypatch, data_parallel_artifact):
    monkeypatch.setenv("NEURONBERT_EMULATE", "inf9.huge")
    code, _, err = invoke(capsys, "answer", data_parallel_artifact.folder, *PAIR)
    assert code == 2 and "there is no instance type 'inf9.huge'" in err


def test_without_a_device_it_is_compiled_and_the_first_load_is_the_first_test(
    capsys, tmp_path, start_emulator, tiny_checkpoint, neuron_cache
):
    # sdk archive/torch-neuron: a model can be compiled on any EC2 instance (c5.4xlarge) and then copied to an inf1.
    start_emulator(faults="no-driver")
    output = tmp_path / "out"
    shape = ("--backend", "neuron", "--batch-size", "2", "--sequence-length", "64")
    code, out, err = invoke(capsys, "compile", tiny_checkpoint, output, *shape, "--skip-gate")
    assert (code, out) == (1, "") and not output.exists()
    code, out, err = invoke(capsys, "compile", tiny_checkpoint, output, *shape, "--no-device", "--json")
    assert code == 0, err
    manifest = json.loads(out)["manifest"]
    (variant,) = manifest["variants"]
    assert manifest["gate"]["skipped"] is True and variant["agreement"] is None
    assert manifest["selection"][0]["why"] == "compiled where there is no device: it was not loaded"
    code, _, err = invoke(capsys, "answer", output, *PAIR)
    assert code == 1
    start_emulator(faults="dead-runtime")
    code, _, err = invoke(capsys, "answer", output, *PAIR)
    assert code == 1 and "the runtime is not running and its numbers mean nothing" in " ".join(err.split())
    start_emulator()
    code, out, err = invoke(capsys, "answer", output, "--json", *PAIR)
    assert code == 0 and set(json.loads(out)) == {"score", "start", "end", "answer"}, err
