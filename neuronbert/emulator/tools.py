"""The emulated neuron-ls and neuron-monitor: the same JSON, as functions. Nothing is put on PATH."""

import time
from typing import Any, Dict, List, Optional, TypedDict

import psutil

from neuronbert.emulator.emulator_settings import EmulatorSettings
from neuronbert.emulator.inference_counters import Snapshot
from neuronbert.emulator.reservation import CoreRegistry, CoreState
from neuronbert.hardware.cores import CHIP_BYTES, CORES_PER_CHIP, instance_type

FIRST_BUS = 0x1C
STALE_AFTER_S = 5.0


class NeuronProcess(TypedDict):
    """A process that holds cores, as neuron-ls shows it."""

    pid: int
    command: str
    neuron_runtime_version: str


class NeuronDevice(TypedDict):
    """A chip, as neuron-ls shows it."""

    neuron_device: int
    bdf: str  # PCI bus, device and function
    connected_to: Optional[List[int]]
    nc_count: int
    memory_size: int  # bytes
    neuroncore_ids: List[int]
    neuron_processes: List[NeuronProcess]


def neuron_ls(settings: EmulatorSettings) -> List[NeuronDevice]:
    """``neuron-ls -j``: one entry a chip, with the processes that hold its cores."""
    chips = instance_type(settings.instance).chips
    states = core_states(settings)
    return [_device(chip, chips, states) for chip in range(chips)]


def core_states(settings: EmulatorSettings) -> List[CoreState]:
    """Every core of the emulated instance: held or free, and by whom."""
    return CoreRegistry(settings.directory / settings.instance, instance_type(settings.instance).cores).states()


def _device(chip: int, chips: int, states: List[CoreState]) -> NeuronDevice:
    cores = range(chip * CORES_PER_CHIP, (chip + 1) * CORES_PER_CHIP)
    holders = {states[core].info["pid"]: states[core].info for core in cores if states[core].held and states[core].info}
    return {
        "neuron_device": chip,
        "bdf": f"0000:{chip // 4:02x}:{FIRST_BUS + chip % 4:02x}.0",
        "connected_to": [neighbour for neighbour in (chip - 1, chip + 1) if 0 <= neighbour < chips] or None,
        "nc_count": CORES_PER_CHIP,
        "memory_size": CHIP_BYTES,
        "neuroncore_ids": list(cores),
        "neuron_processes": [
            {"pid": pid, "command": info["command"], "neuron_runtime_version": info["neuron_runtime_version"]}
            for pid, info in sorted(holders.items())
        ],
    }  # fmt: skip


def neuron_monitor(settings: EmulatorSettings, period_s: float = 1.0) -> Dict[str, Any]:
    """One report of ``neuron-monitor``."""
    states = core_states(settings)
    pids = sorted({state.info["pid"] for state in states if state.held and state.info})
    return {
        "neuron_runtime_data": [_process(pid, states, period_s) for pid in pids],
        "system_data": {"neuron_hw_counters": None, "vcpu_usage": _vcpu(period_s), "memory_info": _memory(period_s)},
        "instance_info": {
            "instance_name": "",
            "instance_id": "",
            "instance_type": settings.instance,
            "instance_availability_zone": "",
            "error": "",
        },
        "neuron_hardware_info": {
            "neuron_device_type": "inferentia",
            "neuroncore_version": "v1",
            "neuron_device_count": instance_type(settings.instance).chips,
            "neuron_device_memory_size": CHIP_BYTES,
            "neuroncore_per_device_count": CORES_PER_CHIP,
            "error": "",
        },
    }


def _process(pid: int, states: List[CoreState], period_s: float) -> Dict[str, Any]:
    mine = [state for state in states if state.held and state.info.get("pid") == pid]
    counted = next((state.info["statistics"] for state in mine if state.info.get("statistics")), Snapshot())
    summary = counted.get("execution_summary", {})
    latency = counted.get("latency")
    return {
        "pid": pid,
        "address": str(pid),
        "neuron_runtime_tag": mine[0].info.get("tag", ""),
        "error": "",
        "report": {
            "neuroncore_counters": {
                "period": period_s,
                "neuroncores_in_use": {
                    str(state.core): {"flops": None, **_utilization(state), **_executions(state)} for state in mine
                },
                "error": "",
            },
            "execution_stats": {
                "period": period_s,
                "error_summary": _errors(summary),
                "execution_summary": summary,
                "latency_stats": {"total_latency": latency, "device_latency": latency},
                "error": "",
            },
            "memory_used": _memory_used(pid, mine, period_s),
            "neuron_runtime_vcpu_usage": {"period": period_s, "vcpu_usage": _process_cpu(pid), "error": ""},
        },
    }  # fmt: skip


def _utilization(state: CoreState) -> Dict[str, float]:
    """Percent, as the holder last reported; a holder that runs nothing reports nothing, and is idle."""
    quiet_s = time.time() - state.info.get("published_at", 0.0)
    return {"neuroncore_utilization": state.info["utilization"] if quiet_s < STALE_AFTER_S else 0.0}


def _executions(state: CoreState) -> Dict[str, int]:
    """Not in the real report: how many batches went through the core."""
    return {"executions": state.info.get("executions", 0)}


def _errors(summary: Dict[str, int]) -> Dict[str, int]:
    names = ("generic", "numerical", "transient", "model", "runtime", "hardware")
    return {**dict.fromkeys(names, 0), "numerical": summary.get("completed_with_num_err", 0)}


def _memory_used(pid: int, mine: List[CoreState], period_s: float) -> Dict[str, Any]:
    device = sum(state.info.get("memory_bytes", 0) for state in mine)
    try:
        host = psutil.Process(pid).memory_info().rss
    except psutil.Error:
        host = 0
    return {
        "period": period_s,
        "neuron_runtime_used_bytes": {"host": host, "neuron_device": device, "usage_breakdown": None},
        "loaded_models": [{"neuroncore_index": state.core, "models": state.info.get("models", 0)} for state in mine],
        "error": "",
    }


def _process_cpu(pid: int) -> Dict[str, float]:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return {"user": 0.0, "system": 0.0}
    return {"user": times.user, "system": times.system}


def _vcpu(period_s: float) -> Dict[str, Any]:
    times = psutil.cpu_times_percent()
    return {
        "period": period_s,
        "average_usage": {"user": times.user, "system": times.system, "idle": times.idle},
        "error": "",
    }


def _memory(period_s: float) -> Dict[str, Any]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "period": period_s,
        "memory_total_bytes": memory.total,
        "memory_used_bytes": memory.used,
        "swap_total_bytes": swap.total,
        "swap_used_bytes": swap.used,
        "error": "",
        "timestamp": time.time(),
    }
