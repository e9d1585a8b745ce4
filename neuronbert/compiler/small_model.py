"""What a smaller model has to share with the one that it stands in for (ladder.py), or answers before (cascade.py)."""

from itertools import chain
from typing import Any, List, Tuple

from neuronbert.backends.outputs import Output
from neuronbert.checkpoint.families import family_of
from neuronbert.checkpoint.head_steps import Normalize, Pool
from neuronbert.checkpoint.loading import Checkpoint, Source
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import UsageError
from neuronbert.tasks import load_task
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert.tasks.labels import first_labels, label_names

Meaning = List[Tuple[str, Any]]  # what outputs are read by: in words, and its value


def load_student(student: Source, teacher: Checkpoint, **reading: Any) -> Checkpoint:
    """Read a checkpoint that can stand in for ``teacher``: its outputs mean the same, and it reads the same rows.

    UsageError for one that cannot. ``reading`` are options of tasks.checkpoints.load_checkpoint. Where its own files
    have no pooling, it is the teacher's.
    """
    task = teacher.head.task
    loaded = load_checkpoint(student, task=task, **reading)
    if not loaded.says_pooling and loaded.pooling != teacher.pooling:
        loaded = load_checkpoint(student, task=task, pooling=teacher.pooling, **reading)
    own, other = _tokenizer(loaded), _tokenizer(teacher)
    refuse_other_rows(own, other)
    if own.max_positions is not None and (other.max_positions is None or own.max_positions < other.max_positions):
        raise UsageError(
            f"the student {loaded.source} has {own.max_positions} positions, and {teacher.source} "
            f"{other.max_positions or 'any number'}",
            hint="a student with as many positions",
        )
    for (what, value), (_, wanted) in zip(_meaning(loaded), _meaning(teacher)):
        if value != wanted:
            raise UsageError(
                f"the student {loaded.source} has the {what} {_shown(value)}, and {teacher.source} {_shown(wanted)}",
                hint="a student whose outputs mean the same, as tools/finetune.py --distil makes it",
            )
    return loaded


def _meaning(checkpoint: Checkpoint) -> Meaning:
    config, head = checkpoint.config, checkpoint.head
    outputs: Meaning = [("outputs", load_task(head.task).outputs(config))]
    if head.modules is not None:
        steps = chain(*head.steps(family_of(config, checkpoint.source), config))
        return [*outputs, ("pooling", [step for step in steps if isinstance(step, (Pool, Normalize))])]
    if head.labels is not None:
        return [*outputs]
    labels = label_names(config)
    # transformers' own rule, where the config says nothing.
    kind = config.get("problem_type") or ("regression" if len(labels) == 1 else "single_label_classification")
    return [*outputs, ("labels", labels), ("problem_type", kind)]


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and all(isinstance(one, Output) for one in value):
        return ", ".join(
            f"{name} for each {per}" + ("" if entry is None else f", {' × '.join(map(str, entry))} numbers")
            for name, per, entry in value
        )
    return first_labels(value) if isinstance(value, tuple) else str(value)


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    files = checkpoint.tokenizer_files()
    return Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], checkpoint.config)


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
