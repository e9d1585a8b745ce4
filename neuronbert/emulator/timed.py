"""Timed mode: takes as long as the hardware would, and answers from a recording because this CPU could not keep up."""

import ctypes
import hashlib
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import safetensors.torch
import torch
from filelock import FileLock

from neuronbert.emulator import calls, ops
from neuronbert.emulator.neff import Neff
from neuronbert.emulator.nrt_log import execute_error
from neuronbert.hardware.device_model import Work, entry_seconds, stage_seconds

PR_SET_TIMERSLACK = 29  # linux/prctl.h
LATE_S = 80e-6  # how late a virtual machine's idle core wakes up


class UnknownInput(RuntimeError):
    """Timed mode was asked something that was not recorded."""


class CoreClock:
    """When each core of the process is free again, in modelled time.

    A batch's way through its stages is worked out when it arrives; its caller then sleeps until the end. So
    sixteen stages cost one sleep, and a late wake-up never delays another batch.
    """

    def __init__(self, cores: int):
        self._free_at = [0.0] * cores
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._plans: Dict[Tuple[int, int], Tuple[Neff, Tuple[float, ...], float]] = {}

    def occupy(
        self, cores: range, neff: Neff, active_cores_per_chip: int, release: str, called_at: float
    ) -> Tuple[float, ...]:
        """Takes the cores one after the other and returns when the last stage is done: each stage's seconds.

        ``called_at`` is when the call came (time.perf_counter): what the emulator did since then took no device time.
        """
        _, stages, entry_s = self._plan(neff, active_cores_per_chip, release)
        end = self._schedule(cores, stages, self._arrival(called_at, entry_s))
        sleep_until(end)
        self._thread.done_at = end
        return stages

    def _plan(self, neff: Neff, active: int, release: str) -> Tuple[Neff, Tuple[float, ...], float]:
        key = (id(neff), active)  # the plan keeps its neff alive, so the id stays its own
        if key not in self._plans:
            work = neff_work(neff, active, release)
            self._plans[key] = (neff, stage_seconds(work), entry_seconds(work))
        return self._plans[key]

    def _arrival(self, called_at: float, host_call_s: float) -> float:
        """When it came; but a thread's own time between two calls is the modelled host call, not an addition."""
        return max(getattr(self._thread, "done_at", called_at), called_at - host_call_s)

    def _schedule(self, cores: range, stages: Sequence[float], arrival: float) -> float:
        moment = arrival
        with self._lock:
            for core, seconds in zip(cores, stages):
                moment = max(moment, self._free_at[core]) + seconds
                self._free_at[core] = moment
        return moment


def neff_work(neff: Neff, active_cores_per_chip: int, release: str) -> Work:
    """One batch of a compiled subgraph, as the device model wants it."""
    hidden = next((spec.shape for _, spec in neff.inputs if len(spec.shape) == 3), (1, 1, 1))
    return Work(neff.shape, neff.batch_size, hidden[1], neff.pipeline_cores, active_cores_per_chip, release)


_precise = threading.local()


def sleep_until(moment: float) -> None:
    """Until ``moment`` of time.perf_counter, to within some 20 microseconds: all but the last ``LATE_S`` asleep."""
    if not getattr(_precise, "asked", False):
        _ask_for_precise_sleep()
        _precise.asked = True
    while True:
        left = moment - time.perf_counter()
        if left <= 0:
            return
        if left > LATE_S:
            time.sleep(left - LATE_S)


def _ask_for_precise_sleep() -> None:
    """Linux wakes a thread up to 50 microseconds late unless the thread asks otherwise."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1000, 0, 0, 0)
    except (OSError, AttributeError):
        pass  # not Linux: a little late is all that happens


# ---------------------------------------------------------------------------- recorded logits


def row_keys(neffs: Sequence[Neff], inputs: Sequence[torch.Tensor]) -> List[str]:
    """A digest for each row: of the module's weights and of what the row holds in every input."""
    common = hashlib.sha256("".join(neff.weights_digest for neff in neffs).encode())
    arrays = [tensor.contiguous().numpy() for tensor in inputs]
    keys = []
    for row in range(len(arrays[0])):
        found = common.copy()
        for array in arrays:
            found.update(repr(array.shape[1:]).encode())
            found.update(array[row].tobytes())
        keys.append(found.hexdigest())
    return keys


class RecordedLogits:
    """What the model said of each known row; a row is known whatever batch it comes in."""

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
    """Collects rows while the twin computes, and adds them to a file."""

    def __init__(self, path: Path):
        self._path = path
        self._rows: Dict[str, torch.Tensor] = {}
        self._lock = threading.Lock()

    def intercept(self, module: torch.jit.ScriptModule, payloads: calls.Payloads, inputs: Tuple[Any, ...]) -> Any:
        """Lets the module answer, and keeps each row with its outputs."""
        answer = calls.plain_call(module, *inputs)
        outputs = [answer] if isinstance(answer, torch.Tensor) else list(answer)
        if not all(isinstance(output, torch.Tensor) for output in outputs):
            raise TypeError("a recording is of modules that return tensors, and this one returns something else")
        keys = row_keys([ops.program_of_payload(payload).neff for payload in payloads], inputs)
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
            with FileLock(str(self._path) + ".lock"):
                self._merge()

    def _merge(self) -> None:
        known = safetensors.torch.load_file(str(self._path)) if self._path.exists() else {}
        temporary = self._path.with_suffix(".tmp")
        safetensors.torch.save_file({**known, **self._rows}, str(temporary))
        temporary.replace(self._path)
