"""What this machine is and may use (cores, CPU flags, memory, versions); no library is imported to find out."""

import io
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Dict, FrozenSet, Iterable, Iterator, List, MutableMapping, Optional, Set, TypedDict

from neuronbert.errors import LARGEST_COUNT, UsageError, shown_value
from neuronbert.hardware.cuda import GpuRecord, driver_version, gpu_records
from neuronbert.hardware.system_files import read_text

# Flags that decide which precision pays: the rest of /proc/cpuinfo says nothing about our speed.
FLAGS_OF_INTEREST = (
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "amx_tile",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
VNNI = "avx512_vnni|avx_vnni"
BF16 = "avx512_bf16|amx_bf16|bf16"

# What manifests and reports record, in this order; not gathered from the backends, which stand above this folder.
LIBRARIES_OF_INTEREST = (
    "numpy",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "openvino",
    "nncf",
    "onnxruntime",
    "onnx",
    "onnxscript",
    "torch",
    "triton",
    "nvidia-ml-py",
    "transformers",
    "apache-tvm",
    "apache-tvm-ffi",
    "torch-neuron",
    "neuron-cc",
)

# How macOS names what Linux calls otherwise; a name that is not here is only lowered ("AVX2" is avx2).
_DARWIN_FLAGS = {
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "hw.optional.neon": "asimd",
    "hw.optional.arm.feat_dotprod": "asimddp",
    "hw.optional.arm.feat_i8mm": "i8mm",
    "hw.optional.arm.feat_bf16": "bf16",
}
# cgroup v1 writes "no limit" as the largest page-aligned 63-bit number.
_UNLIMITED_BYTES = 1 << 60


class Environment(TypedDict):
    """What manifests and reports record of the machine and the libraries that they were made on."""

    neuronbert: str
    python: str
    os: str
    machine: str  # its architecture
    cpu_model: str
    cpu_flags: List[str]
    usable_cpus: int
    physical_cores: int
    memory_bytes: int
    gpus: List[GpuRecord]  # those that the process might use
    nvidia_driver: Optional[str]
    libraries: Dict[str, str]  # distribution → version


def usable_cpus() -> int:
    """Logical CPUs this process may keep busy: its affinity mask, cut to the cgroup's CPU quota, at least 1.

    A quota is rounded down: compute threads wait for each other, so one throttled thread stalls them all.
    """
    quota = cpu_quota()
    cpus = affinity_cpus()
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def physical_cores() -> int:
    """Physical cores behind ``usable_cpus``: SMT siblings count once."""
    cores = _core_ids(Path("/sys/devices/system/cpu"), _affinity())
    if cores is None:
        cores = _darwin_cores() if sys.platform == "darwin" else None
    return usable_cpus() if cores is None else max(1, min(cores, usable_cpus()))


def compute_threads() -> int:
    """Threads for matrix products: OMP_NUM_THREADS (its first number) where that is set, else one for each core.

    SMT siblings share a core's multipliers, so a second thread on it only takes turns with the first. UsageError for
    more than libraries take.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if not asked.isdecimal():
        return physical_cores()
    if len(asked.lstrip("0")) > len(str(LARGEST_COUNT)) or int(asked) > LARGEST_COUNT:
        raise UsageError(
            f"the environment variable OMP_NUM_THREADS must be a whole number up to {LARGEST_COUNT}, "
            f"not {shown_value(asked)}",
            hint="unset OMP_NUM_THREADS, for a thread on each core",
        )
    return int(asked) or physical_cores()


def working_directory() -> Optional[str]:
    """Its path; None where it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def wait_without_spinning(environment: MutableMapping[str, str]) -> None:
    """Tell OpenMP, in the ``environment`` of a process that has not loaded it yet, to sleep where threads wait.

    It spins by default: then the threads of one model take the core from what they wait for as soon as a neighbour is
    busy too. For processes of this package only, and not where their user has said otherwise.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def prepare_standard_streams() -> None:
    """Have stdin, stdout and stderr wait, and open /dev/null in place of those that the caller closed (``2>&-``).

    Python takes what does not wait (O_NONBLOCK) and has nothing for the end, and drops what such a stdout does not
    take. In place of a closed one, the next file that is opened, an output say, gets its number: what a library or a
    child prints goes into it.
    """
    for number in range(3):
        try:
            os.set_blocking(number, True)
        except OSError:
            with suppress(OSError):  # a machine without /dev/null
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    raw = getattr(sys.stdout, "buffer", None)
    if isinstance(raw, io.RawIOBase):  # PYTHONUNBUFFERED: what a full disk takes a part of would be cut there
        encoding, errors = sys.stdout.encoding, sys.stdout.errors
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=True)


def affinity_cpus() -> int:
    """Logical CPUs in this process's affinity mask, whatever its quota."""
    return len(_affinity())


def cpu_quota(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Optional[float]:
    """The CPUs per second of the tightest cgroup (v1 or v2) around this process; None when unlimited."""
    quotas = [_quota_v2(folder / "cpu.max") for folder in _cgroup_folders("", proc, cgroup)]
    quotas += [_quota_v1(folder) for folder in _cgroup_folders("cpu", proc, cgroup)]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory this process may use: the machine's, cut to the cgroup's limit; 0 when it cannot be told."""
    limits = [_number(read_text(folder / "memory.max")) for folder in _cgroup_folders("", proc, cgroup)]
    limits += [
        _number(read_text(folder / "memory.limit_in_bytes")) for folder in _cgroup_folders("memory", proc, cgroup)
    ]
    total = _installed_memory_bytes()
    finite = [limit for limit in limits if limit is not None and limit < _UNLIMITED_BYTES]
    return min([total, *finite]) if total else min(finite, default=0)


def available_memory_bytes(proc: Path = Path("/proc")) -> Optional[int]:
    """Bytes the kernel could hand out now without swapping (MemAvailable); None where it does not say."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", read_text(proc / "meminfo"), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def oom_kills(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Processes that the kernel killed for want of memory, in this cgroup (v2) or else on the machine; 0 if untold."""
    events = [read_text(folder / "memory.events") for folder in _cgroup_folders("", proc, cgroup)]
    for text in [*filter(None, events), read_text(proc / "vmstat")]:
        match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        if match:
            return int(match.group(1))
    return 0


@lru_cache(maxsize=1)
def cpu_flags() -> FrozenSet[str]:
    """The CPU's features as Linux names them (x86 ``flags``, ARM ``Features``); empty where they cannot be read."""
    if sys.platform == "darwin":
        return frozenset(parse_darwin_flags(_sysctl("machdep.cpu", "hw.optional")))
    return parse_cpu_flags(read_text(Path("/proc/cpuinfo")))


def cpu_model() -> str:
    """The processor's name, e.g. ``AMD EPYC 9B14``; the architecture where no name is given."""
    if sys.platform == "darwin":
        text = _sysctl("machdep.cpu.brand_string")
    else:
        text = read_text(Path("/proc/cpuinfo"))
    match = re.search(r"^(?:model name|Model|machdep\.cpu\.brand_string)\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def has_vnni() -> bool:
    """Whether int8 products add up in 32 bits in one instruction (AVX512-VNNI or AVX-VNNI)."""
    return has_flag(cpu_flags(), VNNI)


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself (AVX512-BF16, AMX-BF16 or ARM BF16)."""
    return has_flag(cpu_flags(), BF16)


def has_flag(flags: Iterable[str], alternatives: str) -> bool:
    """Whether one of the ``|``-separated flags is among ``flags``."""
    return not set(alternatives.split("|")).isdisjoint(flags)


def has_inferentia() -> bool:
    """Whether the Neuron driver shows a device."""
    return os.path.exists("/dev/neuron0")


# By the names under which TVM looks for what it links with (tvm/support/cc.py).
_C_COMPILERS = ("g++", "gcc", "clang++", "clang", "c++", "cc")


def c_compiler() -> Optional[str]:
    """What TVM links with: $CXX, $CC, or the first on the path; None where there is none."""
    named = os.environ.get("CXX") or os.environ.get("CC")
    return named or next(filter(None, map(shutil.which, _C_COMPILERS)), None)


def library_version(name: str) -> Optional[str]:
    """The installed version of a distribution, read from its metadata without importing it; None if absent."""
    from importlib import metadata  # 20 ms of email parsing that most commands never need

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def library_versions(names: Iterable[str] = LIBRARIES_OF_INTEREST) -> Dict[str, str]:
    """The versions of those of ``names`` that are installed."""
    versions = ((name, library_version(name)) for name in names)
    return {name: version for name, version in versions if version is not None}


def environment() -> Environment:
    """The fingerprint that manifests and reports carry: JSON-able, a few tens of ms, nothing heavy imported."""
    from neuronbert import __version__

    return {
        "neuronbert": __version__,
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_model": cpu_model(),
        "cpu_flags": [flag for flag in FLAGS_OF_INTEREST if flag in cpu_flags()],
        "usable_cpus": usable_cpus(),
        "physical_cores": physical_cores(),
        "memory_bytes": memory_bytes(),
        "gpus": gpu_records(),
        "nvidia_driver": driver_version(),
        "libraries": library_versions(),
    }


def parse_cpu_flags(cpuinfo: str) -> FrozenSet[str]:
    """The flags that every processor of a ``/proc/cpuinfo`` text has: a thread may run on any of them."""
    lines = re.findall(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    sets = [frozenset(line.split()) for line in lines]
    return frozenset.intersection(*sets) if sets else frozenset()


def parse_darwin_flags(sysctl: str) -> Set[str]:
    """Linux names of the features in the output of ``sysctl machdep.cpu hw.optional``."""
    flags: Set[str] = set()
    for line in sysctl.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
            names = [name.lower() for name in value.split()]
            flags.update(_DARWIN_FLAGS.get(name, name) for name in names)
        elif value == "1" and key.lower() in _DARWIN_FLAGS:
            flags.add(_DARWIN_FLAGS[key.lower()])
        elif value == "1" and key.startswith("hw.optional.avx"):
            name = key[len("hw.optional.") :]
            flags.add(_DARWIN_FLAGS.get(name, name))
    return flags


def _affinity() -> Set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _core_ids(cpus: Path, wanted: Set[int]) -> Optional[int]:
    """How many cores the CPUs ``wanted`` are threads of; None where the kernel gives no topology."""
    cores = set()
    for cpu in wanted:
        topology = cpus / f"cpu{cpu}" / "topology"
        core = read_text(topology / "core_id").strip()
        if not core:
            return None
        cores.add((read_text(topology / "physical_package_id").strip(), core))
    return len(cores)


def _darwin_cores() -> Optional[int]:
    match = re.search(r":\s*(\d+)", _sysctl("hw.physicalcpu"))
    return int(match.group(1)) if match else None


def _cgroup_folders(controller: str, proc: Path, cgroup: Path) -> Iterator[Path]:
    """The folder of this process under ``controller`` ("" is the v2 tree) and every folder above it.

    In a container /proc names the path on the host while /sys shows the container's own tree at the
    root, so a folder that does not exist is no surprise and the walk goes on upwards.
    """
    for line in read_text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controller not in controllers.split(","):
            continue
        folder = Path(path.lstrip("/"))
        roots = [cgroup, cgroup / "unified"] if not controller else [cgroup / controllers, cgroup / controller]
        for root in roots:
            for part in [folder, *folder.parents]:
                yield root / part


def _quota_v2(path: Path) -> Optional[float]:
    fields = read_text(path).split()
    if len(fields) != 2 or not all(field.isdecimal() for field in fields) or fields[1] == "0":
        return None
    return int(fields[0]) / int(fields[1])


def _quota_v1(folder: Path) -> Optional[float]:
    quota, period = _number(read_text(folder / "cpu.cfs_quota_us")), _number(read_text(folder / "cpu.cfs_period_us"))
    return quota / period if quota and period else None


def _number(text: str) -> Optional[int]:
    text = text.strip()
    return int(text) if text.isdecimal() else None


def _installed_memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 0


def process_fields(pid: int) -> List[str]:
    """The fields of /proc/PID/stat behind the name, which may hold spaces: proc(5)'s number 3 is the first.

    OSError where there is no such process, or no /proc.
    """
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def process_cpu_s(pid: int) -> float:
    """CPU seconds that a process has used; OSError as for ``process_fields``."""
    fields = process_fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _sysctl(*names: str) -> str:
    try:
        command = ["/usr/sbin/sysctl", *names]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", errors="replace")
