"""The emulated Neuron runtime: reserves cores at first use, loads models onto them, runs them one at a time."""

import os
import signal
import sys
import threading
import time
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import torch

from neuronbert.emulator import nrt_log
from neuronbert.emulator.device_memory import DeviceMemory
from neuronbert.emulator.emulator_settings import EmulatorSettings
from neuronbert.emulator.execution import LoadedProgram
from neuronbert.emulator.faults import EXECUTE, INIT, LOAD, FaultPlan
from neuronbert.emulator.inference_counters import CoreMeter, InferenceCounters
from neuronbert.emulator.loaded import ALL_CORES, ANYWHERE, LoadedModel, Placement, Replica
from neuronbert.emulator.neff import SUPPORTED_VERSION, Neff
from neuronbert.emulator.nrt_settings import NrtSettings, SettingsRefused, read_settings
from neuronbert.emulator.placement import NotEnoughCores, Placer, replica_starts
from neuronbert.emulator.recordings import RecordedLogits, Recorder
from neuronbert.emulator.reservation import CoreInfo, CoreRegistry, CoresTaken
from neuronbert.hardware.cores import CHIP_BYTES, GROUP_SIZES, instance_type

VERSION = "2.20.0"  # of the last libnrt inside a torch-neuron wheel
PUBLISH_EVERY_S = 0.5


class Runtime:
    """libnrt of one process."""

    def __init__(self, settings: EmulatorSettings):
        self.settings = settings
        self.instance = instance_type(settings.instance)
        self.faults = FaultPlan(settings.faults, settings.directory)
        self.counters = InferenceCounters()
        folder = settings.directory / settings.instance
        self.registry = CoreRegistry(folder, self.instance.cores)
        self.recorded = RecordedLogits(settings.recorded) if settings.timed and settings.recorded else None
        self.recorder = Recorder(settings.record) if settings.record else None
        self._syslog = folder / "syslog"
        self._log = nrt_log.NrtLog(self._syslog)
        self._lock = threading.RLock()
        self._nrt_settings: Optional[NrtSettings] = None
        self._cores: List[int] = []  # of the instance, in the order this process numbers them
        self._placer = Placer(0)
        self._meters: List[CoreMeter] = []  # one a core
        self._memory = DeviceMemory(())
        self._owner_pid = os.getpid()
        self._published_at = 0.0

    # ------------------------------------------------------------------ start

    @property
    def cores(self) -> Tuple[int, ...]:
        """The instance's cores that this process holds; empty before the first use."""
        return tuple(self._cores)

    def initialize(self) -> None:
        """Reads the environment and reserves the cores: once, at the first use in the process."""
        with self._lock:
            if self._owner_pid != os.getpid():
                # The driver's handles do not survive a fork (aws-neuron-sdk issue 441).
                self._log.refuse_to_initialize("NRT:nrt_init", "the runtime was initialized in the parent of this fork")
            if self._nrt_settings is not None:
                return
            fault = self.faults.due(INIT)
            if os.environ.get(GROUP_SIZES):
                print(nrt_log.GROUP_SIZES_DEPRECATED, file=sys.stderr, flush=True)
            self._strike_init(fault)
            settings = self._read_environment()
            self._log = nrt_log.NrtLog(self._syslog, settings.log_to_console)
            self._cores = self._reserve(settings, taken=fault == "cores-taken")
            self._placer = Placer(len(self._cores), settings.groups)
            self._meters = [CoreMeter() for _ in self._cores]
            self._memory = DeviceMemory(self._cores)
            self._nrt_settings = settings
            self._publish()

    def _strike_init(self, fault: Optional[str]) -> None:
        if fault == "no-driver":
            self._log.refuse_to_initialize("NRT:nrt_init", nrt_log.NO_DRIVER)
        if fault == "old-driver":
            self._log.refuse_to_initialize("NRT:nrt_init", nrt_log.OLD_DRIVER)

    def _read_environment(self) -> NrtSettings:
        try:
            return read_settings(os.environ, self.instance.cores, self.settings.shown)
        except SettingsRefused as error:
            self._log.refuse_to_initialize("NRT:nrt_init", str(error))

    def _reserve(self, settings: NrtSettings, taken: bool) -> List[int]:
        number = settings.number or self.instance.cores
        try:
            if taken and settings.visible is not None:
                raise CoresTaken(f"nc{settings.visible[0]}-nc{settings.visible[-1]}", 0)
            if taken:
                raise CoresTaken(str(number), 0)
            if settings.visible is not None:
                return self.registry.reserve(settings.visible)
            return self.registry.reserve_free(number)
        except CoresTaken as error:
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
            if self.faults.strikes_from_the_start("dead-runtime"):
                print(nrt_log.DEAD_RUNTIME, file=sys.stderr, flush=True)
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
            self._log.refuse_memory(0, CHIP_BYTES, CHIP_BYTES, 1272)
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
        with self.registry.update() as view:
            self._memory.book(model, view.held(), self._log)
            view.annotate(self._annotations())

    def unload(self, model: LoadedModel) -> None:
        """Takes a model off its cores; the cores stay reserved until the process ends."""
        if self._owner_pid != os.getpid():
            return
        with self._lock:
            for replica in model.replicas:
                self._placer.release(replica.cores)
            self._memory.release(model)
            self._publish()

    # ------------------------------------------------------------------ execute

    def execute(self, model: LoadedModel, inputs: Sequence[torch.Tensor]) -> List[torch.Tensor]:
        """One inference: on the next replica, each core of it busy with one batch at a time."""
        if self.settings.timed:
            raise RuntimeError("timed mode answers calls of whole modules, and this was not one")
        return self.observed(model, lambda: model.program.run_batches(inputs, lambda batch: self._run(model, batch)))

    def observed(self, model: LoadedModel, run: Callable[[], List[torch.Tensor]]) -> List[torch.Tensor]:
        """What ``run`` computes, or what a due fault gives instead; counted for the tools."""
        started = time.monotonic()
        fault = self.faults.due(EXECUTE)
        outputs = self._strike_execute(fault, model) or run()
        if fault == "nan":
            outputs = [torch.full_like(output, float("nan")) for output in outputs]
        # Timed mode's numbers were looked at when they were recorded, and looking again would take time of its own.
        spoilt = fault == "nan" or (
            not self.settings.timed and any(bool(torch.isnan(output).any()) for output in outputs)
        )
        self.counters.completed(time.monotonic() - started, spoilt)
        if time.monotonic() - self._published_at > PUBLISH_EVERY_S:
            self._publish()
        return outputs

    def _strike_execute(self, fault: Optional[str], model: LoadedModel) -> Optional[List[torch.Tensor]]:
        if fault == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        while fault == "hang":
            time.sleep(0.1)
        if fault == "timeout":
            time.sleep(self._nrt_settings.exec_timeout_s if self._nrt_settings else 0.0)
            self.counters.failed("timed_out")
            raise nrt_log.execute_error(5)
        if fault == "numerical-error":
            self.counters.failed("completed_with_num_err")
            raise nrt_log.execute_error(1003)
        if fault == "dead-runtime":
            return model.program.constant_outputs()
        return None

    def _run(self, model: LoadedModel, batch: Sequence[torch.Tensor]) -> List[torch.Tensor]:
        """One batch of the compiled shape."""
        replica = model.next_replica()
        outputs = model.program.run_stages(batch, [self._meters[core] for core in replica.cores])
        self.counters.batch_done(replica.cores)
        return outputs

    def add_modelled_batch(self, replica: Replica, stages_s: Sequence[float]) -> None:
        """Counts a batch whose stages took modelled time on the replica's cores."""
        for core, stage_s in zip(replica.cores, stages_s):
            self._meters[core].add(stage_s)
        self.counters.batch_done(replica.cores)

    # ------------------------------------------------------------------ what other processes see

    def _annotations(self) -> Dict[int, CoreInfo]:
        command = " ".join(sys.argv) or sys.executable
        tag = self._nrt_settings.process_tag if self._nrt_settings else ""
        counted = self.counters.snapshot()
        return {
            number: CoreInfo(
                pid=os.getpid(),
                command=command,
                neuron_runtime_version=VERSION,
                tag=tag,
                memory_bytes=self._memory.bytes_on(core),
                models=self._memory.models_on(core),
                executions=self.counters.per_core(core),
                utilization=self._meters[core].utilization(),
                published_at=time.time(),
                statistics=counted if core == 0 else {},
            )
            for core, number in enumerate(self._cores)
        }

    def _publish(self) -> None:
        self._published_at = time.monotonic()
        self.registry.annotate(self._annotations())

    def close(self) -> None:
        """Gives the cores back, as the end of the process does."""
        if self.recorder is not None:
            self.recorder.save()
        if self._owner_pid == os.getpid():
            self.registry.release()
        self._nrt_settings, self._cores = None, []
