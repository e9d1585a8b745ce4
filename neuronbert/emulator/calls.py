"""Stands between a caller and a compiled module: records its answers, or gives recorded ones in modelled time.

A recording is of whole modules, embeddings included, because timed mode must not spend this host's time on them.
"""

import weakref
from typing import Callable, Optional, Tuple

import torch

from neuronbert.emulator import compiled_ops
from neuronbert.emulator.graph import Value

Payloads = Tuple[torch.Tensor, ...]
Inputs = Tuple[torch.Tensor, ...]
Interceptor = Callable[[torch.jit.ScriptModule, Payloads, Inputs], Value]

_interceptor: Optional[Interceptor] = None
_payloads: "weakref.WeakKeyDictionary[torch.nn.Module, Payloads]" = weakref.WeakKeyDictionary()


def install() -> None:
    """Make torch call compiled modules through here, once a process."""
    if torch.jit.ScriptModule.__dict__.get("__call__") is not _call:
        torch.jit.ScriptModule.__call__ = _call


def intercept(interceptor: Optional[Interceptor]) -> Optional[Interceptor]:
    """From now on ``interceptor`` answers calls of compiled modules; returns the one before."""
    global _interceptor
    before, _interceptor = _interceptor, interceptor
    install()
    return before


def plain_call(module: torch.jit.ScriptModule, *arguments: Value, **named: Value) -> Value:
    """The call as torch makes it, with an operator's message put back where torch < 2 loses it.

    That TorchScript interpreter reports a Python operator's exception as "RuntimeError: " and nothing; the real
    operator, written in C++, does not have this problem.
    """
    compiled_ops.last_failure.error = None
    try:
        return torch.nn.Module.__call__(module, *arguments, **named)
    except RuntimeError as error:
        lost = compiled_ops.last_failure.error
        if lost is None or str(lost) in str(error):
            raise
        raise RuntimeError(f"{str(error).rstrip()} {type(lost).__name__}: {lost}") from lost


def _call(self: torch.jit.ScriptModule, *arguments: Value, **named: Value) -> Value:
    if _interceptor is not None and not compiled_ops.is_compiling():
        payloads = _payloads.get(self)
        if payloads is None:
            payloads = _payloads[self] = tuple(compiled_ops.payloads_of(self).values())
        if payloads:
            return _interceptor(self, payloads, arguments)
    return plain_call(self, *arguments, **named)
