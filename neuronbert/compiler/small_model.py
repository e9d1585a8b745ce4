"""What a smaller model has to share with the one that it stands in for (ladder.py), or answers before (cascade.py)."""

from typing import Any, Dict

from neuronbert.checkpoint.loading import Checkpoint, Source
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import UsageError
from neuronbert.tasks import load_task
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert.tasks.report_text import shortened

_SHOWN = 200  # characters of labels


def load_student(student: Source, teacher: Checkpoint, **reading: Any) -> Checkpoint:
    """Read a checkpoint that can stand in for ``teacher``: its outputs mean the same, and it reads the same rows.

    UsageError for one that cannot. ``reading`` are options of tasks.checkpoints.load_checkpoint. Where its own files
    have no pooling, it is the teacher's.
    """
    task = teacher.head.task
    loaded = load_checkpoint(student, task=task, **reading)
    if not loaded.says_pooling and loaded.pooling != teacher.pooling:
        loaded = load_checkpoint(student, task=task, pooling=teacher.pooling, **reading)
    own, other = loaded.tokenizer(), teacher.tokenizer()
    refuse_other_rows(own, other)
    if own.max_positions is not None and (other.max_positions is None or own.max_positions < other.max_positions):
        raise UsageError(
            f"the student {loaded.source} has {own.max_positions} positions, and {teacher.source} "
            f"{other.max_positions or 'any number'}",
            hint="a student with as many positions",
        )
    meant, wanted = _meaning(loaded), _meaning(teacher)
    for what in meant:
        if meant[what] != wanted[what]:
            raise UsageError(
                f"the {what} of the student {loaded.source} are {shortened(meant[what], _SHOWN)}, and of "
                f"{teacher.source} {shortened(wanted[what], _SHOWN)}",
                hint="a student whose outputs mean the same, as tools/finetune.py --distil makes it",
            )
    return loaded


def _meaning(checkpoint: Checkpoint) -> Dict[str, str]:
    task = load_task(checkpoint.head.task)
    outputs = (
        f"{name} for each {per}" + ("" if entry is None else f", {' × '.join(map(str, entry))} numbers")
        for name, per, entry in task.outputs(checkpoint.config)
    )
    return {"outputs": "; ".join(outputs), **task.meaning(checkpoint.config)}


def refuse_other_tokens(small: Tokenizer, large: Tokenizer) -> None:
    """UsageError unless both make the same rows of a text, and the small model reads rows as long as the large one."""
    refuse_other_rows(small, large)
    if small.max_length is not None and (large.max_length is None or small.max_length < large.max_length):
        raise UsageError(
            f"the small model reads rows of {small.max_length} tokens, and the large one of "
            f"{large.max_length or 'any number'}",
            hint="a small model with as many positions",
        )


def refuse_other_rows(small: Tokenizer, large: Tokenizer) -> None:
    """UsageError unless both make the same rows of a text, but for their length."""
    if not small.makes_rows_of(large):
        raise UsageError(
            "the two models cut text into different tokens", hint="two checkpoints with the same tokenizer"
        )
