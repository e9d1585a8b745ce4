"""What a model returns, arrays by name with an entry per token or per row: cut, joined and compared. Pure."""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert.errors import BackendFailed

PER_TOKEN, PER_ROW = "token", "row"

# Of a model float32: [rows, tokens, …] or [rows, …] of a batch; without [rows] of one row.
Outputs = Dict[str, np.ndarray]


class Output(NamedTuple):
    """One array that a model returns, or that is made of what it returns."""

    name: str
    per: str  # PER_TOKEN or PER_ROW
    entry: Optional[Tuple[int, ...]] = None  # shape of what there is of a token or a row; None: up to the model

    def fits(self, shape: Sequence[int], rows: int, tokens: int) -> bool:
        """Whether an array of this shape is it, for a batch of so many rows and tokens; more tokens do no harm."""
        axes = 2 if self.per == PER_TOKEN else 1
        if len(shape) < axes or shape[0] != rows or (axes == 2 and shape[1] < tokens):
            return False
        return self.entry is None or tuple(shape[axes:]) == tuple(self.entry)


def named(outputs: Sequence[Output], arrays: Sequence[np.ndarray]) -> Outputs:
    """The arrays that an engine returns in order, by their names."""
    return {output.name: array for output, array in zip(outputs, arrays)}


def refuse_misshapen(outputs: Outputs, specs: Sequence[Output], rows: int, tokens: int) -> Outputs:
    """``outputs`` themselves; BackendFailed where they are not what ``specs`` say, for a batch of that size.

    The self-test asks one batch only, and the shapes of a stranger's model may depend on what it is asked.
    """
    for spec in specs:
        shape = outputs[spec.name].shape if spec.name in outputs else None
        if shape is None or not spec.fits(shape, rows, tokens):
            raise BackendFailed(
                f"the model gave {spec.name} {'no array' if shape is None else f'the shape {shape}'} for a batch of "
                f"{rows} × {tokens} tokens",
                hint="compile the checkpoint again: this model has other outputs than its task",
            )
    return outputs


def row_of(outputs: Outputs, specs: Sequence[Output], row: int, tokens: int) -> Outputs:
    """One row of a batch's outputs, without padding."""
    return {
        spec.name: outputs[spec.name][row, :tokens] if spec.per == PER_TOKEN else outputs[spec.name][row]
        for spec in specs
    }


def fit_tokens(outputs: Outputs, specs: Sequence[Output], tokens: int) -> Outputs:
    """The outputs of a batch for exactly ``tokens`` tokens: cut, or filled up with 0."""
    return {
        spec.name: _fitted(outputs[spec.name], tokens) if spec.per == PER_TOKEN else outputs[spec.name]
        for spec in specs
    }


def _fitted(array: np.ndarray, tokens: int) -> np.ndarray:
    missing = tokens - array.shape[1]
    if missing <= 0:
        return array[:, :tokens]
    return np.pad(array, [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2))


def joined(parts: Sequence[Outputs]) -> Outputs:
    """The outputs of several batches, one after another, as those of one batch."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def stacked(rows: Sequence[Outputs]) -> Outputs:
    """The outputs of rows of equal length, as those of one batch."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def all_finite(outputs: Outputs) -> bool:
    """Whether no array holds NaN or Inf."""
    return all(bool(np.isfinite(array).all()) for array in outputs.values())


def equal(actual: Outputs, expected: Outputs) -> bool:
    """Whether every array is the same to the last bit."""
    return all(np.array_equal(actual[name], expected[name]) for name in expected)


def max_difference(actual: Outputs, expected: Outputs, specs: Sequence[Output], mask: np.ndarray) -> float:
    """The largest absolute difference of a batch's outputs, over the tokens that are not padding; NaN if there is one.

    ``mask``: [rows, tokens] of 1 and 0.
    """
    real = mask.astype(bool)
    differences: List[float] = []
    for spec in specs:
        difference = np.abs(actual[spec.name] - expected[spec.name])
        differences.append(float((difference[real] if spec.per == PER_TOKEN else difference).max()))
    return float(np.max(differences))
