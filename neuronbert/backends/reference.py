"""The FP32 reference: the checkpoint itself on the CPU, as a Session like those of the backends."""

from contextlib import contextmanager
from typing import ContextManager, Iterator, Optional, Sequence

from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import Output, Outputs, named
from neuronbert.checkpoint.families import TorchModel
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.machine import compute_threads

# One row in a batch: the reference must not depend on how rows are batched or padded.
ROW_BY_ROW = ThroughputPlan(streams=1, rows=1, tokens=1)


def one_thread_each() -> ContextManager[None]:
    """Inside the block torch gives each run one thread.

    One row is too little work for several threads: they wait for one another, and a busy neighbour holds up all of
    them. Not set once for all: a TorchScript variant that is loaded meanwhile sets its own.
    """
    return torch_threads(1)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside the block torch computes with ``count`` threads; that is per process, and is restored afterwards."""
    with optional_imports():
        import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ReferenceSession:
    """``model`` (Checkpoint.torch_model) as a Session that may run ``threads`` batches at once, ``one_thread_each``."""

    precision = "fp32"

    def __init__(self, model: TorchModel, outputs: Sequence[Output], threads: Optional[int] = None):
        with optional_imports():
            import torch

        self._torch = torch
        self._model = model
        self._outputs = tuple(outputs)
        self.concurrency = threads or compute_threads()

    def run(self, batch: Batch) -> Outputs:
        """The outputs of one batch."""
        with self._torch.inference_mode():
            tensors = self._model(*(self._torch.from_numpy(array) for array in batch))
        return named(self._outputs, [tensor.numpy() for tensor in tensors])

    def close(self) -> None:
        """Drop the model."""
        self._model = None
