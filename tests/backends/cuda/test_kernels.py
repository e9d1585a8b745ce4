"""Triton's kernels against plain torch: on a GPU, else in Triton's interpreter; and attention against its formula.

The interpreter is slow, and wrong about bf16 and fp8: there a few small shapes, of float32 and float16.
"""

import importlib.util
from typing import Any, List, Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", minversion="2.4")
pytest.importorskip("safetensors")

from neuronbert.backends.cuda.attention import Rows, flash_attention, padded_attention  # noqa: E402  # they import torch
from neuronbert.backends.cuda.layers import ACTIVATIONS, Hidden, Layers, to_fp8  # noqa: E402

# Of Triton's interpreter, beside numpy 1.25 and later.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
TYPES = [torch.float32, torch.float16, *([torch.bfloat16] if ON_GPU else [])]
EPSILON = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}  # of numbers of about 1


def rows_of(lengths: List[int], more: int = 0) -> Rows:
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    rows = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    places = (np.arange(len(rows)) - starts[rows]).astype(np.int32)
    tensors = [torch.from_numpy(array).to(DEVICE) for array in (starts, rows, places)]
    return Rows(*tensors, longest=max(lengths) + more)


def random_like(*shape: int, seed: int = 0, dtype: Any = torch.float32) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(DEVICE, dtype)


def by_formula(queries: Any, keys: Any, values: Any, rows: Rows) -> Any:
    """softmax(Q Kᵀ / √width) V of each row and head, in float64."""
    found = torch.zeros(queries.shape, dtype=torch.float64)
    q, k, v = (tensor.double().cpu() for tensor in (queries, keys, values))
    starts = rows.starts.tolist()
    for begin, end in zip(starts, starts[1:]):
        for head in range(q.shape[1]):
            scores = q[begin:end, head] @ k[begin:end, head].T / q.shape[2] ** 0.5
            found[begin:end, head] = torch.softmax(scores, dim=-1) @ v[begin:end, head]
    return found


def qkv_of(tokens: int, heads: int, width: int, seed: int, dtype: Any) -> Tuple[Any, ...]:
    """Three parts of one product, as the encoder has them: none of them contiguous."""
    qkv = random_like(tokens, 3 * heads * width, seed=seed, dtype=dtype).view(tokens, 3, heads, width)
    return qkv[:, 0], qkv[:, 1], qkv[:, 2]


def distance(found: Any, expected: Any) -> float:
    return float((found.double().cpu() - expected.double().cpu()).abs().max())


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any),
    heads=st.integers(1, 4),
    width=st.integers(1, 17),
    more=st.integers(0, 50),
)
def test_padded_attention_is_the_formula(lengths: List[int], heads: int, width: int, more: int) -> None:
    """With rows without tokens, and room for a longer row than there is."""
    rows = rows_of(lengths, more)
    parts = qkv_of(sum(lengths), heads, width, sum(lengths), torch.float32)
    assert distance(padded_attention(*parts, rows), by_formula(*parts, rows)) < 5e-6


def test_torch_s_own_attention_is_there_or_not() -> None:
    found = flash_attention()
    assert found is None or callable(found)
    if not ON_GPU or found is None or torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("it runs on GPUs only")
    rows = rows_of([5, 0, 64, 1, 130])
    parts = qkv_of(200, 2, 24, 1, torch.float16)
    assert distance(found(*parts, rows), by_formula(*parts, rows)) < EPSILON[torch.float16]


# ---------------------------------------------------------------------- Triton


@pytest.fixture(scope="module")
def kernels() -> Any:
    """The module, in the interpreter where there is no GPU (tests/conftest.py)."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    from neuronbert.backends.cuda import kernels

    return kernels


def weights_of(width: int, dtype: Any, types: int = 2) -> Any:
    made = {
        "embeddings.word": random_like(30, width, seed=1, dtype=dtype),
        "embeddings.position": random_like(20, width, seed=2, dtype=dtype),
        "embeddings.norm.weight": random_like(width, seed=4) + 1,
        "embeddings.norm.bias": random_like(width, seed=5),
        "out.bias": random_like(width, seed=6, dtype=dtype),
        "widen.weight": random_like(width, 16, seed=7, dtype=dtype) * 0.3,
        "widen.bias": random_like(width, seed=8, dtype=dtype),
        "norm.weight": random_like(width, seed=9) + 1,
        "norm.bias": random_like(width, seed=10),
    }
    if types:
        made["embeddings.token_type"] = random_like(types, width, seed=3, dtype=dtype)
    return made


WIDTHS = [1, 7, 16, 48, 100] + ([768, 1024, 3072] if ON_GPU else [])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_sums_and_norms_are_plain_torch_s(kernels: Any, width: int, dtype: Any) -> None:
    weights = weights_of(width, dtype)
    plain, quick = (kind(weights, "gelu", 1e-5) for kind in (Layers, kernels.GpuLayers))
    product, residual = random_like(9, width, seed=20, dtype=dtype), random_like(9, width, seed=21, dtype=dtype)
    expected = plain.added_and_normalized(product.clone(), "out.bias", residual, "norm").states
    found = quick.added_and_normalized(product.clone(), "out.bias", residual, "norm").states
    assert found.dtype == dtype and distance(found, expected) < 4 * EPSILON[dtype]


@pytest.mark.parametrize("types", [2, 0])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_embeddings_are_plain_torch_s(kernels: Any, width: int, dtype: Any, types: int) -> None:
    weights = weights_of(width, dtype, types)
    random = np.random.default_rng(width)
    ids, positions, kinds = (
        torch.from_numpy(random.integers(0, count, size=11).astype(np.int32)).to(DEVICE) for count in (30, 20, 2)
    )
    expected, found = (
        kind(weights, "gelu", 1e-5).embedded(ids, positions, kinds) for kind in (Layers, kernels.GpuLayers)
    )
    assert found.dtype == dtype and distance(found, expected) < 4 * EPSILON[dtype]


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("dtype", TYPES)
def test_activations_are_plain_torch_s(kernels: Any, dtype: Any, activation: str) -> None:
    """GELU of 16 bits is its approximation, and is off by that, on CPUs exact: 5e-4 of it."""
    x = Hidden(random_like(9, 16, seed=22, dtype=dtype))
    weights = weights_of(100, dtype)
    expected, found = (
        kind(weights, activation, 1e-5).widened(x, "widen").states for kind in (Layers, kernels.GpuLayers)
    )
    assert found.dtype == dtype and distance(found, expected) < 4 * EPSILON[dtype]


def test_every_activation_of_a_graph_has_a_kernel() -> None:
    from neuronbert.backends.cuda.graph import ACTIVATIONS as OFFERED

    assert set(OFFERED.values()) == {"gelu", "gelu_tanh", "relu", "silu"} <= set(ACTIVATIONS)


@pytest.mark.parametrize(
    "lengths", [[1], [5, 0, 3], [64], [65, 1], [0, 63, 0, 129, 2], [0]] + ([[512] * 3, [1] * 500] if ON_GPU else [])
)
@pytest.mark.parametrize("width", [16, 32, 64])
def test_attention_is_the_formula(kernels: Any, width: int, lengths: List[int]) -> None:
    assert width in kernels.ATTENTION_WIDTHS
    rows = rows_of(lengths, more=1)
    parts = qkv_of(sum(lengths), 2, width, len(lengths), torch.float16)
    found = kernels.attention(*parts, rows)
    assert found.shape == parts[0].shape and found.is_contiguous()
    if sum(lengths):
        assert distance(found, by_formula(*parts, rows)) < EPSILON[torch.float16]


@pytest.mark.parametrize("scale", [0.0, 30.0])
def test_attention_of_extreme_scores(kernels: Any, scale: float) -> None:
    """All alike, and so far apart that only the largest counts: no overflow, no NaN."""
    rows = rows_of([70, 3])
    parts = qkv_of(73, 2, 32, 3, torch.float16)
    for part in parts[:2]:
        part *= scale
    assert distance(kernels.attention(*parts, rows), by_formula(*parts, rows)) < 2 * EPSILON[torch.float16]


def test_attention_refuses_parts_of_different_products(kernels: Any) -> None:
    """It reads all three with the strides of the first, and gave other numbers."""
    queries, keys, values = qkv_of(5, 2, 32, 3, torch.float16)
    with pytest.raises(AssertionError):
        kernels.attention(queries, keys, values.contiguous(), rows_of([5]))


@pytest.mark.skipif(not ON_GPU or torch.cuda.get_device_capability() < (8, 9), reason="FP8 needs a GPU that has it")
@pytest.mark.parametrize("width", [16, 100, 1024])
def test_fp8_is_plain_torch_s_on_a_gpu(kernels: Any, width: int) -> None:
    states = random_like(9, width, seed=23, dtype=torch.bfloat16) * 100
    layers = kernels.GpuLayers(weights_of(width, torch.bfloat16), "gelu", 1e-5)
    layers.uses_fp8 = True
    found = layers.quantized(states)
    fp8, scale = to_fp8(states)
    assert found.fp8.dtype == torch.float8_e4m3fn
    np.testing.assert_allclose(found.scale.cpu().numpy(), scale.cpu().numpy(), rtol=1e-6)
    step = fp8.float().abs() / 8 + 2.0**-9  # of the last bit, where a quotient lies between two
    assert bool(((found.fp8.float() - fp8.float()).abs() <= step).all())
