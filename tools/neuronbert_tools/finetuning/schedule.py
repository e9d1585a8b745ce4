"""The order of the rows and the learning rate of each step: pure, so that a resumed run repeats them."""

import math
from typing import List, Sequence

import numpy as np

from neuronbert_tools.finetuning.options import TrainingOptions

GROUP_BATCHES = 50  # batches whose rows are sorted by length together


def learning_rate_at(step: int, steps: int, options: TrainingOptions) -> float:
    """Linear warm-up from 0 over the first ``warmup`` share of ``steps``, then linear decay to 0 after the last."""
    rising = math.ceil(steps * options.warmup)
    if step < rising:
        return options.learning_rate * (step + 1) / rising
    return options.learning_rate * (steps - step) / (steps - rising)


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> List[np.ndarray]:
    """Indices of each batch of an epoch: every row once, in an order that seed and epoch alone decide.

    Rows of like length come together, so that little is padded; which ones meet, and when, is random.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    span = batch_size * GROUP_BATCHES
    batches: List[np.ndarray] = []
    for begin in range(0, len(order), span):
        group = order[begin : begin + span]
        group = group[np.argsort(np.asarray(lengths)[group], kind="stable")]
        batches.extend(group[at : at + batch_size] for at in range(0, len(group), batch_size))
    return [batches[number] for number in random.permutation(len(batches))]
