"""The encoder of the four families on packed tokens, and its head behind it. It imports torch; session.py runs it."""

from typing import NamedTuple, Tuple

import torch

from neuronbert.backends.cuda.attention import Attention, Rows, padded_attention
from neuronbert.backends.cuda.graph import Graph
from neuronbert.backends.cuda.head import apply_head
from neuronbert.backends.cuda.layers import Hidden, Layers


class Inputs(NamedTuple):
    """packing.Packed as tensors: int32 [tokens] each, and where the rows are."""

    ids: torch.Tensor
    positions: torch.Tensor
    types: torch.Tensor
    rows: Rows


class Encoder:
    """A graph with its weights: ``__call__`` gives the head's outputs of packed tokens.

    The same operations in the same order as transformers' layers, which are checked against it, each over the packed
    tokens: queries, keys and values in one product, biases and sums with what follows them.
    """

    def __init__(self, graph: Graph, layers: Layers, attention: Attention):
        self.graph = graph
        self._layers = layers
        self._weights = layers.weights
        self._attention = attention
        self.pads = attention is padded_attention

    def __call__(self, inputs: Inputs) -> Tuple[torch.Tensor, ...]:
        """float32 [tokens, …] or [rows, …] for each output, in order."""
        hidden = self._layers.quantized(self._embedded(inputs))
        for number in range(self.graph.layers):
            hidden = self._layer(f"layers.{number}.", hidden, inputs.rows)
        return apply_head(self.graph.head, self._weights, hidden.states, inputs.rows)

    def _embedded(self, inputs: Inputs) -> torch.Tensor:
        states = self._layers.embedded(inputs.ids, inputs.positions, inputs.types)
        return self._layers.product(Hidden(states), "embeddings.project", True) if self.graph.projects else states

    def _layer(self, layer: str, x: Hidden, rows: Rows) -> Hidden:
        run, graph = self._layers, self.graph
        qkv = run.product(x, layer + "qkv", bias=True).view(-1, 3, graph.heads, graph.head_width)
        seen = self._attention(qkv[:, 0], qkv[:, 1], qkv[:, 2], rows).reshape(-1, graph.hidden)
        out = run.product(run.quantized(seen), layer + "attention_output", bias=False)
        x = run.added_and_normalized(out, layer + "attention_output.bias", x.states, layer + "attention_norm")
        out = run.product(run.widened(x, layer + "widen"), layer + "narrow", bias=False)
        return run.added_and_normalized(out, layer + "narrow.bias", x.states, layer + "output_norm")
