"""What the Neuron driver and tools say of this machine and how to install them; the backend and the doctor ask here."""

import json
import re
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from neuronbert.errors import in_words
from neuronbert.hardware.system_files import read_text

NEURON_TOOLS = "/opt/aws/neuron/bin"
NEURON_INDEX = "--extra-index-url https://pip.repos.neuron.amazonaws.com"
# What neuron-cc 1.24 needs around it, as AWS locked it (aws-samples/sample-YOLOv8-neuron, neuron_env.yml): TensorFlow
# is 1.15.5, which uses np.object (gone in numpy 1.24) and generated code that protobuf 4 refuses. Each has a bound that
# what may be there already does not meet: pip leaves PyPI's placeholder neuron-cc 1.0 and a numpy 1.21 where they are.
NEURON_INSTALL = (
    'python -m pip install "torch-neuron==1.13.1.*" "neuron-cc[tensorflow]>=1.13" "protobuf==3.20.1" "numpy==1.22.2" '
    + NEURON_INDEX
)
# The newest that the index has wheels of torch-neuron 1.13.1 for; the oldest that neuronbert runs on is 3.8.
NEWEST_NEURON_PYTHON = (3, 10)
# The index's first real releases that serve torch 1.13; torch-neuron and neuron-cc 1.0 elsewhere are placeholders.
FIRST_REAL_NEURON = ">=1.13"
# The last that drives Inferentia 1; and the last tools that run on a glibc older than 2.34 (aws/amazon-ecs-ami#539).
DRIVER_RELEASE = "2.24.*"
TOOLS_RELEASE = "2.25.*"
# The smallest that AWS recommends for compiling is a c5.4xlarge, 32 GiB, of which Linux shows some 31. Where a BERT's
# compile was killed, its advice was an inf1.6xlarge, 48 GiB (aws-neuron-sdk#439), on which its tutorials compile.
COMPILE_MEMORY_BYTES = 30 << 30
# vendor, devices: Inferentia 1 in the PCI table of AWS's driver (aws-neuron-driver, neuron_device.h).
INF1_PCI_VENDOR = "0x1d0f"
INF1_PCI_DEVICES = ("0x7064", "0x7065", "0x7066", "0x7067")
# More cores than any instance has: a longer range is a typing error, not a list to build.
_LONGEST_RANGE = 1024


class PackageCommands(NamedTuple):
    """What a system's package manager is told, for the advice of errors; the names are placeholders there.

    Installing works too where a newer release is installed and held: apt and yum refuse to downgrade it otherwise
    (AWS's setup helper, neuronsetuphelper.py: ``--allow-downgrades``, and for yum remove it before).
    """

    install_driver: str
    install_tools: str
    install_headers: str  # of the kernel, for building the driver
    remove_old_driver: str  # that of 2.5 and older, with which runtimes since SDK 2.5.0 fail (AWS's nrt-troubleshoot)
    remove_runtime: str  # torch-neuron brings its own


def _apt_install(package: str, release: str) -> str:
    return f"sudo apt-get install -y --allow-downgrades --allow-change-held-packages {package}={release}"


def _yum_install(package: str, release: str) -> str:
    released = f"sudo yum versionlock delete {package}; sudo yum remove -y {package}"
    return f"{released}; sudo yum install -y {package}-{release}"


PACKAGE_COMMANDS: Dict[str, PackageCommands] = {
    "apt": PackageCommands(
        _apt_install("aws-neuronx-dkms", DRIVER_RELEASE),
        _apt_install("aws-neuronx-tools", TOOLS_RELEASE),
        "sudo apt-get install -y linux-headers-$(uname -r)",
        "sudo apt-get remove -y aws-neuron-dkms",
        "sudo apt-get remove -y aws-neuronx-runtime-lib aws-neuronx-collectives",
    ),
    "yum": PackageCommands(
        _yum_install("aws-neuronx-dkms", DRIVER_RELEASE),
        _yum_install("aws-neuronx-tools", TOOLS_RELEASE),
        "sudo yum install -y kernel-devel-$(uname -r) kernel-headers-$(uname -r)",
        "sudo yum remove -y aws-neuron-dkms",
        "sudo yum remove -y aws-neuronx-runtime-lib aws-neuronx-collectives",
    ),
}


def package_manager() -> str:
    """The one of PACKAGE_COMMANDS that this system has: yum on Amazon Linux, and apt where there is neither."""
    return "yum" if shutil.which("yum") and not shutil.which("apt-get") else "apt"


def neuron_install_command(python: Tuple[int, ...] = sys.version_info[:2]) -> str:
    """How to install torch-neuron and neuron-cc; which Python that takes, where ``python`` has no wheels."""
    if python[:2] <= NEWEST_NEURON_PYTHON:
        return NEURON_INSTALL
    here, newest = (".".join(map(str, version)) for version in (python[:2], NEWEST_NEURON_PYTHON))
    return f"with Python 3.8 to {newest} (torch-neuron has no wheels for {here}): {NEURON_INSTALL}"


def neuron_install_hint(python: Tuple[int, ...] = sys.version_info[:2]) -> str:
    """What to do where torch-neuron is missing: how to install it, in which Python, and what stands in for it."""
    return f"{neuron_install_command(python)}; or, for the emulator: export NEURONBERT_EMULATE=inf1.xlarge"


def device_files() -> Tuple[str, ...]:
    """The files that the driver shows, one for each chip: /dev/neuron0, ..."""
    return tuple(sorted(glob("/dev/neuron[0-9]*")))


def driver_version() -> Optional[str]:
    """The release of the loaded driver, e.g. ``2.24.13.0``; None where none is loaded or it does not say."""
    return read_text(Path("/sys/module/neuron/version")).strip() or None


def count_inferentia_chips(devices: Path = Path("/sys/bus/pci/devices")) -> int:
    """How many Inferentia 1 chips the PCI bus shows, with a driver or without."""
    return sum(
        read_text(vendor).strip() == INF1_PCI_VENDOR and read_text(vendor.parent / "device").strip() in INF1_PCI_DEVICES
        for vendor in devices.glob("*/vendor")
    )


def run_neuron_ls(tool: str = f"{NEURON_TOOLS}/neuron-ls") -> Optional[str]:
    """What ``neuron-ls -j`` prints, or in words why it cannot be run; None where there is no such tool."""
    try:
        done = subprocess.run([tool, "-j"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10)
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        return in_words(error)
    return done.stdout.decode("utf-8", errors="replace")


class CoreHolder(NamedTuple):
    """A process that holds NeuronCores, as neuron-ls describes it."""

    device: object  # its number, normally
    pid: object
    command: str


def core_holders(neuron_ls: str) -> Optional[List[CoreHolder]]:
    """Each process that holds cores, from what ``neuron-ls -j`` printed; None if that lists no devices."""
    try:
        devices = json.loads(neuron_ls)
    except ValueError:
        return None
    if not isinstance(devices, list) or not all(isinstance(device, dict) for device in devices):
        return None
    return [
        CoreHolder(device.get("neuron_device"), process.get("pid"), str(process.get("command")))
        for device in devices
        for process in device.get("neuron_processes") or []
    ]


def parse_visible_cores(value: str) -> Optional[List[int]]:
    """The cores of ``0``, ``0-3`` or ``3-5,6``; None unless they are contiguous and increasing, as the runtime asks."""
    cores: List[int] = []
    for part in value.split(","):
        match = re.match(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*$", part)
        if not match:
            return None
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        if last < first or last - first > _LONGEST_RANGE:
            return None
        cores += range(first, last + 1)
    return cores if cores == list(range(cores[0], cores[0] + len(cores))) else None


def parse_group_sizes(value: str) -> Optional[List[int]]:
    """The sizes of ``1,1,1,1`` or ``4``; None if one is not a positive whole number."""
    parts = [part.strip() for part in value.split(",")]
    return [int(part) for part in parts] if all(part.isdecimal() and int(part) for part in parts) else None
