"""Measures what it costs to read only some rows of a long input, for an artifact that compilation.py makes so."""

from dataclasses import asdict, dataclass

from neuronbert.backends.buckets import BucketedSession
from neuronbert.compiler.candidates import Trial
from neuronbert.compiler.source import CompileSource
from neuronbert.engine.batches import infer_concurrently
from neuronbert.engine.rounds import Rounds
from neuronbert.errors import GateRefused
from neuronbert.tasks.base import Document, GateLimits


@dataclass(frozen=True)
class RowSelectionTrial:
    """The same long inputs with all of their rows read, and with those that the task selects.

    ``accuracy`` and ``full_accuracy`` are the task's, in percent; ``rows`` and ``rows_read`` means over the inputs.
    """

    n: int
    rows: float
    rows_read: float
    accuracy: float
    full_accuracy: float

    def as_dict(self) -> Document:
        """The figures for the manifest."""
        return asdict(self)


def try_selection(source: CompileSource, trial: Trial, limits: GateLimits) -> RowSelectionTrial:
    """Answer the task's long inputs both ways with a variant that was kept.

    GateRefused where selecting leaves less than ``limits.min_f1_ratio`` of the full reading's accuracy.
    """
    task, session = source.task, trial.session
    assert task.ROW_SELECTION is not None and session is not None
    labelled, examples = source.long_examples(task.ROW_SELECTION)
    rows = [row for example in examples for row in example.windows]
    plan = session.plan() if isinstance(session, BucketedSession) else trial.plan

    def tell(done: int) -> None:
        source.on_step("windows answered", done, len(rows))

    tell(0)
    outputs = infer_concurrently(session, rows, source.outputs, plan, source.tokenizer.pad_id, tell)
    by_row = {id(row): own for row, own in zip(rows, outputs)}
    options = task.DECODE_OPTIONS()
    full = [task.decode(each, [by_row[id(row)] for row in each.windows], options) for each in examples]
    rounds = Rounds(task, examples, [options] * len(examples))
    rounds.read_all(lambda asked, told: [by_row[id(row)] for row in asked])
    read = [rounds.read(number) for number in range(len(examples))]
    measured = RowSelectionTrial(
        n=len(examples),
        rows=len(rows) / len(examples),
        rows_read=sum(len(own) for _, own in read) / len(examples),
        accuracy=task.ROW_SELECTION.accuracy(labelled, [task.decode(*each, options) for each in read]),
        full_accuracy=task.ROW_SELECTION.accuracy(labelled, full),
    )
    if not measured.accuracy >= limits.min_f1_ratio * measured.full_accuracy:
        raise GateRefused(
            f"reading selected windows scores {measured.accuracy:.2f} and reading all {measured.full_accuracy:.2f}, of "
            f"which {limits.min_f1_ratio:.2%} are asked for ({measured.n} questions about long documents)",
            hint="a larger --select-windows, or leave it out, and choose it where a question is asked",
        )
    return measured
