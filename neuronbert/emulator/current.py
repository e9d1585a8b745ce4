"""What is emulated in this process now: the settings asked for and the runtime made from them; activation sets it."""

import atexit
from typing import TYPE_CHECKING, Optional

from neuronbert.emulator.emulator_settings import EmulatorSettings
from neuronbert.hardware.libraries import optional_imports

if TYPE_CHECKING:
    from neuronbert.emulator.runtime import Runtime

_settings: Optional[EmulatorSettings] = None
_runtime: Optional["Runtime"] = None


def settings() -> Optional[EmulatorSettings]:
    """What the emulator was asked to be, or None while it is off."""
    return _settings


def has_runtime() -> bool:
    """True from the first import of torch_neuron on: the settings are then fixed until ``switch_off``."""
    return _runtime is not None


def runtime() -> "Runtime":
    """The runtime of this process, made at the first import of torch_neuron; RuntimeError while the emulator is off."""
    global _runtime
    if _settings is None:
        raise RuntimeError("the emulator is off")
    if _runtime is None:
        # It imports torch, which a process that only asks for the settings must not pay for.
        with optional_imports("emulator"):
            from neuronbert.emulator.runtime import Runtime

        _runtime = Runtime(_settings)
        atexit.register(_runtime.close)
    return _runtime


def switch_on(wanted: EmulatorSettings) -> None:
    """Makes ``wanted`` what is emulated; only while there is no runtime."""
    global _settings
    assert _runtime is None, "the runtime keeps its settings"
    _settings = wanted


def switch_off() -> None:
    """Forgets the settings, and closes the runtime if there is one, which gives its cores back."""
    global _settings, _runtime
    if _runtime is not None:
        atexit.unregister(_runtime.close)
        _runtime.close()
    _settings, _runtime = None, None
