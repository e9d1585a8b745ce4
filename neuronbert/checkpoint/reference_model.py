"""The FP32 model that every variant is made from: transformers' layers, checked weights, a mask safe in 16 bits.

It imports torch and transformers, so loading.py imports it on use.
"""

import importlib
import math
import sys
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np
import torch

from neuronbert.checkpoint.config import DAMAGED
from neuronbert.checkpoint.families import Config, Family, Head, TorchModel, label_count
from neuronbert.errors import BackendFailed
from neuronbert.hardware.libraries import optional_imports


@optional_imports()
def _import_transformers() -> Any:
    """transformers, whichever tokenizers release it asks for: its layers need none, and texts are tokenised elsewhere.

    4.6.0, which AWS's tutorials pin, refuses to be imported beside a newer tokenizers, but not where there is none.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        if "tokenizers" not in str(error):
            raise
    hidden = sys.modules.pop("tokenizers", None)
    sys.modules["tokenizers"] = None  # type: ignore[assignment]  # what find_spec takes for "not installed"
    try:
        return importlib.import_module("transformers")
    finally:
        del sys.modules["tokenizers"]
        if hidden is not None:
            sys.modules["tokenizers"] = hidden


transformers = _import_transformers()

# Added to the scores of tokens that must not be seen. transformers >= 4.20 adds finfo(float32).min, which becomes -Inf
# in a 16-bit float and then NaN; exp(-10000) is 0 just the same (github.com/aws-neuron/aws-neuron-sdk issues 456, 474).
MASKED_SCORE = -10000.0


class ReferenceModel(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """``forward(input_ids, attention_mask, token_type_ids=None)`` → the outputs of ``head``.

    Inputs are int64 of shape [rows, tokens], outputs float32 with [rows, …]. ``model`` is the transformers object;
    its embeddings, layers and head are called one after another, because the code between them (how a mask is
    expanded, what is returned) differs between releases, and torch.jit.trace and 16-bit engines stumble over it.
    """

    def __init__(self, model: torch.nn.Module, prefix: str, head: Head, uses_token_types: bool):
        super().__init__()
        self.model = model
        self._head = head
        self.uses_token_types = uses_token_types
        self._prefix = prefix.rstrip(".")

    @property
    def config(self) -> Any:  # transformers' config object
        return self.model.config

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: Optional[torch.Tensor] = None
    ) -> Tuple[torch.Tensor, ...]:
        hidden = self.embed(input_ids, token_type_ids)
        mask = additive_mask(attention_mask)
        for layer in self.layers():
            hidden = through_layer(layer, hidden, mask)
        return self._head.forward(self.model, hidden, attention_mask)

    def embed(self, input_ids: torch.Tensor, token_type_ids: Optional[torch.Tensor]) -> torch.Tensor:
        """Summed, normalised and projected embeddings, float32 [rows, tokens, hidden]: what stays on a host CPU."""
        base = getattr(self.model, self._prefix)
        if self.uses_token_types:
            hidden = base.embeddings(input_ids, token_type_ids=token_type_ids)
        else:
            hidden = base.embeddings(input_ids)
        return base.embeddings_project(hidden) if hasattr(base, "embeddings_project") else hidden

    def layers(self) -> torch.nn.ModuleList:
        """The transformer layers, in order."""
        base = getattr(self.model, self._prefix)
        return (base.encoder if hasattr(base, "encoder") else base.transformer).layer


def through_layer(layer: torch.nn.Module, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What comes out of a layer, which some releases put into a tuple."""
    out = layer(hidden, mask)
    return out[0] if isinstance(out, tuple) else out


def additive_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """[rows, tokens] of 1 (seen) and 0 (padding) → float32 [rows, 1, 1, tokens] of 0 and MASKED_SCORE."""
    return (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * MASKED_SCORE


def build_reference_model(
    family: Family, head: Head, config: Config, weights: Mapping[str, np.ndarray], uses_token_types: bool
) -> ReferenceModel:
    """The transformers model of ``config`` with ``weights`` (float32 by canonical name), on the CPU, in eval mode."""
    model = new_transformers_model(family, head, config)
    load_strictly(model, {name: torch.from_numpy(array) for name, array in weights.items()})
    reference = ReferenceModel(model.eval(), family.prefix, head, uses_token_types)
    reference.eval()
    return reference


def new_transformers_model(family: Family, head: Head, config: Config) -> TorchModel:
    """A float32 model with transformers' random weights; the state of the caller's random numbers does not change."""
    settings = {key: value for key, value in config.items() if key not in _NOT_OUR_SETTINGS}
    settings.update(num_labels=label_count(config, head), chunk_size_feed_forward=0)
    try:
        parsed = getattr(transformers, family.config_class).from_dict(settings)
        # Eager attention is the one form that every release has and every exporter and fusion knows.
        parsed._attn_implementation = "eager"
        with torch.random.fork_rng(devices=[]):
            model = getattr(transformers, family.architecture(head))(parsed)
            if head.modules is not None:
                model.pooler = None  # of BERT and RoBERTa: no part of what is served
                model = head.modules.build(model, family.prefix.rstrip("."), config)
            model = model.float()
    except Exception as error:  # each release has checks of its own, and trips over values that it does not check
        raise DAMAGED.of(
            f"transformers {transformers.__version__} makes no {family.architecture(head)} of config.json: {error!r}"
        ) from error
    if family.model_type == "distilbert":
        _add_masks_in_distilbert(model)
    return model


# Keys that would change what forward returns, the type of the weights, or how many labels there are.
_NOT_OUR_SETTINGS = {
    "architectures", "auto_map", "dtype", "torch_dtype", "id2label", "label2id", "num_labels", "torchscript",
    "return_dict", "use_return_dict", "output_attentions", "output_hidden_states", "quantization_config",
    "pruned_heads", "_attn_implementation", "attn_implementation", "_name_or_path", "gradient_checkpointing",
    "problem_type",
}  # fmt: skip


def load_strictly(model: torch.nn.Module, weights: Dict[str, torch.Tensor]) -> None:
    """Copy ``weights`` into ``model``; every parameter must be given, and nothing else.

    Buffers (position and token type numbers) are computed by transformers and are not weights.
    """
    parameters = dict(model.named_parameters())
    if set(parameters) != set(weights):
        differing = sorted(set(parameters) ^ set(weights))
        raise BackendFailed(
            f"transformers {transformers.__version__} names {type(model).__name__} weights differently: {differing[0]}",
            hint='python -m pip install "transformers>=4.30,<6" and report the version that failed',
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def _add_masks_in_distilbert(model: TorchModel) -> None:
    """Before transformers 5, DistilBERT's eager attention takes the 0/1 mask and fills in finfo.min by itself."""
    for layer in model.distilbert.transformer.layer:
        if type(layer.attention).__name__ == "MultiHeadSelfAttention":
            layer.attention = _AdditiveMaskAttention(layer.attention)


class _AdditiveMaskAttention(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """DistilBERT's attention with its own projections and an additive mask, called as transformers 4.x calls it."""

    def __init__(self, original: torch.nn.Module):
        super().__init__()
        self.n_heads, self.dim = original.n_heads, original.dim
        self.q_lin, self.k_lin = original.q_lin, original.k_lin
        self.v_lin, self.out_lin = original.v_lin, original.out_lin
        self.dropout = original.dropout  # for fine-tuning; nothing in eval mode

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, *_: Any, **__: Any
    ) -> Tuple[torch.Tensor]:
        rows, width = query.size(0), self.dim // self.n_heads

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.view(rows, -1, self.n_heads, width).transpose(1, 2)

        scores = torch.matmul(heads(self.q_lin(query)) / math.sqrt(width), heads(self.k_lin(key)).transpose(2, 3))
        weights = self.dropout(torch.nn.functional.softmax(scores + mask, dim=-1))
        context = torch.matmul(weights, heads(self.v_lin(value))).transpose(1, 2).contiguous()
        return (self.out_lin(context.view(rows, -1, self.dim)),)
