"""Timed mode: answers calls of whole modules from a recording, after the time that the hardware would have taken."""

import time
from typing import Dict, List, Optional, Tuple

import torch

from neuronbert.emulator import calls, compiled_ops
from neuronbert.emulator.core_clock import CoreClock, Neighbours
from neuronbert.emulator.graph import Value
from neuronbert.emulator.loaded import LoadedModel, Replica
from neuronbert.emulator.recordings import RecordedLogits
from neuronbert.emulator.runtime import PUBLISH_EVERY_S, Runtime
from neuronbert.hardware.cores import CORES_PER_CHIP


def interceptor_of(runtime: Runtime) -> Optional[calls.Interceptor]:
    """What stands before calls of compiled modules: a recording to answer from, one to make, or nothing."""
    if runtime.recorded is not None and runtime.settings.release is not None:
        return TimedCalls(runtime, runtime.recorded, runtime.settings.release).answer
    return runtime.recorder.intercept if runtime.recorder is not None else None


class TimedCalls:
    """Answers for the models on a runtime's cores, at the speed of an SDK ``release``."""

    def __init__(self, runtime: Runtime, recorded: RecordedLogits, release: str):
        self._runtime = runtime
        self._recorded = recorded
        self._release = release
        self._clock: Optional[CoreClock] = None  # made with the first batch: the process has its cores then
        self._loaded: Tuple[float, Dict[int, int]] = (0.0, {})  # when they were listed; core → its process

    def answer(
        self, module: torch.jit.ScriptModule, payloads: calls.Payloads, inputs: Tuple[torch.Tensor, ...]
    ) -> Value:
        """A module's recorded answer, when the hardware would have had it."""
        called_at = time.perf_counter()
        models = [compiled_ops.loaded(payload) for payload in payloads]
        neffs = [model.program.neff for model in models]

        def run() -> List[torch.Tensor]:
            outputs = self._recorded.answer(neffs, inputs)
            for number, model in enumerate(models):
                self._occupy(model, time.perf_counter() if number else called_at)
            return outputs

        outputs = self._runtime.observed(models[0], run)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _occupy(self, model: LoadedModel, called_at: float) -> None:
        replica = model.next_replica()
        if self._clock is None:
            # Waits are drawn alike in every run, and otherwise in every worker: each has a first core of its own.
            self._clock = CoreClock(self._runtime.instance.cores, seed=self._runtime.cores[0])
        stages_s = self._clock.occupy(
            replica.cores, model.program.neff, self._neighbours(replica), self._release, called_at
        )
        self._runtime.add_modelled_batch(replica, stages_s)

    def _neighbours(self, replica: Replica) -> Neighbours:
        """The cores that have a model on them, whichever process they belong to, beside those of the replica."""
        checked_at, loaded = self._loaded
        if time.monotonic() - checked_at > PUBLISH_EVERY_S:
            loaded = {
                state.core: state.info.get("pid", 0)
                for state in self._runtime.registry.states()
                if state.held and state.info.get("memory_bytes", 0)
            }
            self._loaded = (time.monotonic(), loaded)
        chip = self._runtime.cores[replica.cores[0]] // CORES_PER_CHIP
        active = sum(core // CORES_PER_CHIP == chip for core in loaded)
        processes = len(set(loaded.values()))
        models = max(1, processes, len(loaded) // len(replica.cores))
        return Neighbours(self._runtime.settings.instance, max(1, active), models, max(1, processes))
