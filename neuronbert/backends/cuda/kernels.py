"""Triton kernels for what stands between an encoder's matrix products: layers.py's operations in one pass each.

It imports torch and triton, which comes with torch's builds for CUDA; kernels are compiled at first use, for the GPU
that is there, and kept in Triton's own cache.
"""

from typing import Dict, Optional, Tuple

import torch

from neuronbert.backends.cuda.attention import Rows
from neuronbert.backends.cuda.layers import Hidden, Layers
from neuronbert.backends.cuda.weights import FP8, FP8_LARGEST
from neuronbert.hardware.libraries import optional_imports

with optional_imports("cuda"):
    import triton
    import triton.language as tl

# What jitted functions read of a module must be a constant of Triton's.
_LARGEST = tl.constexpr(FP8_LARGEST)
_LOG2_E = 1.4426950408889634  # exp(x) = 2 ** (x · log2 e), and GPUs have powers of 2
# Queries and keys of one step of attention: short rows leave less of a tile of 64 empty than of one of 128.
QUERIES, KEYS = 64, 64
ATTENTION_WIDTHS = (16, 32, 64, 128)  # of a head: what a matrix unit multiplies


class GpuLayers(Layers):
    """``Layers`` on an NVIDIA GPU: biases, sums, activations, norms and FP8 with one read and one write of memory.

    With 16 bits or less, GELU is its approximation by tanh, which is off by 0.0005 at most, and which cuBLAS computes
    within a product.
    """

    def scaled_product(
        self,
        x: torch.Tensor,
        x_scale: torch.Tensor,
        weight: torch.Tensor,
        weight_scale: torch.Tensor,
        bias: Optional[torch.Tensor],
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """FP8 products by the GPU's own units; ``dtype`` is bfloat16, which is what they give."""
        # The public function, torch.nn.functional.scaled_mm, is of torch 2.10.
        return torch._scaled_mm(
            x, weight.t(), x_scale, weight_scale[None, :], bias=bias, out_dtype=dtype, use_fast_accum=True
        )

    def quantized(self, states: torch.Tensor) -> Hidden:
        if not self.uses_fp8:
            return Hidden(states)
        fp8, scale = _fp8_like(states)
        count, width = states.shape
        _quantize[(count,)](states, fp8, scale, width, **_block(width))
        return Hidden(states, fp8, scale)

    def widened(self, x: Hidden, name: str) -> Hidden:
        bias, dtype = self.weights[name + ".bias"], x.states.dtype
        if dtype != torch.float32 and self.activation.startswith("gelu") and not self.uses_fp8:
            # cuBLAS adds and activates what it has in registers; torch has no public name for that.
            weight = self.weights[name + ".weight"]
            return Hidden(torch._addmm_activation(bias, x.states, weight.t(), use_gelu=True))
        product = self.product(x, name, bias=False)
        # In FP8 nobody reads the 16-bit ones.
        fp8, scale = _fp8_like(product) if self.uses_fp8 else (product, product)
        count, width = product.shape
        activation = "gelu_tanh" if self.uses_fp8 and self.activation == "gelu" else self.activation
        _add_and_activate[(count,)](
            product, bias, product, fp8, scale, width, ACTIVATION=activation, TO_FP8=self.uses_fp8, **_block(width)
        )
        return Hidden(product, fp8, scale) if self.uses_fp8 else Hidden(product)

    def added_and_normalized(self, product: torch.Tensor, bias: str, residual: torch.Tensor, norm: str) -> Hidden:
        fp8, scale = _fp8_like(product) if self.uses_fp8 else (product, product)
        count, width = product.shape
        _add_and_normalize[(count,)](
            product, self.weights[bias], residual, self.weights[norm + ".weight"], self.weights[norm + ".bias"],
            product, fp8, scale, width, self.epsilon, TO_FP8=self.uses_fp8, **_block(width),
        )  # fmt: skip
        return Hidden(product, fp8, scale) if self.uses_fp8 else Hidden(product)

    def embedded(self, ids: torch.Tensor, positions: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        words, places = self.weights["embeddings.word"], self.weights["embeddings.position"]
        kinds = self.weights.get("embeddings.token_type")
        count, width = ids.shape[0], words.shape[1]
        out = torch.empty((count, width), dtype=words.dtype, device=words.device)
        _embed[(count,)](
            ids, positions, types, words, places, words if kinds is None else kinds,
            self.weights["embeddings.norm.weight"], self.weights["embeddings.norm.bias"], out, width, self.epsilon,
            TYPES=kinds is not None, **_block(width),
        )  # fmt: skip
        return out


def attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: Rows) -> torch.Tensor:
    """attention.Attention for 16 bits and heads of ATTENTION_WIDTHS, parts of one product; the scores are float32."""
    count, heads, width = queries.shape
    assert queries.stride() == keys.stride() == values.stride() and queries.stride(2) == 1
    out = torch.empty((count, heads, width), dtype=queries.dtype, device=queries.device)
    grid = (rows.row_count, triton.cdiv(rows.longest, QUERIES), heads)  # the first may be large
    _attend[grid](
        queries, keys, values, out, rows.starts, queries.stride(0), queries.stride(1), out.stride(0),
        width**-0.5 * _LOG2_E, WIDTH=width, QUERIES=QUERIES, KEYS=KEYS, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


def _fp8_like(states: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    scale = torch.empty((states.shape[0], 1), dtype=torch.float32, device=states.device)
    return torch.empty_like(states, dtype=FP8), scale


def _block(width: int) -> Dict[str, int]:
    """Columns of a program, a power of two, and its warps: the numbers that were measured fastest (H200)."""
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": min(4, max(1, block // 256))}


# Triton reads annotations as what a value is compiled for, so those that are no constants have none.


@triton.jit  # type: ignore[untyped-decorator]
def _store_fp8(values, fp8, scales, row, at, inside):  # type: ignore[no-untyped-def]
    """A row in FP8, and what it must be multiplied by."""
    scale = tl.maximum(tl.max(tl.abs(values), axis=0), 1e-12 * _LARGEST) / _LARGEST
    tl.store(scales + row, scale)
    tl.store(fp8 + at, (values * (1.0 / scale)).to(fp8.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _normalized(x, inside, weight, bias, columns, width, epsilon):  # type: ignore[no-untyped-def]
    mean = tl.sum(x, axis=0) / width
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / width
    x = centred * (1.0 / tl.sqrt(variance + epsilon))
    return x * tl.load(weight + columns, mask=inside, other=0.0) + tl.load(bias + columns, mask=inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _quantize(states, fp8, scales, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside, at = columns < width, tl.program_id(0).to(tl.int64) * width + columns
    values = tl.load(states + at, mask=inside, other=0.0).to(tl.float32)
    _store_fp8(values, fp8, scales, row, at, inside)


@triton.jit  # type: ignore[untyped-decorator]
def _add_and_activate(  # type: ignore[no-untyped-def]
    product, bias, out, fp8, scales, width, ACTIVATION: tl.constexpr, TO_FP8: tl.constexpr, BLOCK: tl.constexpr
):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside, at = columns < width, tl.program_id(0).to(tl.int64) * width + columns
    x = tl.load(product + at, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "gelu_tanh":
        # 0.5 (1 + tanh(y)) is the sigmoid of 2 y.
        x = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    elif ACTIVATION == "relu":
        x = tl.maximum(x, 0.0)
    else:
        x = x * tl.sigmoid(x)
    if TO_FP8:
        _store_fp8(x, fp8, scales, row, at, inside)
    else:
        tl.store(out + at, x.to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _add_and_normalize(  # type: ignore[no-untyped-def]
    product, bias, residual, weight, norm_bias, out, fp8, scales, width, epsilon,
    TO_FP8: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside, at = columns < width, tl.program_id(0).to(tl.int64) * width + columns
    x = tl.load(product + at, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    x = _normalized(x, inside, weight, norm_bias, columns, width, epsilon)
    tl.store(out + at, x.to(out.dtype.element_ty), mask=inside)
    if TO_FP8:
        # Of what the residual will be, as in plain torch.
        rounded = tl.where(inside, x.to(out.dtype.element_ty).to(tl.float32), 0.0)
        _store_fp8(rounded, fp8, scales, row, at, inside)


@triton.jit  # type: ignore[untyped-decorator]
def _embed(  # type: ignore[no-untyped-def]
    ids, positions, types, words, places, kinds, weight, bias, out, width, epsilon,
    TYPES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token, columns = tl.program_id(0), tl.arange(0, BLOCK)
    inside = columns < width
    word, place = tl.load(ids + token).to(tl.int64), tl.load(positions + token).to(tl.int64)
    x = tl.load(words + word * width + columns, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(places + place * width + columns, mask=inside, other=0.0).to(tl.float32)
    if TYPES:
        kind = tl.load(types + token).to(tl.int64)
        x += tl.load(kinds + kind * width + columns, mask=inside, other=0.0).to(tl.float32)
    x = _normalized(x, inside, weight, bias, columns, width, epsilon)
    tl.store(out + token.to(tl.int64) * width + columns, x.to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    queries, keys, values, out, starts, token_stride, head_stride, out_stride, scale,
    WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """QUERIES tokens of one row and one head, over all tokens of the row, KEYS at a time, with a running softmax.

    The maximum so far rescales the sums when a larger one comes (Milakov and Gimelshein, arXiv 1805.02867).
    """
    row, head = tl.program_id(0), tl.program_id(2)
    begin = tl.load(starts + row)
    length = tl.load(starts + row + 1) - begin
    first = tl.program_id(1) * QUERIES
    if first < length:
        column = tl.arange(0, WIDTH)
        asking = first + tl.arange(0, QUERIES)
        here = (begin + asking).to(tl.int64)
        at = head * head_stride + column
        q = tl.load(queries + here[:, None] * token_stride + at[None, :], mask=asking[:, None] < length, other=0.0)
        most = tl.full([QUERIES], -1.0e30, tl.float32)
        total = tl.zeros([QUERIES], tl.float32)
        found = tl.zeros([QUERIES, WIDTH], tl.float32)
        for step in range(0, length, KEYS):
            seen = step + tl.arange(0, KEYS)
            there = (begin + seen).to(tl.int64)
            inside = seen < length
            k = tl.load(keys + there[None, :] * token_stride + at[:, None], mask=inside[None, :], other=0.0)
            scores = tl.dot(q, k) * scale
            scores = tl.where(inside[None, :], scores, -1.0e30)
            highest = tl.maximum(most, tl.max(scores, axis=1))
            shrunk = tl.exp2(most - highest)
            weights = tl.exp2(scores - highest[:, None])
            total = total * shrunk + tl.sum(weights, axis=1)
            v = tl.load(values + there[:, None] * token_stride + at[None, :], mask=inside[:, None], other=0.0)
            found = found * shrunk[:, None] + tl.dot(weights.to(v.dtype), v)
            most = highest
        found = found / total[:, None]
        place = here[:, None] * out_stride + head * WIDTH + column[None, :]
        tl.store(out + place, found.to(out.dtype.element_ty), mask=asking[:, None] < length)
