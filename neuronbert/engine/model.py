"""The plain interface to an artifact: token ids in, the model's outputs out; engine.py is the one for texts."""

from threading import Lock
from typing import Any, Dict, Optional, Type, TypeVar, Union

import numpy as np

from neuronbert.artifact.manifest import Artifact, PathLike
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.backends.outputs import refuse_misshapen
from neuronbert.engine.encoded import ArrayLike, encoded_batch, refuse_foreign_tokens
from neuronbert.engine.engine import Engine
from neuronbert.errors import UsageError
from neuronbert.hardware.libraries import optional_imports
from neuronbert.tasks import MODEL_CLASSES

Model = TypeVar("Model", bound="CompiledModel")


class CompiledModel:
    """A compiled model called as the transformers class is: ``model(input_ids, attention_mask, token_type_ids)``."""

    task = ""

    def __init__(self, engine: Engine):
        if engine.task.NAME != self.task:
            raise UsageError(
                f"{engine.artifact.folder} is for {engine.task.NAME}, and {type(self).__name__} for {self.task}",
                hint="neuronbert inspect shows what an artifact is for",
            )
        self.engine = engine
        self.config = engine.tokenizer.config

    @classmethod
    def from_pretrained(
        cls: Type[Model],
        artifact: Union[Artifact, PathLike],
        *,
        variant: Optional[str] = None,
        threads: Optional[int] = None,
        trusted_key: TrustedKey = None,
    ) -> Model:
        """Load an artifact that compile wrote, verified (as for ``load_artifact``) and self-tested."""
        return cls(Engine(artifact, variant=variant, threads=threads, streams=1, trusted_key=trusted_key))

    def __call__(self, input_ids: ArrayLike, attention_mask: ArrayLike = None, token_type_ids: ArrayLike = None) -> Any:
        """The outputs for int [rows, tokens] ids (numpy, lists or torch tensors; torch in, torch out), by name.

        Without a mask every token counts; without token types all are 0. Raises InputError for shapes that differ.
        """
        batch = encoded_batch(input_ids, attention_mask, token_type_ids)
        refuse_foreign_tokens(batch, self.config, self.engine.tokenizer.max_length)
        found = self.engine.session.run(batch)
        outputs = refuse_misshapen(found, self.engine.specs, *batch.input_ids.shape)
        return self.engine.task.MODEL_OUTPUT(**{name: _like(input_ids, array) for name, array in outputs.items()})

    def close(self) -> None:
        """Release the loaded model."""
        self.engine.close()

    def __enter__(self: Model) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_classes: Dict[str, Type[CompiledModel]] = {}
_making = Lock()


def model_class(name: str) -> Type[CompiledModel]:
    """The public class of that name in the table of tasks, always the same one."""
    with _making:
        if name not in _classes:
            attributes = {"task": MODEL_CLASSES[name], "__doc__": CompiledModel.__doc__, "__module__": "neuronbert"}
            _classes[name] = type(name, (CompiledModel,), attributes)
        return _classes[name]


def _like(tokens: ArrayLike, array: np.ndarray) -> ArrayLike:
    """``array`` as it is, or as a torch tensor where ``tokens`` are one."""
    if not hasattr(tokens, "detach"):
        return array
    with optional_imports():
        import torch

    return torch.from_numpy(np.ascontiguousarray(array))
