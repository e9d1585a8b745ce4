"""The FP32 reference: the checkpoint itself on the CPU, behind the same Session that variants have."""

from typing import Any, Optional

from neuronbert.backends import Batch, Logits


class ReferenceSession:
    """``model`` (Checkpoint.torch_model) as a Session. ``threads`` sets torch's thread count, which is per process."""

    precision = "fp32"
    concurrency = 1

    def __init__(self, model: Any, threads: Optional[int] = None):
        import torch

        self._torch = torch
        self._model = model
        if threads is not None:
            torch.set_num_threads(threads)

    def run(self, batch: Batch) -> Logits:
        """The logits of one batch, float32 [rows, tokens]."""
        with self._torch.inference_mode():
            start, end = self._model(*(self._torch.from_numpy(array) for array in batch))
        return Logits(start.numpy(), end.numpy())

    def close(self) -> None:
        """Drop the model."""
        self._model = None
