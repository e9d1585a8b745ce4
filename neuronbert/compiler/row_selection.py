"""Measures what it costs to read only some rows of a long input, for an artifact that compilation.py makes so."""

from typing import Dict, Sequence, cast

from neuronbert.backends.buckets import BucketedSession
from neuronbert.compiler.candidates import Trial
from neuronbert.compiler.source import CompileSource
from neuronbert.engine.batches import infer_concurrently
from neuronbert.engine.rounds import Rounds
from neuronbert.errors import GateRefused, UsageError
from neuronbert.tasks.base import Document, GateLimits, Labelled, SelectingGate, Task, TaskGate


class RowSelectionTrial:
    """The same long inputs with all of their rows read, and with those that the task selects, ``first_rows`` first.

    ``asked`` are the gate's questions, of which the long inputs are made; none where the gate is skipped: then nothing
    is measured. Before anything is exported, UsageError for a task that reads all rows anyway, and InputError where
    there is too little text.
    """

    def __init__(self, task: Task, gate: TaskGate, first_rows: int, asked: Sequence[Labelled]):
        if task.ROW_SELECTION is None:
            raise UsageError(
                f"{task.NAME} reads all windows: there are none to select", hint="leave out --select-windows"
            )
        self._gate = cast(SelectingGate, gate)
        self._first_rows = first_rows
        self._labelled = self._gate.long_inputs(asked) if asked else []
        self._measured: Dict[int, Dict[str, float]] = {}  # by the trial, which outlives this

    def as_dict(self, trial: Trial) -> Document:
        """For the manifest: accuracies in percent, rows as means over the ``n`` inputs."""
        return {"first_rows": self._first_rows, "measured": self._measured.get(id(trial))}

    def measure(self, source: CompileSource, trial: Trial, limits: GateLimits) -> None:
        """Answer the long inputs both ways with a variant that was kept.

        GateRefused where selecting leaves less than ``limits.min_f1_ratio`` of the full reading's accuracy.
        """
        if not self._labelled:
            return
        source.progress(f"reading {len(self._labelled)} long inputs, to see what selecting windows costs")
        examples = source.encode_selecting(self._labelled, self._first_rows)
        rows = [row for example in examples for row in example.windows]
        session = trial.session
        assert session is not None
        plan = session.plan() if isinstance(session, BucketedSession) else trial.plan

        def tell(done: int) -> None:
            source.on_step("windows answered", done, len(rows))

        tell(0)
        outputs = infer_concurrently(session, rows, source.outputs, plan, source.tokenizer.pad_id, tell)
        by_row = {id(row): own for row, own in zip(rows, outputs)}
        rounds = Rounds(source.task, examples, [self._gate.decode_options(self._labelled)] * len(examples))
        rounds.read_all(lambda asked, told: [by_row[id(row)] for row in asked])
        read = [rounds.read(number) for number in range(len(examples))]
        outputs_read = [own for _, outputs in read for own in outputs]
        whole = self._gate.judge_whole(self._labelled, examples, outputs)
        selected = self._gate.judge(self._labelled, [example for example, _ in read], outputs_read)
        measured = self._measured[id(trial)] = {
            "n": len(examples),
            "rows": len(rows) / len(examples),
            "rows_read": len(outputs_read) / len(examples),
            "accuracy": self._gate.accuracy(self._labelled, selected),
            # Whoever would read all takes what is best for that.
            "full_accuracy": max(self._gate.accuracy(self._labelled, judged) for judged in whole),
        }
        self._refuse(measured["accuracy"], measured["full_accuracy"], limits.min_f1_ratio)

    def _refuse(self, selected: float, full: float, least_ratio: float) -> None:
        if not selected >= least_ratio * full:
            raise GateRefused(
                f"reading selected windows scores {selected:.2f} and reading all {full:.2f}, of which "
                f"{least_ratio:.2%} are asked for ({len(self._labelled)} questions about long documents)",
                hint="a larger --select-windows, or leave it out, and choose it where a question is asked",
            )
