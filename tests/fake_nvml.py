"""A machine with NVIDIA GPUs, for machines without: what ``pynvml`` says of them, and the files that the driver shows.

tests/hardware/test_cuda.py holds its functions against those of the real module.
"""

import sys
from functools import lru_cache
from types import ModuleType, SimpleNamespace
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import pytest

from neuronbert.hardware import cuda

GIB = 1 << 30


class Slice(NamedTuple):
    uuid: str
    name: str = "NVIDIA A100-SXM4-40GB MIG 1g.5gb"
    memory_bytes: int = 5 * GIB


class Card(NamedTuple):
    """A GPU; ``slices``: None where it has no MIG mode, else its places for slices, some of which may be empty."""

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    capability: Tuple[int, int] = (9, 0)
    memory_bytes: Optional[int] = 80 * GIB  # None: the driver does not say
    slices: Optional[Sequence[Optional[Slice]]] = None
    in_mig_mode: bool = False


A100 = Card("GPU-a100", "NVIDIA A100-SXM4-40GB", (8, 0), 40 * GIB, slices=())
SLICED = A100._replace(slices=(Slice("MIG-1"), None, Slice("MIG-2")), in_mig_mode=True)
UNSLICED = A100._replace(in_mig_mode=True, slices=(None, None))
T4 = Card("GPU-t4", "Tesla T4", (7, 5), 16 * GIB)


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_FunctionNotFound(NVMLError):
    pass


class NVMLError_NotFound(NVMLError):
    pass


def fake_pynvml(
    cards: Sequence[Card], *, version: str = "570.86.15", cuda_version: int = 12080, fault: Optional[str] = None
) -> ModuleType:
    """The module; ``nvmlInit`` fails with ``fault``. Handles are the cards and slices themselves."""
    opened: List[bool] = []

    def nvmlInit() -> None:
        if fault is not None:
            raise NVMLError(fault)
        opened.append(True)

    def nvmlShutdown() -> None:
        opened.pop()

    def nvmlSystemGetDriverVersion() -> str:
        assert opened
        return version

    def nvmlSystemGetCudaDriverVersion() -> int:
        assert opened
        return cuda_version

    def nvmlDeviceGetCount() -> int:
        assert opened
        return len(cards)

    def nvmlDeviceGetHandleByIndex(index: int) -> Card:
        return cards[index]

    def nvmlDeviceGetCudaComputeCapability(handle: Card) -> Tuple[int, int]:
        return handle.capability

    def nvmlDeviceGetMigMode(device: Card) -> List[int]:
        if device.slices is None:
            raise NVMLError_NotSupported("Not Supported")
        return [int(device.in_mig_mode), 1]

    def nvmlDeviceGetMaxMigDeviceCount(device: Card) -> int:
        return len(device.slices or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(device: Card, index: int) -> Slice:
        found = (device.slices or ())[index]
        if found is None:
            raise NVMLError_NotFound("Not Found")
        return found

    def nvmlDeviceGetUUID(handle: Any) -> str:
        return str(handle.uuid)

    def nvmlDeviceGetName(handle: Any) -> str:
        return str(handle.name)

    def nvmlDeviceGetMemoryInfo(handle: Any) -> SimpleNamespace:
        if handle.memory_bytes is None:
            raise NVMLError_NotSupported("Not Supported")
        return SimpleNamespace(total=handle.memory_bytes)

    module = ModuleType("pynvml")
    functions = {name: value for name, value in locals().items() if name.startswith("nvml")}
    errors = {one.__name__: one for one in (NVMLError, *NVMLError.__subclasses__())}
    vars(module).update(**functions, **errors, NVML_DEVICE_MIG_ENABLE=1)
    return module


def use_gpus(monkeypatch: pytest.MonkeyPatch, *cards: Card, files: Optional[int] = None, **more: Any) -> None:
    """This machine has ``cards`` and their driver until the test ends; ``files`` of /dev/nvidia0, ... (None: all)."""
    names = tuple(f"/dev/nvidia{number}" for number in range(len(cards) if files is None else files))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(cuda, "device_files", lambda: names)
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(cards, **more))
    # Another cache, so that what the real machine said comes back with the function.
    monkeypatch.setattr(cuda, "ask_driver", lru_cache(maxsize=1)(cuda.ask_driver.__wrapped__))
