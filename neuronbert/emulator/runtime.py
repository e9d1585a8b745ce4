"""The twin of the Neuron runtime: reserves cores at first use, loads models onto them, runs them one at a time."""

import os
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple

import torch

from neuronbert.emulator import calls, nrt_log, ops
from neuronbert.emulator.execution import LoadedProgram
from neuronbert.emulator.faults import EXECUTE, INIT, LOAD, FaultPlan
from neuronbert.emulator.loaded import ALL_CORES, ANYWHERE, LoadedModel, Placement, Replica
from neuronbert.emulator.neff import SUPPORTED_VERSION, Neff
from neuronbert.emulator.nrt_settings import NrtSettings, SettingsRefused, read_settings
from neuronbert.emulator.placement import NotEnoughCores, Placer, replica_starts
from neuronbert.emulator.reservation import CoreRegistry, CoresTaken
from neuronbert.emulator.settings import TwinSettings
from neuronbert.emulator.statistics import CoreMeter, Statistics
from neuronbert.emulator.timed import CoreClock, RecordedLogits, Recorder
from neuronbert.hardware.cores import BYTES_PER_WEIGHT, CORES_PER_CHIP, GIB, PROGRAM_OVERHEAD, instance_type

VERSION = "2.20.0"  # of the last libnrt inside a torch-neuron wheel
CHIP_BYTES = 8 * GIB
PUBLISH_EVERY_S = 0.5


class Runtime:
    """libnrt of one process."""

    def __init__(self, twin: TwinSettings):
        self.twin = twin
        self.instance = instance_type(twin.instance)
        self.faults = FaultPlan(twin.faults, twin.directory)
        self.statistics = Statistics()
        folder = twin.directory / twin.instance
        self.registry = CoreRegistry(folder, self.instance.cores)
        self._syslog = folder / "syslog"
        self._log = nrt_log.NrtLog(self._syslog)
        self._lock = threading.RLock()
        self._settings: Optional[NrtSettings] = None
        self._cores: List[int] = []  # of the instance, in the order this process numbers them
        self._placer = Placer(0)
        self._meters: List[CoreMeter] = []  # one a core
        self._clock = CoreClock(0)
        self._memory: Dict[int, Dict[int, int]] = {}  # core of the process → model → bytes
        self._recorded = RecordedLogits(twin.recorded) if twin.timed and twin.recorded else None
        self.recorder = Recorder(twin.record) if twin.record else None
        self._owner = os.getpid()
        self._published_at = 0.0
        self._active: Tuple[float, Dict[int, int]] = (0.0, {})

    # ------------------------------------------------------------------ start

    @property
    def initialized(self) -> bool:
        return self._settings is not None

    @property
    def cores(self) -> Tuple[int, ...]:
        """The instance's cores that this process holds; empty before the first use."""
        return tuple(self._cores)

    def initialize(self) -> None:
        """Reads the environment and reserves the cores: once, at the first use in the process."""
        with self._lock:
            if self._owner != os.getpid():
                # The driver's handles do not survive a fork (aws-neuron-sdk issue 441).
                self._log.refuse_to_initialize("NRT:nrt_init", "the runtime was initialized in the parent of this fork")
            if self._settings is not None:
                return
            self._strike_init(self.faults.due(INIT))
            settings = self._read_environment()
            self._log = nrt_log.NrtLog(self._syslog, settings.log_to_console)
            self._cores = self._reserve(settings)
            self._placer = Placer(len(self._cores), settings.groups)
            self._meters = [CoreMeter() for _ in self._cores]
            self._clock = CoreClock(len(self._cores))
            self._memory = {core: {} for core in range(len(self._cores))}
            self._settings = settings
            self._publish()

    def _strike_init(self, fault: Optional[str]) -> None:
        if fault == "no-driver":
            self._log.refuse_to_initialize("NRT:nrt_init", nrt_log.NO_DRIVER)
        if fault == "old-driver":
            self._log.refuse_to_initialize("NRT:nrt_init", nrt_log.OLD_DRIVER)
        if fault == "cores-taken":
            self._refuse_cores(CoresTaken(0, self.instance.cores - 1, 0))

    def _read_environment(self) -> NrtSettings:
        try:
            return read_settings(os.environ, self.instance.cores)
        except SettingsRefused as error:
            self._log.refuse_to_initialize("NRT:nrt_init", str(error))

    def _reserve(self, settings: NrtSettings) -> List[int]:
        try:
            if settings.visible is not None:
                return self.registry.reserve(settings.visible)
            if settings.number is not None:
                return self.registry.reserve_free(settings.number)
            return self.registry.reserve(range(self.instance.cores))
        except CoresTaken as error:
            self._refuse_cores(error)

    def _refuse_cores(self, error: CoresTaken) -> NoReturn:
        self._log.refuse_to_initialize("NRT:nrt_allocate_neuron_cores", str(error))

    # ------------------------------------------------------------------ load

    def load(self, program: LoadedProgram, placement: Placement = ANYWHERE) -> LoadedModel:
        """Puts a model on cores: as many replicas as ``placement`` has room for, one by default."""
        with self._lock:
            self.initialize()
            self._strike_load(self.faults.due(LOAD))
            if program.neff.version != SUPPORTED_VERSION:
                message = f"NEFF version mismatch supported: {SUPPORTED_VERSION} received: {program.neff.version}"
                self._log.error("NMGR:kmgr_load_nn", message)
                raise nrt_log.load_error(10)
            cores = self._place(program.neff, placement)
            model = LoadedModel(program, [Replica(run) for run in cores])
            try:
                self._allocate(model)
            except RuntimeError:
                for run in cores:
                    self._placer.release(run)
                raise
            return model

    def _strike_load(self, fault: Optional[str]) -> None:
        if fault == "device-memory":
            self._refuse_memory(0, CHIP_BYTES, CHIP_BYTES, 1272)
        if fault == "invalid-model":
            raise nrt_log.load_error(2)
        if fault == "neff-version":
            self._log.error("NMGR:kmgr_load_nn", f"NEFF version mismatch supported: {SUPPORTED_VERSION} received: 2.0")
            raise nrt_log.load_error(10)

    def _place(self, neff: Neff, placement: Placement) -> List[range]:
        width = neff.pipeline_cores
        try:
            if placement == ANYWHERE:
                return [self._placer.place(width)]
            wanted = {-1: width, ALL_CORES: self._placer.cores}.get(placement.nc_count, placement.nc_count)
            if wanted < width or wanted > self._placer.cores:
                raise ValueError(
                    f"nc_count must be -1 or from {width} to {self._placer.cores}, not {placement.nc_count}"
                )
            if placement.start_nc == -1:
                return [self._placer.place(width) for _ in range(wanted // width)]
            return [self._placer.place_at(start, width) for start in replica_starts(placement.start_nc, wanted, width)]
        except NotEnoughCores:
            self._refuse_width(width)
            raise nrt_log.load_error(2) from None

    def _refuse_width(self, width: int) -> None:
        missing = self._placer.cores
        self._log.error("TDRV:db_vtpb_get_mla_and_tpb", f"Could not find VNC id {missing}")
        self._log.error("NMGR:dlr_kelf_stage", "Failed to create shared io")
        self._log.error("NMGR:stage_kelf_models", "Failed to stage graph: kelf-a.json to NeuronCore")
        self._log.error("NMGR:kmgr_load_nn_post_metrics", f"Failed to load NN: a model over {width} cores, err: 2")

    def _allocate(self, model: LoadedModel) -> None:
        """Books the model's memory on its chips, other processes' models counted."""
        needed = bytes_per_core(model.program.neff)
        with self.registry.update() as view:
            used: Dict[int, int] = {}
            for state in view.held():
                chip = state.core // CORES_PER_CHIP
                used[chip] = used.get(chip, 0) + int(state.info.get("memory_bytes", 0))
            for replica in model.replicas:
                for core in replica.cores:
                    chip = self._cores[core] // CORES_PER_CHIP
                    used[chip] = used.get(chip, 0) + needed
                    if used[chip] > CHIP_BYTES:
                        self._refuse_memory(chip, CHIP_BYTES, used[chip] - needed, needed)
            for replica in model.replicas:
                for core in replica.cores:
                    self._memory[core][id(model)] = needed
            view.annotate(self._annotations())

    def _refuse_memory(self, chip: int, total: int, occupied: int, needed: int) -> None:
        self._log.driver(
            f"neuron:mc_alloc: device mempool [{chip}:0] total {total} occupied {occupied} needed {needed} "
            f"available {max(0, total - occupied)}"
        )
        raise nrt_log.load_error(4)

    def unload(self, model: LoadedModel) -> None:
        """Takes a model off its cores; the cores stay reserved until the process ends."""
        if self._owner != os.getpid():
            return
        with self._lock:
            for replica in model.replicas:
                self._placer.release(replica.cores)
                for core in replica.cores:
                    self._memory[core].pop(id(model), None)
            self._publish()

    # ------------------------------------------------------------------ execute

    def execute(self, model: LoadedModel, inputs: Sequence[torch.Tensor]) -> List[torch.Tensor]:
        """One inference: on the next replica, each core of it busy with one batch at a time."""
        if self._recorded is not None:
            raise RuntimeError("timed mode answers calls of whole modules, and this was not one")
        return self._observed(model, lambda: model.program.run_batches(inputs, lambda batch: self._run(model, batch)))

    def _observed(self, model: LoadedModel, run: Callable[[], List[torch.Tensor]]) -> List[torch.Tensor]:
        """``run`` with faults before it and counters behind it."""
        started = time.monotonic()
        fault = self.faults.due(EXECUTE)
        outputs = self._strike_execute(fault, model) or run()
        if fault == "nan":
            outputs = [torch.full_like(output, float("nan")) for output in outputs]
        # Timed mode's numbers were looked at when they were recorded, and looking again would take time of its own.
        spoilt = fault == "nan" or (not self.twin.timed and any(bool(torch.isnan(one).any()) for one in outputs))
        self.statistics.completed(time.monotonic() - started, spoilt)
        if time.monotonic() - self._published_at > PUBLISH_EVERY_S:
            self._publish()
        return outputs

    def _strike_execute(self, fault: Optional[str], model: LoadedModel) -> Optional[List[torch.Tensor]]:
        if fault == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        while fault == "hang":
            time.sleep(0.1)
        if fault == "timeout":
            time.sleep(self._settings.exec_timeout_s if self._settings else 0.0)
            self.statistics.failed("timed_out")
            raise nrt_log.execute_error(5)
        if fault == "numerical-error":
            self.statistics.failed("completed_with_num_err")
            raise nrt_log.execute_error(1003)
        if fault == "dead-runtime":
            print(nrt_log.DEAD_RUNTIME, file=sys.stderr, flush=True)
            return model.program.constant_outputs()
        return None

    def _run(self, model: LoadedModel, batch: Sequence[torch.Tensor]) -> List[torch.Tensor]:
        """One batch of the compiled shape."""
        replica = model.next_replica()
        outputs = model.program.run_stages(batch, [self._meters[core] for core in replica.cores])
        self.statistics.busy(replica.cores)
        return outputs

    # ------------------------------------------------------------------ recordings

    def interceptor(self) -> Optional[calls.Interceptor]:
        """What stands before calls of compiled modules: a recording to answer from, one to make, or nothing."""
        if self._recorded is not None:
            return self._answer
        return self.recorder.intercept if self.recorder is not None else None

    def _answer(self, module: torch.jit.ScriptModule, payloads: calls.Payloads, inputs: Tuple[Any, ...]) -> Any:
        """A module's recorded answer, when the hardware would have had it."""
        called_at = time.perf_counter()
        models = [ops.loaded(payload) for payload in payloads]
        neffs = [model.program.neff for model in models]

        def run() -> List[torch.Tensor]:
            assert self._recorded is not None
            found = self._recorded.answer(neffs, inputs)
            for number, model in enumerate(models):
                self._occupy(model, time.perf_counter() if number else called_at)
            return found

        outputs = self._observed(models[0], run)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _occupy(self, model: LoadedModel, called_at: float) -> None:
        assert self.twin.release is not None
        replica = model.next_replica()
        neff, active = model.program.neff, self._active_cores(replica)
        taken_s = self._clock.occupy(replica.cores, neff, active, self.twin.release, called_at)
        for core, seconds in zip(replica.cores, taken_s):
            self._meters[core].add(seconds)
        self.statistics.busy(replica.cores)

    def _active_cores(self, replica: Replica) -> int:
        """Cores of the replica's first chip that have a model on them, whichever process it belongs to."""
        checked_at, active = self._active
        if time.monotonic() - checked_at > PUBLISH_EVERY_S:
            active = {}
            for state in self.registry.states():
                if state.held and state.info.get("memory_bytes", 0):
                    active[state.core // CORES_PER_CHIP] = active.get(state.core // CORES_PER_CHIP, 0) + 1
            self._active = (time.monotonic(), active)
        return max(1, active.get(self._cores[replica.cores[0]] // CORES_PER_CHIP, 1))

    # ------------------------------------------------------------------ what other processes see

    def _annotations(self) -> Dict[int, Dict[str, Any]]:
        command = " ".join(sys.argv) or sys.executable
        tag = self._settings.process_tag if self._settings else ""
        shared = {"pid": os.getpid(), "command": command, "neuron_runtime_version": VERSION, "tag": tag}
        counters = self.statistics.snapshot()
        return {
            self._cores[core]: {
                **shared,
                "memory_bytes": sum(self._memory.get(core, {}).values()),
                "models": len(self._memory.get(core, {})),
                "executions": self.statistics.per_core(core),
                "utilization": self._meters[core].utilization(),
                "published_at": time.time(),
                "statistics": counters if core == 0 else {},
            }
            for core in range(len(self._cores))
        }

    def _publish(self) -> None:
        self._published_at = time.monotonic()
        self.registry.annotate(self._annotations())

    def close(self) -> None:
        """Gives the cores back, as the end of the process does."""
        if self.recorder is not None:
            self.recorder.save()
        if self._owner == os.getpid():
            self.registry.release()
        self._settings, self._cores = None, []


def bytes_per_core(neff: Neff) -> int:
    """Device memory a model takes on each of its cores."""
    return int(neff.shape.weights * BYTES_PER_WEIGHT * PROGRAM_OVERHEAD / neff.pipeline_cores)
