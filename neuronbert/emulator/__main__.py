"""``python -m neuronbert.emulator``: what is unknown about inf1, and the emulated neuron-ls and neuron-monitor."""

import json
import os
import sys
from typing import TYPE_CHECKING, Sequence

from neuronbert.emulator.emulator_settings import INSTANCE, EmulatorSettings, settings_from
from neuronbert.emulator.unknowns import UNKNOWNS, as_json, as_text
from neuronbert.errors import NeuronBertError
from neuronbert.hardware.libraries import optional_imports

if TYPE_CHECKING:
    from neuronbert.emulator.tools import NeuronDevice

USAGE = f"""\
usage: python -m neuronbert.emulator [unknowns] [--json]
       {INSTANCE}=inf1.xlarge python -m neuronbert.emulator neuron-ls [-j | --json-output] | neuron-monitor"""
# Each tool with the switches that it takes here.
TOOLS = {"neuron-ls": ("-j", "--json-output"), "neuron-monitor": ()}


def main(arguments: Sequence[str]) -> int:
    """Prints what is unknown, or a tool's output; 2 when asked for something else, the error's code where it fails."""
    if not set(arguments) - {"unknowns", "--json"}:
        return print_unknowns("--json" in arguments)
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    try:
        settings = settings_from(os.environ)
        if settings is None or arguments[0] not in TOOLS or set(arguments[1:]) - set(TOOLS[arguments[0]]):
            print(USAGE, file=sys.stderr)
            return 2
        print_tool(settings, arguments[0], in_json=len(arguments) > 1)
    except NeuronBertError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def print_tool(settings: EmulatorSettings, name: str, in_json: bool) -> None:
    """What the tool ``name`` prints; neuron-monitor prints JSON only. MissingLibrary where it needs one."""
    with optional_imports("emulator"):
        from neuronbert.emulator import tools
    if name == "neuron-monitor":
        print(json.dumps(tools.neuron_monitor(settings)))
    elif in_json:
        print(json.dumps(tools.neuron_ls(settings), indent=1))
    else:
        print_table(settings, tools.neuron_ls(settings))


def print_unknowns(in_json: bool) -> int:
    """The table of unknowns.py; it needs no emulated instance."""
    if in_json:
        print(json.dumps([as_json(entry) for entry in UNKNOWNS], indent=1))
    else:
        print("\n\n".join(map(as_text, UNKNOWNS)))
    return 0


def print_table(settings: EmulatorSettings, devices: "Sequence[NeuronDevice]") -> None:
    """What neuron-ls shows a person."""
    print(f"instance-type: {settings.instance} (emulated)")
    for device in devices:
        holders = ", ".join(str(process["pid"]) for process in device["neuron_processes"]) or "-"
        connected = ", ".join(map(str, device["connected_to"] or [])) or "-"
        print(f"device {device['neuron_device']}  cores {device['nc_count']}  8 GB  connected {connected}  "
              f"{device['bdf']}  pids {holders}")  # fmt: skip


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # a reader that leaves, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
