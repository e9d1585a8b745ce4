"""The checks of torch-neuron, the Neuron driver, the NeuronCores and their variables: facts in, one line out."""

from neuronbert.backends.neuron.core_groups import CORE_VARIABLES, core_variables, cores_given
from neuronbert.cli.doctor.facts import Facts
from neuronbert.cli.doctor.machine_checks import FAIL, GIB, OK, WARN, Check
from neuronbert.errors import UsageError, counted
from neuronbert.hardware.cores import GROUP_SIZES, NUM_CORES, VISIBLE_CORES
from neuronbert.hardware.neuron import (
    COMPILE_MEMORY_BYTES,
    FIRST_REAL_NEURON,
    NEURON_TOOLS,
    PACKAGE_COMMANDS,
    core_holders,
    neuron_install_command,
)
from neuronbert.hardware.requirements import version_meets

# What neuron-cc 1.24 works with: near to what NEURON_INSTALL pins, and the TensorFlow of its extra. Others fail at its
# import or in the trace (docs/neuron-errors.md). numpy's lowest is that of AWS's nrt-troubleshoot page.
AROUND_THE_COMPILER = {"tensorflow": ">=1.15,<1.16", "protobuf": "<4", "numpy": ">=1.22.2,<1.24"}


def check_torch_neuron(facts: Facts) -> Check:
    """torch-neuron and neuron-cc: absent, a placeholder, or real and paired with the right torch."""
    installed = {name: facts.libraries[name] for name in ("torch-neuron", "neuron-cc") if name in facts.libraries}
    install = neuron_install_command(facts.python)
    fake = [f"{name} {version}" for name, version in installed.items() if not version_meets(version, FIRST_REAL_NEURON)]
    if fake:
        what = f"{' and '.join(fake)}: a placeholder that fails at import, the real package is on AWS's own index"
        return Check("torch-neuron", FAIL, what, f"python -m pip uninstall -y torch-neuron neuron-cc; {install}")
    if "torch-neuron" not in installed:
        if facts.neuron_devices or facts.inferentia_chips:
            return Check("torch-neuron", WARN, "not installed, though this machine has Inferentia chips", install)
        return Check("torch-neuron", OK, "not installed (only inf1 instances, and compiling for them, need it)")
    listed = ", ".join(f"{name} {version}" for name, version in installed.items())
    torch = facts.libraries.get("torch")
    if facts.emulated:
        if torch is None:
            return Check("torch-neuron", FAIL, f"{listed} needs torch", 'python -m pip install "torch>=1.13.1"')
        return Check("torch-neuron", OK, f"{listed}, with torch {torch}")
    release = ".".join(installed["torch-neuron"].split(".")[:3])
    if torch is None or not version_meets(torch, f"=={release}"):
        what = f"{listed} needs torch {release}, and torch {torch or 'is not installed'}"
        return Check(
            "torch-neuron", FAIL, what + (" is installed" if torch else ""), f"python -m pip install torch=={release}"
        )
    if "neuron-cc" not in installed:
        return Check("torch-neuron", OK, f"{listed}; without neuron-cc it runs models and compiles none", install)
    return Check("torch-neuron", OK, listed)


def check_neuron_cc(facts: Facts) -> Check:
    """What neuron-cc imports, and whether this host has the memory to compile; running models needs neither."""
    if facts.emulated or "neuron-cc" not in facts.libraries:
        return Check("neuron-cc", OK, "not installed" if not facts.emulated else "emulated, it needs nothing more")
    around = {name: facts.libraries.get(name) for name in AROUND_THE_COMPILER}
    unfit = [
        f"{name} {version or 'is not installed'} ({bound} is needed)"
        for (name, version), bound in zip(around.items(), AROUND_THE_COMPILER.values())
        if version is None or not version_meets(version, bound)
    ]
    if unfit:
        what = f"it cannot compile with {', '.join(unfit)}"
        return Check("neuron-cc", FAIL, what, neuron_install_command(facts.python))
    listed = ", ".join(f"{name} {version}" for name, version in around.items())
    if 0 < facts.memory_bytes < COMPILE_MEMORY_BYTES:
        what = f"{listed}; {facts.memory_bytes / GIB:.1f} GiB of memory are few to compile with: it may be killed"
        mend = "compile on a machine with 32 GiB or more (c5.4xlarge, with --no-device), and copy the artifact here"
        return Check("neuron-cc", WARN, what, mend)
    return Check("neuron-cc", OK, listed)


def check_driver(facts: Facts) -> Check:
    """The chips, and whether this process can reach them."""
    chips, devices, driver = facts.inferentia_chips, facts.neuron_devices, facts.driver_version
    emulated = facts.environ.get("NEURONBERT_EMULATE")
    commands = PACKAGE_COMMANDS[facts.package_manager]
    if chips and driver and not version_meets(driver, "<2.25"):
        what = f"driver {driver} does not drive Inferentia 1: 2.24 is the last line that does"
        return Check("inferentia", FAIL, what, f"{commands.install_driver}; sudo rmmod neuron && sudo modprobe neuron")
    if chips and driver and version_meets(driver, "<2.5"):
        what = f"driver {driver} is of the old package aws-neuron-dkms, and too old for torch-neuron 1.13"
        return Check("inferentia", FAIL, what, f"{commands.remove_old_driver}; {commands.install_driver}")
    if chips and not devices:
        what = f"{counted(chips, 'chip')} on the PCI bus and no /dev/neuron0: no driver, or not given to this container"
        return Check("inferentia", FAIL, what, f"{commands.install_driver}; in a container --device=/dev/neuron0")
    if facts.emulation_error:
        what = f"NEURONBERT_EMULATE={emulated} cannot be emulated: {facts.emulation_error.splitlines()[0]}"
        return Check("inferentia", FAIL, what, facts.emulation_mend or "unset NEURONBERT_EMULATE")
    if not devices:
        what = f"no device; NEURONBERT_EMULATE={emulated} stands in for it" if emulated else "no device (/dev/neuron0)"
        return Check("inferentia", OK, what)
    if facts.unreachable_devices:
        listed = " ".join(facts.unreachable_devices)
        return Check("inferentia", FAIL, f"this user may not open {listed}", f"sudo chmod a+rw {listed}")
    device = f"{counted(len(devices), 'device')}, driver {driver or 'version unknown'}"
    if emulated:
        what = f"{device}, yet NEURONBERT_EMULATE={emulated} is set"
        return Check("inferentia", WARN, what, "unset NEURONBERT_EMULATE")
    return Check("inferentia", OK, device)


def check_cores(facts: Facts) -> Check:
    """Which processes hold NeuronCores: nobody else can use them until they end."""
    if not facts.neuron_devices and not facts.emulated:
        return Check("neuron cores", OK, "none")
    if facts.neuron_ls is None:
        mend = PACKAGE_COMMANDS[facts.package_manager].install_tools
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
    variables = core_variables(facts.environ)
    listed = ", ".join(f"{name}={value}" for name, value in variables.items())
    if not variables:
        return Check("neuron env", OK, "none set: a process takes every core, `neuronbert env` gives it its share")
    try:
        cores = {name: cores_given({name: value}) for name, value in variables.items()}
    except UsageError as error:
        return Check("neuron env", FAIL, error.message, error.hint)
    visible, number, grouped = (cores.get(name) for name in CORE_VARIABLES)
    given = visible or number
    if grouped and given and grouped > given:
        what = f"{listed}: the groups want {counted(grouped, 'core')} and there are {given}"
        return Check("neuron env", FAIL, what, f"unset {GROUP_SIZES}")
    if visible and NUM_CORES in variables:
        return Check("neuron env", WARN, f"{listed}: {NUM_CORES} has no effect beside it", f"unset {NUM_CORES}")
    if grouped and NUM_CORES in variables:
        what = f"{listed}: AWS's sources disagree on whether the runtime allows these together"
        return Check("neuron env", WARN, what, f"unset {GROUP_SIZES}")
    if number and "," in variables[NUM_CORES]:
        what = f"{listed}: AWS's sources disagree on whether the runtime takes a list"
        return Check("neuron env", WARN, what, f"export {NUM_CORES}={number}")
    if grouped and not visible:
        what = f"{listed}: runtimes since SDK 1.16 go by {VISIBLE_CORES}"
        return Check("neuron env", WARN, what, f"export {VISIBLE_CORES}={_core_range(grouped)}")
    return Check("neuron env", OK, listed)


def _core_range(count: int) -> str:
    return "0" if count == 1 else f"0-{count - 1}"
