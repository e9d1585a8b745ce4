"""How long an Inferentia core group takes for a batch: pure arithmetic, used by timed mode and by the planner.

A stage of a pipeline (a single core is a pipeline of one stage) does four things:

* it streams from device memory the weights that do not fit on chip beside the batch's activations, and what does not
  fit of the activations goes out and back once a layer; a matrix that is streamed takes its place on chip as well;
* the tensor engine multiplies while that goes on, so the longer of the two counts;
* it moves each sequence's activations through the core once a layer, a cost that nothing hides;
* the first stage alone is handed the batch and takes its inputs from the host: "only the first operator can receive
  primary inputs".

Before that a call is the host's: embeddings, TorchScript, the driver. Cores share their chip's memory as often as they
are busy at once, calls share the link to the device, and processes share the vCPUs; closed_loop.py has the queue.

``calibration.json`` holds the constants, what each one means, and the residuals; ``tools/calibrate_device_model``
writes it from ``published_performance.csv``.
"""

import datetime
import functools
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from neuronbert.errors import UsageError, counted
from neuronbert.hardware.closed_loop import HostWaits, busy_share, closed_loop, most_batches_per_s
from neuronbert.hardware.cores import BYTES_PER_WEIGHT, CORES_PER_CHIP, instance_type

CALIBRATION_PATH = Path(__file__).with_name("calibration.json")
PUBLISHED_PATH = Path(__file__).with_name("published_performance.csv")

# Releases of the Neuron SDK and their days: the tags of aws-neuron-sdk. After 2.20 torch-neuron did not change.
RELEASE_DAYS = {
    "1.13": "2021-05-01", "1.14": "2021-05-28", "1.15": "2021-08-12", "1.16": "2021-10-27", "1.17": "2022-01-20",
    "1.18": "2022-03-25", "1.19": "2022-04-29", "2.3": "2022-10-10", "2.4": "2022-10-27", "2.5": "2022-11-23",
    "2.6": "2022-12-13", "2.7": "2023-02-08", "2.8": "2023-02-24", "2.9": "2023-03-28", "2.10": "2023-05-01",
    "2.11": "2023-06-14", "2.12": "2023-07-19", "2.13": "2023-08-28", "2.14": "2023-09-15", "2.15": "2023-10-26",
    "2.16": "2023-12-22", "2.17": "2024-02-13", "2.18": "2024-04-01", "2.19": "2024-07-03", "2.20": "2024-09-16",
}  # fmt: skip
RELEASES = tuple(RELEASE_DAYS)
LATEST_RELEASE = RELEASES[-1]

FLOPS_PER_S = 16e12  # NeuronCore-v1 in 16 bit floats (reference: AWS's hardware pages)
INPUT_BYTES = 4  # summed embeddings enter the device as 32 bit floats
SCORE_BYTES = 4  # a softmax is computed in 32 bits
# Of an activation, by what --fast-math casts: all (the default), or only the operands of matrix products.
ACTIVATION_BYTES = {"all": 2, "matmul": 4, "none": 4}
VCPUS_PER_LINK = 24  # inf1.6xlarge's: one link is what the published rows show there; of larger ones it is assumed
PUBLISHED_TOKENS = 128  # of every row


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

    @property
    def matrix_bytes(self) -> int:
        """The largest matrix of a layer."""
        return BYTES_PER_WEIGHT * self.hidden * self.intermediate

    def working_set_bytes(self, sequence_length: int, value_bytes: int = 2) -> int:
        """What one sequence needs on chip within a layer: queries, keys, values, scores, feed-forward."""
        wide = value_bytes * sequence_length * (3 * self.hidden + self.intermediate)
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
DISTIL = ModelShape(layers=6, hidden=768, intermediate=3072, heads=12, weights=42_527_232)


# ---------------------------------------------------------------------------- releases


def known_release(release: Any) -> str:
    """``release`` of the Neuron SDK without its patch level ("2.20.2" is "2.20"); one after 2.20 is like 2.20.

    UsageError for what is no release from 1.13 on, and for a number: 2.20 is 2.2, another release than "2.20".
    """
    short = _short_release(release) if isinstance(release, str) else None
    if short is None:
        text = "" if isinstance(release, str) else "a text such as "
        raise UsageError(
            f"there is no timing for SDK release {release!r}",
            hint=f"{text}one from {RELEASES[0]} to {LATEST_RELEASE}: {', '.join(RELEASES)}",
        )
    return short


@functools.lru_cache(maxsize=256)
def _short_release(release: str) -> Optional[str]:
    found = re.fullmatch(r"(\d+)\.(\d+)(?:\.\d+)?", release)
    short = f"{found[1]}.{found[2]}" if found else release
    if found and found[1] == "2" and int(found[2]) > 20:
        return LATEST_RELEASE
    return short if short in RELEASE_DAYS else None


def at_release(anchors: Mapping[str, float], release: str) -> float:
    """A constant that is known for some releases, at ``release``: linear over days between two, level outside."""
    day = _day(known_release(release))
    known = sorted((_day(name), value) for name, value in anchors.items())
    if day <= known[0][0]:
        return known[0][1]
    for (before, low), (after, high) in zip(known, known[1:]):
        if day <= after:
            return low + (high - low) * (day - before) / (after - before)
    return known[-1][1]


@functools.lru_cache(maxsize=None)
def _day(release: str) -> int:
    return datetime.date.fromisoformat(RELEASE_DAYS[release]).toordinal()


# ---------------------------------------------------------------------------- constants


@dataclass(frozen=True)
class DeviceConstants:
    """Nine fitted numbers and the datasheet's bandwidth; ``calibration.json`` says what each one means.

    Mappings are by release; ``at_release`` gives those between.
    """

    stream_bytes_per_s: Mapping[str, float]  # one chip's device memory, shared by its active cores
    issue_s: Mapping[str, float]  # handing a batch to the first stage
    contention_s_per_byte: Mapping[str, float]  # mean wait for a vCPU, of inputs and for each other call on a vCPU
    port_bytes_per_s: float  # the most that one core can stream however idle its chip is
    on_chip_bytes: float  # per core
    host_call_s: float  # the host's own work in a call
    entry_bytes_per_s: float  # inputs over the link to the device
    movement_bytes_per_s: float  # activations through a core, once a layer

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DeviceConstants":
        """The constants among ``values``: the object "constants" of ``calibration.json``."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


@functools.lru_cache(maxsize=1)
def _calibration() -> Mapping[str, Any]:
    calibration: Dict[str, Any] = json.loads(CALIBRATION_PATH.read_text(encoding="utf-8"))
    return calibration


@functools.lru_cache(maxsize=1)
def calibrated() -> DeviceConstants:
    """The constants that ship with the package."""
    return DeviceConstants.from_json(_calibration()["constants"])


def likely_range(figure: str) -> Tuple[float, float]:
    """(low, high): a predicted "throughput_per_s" or "p95_ms" times these is where 8 of 10 published figures lie.

    Of a configuration that the constants were not fitted to, where callers are never idle (``calibration.json``).
    """
    found = _calibration()["likely_ranges"][figure]
    return found["low"], found["high"]


def unlike_published(shape: ModelShape, sequence_length: int) -> str:
    """What no published row has of a model and its length, so that a range is extrapolated; empty where rows do."""
    unlike = []
    if sequence_length != PUBLISHED_TOKENS:
        unlike.append(f"{counted(sequence_length, 'token')} instead of {PUBLISHED_TOKENS}")
    if shape not in (BERT_BASE, DISTIL):
        unlike.append(f"{counted(shape.layers, 'layer')} of {shape.hidden} instead of 12 or 6 of {BERT_BASE.hidden}")
    return ", ".join(unlike)


# ---------------------------------------------------------------------------- one batch


class Work(NamedTuple):
    """One batch on one core group."""

    shape: ModelShape
    batch_size: int
    sequence_length: int
    pipeline_cores: int
    active_cores_per_chip: float  # cores of a chip that stream at once, on average
    release: str = LATEST_RELEASE
    casts: str = "all"  # what --fast-math casts to 16 bits; published rows are all compiled with "all"


def stage_seconds(work: Work, constants: Optional[DeviceConstants] = None) -> Tuple[float, ...]:
    """Seconds that each stage of the pipeline is busy with one batch; the first is the slowest."""
    device = calibrated() if constants is None else constants
    _check(work)
    largest = largest_share(work.shape, work.pipeline_cores)
    first = _busy_s(work, largest, device) + _entry_s(work, device) + _issue_s(work, device)
    if work.pipeline_cores == 1:
        return (first,)
    rest = (1.0 - largest) / (work.pipeline_cores - 1)
    return (first,) + (_busy_s(work, rest, device),) * (work.pipeline_cores - 1)


def largest_share(shape: ModelShape, pipeline_cores: int) -> float:
    """The share of the model on the fullest core.

    The compiler cuts between the two halves of a layer (attention, feed-forward), and within a half where there are
    more cores than halves: core counts that are no multiple of 4 are accepted (7 in aws-neuron-sdk#291).
    """
    halves = 2 * shape.layers
    if pipeline_cores > halves:
        return 1 / pipeline_cores
    return math.ceil(halves / pipeline_cores) / halves


def entry_seconds(work: Work) -> float:
    """The share of the first stage that handing over the batch takes."""
    return _entry_s(work, calibrated()) + _issue_s(work, calibrated())


def _check(work: Work) -> None:
    known_release(work.release)
    if work.casts not in ACTIVATION_BYTES:
        raise UsageError(f"there are no casts {work.casts!r}", hint=f"one of {', '.join(ACTIVATION_BYTES)}")
    for name in ("batch_size", "sequence_length", "pipeline_cores", "active_cores_per_chip"):
        if getattr(work, name) < 1:
            raise UsageError(f"{name} must be at least 1, not {getattr(work, name)}")


def _busy_s(work: Work, share: float, device: DeviceConstants) -> float:
    """A stage that holds ``share`` of the model: streaming or arithmetic, whichever is longer, then movement."""
    streaming = _streamed_bytes(work, share, device) / _stream_rate(work, device)
    arithmetic = work.batch_size * work.shape.flops(work.sequence_length) * share / FLOPS_PER_S
    hidden = ACTIVATION_BYTES[work.casts] * work.sequence_length * work.shape.hidden
    moved = work.batch_size * hidden * work.shape.layers * share
    return max(streaming, arithmetic) + moved / device.movement_bytes_per_s


def _streamed_bytes(work: Work, share: float, device: DeviceConstants) -> float:
    working_set = work.shape.working_set_bytes(work.sequence_length, ACTIVATION_BYTES[work.casts])
    activations = work.batch_size * working_set
    room = max(0.0, device.on_chip_bytes - activations)
    weights = max(0.0, BYTES_PER_WEIGHT * work.shape.weights * share - room)
    matrix = min(weights, work.shape.matrix_bytes)
    spilled = max(0.0, activations + matrix - device.on_chip_bytes)
    return weights + 2 * spilled * work.shape.layers * share


def _stream_rate(work: Work, device: DeviceConstants) -> float:
    active = min(work.active_cores_per_chip, CORES_PER_CHIP)
    return min(device.port_bytes_per_s, at_release(device.stream_bytes_per_s, work.release) / active)


def _entry_s(work: Work, device: DeviceConstants) -> float:
    return _input_bytes(work) / device.entry_bytes_per_s


def _input_bytes(work: Work) -> int:
    return INPUT_BYTES * work.batch_size * work.sequence_length * work.shape.hidden


def _issue_s(work: Work, device: DeviceConstants) -> float:
    return at_release(device.issue_s, work.release)


# ---------------------------------------------------------------------------- the host


def host_call_seconds() -> float:
    """What the host does in a call before the first stage has the batch."""
    return calibrated().host_call_s


def host_waits(
    work: Work,
    batches_per_s: float,
    *,
    instance: str,
    round_s: float,
    models: int = 1,
    in_flight: int = 1,
    processes: Optional[int] = None,
    constants: Optional[DeviceConstants] = None,
) -> HostWaits:
    """What a call may wait for on ``instance``, on which ``models`` core groups take ``batches_per_s`` together.

    A call that waits for nothing takes ``round_s``. Each model has ``in_flight`` callers, in ``processes`` (one a model
    by default). A call waits for the link to the device while another's inputs enter: of an M/D/1 queue, a wait is had
    by the share that it is busy, and its mean is then half an entry over the idle share. And calls of other processes
    take the vCPUs: by Little's law ``batches_per_s`` times ``round_s`` are under way, however many more callers wait
    for a core. What they do grows with their inputs, so the wait does.
    """
    device = calibrated() if constants is None else constants
    vcpus, callers = instance_type(instance).vcpus, models * in_flight
    entry_s, links = _entry_s(work, device), max(1.0, vcpus / VCPUS_PER_LINK)
    share = min(0.9, batches_per_s * entry_s / links * (callers - 1) / callers)
    others = batches_per_s * round_s * (1 - 1 / (models if processes is None else processes))
    contention_s = at_release(device.contention_s_per_byte, work.release) * _input_bytes(work) * others / vcpus
    return HostWaits(contention_s, share, entry_s / 2 / (1 - share))


class Prediction(NamedTuple):
    """A closed loop's steady state: ``in_flight`` batches always waiting on each model."""

    throughput_per_s: float  # sequences, all models together
    latency_s: float  # of one batch, its queueing included: the mean, and three percentiles
    p50_s: float
    p95_s: float
    p99_s: float
    service_s: float  # of one batch on an idle core group, without the host's part
    bottleneck_s: float  # the slowest stage
    utilisation: float  # of the slowest stage


def predict(
    work: Work,
    *,
    models: int = 1,
    in_flight: int = 1,
    processes: Optional[int] = None,
    instance: str = "inf1.6xlarge",
    constants: Optional[DeviceConstants] = None,
) -> Prediction:
    """Throughput and latency of ``models`` core groups of ``instance``, each kept busy by ``in_flight`` callers.

    ``processes`` is over how many processes the callers are spread: one a model by default.
    """
    if models < 1 or in_flight < 1:
        raise UsageError(f"models and in_flight must be at least 1, not {models} and {in_flight}")
    if processes is not None and not 1 <= processes <= models * in_flight:
        raise UsageError(f"{models * in_flight} callers are in 1 to {models * in_flight} processes, not {processes}")
    device = calibrated() if constants is None else constants
    stages = shared_stage_seconds(work, in_flight, device)
    round_s = device.host_call_s + sum(stages)
    waits = host_waits(
        work,
        models * most_batches_per_s(in_flight, stages[0], round_s),
        instance=instance,
        round_s=round_s,
        models=models,
        in_flight=in_flight,
        processes=processes,
        constants=device,
    )
    found = closed_loop(in_flight, device.host_call_s, waits, stages)
    batches_per_s = in_flight / found.mean_s
    return Prediction(
        models * work.batch_size * batches_per_s, *found, sum(stages), stages[0], batches_per_s * stages[0]
    )


def shared_stage_seconds(work: Work, in_flight: int, constants: Optional[DeviceConstants] = None) -> Tuple[float, ...]:
    """``stage_seconds`` with ``in_flight`` callers a core, when the chip's other cores are busy as often as this one.

    The more a core waits for its callers, the more of the chip's memory is left to the others, and the sooner they
    are done: halfway steps settle where both agree. Random waits for the host are left out of how busy it is: the
    constants were fitted so.
    """
    device = calibrated() if constants is None else constants
    others, busy = work.active_cores_per_chip - 1, 1.0
    stages = stage_seconds(work, device)
    for _ in range(12 if others else 0):
        round_s = device.host_call_s + sum(stages)
        busy = (busy + busy_share(in_flight / round_s, len(stages), stages[0], round_s)) / 2
        stages = stage_seconds(work._replace(active_cores_per_chip=1 + others * busy), device)
    return stages


def published_work(row: Mapping[str, str]) -> Tuple[Work, Dict[str, Any]]:
    """A row of ``published_performance.csv`` as ``predict``'s arguments.

    Requests in flight that a row does not give are those that its latency fits: one per core, four for a
    pipeline of four cores, twelve for sixteen.
    """
    models, cores = int(row["models"]), int(row["pipeline_cores"])
    clients = int(row["client_threads"] or models * min(cores, 12))
    active = min(CORES_PER_CHIP, models * cores)
    shape = DISTIL if row["model"].startswith("distil") else BERT_BASE
    work = Work(shape, int(row["batch_size"]), int(row["sequence_length"]), cores, active, row["sdk_version"])
    load = {"models": models, "in_flight": max(1, clients // models), "processes": int(row["client_processes"])}
    return work, {**load, "instance": row["instance_type"]}
