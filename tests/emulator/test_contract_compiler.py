"""Reference §1.9: what neuron-cc takes, and what --fast-math does to numbers."""

import subprocess

import pytest

torch = pytest.importorskip("torch")

from contract import contract, unknown  # noqa: E402
from models import Dense, TinyBert, largest_difference, neuron_calls, reload, tiny_inputs  # noqa: E402

from neuronbert.emulator import compiled_ops  # noqa: E402
from neuronbert.emulator.neuron_cc import CompilerFailed, parse_arguments  # noqa: E402


def options(*arguments):
    return parse_arguments(arguments)


def refused(*arguments):
    with pytest.raises(CompilerFailed) as error:
        options(*arguments)
    assert error.value.returncode > 0
    return str(error.value)


def outputs(*arguments, model=None, inputs=None):
    compiled = torch.neuron.trace((model or TinyBert()).eval(), inputs or tiny_inputs(), compiler_args=list(arguments))
    return compiled(*(inputs or tiny_inputs()))


@contract("§1.9", "prefixes-taken")
def test_an_unknown_option_is_refused():
    assert "--neuroncore-pipe" in refused("--neuroncore-pipe", "4")


def test_fast_math_values_are_separate_arguments():
    assert options("--fast-math", "fp32-cast-matmult", "no-fast-relayout").policy.fast_relayout is False
    assert "--fast-math" in refused("--fast-math fp32-cast-matmult")


@unknown("joined-fast-math", told_by=[CompilerFailed])
def test_fast_math_values_in_one_argument(expected, shown):
    """neuronperf's compile_constants.py passes them so; the command line reference has them apart."""
    arguments = ["--fast-math", "fp32-cast-matmult no-fast-relayout", "-O2"]
    if expected == "refused":
        with pytest.raises(CompilerFailed, match="invalid choice"):
            parse_arguments(arguments, shown)
    else:
        assert parse_arguments(arguments, shown) == options("--fast-math", "fp32-cast-matmult", "no-fast-relayout")


@unknown("string-compiler-args", told_by=[TypeError])
def test_compiler_args_as_a_string(start_emulator, neuron_log, expected, shown):
    """aws-neuron-sdk#395 compiles with compiler_args="-O2"; the API reference has a list."""
    start_emulator(unknowns=shown.setting)
    if expected == "refused":
        with pytest.raises(TypeError, match="compiler_args must be a list of strings"):
            torch.neuron.trace(Dense().eval(), torch.rand(2, 8), compiler_args="--fast-math none")
    else:
        torch.neuron.trace(Dense().eval(), torch.rand(2, 8), compiler_args="--fast-math none")
        assert any(" --fast-math none --verbose 35'" in line for line in neuron_log.messages)


@unknown("pipeline-cores-rounded")
def test_how_many_cores_a_pipeline_gets(start_emulator, expected, shown):
    """aws-neuron-sdk#291: AWS compiled a model with --neuroncore-pipeline-cores 7."""
    start_emulator("inf1.6xlarge", unknowns=shown.setting)
    arguments = ["--neuroncore-pipeline-cores", "7"]
    compiled = torch.neuron.trace(Dense(4, 4).eval(), torch.rand(2, 8), compiler_args=arguments, fallback=False)
    (payload,) = compiled_ops.payloads_of(compiled).values()
    assert compiled_ops.program_of_payload(payload).neff.pipeline_cores == {"as-asked": 7, "to-fours": 8}[expected]
    assert reload(compiled)(torch.rand(2, 8)).shape == (2, 8)


@unknown("int64-inputs", told_by=[RuntimeError])
def test_a_subgraph_with_an_int64_input(start_emulator, expected, shown):
    """neuron-cc's release notes: no INT64 I/O; aws-neuron-sdk#269 and #410: --io-config has them."""

    class Sum(torch.nn.Module):
        def forward(self, state, numbers):
            return torch.relu(state) + numbers

    start_emulator(unknowns=shown.setting)
    inputs = torch.rand(2, 8), torch.ones(2, 8, dtype=torch.long)
    if expected == "refused":
        with pytest.raises(RuntimeError, match="aborting trace"):
            torch.neuron.trace(Sum().eval(), inputs)
    else:
        assert len(neuron_calls(torch.neuron.trace(Sum().eval(), inputs))) == 1


@pytest.mark.parametrize("cores", [1, 2, 3, 5, 6, 7])
def test_pipeline_cores_need_not_be_a_multiple_of_four(cores):
    """aws-neuron-sdk#291 settles it with 7; the core placement guide has 2 and 3."""
    assert options("--neuroncore-pipeline-cores", str(cores)).pipeline_cores == cores


@contract("§1.9", "exclusives-taken")
@pytest.mark.parametrize(
    "values",
    [("all", "none"), ("fp32-cast-all", "fp32-cast-matmult"), ("fast-relayout", "no-fast-relayout")],
)
def test_presets_casts_and_relayouts_exclude_each_other(values):
    assert "exclude each other" in refused("--fast-math", *values)


@contract("§1.9", "default-none")
def test_the_default_casts_everything_to_bf16_with_fast_relayout():
    assert options() == options("--fast-math", "all") == options("--fast-math", "fp32-cast-all", "fast-relayout")
    policy = options().policy
    assert (policy.everything, policy.dtype, policy.fast_relayout, policy.saturate_infinity) == (
        True,
        "bf16",
        True,
        False,
    )


def test_none_is_bf16_matrix_products_without_fast_relayout():
    assert options("--fast-math", "none") == options("--fast-math", "fp32-cast-matmult-bf16", "no-fast-relayout")


@contract("§1.9", "specific-loses")
def test_specific_options_override_a_preset():
    policy = options("--fast-math", "none", "fp32-cast-all-fp16").policy
    assert (policy.everything, policy.dtype, policy.fast_relayout) == (True, "fp16", False)


@contract("§1.9", "fp32-cast-loses")
def test_fp32_cast_wins_over_fast_math():
    policy = options("--fast-math", "all", "--fp32-cast", "matmult-fp16").policy
    assert (policy.everything, policy.dtype) == (False, "fp16")
    assert options("--fp32-cast=matmult", "--fast-math", "no-fast-relayout").policy.fast_relayout is False


@contract("§1.9", "legacy-refused")
def test_old_spellings_are_still_accepted():
    assert options("--num-neuroncores", "4", "--static-weights", "-O2").pipeline_cores == 4


@pytest.mark.parametrize("arguments", [[1], [None], ["-O2", 1]])
def test_compiler_args_that_are_no_list_of_strings_are_a_type_error(torch_neuron, arguments):
    with pytest.raises(TypeError, match="compiler_args must be a list of strings"):
        torch.neuron.trace(Dense().eval(), torch.rand(2, 8), compiler_args=arguments)


@pytest.mark.parametrize("cores", ["0", "65", "-4", "four"])
def test_impossible_pipeline_sizes_are_refused(cores):
    assert "--neuroncore-pipeline-cores" in refused("--neuroncore-pipeline-cores", cores)


def test_a_refused_argument_is_a_failed_compile(torch_neuron):
    with pytest.raises(subprocess.SubprocessError, match="invalid choice"):
        torch.neuron.trace(Dense().eval(), torch.rand(2, 8), fallback=False, compiler_args=["--fast-math", "fastest"])


# ---------------------------------------------------------------------------- numbers


class Product(torch.nn.Module):
    """A product of two activations: no weight that the compiler could have rounded beforehand."""

    def forward(self, state):
        return torch.matmul(torch.relu(state), torch.tanh(state).reshape(8, 4))


@contract("§1.9", "fp32-products")
def test_there_is_no_32_bit_matrix_product(torch_neuron):
    state = torch.rand(4, 8, generator=torch.Generator().manual_seed(6))
    exact = Product()(state)
    assert (outputs("--fast-math", "none", model=Product(), inputs=(state,)) - exact).abs().max() > 1e-4


@contract("§1.9", "cast-all-casts-less")
def test_casting_everything_costs_more_accuracy_than_casting_products(torch_neuron):
    model, inputs = TinyBert(layers=4), tiny_inputs()
    exact = model(*inputs)
    everything = largest_difference(outputs(model=model), exact)
    products = largest_difference(outputs("--fast-math", "none", model=model), exact)
    assert everything > 1.5 * products


def test_fp16_products_are_the_most_accurate(torch_neuron):
    exact = TinyBert()(*tiny_inputs())
    fp16 = largest_difference(outputs("--fast-math", "fp32-cast-matmult-fp16", "no-fast-relayout"), exact)
    bf16 = largest_difference(outputs("--fast-math", "fp32-cast-matmult-bf16", "no-fast-relayout"), exact)
    assert 0 < fp16 < bf16 / 3


class Relayout(torch.nn.Module):
    """A transposition on the device, and nothing after it that would cast."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.LayerNorm(8)

    def forward(self, state):
        return self.norm(state).transpose(0, 1).contiguous()


@contract("§1.9", "relayout-exact")
def test_fast_relayout_casts_what_it_moves(torch_neuron):
    state = torch.rand(4, 8, generator=torch.Generator().manual_seed(5))
    exact = Relayout()(state)
    slow = outputs("--fast-math", "fp32-cast-matmult", "no-fast-relayout", model=Relayout(), inputs=(state,))
    fast = outputs("--fast-math", "fp32-cast-matmult", "fast-relayout", model=Relayout(), inputs=(state,))
    assert torch.equal(slow, exact) and not torch.equal(fast, exact)


class Masked(torch.nn.Module):
    """Attention whose mask is the most negative 32 bit number, as transformers made it from 4.20 on."""

    def forward(self, scores, mask):
        return torch.softmax(scores, -1) * torch.softmax(torch.relu(scores) + mask, -1)


@contract("§5.1", "never-infinite")
def test_a_fully_masked_row_is_nan_in_16_bits(torch_neuron):
    scores = torch.rand(2, 4)
    mask = torch.tensor([[0.0, 0.0, 0.0, 0.0], [torch.finfo(torch.float32).min] * 4])
    result = outputs(model=Masked(), inputs=(scores, mask))
    assert not torch.isnan(result[0]).any() and torch.isnan(result[1]).all()


@contract("§1.9", "never-saturates")
def test_enable_saturate_infinity_keeps_numbers_finite(torch_neuron):
    scores = torch.rand(2, 4)
    mask = torch.full((2, 4), torch.finfo(torch.float32).min)
    result = outputs("--enable-saturate-infinity", model=Masked(), inputs=(scores, mask))
    assert torch.isfinite(result).all()
