"""What differs between the trainings of two tasks, as a Protocol: one module each; trainer.py and run.py are shared."""

from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Protocol, Sequence, Tuple, Type, Union

from neuronbert.checkpoint.families import Head, Tensor
from neuronbert.checkpoint.loading import BaseCheckpoint
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.tasks.base import Row
from neuronbert_tools.finetuning.options import TrainingOptions

CHUNK = 512  # texts tokenised at a time: encodings of a whole data set would take gigabytes

Target = Union[int, float, Sequence[int], Sequence[float]]  # all of a task in one form: a batch of them is a tensor
# (the model's outputs, attention mask [rows, tokens], targets [rows, ...]) → a scalar
Loss = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]
# (the model's outputs, a teacher's, attention mask [rows, tokens]) → a scalar
Imitation = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], Tensor]


class Lesson(NamedTuple):
    """A row for the model, and what the loss wants of its outputs."""

    row: Row
    target: Target


class Lessons(NamedTuple):
    """All that is learnt from, the loss, and the base as training begins with it.

    The config of ``base`` says what its head tells apart, and its tensors are those to start from: what they lack of
    the head is drawn from the seed (model.py).
    """

    items: List[Lesson]
    loss: Loss
    imitation: Imitation  # the loss where a teacher's outputs are the target (distillation.py)
    base: BaseCheckpoint


class TrainedTask(Protocol):
    """A module that teaches one task."""

    @property
    def HEAD(self) -> Head:
        """Of the model that is trained; its ``task`` is the name."""

    @property
    def SUFFIXES(self) -> Tuple[str, ...]:
        """Of the data files that are for this task where none is named, in lower case."""

    @property
    def OPTIONS(self) -> Type[TrainingOptions]:
        """Its options, a frozen dataclass."""

    def read_base(self, source: str, **hub: Any) -> BaseCheckpoint:
        """Read and check the base, with what it has of the head; ``hub`` as ``load_checkpoint`` has them."""

    def read_lessons(self, paths: Sequence[Path], base: BaseCheckpoint, tokenizer: Tokenizer, options: Any) -> Lessons:
        """Read the data files, with ``options`` an instance of OPTIONS; InputError if there is nothing to learn."""
