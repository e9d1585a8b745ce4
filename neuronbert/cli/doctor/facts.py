"""What the doctor's checks look at: everything about this process and machine, gathered at once."""

import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass, field, replace
from typing import Any, Dict, FrozenSet, Mapping, Optional, Tuple

from neuronbert.backends import BACKENDS, backend_module
from neuronbert.cli.doctor import hub
from neuronbert.hardware import cuda, machine, neuron
from neuronbert.hardware.libraries import optional_imports

# The bounds of setup.cfg, by extra: they must be known where neuronbert runs from a checkout.
REQUIRED = {"click": ">=8.0", "fastjsonschema": ">=2.21", "numpy": ">=1.20", "tokenizers": ">=0.13.3"}
INF1_COMPILING = {"torch": ">=1.13.1", "transformers": ">=4.30"}
COMPILING = {
    **INF1_COMPILING,
    "huggingface_hub": ">=0.14.1",
    "nncf": ">=2.13",
    "onnx": ">=1.14",
}
TVM = {"apache-tvm": ">=0.27,<0.28", "apache-tvm-ffi": ">=0.1.14,<0.1.15"}
# The backend's too, which cannot be asked where numpy is missing; a test compares them.
CUDA = {"nvidia-ml-py": ">=12.535", "safetensors": ">=0.4", "torch": ">=2.4"}
# What compiles kernels for GPUs; torch's builds with CUDA for Linux bring it.
BESIDE_CUDA = ("triton",)


# What compiling for inf1 stands upon (neuron_checks.py has the versions).
NEURON = ("torch-neuron", "neuron-cc", "tensorflow", "protobuf")


def engines() -> Dict[str, str]:
    """The libraries that answer on a CPU, each an extra of the same name, and the versions that the backends need.

    Raises what importing the backends raises.
    """
    modules = {name: backend_module(name) for name in BACKENDS}
    return {
        name: module.REQUIREMENTS[name]
        for name, module in modules.items()
        if module.DEVICE == "cpu" and name in module.REQUIREMENTS
    }


ENGINES: Dict[str, str] = {}
ENGINES_ERROR: Optional[Exception] = None
try:
    ENGINES = engines()
except Exception as error:  # every backend imports numpy; the doctor has to work where that is missing or broken
    ENGINES_ERROR = error


@dataclass(frozen=True)
class Facts:
    """Everything the checks look at, so that each can be tried on any machine."""

    python: Tuple[int, int, int] = (3, 11, 0)
    architecture: str = "x86_64"
    libraries: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    cpu_model: str = ""
    cpu_flags: FrozenSet[str] = frozenset()
    affinity_cpus: int = 1
    cpu_quota: Optional[float] = None
    usable_cpus: int = 1
    physical_cores: int = 1
    memory_bytes: int = 0
    available_bytes: Optional[int] = None
    c_compiler: Optional[str] = None  # that TVM links with
    folder: Optional[str] = "."  # the working directory; None where it was deleted
    folder_writable: bool = True
    disk_free_bytes: int = 0
    hub_cache: str = ""
    hub_cache_exists: bool = False
    hub_unreachable: Optional[str] = None  # why; None where it answers, and where a variable says offline
    neuron_devices: Tuple[str, ...] = ()
    unreachable_devices: Tuple[str, ...] = ()  # devices this user may not open
    inferentia_chips: int = 0  # on the PCI bus, with a driver or without
    driver_version: Optional[str] = None
    neuron_ls: Optional[str] = None  # what `neuron-ls -j` printed; None where there is no such tool
    nvidia_files: Tuple[str, ...] = ()  # /dev/nvidia0, ...
    nvidia_cards: int = 0  # on the PCI bus, with a driver or without
    nvidia_driver: Optional[str] = None  # its version
    nvidia: cuda.Driver = cuda.Driver()  # what it says
    torch_cuda: Optional[str] = None  # the CUDA that torch is built for
    package_manager: str = "apt"  # the system's, one of hardware.neuron.PACKAGE_COMMANDS
    emulated: Optional[str] = None  # the instance type that is emulated in this environment
    emulation_error: Optional[str] = None  # why it cannot be
    emulation_mend: Optional[str] = None  # what to do about that

    def as_dict(self) -> Dict[str, Any]:
        """As plain JSON data, without the environment: nobody should send his secrets along."""
        known = {name: value for name, value in vars(self).items() if name != "environ"}
        gpus = [
            {**device._asdict(), "usable": [gpu._asdict() for gpu in device.usable]} for device in self.nvidia.devices
        ]
        return {**known, "cpu_flags": sorted(self.cpu_flags), "nvidia": {**self.nvidia._asdict(), "devices": gpus}}


def gather() -> Facts:
    """The facts about this process and machine; a few tens of ms, and what the hub and the NVIDIA driver take."""
    folder = machine.working_directory()
    devices = neuron.device_files()
    cache = hub_cache(os.environ)
    facts = Facts(
        python=sys.version_info[:3],
        architecture=platform.machine(),
        libraries=machine.library_versions([*REQUIRED, *ENGINES, *COMPILING, *TVM, *NEURON, *CUDA, *BESIDE_CUDA]),
        environ=dict(os.environ),
        cpu_model=machine.cpu_model(),
        cpu_flags=machine.cpu_flags(),
        affinity_cpus=machine.affinity_cpus(),
        cpu_quota=machine.cpu_quota(),
        usable_cpus=machine.usable_cpus(),
        physical_cores=machine.physical_cores(),
        memory_bytes=machine.memory_bytes(),
        available_bytes=machine.available_memory_bytes(),
        c_compiler=machine.c_compiler(),
        folder=folder,
        folder_writable=folder is not None and os.access(folder, os.W_OK),
        disk_free_bytes=0 if folder is None else shutil.disk_usage(folder).free,
        hub_cache=cache,
        hub_cache_exists=os.path.isdir(cache),
        hub_unreachable=None if hub.offline_by(os.environ) else hub.why_unreachable(hub.endpoint(os.environ)),
        neuron_devices=devices,
        unreachable_devices=tuple(name for name in devices if not os.access(name, os.R_OK | os.W_OK)),
        inferentia_chips=neuron.count_inferentia_chips(),
        driver_version=neuron.driver_version(),
        neuron_ls=neuron.run_neuron_ls() if devices else None,
        nvidia_files=cuda.device_files(),
        nvidia_cards=cuda.count_cards(),
        nvidia_driver=cuda.driver_version(),
        nvidia=cuda.ask_driver(),
        torch_cuda=cuda.torch_cuda_version(),
        package_manager=neuron.package_manager(),
    )
    return with_emulation(facts)


def with_emulation(facts: Facts) -> Facts:
    """``facts`` with what an emulated instance (NEURONBERT_EMULATE) stands in for; unchanged where there is none."""
    if not facts.environ.get("NEURONBERT_EMULATE"):
        return facts
    from neuronbert.emulator import modules
    from neuronbert.emulator.emulator_settings import settings_from
    from neuronbert.errors import NeuronBertError

    try:
        settings = settings_from(facts.environ)
        with optional_imports("emulator"):
            from neuronbert.emulator.tools import neuron_ls
    except NeuronBertError as error:
        return replace(facts, emulation_error=error.message, emulation_mend=error.hint)
    except ImportError as error:
        return replace(facts, emulation_error=str(error))
    emulated = {"torch-neuron": modules.TORCH_NEURON_VERSION, "neuron-cc": modules.NEURON_CC_VERSION}
    return replace(
        facts,
        libraries={**facts.libraries, **emulated},
        emulated=settings.instance if settings else None,
        neuron_ls=json.dumps(neuron_ls(settings)) if settings else None,
    )


def hub_cache(environ: Mapping[str, str]) -> str:
    """The folder where huggingface_hub keeps what it downloads, by its documented variables."""
    if environ.get("HF_HUB_CACHE"):
        return os.path.expanduser(environ["HF_HUB_CACHE"])
    cache = environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return os.path.join(os.path.expanduser(home), "hub")
