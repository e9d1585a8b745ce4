"""Rows of a batch joined end to end, without padding, and outputs cut into rows again, for session.py. Pure."""

from typing import Dict, List, NamedTuple, Sequence

import numpy as np

from neuronbert.backends.base import Batch
from neuronbert.backends.cuda.graph import Graph
from neuronbert.backends.outputs import PER_TOKEN, Output, Outputs
from neuronbert.errors import BackendFailed

# Graphs (lanes.py) are recorded for these numbers of tokens, of rows, and of the longest row's tokens; a batch takes
# the next that holds it. With more tokens than the most, a GPU has so much to do that the CPU is ahead of it.
TOKEN_STEPS = (*range(32, 129, 32), *range(192, 513, 64), *range(640, 2049, 128), *range(2304, 4097, 256),
               *range(5120, 16385, 1024))  # fmt: skip
ROW_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LONGEST_STEPS = (64, 128, 256, 512, *TOKEN_STEPS[TOKEN_STEPS.index(1024) :])


class Packed(NamedTuple):
    """A batch without padding. Of each token, int32 [tokens]: id, position, type, its place in its row, and its row.

    ``starts``, int32 [rows + 1], says where each row begins in the tokens; the last one is their number.
    """

    ids: np.ndarray
    positions: np.ndarray
    types: np.ndarray
    places: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    longest: int  # tokens of the longest row

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return len(self.ids)

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return len(self.starts) - 1


def pack(batch: Batch, graph: Graph) -> Packed:
    """The tokens of ``batch`` that its mask shows. BackendFailed for an id, a type or a position the model has not.

    A GPU would not say so: it reads beside its tables, or ends the process's use of it.
    """
    seen = batch.attention_mask.astype(bool)
    lengths = seen.sum(axis=1)
    rows, columns = np.nonzero(seen)
    starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    ids = batch.input_ids[rows, columns]
    types = batch.token_type_ids[rows, columns] if graph.token_types else np.zeros_like(ids)
    positions = _positions(batch.input_ids, graph)[rows, columns] if graph.skips_padding_id else columns
    _refuse_beyond("token id", ids, graph.vocabulary)
    _refuse_beyond("token type", types, max(1, graph.token_types))
    _refuse_beyond("position", positions, graph.positions)
    places = np.arange(len(ids)) - starts[rows]
    longest = int(lengths.max()) if len(lengths) else 0
    return Packed(_int32(ids), _int32(positions), _int32(types), _int32(places), _int32(rows), starts, longest)


def _int32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.int32)


def _positions(ids: np.ndarray, graph: Graph) -> np.ndarray:
    """RoBERTa's: tokens that are not padding are counted from padding_id + 1 on; all others have padding_id."""
    real = ids != graph.padding_id
    positions: np.ndarray = np.cumsum(real, axis=1) * real + graph.padding_id
    return positions


def _refuse_beyond(what: str, values: np.ndarray, count: int) -> None:
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < count:
        wrong = int(values.max()) if values.min() >= 0 else int(values.min())
        raise BackendFailed(f"the batch has {what} {wrong}, and the model has {count}", hint="0 and up are there")


def grown(packed: Packed, tokens: int, rows: int) -> Packed:
    """``packed`` with ``tokens`` tokens and ``rows`` rows.

    The tokens that are added are one more row, at the end, of the id 0; the rows before it, if any, have no tokens.
    """
    more, place = tokens - packed.tokens, np.arange(tokens - packed.tokens, dtype=np.int32)
    zeros = np.zeros(more, dtype=np.int32)
    return Packed(
        ids=np.concatenate((packed.ids, zeros)),
        positions=np.concatenate((packed.positions, zeros)),
        types=np.concatenate((packed.types, zeros)),
        places=np.concatenate((packed.places, place)),
        rows=np.concatenate((packed.rows, zeros + rows)),
        starts=np.concatenate((packed.starts, np.full(rows - packed.row_count, packed.tokens), [tokens])).astype(
            np.int32
        ),
        longest=max(packed.longest, more),
    )


def next_step(value: int, steps: Sequence[int]) -> int:
    """The first of ``steps`` that is not below ``value``; the last must be."""
    return steps[int(np.searchsorted(steps, value))]


def unpacked(arrays: Sequence[np.ndarray], outputs: Sequence[Output], batch: Batch) -> Outputs:
    """Outputs of packed tokens and of rows as those of ``batch``, with 0 where its mask hides a token."""
    seen = batch.attention_mask.astype(bool)
    found: Dict[str, np.ndarray] = {}
    for output, array in zip(outputs, arrays):
        if output.per != PER_TOKEN:
            found[output.name] = array[: len(seen)]
            continue
        found[output.name] = np.zeros((*seen.shape, *array.shape[1:]), dtype=np.float32)
        found[output.name][seen] = array[: int(seen.sum())]
    return found


def halves(batch: Batch) -> List[Batch]:
    """The batch as two of half its rows, each as narrow as its longest row."""
    middle = (len(batch.input_ids) + 1) // 2
    return [_narrowed(Batch(*(array[part] for array in batch))) for part in (slice(middle), slice(middle, None))]


def _narrowed(batch: Batch) -> Batch:
    seen = batch.attention_mask.any(axis=0)
    width = int(np.flatnonzero(seen)[-1]) + 1 if seen.any() else 1
    return Batch(*(array[:, :width] for array in batch))
