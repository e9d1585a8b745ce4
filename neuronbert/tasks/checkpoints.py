"""Reads a checkpoint (checkpoint/loading.py) for whichever of the tasks has its head."""

from typing import List, Optional

from neuronbert.checkpoint.families import Modules
from neuronbert.checkpoint.loading import Checkpoint, Source
from neuronbert.checkpoint.loading import load_checkpoint as load_with_heads
from neuronbert.tasks import TASKS, load_task


def load_checkpoint(
    source: Source,
    *,
    task: Optional[str] = None,
    revision: Optional[str] = None,
    token: Optional[str] = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
    pooling: Optional[str] = None,
) -> Checkpoint:
    """Read ``source`` and check it as a whole: config, weights and tokenizer. ``head.task`` names its task.

    The task is the one whose head the weights have, and of several the one that the config's class names; without a
    head it is ``"feature-extraction"``, which every encoder serves. ``task`` asks for one by name. ``pooling`` is that
    task's: how token embeddings become one of the text (compile lists what it may be), by default as the
    checkpoint's own files say.

    ``source`` is a folder as transformers saves it, a hub id, ``"demo"`` (the one of the package neuronbert_demo), or
    a pair of transformers objects ``(model, tokenizer)``. ``revision``, ``token`` and ``local_files_only`` concern hub
    ids; one revision pins weights, config and tokenizer, and code from the hub never runs. ``pytorch_model.bin`` is
    read only with ``allow_pickle`` and torch >= 2.6. Raises CheckpointError, and MissingLibrary for what a hub id, a
    pickle or ``"demo"`` needs and is not installed; the hints say what to do.
    """
    return load_with_heads(
        source,
        [load_task(name).HEAD for name in (TASKS if task is None else [task])],
        revision=revision,
        token=token,
        local_files_only=local_files_only,
        allow_pickle=allow_pickle,
        pooling=pooling,
    )


def modules_of_tasks() -> List[Modules]:
    """What tells where the encoder of a checkpoint is, for those who read no head."""
    heads = [load_task(name).HEAD for name in TASKS]
    return [head.modules for head in heads if head.modules is not None]
