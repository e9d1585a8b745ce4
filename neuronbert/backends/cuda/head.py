"""A head's steps (checkpoint/head_steps.py) on packed hidden states, in float32. It imports torch."""

from typing import Callable, Dict, Tuple

import torch

from neuronbert.backends.cuda.attention import Rows
from neuronbert.backends.cuda.layers import ACTIVATIONS
from neuronbert.backends.cuda.weights import Weights
from neuronbert.checkpoint.head_steps import INPUT, Column, Linear, Pool, Step, Steps

_LEAST_LENGTH = 1e-12  # as in torch.nn.functional.normalize


def apply_head(
    outputs: Tuple[Steps, ...], weights: Weights, hidden: torch.Tensor, rows: Rows
) -> Tuple[torch.Tensor, ...]:
    """Each output, float32: [tokens, …] of packed tokens, or [rows, …] behind a pooling.

    ``hidden``: [tokens, hidden] of any type.
    """
    known: Dict[Steps, torch.Tensor] = {(): hidden}  # what outputs have in common is computed once

    def states_after(steps: Steps) -> torch.Tensor:
        if steps not in known:
            before, step = states_after(steps[:-1]), steps[-1]
            known[steps] = (
                pooled(before, step, rows) if isinstance(step, Pool) else _step(step, weights, before.float())
            )
        return known[steps]

    return tuple(states_after(steps).float() for steps in outputs)


def _step(step: Step, weights: Weights, states: torch.Tensor) -> torch.Tensor:
    if isinstance(step, Linear):
        return _linear(step, weights, states)
    if isinstance(step, Column):
        return states[:, step.number]
    return states / states.norm(dim=-1, keepdim=True).clamp(min=_LEAST_LENGTH)


def _linear(step: Linear, weights: Weights, states: torch.Tensor) -> torch.Tensor:
    def times(name: str, bias: str = "") -> torch.Tensor:
        return torch.nn.functional.linear(states, weights["head." + name], weights["head." + bias] if bias else None)

    found = ACTIVATIONS[step.activation](times(step.weight, step.bias or ""))
    if step.skip is None:
        return found
    return found + (states if step.skip == INPUT else times(step.skip))


def pooled(hidden: torch.Tensor, step: Pool, rows: Rows) -> torch.Tensor:
    """float32 [rows, width · poolings] of [tokens, width]; of a row without tokens, some numbers."""
    return torch.cat([_POOLINGS[mode](hidden, rows) for mode in step.poolings], dim=-1)


def _at(hidden: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return hidden.index_select(0, places.clamp(0, hidden.shape[0] - 1)).float()


def _reduced(hidden: torch.Tensor, rows: Rows, reduction: str) -> torch.Tensor:
    # unsafe: the check of the offsets waits for the GPU; they are ours.
    return torch.segment_reduce(hidden.float(), reduction, offsets=rows.starts.long(), axis=0, unsafe=True, initial=0)


def _lengths(rows: Rows) -> torch.Tensor:
    return (rows.starts[1:] - rows.starts[:-1]).clamp(min=1)[:, None].float()


def _weighted_mean(hidden: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Weighted by the tokens' places, from 1: these sum up to n (n + 1) / 2."""
    weighted = hidden.float() * (rows.places[:, None].float() + 1)
    return _reduced(weighted, rows, "sum") / (_lengths(rows) * (_lengths(rows) + 1) / 2)


_POOLINGS: Dict[str, Callable[[torch.Tensor, Rows], torch.Tensor]] = {
    "cls": lambda hidden, rows: _at(hidden, rows.starts[:-1]),
    "lasttoken": lambda hidden, rows: _at(hidden, rows.starts[1:] - 1),
    "max": lambda hidden, rows: _maximum(hidden, rows),
    "mean": lambda hidden, rows: _reduced(hidden, rows, "sum") / _lengths(rows),
    "mean_sqrt_len": lambda hidden, rows: _reduced(hidden, rows, "sum") / _lengths(rows).sqrt(),
    "weightedmean": _weighted_mean,
}


def _maximum(hidden: torch.Tensor, rows: Rows) -> torch.Tensor:
    found = torch.segment_reduce(hidden.float(), "max", offsets=rows.starts.long(), axis=0, unsafe=True)
    return found.masked_fill((rows.starts[1:] == rows.starts[:-1])[:, None], 0)  # of nothing it is -Inf
