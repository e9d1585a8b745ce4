"""Makes one Session of several that each take a single shape, for engine: it pads batches, and cuts the outputs.

A batch goes to the smallest bucket that its longest row fits. A batch with too few rows repeats its last one: a row
of padding only has nothing to attend to, and its outputs could be NaN.
"""

from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import Batch, StaticSession, ThroughputPlan, Variant
from neuronbert.backends.outputs import Output, Outputs, fit_tokens, joined
from neuronbert.errors import InputError


class Part(NamedTuple):
    """One copy of one bucket, as a Session of its own: what a self-test runs."""

    variant: Variant
    session: "BucketedSession"


class PinnedSession:
    """A static session pinned to one of its copies."""

    copies = 1

    def __init__(self, session: StaticSession, copy: int):
        self.name = session.name
        self.shape = session.shape
        self.precision = session.precision
        self.concurrency = 1
        self._session = session
        self._copy = copy

    def run(self, batch: Batch, copy: Optional[int] = None) -> Outputs:
        return self._session.run(batch, self._copy)

    def close(self) -> None:
        """Nothing: the session that has the copies closes them."""


class BucketedSession:
    """Sessions of different static shapes behind one that takes any batch that fits the longest of them."""

    def __init__(self, sessions: Sequence[StaticSession], outputs: Sequence[Output], variants: Sequence[Variant] = ()):
        self._outputs = tuple(outputs)
        self.sessions = sorted(sessions, key=lambda session: (session.shape.sequence_length, session.shape.batch_size))
        self.precision = str(sessions[0].precision)
        # All buckets are on the same cores: together they take no more requests than one of them.
        self.concurrency = max(session.concurrency for session in sessions)
        self._variants = {session.name: variant for session, variant in zip(sessions, variants)}
        self._shapes = [(session.shape.batch_size, session.shape.sequence_length) for session in self.sessions]

    @property
    def longest(self) -> int:
        """Tokens of the longest bucket."""
        return max(length for _, length in self._shapes)

    def plan(self) -> ThroughputPlan:
        """Full batches of one bucket's rows, as many at once as the cores take."""
        rows = max(rows for rows, _ in self._shapes)
        lengths = tuple(sorted({length for _, length in self._shapes}))
        return ThroughputPlan(self.concurrency, rows, rows * self.longest, lengths)

    def parts(self) -> Iterator[Part]:
        """Every copy of every bucket."""
        for session in self.sessions:
            for copy in range(session.copies):
                yield Part(self._variants[session.name], BucketedSession([PinnedSession(session, copy)], self._outputs))

    def run(self, batch: Batch) -> Outputs:
        """The outputs of a batch of up to the longest bucket's tokens, as wide as it; InputError for a longer one."""
        rows, tokens = batch.input_ids.shape
        # Columns of padding alone are cut off first: only with them may the batch be too long for a bucket.
        needed = int(np.flatnonzero(batch.attention_mask.any(axis=0))[-1]) + 1 if batch.attention_mask.any() else 1
        results: List[Outputs] = []
        first = 0
        while first < rows:
            number = self._route(rows - first, needed)
            size, length = self._shapes[number]
            piece = Batch(*(fitted(field[first : first + size], size, length) for field in batch))
            outputs = self.sessions[number].run(piece)
            results.append({name: array[: rows - first] for name, array in outputs.items()})
            first += size
        return fit_tokens(joined(results), self._outputs, tokens)

    def _route(self, rows: int, tokens: int) -> int:
        """The number of the session for ``rows`` rows of at most ``tokens`` tokens."""
        return route(rows, tokens, self._shapes)

    def close(self) -> None:
        """Close every bucket."""
        for session in self.sessions:
            session.close()


def route(rows: int, tokens: int, shapes: Sequence[Tuple[int, int]]) -> int:
    """The index in ``shapes`` (rows, tokens): the shortest that fits, then the fewest rows for all, else the most.

    InputError when no shape is long enough.
    """
    long_enough = [length for _, length in shapes if length >= tokens]
    if not long_enough:
        longest = max(length for _, length in shapes)
        raise InputError(
            f"a row of {tokens} tokens does not fit the longest bucket of this artifact, {longest} tokens",
            hint=f"compile with --sequence-length {tokens} or more, or cut the text: --max-seq-len {longest}",
        )
    candidates = [number for number, (_, length) in enumerate(shapes) if length == min(long_enough)]
    enough = [number for number in candidates if shapes[number][0] >= rows]
    if enough:
        return min(enough, key=lambda number: shapes[number][0])
    return max(candidates, key=lambda number: shapes[number][0])


def fitted(field: np.ndarray, rows: int, tokens: int) -> np.ndarray:
    """``field`` as [rows, tokens]: columns cut or filled with 0, missing rows filled with the last real one."""
    if field.shape == (rows, tokens):
        return np.ascontiguousarray(field)
    columns = field[:, :tokens]
    missing = tokens - columns.shape[1]
    if missing:
        columns = np.pad(columns, ((0, 0), (0, missing)))
    repeated = np.arange(rows).clip(max=len(columns) - 1)
    return np.ascontiguousarray(columns[repeated])
