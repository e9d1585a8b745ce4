"""Narrows the feed-forward part of a model before it is trained: the columns that its outputs need least go first.

compile's ladder cuts each layer as much as it can bear, which no config.json can say. Here all layers keep as many.
"""

from typing import Any, Sequence, Tuple

from neuronbert.checkpoint.families import Family, size_of, with_size
from neuronbert.checkpoint.loading import BaseCheckpoint
from neuronbert.checkpoint.removal import COLUMN_MULTIPLE, Sizes, columns_kept
from neuronbert.engine.batches import collate
from neuronbert.errors import UsageError
from neuronbert_tools.console import print_message
from neuronbert_tools.finetuning.task import Lesson, Lessons
from neuronbert_tools.peers.texts import spaced

ROWS = 128  # that columns are weighed on, as compile does (compiler/pruner.py)


def refuse_columns(base: BaseCheckpoint, columns: int) -> None:
    """UsageError for no fewer than the base has, and for a number that engines would round up."""
    there = size_of(base.config, base.family, "intermediate_size")
    if columns % COLUMN_MULTIPLE == 0 and columns < there:
        return
    half = max(COLUMN_MULTIPLE, there // 2 // COLUMN_MULTIPLE * COLUMN_MULTIPLE)
    raise UsageError(
        f"--feed-forward {columns}: {base.source} has {there} columns, and can keep a multiple of {COLUMN_MULTIPLE} "
        "that is less",
        hint=f"--feed-forward {half}" if half < there else "leave --feed-forward out",
    )


def narrowed(model: Any, lessons: Lessons, columns: int, pad_id: int, *, fitted: bool = True) -> Tuple[Any, Lessons]:
    """The model with so many columns in each layer, fitted to what it was, and lessons whose base says so.

    ``model`` is one that was not trained yet (model.py); it stays as it is. One that is not ``fitted`` has the shape
    alone, for weights that are read.
    """
    from neuronbert.checkpoint.pruning import pruned, sizes_of

    base = lessons.base
    rows = [_row(item, pad_id) for item in spaced(lessons.items, ROWS)]
    sizes = sizes_of(model, base.family, size_of(base.config, base.family, "num_attention_heads"), rows)
    if fitted:
        narrow = _fitted(model, base.family, sizes, rows, columns)
    else:
        any_columns = sizes.all_kept[0]._replace(columns=tuple(range(columns)))
        narrow = pruned(model, base.family, sizes, [any_columns] * sizes.layers)
    config = with_size(base.config, base.family, "intermediate_size", columns)
    return narrow, lessons._replace(base=base._replace(config=config))


def _fitted(model: Any, family: Family, sizes: Sizes, rows: Sequence[Tuple[Any, ...]], columns: int) -> Any:
    """The model with the columns that its outputs need most, whose weights make up for the others."""
    from neuronbert.checkpoint.importance import removals
    from neuronbert.checkpoint.pruning import pruned
    from neuronbert.checkpoint.reconstruction import reconstruct

    print_message(f"weighing feed-forward columns on {len(rows)} rows")
    narrow = pruned(model, family, sizes, columns_kept(removals(model, family, sizes, rows), sizes, columns))
    reconstruct(narrow, model, family, rows)
    return narrow


def _row(item: Lesson, pad_id: int) -> Tuple[Any, ...]:
    import torch

    return tuple(torch.from_numpy(array) for array in collate([item.row], pad_id))
