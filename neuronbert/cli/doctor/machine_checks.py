"""The checks of Python, libraries, CPU, memory, disk and hub: facts in, one line of the report out."""

from typing import List, Mapping, NamedTuple, Optional

from neuronbert.cli.doctor.facts import COMPILING, CUDA, ENGINES, ENGINES_ERROR, INF1_COMPILING, REQUIRED, TVM, Facts
from neuronbert.cli.doctor.hub import endpoint, offline_by
from neuronbert.errors import counted
from neuronbert.hardware import machine
from neuronbert.hardware.libraries import install_command
from neuronbert.hardware.requirements import version_meets

OK, WARN, FAIL = "ok", "warn", "fail"

GIB = 1 << 30
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
LOW_MEMORY_BYTES = GIB
LOW_DISK_BYTES = 2 * GIB


class Check(NamedTuple):
    """One line of the doctor's report."""

    name: str
    status: str  # ok, warn or fail
    found: str
    mend: Optional[str] = None  # a command where there is one


def check_python(facts: Facts) -> Check:
    """Which of the two stacks this Python is for."""
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
    faults = faults_of(facts, REQUIRED)
    if faults:
        return Check("libraries", FAIL, "; ".join(faults), "python -m pip install --upgrade neuronbert")
    return Check("libraries", OK, _versions(facts, REQUIRED))


def check_engine(name: str, facts: Facts) -> Check:
    """One library that answers on a CPU; one of them is enough."""
    mend = install_command(name)
    if name in facts.libraries:
        faults = faults_of(facts, {name: ENGINES[name]})
        return Check(name, FAIL, faults[0], mend) if faults else Check(name, OK, facts.libraries[name])
    engines = [engine for engine in ENGINES if engine in facts.libraries]
    if engines:
        return Check(name, OK, f"not installed ({engines[0]} is)", mend)
    other = (
        "torch-neuron" if "torch-neuron" in facts.libraries else "torch for GPUs" if _answers_on_gpus(facts) else None
    )
    if other is not None:
        return Check(name, OK, f"not installed ({other} is)", mend)
    return Check(name, FAIL, "not installed, nor any other engine that answers on a CPU", mend)


def _answers_on_gpus(facts: Facts) -> bool:
    return bool(facts.nvidia.devices) and facts.torch_cuda is not None and not faults_of(facts, CUDA)


def check_engines_unknown(facts: Facts) -> Check:
    """In place of the engines where the backends cannot be imported, most likely because numpy cannot."""
    reason = " ".join(str(ENGINES_ERROR).split())[:200]
    found = f"the backends cannot be imported: {type(ENGINES_ERROR).__name__}: {reason}"
    return Check("engines", FAIL, found, "python -m pip install --force-reinstall numpy")


def check_compiling(facts: Facts) -> Check:
    """What turns a checkpoint into an artifact; answering from one needs none of it."""
    inf1 = "torch-neuron" in facts.libraries
    wanted = INF1_COMPILING if inf1 else COMPILING
    mend = install_command("inf1" if inf1 else "compile")
    if not any(name in facts.libraries for name in COMPILING):
        return Check("compiling", OK, "not installed: this machine answers from artifacts, it cannot make them", mend)
    faults = faults_of(facts, wanted)
    if faults:
        return Check("compiling", WARN, "; ".join(faults), mend)
    return Check("compiling", OK, _versions(facts, wanted))


def check_tvm(facts: Facts) -> Check:
    """What compiles models for this CPU alone, and loads them: nobody needs it who does not ask for it."""
    if "apache-tvm" not in facts.libraries:
        return Check("tvm", OK, "not installed (only --backend tvm and what it made need it)")
    faults = faults_of(facts, TVM)
    if faults:
        return Check("tvm", WARN, "; ".join(faults), install_command("tvm"))
    if facts.c_compiler is None:
        found = f"{_versions(facts, TVM)}; no C compiler: models can be loaded, but none compiled"
        return Check("tvm", WARN, found, "sudo apt install gcc libc6-dev")
    return Check("tvm", OK, f"{_versions(facts, TVM)}, links with {facts.c_compiler}")


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
    cpus = counted(facts.affinity_cpus, "CPU")
    cores = f"{f'{usable} of ' if usable < facts.affinity_cpus else ''}{cpus} on {counted(best, 'core')}"
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
            found = f"{cores}{quota}; {name}={value} leaves {counted(best - int(first), 'core')} idle"
            return Check("threads", WARN, found, f"unset {name}, unless several processes share this machine")
    listed = ", ".join(f"{name}={value}" for name, value in set_here.items())
    return Check("threads", OK, f"{cores}{quota}" + (f"; {listed}" if listed else ""))


def check_memory(facts: Facts) -> Check:
    """Whether there is room for a model."""
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
    """Whether an artifact can be written here."""
    if facts.folder is None:
        return Check("disk", FAIL, "the working directory no longer exists", "cd into one that does")
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
    offline = offline_by(facts.environ)
    token = "with a token" if facts.environ.get("HF_TOKEN") else "without a token"
    state = "there" if facts.hub_cache_exists else "not there yet"
    if offline and not facts.hub_cache_exists:
        found = f"{offline} is set and the cache {facts.hub_cache} does not exist: only folders and demo can be read"
        return Check("hub", WARN, found, f"unset {offline}, or set HF_HUB_CACHE to the cache's folder")
    if offline:
        return Check("hub", OK, f"offline by {offline}, cache {facts.hub_cache}")
    if facts.hub_unreachable:
        found = (
            f"{endpoint(facts.environ)} cannot be reached ({facts.hub_unreachable}), cache {facts.hub_cache} ({state})"
        )
        return Check("hub", WARN, found, "look at the network and HTTPS_PROXY, or export HF_HUB_OFFLINE=1")
    return Check("hub", OK, f"online, {token}, cache {facts.hub_cache} ({state})")


def faults_of(facts: Facts, wanted: Mapping[str, str]) -> List[str]:
    """What is missing, too old or too new, in words."""
    faults = []
    for name, bound in wanted.items():
        version = facts.libraries.get(name)
        if version is None:
            faults.append(f"{name} is not installed")
        elif not version_meets(version, bound):
            age = "old" if not version_meets(version, bound.partition(",")[0]) else "new"
            faults.append(f"{name} {version} is too {age}, {bound} is needed")
    return faults


def _versions(facts: Facts, names: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {facts.libraries[name]}" for name in names)


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
