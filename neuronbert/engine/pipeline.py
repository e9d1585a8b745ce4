"""`neuronbert.pipeline`: transformers' call of that name over an Engine; the task has the pipeline itself."""

import os
from pathlib import Path
from typing import Any, Optional, Union

from neuronbert.artifact.manifest import MANIFEST_NAME, Artifact, is_artifact
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.engine.engine import Engine
from neuronbert.errors import ArtifactError, UsageError, quoted
from neuronbert.tasks import ALIASES, TASKS, load_task
from neuronbert.tasks.base import Task


def pipeline(
    task: Optional[str] = None,
    model: Union[str, Path, Artifact, Engine, None] = None,
    *,
    variant: Optional[str] = None,
    threads: Optional[int] = None,
    trusted_key: TrustedKey = None,
    **keywords: Any,
) -> Any:
    """The pipeline of ``task`` over a compiled artifact, called as the one in transformers is.

    model: the artifact or its folder, or an Engine. variant, threads, trusted_key: as for Engine (only without one).
    Everything else goes to the pipeline. UsageError for another task than the artifact's or no model; ArtifactError,
    with the command that compiles it, for a checkpoint that was not compiled.
    """
    task = ALIASES.get(task, task) if isinstance(task, str) else task
    if task not in (None, *TASKS):
        raise UsageError(
            f"neuronbert has no {task!r} pipeline", hint=f"pipeline({next(iter(TASKS))!r}, model=ARTIFACT)"
        )
    if model is None:
        raise UsageError(
            "pipeline() needs a model: there is no default one",
            hint="neuronbert compile demo qa-artifact, then pipeline(model='qa-artifact')",
        )
    if isinstance(model, (str, Path, Artifact)):
        if not isinstance(model, Artifact):
            refuse_checkpoint(model)
        model = Engine(model, variant=variant, threads=threads, trusted_key=trusted_key)
    elif variant is not None or threads is not None or trusted_key is not None:
        raise UsageError(
            "variant, threads and trusted_key are chosen when an Engine is made", hint="Engine(ARTIFACT, variant=...)"
        )
    if not callable(getattr(model, "answer", None)):
        raise UsageError(
            f"a {type(model).__name__} is not an artifact or an Engine",
            hint="compile_checkpoint((model, tokenizer), 'qa-artifact'), then pipeline(model='qa-artifact')",
        )
    # What only answers as an Engine does may not say for which task.
    served: Task = getattr(model, "task", None) or load_task(task or next(iter(TASKS)))
    if task not in (None, served.NAME):
        raise UsageError(
            f"{model.artifact.folder} is for {served.NAME}, not for {task}",
            hint=f"pipeline({served.NAME!r}, model=ARTIFACT)",
        )
    return served.pipeline(model, **keywords)


def refuse_checkpoint(model: Union[str, Path]) -> None:
    """ArtifactError, with the command that compiles it, unless ``model`` is a folder with a manifest."""
    if is_artifact(model):
        return
    if os.path.isdir(model):
        reason = f"{model} is a folder without {MANIFEST_NAME}: a checkpoint must be compiled before it can answer"
    else:
        reason = f"there is no artifact at {model}; a checkpoint must be compiled before it can answer"
    raise ArtifactError(
        reason, hint=f"neuronbert compile {quoted(model)} qa-artifact, then pipeline(model='qa-artifact')"
    )
