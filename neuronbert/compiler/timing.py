"""Measures how fast each candidate is on this machine, for selection.py: the same rows for all, in turns."""

import time
from contextlib import nullcontext
from typing import Any, Callable, ContextManager, List, Sequence

from neuronbert.backends.base import Session, ThroughputPlan
from neuronbert.backends.outputs import Output
from neuronbert.compiler.candidates import Trial
from neuronbert.engine.batches import infer_concurrently
from neuronbert.tasks.base import Row

ROUNDS = 3
ROUND_S = 1.0  # of the slowest candidate; the others take the same rows
TIMED_ROWS = (16, 96)  # at least, at most
TIMED_BATCHES = 2  # at most, where full ones hold more rows than that: a GPU with a part of one is all launches


def time_trials(
    trials: Sequence[Trial],
    rows: Sequence[Row],
    outputs: Sequence[Output],
    pad_id: int,
    clock: Callable[[], float] = time.perf_counter,
    guard: Callable[[Trial], ContextManager[Any]] = nullcontext,
) -> None:
    """Time every trial's session on the same rows, in turns (A B A B), so that a drift of the machine affects all.

    Each run is inside ``guard(trial)``; if that discards the trial's session, the trial is timed no further.
    """
    by_length = sorted(rows, key=lambda row: len(row.input_ids))

    def measured(sample: Sequence[Row]) -> List[float]:
        speeds = []
        for trial in trials:
            if trial.session is not None:
                with guard(trial):
                    speed = _rows_per_s(trial.session, trial.plan, sample, outputs, pad_id, clock)
                    trial.windows_per_s.append(speed)
                    speeds.append(speed)
        return speeds

    for trial in trials:
        trial.windows_per_s = []
    probe = _evenly(by_length, 8)
    measured(probe)  # the first run of a session also allocates
    low, high = TIMED_ROWS
    high = max(high, TIMED_BATCHES * max((trial.plan.rows for trial in trials), default=0))
    sample = _evenly(by_length, int(min(high, max(low, min(measured(probe), default=0.0) * ROUND_S))))
    for trial in trials:
        trial.windows_per_s = []
    for _ in range(ROUNDS):
        measured(sample)


def _evenly(rows: Sequence[Row], count: int) -> List[Row]:
    count = min(count, len(rows))
    return [rows[(2 * index + 1) * len(rows) // (2 * count)] for index in range(count)]


def _rows_per_s(
    session: Session,
    plan: ThroughputPlan,
    rows: Sequence[Row],
    outputs: Sequence[Output],
    pad_id: int,
    clock: Callable[[], float],
) -> float:
    started = clock()
    infer_concurrently(session, rows, outputs, plan, pad_id)
    return len(rows) / (clock() - started)
