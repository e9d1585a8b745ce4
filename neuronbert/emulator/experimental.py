"""torch_neuron.experimental: says on which cores a module is loaded (beta in the SDK)."""

import contextlib
from typing import Iterator

import torch

from neuronbert.emulator import compiled_ops, jit_load
from neuronbert.emulator.loaded import ALL_CORES, Placement


def set_neuron_cores(trace: torch.nn.Module, start_nc: int = -1, nc_count: int = -1) -> None:
    """Moves a module to cores counted from the process's first; more than it needs makes replicas."""
    _place(trace, _checked(start_nc, nc_count))


def set_multicore(trace: torch.nn.Module) -> None:
    """Replicates a module over all cores of the process."""
    _place(trace, Placement(0, ALL_CORES))


@contextlib.contextmanager
def neuron_cores_context(start_nc: int = -1, nc_count: int = -1) -> Iterator[None]:
    """Modules that torch.jit.load reads inside go to these cores. Not threadsafe, as documented."""
    with jit_load.placing(_checked(start_nc, nc_count)):
        yield


@contextlib.contextmanager
def multicore_context() -> Iterator[None]:
    """Modules that torch.jit.load reads inside go to all cores. Not threadsafe, as documented."""
    with jit_load.placing(Placement(0, ALL_CORES)):
        yield


def _checked(start_nc: int, nc_count: int) -> Placement:
    if nc_count < -1 or nc_count == 0:
        raise ValueError(f"nc_count must be -1 or at least 1, not {nc_count}")
    if start_nc < -1:
        raise ValueError(f"start_nc must be -1 or at least 0, not {start_nc}")
    return Placement(start_nc, nc_count)


def _place(module: torch.nn.Module, placement: Placement) -> None:
    for payload in compiled_ops.payloads_of(module).values():
        compiled_ops.place(payload, placement)
