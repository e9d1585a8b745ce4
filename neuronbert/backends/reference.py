"""The FP32 reference: the checkpoint itself on the CPU, behind the same Session that variants have."""

import logging
import warnings
from contextlib import contextmanager
from typing import Any, Iterator, Optional, Sequence

from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import Output, Outputs, named


@contextmanager
def quietly_walked() -> Iterator[None]:
    """Without two warnings of transformers that torch.jit provokes while it traces: it reads every attribute there is.

    Among them are ``loss_function``, of which a model without a head says that its loss_type is unknown, and the
    deprecated ``is_gradient_checkpointing``. Nothing here uses either.
    """

    def other(record: logging.LogRecord) -> bool:
        return "loss_type=None" not in record.getMessage()

    log = logging.getLogger("transformers.modeling_utils")
    log.addFilter(other)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
            yield
    finally:
        log.removeFilter(other)


class ReferenceSession:
    """``model`` (Checkpoint.torch_model) as a Session. ``threads`` sets torch's thread count, which is per process."""

    precision = "fp32"
    concurrency = 1

    def __init__(self, model: Any, outputs: Sequence[Output], threads: Optional[int] = None):
        import torch

        self._torch = torch
        self._model = model
        self._outputs = tuple(outputs)
        if threads is not None:
            torch.set_num_threads(threads)

    def run(self, batch: Batch) -> Outputs:
        """The outputs of one batch."""
        with self._torch.inference_mode():
            found = self._model(*(self._torch.from_numpy(array) for array in batch))
        return named(self._outputs, [tensor.numpy() for tensor in found])

    def close(self) -> None:
        """Drop the model."""
        self._model = None
