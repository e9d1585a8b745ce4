"""How long an Inferentia core group takes for a batch: pure arithmetic, used by timed mode and by the planner.

A stage of a pipeline (a single core is a pipeline of one stage) does four things:

* it streams from device memory the weights that do not fit on chip beside the batch's activations, and
  activations that do not fit at all go out to device memory and back once a layer;
* the tensor engine multiplies while that goes on, so the longer of the two counts;
* it moves each sequence's activations through the core, a cost that nothing hides;
* the first stage alone takes its inputs from the host: "only the first operator can receive primary inputs".

``calibration.json`` holds the constants, what each one means, and the residuals; ``tools/calibrate_device_model``
writes it from ``published_performance.csv``.
"""

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from neuronbert.errors import UsageError
from neuronbert.hardware.cores import BYTES_PER_WEIGHT, CORES_PER_CHIP

CALIBRATION_PATH = Path(__file__).with_name("calibration.json")
PUBLISHED_PATH = Path(__file__).with_name("published_performance.csv")

RELEASES = ("1.13", "1.17", "2.20")
LATEST_RELEASE = "2.20"

# NeuronCore-v1: 16 TFLOPS in 16 bit floats (reference: AWS's hardware pages); 86 % of it is the best seen.
FLOPS_PER_S = 0.86 * 16e12
ACTIVATION_BYTES = 2
SCORE_BYTES = 4  # a softmax is computed in 32 bits


@dataclass(frozen=True)
class ModelShape:
    """What the device model needs to know of a BERT-like model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    weights: int  # those on the cores: the encoder's

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ModelShape":
        """Shape of a Hugging Face config.json (BERT, RoBERTa, DistilBERT names)."""
        layers = _first(config, "num_hidden_layers", "n_layers")
        hidden = _first(config, "hidden_size", "dim")
        intermediate = _first(config, "intermediate_size", "hidden_dim")
        heads = _first(config, "num_attention_heads", "n_heads")
        per_layer = 4 * hidden * (hidden + 1) + 2 * hidden * intermediate + intermediate + 5 * hidden
        return cls(layers, hidden, intermediate, heads, layers * per_layer)

    def activation_bytes(self, sequence_length: int) -> int:
        """One sequence's hidden state."""
        return ACTIVATION_BYTES * sequence_length * self.hidden

    def working_set_bytes(self, sequence_length: int) -> int:
        """What one sequence needs on chip within a layer: queries, keys, values, scores, feed-forward."""
        wide = ACTIVATION_BYTES * sequence_length * (3 * self.hidden + self.intermediate)
        return wide + SCORE_BYTES * sequence_length * sequence_length * self.heads

    def flops(self, sequence_length: int) -> float:
        """Multiplications and additions of one sequence: dense layers, then attention."""
        dense = 2.0 * self.weights * sequence_length
        return dense + 4.0 * sequence_length * sequence_length * self.hidden * self.layers


def _first(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if name in config:
            return int(config[name])
    raise UsageError(f"the model's config has none of {', '.join(names)}")


BERT_BASE = ModelShape(layers=12, hidden=768, intermediate=3072, heads=12, weights=85_054_464)


@dataclass(frozen=True)
class DeviceConstants:
    """Seven free parameters and the datasheet's bandwidth; ``calibration.json`` says what each one means."""

    stream_bytes_per_s: Mapping[str, float]  # per release: one chip's device memory, shared by its active cores
    host_call_s: Mapping[str, float]  # per release: the first stage's overhead for each batch
    port_bytes_per_s: float  # the most that one core can stream however idle its chip is
    on_chip_bytes: float  # per core
    host_bytes_per_s: float  # activations entering the first stage
    movement_bytes_per_s: float  # activations through the core, all stages together

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DeviceConstants":
        """The constants among ``values``: the object "constants" of ``calibration.json``."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


@functools.lru_cache(maxsize=1)
def calibrated() -> DeviceConstants:
    """The constants that ship with the package."""
    return DeviceConstants.from_json(json.loads(CALIBRATION_PATH.read_text(encoding="utf-8"))["constants"])


class Work(NamedTuple):
    """One batch on one core group."""

    shape: ModelShape
    batch_size: int
    sequence_length: int
    pipeline_cores: int
    active_cores_per_chip: int  # cores of a chip that stream at once
    release: str = LATEST_RELEASE


def stage_seconds(work: Work, constants: Optional[DeviceConstants] = None) -> Tuple[float, ...]:
    """Seconds that each stage of the pipeline is busy with one batch; the first is the slowest."""
    device = calibrated() if constants is None else constants
    _check(work)
    # The compiler cuts between the two halves of a layer (attention, feed-forward), never within one.
    halves = 2 * work.shape.layers
    largest = min(1.0, math.ceil(halves / work.pipeline_cores) / halves)
    first = _busy_s(work, largest, device) + _entry_s(work, device)
    if work.pipeline_cores == 1:
        return (first,)
    rest = (1.0 - largest) / (work.pipeline_cores - 1)
    return (first,) + (_busy_s(work, rest, device),) * (work.pipeline_cores - 1)


def entry_seconds(work: Work) -> float:
    """The share of the first stage that the host's call takes."""
    return _entry_s(work, calibrated())


def _check(work: Work) -> None:
    if work.release not in RELEASES:
        raise UsageError(f"there is no timing for SDK release {work.release!r}", hint=f"one of {', '.join(RELEASES)}")
    for name in ("batch_size", "sequence_length", "pipeline_cores", "active_cores_per_chip"):
        if getattr(work, name) < 1:
            raise UsageError(f"{name} must be at least 1, not {getattr(work, name)}")


def _busy_s(work: Work, share: float, device: DeviceConstants) -> float:
    """A stage that holds ``share`` of the model: streaming or arithmetic, whichever is longer, then movement."""
    streaming = _streamed_bytes(work, share, device) / _stream_rate(work, device)
    arithmetic = work.batch_size * work.shape.flops(work.sequence_length) * share / FLOPS_PER_S
    moved = work.batch_size * work.shape.activation_bytes(work.sequence_length) * share
    return max(streaming, arithmetic) + moved / device.movement_bytes_per_s


def _streamed_bytes(work: Work, share: float, device: DeviceConstants) -> float:
    activations = work.batch_size * work.shape.working_set_bytes(work.sequence_length)
    room = max(0.0, device.on_chip_bytes - activations)
    weights = max(0.0, BYTES_PER_WEIGHT * work.shape.weights * share - room)
    spilled = max(0.0, activations - device.on_chip_bytes)
    return weights + 2 * spilled * work.shape.layers * share


def _stream_rate(work: Work, device: DeviceConstants) -> float:
    active = min(work.active_cores_per_chip, CORES_PER_CHIP)
    return min(device.port_bytes_per_s, device.stream_bytes_per_s[work.release] / active)


def _entry_s(work: Work, device: DeviceConstants) -> float:
    entering = work.batch_size * work.shape.activation_bytes(work.sequence_length)
    return device.host_call_s[work.release] + entering / device.host_bytes_per_s


class Prediction(NamedTuple):
    """A closed loop's steady state: ``in_flight`` batches always waiting on each model."""

    throughput_per_s: float  # sequences, all models together
    latency_s: float  # of one batch, its queueing included
    service_s: float  # of one batch on an idle core group
    bottleneck_s: float  # the slowest stage
    utilisation: float  # of the slowest stage


def predict(
    work: Work, *, models: int = 1, in_flight: int = 1, constants: Optional[DeviceConstants] = None
) -> Prediction:
    """Throughput and latency of ``models`` core groups, each kept busy by ``in_flight`` callers."""
    if models < 1 or in_flight < 1:
        raise UsageError(f"models and in_flight must be at least 1, not {models} and {in_flight}")
    stages = stage_seconds(work, constants)
    bottleneck, service = max(stages), sum(stages)
    batches_per_s = min(1 / bottleneck, in_flight / service)
    return Prediction(
        models * work.batch_size * batches_per_s,
        in_flight / batches_per_s,
        service,
        bottleneck,
        batches_per_s * bottleneck,
    )


def published_work(row: Mapping[str, str]) -> Tuple[Work, Dict[str, int]]:
    """A row of ``published_performance.csv`` as ``predict``'s arguments.

    Requests in flight that a row does not give are those that its latency fits: one per core, four for a
    pipeline of four cores, twelve for sixteen.
    """
    models, cores = int(row["models"]), int(row["pipeline_cores"])
    clients = int(row["client_threads"] or models * min(cores, 12))
    release = ".".join(row["sdk_version"].split(".")[:2])
    active = min(CORES_PER_CHIP, models * cores)
    work = Work(BERT_BASE, int(row["batch_size"]), int(row["sequence_length"]), cores, active, release)
    return work, {"models": models, "in_flight": max(1, clients // models)}
