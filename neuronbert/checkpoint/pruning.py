"""Cuts attention heads and feed-forward columns out of a reference model, as removal.py says.

It imports torch, so its callers import it on use.
"""

import copy
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

import torch

from neuronbert.checkpoint.families import Family, LayerNames, Tensor, TorchModel, layer_names
from neuronbert.checkpoint.reference_model import ReferenceModel, additive_mask, through_layer
from neuronbert.checkpoint.removal import ATTENTION, FEED_FORWARD, Kept, Sizes

Row = Tuple[Tensor, ...]  # one row of text, unpadded, as the model's forward takes it: int64 [1, tokens] each


class Parts(NamedTuple):
    """The modules of a layer under the names that families.py has for them; a norm's input is the sum before it."""

    query: TorchModel
    key: TorchModel
    value: TorchModel
    attention_output: TorchModel
    attention_norm: TorchModel
    output_norm: TorchModel
    widen: TorchModel
    narrow: TorchModel

    @property
    def last_products(self) -> Dict[str, TorchModel]:
        """The product that ends each half."""
        return {ATTENTION: self.attention_output, FEED_FORWARD: self.narrow}

    @property
    def norms(self) -> Dict[str, TorchModel]:
        """What reads the sum of each half and what came into it."""
        return {ATTENTION: self.attention_norm, FEED_FORWARD: self.output_norm}


def parts_of(model: ReferenceModel, family: Family, layer: int) -> Parts:
    """The modules of the layer numbered ``layer``."""
    return Parts(*(model.model.get_submodule(name) for name in layer_names(family, layer)))


def sizes_of(model: ReferenceModel, family: Family, heads: int, rows: Sequence[Row]) -> Sizes:
    """The sizes of an uncut model with so many ``heads``, for ``rows`` of text."""
    columns, hidden = parts_of(model, family, 0).widen.weight.shape
    tokens = [row[0].shape[1] for row in rows]
    squares = sum(count**2 for count in tokens)
    return Sizes(len(model.layers()), hidden, heads, columns, sum(tokens) / len(tokens), squares / len(tokens))


def pruned(model: ReferenceModel, family: Family, sizes: Sizes, kept: Sequence[Kept]) -> ReferenceModel:
    """A copy of the uncut ``model`` with what is ``kept`` of each layer; what is left computes as before."""
    cut: ReferenceModel = copy.deepcopy(model)
    for number, layer in enumerate(kept):
        _cut_layer(cut, layer_names(family, number), layer, sizes.head_width)
    return cut


def _cut_layer(model: ReferenceModel, names: LayerNames, kept: Kept, width: int) -> None:
    heads = torch.tensor([head * width + number for head in kept.heads for number in range(width)])
    columns = torch.tensor(kept.columns)
    for name in (names.query, names.key, names.value):
        _replace(model, name, 0, heads)
    _replace(model, names.attention_output, 1, heads)
    _replace(model, names.widen, 0, columns)
    _replace(model, names.narrow, 1, columns)
    # Releases differ in what their forward asks for; what a module does not have, it does not need.
    counts = {"num_attention_heads": len(kept.heads), "n_heads": len(kept.heads)}
    counts.update(dict.fromkeys(("all_head_size", "dim"), len(kept.heads) * width))
    attention = model.model.get_submodule(names.query.rpartition(".")[0])
    for attribute, count in counts.items():
        if hasattr(attention, attribute):
            setattr(attention, attribute, count)


def _replace(model: ReferenceModel, name: str, axis: int, indices: Tensor) -> None:
    """Let the product called ``name`` have these of its outputs (``axis`` 0) or inputs (1) alone."""
    whole = model.model.get_submodule(name)
    weight = whole.weight.detach().index_select(axis, indices)
    bias = whole.bias.detach()
    # Without random numbers: those of the caller are not ours to use up.
    with torch.random.fork_rng(devices=[]):
        part = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        part.weight.copy_(weight)
        part.bias.copy_(bias.index_select(0, indices) if axis == 0 else bias)
    parent, _, leaf = name.rpartition(".")
    setattr(model.model.get_submodule(parent), leaf, part)


class Seen:
    """What comes into some modules, or with ``outputs`` out of them, while it is a context: of each the last."""

    def __init__(self, modules: Mapping[Any, TorchModel], outputs: bool = False):
        self._modules = modules
        self._outputs = outputs
        self._hooks: List[Any] = []
        self.whole: Dict[Any, Tensor] = {}  # [rows, tokens, width], with what autograd knows of it

    def __getitem__(self, name: Any) -> Tensor:
        """[tokens, width], to compute with."""
        return self.whole[name].detach().flatten(0, 1)

    def __enter__(self) -> "Seen":
        for name, module in self._modules.items():

            def keep(_: TorchModel, inputs: Tuple[Tensor, ...], output: Tensor, name: Any = name) -> None:
                self.whole[name] = output if self._outputs else inputs[0]

            self._hooks.append(module.register_forward_hook(keep))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


class Walk:
    """Rows on their way through a model, a layer at a time, so that one layer's activations are held and no more."""

    def __init__(self, model: ReferenceModel, rows: Sequence[Row]):
        self._model = model
        self._through: List[Tensor] = []
        with torch.no_grad():
            self._masks = [additive_mask(row[1]) for row in rows]
            self._hidden = [model.embed(row[0], row[2] if len(row) > 2 else None) for row in rows]

    def read(self, layer: int) -> Iterator[int]:
        """Send each row through the layer; its number, once it is through. The next reading begins where this did."""
        module = self._model.layers()[layer]
        self._through = []
        for number, (hidden, mask) in enumerate(zip(self._hidden, self._masks)):
            with torch.no_grad():
                self._through.append(through_layer(module, hidden, mask))
            yield number

    def advance(self) -> None:
        """Let the next reading begin with what came through in the last one."""
        self._hidden = self._through
