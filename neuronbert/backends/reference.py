"""The FP32 reference: the checkpoint itself on the CPU, as a Session like those of the backends."""

from typing import Optional, Sequence

from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import Output, Outputs, named
from neuronbert.checkpoint.families import TorchModel


class ReferenceSession:
    """``model`` (Checkpoint.torch_model) as a Session. ``threads`` sets torch's thread count, which is per process."""

    precision = "fp32"
    concurrency = 1

    def __init__(self, model: TorchModel, outputs: Sequence[Output], threads: Optional[int] = None):
        import torch

        self._torch = torch
        self._model = model
        self._outputs = tuple(outputs)
        if threads is not None:
            torch.set_num_threads(threads)

    def run(self, batch: Batch) -> Outputs:
        """The outputs of one batch."""
        with self._torch.inference_mode():
            tensors = self._model(*(self._torch.from_numpy(array) for array in batch))
        return named(self._outputs, [tensor.numpy() for tensor in tensors])

    def close(self) -> None:
        """Drop the model."""
        self._model = None
