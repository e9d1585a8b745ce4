"""torch.neuron.DataParallel: one copy of a module per core, a batch split over them."""

import io
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import List, Optional, Sequence, Union

import torch

from neuronbert.emulator import api, compiled_ops, jit_load
from neuronbert.emulator.graph import Value
from neuronbert.emulator.loaded import Placement
from neuronbert.emulator.neff import Neff, build_neff


class DataParallel(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Splits a batch along ``dim`` over the cores in ``device_ids``, which count from the process's first.

    Attributes: num_workers, two threads a core; split_size, rows of each piece of the last batch.
    """

    def __init__(
        self, model: torch.jit.ScriptModule, device_ids: Optional[Sequence[Union[int, str]]] = None, dim: int = 0
    ):
        super().__init__()
        self._prepare(model, device_ids, dim)

    def _prepare(
        self, model: torch.jit.ScriptModule, device_ids: Optional[Sequence[Union[int, str]]], dim: int
    ) -> None:
        neffs = [compiled_ops.program_of_payload(payload).neff for payload in compiled_ops.payloads_of(model).values()]
        _require_single_cores(neffs)
        api.runtime().initialize()
        self.dim = dim
        self.device_ids = _core_numbers(device_ids, len(api.runtime().cores))
        self.num_workers = 2 * len(self.device_ids)
        self.split_size: Optional[int] = None
        self._compiled_batch = neffs[0].batch_size
        self._model = model
        self._dynamic = dim == 0
        if dim != 0:
            warnings.warn("dynamic batching is only possible along dimension 0; it is off", stacklevel=2)
        self._copies = self._make_copies()

    def disable_dynamic_batching(self) -> None:
        """From now on each core must get exactly the compiled batch."""
        self._dynamic = False
        self._copies = self._make_copies()

    def forward(self, *inputs: torch.Tensor) -> Value:
        """The module's output for the whole batch."""
        rows, cores = inputs[0].shape[self.dim], len(self.device_ids)
        if not self._dynamic and rows != cores * self._compiled_batch:
            raise RuntimeError(
                f"{rows} rows over {cores} cores are not the {self._compiled_batch} a core that were compiled, "
                "and dynamic batching is off"
            )
        self.split_size = max(1, rows // cores)
        pieces = list(zip(*(tensor.split(self.split_size, dim=self.dim) for tensor in inputs)))
        with ThreadPoolExecutor(self.num_workers) as pool:
            results = list(pool.map(self._run_piece, range(len(pieces)), pieces))
        return _joined(results, self.dim)

    def _run_piece(self, index: int, piece: Sequence[torch.Tensor]) -> Value:
        core = index % len(self.device_ids)
        try:
            return self._copies[core](*piece)
        except RuntimeError as error:
            raise RuntimeError(
                f"Caught RuntimeError on neuroncore {self.device_ids[core]}.\nOriginal error: {error}"
            ) from error

    def _make_copies(self) -> List[torch.nn.Module]:
        buffer = io.BytesIO()
        torch.jit.save(self._model, buffer)
        copies = []
        for core in self.device_ids:
            buffer.seek(0)
            copy = jit_load.read(buffer)
            for payload in compiled_ops.payloads_of(copy).values():
                if self._dynamic:
                    _make_dynamic(payload)
                compiled_ops.place(payload, Placement(core, 1))
            copies.append(copy)
        return copies


def _require_single_cores(neffs: Sequence[Neff]) -> None:
    if not neffs:
        raise ValueError("DataParallel needs a module that torch.neuron.trace compiled")
    if any(neff.pipeline_cores > 1 for neff in neffs):
        raise RuntimeError(
            "DataParallel does not currently support models that have been compiled with NeuronCore Pipeline"
        )


def _core_numbers(device_ids: Optional[Sequence[Union[int, str]]], available: int) -> List[int]:
    if device_ids is None:
        return list(range(available))
    numbers = []
    for device in device_ids:
        match = re.match(r"nc:(\d+)$", device) if isinstance(device, str) else None
        number = int(match[1]) if match else device
        if not isinstance(number, int) or not 0 <= number < available:
            raise ValueError(f"device_ids are numbers or 'nc:#' from 0 to {available - 1}, not {device!r}")
        numbers.append(number)
    return numbers


def _make_dynamic(payload: torch.Tensor) -> None:
    """Rewrites a payload in place as one compiled with dynamic_batch_size."""
    neff = compiled_ops.program_of_payload(payload).neff
    content = build_neff(neff._replace(dynamic_batch_size=True))
    payload.set_(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def _joined(results: Sequence[Value], dim: int) -> Value:
    first = results[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(results), dim=dim)
    if isinstance(first, dict):
        return {key: _joined([result[key] for result in results], dim) for key in first}
    return tuple(_joined(parts, dim) for parts in zip(*results))
