"""Measures on text what the heads and columns of a model contribute to its outputs; removal.py orders them by it.

It imports torch, so its callers import it on use.
"""

from typing import Callable, Dict, List, Sequence

import numpy as np
import torch

from neuronbert.checkpoint.families import Family, Tensor, TorchModel
from neuronbert.checkpoint.pruning import Row, Seen, Walk, parts_of
from neuronbert.checkpoint.reference_model import ReferenceModel
from neuronbert.checkpoint.removal import (
    ATTENTION,
    FEED_FORWARD,
    HALVES,
    Product,
    Removal,
    Sizes,
    Step,
    column_steps,
    head_steps,
    order,
)
from neuronbert.errors import BackendFailed

Done = Callable[[str, int, int], None]  # what is done, how much of it, of how much
SEED = 0  # the same text gives the same order


def removals(
    model: ReferenceModel,
    family: Family,
    sizes: Sizes,
    rows: Sequence[Row],
    on_step: Done = lambda what, done, total: None,
) -> List[Removal]:
    """Everything that can leave the uncut ``model``, in order, by what it does on ``rows``."""
    gradients = output_gradients(model, family, sizes.layers, rows, on_step)
    walk = Walk(model, rows)
    steps: List[Dict[str, List[Step]]] = []
    for layer in range(sizes.layers):
        on_step("layers weighed", layer, sizes.layers)
        products = parts_of(model, family, layer).last_products
        covariances = input_covariances(walk, layer, products)
        measured = {half: _product(products[half], covariances[half], gradients[layer][half]) for half in products}
        heads, columns = head_steps(measured[ATTENTION], sizes.heads), column_steps(measured[FEED_FORWARD])
        steps.append({ATTENTION: heads, FEED_FORWARD: columns})
        walk.advance()
    on_step("layers weighed", sizes.layers, sizes.layers)
    return order(steps, sizes)


def _product(module: TorchModel, covariance: np.ndarray, gradients: np.ndarray) -> Product:
    if not (np.isfinite(covariance).all() and np.isfinite(gradients).all()):
        raise BackendFailed(
            "what moves the model's outputs is not finite on the calibration text", hint="other weights"
        )
    return Product(module.weight.detach().double().numpy(), covariance, gradients)


class Moments:
    """Sums over the tokens of all rows, in float64."""

    def __init__(self, width: int):
        self._tokens = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._squares = torch.zeros(width, width, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Count in values [tokens, width]."""
        values = values.double()
        self._tokens += len(values)
        self._sum += values.sum(dim=0)
        self._squares += values.T @ values

    def second(self) -> np.ndarray:
        """The mean of the values' outer products."""
        second: np.ndarray = (self._squares / self._tokens).numpy()
        return second

    def covariance(self) -> np.ndarray:
        """The same of their distances from the mean."""
        mean = (self._sum / self._tokens).numpy()
        return self.second() - np.outer(mean, mean)


def input_covariances(walk: Walk, layer: int, products: Dict[str, TorchModel]) -> Dict[str, np.ndarray]:
    """Of the inputs of a layer's products. Not of their means: what those add, a bias can."""
    moments = {half: Moments(product.in_features) for half, product in products.items()}
    with Seen(products) as seen:
        for _ in walk.read(layer):
            for half in products:
                moments[half].add(seen[half])
    return {half: each.covariance() for half, each in moments.items()}


def mixed(outputs: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """The outputs times random numbers, summed: what it moves by, squared, is on average what they all move by.

    It is the same for all tasks. The surprise at the model's own answers (Fisher's information), which is not, orders
    the demo's heads and columns no better.
    """
    products = [(output * torch.randn(output.shape, generator=generator)).sum() for output in outputs]
    return torch.stack(products).sum()


def output_gradients(
    model: ReferenceModel, family: Family, layers: int, rows: Sequence[Row], on_step: Done
) -> List[Dict[str, np.ndarray]]:
    """The second moment of the gradients of the model's outputs behind each layer's products, a token at a time."""
    products = {
        (layer, half): product
        for layer in range(layers)
        for half, product in parts_of(model, family, layer).last_products.items()
    }
    moments = {place: Moments(product.out_features) for place, product in products.items()}
    generator = torch.Generator().manual_seed(SEED)
    with torch.enable_grad(), Seen(products, outputs=True) as seen:
        for number, row in enumerate(rows, 1):
            value = mixed(model(*row), generator)
            gradients = torch.autograd.grad(value, list(seen.whole.values()))
            for place, gradient in zip(seen.whole, gradients):
                moments[place].add(gradient.flatten(0, 1))
            on_step("texts weighed", number, len(rows))
    return [{half: moments[layer, half].second() for half in HALVES} for layer in range(layers)]
