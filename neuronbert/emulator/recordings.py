"""Recordings of a model's logits, row by row: the file that timed mode answers from, written while models compute."""

import hashlib
import os
import tempfile
import threading
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import safetensors.torch
import torch

from neuronbert.emulator import calls, compiled_ops
from neuronbert.emulator.graph import Value
from neuronbert.emulator.neff import Neff
from neuronbert.emulator.nrt_log import execute_error
from neuronbert.hardware.own_places import locked


class UnknownInput(RuntimeError):
    """Timed mode was asked for a row that was not recorded."""


def row_keys(neffs: Sequence[Neff], inputs: Sequence[torch.Tensor]) -> List[str]:
    """A digest for each row: of the module's weights and of what the row holds in every input."""
    common = hashlib.sha256("".join(neff.weights_digest for neff in neffs).encode())
    arrays = [tensor.contiguous().numpy() for tensor in inputs]
    keys = []
    for row in range(len(arrays[0])):
        digest = common.copy()
        for array in arrays:
            digest.update(repr(array.shape[1:]).encode())
            digest.update(array[row].tobytes())
        keys.append(digest.hexdigest())
    return keys


class RecordedLogits:
    """The model's outputs for each recorded row; a row is known whatever batch it comes in."""

    def __init__(self, path: Path):
        self._path = path
        self._rows = safetensors.torch.load_file(str(path))

    def answer(self, neffs: Sequence[Neff], inputs: Sequence[torch.Tensor]) -> List[torch.Tensor]:
        """The outputs of a batch of known rows; UnknownInput for any other."""
        rows = int(inputs[0].shape[0])
        if rows != neffs[0].batch_size and not neffs[0].dynamic_batch_size:
            raise execute_error(1002, f": {rows} rows, the model was compiled for {neffs[0].batch_size}")
        keys = row_keys(neffs, inputs)
        outputs: List[torch.Tensor] = []
        while f"{keys[0]}.{len(outputs)}" in self._rows:
            outputs.append(self._stacked(keys, len(outputs)))
        if not outputs:
            raise self._unknown()
        return outputs

    def _stacked(self, keys: Sequence[str], index: int) -> torch.Tensor:
        try:
            return torch.stack([self._rows[f"{key}.{index}"] for key in keys])
        except KeyError:
            raise self._unknown() from None

    def _unknown(self) -> UnknownInput:
        return UnknownInput(f"timed mode knows only the inputs recorded in {self._path}; this one is not among them")


class Recorder:
    """Collects rows while the emulator computes, and adds them to a file."""

    def __init__(self, path: Path):
        self._path = path
        self._rows: Dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()

    def intercept(
        self, module: torch.jit.ScriptModule, payloads: calls.Payloads, inputs: Tuple[torch.Tensor, ...]
    ) -> Value:
        """Lets the module answer, and keeps each row with its outputs."""
        answer = calls.plain_call(module, *inputs)
        outputs = [answer] if isinstance(answer, torch.Tensor) else list(answer)
        if not all(isinstance(output, torch.Tensor) for output in outputs):
            raise TypeError("a recording is of modules that return tensors, and this one returns something else")
        keys = row_keys([compiled_ops.program_of_payload(payload).neff for payload in payloads], inputs)
        with self._lock:
            for index, output in enumerate(outputs):
                for key, row in zip(keys, output):
                    self._rows[f"{key}.{index}"] = row.detach().clone().contiguous()
        return answer

    def save(self) -> None:
        """Merges with what the file already holds."""
        with self._lock:
            if not self._rows:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with locked(f"{self._path}.lock"):
                self._merge()

    def _merge(self) -> None:
        known = safetensors.torch.load_file(str(self._path)) if self._path.exists() else {}
        with tempfile.TemporaryDirectory(dir=str(self._path.parent)) as folder:
            merged = os.path.join(folder, self._path.name)
            safetensors.torch.save_file({**known, **self._rows}, merged)
            os.replace(merged, self._path)
