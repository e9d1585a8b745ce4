"""Makes the public classes that tasks write over something that answers (tasks.base.Answerer): here over an Engine."""

import importlib
from threading import Lock
from typing import Any, Dict, Optional, Type, Union

from neuronbert.artifact.manifest import Artifact, PathLike
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.engine.answering import refuse_other_task
from neuronbert.engine.engine import Engine
from neuronbert.errors import UsageError
from neuronbert.tasks import OBJECT_CLASSES


class OverArtifact:
    """The first base of such a class: it is made with an artifact, and closes what it opens."""

    task = ""

    def __init__(
        self,
        artifact: Union[Artifact, PathLike, Engine],
        *,
        variant: Optional[str] = None,
        threads: Optional[int] = None,
        trusted_key: TrustedKey = None,
        **keywords: Any,
    ):
        """Load an artifact that compile wrote, or take an Engine; ``variant``, ``threads`` and ``trusted_key`` are its.

        ArtifactError where the artifact is for another task.
        """
        if isinstance(artifact, Engine):
            if (variant, threads, trusted_key) != (None, None, None):
                raise UsageError(
                    "variant, threads and trusted_key are chosen when an Engine is made",
                    hint="Engine(ARTIFACT, variant=...)",
                )
            refuse_other_task(artifact.artifact, self.task)
            self.engine, self._owns_engine = artifact, False
        else:
            refuse_other_task(artifact, self.task, trusted_key)
            self.engine = Engine(artifact, variant=variant, threads=threads, trusted_key=trusted_key)
            self._owns_engine = True
        try:
            super().__init__(self.engine, **keywords)  # type: ignore[call-arg]  # the task's own class is the next one
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the loaded model, unless somebody else's Engine was taken."""
        if self._owns_engine:
            self.engine.close()

    def __enter__(self) -> "OverArtifact":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_classes: Dict[str, Type[OverArtifact]] = {}
_making = Lock()


def object_class(name: str) -> Type[OverArtifact]:
    """The public class of that name in the table of tasks, always the same one."""
    with _making:
        if name not in _classes:
            of_task = getattr(importlib.import_module(OBJECT_CLASSES[name]), name)
            attributes = {"task": of_task.task, "__doc__": of_task.__doc__, "__module__": "neuronbert"}
            _classes[name] = type(name, (OverArtifact, of_task), attributes)
        return _classes[name]
