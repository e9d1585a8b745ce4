"""Books the chips' memory: what each model takes, and whether it fits beside other processes'; runtime.py asks."""

from typing import Dict, List, Sequence

from neuronbert.emulator.loaded import LoadedModel
from neuronbert.emulator.neff import Neff
from neuronbert.emulator.nrt_log import NrtLog
from neuronbert.emulator.reservation import CoreState
from neuronbert.hardware.cores import BYTES_PER_WEIGHT, CHIP_BYTES, CORES_PER_CHIP, PROGRAM_OVERHEAD


class DeviceMemory:
    """The memory of this process's models, core by core. Not thread-safe: the runtime holds its lock meanwhile."""

    def __init__(self, cores: Sequence[int]):
        self._cores = tuple(cores)  # of the instance, in the order this process numbers them
        self._models: List[Dict[int, int]] = [{} for _ in cores]  # for each core: the model's id → bytes

    def book(self, model: LoadedModel, held: Sequence[CoreState], log: NrtLog) -> None:
        """Takes a model's memory; ``held`` says what all processes have taken. RuntimeError when a chip is full."""
        needed = bytes_per_core(model.program.neff)
        used: Dict[int, int] = {}
        for state in held:
            chip = state.core // CORES_PER_CHIP
            used[chip] = used.get(chip, 0) + int(state.info.get("memory_bytes", 0))
        mine = [core for replica in model.replicas for core in replica.cores]
        for core in mine:
            chip = self._cores[core] // CORES_PER_CHIP
            used[chip] = used.get(chip, 0) + needed
            if used[chip] > CHIP_BYTES:
                log.refuse_memory(chip, CHIP_BYTES, used[chip] - needed, needed)
        for core in mine:
            self._models[core][id(model)] = needed

    def release(self, model: LoadedModel) -> None:
        """Gives a model's memory back, if it has any."""
        for replica in model.replicas:
            for core in replica.cores:
                self._models[core].pop(id(model), None)

    def bytes_on(self, core: int) -> int:
        """What the models on a core of the process take."""
        return sum(self._models[core].values())

    def models_on(self, core: int) -> int:
        """Models on a core of the process."""
        return len(self._models[core])


def bytes_per_core(neff: Neff) -> int:
    """Device memory a model takes on each of its cores."""
    return int(neff.shape.weights * BYTES_PER_WEIGHT * PROGRAM_OVERHEAD / neff.pipeline_cores)
