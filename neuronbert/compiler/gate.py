"""The gate: a variant is kept only if it answers as the FP32 reference does; the task's TaskGate compares them."""

from typing import List, Sequence

from neuronbert.backends.base import Session, ThroughputPlan
from neuronbert.backends.outputs import Output, Outputs, all_finite
from neuronbert.backends.reference import ROW_BY_ROW, one_thread_each
from neuronbert.engine.batches import infer_concurrently
from neuronbert.errors import CheckpointError
from neuronbert.tasks.base import NOT_FINITE, Agreement, Example, Judged, Labelled, TaskGate


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
    ):
        self._task_gate = task_gate
        self._outputs = outputs
        self._questions = questions
        self._examples = examples
        self._rows = [row for example in examples for row in example.windows]
        self._pad_id = pad_id
        with one_thread_each():
            expected = self._infer(reference, ROW_BY_ROW)
        if not all(map(all_finite, expected)):
            raise CheckpointError(
                "the checkpoint gives NaN or Inf in FP32 already",
                hint="train or download it again: its weights are damaged",
            )
        self._reference = self._judge(expected)

    def _infer(self, session: Session, plan: ThroughputPlan) -> List[Outputs]:
        return infer_concurrently(session, self._rows, self._outputs, plan, self._pad_id)

    def _judge(self, outputs: Sequence[Outputs]) -> Judged:
        return self._task_gate.judge(self._questions, self._examples, outputs)

    def compare(self, session: Session, plan: ThroughputPlan) -> Agreement:
        """Answer every question with ``session`` and compare with the reference."""
        judged = self._judge(self._infer(session, plan))
        return self._task_gate.compare(self._questions, judged, self._reference)


def nan_refusals(outputs: Outputs) -> List[str]:
    """The only reason to refuse a variant when the gate is skipped: even meaningless weights give finite logits."""
    return [] if all_finite(outputs) else [NOT_FINITE]
