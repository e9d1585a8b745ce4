"""What a smaller model has to share with the one that it stands in for (ladder.py), or answers before (cascade.py)."""

from typing import Any

from neuronbert.checkpoint.loading import Checkpoint, Source
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import UsageError
from neuronbert.tasks import load_task
from neuronbert.tasks.checkpoints import load_checkpoint


def load_student(student: Source, teacher: Checkpoint, **reading: Any) -> Checkpoint:
    """Read a checkpoint with ``teacher``'s task, on the rows that its tokenizer makes; UsageError if it has others.

    ``reading`` are options of tasks.checkpoints.load_checkpoint.
    """
    task = load_task(teacher.head.task)
    loaded = load_checkpoint(student, task=task.NAME, pooling=teacher.pooling, **reading)
    refuse_other_tokens(_tokenizer(loaded), _tokenizer(teacher))
    own, wanted = (task.outputs(checkpoint.config) for checkpoint in (loaded, teacher))
    if own != wanted:
        raise UsageError(
            f"the student {loaded.source} returns {own}, and {teacher.source} {wanted}",
            hint="a student that was made of this checkpoint",
        )
    return loaded


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    files = checkpoint.tokenizer_files()
    return Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], checkpoint.config)


def refuse_other_tokens(small: Tokenizer, large: Tokenizer) -> None:
    """UsageError unless both make the same rows of a text, and the small model reads rows as long as the large one."""
    if not small.makes_rows_of(large):
        raise UsageError(
            "the two models cut text into different tokens", hint="two checkpoints with the same tokenizer"
        )
    if small.max_length is not None and (large.max_length is None or small.max_length < large.max_length):
        raise UsageError(
            f"the small model reads rows of {small.max_length} tokens, and the large one of "
            f"{large.max_length or 'any number'}",
            hint="a small model with as many positions",
        )
