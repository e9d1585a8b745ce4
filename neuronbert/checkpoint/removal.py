"""In which order attention heads and feed-forward columns go, and how many for a share of the work. Pure arithmetic.

importance.py measures what this goes by; pruning.py cuts the model.

What leaves is an input of one of the two products that end a layer's halves: of the attention's output several for a
head, and of the feed-forward part's one for a column. The rest of the product makes up for it as well as least squares
can, so what counts is what is left then. By how much that moves the model's outputs, squared, is about
tr(W_S' G W_S ((H^-1)_SS)^-1) for the inputs S of a product with weights W, where H is the covariance of its inputs and
G the second moment of the outputs' gradients behind it; W and H^-1 are those with everything before S left out already
("Optimal Brain Surgeon", Hassibi and Stork 1993, for groups of weights). G makes layers comparable.
"""

from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

# Engines' kernels take so many columns at a time: any other number is rounded up by them.
COLUMN_MULTIPLE = 32
# Of the covariance's mean variance, added to each: text that was not measured varies where this did not.
DAMPING = 0.01

ATTENTION, FEED_FORWARD = "attention", "feed-forward"
HALVES = (ATTENTION, FEED_FORWARD)


class Kept(NamedTuple):
    """What is left of a layer: numbers of heads and of feed-forward columns, rising."""

    heads: Tuple[int, ...]
    columns: Tuple[int, ...]


class Sizes(NamedTuple):
    """Of an encoder, and of the rows that are counted on."""

    layers: int
    hidden: int
    heads: int
    columns: int
    tokens: float  # of a row, the mean
    attended: float  # of a row, the mean of the squared number of tokens

    @property
    def head_width(self) -> int:
        return self.hidden // self.heads

    @property
    def all_kept(self) -> List[Kept]:
        """Of every layer everything."""
        return [Kept(tuple(range(self.heads)), tuple(range(self.columns)))] * self.layers

    def multiply_adds(self, heads: int, columns: int) -> float:
        """Of a row, in one layer with so many heads and columns: products with weights, scores and weighted values."""
        head = 4 * self.tokens * self.hidden * self.head_width + 2 * self.attended * self.head_width
        return heads * head + columns * 2 * self.tokens * self.hidden

    def share_removed(self, kept: Sequence[Kept]) -> float:
        """The share of the encoder's multiply-adds that is gone, 0 to 1."""
        left = sum(self.multiply_adds(len(layer.heads), len(layer.columns)) for layer in kept)
        return 1 - left / (self.layers * self.multiply_adds(self.heads, self.columns))


class Product(NamedTuple):
    """A product that ends a layer's half, and what was measured there, as float64."""

    weights: np.ndarray  # [outputs, inputs]
    covariance: np.ndarray  # [inputs, inputs]: of its inputs
    gradients: np.ndarray  # [outputs, outputs]: the second moment of what the model's outputs change by with its own


class Step(NamedTuple):
    """What leaves a half of a layer next, and what that costs."""

    units: Tuple[int, ...]  # numbers of heads or columns
    cost: float


class Removal(NamedTuple):
    """A Step, and where it is."""

    layer: int
    half: str
    units: Tuple[int, ...]


def head_steps(product: Product, heads: int) -> List[Step]:
    """The heads of a layer in the order in which they leave; one stays."""
    width = product.weights.shape[1] // heads
    rest = _Rest(product)
    steps = []
    left = list(range(heads))
    while len(left) > 1:
        places = [np.arange(number * width, (number + 1) * width) for number in range(len(left))]
        costs = [rest.cost(each) for each in places]
        cheapest = int(np.argmin(costs))
        rest.remove(places[cheapest])
        steps.append(Step((left.pop(cheapest),), costs[cheapest]))
    return steps


def column_steps(product: Product, multiple: int = COLUMN_MULTIPLE) -> List[Step]:
    """The columns of a layer in the order in which they leave, so that a ``multiple`` is left each time; one stays."""
    rest = _Rest(product)
    steps = []
    left = np.arange(product.weights.shape[1])
    while len(left) > multiple:
        count = len(left) % multiple or multiple
        places = np.sort(np.argsort(rest.costs_alone(), kind="stable")[:count])
        cost = rest.cost(places)
        rest.remove(places)
        steps.append(Step(tuple(left[places].tolist()), cost))
        left = np.delete(left, places)
    return steps


class _Rest:
    """What is left of a product while inputs leave it: its weights, adapted, and the inverse of H."""

    def __init__(self, product: Product):
        covariance, self._weights = product.covariance, product.weights
        variance = float(np.trace(covariance)) / len(covariance)
        damped = covariance + (DAMPING * variance or 1.0) * np.eye(len(covariance))
        self._inverse = np.linalg.inv(damped)
        self._weighed = product.gradients @ product.weights  # G W

    def costs_alone(self) -> np.ndarray:
        """The cost of each input, were it the only one that leaves."""
        costs: np.ndarray = np.einsum("oi,oi->i", self._weights, self._weighed) / np.diag(self._inverse)
        return costs

    def cost(self, places: np.ndarray) -> float:
        """The cost of the inputs at these places together."""
        inner = self._weights[:, places].T @ self._weighed[:, places]
        return max(0.0, float(np.trace(np.linalg.solve(self._inverse[np.ix_(places, places)], inner))))

    def remove(self, places: np.ndarray) -> None:
        """Leave out the inputs at these places; those behind them move up."""
        stays = np.delete(np.arange(self._inverse.shape[0]), places)
        made_up = np.linalg.solve(self._inverse[np.ix_(places, places)], self._inverse[np.ix_(places, stays)])
        across = self._inverse[np.ix_(stays, places)]
        self._weights = self._weights[:, stays] - self._weights[:, places] @ made_up
        self._weighed = self._weighed[:, stays] - self._weighed[:, places] @ made_up
        self._inverse = self._inverse[np.ix_(stays, stays)] - across @ made_up


def order(steps: Sequence[Dict[str, List[Step]]], sizes: Sizes) -> List[Removal]:
    """All removals, the cheapest for the work that it saves first; ``steps``: of each layer, by half.

    What leaves a half later is never before what leaves it earlier: a step counts as dear as any before it there.
    """
    work = {ATTENTION: sizes.multiply_adds(1, 0), FEED_FORWARD: sizes.multiply_adds(0, 1)}
    priced = []
    for layer, halves in enumerate(steps):
        for half in HALVES:
            dearest = 0.0
            for number, step in enumerate(halves[half]):
                dearest = max(dearest, step.cost / (work[half] * len(step.units)))
                priced.append(((dearest, layer, half, number), Removal(layer, half, step.units)))
    return [removal for _, removal in sorted(priced, key=lambda pair: pair[0])]


def kept_after(removals: Sequence[Removal], sizes: Sizes, share: float) -> List[Kept]:
    """What is left of each layer after the first removals, as many as take ``share`` of the multiply-adds away.

    All removals where even they take less.
    """
    gone: Dict[Tuple[int, str], List[int]] = {(layer, half): [] for layer in range(sizes.layers) for half in HALVES}
    goal = share * sizes.layers * sizes.multiply_adds(sizes.heads, sizes.columns)
    removed = 0.0
    for removal in removals:
        if removed >= goal * (1 - 1e-9):  # sums of floats
            break
        count = len(removal.units)
        gone[removal.layer, removal.half] += removal.units
        removed += sizes.multiply_adds(*((count, 0) if removal.half == ATTENTION else (0, count)))
    return [
        Kept(_without(sizes.heads, gone[layer, ATTENTION]), _without(sizes.columns, gone[layer, FEED_FORWARD]))
        for layer in range(sizes.layers)
    ]


def columns_kept(removals: Sequence[Removal], sizes: Sizes, count: int) -> List[Kept]:
    """All heads of each layer, and of its columns the ``count`` that would go last, a multiple of COLUMN_MULTIPLE."""
    leaving: List[List[int]] = [[] for _ in range(sizes.layers)]
    for removal in removals:
        if removal.half == FEED_FORWARD:
            leaving[removal.layer] += removal.units
    return [Kept(tuple(range(sizes.heads)), _without(sizes.columns, gone[: sizes.columns - count])) for gone in leaving]


def _without(count: int, gone: Sequence[int]) -> Tuple[int, ...]:
    return tuple(sorted(set(range(count)).difference(gone)))
