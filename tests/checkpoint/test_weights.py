"""Stored weights: 16-bit floats widen exactly, NaN and Inf are seen in every type, the fingerprint sees every part."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuronbert.checkpoint.weights import StoredTensor, fingerprint


def stored(values: np.ndarray, dtype: str, name: str = "file") -> StoredTensor:
    return StoredTensor(dtype, values.shape, np.frombuffer(values.tobytes(), np.uint8), name)


TYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


@settings(deadline=None)
@given(data=st.data(), dtype=st.sampled_from(sorted(TYPES)))
def test_finite_is_what_numpy_calls_finite(data: Any, dtype: str) -> None:
    width = {"F16": 16, "F32": 32, "F64": 64}[dtype]
    values = data.draw(hnp.arrays(TYPES[dtype], hnp.array_shapes(min_side=0), elements=st.floats(width=width)))
    assert stored(values, dtype).is_finite() == bool(np.isfinite(values).all())


@settings(deadline=None)
@given(hnp.arrays(np.float16, hnp.array_shapes(), elements=st.floats(width=16, allow_nan=False)))
def test_float16_widens_exactly(values: np.ndarray) -> None:
    found = stored(values, "F16").float32()
    assert found.dtype == np.float32 and np.array_equal(found, values.astype(np.float32))


@settings(deadline=None)
@given(hnp.arrays(np.uint16, hnp.array_shapes()))
def test_bfloat16_is_what_torch_reads(bits: np.ndarray) -> None:
    import torch

    expected = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float().numpy()
    tensor = stored(bits, "BF16")
    assert np.array_equal(tensor.float32(), expected, equal_nan=True)
    assert tensor.is_finite() == bool(np.isfinite(expected).all())


def test_float32_is_a_copy() -> None:
    tensor = stored(np.ones((2, 3), np.float32), "F32")
    tensor.float32()[:] = 5
    assert np.array_equal(tensor.float32(), np.ones((2, 3)))


@pytest.mark.parametrize(
    "name, values, dtype",
    [
        ("b", np.zeros((2, 3), np.float32), "F32"),
        ("a", np.zeros((3, 2), np.float32), "F32"),
        ("a", np.full((2, 3), 1e-45, np.float32), "F32"),
        ("a", np.zeros((2, 3), np.float16), "F16"),
    ],
)
def test_fingerprint_sees_name_shape_bytes_and_type(name: str, values: np.ndarray, dtype: str) -> None:
    plain = {"a": stored(np.zeros((2, 3), np.float32), "F32", "one file")}
    assert fingerprint({name: stored(values, dtype)}) != fingerprint(plain)
    assert fingerprint({"a": stored(np.zeros((2, 3), np.float32), "F32", "another file")}) == fingerprint(plain)


def test_fingerprint_is_the_documented_one() -> None:
    import hashlib

    tensors = {"b": stored(np.zeros(1, np.float16), "F16"), "a": stored(np.ones((1, 2), np.float32), "F32")}
    whole = b'["a", "F32", [1, 2]]\n' + np.ones(2, "<f4").tobytes() + b'["b", "F16", [1]]\n' + bytes(2)
    assert fingerprint(tensors) == hashlib.sha256(whole).hexdigest()
