"""Two models as one session, for loading.py: a small one reads all rows, a large one those of which it is not sure."""

from typing import NamedTuple, Sequence

import numpy as np

from neuronbert.backends.base import Batch, Session, Variant
from neuronbert.backends.outputs import PER_TOKEN, Output, Outputs, refuse_misshapen


class Stage(NamedTuple):
    """One of the two models, as a session of its own."""

    variant: Variant
    session: Session


class CascadeSession:
    """``small`` and ``large`` as one: the second is asked where the first is less sure of a row than ``threshold``."""

    def __init__(self, small: Stage, large: Stage, threshold: float, outputs: Sequence[Output]):
        self.small, self.large = small, large
        self.precision = large.session.precision
        self.concurrency = min(small.session.concurrency, large.session.concurrency)
        self._threshold = threshold
        self._outputs = tuple(outputs)

    def run(self, batch: Batch) -> Outputs:
        """The outputs of the small model, with those of the large one where the small one is in doubt."""
        outputs = self._run(self.small.session, batch)
        doubtful = ~(sureness(outputs, self._outputs, batch.attention_mask) >= self._threshold)  # NaN is in doubt
        if not doubtful.any():
            return outputs
        rest = shortened(batch, doubtful)
        others = self._run(self.large.session, rest)
        return replaced(outputs, doubtful, others, self._outputs, rest.input_ids.shape[1])

    def _run(self, session: Session, batch: Batch) -> Outputs:
        return refuse_misshapen(session.run(batch), self._outputs, *batch.input_ids.shape)

    def close(self) -> None:
        """Release both models."""
        self.small.session.close()
        self.large.session.close()


def has_sureness(outputs: Sequence[Output]) -> bool:
    """Whether ``sureness`` is defined for such outputs: each is one number for each token."""
    return all(output.per == PER_TOKEN and output.entry == () for output in outputs)


def sureness(outputs: Outputs, specs: Sequence[Output], mask: np.ndarray) -> np.ndarray:
    """How sure a model is of each row: float64 of shape [rows], from 0 to 1; NaN where its outputs are no numbers.

    The product of the largest probabilities that its outputs give to a token of the row; of a question answered, that
    of the surest start and the surest end. ``mask``: [rows, tokens] of 1 and 0.
    """
    real = mask.astype(bool)
    sure = np.ones(len(mask))
    with np.errstate(invalid="ignore"):
        for spec in specs:
            # In double precision: how the sum of a row is rounded must not depend on its padding.
            logits = np.where(real, outputs[spec.name][:, : mask.shape[1]], -np.inf).astype(np.float64)
            sure /= np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    return sure


def row_sureness(outputs: Outputs, specs: Sequence[Output]) -> float:
    """``sureness`` of one row, whose outputs have no padding: float32 of shape [tokens] each."""
    mask = np.ones((1, len(outputs[specs[0].name])))
    return float(sureness({name: array[None] for name, array in outputs.items()}, specs, mask)[0])


def shortened(batch: Batch, chosen: np.ndarray) -> Batch:
    """The chosen rows of a batch, as wide as the longest of them."""
    tokens = int(np.flatnonzero(batch.attention_mask[chosen].any(axis=0)).max(initial=0)) + 1
    return Batch(*(array[chosen, :tokens] for array in batch))


def replaced(outputs: Outputs, chosen: np.ndarray, others: Outputs, specs: Sequence[Output], tokens: int) -> Outputs:
    """``outputs`` with those of the chosen rows from ``others``, of which the first ``tokens`` count."""
    mixed: Outputs = {}
    for spec in specs:
        mixed[spec.name] = np.array(outputs[spec.name], dtype=np.float32)
        mixed[spec.name][chosen, :tokens] = others[spec.name][:, :tokens]
    return mixed
