"""Makes one Session of several that each take a single shape: it pads rows and tokens and cuts them off for engine.

A batch goes to the smallest bucket that its longest row fits. Rows that are missing in a batch repeat a real one: an
all-padding row has nothing to attend to, and its numbers could be NaN.
"""

from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import Batch, StaticSession, ThroughputPlan, Variant
from neuronbert.backends.outputs import Output, Outputs, fit_tokens, joined
from neuronbert.errors import InputError


class Part(NamedTuple):
    """One copy of one bucket, as a Session of its own: what a self-test looks at."""

    variant: Variant
    session: "BucketedSession"


class OneCopy:
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
        """The session that has the copies closes them."""


class BucketedSession:
    """Sessions of different static shapes behind one that takes any batch that fits the longest of them."""

    def __init__(self, sessions: Sequence[StaticSession], outputs: Sequence[Output], variants: Sequence[Variant] = ()):
        self._outputs = tuple(outputs)
        self.sessions = sorted(sessions, key=lambda one: (one.shape.sequence_length, one.shape.batch_size))
        self.precision = str(sessions[0].precision)
        # Buckets lie on the same cores: together they take no more requests than one of them.
        self.concurrency = max(one.concurrency for one in sessions)
        self._variants = {one.name: variant for one, variant in zip(sessions, variants)}
        self._shapes = [(one.shape.batch_size, one.shape.sequence_length) for one in self.sessions]

    @property
    def longest(self) -> int:
        """Tokens of the longest bucket."""
        return max(length for _, length in self._shapes)

    def plan(self) -> ThroughputPlan:
        """Full batches of one bucket's windows, as many at once as the cores take."""
        rows = max(rows for rows, _ in self._shapes)
        lengths = tuple(sorted({length for _, length in self._shapes}))
        return ThroughputPlan(self.concurrency, rows, rows * self.longest, lengths)

    def parts(self) -> Iterator[Part]:
        """Every copy of every bucket."""
        for session in self.sessions:
            for copy in range(session.copies):
                yield Part(self._variants[session.name], BucketedSession([OneCopy(session, copy)], self._outputs))

    def run(self, batch: Batch) -> Outputs:
        """The outputs of a batch of up to the longest bucket's tokens, as wide as it; InputError for a longer one."""
        rows, tokens = batch.input_ids.shape
        # Padding at the end of every row is not the model's business: it may be what makes a bucket too short.
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
        """The session for ``rows`` rows of at most ``tokens`` tokens, by its number."""
        return route(rows, tokens, self._shapes)

    def close(self) -> None:
        """Close every bucket."""
        for session in self.sessions:
            session.close()


def route(rows: int, tokens: int, shapes: Sequence[Tuple[int, int]]) -> int:
    """Which of ``shapes`` (rows, tokens): the shortest that fits, then the fewest rows that hold all, else the most.

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
