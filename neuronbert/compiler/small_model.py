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
    refuse_other_rows(loaded.tokenizer(), teacher.tokenizer(), f"the student {loaded.source}", str(teacher.source))
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


def refuse_other_rows(small: Tokenizer, large: Tokenizer, small_name: str, large_name: str) -> None:
    """UsageError unless both make the same rows of a text, and the small one has as many positions as the large."""
    if not small.makes_rows_of(large):
        raise UsageError(
            f"{small_name} and {large_name} make different rows of a text",
            hint="two checkpoints with the same tokenizer.json and padding_side",
        )
    has, needs = small.max_positions, large.max_positions
    if has is not None and (needs is None or has < needs):
        raise UsageError(
            f"{small_name} has {has} positions, and {large_name} {needs or 'any number'}",
            hint="a small model with as many positions",
        )
