"""The arithmetic of encoder.py, beside its attention: on a GPU by kernels.py, elsewhere by torch's own functions.

Sums, norms and activations are float32 whatever the weights are.
"""

from typing import Callable, Dict, NamedTuple, Optional, Tuple

import torch

from neuronbert.backends.cuda.weights import FP8, FP8_LARGEST, SCALE, Weights

functional = torch.nn.functional

ACTIVATIONS: Dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda x: x,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class Hidden(NamedTuple):
    """Hidden states [tokens, width]; for FP8 products also each row in FP8, and float32 [tokens, 1] to multiply by."""

    states: torch.Tensor
    fp8: Optional[torch.Tensor] = None
    scale: Optional[torch.Tensor] = None


def to_fp8(states: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Each row in FP8, with the largest of its numbers as FP8's largest, and what to multiply it by [rows, 1]."""
    scale = states.float().abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / FP8_LARGEST
    return (states.float() / scale).clamp(-FP8_LARGEST, FP8_LARGEST).to(FP8), scale


class Layers:
    """An encoder's operations with its weights, in plain torch: what ``kernels.GpuLayers`` must agree with."""

    def __init__(self, weights: Weights, activation: str, epsilon: float):
        self.weights = weights
        self.activation = activation
        self.epsilon = epsilon
        self.uses_fp8 = any(weight.dtype == FP8 for weight in weights.values())

    def product(self, x: Hidden, name: str, bias: bool) -> torch.Tensor:
        """``x`` times the matrix ``name``, transposed, plus its bias if ``bias``."""
        added = self.weights[name + ".bias"] if bias else None
        weight = self.weights[name + ".weight"]
        if weight.dtype != FP8:
            return functional.linear(x.states, weight, added)
        assert x.fp8 is not None and x.scale is not None
        scale = self.weights[f"{name}.weight{SCALE}"]
        return self.scaled_product(x.fp8, x.scale, weight, scale, added, x.states.dtype)

    def scaled_product(
        self,
        x: torch.Tensor,
        x_scale: torch.Tensor,
        weight: torch.Tensor,
        weight_scale: torch.Tensor,
        bias: Optional[torch.Tensor],
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """The product of FP8 matrices [tokens, inputs] and [outputs, inputs] in ``dtype``, summed in float32."""
        product = (x.float() @ weight.float().t()) * x_scale * weight_scale
        return (product if bias is None else product + bias.float()).to(dtype)

    def quantized(self, states: torch.Tensor) -> Hidden:
        """``states`` as the next product takes them."""
        return Hidden(states, *to_fp8(states)) if self.uses_fp8 else Hidden(states)

    def widened(self, x: Hidden, name: str) -> Hidden:
        """The activation of ``x`` times the matrix ``name`` plus its bias."""
        product = self.product(x, name, bias=False).float() + self.weights[name + ".bias"].float()
        return self.quantized(ACTIVATIONS[self.activation](product).to(x.states.dtype))

    def added_and_normalized(self, product: torch.Tensor, bias: str, residual: torch.Tensor, norm: str) -> Hidden:
        """LayerNorm of ``product`` + the bias named ``bias`` + ``residual``."""
        summed = product.float() + self.weights[bias].float() + residual.float()
        return self.quantized(self._normalized(summed, norm).to(residual.dtype))

    def embedded(self, ids: torch.Tensor, positions: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """LayerNorm of the summed embeddings of tokens, in the type of the weights."""
        words, kinds = self.weights["embeddings.word"], self.weights.get("embeddings.token_type")
        summed = words[ids].float() + self.weights["embeddings.position"][positions].float()
        summed = summed if kinds is None else summed + kinds[types].float()
        return self._normalized(summed, "embeddings.norm").to(words.dtype)

    def _normalized(self, states: torch.Tensor, norm: str) -> torch.Tensor:
        weight, bias = self.weights[norm + ".weight"], self.weights[norm + ".bias"]
        return functional.layer_norm(states, weight.shape, weight, bias, self.epsilon)
