"""Runs a compiled subgraph: static shapes checked, batches cut to size, one stage after the other."""

import contextlib
import ctypes
import functools
from typing import Callable, ContextManager, Dict, List, Optional, Sequence

import torch

from neuronbert.emulator.arithmetic import Arithmetic, last_readers, run_nodes
from neuronbert.emulator.graph import Value
from neuronbert.emulator.neff import Neff
from neuronbert.emulator.nrt_log import execute_error

RunBatch = Callable[[Sequence[torch.Tensor]], List[torch.Tensor]]


class LoadedProgram:
    """A Neff ready to run; safe to use from many threads."""

    def __init__(self, neff: Neff):
        self.neff = neff
        self._rules = Arithmetic(neff.policy)
        self._tensors: Optional[Dict[str, torch.Tensor]] = None
        self._dead_after = last_readers(neff.nodes, [name for name, _ in neff.outputs])

    def run_batches(self, inputs: Sequence[torch.Tensor], run: RunBatch) -> List[torch.Tensor]:
        """``run`` on batches of exactly the compiled size; any number of rows with dynamic batching only."""
        self._check_inputs(inputs)
        rows, size = self._rows(inputs), self.neff.batch_size
        if rows == size:
            return run(inputs)
        pieces = [run([_rows_of(tensor, start, size) for tensor in inputs]) for start in range(0, rows, size)]
        return [torch.cat(parts)[:rows] for parts in zip(*pieces)]

    def run_stages(
        self, batch: Sequence[torch.Tensor], cores: Sequence[ContextManager[None]] = ()
    ) -> List[torch.Tensor]:
        """One batch; each stage holds its core, so that another batch can be in the next one."""
        tensors = self._widened()
        values: Dict[str, Value] = {
            name: self._rules.entering(tensor) for (name, _), tensor in zip(self.neff.inputs, batch)
        }
        with torch.no_grad():
            for index, (start, end) in enumerate(self.neff.stages):
                with cores[index] if cores else contextlib.nullcontext():
                    run_nodes(self.neff.nodes[start:end], values, tensors, self._rules, self._dead_after)
        return [values[name].contiguous() for name, _ in self.neff.outputs]

    def _widened(self) -> Dict[str, torch.Tensor]:
        """The weights in 32 bit containers; made at the first inference, as timed mode never needs them."""
        if self._tensors is None:
            _keep_freed_memory()
            self._tensors = {
                name: tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
                for name, tensor in self.neff.tensors.items()
            }
        return self._tensors

    def constant_outputs(self) -> List[torch.Tensor]:
        """What a runtime that is not there "computes"."""
        return [torch.zeros(spec.shape, dtype=spec.dtype) for _, spec in self.neff.outputs]

    def _rows(self, inputs: Sequence[torch.Tensor]) -> int:
        return int(inputs[0].shape[0]) if inputs[0].dim() else 1

    def _check_inputs(self, inputs: Sequence[torch.Tensor]) -> None:
        if len(inputs) != len(self.neff.inputs):
            raise execute_error(1002, f": received {len(inputs)} tensors, expected {len(self.neff.inputs)}")
        if self.neff.dynamic_batch_size and len({self._rows([tensor]) for tensor in inputs}) > 1:
            raise RuntimeError("Inconsistent batch sizes found on inputs")
        for index, (tensor, (_, spec)) in enumerate(zip(inputs, self.neff.inputs)):
            fixed = 1 if self.neff.dynamic_batch_size else 0
            if tuple(tensor.shape)[fixed:] != spec.shape[fixed:] or tensor.dtype != spec.dtype:
                raise execute_error(
                    1002,
                    f": input {index} has shape {list(tensor.shape)} of {tensor.dtype}, "
                    f"the model was compiled for {list(spec.shape)} of {spec.dtype}",
                )


# malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8


@functools.lru_cache(maxsize=None)
def _keep_freed_memory() -> None:
    """Lets malloc keep the tens of megabytes that every operator takes and gives back.

    Fresh pages from the kernel cost up to two thirds of the arithmetic: 6 rows of 384 tokens took 0.87 s of user and
    0.55 s of system time, and 0.82 and 0.0 s with this.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it
    if mallopt is not None:
        for option, value in ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1)):
            mallopt(option, value)


def _rows_of(tensor: torch.Tensor, start: int, size: int) -> torch.Tensor:
    """``size`` rows from ``start``; the last row repeated where they run out."""
    rows = tensor[start : start + size]
    missing = size - rows.shape[0]
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
