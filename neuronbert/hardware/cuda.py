"""What the NVIDIA driver says of this machine's GPUs, asked through NVML; ``requirements`` and the doctor ask here.

torch is never asked: it takes seconds to import, and a process that has asked CUDA for its GPUs can no longer be given
another one. ``machine`` puts what is found into manifests and reports.
"""

import os
import re
from functools import lru_cache
from glob import glob
from pathlib import Path
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, TypedDict

from neuronbert.errors import counted, shown_value
from neuronbert.hardware.system_files import read_text

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
DEVICE_ORDER, BY_PLACE = "CUDA_DEVICE_ORDER", "PCI_BUS_ID"  # as NVML counts; by default CUDA puts the fastest first
NVML = "nvidia-ml-py"  # the distribution of pynvml
GIB = 1 << 30
# vendor, and the base class of display controllers (PCI code and ID assignment specification, 1.4).
_PCI_VENDOR, _PCI_DISPLAY = "0x10de", "0x03"
# "0", " 1", and "2nd", of which CUDA reads the 2 as C's strtoul does.
_INDEX = re.compile(r"\s*([+-]?)([0-9]+)")


class Gpu(NamedTuple):
    """What one process can use: a whole GPU, or a slice of one in MIG mode."""

    identifier: str  # what CUDA_VISIBLE_DEVICES takes: its UUID, "GPU-…" or "MIG-…"
    name: str  # "NVIDIA H100 80GB HBM3"; a slice's ends with its profile
    compute_capability: Tuple[int, int]
    memory_bytes: int  # 0 where the driver does not say, as where CPU and GPU share it
    number: int = 0  # of the GPU, as nvidia-smi counts them; its slices have the same

    @property
    def capability(self) -> str:
        """The compute capability as text: ``9.0``."""
        return ".".join(map(str, self.compute_capability))


class Device(NamedTuple):
    """A GPU as the driver lists it: itself, or in MIG mode its slices, of which there may be none."""

    identifier: str
    name: str
    in_mig_mode: bool
    usable: Tuple[Gpu, ...]


class Driver(NamedTuple):
    """The driver's answers; ``fault`` says in words why it gave none, and None where it did or there is no driver."""

    version: Optional[str] = None  # "570.86.15"
    cuda: Optional[Tuple[int, int]] = None  # the newest that it runs
    devices: Tuple[Device, ...] = ()
    fault: Optional[str] = None


class GpuRecord(TypedDict):
    """What manifests and reports record of a GPU."""

    name: str
    compute_capability: str
    memory_bytes: int


def device_files() -> Tuple[str, ...]:
    """The files that the driver shows, one for each GPU: /dev/nvidia0, ..."""
    return tuple(sorted(glob("/dev/nvidia[0-9]*")))


def has_gpu() -> bool:
    """Whether the NVIDIA driver shows a GPU, whatever may be installed to ask for it."""
    return bool(device_files())


def count_cards(devices: Path = Path("/sys/bus/pci/devices")) -> int:
    """How many NVIDIA GPUs the PCI bus shows, with a driver or without."""
    return sum(
        read_text(vendor).strip() == _PCI_VENDOR and read_text(vendor.parent / "class").startswith(_PCI_DISPLAY)
        for vendor in devices.glob("*/vendor")
    )


def visible_gpus(environ: Optional[Mapping[str, str]] = None) -> List[Gpu]:
    """What CUDA_VISIBLE_DEVICES (of this process by default) leaves of the machine's GPUs and slices, in its order.

    Empty where there is no driver, or none that can be asked (``why_no_gpu``). A process that is given several slices
    uses the first of them only: CUDA has one slice for each process.
    """
    return left_by((os.environ if environ is None else environ).get(VISIBLE_DEVICES), ask_driver().devices)


def driver_version() -> Optional[str]:
    """The release of the loaded driver, such as ``570.86.15``; None where none is loaded or it does not say."""
    return ask_driver().version or read_text(Path("/sys/module/nvidia/version")).strip() or None


def why_no_gpu() -> Optional[str]:
    """Why this process has no GPU, in words; None where it has one."""
    driver = ask_driver()
    usable = left_by(None, driver.devices)
    if not has_gpu():
        return "/dev/nvidia0 does not exist: no driver is loaded, or this container was given no GPU"
    if driver.fault is not None:
        return f"the driver cannot be asked: {driver.fault}"
    if not usable:
        unsliced = sum(device.in_mig_mode for device in driver.devices)
        return f"{counted(unsliced, 'GPU')} in MIG mode without slices" if unsliced else "the driver lists none"
    if not visible_gpus():
        value = shown_value(os.environ.get(VISIBLE_DEVICES))
        return f"{VISIBLE_DEVICES}={value} hides {counted(len(usable), 'GPU')} of this machine"
    return None


def gpu_records() -> List[GpuRecord]:
    """The GPUs and slices that this process may use, for manifests and reports."""
    return records_of(visible_gpus())


def records_of(gpus: Sequence[Gpu]) -> List[GpuRecord]:
    """``gpus`` as plain JSON data, without what differs between two of a kind."""
    return [{"name": gpu.name, "compute_capability": gpu.capability, "memory_bytes": gpu.memory_bytes} for gpu in gpus]


def gpus_in_words(gpus: Sequence[GpuRecord]) -> str:
    """``2 × NVIDIA L4 (compute capability 8.9, 22.5 GiB)``, several kinds separated by commas."""
    kinds = list(dict.fromkeys(map(_kind, gpus)))
    counts = {kind: sum(kind == _kind(gpu) for gpu in gpus) for kind in kinds}
    return ", ".join(kind if count == 1 else f"{count} × {kind}" for kind, count in counts.items())


def _kind(gpu: GpuRecord) -> str:
    memory = f", {gpu['memory_bytes'] / GIB:.1f} GiB" if gpu["memory_bytes"] else ""
    return f"{gpu['name']} (compute capability {gpu['compute_capability']}{memory})"


# ---------------------------------------------------------------------------- CUDA_VISIBLE_DEVICES


def visible_entries(value: str) -> List[str]:
    """What CUDA reads of the value of CUDA_VISIBLE_DEVICES: indices as text, or beginnings of UUIDs of one kind.

    It stops at the first entry that is of no use or of another kind, and reads nothing where an entry stands twice
    (CUDA C++ Programming Guide, "CUDA environment variables"; torch/cuda/__init__.py reads it so, too).
    """
    prefix = next((prefix for prefix in ("GPU-", "MIG-") if value.startswith(prefix)), None)
    entries: List[str] = []
    for text in value.split(","):
        entry = _index(text) if prefix is None else text if text.startswith(prefix) else None
        if entry is None:
            break
        if entry in entries:
            return []
        entries.append(entry)
    return entries


def left_by(value: Optional[str], devices: Sequence[Device]) -> List[Gpu]:
    """What a value of CUDA_VISIBLE_DEVICES (None: not set) leaves of ``devices``; a GPU in MIG mode is its slices."""
    if value is None:
        return [gpu for device in devices for gpu in device.usable]
    choices = {device.identifier: device.usable for device in devices}
    if value.startswith("MIG-"):
        choices = {gpu.identifier: (gpu,) for device in devices if device.in_mig_mode for gpu in device.usable}
    chosen: List[str] = []
    for entry in visible_entries(value):
        identifier = _named(entry, [*choices])
        if identifier is None:
            break
        if identifier in chosen:
            return []
        chosen.append(identifier)
    return [gpu for identifier in chosen for gpu in choices[identifier]]


def _index(text: str) -> Optional[str]:
    """The index at the beginning of ``text``, in its shortest form; None for one below 0, or no number."""
    match = _INDEX.match(text)
    if match is None:
        return None
    number = match.group(2).lstrip("0") or "0"
    return None if match.group(1) == "-" and number != "0" else number


def _named(entry: str, identifiers: Sequence[str]) -> Optional[str]:
    """The one that ``entry`` is the index or the beginning of; None for none, or several."""
    if entry.isdecimal():
        found = identifiers[int(entry) :][:1] if len(entry) <= len(str(len(identifiers))) else []
    else:
        found = [identifier for identifier in identifiers if identifier.startswith(entry)]
    return found[0] if len(found) == 1 else None


# ---------------------------------------------------------------------------- NVML


@lru_cache(maxsize=1)
def ask_driver() -> Driver:
    """What the driver says, asked once in a process: it takes up to a second where no other process uses a GPU."""
    if not has_gpu():
        return Driver()
    try:
        import pynvml
    except ImportError:
        return Driver(fault=f"{NVML} is not installed")
    try:
        pynvml.nvmlInit()
        try:
            return _answers(pynvml)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:  # no libnvidia-ml.so.1, one of another release, a GPU that is lost
        return Driver(fault=str(error))


def _answers(nvml: Any) -> Driver:
    cuda = nvml.nvmlSystemGetCudaDriverVersion()
    devices = tuple(_device(nvml, number) for number in range(nvml.nvmlDeviceGetCount()))
    return Driver(nvml.nvmlSystemGetDriverVersion(), (cuda // 1000, cuda % 1000 // 10), devices)


def _device(nvml: Any, number: int) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(number)
    capability = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    in_mig_mode = _in_mig_mode(nvml, handle)
    parts = _slices(nvml, handle) if in_mig_mode else [handle]
    usable = tuple(
        Gpu(
            nvml.nvmlDeviceGetUUID(part),
            nvml.nvmlDeviceGetName(part),
            (capability[0], capability[1]),
            _memory_bytes(nvml, part),
            number,
        )
        for part in parts
    )
    return Device(nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle), in_mig_mode, usable)


def _in_mig_mode(nvml: Any, handle: Any) -> bool:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):  # a GPU without it, a driver without it
        return False
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _slices(nvml: Any, handle: Any) -> Iterator[Any]:
    for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
        except nvml.NVMLError_NotFound:  # a place that no slice has
            continue


def _memory_bytes(nvml: Any, handle: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError_NotSupported:
        return 0


# ---------------------------------------------------------------------------- torch


def torch_cuda_version() -> Optional[str]:
    """The CUDA that the installed torch is built for, such as ``12.8``, without importing it; None for a build without.

    torch/version.py of every build says it; so does the end of a version from PyTorch's own index ("2.9.0+cu128").
    """
    from importlib import metadata  # 20 ms that most commands never need

    try:
        place = metadata.distribution("torch").locate_file("torch/version.py")
    except metadata.PackageNotFoundError:
        return None
    match = re.search(r"^cuda\b[^=\n]*=\s*['\"]([0-9.]+)['\"]", read_text(Path(str(place))), re.MULTILINE)
    return match.group(1) if match else None
