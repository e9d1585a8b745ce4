"""Puts torch_neuron, torch.neuron and neuron_cc where import finds them; built at the first import, not before."""

import importlib
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import Callable, Dict, Optional, Sequence

from neuronbert.emulator import current
from neuronbert.hardware.libraries import optional_imports

TORCH_NEURON_VERSION = "1.13.1.2.11.13.0+emulated"
NEURON_CC_VERSION = "1.24.0.0+emulated"
PUBLIC = ("trace", "analyze_model", "get_supported_operations", "is_available", "Optimization")


@optional_imports("emulator")
def _fill_torch_neuron(module: ModuleType) -> None:
    from neuronbert.emulator import api  # needs torch, as the other modules that are imported on use

    api.set_runtime(current.runtime())
    _fill_public(module)
    module.experimental = importlib.import_module("torch_neuron.experimental")  # type: ignore[attr-defined]
    # As the real package does: after this import, torch.neuron is there.
    importlib.import_module("torch").neuron = importlib.import_module("torch.neuron")  # type: ignore[attr-defined]


@optional_imports("emulator")
def _fill_torch_dot_neuron(module: ModuleType) -> None:
    importlib.import_module("torch_neuron")
    _fill_public(module)


@optional_imports("emulator")
def _fill_public(module: ModuleType) -> None:
    from neuronbert.emulator import api, data_parallel

    module.__version__ = TORCH_NEURON_VERSION  # type: ignore[attr-defined]
    for name in PUBLIC:
        setattr(module, name, getattr(api, name))
    module.DataParallel = data_parallel.DataParallel  # type: ignore[attr-defined]


@optional_imports("emulator")
def _fill_experimental(module: ModuleType) -> None:
    from neuronbert.emulator import experimental

    for name in ("set_neuron_cores", "set_multicore", "neuron_cores_context", "multicore_context"):
        setattr(module, name, getattr(experimental, name))


def _fill_neuron_cc(module: ModuleType) -> None:
    # A compiler that behaves otherwise is another one: what it makes must not be taken for this one's in a cache.
    settings = current.settings()
    others = "".join(f".{name}.{behaviour}" for name, behaviour in settings.unknowns) if settings else ""
    module.__version__ = NEURON_CC_VERSION + others  # type: ignore[attr-defined]


FILLERS: Dict[str, Callable[[ModuleType], None]] = {
    "torch_neuron": _fill_torch_neuron,
    "torch_neuron.experimental": _fill_experimental,
    "torch.neuron": _fill_torch_dot_neuron,
    "neuron_cc": _fill_neuron_cc,
}


class EmulatorFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers the imports of FILLERS' names, before any real package or PyPI placeholder could."""

    def find_spec(
        self, name: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        if name not in FILLERS:
            return None
        return importlib.machinery.ModuleSpec(
            name, self, is_package=name == "torch_neuron", origin="neuronbert.emulator"
        )

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[ModuleType]:
        return None

    def exec_module(self, module: ModuleType) -> None:
        FILLERS[module.__name__](module)


def install() -> None:
    """Makes the emulated modules importable; RuntimeError when the real torch_neuron is already imported."""
    loaded = sys.modules.get("torch_neuron")
    if loaded is not None and not str(getattr(loaded, "__version__", "")).endswith("+emulated"):
        raise RuntimeError("the real torch_neuron is imported already; the emulator must be asked for before that")
    if not any(isinstance(finder, EmulatorFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, EmulatorFinder())


def uninstall() -> None:
    """Takes the emulated modules away again."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, EmulatorFinder)]
    for name in FILLERS:
        sys.modules.pop(name, None)
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "neuron"):
        del torch.neuron
