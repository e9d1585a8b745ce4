"""What a benchmark asks: inputs of a file, or the package's own, in an order in which every second is the same work."""

import math
from typing import List, Optional, Sequence, Union

import numpy as np

from neuronbert.artifact.manifest import PathLike
from neuronbert.benchmark.measure import ITEMS
from neuronbert.errors import InputError
from neuronbert.tasks.base import Input, Task

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def inputs_of(task: Task, path: Optional[PathLike]) -> List[Input]:
    """At most ITEMS inputs of a file, or of the package's own, short and long ones mixed."""
    inputs = task.read_inputs(path)
    if not inputs:
        raise InputError(f"{path} holds no {task.LINES.noun}", hint=f"one JSON object a line: {task.LINES.example}")
    return evenly_mixed(inputs[:: max(1, len(inputs) // ITEMS)][:ITEMS], task)


def evenly_mixed(inputs: List[Input], task: Task) -> List[Input]:
    """In an order that mixes short and long ones evenly, so that every second is the same amount of work.

    The multiples of the golden ratio, modulo 1, are spread more evenly than those of any other number.
    """
    ordered = sorted(inputs, key=lambda asked: sum(map(_characters, task.call_arguments(asked))))
    ranks = np.argsort(np.argsort(np.arange(len(ordered)) * GOLDEN_RATIO % 1))
    return [ordered[rank] for rank in ranks]


def _characters(texts: Union[str, Sequence[str]]) -> int:
    return len(texts) if isinstance(texts, str) else sum(map(len, texts))
