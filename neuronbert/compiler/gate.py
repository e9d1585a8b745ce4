"""The gate: a variant is kept only if it answers as the FP32 reference does; the task's TaskGate compares them."""

from typing import List, Optional, Sequence

import numpy as np

from neuronbert.backends.base import Session, Steps, ThroughputPlan
from neuronbert.backends.outputs import Output, Outputs, all_finite
from neuronbert.backends.reference import ROW_BY_ROW, one_thread_each
from neuronbert.compiler.kept_reference import KeptReference
from neuronbert.engine.batches import infer_concurrently, infer_rows
from neuronbert.errors import CheckpointError
from neuronbert.tasks.base import NOT_FINITE, Agreement, Example, Judged, Labelled, Row, TaskGate


class Gate:
    """The gate's questions and the FP32 reference's answers to them, computed once for all variants."""

    def __init__(
        self,
        task_gate: TaskGate,
        outputs: Sequence[Output],
        questions: Sequence[Labelled],
        examples: Sequence[Example],
        pad_id: int,
        reference: Session,
        on_step: Steps = lambda what, done, total: None,
        kept: Optional[KeptReference] = None,
    ):
        self._task_gate = task_gate
        self._outputs = outputs
        self._questions = questions
        self._examples = examples
        self._pad_id = pad_id
        self._session = reference
        self._on_step = on_step
        self.rows: Sequence[Row] = [row for example in examples for row in example.windows]
        self._kept = kept
        found = None if kept is None else kept.read(self.reference_again)
        self.is_kept = found is not None  # what is expected was said in an earlier compile of the same checkpoint
        self.expected = self._said() if found is None else found
        self._reference = self._judge(self.expected)

    def _said(self) -> List[Outputs]:
        """What the reference says to every row now."""
        with one_thread_each():
            said = self.answers(self._session, ROW_BY_ROW)
        if not all(map(all_finite, said)):
            raise CheckpointError(
                "the checkpoint gives NaN or Inf in FP32 already",
                hint="train or download it again: its weights are damaged",
            )
        if self._kept is not None:
            self._kept.keep(said)
        return said

    def renewed(self) -> bool:
        """Whether what is expected was kept, and has now been asked again: nobody is refused for what was kept."""
        if not self.is_kept:
            return False
        self.is_kept = False
        self.expected = self._said()
        self._reference = self._judge(self.expected)
        return True

    def answers(self, session: Session, plan: ThroughputPlan) -> List[Outputs]:
        """The outputs of ``session`` for every row, with as many batches at once as it takes."""

        def tell(done: int) -> None:
            self._on_step("windows answered", done, len(self.rows))

        tell(0)
        return infer_concurrently(session, self.rows, self._outputs, plan, self._pad_id, tell)

    def one_by_one(self, session: Session, plan: ThroughputPlan, chosen: Sequence[int]) -> List[Outputs]:
        """The outputs of ``session`` for the rows of these numbers, one batch after the other."""
        return infer_rows(session, [self.rows[number] for number in chosen], self._outputs, plan, self._pad_id)

    def reference_again(self, chosen: Sequence[int]) -> List[Outputs]:
        """What the reference says now of the rows of these numbers, on a single thread."""
        with one_thread_each():
            return self.one_by_one(self._session, ROW_BY_ROW, chosen)

    def _judge(self, outputs: Sequence[Outputs]) -> Judged:
        return self._task_gate.judge(self._questions, self._examples, outputs)

    def agreement(self, answers: Sequence[Outputs]) -> Agreement:
        """How a session's ``answers`` to every question agree with the reference's."""
        return self._task_gate.compare(self._questions, self._judge(answers), self._reference)


def row_differences(actual: Sequence[Outputs], expected: Sequence[Outputs]) -> np.ndarray:
    """The largest absolute difference of each row's outputs; NaN where only one of the two is a finite number."""
    with np.errstate(invalid="ignore"):
        by_row = [np.max([_difference(a[name], b[name]) for name in b]) for a, b in zip(actual, expected)]
    return np.array(by_row, dtype=np.float64)


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    return float(np.where(same, 0.0, np.abs(actual - expected)).max())


def nan_refusals(outputs: Outputs) -> List[str]:
    """The only reason to refuse a variant when the gate is skipped: even meaningless weights give finite logits."""
    return [] if all_finite(outputs) else [NOT_FINITE]
