"""Turns the twin on: explicitly, announced on stderr, and never beside a real device unless asked for by name."""

import atexit
import contextlib
import glob
import os
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from neuronbert.emulator import modules
from neuronbert.emulator.faults import parse_faults
from neuronbert.emulator.settings import ALL_VARIABLES, TwinSettings, default_directory, settings_from

DEVICE_FILES = "/dev/neuron[0-9]*"
ANNOUNCED = "NEURONBERT_EMULATE_ANNOUNCED"

_settings: Optional[TwinSettings] = None
_runtime: Any = None


def has_device() -> bool:
    """True on a machine whose Neuron driver shows a device."""
    return bool(glob.glob(DEVICE_FILES))


def use(
    instance: str,
    *,
    faults: str = "",
    release: Optional[str] = None,
    recorded: Optional[str] = None,
    record: Optional[str] = None,
    directory: Optional[str] = None,
) -> None:
    """From now on, ``import torch_neuron`` in this process and its children is the twin of ``instance``.

    ``release`` (1.13, 1.17, 2.20) turns timed mode on: answers come from the file ``recorded``, after the time
    the hardware would have taken. ``record`` writes such a file. ``faults`` is a comma-separated list of names.
    UsageError for an instance, release or fault that does not exist.
    """
    _activate(
        TwinSettings(
            instance=instance,
            directory=default_directory() if directory is None else Path(directory),
            faults=parse_faults(faults),
            release=release,
            recorded=Path(recorded) if recorded else None,
            record=Path(record) if record else None,
        )
    )


def use_if_no_device(instance: str, **options: Any) -> bool:
    """``use`` on a machine without Inferentia; on inf1 it does nothing and answers False.

    A twin that is on already, by NEURONBERT_EMULATE for one, stays as it is.
    """
    if has_device():
        return False
    if _settings is None and not use_environment():
        use(instance, **options)
    return True


def use_environment() -> bool:
    """The twin that NEURONBERT_EMULATE asks for, if any; True when there is one."""
    wanted = settings_from(os.environ)
    if wanted is not None:
        _activate(wanted)
    return wanted is not None


def settings() -> Optional[TwinSettings]:
    """What the twin was asked to be, or None while it is off."""
    return _settings


def state() -> Optional[Dict[str, Any]]:
    """For reports: {"emulated": True, "instance_type": …, "timed": …, "release": …}, or None while it is off."""
    if _settings is None:
        return None
    return {
        "emulated": True,
        "instance_type": _settings.instance,
        "timed": _settings.timed,
        "release": _settings.release,
        "faults": [str(fault) for fault in _settings.faults],
    }


def runtime() -> Any:
    """The runtime of this process, made at the first import of torch_neuron."""
    global _runtime
    if _settings is None:
        raise RuntimeError("the twin is off")
    if _runtime is None:
        from neuronbert.emulator.runtime import Runtime

        _runtime = Runtime(_settings)
        atexit.register(_runtime.close)
    return _runtime


def stop() -> None:
    """Turns the twin off and gives its cores back; a process that goes on uses it no more."""
    global _settings, _runtime
    if _runtime is not None:
        from neuronbert.emulator import calls

        calls.intercept(None)
        atexit.unregister(_runtime.close)
        _runtime.close()
    _settings, _runtime = None, None
    modules.uninstall()
    for name in (*ALL_VARIABLES, ANNOUNCED):
        os.environ.pop(name, None)


@contextlib.contextmanager
def recording(path: str) -> Iterator[None]:
    """Inside, every inference of the running twin is recorded for timed mode, and added to ``path`` at the end."""
    from neuronbert.emulator import calls
    from neuronbert.emulator.timed import Recorder

    recorder = Recorder(Path(path))
    before = calls.intercept(recorder.intercept)
    try:
        yield
    finally:
        calls.intercept(before)
        recorder.save()


def _activate(wanted: TwinSettings) -> None:
    global _settings
    if _settings == wanted:
        return
    if _runtime is not None:
        raise RuntimeError("the twin's runtime is up already; call neuronbert.emulator.stop() first")
    modules.install()
    _settings = wanted
    for name in ALL_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(wanted.as_environment())
    _announce(wanted)


def _announce(wanted: TwinSettings) -> None:
    # Once for a process and the workers it starts, not sixteen times.
    if os.environ.get(ANNOUNCED) == wanted.instance:
        return
    os.environ[ANNOUNCED] = wanted.instance
    timed = f", timed as SDK {wanted.release}" if wanted.timed else ""
    faults = f", with faults {', '.join(map(str, wanted.faults))}" if wanted.faults else ""
    print(f"neuronbert: emulating {wanted.instance}{timed}{faults}; no Inferentia device is used", file=sys.stderr)
