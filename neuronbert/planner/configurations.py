"""What a plan is made of: the target that was asked, and configurations with their figures; planning.py ranks them."""

import math
from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Optional, Tuple

from neuronbert.hardware import cores, device_model, gpu_model
from neuronbert.hardware.device_model import LATEST_RELEASE
from neuronbert.hardware.prices import Price
from neuronbert.planner.queueing import LatencyUnderLoad, Service, ServiceAt

# What computes.
INF1, CPU, GPU = "inf1", "cpu", "gpu"
DEVICES = (INF1, CPU, GPU)
DEVICE_WORDS = {INF1: "Inferentia", CPU: "CPU", GPU: "GPU"}
_LIKELY_RANGES = {INF1: device_model.likely_range, GPU: gpu_model.likely_range}


class Target(NamedTuple):
    """What is asked of a configuration."""

    throughput_per_s: Optional[float]  # sequences; None: as many as one instance takes
    latency_p95_ms: Optional[float]
    objective: str
    headroom: float  # share of the capacity that is kept free
    sequence_length: int
    sdk_release: str = LATEST_RELEASE  # of the Neuron SDK: how fast the device model takes the device to be
    in_flight: Optional[int] = None  # batches that a core group holds at most; None: as many as the runner gives it


@dataclass(frozen=True)
class Configuration:
    """A layout of an instance type and its figures at the asked load; ``rejected`` says why the target excludes it."""

    instance_type: str
    mode: str  # data-parallel, pipeline, or engine and precision of what runs on a CPU or a GPU
    pipeline_cores: int
    batch_size: int
    models: int  # copies on an instance
    measured: bool  # by neuronbert benchmark; else predicted: inf1 by device_model, a GPU by gpu_model
    formula: bool  # its cores are 4 * round(weights / 2e7)
    compile_command: str
    service: Optional[Service]  # at capacity
    price: Optional[Price]
    device: str = INF1  # of DEVICES
    extrapolated: str = ""  # what of a prediction no published figure has
    service_at: Optional[ServiceAt] = None  # at less; None: a batch of it takes the same at every load
    fed_per_s: float = math.inf  # sequences that the host has ready in a second, where that can be less than it takes
    spread: float = 1.0  # p95 of a measured batch over its p50
    instances: int = 0
    load_per_instance: float = 0.0
    latency: Optional[LatencyUnderLoad] = None
    rejected: str = ""

    @property
    def name(self) -> str:
        """As tables and sentences call it."""
        cut = f" × {self.pipeline_cores}" if self.mode == cores.PIPELINE else ""
        return f"{self.mode}{cut}, batch {self.batch_size}, {self.instance_type}"

    @property
    def capacity_per_s(self) -> float:
        """Sequences a second that one instance could take."""
        return min(self.service.capacity_per_s, self.fed_per_s) if self.service else 0.0

    @property
    def service_ms(self) -> float:
        """What one batch takes that meets no other, the host's part included."""
        alone = self.service_at(0.0) if self.service_at else self.service
        return alone.alone_s * 1e3 if alone else math.inf

    @property
    def capacity_range_per_s(self) -> Tuple[float, float]:
        """Where the capacity is likely to be: a point for what was measured."""
        return self._likely("throughput_per_s", self.capacity_per_s)

    @property
    def p95_range_ms(self) -> Tuple[float, float]:
        """Where p95 is likely to be."""
        return self._likely("p95_ms", self.p95_ms)

    def _likely(self, figure: str, value: float) -> Tuple[float, float]:
        low, high = (1.0, 1.0) if self.measured else _LIKELY_RANGES[self.device](figure)
        return value * low, value * high

    @property
    def slow_service_ms(self) -> float:
        """95 of 100 batches that meet no other are done within this."""
        return self.service_ms * self.spread

    @property
    def p50_ms(self) -> float:
        """Half of the requests at the asked load are answered within this, waiting included."""
        return self.latency.p50_s * 1e3 if self.latency else math.inf

    @property
    def p95_ms(self) -> float:
        """95 of 100 requests at the asked load are answered within this, waiting included."""
        return self.latency.p95_s * 1e3 * self.spread if self.latency else math.inf

    @property
    def usd_per_hour(self) -> Optional[float]:
        """Of all instances together; None without a price."""
        return self.instances * self.price.usd_per_hour if self.price and self.instances else None

    @property
    def usd_per_million(self) -> Optional[float]:
        """Dollars for a million sequences at the asked load."""
        return self.price.per_million(self.load_per_instance) if self.price and self.instances else None

    @property
    def usd_per_million_at_capacity(self) -> Optional[float]:
        """The same with every instance saturated: what benchmarks like to quote."""
        return self.price.per_million(self.capacity_per_s) if self.price and self.service else None

    def as_dict(self) -> Dict[str, Any]:
        """Plain JSON data, with neuronperf's names where it has one."""
        latency = self.latency
        return {
            "name": self.name, "instance_type": self.instance_type, "device": self.device, "mode": self.mode,
            "pipeline_size": self.pipeline_cores, "batch_size": self.batch_size, "n_models": self.models,
            "source": "measured" if self.measured else "predicted", "formula": self.formula,
            "instances": self.instances, "throughput_per_instance": _rounded(self.load_per_instance),
            "capacity_per_instance": _rounded(self.capacity_per_s),
            "latency_ms_service": _rounded(self.service_ms), "latency_ms_p50": _rounded(self.p50_ms),
            "latency_ms_p95": _rounded(self.p95_ms),
            "capacity_per_instance_low": _rounded(self.capacity_range_per_s[0]),
            "capacity_per_instance_high": _rounded(self.capacity_range_per_s[1]),
            "latency_ms_p95_low": _rounded(self.p95_range_ms[0]),
            "latency_ms_p95_high": _rounded(self.p95_range_ms[1]),
            "extrapolated": self.extrapolated or None,
            "casts": "all" if self.device == INF1 and not self.measured else None,
            "utilisation": _rounded(latency.utilisation) if latency else None,
            "rows_per_batch": _rounded(latency.rows_per_batch) if latency else None,
            "usd_per_hour": _rounded(self.usd_per_hour), "cost_per_1m_inf": _rounded(self.usd_per_million),
            "cost_per_1m_inf_at_capacity": _rounded(self.usd_per_million_at_capacity),
            "price": self.price._asdict() if self.price else None,
            "compile_command": self.compile_command, "rejected": self.rejected or None,
        }  # fmt: skip


def _rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
