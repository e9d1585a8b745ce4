"""What decides the weights of a run, and the choice of device and precision where the user leaves it open."""

from dataclasses import dataclass
from typing import Optional

from neuronbert.errors import UsageError
from neuronbert.hardware.machine import has_bf16


@dataclass(frozen=True)
class TrainingOptions:
    """What decides the final weights, whatever is trained; a run is resumed only under the same ones.

    Each task (task.py) has a class of its own below this one, with ``max_seq_len`` and what else makes its rows.
    """

    epochs: int = 2
    learning_rate: float = 5e-5
    warmup: float = 0.1  # share of the steps
    batch_size: int = 16  # rows
    freeze_embeddings: bool = False
    layers: Optional[int] = None  # of the base's, at even distances; None: all
    feed_forward: Optional[int] = None  # columns of each layer that stay (narrowing.py); None: all
    seed: int = 0
    precision: str = "auto"  # bf16 or fp32; auto until the device is known


def choose_device(name: str) -> str:
    """``auto`` is the GPU where torch sees one."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: this torch sees no GPU", hint="--device auto")
    return name


def choose_precision(name: str, device: str) -> str:
    """``auto`` is bf16 where the hardware multiplies in it; a CPU without it is several times slower than in fp32."""
    import torch

    if name != "auto":
        return name
    fast = torch.cuda.is_bf16_supported() if device.startswith("cuda") else has_bf16()
    return "bf16" if fast else "fp32"
