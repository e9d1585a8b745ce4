"""What is compiled: a checkpoint, its FP32 reference, and the questions of calibration, gate and self-test."""

import copy
from contextlib import closing
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from neuronbert.backends.base import Batch, Steps
from neuronbert.backends.neuron.target import NeuronTarget
from neuronbert.backends.outputs import Output
from neuronbert.backends.reference import ReferenceSession, one_thread_each
from neuronbert.checkpoint.families import Config, Head, TorchModel
from neuronbert.checkpoint.loading import Checkpoint
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.compiler.gate import Gate
from neuronbert.compiler.kept_reference import KeptReference
from neuronbert.compiler.self_test import answered_twice, selftest_arrays, selftest_batch
from neuronbert.engine.batches import collate
from neuronbert.errors import UsageError, counted
from neuronbert.tasks.base import Example, GateQuestions, Labelled, Row, Task

Progress = Callable[[str], None]


class CompileSource:
    """A checkpoint being compiled (backends.base.ExportSource), with the reference that variants are compared with.

    ``folder`` holds its tokenizer already. ``target`` has the buckets where shapes are static. As a context manager it
    releases the reference.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        task: Task,
        folder: Path,
        questions: GateQuestions,
        target: Optional[NeuronTarget],
        *,
        skip_gate: bool,
        threads: int,
        progress: Progress,
        on_step: Steps = lambda what, done, total: None,
    ):
        self.checkpoint = checkpoint
        self.task = task
        self.task_gate = task.gate(checkpoint.config)
        self.target = target
        self.skip_gate = skip_gate
        self.tokenizer = Tokenizer.from_files(folder)
        self._refuse_long_buckets()
        self._questions = questions
        self.threads = threads
        self.progress = progress
        self.on_step = on_step
        self._model = checkpoint.torch_model()
        self._reference = ReferenceSession(self._model, self.outputs, threads=threads)
        self._gates: Dict[Optional[int], Gate] = {}
        # Always the shipped questions, whatever the gate and calibration use: the same text in every artifact.
        shortest = self._encode(questions.shipped, min(target.sequence_lengths) if target else None)
        with one_thread_each():
            self.selftest = selftest_arrays(shortest, self._reference, self.tokenizer.pad_id)

    def __enter__(self) -> "CompileSource":
        return self

    def __exit__(self, *_: object) -> None:
        self._reference.close()

    def _refuse_long_buckets(self) -> None:
        positions = self.tokenizer.max_positions
        if self.target is not None and positions is not None and max(self.target.sequence_lengths) > positions:
            raise UsageError(
                f"--sequence-length {max(self.target.sequence_lengths)} is more than the model's {positions} positions",
                hint=f"--sequence-length {positions}",
            )

    def _encode(
        self, questions: Sequence[Labelled], tokens: Optional[int] = None, first_rows: int = 0
    ) -> Sequence[Example]:
        """The questions as rows, of at most ``tokens`` where that is given (a bucket's)."""
        tokenizer = copy.copy(self.tokenizer)
        tokenizer.first_rows = first_rows
        return self.task.encode(tokenizer, self.task_gate.inputs(questions), self.task.bucket_options(tokens))

    @property
    def _longest_bucket(self) -> Optional[int]:
        """Its tokens; None where shapes are dynamic."""
        return max(self.target.sequence_lengths) if self.target else None

    def gate(self, tokens: Optional[int]) -> Optional[Gate]:
        """The gate for rows of at most ``tokens`` (None: the default), its reference computed once; None if skipped."""
        if not self.skip_gate and tokens not in self._gates:
            asked = self._questions.asked
            cut = f" in windows of {tokens} tokens" if tokens else ""
            examples = self._encode(asked, tokens)
            self._warn_of_cuts(examples, tokens)
            self.progress(f"answering {counted(len(examples), self.task.LINES.noun)}{cut} in FP32, the reference")
            rows = [row for example in examples for row in example.windows]
            kept = KeptReference.of(self.checkpoint, self.outputs, rows, self.progress)
            self._gates[tokens] = Gate(
                self.task_gate,
                self.outputs,
                asked,
                examples,
                self.tokenizer.pad_id,
                self._reference,
                self.on_step,
                kept,
            )
        return self._gates.get(tokens)

    def _warn_of_cuts(self, examples: Sequence[Example], tokens: Optional[int]) -> None:
        """Warn of rows so short that FP32 itself answers worse: the gate compares equal rows and cannot see that."""
        longest = tokens is not None and tokens == self._longest_bucket
        cut = sum(len(example.windows) > 1 for example in examples)
        if longest and 10 * cut > len(examples):
            self.progress(
                f"note: {cut / len(examples):.0%} of the gate's {self.task.LINES.noun}s do not fit one window of "
                f"{tokens} tokens; a longer --sequence-length beside it answers them better"
            )

    def encode_selecting(self, labelled: Sequence[Labelled], first_rows: int) -> Sequence[Example]:
        """The questions as rows no longer than the longest bucket, of which so many are read at first."""
        return self._encode(labelled, self._longest_bucket, first_rows)

    def timed_rows(self) -> List[Row]:
        """The gate's rows, no longer than the longest bucket."""
        tokens = self._longest_bucket
        # A skipped gate may have none left, when calibration has them all.
        questions = self._questions.asked or self._questions.shipped
        return [row for example in self._encode(questions, tokens) for row in example.windows]

    # ---- what backends ask for while they export

    @property
    def config(self) -> Config:
        """The checkpoint's config.json."""
        return self.checkpoint.config

    @property
    def input_names(self) -> Tuple[str, ...]:
        """The model's inputs, in forward order."""
        return self.checkpoint.input_names

    @property
    def head(self) -> Head:
        """The task's head."""
        return self.checkpoint.head

    @property
    def outputs(self) -> Tuple[Output, ...]:
        """What the model returns, in order."""
        return self.task.outputs(self.checkpoint.config)

    def torch_model(self) -> TorchModel:
        """The FP32 reference model."""
        return self._model

    def with_model(self, model: TorchModel, checkpoint: Optional[Checkpoint] = None) -> "CompileSource":
        """The same to export ``model`` from, which may be another ``checkpoint``'s, with a self-test of its own.

        Gates and reference are those of the checkpoint being compiled, and this one's to release.
        """
        other = copy.copy(self)
        other._model = model
        other.checkpoint = checkpoint or self.checkpoint
        with closing(ReferenceSession(model, other.outputs, threads=self.threads)) as reference, one_thread_each():
            other.selftest = answered_twice(selftest_batch(self.selftest), reference)
        return other

    def calibration(self) -> List[Batch]:
        """Unpadded single-row batches of the calibration questions."""
        rows = [row for example in self._encode(self._questions.calibration) for row in example.windows]
        return [collate([row], self.tokenizer.pad_id) for row in rows]
