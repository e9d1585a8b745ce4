"""Reference §1.1 to §1.7: what torch.neuron.trace makes, logs and refuses."""

import subprocess
import warnings
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from contract import contract, unknown  # noqa: E402
from models import Dense, TinyBert, largest_difference, neuron_calls, reload, tiny_inputs, unsupported  # noqa: E402

from neuronbert import emulator  # noqa: E402
from neuronbert.backends.neuron.tracing import report_of  # noqa: E402
from neuronbert.emulator import tools  # noqa: E402


def trace(model=None, inputs=None, **options):
    return torch.neuron.trace((model or TinyBert()).eval(), tiny_inputs() if inputs is None else inputs, **options)


def dense_input(rows=3):
    return torch.rand(rows, 8, generator=torch.Generator().manual_seed(3))


# ---------------------------------------------------------------------------- §1.1 arguments


@contract("§1.1", "tensor-not-wrapped")
def test_a_single_tensor_is_wrapped(torch_neuron):
    state = dense_input()
    compiled = trace(Dense(), state)
    assert compiled(state).shape == state.shape


@contract("§1.1", "not-a-script-module")
def test_the_result_is_a_script_module(torch_neuron):
    assert isinstance(trace(), torch.jit.ScriptModule)


@contract("§1.1", "no-neuron-operator")
def test_subgraphs_are_forward_v2_operators_on_a_list_and_a_model(torch_neuron):
    (call,) = neuron_calls(trace())
    assert call.kind() == "neuron::forward_v2_2"
    assert [str(value.type()) for value in call.inputs()] == ["List[Tensor]", "Tensor"]


@contract("§1.1", "embedding-compiled")
def test_what_is_not_compiled_stays_as_aten_in_the_graph(torch_neuron):
    compiled = trace()
    kinds = [node.kind() for node in compiled.inlined_graph.nodes()]
    assert kinds.count("aten::embedding") == 3
    assert "aten::linear" not in kinds and "aten::softmax" not in kinds


@contract("§1.1", "compiler-args-ignored")
def test_compiler_args_reach_the_compiler(torch_neuron):
    from neuronbert.emulator import compiled_ops

    compiled = trace(compiler_args=["--neuroncore-pipeline-cores", "3"])
    (payload,) = compiled_ops.payloads_of(compiled).values()
    assert compiled_ops.program_of_payload(payload).neff.pipeline_cores == 3


@contract("§1.1", "compiler-args-once")
def test_compiler_args_apply_to_all_subgraphs(torch_neuron):
    from neuronbert.emulator import compiled_ops

    compiled = trace(Dense(middle=unsupported), dense_input(), compiler_args=["--neuroncore-pipeline-cores", "2"])
    cores = [
        compiled_ops.program_of_payload(payload).neff.pipeline_cores
        for payload in compiled_ops.payloads_of(compiled).values()
    ]
    assert cores == [2, 2]


@contract("§1.1", "no-timeout")
def test_compiler_timeout_raises_timeout_expired(start_emulator):
    start_emulator(faults="compile-hang")
    with pytest.raises(subprocess.TimeoutExpired, match="neuron-cc compile"):
        trace(compiler_timeout=0.05)


@contract("§1.1", "workdir-empty")
def test_compiler_workdir_keeps_the_graph_the_neff_and_the_log(torch_neuron, tmp_path):
    trace(compiler_workdir=str(tmp_path / "work"))
    names = sorted(path.name for path in (tmp_path / "work").rglob("*.*"))
    assert names == ["graph_def.neff", "graph_def.neuron-cc.log", "graph_def.pb"]


@contract("§1.1", "builder-ignored")
def test_the_subgraph_builder_function_chooses_what_is_fused(torch_neuron):
    compiled = trace(subgraph_builder_function=lambda node: "answer" not in node.name)
    kinds = [node.kind() for node in compiled.inlined_graph.nodes()]
    assert kinds.count("aten::linear") == 1 and len(neuron_calls(compiled)) == 1


@contract("§1.1", "segment-size-ignored")
def test_segments_below_the_minimum_size_stay_on_the_cpu(torch_neuron):
    model = Dense(before=3, after=1, middle=unsupported)
    compiled = trace(model, dense_input(), minimum_segment_size=3, single_fusion_ratio_threshold=1.0)
    assert len(neuron_calls(compiled)) == 1


@contract("§1.1", "fusion-ratio-ignored")
def test_a_partition_beyond_the_fusion_ratio_is_the_only_one_compiled(torch_neuron):
    model = Dense(before=8, after=2, middle=unsupported)
    assert len(neuron_calls(trace(model, dense_input()))) == 1
    assert len(neuron_calls(trace(model, dense_input(), single_fusion_ratio_threshold=1.0))) == 2


@contract("§1.1", "fusion-ratio-always")
def test_partitions_below_the_fusion_ratio_are_all_compiled(torch_neuron):
    assert len(neuron_calls(trace(Dense(4, 4, unsupported), dense_input()))) == 2


@contract("§1.1", "no-attribute-error")
def test_without_fallback_an_unsupported_operator_is_an_attribute_error(torch_neuron):
    with pytest.raises(AttributeError, match="aten::embedding"):
        trace(fallback=False)


@contract("§1.1", "one-subgraph")
def test_an_unsupported_operator_in_mid_model_makes_two_subgraphs(torch_neuron):
    model, state = Dense(middle=unsupported), dense_input()
    compiled = trace(model, state)
    assert len(neuron_calls(compiled)) == 2
    assert (compiled(state) - model(state)).abs().max() < 0.05


@contract("§1.1", "optimizations-ignored")
def test_float32_to_float16_is_an_optimization(torch_neuron):
    from neuronbert.emulator import compiled_ops

    compiled = trace(optimizations=[torch.neuron.Optimization.FLOAT32_TO_FLOAT16])
    assert (
        compiled_ops.program_of_payload(next(iter(compiled_ops.payloads_of(compiled).values()))).neff.policy.dtype
        == "fp16"
    )


class Named(TinyBert):
    def forward(self, *inputs):
        start, end = super().forward(*inputs)
        return {"start": start, "end": end}


@contract("§1.1", "kwargs-dropped")
def test_other_keywords_go_to_torch_jit_trace(torch_neuron):
    model = Named()
    found, wanted = trace(model, strict=False)(*tiny_inputs()), model(*tiny_inputs())
    assert list(found) == ["start", "end"]
    assert (found["end"] - wanted["end"]).abs().max() < 0.05


def test_a_dict_output_without_strict_false_is_torchs_own_error(torch_neuron):
    with pytest.raises(RuntimeError, match="Encountering a dict at the output of the tracer"):
        trace(Named())


@contract("§1.1", "compiled-anyway")
def test_skip_compiler_compiles_nothing(torch_neuron, neuron_log):
    assert not neuron_calls(trace(skip_compiler=True))


def test_a_function_can_be_traced(torch_neuron):
    state = dense_input()
    compiled = torch.neuron.trace(Dense().forward, state)
    assert len(neuron_calls(compiled)) == 1 and compiled(state).shape == state.shape


def test_the_model_computes_what_the_cpu_computes_within_16_bits(torch_neuron):
    model = TinyBert(layers=3)
    assert 0 < largest_difference(trace(model)(*tiny_inputs()), model(*tiny_inputs())) < 0.05


# ---------------------------------------------------------------------------- §1.2 save and load


@contract("§1.2", "weights-not-inside")
def test_a_saved_module_runs_in_a_fresh_process_without_the_checkpoint(torch_neuron, child, tmp_path):
    compiled = trace()
    torch.jit.save(compiled, str(tmp_path / "model.pt"))
    torch.save([*tiny_inputs()], str(tmp_path / "inputs.pt"))
    expected = compiled(*tiny_inputs())
    from neuronbert import emulator

    emulator.stop()
    process = child(
        f"""
        from neuronbert import emulator
        emulator.use("inf1.xlarge", directory={str(tmp_path / "other")!r})
        import torch, torch_neuron
        outputs = torch.jit.load({str(tmp_path / "model.pt")!r})(*torch.load({str(tmp_path / "inputs.pt")!r}))
        torch.save(list(outputs), {str(tmp_path / "outputs.pt")!r})
        """
    )
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert largest_difference(torch.load(str(tmp_path / "outputs.pt")), expected) == 0


def test_loading_without_torch_neuron_is_torchs_own_error(torch_neuron, child, tmp_path):
    torch.jit.save(trace(), str(tmp_path / "model.pt"))
    process = child(f"import torch; torch.jit.load({str(tmp_path / 'model.pt')!r})")
    _, errors = process.communicate()
    assert "Unknown builtin op: neuron::forward_v2_2." in errors
    assert "Could not find any similar ops to neuron::forward_v2_2." in errors
    assert "This op may not exist or may not be currently supported in TorchScript." in errors


def held_cores():
    return [state.core for state in tools.core_states(emulator.settings()) if state.held]


@contract("§1.2", "eager-load")
def test_the_first_inference_loads_a_model_that_was_just_traced(torch_neuron):
    """aws-neuron-sdk#364: tracing needs no device, the first call does."""
    compiled = trace()
    assert held_cores() == []
    compiled(*tiny_inputs())
    assert held_cores() == [0, 1, 2, 3]


@contract("§1.2", "lazy-load")
def test_torch_jit_load_loads_a_model_that_was_saved(torch_neuron):
    """aws-neuron-sdk#718, #625 and #325, kserve#2714: torch.jit.load itself needs the device."""
    compiled = trace()
    assert held_cores() == []
    reload(compiled)
    assert held_cores() == [0, 1, 2, 3]


def test_torch_has_its_own_load_back_afterwards(start_emulator):
    own = torch.jit.load
    start_emulator()
    assert torch.jit.load is not own
    emulator.stop()
    assert torch.jit.load is own


def test_importing_again_does_not_register_twice(start_emulator):
    start_emulator()
    start_emulator()
    assert neuron_calls(trace())


# ---------------------------------------------------------------------------- §1.3 errors and warnings


@contract("§1.3", "nothing-compiled-passes")
def test_nothing_compiled_aborts_the_trace(start_emulator):
    start_emulator(faults="compile-failure")
    message = "No operations were successfully partitioned and compiled to neuron for this model - aborting trace!"
    with pytest.raises(RuntimeError, match=message):
        trace()


@contract("§1.3", "cpu-trace-raises")
def test_a_graph_below_the_segment_size_comes_back_as_a_cpu_trace(torch_neuron, neuron_log):
    compiled = trace(minimum_segment_size=1000)
    assert not neuron_calls(compiled) and compiled(*tiny_inputs())
    assert "No operator is placed on Neuron runtime; returning a CPU trace" in neuron_log.messages


@contract("§1.3", "failed-segment-silent")
def test_a_failed_subgraph_falls_back_with_the_documented_warning(torch_neuron, neuron_log):
    arguments = ["--neuroncore-pipeline-cores", "3"]
    model, state = Dense(before=3, after=2, middle=unsupported), dense_input()
    compiled = trace(model, state, compiler_args=arguments, single_fusion_ratio_threshold=1.0)
    assert len(neuron_calls(compiled)) == 1
    failed = [line for line in neuron_log.messages if "falling back to native python function call" in line]
    assert len(failed) == 1 and failed[0].startswith("torch.neuron.trace failed on _NeuronGraph$")
    assert any(
        line.startswith("neuron-cc failed with the following command line call:") for line in neuron_log.messages
    )
    assert (compiled(state) - model(state)).abs().max() < 0.05


@contract("§1.3", "failure-raises")
def test_a_failed_compile_does_not_raise_by_default(torch_neuron):
    compiled = trace(Dense(before=3, after=2, middle=unsupported), dense_input(), single_fusion_ratio_threshold=1.0,
                     compiler_args=["--neuroncore-pipeline-cores", "3"])  # fmt: skip
    assert isinstance(compiled, torch.jit.ScriptModule)


@contract("§1.3", "failure-never-raises")
def test_without_fallback_a_failed_compile_is_a_subprocess_error(start_emulator):
    start_emulator(faults="compile-failure")
    with pytest.raises(subprocess.SubprocessError, match="neuron-cc failed with the following command line call"):
        trace(Dense(), dense_input(), fallback=False)


@contract("§1.3", "any-pipeline-size")
def test_a_pipeline_size_can_be_refused_by_the_compiler(torch_neuron):
    message = r"The requested number of neuroncore-pipeline-cores \(5\) may not be suitable for this network"
    with pytest.raises(subprocess.SubprocessError, match=message):
        trace(Dense(), dense_input(), fallback=False, compiler_args=["--neuroncore-pipeline-cores", "5"])


@contract("§1.3", "half-unnoticed")
def test_less_than_half_compiled_is_warned_of(start_emulator, neuron_log):
    start_emulator(faults="fallback")
    assert len(neuron_calls(trace())) == 1
    text = "torch.neuron.trace was unable to compile > 50% of the operators in the compiled model!"
    assert text in neuron_log.messages
    assert any(line.startswith("Please review the torch.neuron.analyze_model output") for line in neuron_log.messages)
    assert any(
        line.startswith("Lodge an issue on https://github.com/aws/aws-neuron-sdk/issues")
        for line in neuron_log.messages
    )


@contract("§1.3", "compiler-always-there")
def test_a_missing_compiler_is_named_with_its_install_line(start_emulator, neuron_log):
    start_emulator(faults="compiler-missing")
    with pytest.raises(RuntimeError, match="aborting trace"):
        trace()
    assert "Please check that neuron-cc is installed and working properly." in neuron_log.text
    assert "--extra-index-url=https://pip.repos.neuron.amazonaws.com" in neuron_log.text


@contract("§1.3", "kill-unreported")
def test_a_compiler_killed_for_memory_returns_minus_nine(start_emulator, neuron_log):
    start_emulator(faults="compile-killed")
    with pytest.raises(RuntimeError):
        trace()
    assert "Compile command returned: -9" in neuron_log.messages


@contract("§1.3", "kill-unexplained")
def test_newer_releases_say_what_killed_the_compiler(start_emulator, neuron_log):
    """aws-neuron-sdk#431 announces it; #618 has the line for SIG_ABORT."""
    start_emulator(faults="compile-killed")
    with pytest.raises(RuntimeError):
        trace()
    assert "The neuron-cc (neuron compiler) process was killed (SIG_KILL)." in neuron_log.text


# ---------------------------------------------------------------------------- §1.4 dynamic batching


@contract("§1.4", "any-shape")
def test_shapes_are_static(torch_neuron):
    compiled = trace(Dense(), dense_input(3))
    with pytest.raises(RuntimeError, match=r"status=1002.*input 0 has shape \[2, 8\]"):
        compiled(dense_input(2))


@contract("§1.4", "static-batch-forced")
def test_dynamic_batching_takes_any_number_of_rows(torch_neuron):
    model = Dense()
    compiled = trace(model, dense_input(2), dynamic_batch_size=True)
    for rows in (1, 2, 5):
        assert (compiled(dense_input(rows)) - model(dense_input(rows))).abs().max() < 0.05


@contract("§1.4", "rows-lost")
def test_dynamic_batching_keeps_every_row(torch_neuron):
    assert trace(Dense(), dense_input(2), dynamic_batch_size=True)(dense_input(7)).shape == (7, 8)


@contract("§1.4", "mixed-batches")
def test_a_batch_one_tensor_breaks_dynamic_batching(torch_neuron):
    class WithConstantMask(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.dense, self.other = Dense(), Dense()

        def forward(self, state, mask):
            return self.dense(state) + self.other(mask)

    inputs = dense_input(2), dense_input(2)
    compiled = torch.neuron.trace(WithConstantMask().eval(), inputs, dynamic_batch_size=True)
    with pytest.raises(RuntimeError, match="Inconsistent batch sizes found on inputs"):
        compiled(dense_input(4), dense_input(1))


def test_a_size_on_the_cpu_breaks_dynamic_batching_as_documented(torch_neuron):
    class Sized(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.dense = torch.nn.Embedding(9, 8), Dense()

        def forward(self, words):
            embedded = self.words(words)
            return self.dense(embedded + torch.ones(embedded.size(0), 1, 8))

    words = torch.zeros(2, 3, dtype=torch.long)
    compiled = torch.neuron.trace(Sized().eval(), words, dynamic_batch_size=True)
    with pytest.raises(RuntimeError, match=r"The size of tensor a \(4\) must match the size of tensor b \(2\)"):
        compiled(torch.zeros(4, 3, dtype=torch.long))


# ---------------------------------------------------------------------------- §1.6 log lines


@contract("§1.6", "no-neuron-mention")
def test_the_log_names_the_operators_that_are_not_compiled(torch_neuron, neuron_log):
    trace()
    assert any(
        line.startswith("There are 3 ops of 1 different types in the TorchScript that are not compiled by neuron-cc: "
                        "aten::embedding, (For more information see") for line in neuron_log.messages)  # fmt: skip


@contract("§1.6", "other-address")
def test_the_log_names_the_page_that_1_13_names(torch_neuron, neuron_log):
    """gonsoomoon-ml/lab compile.out."""
    trace()
    assert (
        "(For more information see https://awsdocs-neuron.readthedocs-hosted.com/en/latest/release-notes/compiler/"
        "neuron-cc/neuron-cc-ops/neuron-cc-ops-pytorch.html)" in neuron_log.text
    )


@contract("§1.6", "always-two-decimals")
def test_percentages_are_rounded_as_python_rounds(torch_neuron, neuron_log):
    """100.0 % and 97.46 % in gonsoomoon-ml/lab compile.out, 5.66 % in aws-neuron-sdk#371."""
    trace(Dense(), dense_input())
    (line,) = [line for line in neuron_log.messages if "(post-compilation)" in line]
    assert line.endswith("percent compiled = 100.0%")


class Noisy(torch.nn.Module):
    """Another output at each call, as a model with torch.randn has."""

    def forward(self, state):
        return torch.relu(state) @ torch.rand(8, 2)


@contract("§1.6", "trace-unchecked")
def test_torch_checks_the_trace(torch_neuron):
    """gonsoomoon-ml/lab compile.out, neuron-cc 1.24: its first warnings are those of torch's _check_trace."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace(Noisy(), dense_input())
    assert any(str(warning.message).startswith("Trace had nondeterministic nodes") for warning in caught)


def test_torch_can_be_told_not_to_check(torch_neuron):
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        assert neuron_calls(trace(Noisy(), dense_input(), check_trace=False))


@contract("§1.6", "all-supported-unsaid")
def test_the_log_says_when_all_operators_are_supported(torch_neuron, neuron_log):
    trace(Dense(), dense_input())
    assert (
        "All operators are compiled by neuron-cc (this does not guarantee that neuron-cc will successfully compile)"
        in neuron_log.messages
    )


@contract("§1.6", "other-percentage")
def test_the_log_counts_compiled_operators(torch_neuron, neuron_log):
    trace()
    (line,) = [line for line in neuron_log.messages if "(post-compilation)" in line]
    before, compiled = (int(part.split(" = ")[1]) for part in line.split(", ")[:2])
    assert 0 < compiled < before
    assert line.endswith(f"percent compiled = {round(100 * compiled / before, 2)}%")
    assert "The neuron partitioner created 1 sub-graphs" in neuron_log.messages
    assert (
        "Neuron successfully compiled 1 sub-graphs, Total fused subgraphs = 1, "
        "Percent of model sub-graphs successfully compiled = 100.0%" in neuron_log.messages
    )


@contract("§1.6", "no-operator-list")
def test_the_log_lists_operators_on_both_sides(torch_neuron, neuron_log):
    trace()
    assert " => aten::linear: 5" in neuron_log.messages
    assert " => aten::embedding: 3 [not supported]" in neuron_log.messages


@contract("§1.6", "command-not-logged")
def test_the_log_shows_the_command_line(torch_neuron, neuron_log):
    trace(compiler_args=["--fast-math", "none"])
    (line,) = [line for line in neuron_log.messages if line.startswith("Compiling with command line: '")]
    for part in ("neuron-cc compile ", "graph_def.pb --framework TENSORFLOW --pipeline compile SaveTemps --output ",
                 "graph_def.neff --io-config {", " --verbose 35'"):  # fmt: skip
        assert part in line


@contract("§1.6", "arguments-last")
def test_the_arguments_of_the_caller_come_before_verbose(torch_neuron, neuron_log):
    """aws-neuron-sdk#618: … --fast-math fp32-cast-matmult --neuroncore-pipeline-cores 4 --verbose 35."""
    trace(compiler_args=["--fast-math", "fp32-cast-matmult", "--neuroncore-pipeline-cores", "4"])
    (line,) = [line for line in neuron_log.messages if line.startswith("Compiling with command line: '")]
    assert line.endswith("} --fast-math fp32-cast-matmult --neuroncore-pipeline-cores 4 --verbose 35'")


@contract("§1.3", "command-unquoted")
def test_a_failed_command_is_logged_as_a_shell_takes_it(start_emulator, neuron_log):
    """aws-neuron-sdk#618 again: there --io-config is quoted."""
    start_emulator(faults="compile-failure")
    with pytest.raises(RuntimeError):
        trace()
    (line,) = [line for line in neuron_log.messages if line.startswith("neuron-cc failed with the following command")]
    assert """ --io-config '{"inputs": {"0:0": [[2, 4, 8], "float32"]""" in line


@contract("§1.6", "io-config-empty")
def test_the_command_line_carries_inputs_and_outputs(torch_neuron, neuron_log):
    trace()
    (line,) = [line for line in neuron_log.messages if line.startswith("Compiling with command line: '")]
    assert '{"inputs": {"0:0": [[2, 4, 8], "float32"], "1:0": [[2, 1, 1, 4], "float32"]}' in line
    assert '"outputs": ["' in line


@contract("§1.6", "embedding-sum-compiled")
def test_the_subgraph_receives_the_summed_embeddings_and_the_extended_mask(torch_neuron):
    from neuronbert.emulator import compiled_ops

    (payload,) = compiled_ops.payloads_of(trace()).values()
    specs = [spec for _, spec in compiled_ops.program_of_payload(payload).neff.inputs]
    assert [spec.shape for spec in specs] == [(2, 4, 8), (2, 1, 1, 4)]
    assert {spec.dtype for spec in specs} == {torch.float32}


class Cast(torch.nn.Module):
    """Dense layers behind work on another type."""

    def __init__(self):
        super().__init__()
        self.dense = Dense()

    def forward(self, numbers):
        return self.dense(torch.relu(numbers).to(torch.float32))


@contract("§1.9", "float64-on-device")
def test_no_64_bit_float_enters_the_device(torch_neuron):
    compiled = torch.neuron.trace(Cast().eval(), torch.ones(3, 8, dtype=torch.double))
    kinds = [node.kind() for node in compiled.inlined_graph.nodes()]
    assert "aten::relu" in kinds and "aten::to" in kinds


@contract("§1.6", "int64-kept-off")
def test_a_64_bit_whole_number_can_be_an_input_of_a_subgraph(torch_neuron, neuron_log):
    """aws-neuron-sdk#269 and #410 ("3:0": [[512], "int64"]), gonsoomoon-ml/lab compile.out ("1:0": [[1], "int64"])."""
    model, numbers = Cast(), torch.ones(3, 8, dtype=torch.long)
    compiled = trace(model, numbers)
    (line,) = [line for line in neuron_log.messages if line.startswith("Compiling with command line: '")]
    assert '"0:0": [[3, 8], "int64"]' in line
    assert (compiled(numbers) - model(numbers)).abs().max() < 0.05


# A class that torch brings along, in the place of __torch__.torch.classes.neuron.Model.
GRAPH_WITH_A_CLASS = """
graph(%input : Tensor, %model : __torch__.torch.classes.quantized.LinearPackedParamsBase):
  %inputs : Tensor[] = prim::ListConstruct(%input)
  %output : Tensor = neuron::forward_v2_1(%inputs, %model)
  return (%output)
"""


@unknown("model-argument")
def test_the_model_argument_of_a_subgraph(torch_neuron, expected, shown):
    """netron#930: it is a __torch__.torch.classes.neuron.Model; what the backend counts does not depend on it."""
    traced = SimpleNamespace(inlined_graph=torch._C.parse_ir(GRAPH_WITH_A_CLASS))
    if shown("model-argument") == "tensor":
        traced = trace(Dense(), dense_input())
    (call,) = neuron_calls(traced)
    kinds = {"tensor": "Tensor", "class": "__torch__.torch.classes.quantized.LinearPackedParamsBase"}
    assert [str(value.type()) for value in call.inputs()] == ["List[Tensor]", kinds[expected]]
    assert report_of(traced, "").subgraphs == 1 and report_of(traced, "").fallback() == []


# ---------------------------------------------------------------------------- §1.7 questions


@contract("§1.7", "analyze-silent")
def test_analyze_model_lists_what_is_not_supported(torch_neuron, neuron_log):
    torch.neuron.analyze_model(TinyBert().eval(), tiny_inputs())
    messages = neuron_log.messages
    supported = messages.index("The following operations are currently supported in torch-neuron for this model:")
    missing = messages.index("The following operations are currently not supported in torch-neuron for this model:")
    assert "aten::linear" in messages[supported:missing]
    assert "aten::embedding" in messages[missing:]


@contract("§1.7", "analyze-miscounts")
def test_analyze_model_gives_the_share_of_supported_operations(torch_neuron, neuron_log):
    torch.neuron.analyze_model(Dense(middle=unsupported).eval(), dense_input())
    assert "88.89% of arithmetic operations (8 of 9) are supported" in neuron_log.messages
    assert any("of all operations (including primitives)" in line for line in neuron_log.messages)


@contract("§1.7", "embedding-listed")
def test_supported_operations_are_listed_without_embedding(torch_neuron):
    listed = torch.neuron.get_supported_operations()
    assert "aten::linear" in listed and "aten::split" in listed and "prim::Constant" in listed
    assert "aten::embedding" not in listed


@contract("§1.7", "always-available")
def test_is_available_answers_for_this_process(start_emulator, capfd):
    assert start_emulator(faults="no-driver").is_available() is False


def test_is_available_on_a_working_device(torch_neuron):
    assert torch_neuron.is_available() is True


def test_a_compiler_that_behaves_otherwise_has_another_version(start_emulator):
    start_emulator(unknowns="int64-inputs=refused")
    assert __import__("neuron_cc").__version__ == "1.24.0.0+emulated.int64-inputs.refused"


def test_old_callers_reach_the_same_functions(torch_neuron):
    import torch_neuron

    assert torch_neuron.trace is torch.neuron.trace
    assert torch_neuron.__version__ == torch.neuron.__version__ == "1.13.1.2.11.13.0+emulated"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert __import__("neuron_cc").__version__ == "1.24.0.0+emulated"
