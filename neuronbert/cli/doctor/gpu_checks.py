"""The checks of NVIDIA GPUs, their driver, what hides them and torch's CUDA: facts in, one line of the report out."""

from typing import Optional, Tuple

from neuronbert.cli.doctor.facts import CUDA, Facts
from neuronbert.cli.doctor.machine_checks import FAIL, OK, WARN, Check, faults_of
from neuronbert.errors import counted, shown_value
from neuronbert.hardware.cuda import (
    BY_PLACE,
    DEVICE_ORDER,
    NVML,
    VISIBLE_DEVICES,
    gpus_in_words,
    left_by,
    records_of,
    visible_entries,
)
from neuronbert.hardware.libraries import install_command

_DRIVER_GUIDE = "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/"
_INSTALL_DRIVER = f"install the driver (Ubuntu: sudo ubuntu-drivers install --gpgpu; others: {_DRIVER_GUIDE})"
_GIVE_TO_CONTAINER = "in a container: docker run --gpus all"
# The newest CUDA of a driver → PyTorch's index of the builds that suit it. A driver runs what is built for any minor
# version of its major one (CUDA compatibility guide); builds for 12.8 are the first for GPUs of capability 10 and 12.
_TORCH_INDEXES = (((11, 8), "cu118"), ((12, 0), "cu126"), ((12, 8), "cu128"), ((13, 0), "cu130"))


def check_gpu(facts: Facts) -> Check:
    """The GPUs and their slices by name, the driver, and whether it can be asked."""
    driver, files = facts.nvidia, facts.nvidia_files
    if not files and facts.nvidia_cards:
        cards = counted(facts.nvidia_cards, "NVIDIA GPU")
        found = f"{cards} on the PCI bus and no /dev/nvidia0: no driver, or not given to this container"
        return Check("gpu", WARN, found, f"{_INSTALL_DRIVER}; {_GIVE_TO_CONTAINER}")
    if not files:
        return Check("gpu", OK, "none (/dev/nvidia0)")
    there = f"{counted(len(files), 'GPU')}, driver {facts.nvidia_driver or 'version unknown'}"
    if NVML not in facts.libraries:
        return Check("gpu", WARN, f"{there}; {NVML} is not installed, which asks it for more", install_command("cuda"))
    if driver.fault is not None:
        # A mismatch is what an update of the driver leaves until its module is loaded anew.
        mend = f"nvidia-smi says more; after an update of the driver: sudo reboot; {_GIVE_TO_CONTAINER}"
        return Check("gpu", FAIL, f"{there}, which cannot be asked: {driver.fault}", mend)
    unsliced = [number for number, device in enumerate(driver.devices) if device.in_mig_mode and not device.usable]
    if unsliced:
        number = unsliced[0]
        found = f"GPU {number} ({driver.devices[number].name}) is in MIG mode and has no slices: no process can use it"
        slices = f"sudo nvidia-smi mig -i {number} -cgi PROFILE -C (nvidia-smi mig -i {number} -lgip lists profiles)"
        return Check("gpu", WARN, found, f"{slices}, or sudo nvidia-smi -i {number} -mig 0")
    cuda = f", which runs CUDA up to {_text(driver.cuda)}" if driver.cuda else ""
    named = gpus_in_words(records_of(left_by(None, driver.devices)))
    return Check("gpu", OK, f"{named}; driver {facts.nvidia_driver}{cuda}")


def check_gpu_variables(facts: Facts) -> Check:
    """What CUDA_VISIBLE_DEVICES leaves, and whether CUDA may count otherwise than nvidia-smi."""
    value = facts.environ.get(VISIBLE_DEVICES)
    everything = left_by(None, facts.nvidia.devices)
    if value is None:
        return Check("gpu env", OK, "none set: every GPU" if everything else "none set")
    listed = f"{VISIBLE_DEVICES}={shown_value(value)}"
    if not everything:
        return Check("gpu env", OK, listed)
    left = left_by(value, facts.nvidia.devices)
    if not left:
        found = f"{listed} hides {counted(len(everything), 'GPU')} of this machine, so that CPUs are used"
        return Check("gpu env", WARN, found, f"unset {VISIBLE_DEVICES}")
    by_index = any(entry.isdecimal() for entry in visible_entries(value))
    if by_index and len({device.name for device in facts.nvidia.devices}) > 1:
        if facts.environ.get(DEVICE_ORDER) != BY_PLACE:
            found = f"{listed}: the GPUs differ, and CUDA counts them from the fastest, not as nvidia-smi does"
            return Check("gpu env", WARN, found, f"export {DEVICE_ORDER}={BY_PLACE}")
    return Check("gpu env", OK, f"{listed}: {gpus_in_words(records_of(left))}")


def check_torch_cuda(facts: Facts) -> Check:
    """Whether the installed torch can use the GPUs: it is built with CUDA, and with one that the driver runs."""
    name = "torch cuda"
    version, built_for, runs = facts.libraries.get("torch"), facts.torch_cuda, facts.nvidia.cuda
    built = f"torch {version}" + (f" for CUDA {built_for}" if built_for else ", built without CUDA")
    if not facts.nvidia_files:
        return Check(name, OK, "no GPU to use it" if version is None else f"{built}; no GPU to use it")
    faults = faults_of(facts, CUDA)
    if faults_of(facts, {"torch": CUDA["torch"]}):
        return Check(name, WARN, f"{'; '.join(faults)}, so nothing here uses the GPU", install_command("cuda"))
    if built_for is None:
        return Check(name, WARN, f"{built}, so nothing here uses the GPU", _torch_command(runs))
    if runs is not None and _major(built_for) > runs[0]:
        found = f"driver {facts.nvidia_driver} runs CUDA up to {_text(runs)} and is too old for {built}"
        return Check(name, FAIL, found, f"{_torch_command(runs)}, or {_INSTALL_DRIVER}")
    if faults:
        return Check(name, WARN, "; ".join(faults), install_command("cuda"))
    triton = facts.libraries.get("triton")
    return Check(name, OK, built + (f", triton {triton}" if triton else ", without triton"))


def _torch_command(runs: Optional[Tuple[int, int]]) -> str:
    """How to get a torch for the newest CUDA that the driver runs; PyPI's where that is not known."""
    fitting = [index for least, index in _TORCH_INDEXES if runs is not None and least <= runs]
    index = f" --index-url https://download.pytorch.org/whl/{fitting[-1]}" if fitting else ""
    return f'python -m pip install --force-reinstall "torch{CUDA["torch"]}"{index}'


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _text(version: Tuple[int, int]) -> str:
    return ".".join(map(str, version))
