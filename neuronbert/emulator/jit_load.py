"""Stands in torch.jit.load, as torch_neuron does: a saved model goes onto the device there; compiled_ops puts it on.

A model that has just been traced waits for its first inference instead (aws-neuron-sdk issue 364). That a saved one
does not is what issues 325, 453, 625 and 718 and kserve issue 2714 show: torch.jit.load itself warns or raises. Only a
user of 2021 sees it raise at the first inference (issue 369), so a caller has to survive both.
"""

import contextlib
from typing import Any, Callable, Iterator, Optional

import torch

from neuronbert.emulator import compiled_ops
from neuronbert.emulator.loaded import ANYWHERE, Placement

_torchs_own: Optional[Callable[..., Any]] = None
_placement = ANYWHERE


def install() -> None:
    """From now on torch.jit.load puts what it reads onto the device."""
    global _torchs_own
    if _torchs_own is None:
        _torchs_own, torch.jit.load = torch.jit.load, load


def uninstall() -> None:
    """Gives torch its own function back."""
    global _torchs_own, _placement
    _placement = ANYWHERE
    if _torchs_own is not None:
        torch.jit.load, _torchs_own = _torchs_own, None


def load(*arguments: Any, **named: Any) -> Any:
    """torch.jit.load, then the module's models onto cores; RuntimeError when the runtime refuses one."""
    module = read(*arguments, **named)
    for payload in compiled_ops.payloads_of(module).values():
        if _placement == ANYWHERE:
            compiled_ops.loaded(payload)
        else:
            compiled_ops.place(payload, _placement)
    return module


def read(*arguments: Any, **named: Any) -> Any:
    """torch.jit.load, and nothing onto the device: for a caller that says where each model goes."""
    return (_torchs_own or torch.jit.load)(*arguments, **named)


@contextlib.contextmanager
def placing(placement: Placement) -> Iterator[None]:
    """Inside, what torch.jit.load reads goes to ``placement``. Of the process, not of the thread, as documented."""
    global _placement
    before, _placement = _placement, placement
    try:
        yield
    finally:
        _placement = before
