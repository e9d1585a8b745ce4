"""What the options of a compilation for inf1 become, and which contradict themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.backends.neuron.target import NeuronTarget, numbers, one_step_smaller
from neuronbert.errors import UsageError

BERT_BASE = 85_054_464


@pytest.mark.parametrize(
    ("options", "arguments", "precision"),
    [
        ({}, ["--fast-math", "fp32-cast-matmult-fp16", "no-fast-relayout"], "fp16"),
        ({"auto_cast": "none"}, ["--fast-math", "none"], "bf16"),
        ({"auto_cast_type": "bf16"}, ["--fast-math", "fp32-cast-matmult-bf16", "no-fast-relayout"], "bf16"),
        ({"auto_cast_type": "mixed"}, ["--fast-math", "fp32-cast-matmult", "no-fast-relayout"], "bf16"),
        ({"auto_cast": "all"}, ["--fast-math", "all"], "bf16"),
        ({"auto_cast": "all", "auto_cast_type": "fp16"}, ["--fast-math", "fp32-cast-all-fp16"], "fp16"),
        # The BERT tutorials of aws-neuron-sdk v2.20 leave the option out (src/examples/pytorch).
        ({"auto_cast": "compiler"}, [], "bf16"),
    ],
)
def test_casts_become_separate_arguments(options, arguments, precision):
    target = NeuronTarget.of(**options)
    assert target.compiler_args(1) == arguments
    assert target.compiler_args(4) == ["--neuroncore-pipeline-cores", "4", *arguments]
    assert target.precision == precision


def test_the_twin_takes_every_cast():
    from neuronbert.backends.neuron.target import FAST_MATH

    neuron_cc = pytest.importorskip("neuronbert.emulator.neuron_cc")
    for cast, dtype in FAST_MATH:
        parsed = neuron_cc.parse_arguments(NeuronTarget.of(auto_cast=cast, auto_cast_type=dtype).compiler_args(4))
        assert parsed.pipeline_cores == 4
        assert parsed.policy.everything == parsed.policy.fast_relayout == (cast in ("all", "compiler"))
        assert parsed.policy.dtype == ("fp16" if dtype == "fp16" else "bf16")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"neuroncore_pipeline_cores": 4}, "one model per core, not one over 4"),
        ({"mode": "both"}, "no mode 'both'"),
        ({"instance_type": "inf2.xlarge"}, "no instance type 'inf2.xlarge'"),
        ({"mode": "pipeline", "neuroncore_pipeline_cores": "8"}, "8 cores does not fit 4"),
        ({"mode": "pipeline", "neuroncore_pipeline_cores": "many"}, "whole number of at least 1, not 'many'"),
        ({"batch_size": 0}, "--batch-size must be a whole number of at least 1, not '0'"),
        ({"sequence_length": "128,long"}, "not 'long'"),
        ({"sequence_length": 8}, "leaves no room"),
        ({"auto_cast": "some"}, "no --auto-cast 'some'"),
        ({"auto_cast_type": "int8"}, "no --auto-cast-type 'int8'"),
        ({"auto_cast": "none", "auto_cast_type": "fp16"}, "no --auto-cast none with --auto-cast-type fp16"),
        ({"auto_cast": "all", "auto_cast_type": "mixed"}, "no --auto-cast all with --auto-cast-type mixed"),
        ({"auto_cast": "compiler", "auto_cast_type": "fp16"}, "no --auto-cast compiler with --auto-cast-type fp16"),
    ],
)
def test_contradictions_are_usage_errors(options, words):
    with pytest.raises(UsageError, match=words) as caught:
        NeuronTarget.of(**options)
    assert caught.value.exit_code == 2


def test_every_length_with_every_batch_size_is_a_bucket():
    plan = NeuronTarget.of(batch_size="1,6", sequence_length=["384", 128]).plan(BERT_BASE)
    assert [bucket.name for bucket in plan.buckets] == ["b1-s128-p1", "b6-s128-p1", "b1-s384-p1", "b6-s384-p1"]
    assert plan.layout.environment()["NEURONCORE_GROUP_SIZES"] == "1,1,1,1"


@pytest.mark.parametrize(
    ("instance", "parameters", "cores", "words"),
    [
        ("inf1.6xlarge", BERT_BASE, 16, "4 * round(85,054,464 / 2e7) = 16"),
        ("inf1.24xlarge", 302_309_376, 60, "= 60"),
        ("inf1.xlarge", BERT_BASE, 4, "clamped to at most the 4 cores there are"),
        ("inf1.xlarge", 1_000_000, 1, "clamped to at least 1"),
    ],
)
def test_the_pipeline_is_explained(instance, parameters, cores, words):
    plan = NeuronTarget.of(instance_type=instance, mode="pipeline").plan(parameters)
    assert {bucket.pipeline_cores for bucket in plan.buckets} == {cores}
    assert words in plan.sentences()[0]


def test_a_copy_of_bert_is_estimated_at_no_less_device_memory_than_neuron_top_showed():
    """aws-samples/best-practices-for-fastapi-on-inferentia, README: 12 bert-base-uncased-squad2 use 2.1 GB of it."""
    memory = NeuronTarget.of(sequence_length=128).plan(BERT_BASE).memory
    assert 1 <= 12 * memory.bytes_per_copy / 2.1e9 < 1.2


@pytest.mark.parametrize(("gib", "warned"), [(7.6, True), (15.4, True), (30.9, False), (47, False), (0, False)])
def test_a_host_too_small_to_compile_on_is_warned_of(gib, warned):
    """An inf1.xlarge has 8 GiB; a c5.4xlarge, the smallest that AWS recommends, shows some 31 of its 32."""
    last = NeuronTarget.of().plan(BERT_BASE).sentences(int(gib * 2**30))[-1]
    assert last.startswith("warning: neuron-cc may be killed for want of memory, of which this machine has") is warned
    assert not warned or (f"has {gib} GiB" in last and "  try: compile on one with 32 GiB or more" in last)


@pytest.mark.parametrize(("asked", "limit_s"), [(60, 60), (0, None), (None, None)])
def test_the_compiler_has_three_hours_unless_asked_otherwise(asked, limit_s):
    """40 minutes have been seen (aws-neuron-sdk#364), and a compile that hangs for ever (#978)."""
    target = NeuronTarget.of()
    plan = target.plan(BERT_BASE)
    assert target.recipe(plan, plan.buckets[0])["compiler_timeout_s"] == 3 * 60 * 60
    assert NeuronTarget.of(compiler_timeout_s=asked).compiler_timeout_s == limit_s
    for nonsense in (-1, False, 1.5, "0"):
        with pytest.raises(UsageError, match="--compiler-timeout"):
            NeuronTarget.of(compiler_timeout_s=nonsense)


def test_what_does_not_fit_device_memory_is_refused_with_the_numbers():
    lengths = ",".join(str(length) for length in range(16, 16 + 12))
    with pytest.raises(UsageError, match=r"does not fit device memory: 302,309,376 weights take .* times 12 bucket"):
        NeuronTarget.of(sequence_length=lengths).plan(302_309_376)


def test_a_refused_pipeline_is_planned_again_one_step_smaller():
    target = NeuronTarget.of(instance_type="inf1.6xlarge", mode="pipeline")
    plan = target.plan(BERT_BASE, [16])
    assert (plan.layout.cores_per_model, plan.layout.replicas, plan.refused_cores) == (12, 1, (16,))
    assert target.asks_for_auto_cores
    assert not NeuronTarget.of(mode="pipeline", neuroncore_pipeline_cores=4).asks_for_auto_cores


@given(st.integers(2, 64))
def test_steps_go_down_to_one(cores):
    smaller = one_step_smaller(cores)
    assert 1 <= smaller < cores
    assert smaller == 1 or smaller % 4 == 0


def test_numbers_are_read_in_every_form():
    assert numbers("n", 5) == (5,)
    assert numbers("n", "128, 384,128") == (128, 384)
    assert numbers("n", ["1,2", 3]) == (1, 2, 3)
    for nonsense in ([], "", "-1", True, ["x"], 1.5):
        with pytest.raises(UsageError):
            numbers("n", nonsense)
