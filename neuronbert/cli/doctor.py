"""What this machine can run, what is wrong with it, and the command that mends it: facts are gathered, then judged."""

import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert.hardware import machine

OK, WARN, FAIL = "ok", "warn", "fail"

GIB = 1 << 30
# The bounds of setup.cfg, by extra: they must be known where neuronbert runs from a checkout.
REQUIRED = {"click": ">=8.0", "numpy": ">=1.20", "tokenizers": ">=0.13.3"}
ENGINES = {"openvino": ">=2024.4", "onnxruntime": ">=1.17"}
INF1_COMPILING = {"torch": ">=1.13.1", "transformers": ">=4.30"}
COMPILING = {
    **INF1_COMPILING,
    "huggingface_hub": ">=0.14.1",
    "nncf": ">=2.13",
    "onnx": ">=1.14",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOW_MEMORY_BYTES = GIB
LOW_DISK_BYTES = 2 * GIB

NEURON_TOOLS = "/opt/aws/neuron/bin"
NEURON_INDEX = "--extra-index-url https://pip.repos.neuron.amazonaws.com"
NEURON_INSTALL = f'python -m pip install "torch-neuron==1.13.1.*" "neuron-cc[tensorflow]" "protobuf" {NEURON_INDEX}'
# The index's first real releases that serve torch 1.13; torch-neuron and neuron-cc 1.0 elsewhere are placeholders.
FIRST_REAL_NEURON = ">=1.13"
DRIVER_INSTALL = "sudo apt-get install -y aws-neuronx-dkms=2.24.*"
# vendor, devices: Inferentia 1 in the PCI table of AWS's driver (aws-neuron-driver, neuron_device.h).
INF1_PCI_VENDOR = "0x1d0f"
INF1_PCI_DEVICES = ("0x7064", "0x7065", "0x7066", "0x7067")


class Check(NamedTuple):
    """One line of the doctor's report."""

    name: str
    status: str  # ok, warn or fail
    found: str
    mend: Optional[str] = None  # a command where there is one


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
    folder: str = "."
    folder_writable: bool = True
    disk_free_bytes: int = 0
    hub_cache: str = ""
    hub_cache_exists: bool = False
    neuron_devices: Tuple[str, ...] = ()
    unreachable_devices: Tuple[str, ...] = ()  # devices this user may not open
    inferentia_chips: int = 0  # on the PCI bus, with a driver or without
    driver_version: Optional[str] = None
    neuron_ls: Optional[str] = None  # what `neuron-ls -j` printed; None where there is no such tool
    emulated: Optional[str] = None  # the instance type that is emulated in this environment
    emulation_error: Optional[str] = None  # why it cannot be


def examine(facts: Optional[Facts] = None) -> List[Check]:
    """Every check, in the order of the report; a check that breaks reports that itself. Never raises."""
    if facts is None:
        try:
            facts = gather()
        except Exception as error:
            return [Check("machine", FAIL, f"could not be looked at: {type(error).__name__}: {error}")]
    return [_checked(name, check, facts) for name, check in CHECKS.items()]


def render(checks: Sequence[Check]) -> str:
    """The report as text: a line for each check, ``try:`` below what can be mended, a summary."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<4}  {check.name:<{width}}  {check.found}")
        if check.mend:
            lines.append(f"{'':<{width + 8}}try: {check.mend}")
    counts = [sum(check.status == status for check in checks) for status in (OK, WARN, FAIL)]
    lines.append(f"{counts[0]} ok, {counts[1]} to look at, {counts[2]} broken")
    return "\n".join(lines)


def gather() -> Facts:
    """The facts about this process and machine; a few tens of ms, nothing heavy imported."""
    folder = os.getcwd()
    devices = tuple(sorted(glob.glob("/dev/neuron[0-9]*")))
    cache = hub_cache(os.environ)
    libraries = machine.library_versions([*REQUIRED, *ENGINES, *COMPILING, "torch-neuron", "neuron-cc"])
    twin = gather_twin(os.environ)
    return Facts(
        python=sys.version_info[:3],
        architecture=platform.machine(),
        libraries={**libraries, **twin.pop("libraries", {})},
        environ=dict(os.environ),
        cpu_model=machine.cpu_model(),
        cpu_flags=machine.cpu_flags(),
        affinity_cpus=machine.affinity_cpus(),
        cpu_quota=machine.cpu_quota(),
        usable_cpus=machine.usable_cpus(),
        physical_cores=machine.physical_cores(),
        memory_bytes=machine.memory_bytes(),
        available_bytes=machine.available_memory_bytes(),
        folder=folder,
        folder_writable=os.access(folder, os.W_OK),
        disk_free_bytes=shutil.disk_usage(folder).free,
        hub_cache=cache,
        hub_cache_exists=os.path.isdir(cache),
        neuron_devices=devices,
        unreachable_devices=tuple(name for name in devices if not os.access(name, os.R_OK | os.W_OK)),
        inferentia_chips=count_inferentia_chips(Path("/sys/bus/pci/devices")),
        driver_version=_text(Path("/sys/module/neuron/version")) or None,
        **{"neuron_ls": _run_neuron_ls(f"{NEURON_TOOLS}/neuron-ls") if devices else None, **twin},
    )


def gather_twin(environ: Mapping[str, str]) -> Dict[str, Any]:
    """The facts that an emulated instance (NEURONBERT_EMULATE) stands in for; none where there is no such."""
    if not environ.get("NEURONBERT_EMULATE"):
        return {}
    from neuronbert.emulator import modules
    from neuronbert.emulator.emulator_settings import settings_from
    from neuronbert.errors import NeuronBertError

    try:
        settings = settings_from(environ)
        from neuronbert.emulator.tools import neuron_ls
    except (NeuronBertError, ImportError) as error:
        return {"emulation_error": str(error)}
    return {
        "emulated": settings.instance if settings else None,
        "neuron_ls": json.dumps(neuron_ls(settings)) if settings else None,
        "libraries": {"torch-neuron": modules.TORCH_NEURON_VERSION, "neuron-cc": modules.NEURON_CC_VERSION},
    }


def hub_cache(environ: Mapping[str, str]) -> str:
    """The folder where huggingface_hub keeps what it downloads, by its documented variables."""
    if environ.get("HF_HUB_CACHE"):
        return os.path.expanduser(environ["HF_HUB_CACHE"])
    cache = environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    return os.path.join(os.path.expanduser(home), "hub")


def count_inferentia_chips(devices: Path) -> int:
    """How many Inferentia 1 chips the PCI bus shows."""
    return sum(
        _text(vendor) == INF1_PCI_VENDOR and _text(vendor.parent / "device") in INF1_PCI_DEVICES
        for vendor in devices.glob("*/vendor")
    )


# ---- checks: facts in, one line out


def check_python(facts: Facts) -> Check:
    version = ".".join(map(str, facts.python))
    minor = facts.python[:2]
    if minor < (3, 8):
        return Check("python", FAIL, f"{version}: neuronbert needs 3.8 or newer", "install Python 3.12")
    if minor <= (3, 10):
        return Check("python", OK, f"{version}: the inf1 stack (torch-neuron exists for 3.8 to 3.10)")
    if minor <= (3, 13):
        return Check("python", OK, f"{version}: the current stack (CPU; torch-neuron exists for 3.8 to 3.10 only)")
    return Check("python", WARN, f"{version}: newer than what neuronbert is tested with (3.8 to 3.13)")


def check_required(facts: Facts) -> Check:
    """What answering needs whichever engine runs."""
    faults = _faults(facts, REQUIRED)
    if faults:
        return Check("libraries", FAIL, "; ".join(faults), "python -m pip install --upgrade neuronbert")
    return Check("libraries", OK, _versions(facts, REQUIRED))


def check_openvino(facts: Facts) -> Check:
    return _check_engine(facts, "openvino")


def check_onnxruntime(facts: Facts) -> Check:
    return _check_engine(facts, "onnxruntime")


def check_compiling(facts: Facts) -> Check:
    """What turns a checkpoint into an artifact; answering from one needs none of it."""
    inf1 = "torch-neuron" in facts.libraries
    wanted = INF1_COMPILING if inf1 else COMPILING
    mend = 'python -m pip install "neuronbert[compile]"'
    if inf1:
        mend = f'python -m pip install "neuronbert[inf1]" {NEURON_INDEX}'
    if not any(name in facts.libraries for name in COMPILING):
        return Check("compiling", OK, "not installed: this machine answers from artifacts, it cannot make them", mend)
    faults = _faults(facts, wanted)
    if faults:
        return Check("compiling", WARN, "; ".join(faults), mend)
    return Check("compiling", OK, _versions(facts, wanted))


def check_cpu(facts: Facts) -> Check:
    """Which precisions this CPU is fast in."""
    flags, model = facts.cpu_flags, facts.cpu_model or facts.architecture
    if not flags:
        return Check(
            "cpu", WARN, f"{model}: its flags cannot be read, so int8 and bf16 variants that need one are refused"
        )
    if facts.architecture.lower() not in ("x86_64", "amd64", "i686"):
        known = [flag for flag in ("asimddp", "i8mm", "bf16", "sve") if flag in flags]
        return Check("cpu", OK, f"{model}: {', '.join(known) or 'no dot-product instructions'}")
    if "avx2" not in flags:
        return Check("cpu", WARN, f"{model}: no AVX2, everything will be slow", "use a machine with AVX2 or newer")
    if not machine.has_flag(flags, machine.VNNI):
        found = f"{model}: no VNNI, so int8 sums overflow 16 bits unless weights keep to 7, and int8 gains little"
        mend = "compile on this machine, not on one with VNNI: it then keeps weights to 7 bits"
        return Check("cpu", WARN, found, mend)
    gains = ["VNNI (int8 exact and fast)"]
    if "amx_int8" in flags:
        gains.append("AMX (int8 and bf16 in tiles)")
    if machine.has_flag(flags, machine.BF16):
        gains.append("BF16 (bf16 fast)")
    return Check("cpu", OK, f"{model}: {', '.join(gains)}")


def check_threads(facts: Facts) -> Check:
    """Cores against what the environment tells libraries to use."""
    usable, best = facts.usable_cpus, facts.physical_cores
    cpus = f"{usable} of {facts.affinity_cpus}" if usable < facts.affinity_cpus else f"{usable}"
    cores = f"{cpus} CPUs on {_count(best, 'core')}"
    quota = f" (the container's quota is {facts.cpu_quota:g})" if facts.cpu_quota is not None else ""
    set_here = {name: facts.environ[name] for name in THREAD_VARIABLES if facts.environ.get(name)}
    for name, value in set_here.items():
        # OMP_NUM_THREADS may list one number for each nested level.
        first = value.split(",")[0].strip()
        if not first.isdecimal() or int(first) < 1:
            return Check("threads", WARN, f"{cores}{quota}; {name}={value} is not a number", f"unset {name}")
        if int(first) > usable:
            found = f"{cores}{quota}; {name}={value} starts more threads than there are CPUs: they wait for each other"
            return Check("threads", WARN, found, f"export {name}={best}")
        if int(first) < best:
            found = f"{cores}{quota}; {name}={value} leaves {_count(best - int(first), 'core')} idle"
            return Check("threads", WARN, found, f"unset {name}, unless several processes share this machine")
    listed = ", ".join(f"{name}={value}" for name, value in set_here.items())
    return Check("threads", OK, f"{cores}{quota}" + (f"; {listed}" if listed else ""))


def check_memory(facts: Facts) -> Check:
    total = f"{_gib(facts.memory_bytes)} usable" if facts.memory_bytes else "size unknown"
    if facts.available_bytes is None:
        return Check("memory", OK, total)
    free = min(facts.available_bytes, facts.memory_bytes or facts.available_bytes)
    if free < LOW_MEMORY_BYTES:
        return Check(
            "memory", WARN, f"{total}, only {_gib(free)} free now", "stop other processes, or use a larger machine"
        )
    return Check("memory", OK, f"{total}, {_gib(free)} free now")


def check_disk(facts: Facts) -> Check:
    where = f"{_gib(facts.disk_free_bytes)} free in {facts.folder}"
    if not facts.folder_writable:
        return Check(
            "disk", WARN, f"{facts.folder} is read-only for this user", "give OUTPUT in a folder you may write to"
        )
    if facts.disk_free_bytes < LOW_DISK_BYTES:
        return Check("disk", WARN, f"only {where}", "free some space, or give OUTPUT on another disk")
    return Check("disk", OK, where)


def check_hub(facts: Facts) -> Check:
    """Where checkpoints come from: the network or the cache."""
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _is_true(facts.environ.get(name))]
    token = "with a token" if facts.environ.get("HF_TOKEN") else "without a token"
    state = "there" if facts.hub_cache_exists else "not there yet"
    if offline and not facts.hub_cache_exists:
        found = f"{offline[0]} is set and the cache {facts.hub_cache} does not exist: only folders and demo can be read"
        return Check("hub", WARN, found, f"unset {offline[0]}, or set HF_HUB_CACHE to the cache's folder")
    if offline:
        return Check("hub", OK, f"offline by {offline[0]}, cache {facts.hub_cache}")
    return Check("hub", OK, f"online, {token}, cache {facts.hub_cache} ({state})")


def check_torch_neuron(facts: Facts) -> Check:
    """torch-neuron and neuron-cc: absent, a placeholder, or real and paired with the right torch."""
    found = {name: facts.libraries[name] for name in ("torch-neuron", "neuron-cc") if name in facts.libraries}
    fake = [
        f"{name} {version}" for name, version in found.items() if not machine.version_meets(version, FIRST_REAL_NEURON)
    ]
    if fake:
        what = f"{' and '.join(fake)}: a placeholder that fails at import, the real package is on AWS's own index"
        return Check(
            "torch-neuron", FAIL, what, f"python -m pip uninstall -y torch-neuron neuron-cc && {NEURON_INSTALL}"
        )
    if "torch-neuron" not in found:
        if facts.neuron_devices or facts.inferentia_chips:
            return Check(
                "torch-neuron", WARN, "not installed, though this machine has Inferentia chips", NEURON_INSTALL
            )
        return Check("torch-neuron", OK, "not installed (only inf1 instances, and compiling for them, need it)")
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    if facts.emulated:
        torch = facts.libraries.get("torch")
        if torch is None:
            return Check("torch-neuron", FAIL, f"{listed} needs torch", 'python -m pip install "torch>=1.13.1"')
        return Check("torch-neuron", OK, f"{listed}, with torch {torch}")
    release = ".".join(found["torch-neuron"].split(".")[:3])
    torch = facts.libraries.get("torch")
    if torch is None or not machine.version_meets(torch, f"=={release}"):
        what = f"{listed} needs torch {release}, and torch {torch or 'is not installed'}"
        return Check(
            "torch-neuron", FAIL, what + (" is installed" if torch else ""), f"python -m pip install torch=={release}"
        )
    if "neuron-cc" not in found:
        return Check(
            "torch-neuron", OK, f"{listed}; without neuron-cc it runs models and compiles none", NEURON_INSTALL
        )
    return Check("torch-neuron", OK, listed)


def check_driver(facts: Facts) -> Check:
    """The chips, and whether this process can reach them."""
    chips, devices, driver = facts.inferentia_chips, facts.neuron_devices, facts.driver_version
    emulated = facts.environ.get("NEURONBERT_EMULATE")
    if chips and driver and not machine.version_meets(driver, "<2.25"):
        what = f"driver {driver} does not drive Inferentia 1: 2.24 is the last line that does"
        return Check("inferentia", FAIL, what, DRIVER_INSTALL)
    if chips and not devices:
        what = f"{_count(chips, 'chip')} on the PCI bus and no /dev/neuron0: no driver, or not given to this container"
        return Check("inferentia", FAIL, what, f"{DRIVER_INSTALL}; in a container --device=/dev/neuron0")
    if facts.emulation_error:
        what = f"NEURONBERT_EMULATE={emulated} cannot be emulated: {facts.emulation_error.splitlines()[0]}"
        return Check("inferentia", FAIL, what, "export NEURONBERT_EMULATE=inf1.xlarge")
    if not devices:
        what = f"no device; NEURONBERT_EMULATE={emulated} stands in for it" if emulated else "no device (/dev/neuron0)"
        return Check("inferentia", OK, what)
    if facts.unreachable_devices:
        listed = " ".join(facts.unreachable_devices)
        return Check("inferentia", FAIL, f"this user may not open {listed}", f"sudo chmod a+rw {listed}")
    found = f"{_count(len(devices), 'device')}, driver {driver or 'version unknown'}"
    if emulated:
        what = f"{found}, yet NEURONBERT_EMULATE={emulated} is set"
        return Check("inferentia", WARN, what, "unset NEURONBERT_EMULATE")
    return Check("inferentia", OK, found)


def check_cores(facts: Facts) -> Check:
    """Which processes hold NeuronCores: nobody else can use them until they end."""
    if not facts.neuron_devices and not facts.emulated:
        return Check("neuron cores", OK, "none")
    if facts.neuron_ls is None:
        mend = "sudo apt-get install -y aws-neuronx-tools=2.*"
        return Check("neuron cores", WARN, f"unknown: there is no {NEURON_TOOLS}/neuron-ls", mend)
    holders = core_holders(facts.neuron_ls)
    if holders is None:
        return Check("neuron cores", WARN, f"unknown: neuron-ls says {facts.neuron_ls.strip()[:200]!r}")
    where = f" (emulated {facts.emulated})" if facts.emulated else ""
    if not holders:
        return Check("neuron cores", OK, f"all free{where}")
    busy = "; ".join(f"process {pid} ({command}) on device {device}" for device, pid, command in holders)
    pids = sorted({str(pid) for _, pid, _ in holders})
    return Check("neuron cores", WARN, f"held by {busy}{where}", f"to free them: kill {' '.join(pids)}")


def check_neuron_variables(facts: Facts) -> Check:
    """The variables that say which NeuronCores a process takes, against each other."""
    names = ("NEURON_RT_VISIBLE_CORES", "NEURON_RT_NUM_CORES", "NEURONCORE_GROUP_SIZES")
    given = {name: facts.environ[name] for name in names if facts.environ.get(name)}
    listed = ", ".join(f"{name}={value}" for name, value in given.items())
    visible, count, groups = (given.get(name) for name in names)
    if not given:
        return Check("neuron env", OK, "none set: a process takes every core, `neuronbert env` gives it its share")
    if count and groups:
        what = f"{listed}: the runtime does not allow these together"
        return Check("neuron env", FAIL, what, "unset NEURONCORE_GROUP_SIZES")
    seen = parse_visible_cores(visible) if visible else None
    if visible and seen is None:
        what = f"{listed}: NEURON_RT_VISIBLE_CORES is a core or an increasing range without gaps, such as 0 or 0-3"
        return Check("neuron env", FAIL, what, "export NEURON_RT_VISIBLE_CORES=0-3")
    if visible and count:
        return Check(
            "neuron env", WARN, f"{listed}: NEURON_RT_NUM_CORES has no effect beside it", "unset NEURON_RT_NUM_CORES"
        )
    sizes = parse_group_sizes(groups) if groups else None
    if groups and sizes is None:
        what = f"{listed}: group sizes are whole numbers separated by commas"
        return Check("neuron env", FAIL, what, "export NEURONCORE_GROUP_SIZES=1,1,1,1")
    if sizes and seen and sum(sizes) > len(seen):
        what = f"{listed}: the groups want {sum(sizes)} cores and {len(seen)} are visible"
        return Check("neuron env", FAIL, what, "unset NEURONCORE_GROUP_SIZES")
    if sizes and not seen:
        what = f"{listed}: runtimes since SDK 1.16 go by NEURON_RT_VISIBLE_CORES"
        return Check("neuron env", WARN, what, f"export NEURON_RT_VISIBLE_CORES={_core_range(sum(sizes))}")
    return Check("neuron env", OK, listed)


CHECKS: Dict[str, Callable[[Facts], Check]] = {
    "python": check_python,
    "libraries": check_required,
    "openvino": check_openvino,
    "onnxruntime": check_onnxruntime,
    "compiling": check_compiling,
    "cpu": check_cpu,
    "threads": check_threads,
    "memory": check_memory,
    "disk": check_disk,
    "hub": check_hub,
    "torch-neuron": check_torch_neuron,
    "inferentia": check_driver,
    "neuron cores": check_cores,
    "neuron env": check_neuron_variables,
}


def core_holders(neuron_ls: str) -> Optional[List[Tuple[Any, Any, str]]]:
    """(device, pid, command) of each process that holds cores, from ``neuron-ls -j``; None if that lists no devices."""
    try:
        devices = json.loads(neuron_ls)
    except ValueError:
        return None
    if not isinstance(devices, list) or not all(isinstance(device, dict) for device in devices):
        return None
    return [
        (device.get("neuron_device"), process.get("pid"), str(process.get("command")))
        for device in devices
        for process in device.get("neuron_processes") or []
    ]


def parse_visible_cores(value: str) -> Optional[List[int]]:
    """The cores of ``0``, ``0-3`` or ``3-5,6``; None unless they are contiguous and increasing, as the runtime asks."""
    cores: List[int] = []
    for part in value.split(","):
        found = re.match(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*$", part)
        if not found:
            return None
        first, last = int(found.group(1)), int(found.group(2) or found.group(1))
        if last < first or last - first > 1024:
            return None
        cores += range(first, last + 1)
    return cores if cores == list(range(cores[0], cores[0] + len(cores))) else None


def parse_group_sizes(value: str) -> Optional[List[int]]:
    """The sizes of ``1,1,1,1`` or ``4``; None if one is not a positive whole number."""
    parts = [part.strip() for part in value.split(",")]
    return [int(part) for part in parts] if all(part.isdecimal() and int(part) for part in parts) else None


def _checked(name: str, check: Callable[[Facts], Check], facts: Facts) -> Check:
    try:
        return check(facts)
    except Exception as error:
        return Check(name, WARN, f"could not be examined: {type(error).__name__}: {error}")


def _check_engine(facts: Facts, name: str) -> Check:
    mend = f'python -m pip install "neuronbert[{name}]"'
    if name in facts.libraries:
        faults = _faults(facts, {name: ENGINES[name]})
        return Check(name, FAIL, faults[0], mend) if faults else Check(name, OK, facts.libraries[name])
    others = [other for other in ENGINES if other in facts.libraries]
    if others:
        return Check(name, OK, f"not installed ({others[0]} is)", mend)
    if "torch-neuron" in facts.libraries:
        return Check(name, OK, "not installed (torch-neuron is)", mend)
    return Check(name, FAIL, "not installed, nor any other engine that answers on a CPU", mend)


def _faults(facts: Facts, wanted: Mapping[str, str]) -> List[str]:
    """What is missing or too old, in words."""
    faults = []
    for name, bound in wanted.items():
        version = facts.libraries.get(name)
        if version is None:
            faults.append(f"{name} is not installed")
        elif not machine.version_meets(version, bound):
            faults.append(f"{name} {version} is too old, {bound} is needed")
    return faults


def _versions(facts: Facts, names: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {facts.libraries[name]}" for name in names)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"


def _is_true(value: Optional[str]) -> bool:
    """As huggingface_hub reads its variables."""
    return (value or "").strip().upper() in ("1", "ON", "YES", "TRUE")


def _core_range(count: int) -> str:
    return "0" if count == 1 else f"0-{count - 1}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _run_neuron_ls(tool: str) -> Optional[str]:
    try:
        done = subprocess.run([tool, "-j"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10)
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"
    return done.stdout.decode("utf-8", errors="replace")
