"""What a classifier decides by its logits: a label, several, or a score; for gate.py and evaluation.py. Pure."""

from typing import Tuple, Union

import numpy as np

from neuronbert.tasks.text_classification.problem import MULTI_LABEL, REGRESSION, Problem

Decision = Union[int, float, Tuple[int, ...]]  # as data.py has labels


def decide(logits: np.ndarray, problem: Problem) -> Decision:
    """The best label's number, the numbers of the labels more likely than not, or the score, by logits [labels]."""
    if problem.kind == REGRESSION:
        return float(logits[0])
    if problem.kind == MULTI_LABEL:
        return tuple(np.flatnonzero(logits > 0).tolist())
    return int(logits.argmax())


def score_of(decision: Union[Decision, None]) -> float:
    """The score that a regression decided on."""
    assert isinstance(decision, (int, float)), "regressions give and take scores alone"
    return float(decision)
