"""Turns the emulator on and off: explicitly, announced on stderr; beside a real device only if asked for by name."""

import contextlib
import glob
import os
import sys
from pathlib import Path
from typing import Any, Iterator, List, Optional, TypedDict

from neuronbert.emulator import current, modules
from neuronbert.emulator.emulator_settings import ALL_VARIABLES, EmulatorSettings, default_directory, settings_from
from neuronbert.emulator.faults import parse_faults
from neuronbert.emulator.unknowns import parse_unknowns
from neuronbert.hardware.libraries import optional_imports

DEVICE_FILES = "/dev/neuron[0-9]*"
ANNOUNCED = "NEURONBERT_EMULATE_ANNOUNCED"


class EmulatorState(TypedDict):
    """What a report says of the emulator that it was made on."""

    emulated: bool
    instance_type: str
    timed: bool
    release: Optional[str]  # the SDK whose speed is imitated; None: untimed
    faults: List[str]
    unknowns: List[str]  # name=behaviour, where another than the default is shown


def has_device() -> bool:
    """True on a machine whose Neuron driver shows a device."""
    return bool(glob.glob(DEVICE_FILES))


def use(
    instance: str,
    *,
    faults: str = "",
    unknowns: str = "",
    release: Optional[str] = None,
    recorded: Optional[str] = None,
    record: Optional[str] = None,
    directory: Optional[str] = None,
) -> None:
    """From now on, ``import torch_neuron`` in this process and its children is an emulated ``instance``.

    ``release`` ("1.13" to "2.20") turns timed mode on: answers come from the file ``recorded``, after the time
    the hardware would have taken. ``record`` writes such a file. ``faults`` is a comma-separated list of names, and
    ``unknowns`` one of name=behaviour, for what no source settles (unknowns.py).
    UsageError for an instance, release, fault or behaviour that does not exist.
    """
    _activate(
        EmulatorSettings(
            instance=instance,
            directory=default_directory() if directory is None else Path(directory),
            faults=parse_faults(faults),
            unknowns=parse_unknowns(unknowns),
            release=release,
            recorded=Path(recorded) if recorded else None,
            record=Path(record) if record else None,
        )
    )


def use_if_no_device(instance: str, **options: Any) -> bool:
    """``use`` on a machine without Inferentia; on inf1 it does nothing and answers False.

    An emulator that is on already, or that NEURONBERT_EMULATE asks for, stays as it is.
    """
    if has_device():
        return False
    if current.settings() is None and not use_environment():
        use(instance, **options)
    return True


def use_environment() -> bool:
    """Turns on what NEURONBERT_EMULATE asks for; False when it asks for nothing."""
    wanted = settings_from(os.environ)
    if wanted is not None:
        _activate(wanted)
    return wanted is not None


def state() -> Optional[EmulatorState]:
    """For reports: {"emulated": True, "instance_type": …, "timed": …, "release": …}, or None while it is off."""
    settings = current.settings()
    if settings is None:
        return None
    return {
        "emulated": True,
        "instance_type": settings.instance,
        "timed": settings.timed,
        "release": settings.release,
        "faults": [str(fault) for fault in settings.faults],
        "unknowns": _listed(settings),
    }


def stop() -> None:
    """Turns the emulator off and gives its cores back; the process may go on, and may turn another one on."""
    if current.has_runtime():
        with optional_imports("emulator"):
            from neuronbert.emulator import calls, jit_load

        calls.intercept(None)
        jit_load.uninstall()
    current.switch_off()
    modules.uninstall()
    for name in (*ALL_VARIABLES, ANNOUNCED):
        os.environ.pop(name, None)


@contextlib.contextmanager
def recording(path: str) -> Iterator[None]:
    """Inside, every inference of the emulator is recorded for timed mode, and added to ``path`` at the end."""
    with optional_imports("emulator"):
        from neuronbert.emulator import calls
        from neuronbert.emulator.recordings import Recorder

    recorder = Recorder(Path(path))
    before = calls.intercept(recorder.intercept)
    try:
        yield
    finally:
        calls.intercept(before)
        recorder.save()


def _activate(wanted: EmulatorSettings) -> None:
    if current.settings() == wanted:
        return
    if current.has_runtime():
        raise RuntimeError("the emulator's runtime is up already; call neuronbert.emulator.stop() first")
    modules.install()
    current.switch_on(wanted)
    for name in ALL_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(wanted.as_environment())
    _announce(wanted)


def _announce(wanted: EmulatorSettings) -> None:
    # Once for a process and the workers it starts, not sixteen times.
    if os.environ.get(ANNOUNCED) == wanted.instance:
        return
    os.environ[ANNOUNCED] = wanted.instance
    timed = f", timed as SDK {wanted.release}" if wanted.timed else ""
    faults = f", with faults {', '.join(map(str, wanted.faults))}" if wanted.faults else ""
    unknowns = f", assuming {', '.join(_listed(wanted))}" if wanted.unknowns else ""
    print(
        f"neuronbert: emulating {wanted.instance}{timed}{faults}{unknowns}; no Inferentia device is used",
        file=sys.stderr,
    )


def _listed(settings: EmulatorSettings) -> List[str]:
    return [f"{name}={behaviour}" for name, behaviour in settings.unknowns]
