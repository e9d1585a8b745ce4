"""Measures what better batches could give: a job's rows in batches as they are cut, and as their measured cost says.

    tools/measure_batches qa-artifact squad.json --questions 150
    tools/measure_batches qa-artifact squad.json --variant openvino-fp32 --streams 2

Batches of many shapes are timed, as many at once as the session allows, and a cost is fitted to them: so much for each
call, row, token, and token that a token attends to. Dynamic programming finds the batches of rows of similar length
that cost least by it. Then both ways of cutting, and fixed numbers of rows, take turns over the job. "predicted" is the
cost model's: more than that of the least cost no cutting of batches can give.
"""

import argparse
import random
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import Batch
from neuronbert.engine.batches import collate, plan_batches
from neuronbert.engine.engine import Engine
from neuronbert.hardware.machine import environment
from neuronbert.tasks.base import Row
from neuronbert_tools.console import add_report_option, new_parser, one_or_more, print_document, print_message
from neuronbert_tools.questions import squad_pairs

Shape = Tuple[int, int]  # rows, tokens
Batches = List[List[int]]  # of each: the indices of its rows
ROWS = (1, 2, 4, 8, 16, 32)
TOKENS = (16, 32, 64, 96, 128, 192, 256, 384)
MOST_TOKENS = 4096  # of a batch that is timed
FIXED_ROWS = (4, 8, 16, 32)
AS_IT_IS, BY_COST = "as it is", "by cost"


class Cost(NamedTuple):
    """Seconds of a batch, by what there is in it."""

    call: float
    row: float
    token: float
    attention: float  # of a token to a token

    def of(self, rows: Any, tokens: Any) -> Any:
        """Seconds of ``rows`` of ``tokens`` each: numbers or arrays."""
        return self.call + rows * (self.row + tokens * (self.token + tokens * self.attention))


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser().parse_args(arguments)
    pairs = list(squad_pairs(options.data))[: options.questions]
    with opened(options) as engine, ThreadPoolExecutor(engine.session.concurrency) as pool:
        rows = [row for example in engine.encode(pairs) for row in example.windows]
        run = partial(_together, engine, pool)
        cost = fitted(timed_shapes(run, engine, options.rounds))
        ways = cut(rows, engine, cost)
        seconds = in_turns(
            {name: partial(run, _collated(engine, rows, way)) for name, way in ways.items()}, options.rounds
        )
    report = make_report(cost, ways, [len(row.input_ids) for row in rows], seconds)
    report["options"] = {key: str(value) for key, value in vars(options).items()}
    report["environment"] = environment()
    print_message(table(report))
    print_document(report, options.json, indent=2)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = new_parser(__doc__)
    add = made.add_argument
    add("artifact")
    add("data", type=Path, help="a SQuAD file")
    add("--variant", help="default: as the artifact's users get it")
    add("--questions", type=one_or_more, default=150, help="default: %(default)s")
    add("--streams", type=one_or_more, help="default: as many as the backend is fastest with")
    add("--rounds", type=one_or_more, default=5, help="default: %(default)s")
    add_report_option(made)
    return made


def opened(options: argparse.Namespace) -> Engine:
    """The engine of the artifact, for many inputs at a time."""
    if options.streams is None:
        return Engine.for_many(options.artifact, variant=options.variant)
    return Engine(options.artifact, variant=options.variant, streams=options.streams)


def _together(engine: Engine, pool: ThreadPoolExecutor, batches: Sequence[Batch]) -> None:
    for _ in pool.map(engine.session.run, batches):
        pass


def _collated(engine: Engine, rows: Sequence[Row], way: Batches) -> List[Batch]:
    return [collate([rows[index] for index in batch], engine.tokenizer.pad_id) for batch in way]


def timed_shapes(
    run: Callable[[Sequence[Batch]], None], engine: Engine, rounds: int, most_tokens: int = MOST_TOKENS
) -> Dict[Shape, float]:
    """Seconds of a batch of each shape, the fastest of so many: of as many at once as the session takes."""
    shuffle, known = random.Random(0), len(engine.tokenizer.backend.get_vocab())
    longest = engine.tokenizer.max_length or TOKENS[-1]
    shapes = [
        (rows, tokens) for rows in ROWS for tokens in TOKENS if rows * tokens <= most_tokens and tokens <= longest
    ]
    batches: Dict[Shape, List[Batch]] = {}
    for shape in shapes:
        ids = np.random.default_rng(0).integers(known // 2, known, shape)
        batches[shape] = [Batch(ids, np.ones_like(ids), np.zeros_like(ids))] * engine.session.concurrency
        run(batches[shape])
    fastest: Dict[Shape, float] = {}
    for _ in range(rounds):
        shuffle.shuffle(shapes)
        for shape in shapes:
            took_s = _seconds(partial(run, batches[shape])) / engine.session.concurrency
            fastest[shape] = min(took_s, fastest.get(shape, took_s))
    return fastest


def fitted(seconds: Mapping[Shape, float]) -> Cost:
    """The cost whose relative errors have the least squares; what would be negative is nothing."""
    rows, tokens = np.array(list(seconds), dtype=np.float64).T
    parts = np.stack([np.ones_like(rows), rows, rows * tokens, rows * tokens * tokens], axis=1)
    relative = parts / np.array(list(seconds.values()))[:, None]
    kept = list(range(parts.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(relative[:, kept], np.ones(len(rows)), rcond=None)
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))
    return Cost(*(float(found[kept.index(part)]) if part in kept else 0.0 for part in range(parts.shape[1])))


def best_batches(
    lengths: Sequence[int], cost: Cost, most_rows: int = 64, most_tokens: int = 2 * MOST_TOKENS
) -> Batches:
    """The batches of rows beside each other in order of length, longest first, whose costs add up to the least."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    ordered, count = np.asarray(lengths)[order], len(order)
    least, sizes = np.zeros(count + 1), np.zeros(count, dtype=np.int64)
    for first in range(count - 1, -1, -1):
        rows = np.arange(1, max(1, min(most_rows, most_tokens // int(ordered[first]), count - first)) + 1)
        costs = cost.of(rows, ordered[first]) + least[first + rows]
        sizes[first] = rows[costs.argmin()]
        least[first] = costs.min()
    batches: Batches = []
    first = 0
    while first < count:
        batches.append(order[first : first + sizes[first]].tolist())
        first += int(sizes[first])
    return batches


def cut(rows: Sequence[Row], engine: Engine, cost: Cost) -> Dict[str, Batches]:
    """The ways to cut the job."""
    lengths, plan = [len(row.input_ids) for row in rows], engine.plan
    fixed = {
        f"{count} rows": plan_batches(lengths, plan._replace(rows=count, tokens=2 * MOST_TOKENS))
        for count in FIXED_ROWS
    }
    return {AS_IT_IS: plan_batches(lengths, plan), BY_COST: best_batches(lengths, cost), **fixed}


def in_turns(ways: Mapping[str, Callable[[], None]], rounds: int) -> Dict[str, List[float]]:
    """Seconds of each way in each round; every other round is in the other order."""
    seconds: Dict[str, List[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            seconds[name].append(_seconds(ways[name]))
    return seconds


def _seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def make_report(
    cost: Cost, ways: Mapping[str, Batches], lengths: Sequence[int], seconds: Mapping[str, Sequence[float]]
) -> Dict[str, Any]:
    """Each way's batches, padding, and how many times as fast as it is: predicted, and the median of the rounds."""
    longest = {name: [max(lengths[index] for index in batch) for batch in way] for name, way in ways.items()}
    costs = {
        name: sum(cost.of(len(batch), tokens) for batch, tokens in zip(ways[name], longest[name])) for name in ways
    }
    padded = {name: sum(len(batch) * tokens for batch, tokens in zip(ways[name], longest[name])) for name in ways}
    return {
        "cost_s": cost._asdict(),
        "rows": len(lengths),
        "ways": {
            name: {
                "batches": len(ways[name]),
                "padding": padded[name] / sum(lengths) - 1,
                "seconds": median(seconds[name]),
                "times": median(before / own for before, own in zip(seconds[AS_IT_IS], seconds[name])),
                "predicted": float(costs[AS_IT_IS] / costs[name]),
            }
            for name in ways
        },
    }


def table(report: Mapping[str, Any]) -> str:
    """For a person."""
    lines = [
        f"{report['rows']} rows",
        f"{'batches':10} {'number':>7} {'padding':>8} {'seconds':>8} {'times':>6} {'predicted':>9}",
    ]
    for name, way in report["ways"].items():
        lines.append(
            f"{name:10} {way['batches']:7} {way['padding']:8.1%} {way['seconds']:8.3f} {way['times']:6.3f} "
            f"{way['predicted']:9.3f}"
        )
    return "\n".join(lines)
