"""Puts rows of similar length into batches, and takes outputs apart again, for engine and runner alike. Pure."""

from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import Batch, Session, ThroughputPlan
from neuronbert.backends.outputs import Output, Outputs, refuse_misshapen, row_of
from neuronbert.errors import UsageError
from neuronbert.tasks.base import Row

RowsDone = Callable[[int], None]  # how many of the rows of a call have their outputs


def plan_batches(lengths: Sequence[int], plan: ThroughputPlan) -> List[List[int]]:
    """Cut rows into batches of similar length, longest first.

    Longest first, because the last batches, which no longer fill all threads, should be short. Every index appears in
    exactly one batch; a row longer than ``plan.tokens`` has a batch of its own. Where the plan has buckets, a batch
    holds rows of one bucket only: a short one would take as long as the longest.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    batches: List[List[int]] = []
    first = 0
    while first < len(order):
        longest = lengths[order[first]]
        rows = max(1, min(plan.rows, plan.tokens // longest))
        shorter_bucket = max((length for length in plan.lengths if length < longest), default=0)
        batch = [index for index in order[first : first + rows] if lengths[index] > shorter_bucket]
        batches.append(batch)
        first += len(batch)
    return batches


def collate(rows: Sequence[Row], pad_id: int, length: Optional[int] = None) -> Batch:
    """Stack rows into a Batch of shape [rows, tokens], padded on the right.

    tokens is ``length``, or that of the longest row. UsageError if a row is longer than ``length``.
    """
    longest = max((len(row.input_ids) for row in rows), default=0)
    if length is None:
        length = longest
    if longest > length:
        raise UsageError(f"a window of {longest} tokens does not fit into {length}", hint=f"a max_seq_len of {length}")
    input_ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(rows), length), dtype=np.int64)
    token_type_ids = np.zeros((len(rows), length), dtype=np.int64)
    for number, row in enumerate(rows):
        tokens = len(row.input_ids)
        input_ids[number, :tokens] = row.input_ids
        attention_mask[number, :tokens] = 1
        token_type_ids[number, :tokens] = row.token_type_ids
    return Batch(input_ids, attention_mask, token_type_ids)


def uncollate(
    rows: Sequence[Row], specs: Sequence[Output], batches: Iterable[Tuple[List[int], Outputs]]
) -> List[Outputs]:
    """The outputs of each row, without padding and in order; ``batches``: the indices of its rows, and its outputs."""
    by_row: List[Optional[Outputs]] = [None] * len(rows)
    for indices, outputs in batches:
        for number, index in enumerate(indices):
            by_row[index] = row_of(outputs, specs, number, len(rows[index].input_ids))
    assert None not in by_row, "every row is in one batch"
    return [outputs for outputs in by_row if outputs is not None]


def in_inputs(tell: Callable[[int], None], before: int, inputs: int, rows: int) -> RowsDone:
    """Tells inputs where rows are done: the next ``inputs`` have so many ``rows``, and a batch has rows of several."""
    return lambda done: tell(before + inputs * done // rows)


def infer_rows(
    session: Session,
    rows: Sequence[Row],
    specs: Sequence[Output],
    plan: ThroughputPlan,
    pad_id: int,
    pool: Optional[ThreadPoolExecutor] = None,
    rows_done: RowsDone = lambda rows: None,
) -> List[Outputs]:
    """The outputs of each row, without padding, in the order of ``rows``.

    With a ``pool`` as many batches run at once as the session allows. ``rows_done`` is called after each batch.
    """
    batches = plan_batches([len(row.input_ids) for row in rows], plan)

    def run(batch: List[int]) -> Outputs:
        stacked = collate([rows[index] for index in batch], pad_id)
        return refuse_misshapen(session.run(stacked), specs, *stacked.input_ids.shape)

    results = pool.map(run, batches) if pool is not None and len(batches) > 1 else map(run, batches)

    def told() -> Iterator[Tuple[List[int], Outputs]]:
        done = 0
        for batch, outputs in zip(batches, results):
            yield batch, outputs
            done += len(batch)
            rows_done(done)

    return uncollate(rows, specs, told())


def infer_concurrently(
    session: Session,
    rows: Sequence[Row],
    specs: Sequence[Output],
    plan: ThroughputPlan,
    pad_id: int,
    rows_done: RowsDone = lambda rows: None,
) -> List[Outputs]:
    """``infer_rows`` with as many batches at once as the session allows: one would leave its other streams idle."""
    if session.concurrency == 1:
        return infer_rows(session, rows, specs, plan, pad_id, rows_done=rows_done)
    with ThreadPoolExecutor(session.concurrency) as pool:
        return infer_rows(session, rows, specs, plan, pad_id, pool, rows_done)
