"""Reads examples in rounds: which rows come next may depend on what was read, for engine and runner alike. Pure.

Most tasks read all rows of an example in one round; a task with a ``ROW_SELECTION`` (tasks/base.py) may need fewer.
"""

from functools import partial
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert.backends.outputs import Outputs
from neuronbert.engine.batches import RowsDone
from neuronbert.errors import NeuronBertError
from neuronbert.tasks.base import DecodeOptions, Example, Row, Task


def next_rows(task: Task, example: Example, read: Mapping[int, Outputs], options: DecodeOptions) -> Sequence[int]:
    """Numbers of the example's rows to read next, beside those ``read``; none: it can be decoded."""
    if task.ROW_SELECTION is None:
        return () if read else range(len(example.windows))
    return task.ROW_SELECTION.next_rows(example, read, options)


def as_read(task: Task, example: Example, read: Mapping[int, Outputs]) -> Tuple[Example, List[Outputs]]:
    """The example with the rows that were read, and their outputs, as ``decode`` takes them."""
    numbers = sorted(read)
    if task.ROW_SELECTION is not None and len(numbers) < len(example.windows):
        example = task.ROW_SELECTION.narrowed(example, numbers)
    return example, [read[number] for number in numbers]


class AskedRow(NamedTuple):
    """A row of this round: the number of its example, and its own among the example's rows."""

    example: int
    row: int


Infer = Callable[[Sequence[Row], RowsDone], List[Outputs]]  # the outputs of each row, as Engine.outputs gives them


class Rounds:
    """Examples that are read together; ``rows`` are those of this round, none once all examples are read.

    ``settled_rows``: those that were read before, or need not be; all ``total_rows`` once all examples are read.
    """

    def __init__(self, task: Task, examples: Sequence[Example], options: Sequence[DecodeOptions]):
        self.rows: List[Row] = []
        self.errors: List[Optional[NeuronBertError]] = [None] * len(examples)  # why an example is not read
        self.total_rows = sum([len(example.windows) for example in examples])
        self._task = task
        self._examples = examples
        self._options = options
        self._read: List[Dict[int, Outputs]] = [{} for _ in examples]
        self._asked: List[AskedRow] = []
        self._ask(range(len(examples)))

    def read_all(self, infer: Infer, rows_done: RowsDone = lambda rows: None) -> None:
        """Read every example with ``infer``; ``rows_done`` is told the settled rows after each batch."""
        while self.rows:
            settled = self.settled_rows
            outputs = infer(self.rows, partial(_told, rows_done, settled))
            self.give(dict(enumerate(outputs)))
            if self.settled_rows > settled + len(outputs):  # rows that nobody needs any more
                rows_done(self.settled_rows)

    def give(self, outputs: Mapping[int, Outputs], failed: Optional[Mapping[int, NeuronBertError]] = None) -> None:
        """Take the outputs of this round's rows, by their places in ``rows``, and begin the next round.

        ``failed``: why rows have none; their examples are read no further.
        """
        for place, asked in enumerate(self._asked):
            if failed and place in failed:
                self.errors[asked.example] = self.errors[asked.example] or failed[place]
            else:
                self._read[asked.example][asked.row] = outputs[place]
        self._ask(dict.fromkeys([asked.example for asked in self._asked]))

    def _ask(self, examples: Iterable[int]) -> None:
        self._asked, self.rows, rest = [], [], 0
        for number in examples:
            example, read = self._examples[number], self._read[number]
            numbers = () if self.errors[number] else next_rows(self._task, example, read, self._options[number])
            self._asked += [AskedRow(number, row) for row in numbers]
            self.rows += [example.windows[row] for row in numbers]
            rest += len(example.windows) - len(read) if numbers else 0
        self.settled_rows = self.total_rows - rest

    def read(self, number: int) -> Tuple[Example, List[Outputs]]:
        """An example as it was read, and the outputs of its rows."""
        return as_read(self._task, self._examples[number], self._read[number])


def _told(rows_done: RowsDone, before: int, done: int) -> None:
    rows_done(before + done)
