"""Lets what pruning.py left of a model make up for what it cut, by least squares on text; nothing is trained.

It imports torch, so its callers import it on use.
"""

from typing import Callable, Sequence

import torch

from neuronbert.checkpoint.families import Family, Tensor, TorchModel
from neuronbert.checkpoint.pruning import Row, Seen, Walk, parts_of
from neuronbert.checkpoint.reference_model import ReferenceModel

# Of the inputs' mean square: how much staying near the weights that were there is worth.
RIDGE = 1e-3


def reconstruct(
    cut: ReferenceModel,
    whole: ReferenceModel,
    family: Family,
    rows: Sequence[Row],
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> None:
    """Change ``cut``, what is left of ``whole``, so that each layer comes as near to the whole one's as it can.

    One product after the other, from the first layer on: that of the attention's output, then that of the feed-forward
    part. Each aims at the sum that its norm reads in ``whole``, so it also makes up for what was lost before it.
    """
    ours, theirs = Walk(cut, rows), Walk(whole, rows)
    layers = len(cut.layers())
    for layer in range(layers):
        on_step("layers reconstructed", layer, layers)
        parts, targets = parts_of(cut, family, layer), parts_of(whole, family, layer)
        for half, product in parts.last_products.items():
            watched = {"inputs": product, "sum": parts.norms[half], "target": targets.norms[half]}
            with Seen(watched) as seen:
                fit = LeastSquares(product)
                for _ in zip(ours.read(layer), theirs.read(layer)):
                    fit.add(seen["inputs"], seen["target"] - seen["sum"])
            fit.solve()
        if layer + 1 < layers:
            for _ in ours.read(layer):  # as it is now
                pass
            ours.advance()
            theirs.advance()
    on_step("layers reconstructed", layers, layers)


class LeastSquares:
    """The weights and the bias of ``product`` that fit what it is shown, with sums in float64."""

    def __init__(self, product: TorchModel):
        self._product = product
        size = product.in_features + 1  # the bias is the weight of an input that is 1
        self._squares = torch.zeros(size, size, dtype=torch.float64)
        self._gaps = torch.zeros(size, product.out_features, dtype=torch.float64)

    def add(self, inputs: Tensor, missing: Tensor) -> None:
        """Count in inputs [tokens, inputs], and by how much more should come of them, [tokens, outputs]."""
        inputs = torch.nn.functional.pad(inputs.double(), (0, 1), value=1.0)
        self._squares += inputs.T @ inputs
        self._gaps += inputs.T @ missing.double()

    def solve(self) -> None:
        """Change the product."""
        ridge = RIDGE * float(self._squares.diagonal().mean()) or 1.0
        damped = self._squares + ridge * torch.eye(len(self._squares), dtype=torch.float64)
        change = torch.linalg.solve(damped, self._gaps).float()
        with torch.no_grad():
            self._product.weight += change[:-1].T
            self._product.bias += change[-1]
