"""What modules.py describes, in torch: pooling, dense layers and length 1 behind an encoder, all of it in the graph.

It imports torch, so task.py imports it on use. Only sums, products and maxima: every exporter and neuron-cc know them.
"""

from typing import Callable, Dict, List, Tuple

import torch

from neuronbert.checkpoint.families import Config, TorchModel
from neuronbert.tasks.feature_extraction.modules import Dense, SentenceModules, modules_of

# What a masked token counts in a maximum: below every embedding, and no infinity in a 16-bit float.
_MASKED = -10000.0
_LEAST = 1e-9  # of a divisor, as in sentence-transformers
_LEAST_LENGTH = 1e-12  # as in torch.nn.functional.normalize

_ACTIVATIONS: Dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
}


class DenseLayer(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """A linear layer with an activation, its weights named as sentence-transformers names them."""

    def __init__(self, layer: Dense):
        super().__init__()
        self.linear = torch.nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)
        self._activation = _ACTIVATIONS[layer.activation]
        self._adds_input = layer.residual
        if layer.residual and layer.inputs != layer.outputs:
            self.residual = torch.nn.Linear(layer.inputs, layer.outputs, bias=False)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        output = self._activation(self.linear(pooled))
        if not self._adds_input:
            return output
        return output + (self.residual(pooled) if hasattr(self, "residual") else pooled)


class SentenceModel(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """transformers' bare encoder under its family's name, and beside it the dense layers under theirs."""

    def __init__(self, encoder: TorchModel, name: str, modules: SentenceModules):
        super().__init__()
        self.add_module(name, encoder)
        self.config = encoder.config
        self.modules_of_sentence = modules
        for layer in modules.dense:
            self.add_module(layer.name, DenseLayer(layer))


def build(encoder: TorchModel, name: str, config: Config) -> SentenceModel:
    """The model of an encoder, which the family calls ``name``, with the layers that config.json describes."""
    return SentenceModel(encoder, name, modules_of(config))


def outputs_of(model: SentenceModel, hidden: torch.Tensor, attention_mask: torch.Tensor) -> Tuple[torch.Tensor, ...]:
    """The embedding of each row [rows, width], or of each token [rows, tokens, hidden], or both, as task.py says."""
    modules = model.modules_of_sentence
    if not modules.pooling:
        return (hidden.contiguous(),)
    embedding = torch.cat(_pooled(modules, hidden, attention_mask.to(hidden.dtype).unsqueeze(-1)), dim=-1)
    for layer in modules.layers:
        embedding = getattr(model, layer.name)(embedding) if isinstance(layer, Dense) else _normalized(embedding)
    embedding = embedding.contiguous()
    return (embedding, hidden.contiguous()) if modules.pools_on_host else (embedding,)


def _pooled(modules: SentenceModules, hidden: torch.Tensor, mask: torch.Tensor) -> List[torch.Tensor]:
    """Each pooling's embedding [rows, hidden], of hidden states [rows, tokens, hidden] and a mask [rows, tokens, 1]."""
    return [_POOLINGS[mode](hidden, mask) for mode in modules.pooling]


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask).sum(1) / mask.sum(1).clamp(min=_LEAST)


def _mean_sqrt_len(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask).sum(1) / mask.sum(1).clamp(min=_LEAST).sqrt()


def _weighted_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Weighted by the tokens' places, from 1; rows are padded on the right."""
    places = torch.arange(1, hidden.shape[1] + 1, dtype=hidden.dtype, device=hidden.device)
    return _mean(hidden, mask * places.reshape(1, -1, 1))


def _last_token(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The token that no other follows: 1 in the mask, and 0 (or the end of the row) behind it."""
    following = torch.cat((mask[:, 1:], torch.zeros_like(mask[:, :1])), dim=1)
    return (hidden * (mask * (1.0 - following))).sum(1)


_POOLINGS: Dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": lambda hidden, mask: hidden[:, 0],
    "max": lambda hidden, mask: (hidden + (1.0 - mask) * _MASKED).max(1)[0],
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": _last_token,
}


def _normalized(embedding: torch.Tensor) -> torch.Tensor:
    return embedding / (embedding * embedding).sum(-1, keepdim=True).sqrt().clamp(min=_LEAST_LENGTH)
