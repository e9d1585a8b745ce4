"""Which NeuronCores each worker gets, and the environment that gives them; backend and runner ask here."""

import contextlib
import math
import os
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, MutableMapping, NamedTuple, Optional, Tuple

from neuronbert.errors import UsageError, as_whole, counted
from neuronbert.hardware.prices import Price, shipped_prices

GIB = 1024**3
CHIP_BYTES = 8 * GIB  # of device memory
CORES_PER_CHIP = 4
DATA_PARALLEL = "data-parallel"
PIPELINE = "pipeline"
MODES = (DATA_PARALLEL, PIPELINE)

# AWS's starting point is 4 * round(weights / 2e7): four cores hold 2e7 weights on chip.
WEIGHTS_PER_FOUR_CORES = 20_000_000

# Of a BERT-like layer: query, key, value, scores, their mixture, the attention's output, and two of the feed-forward.
PRODUCTS_PER_LAYER = 8

# A core multiplies in 16 bit floats whatever it is asked, so a weight takes two bytes there.
BYTES_PER_WEIGHT = 2
# AWS's BERT-base (85.05M weights, 170 MB) takes about 200 MB of device memory per copy.
PROGRAM_OVERHEAD = 200 / 170

# More than three host threads in one process only slowed it down on 24 vCPU (aws-neuron-sdk issue 243).
MAX_HOST_THREADS = 3

GROUP_SIZES = "NEURONCORE_GROUP_SIZES"
VISIBLE_CORES = "NEURON_RT_VISIBLE_CORES"
NUM_CORES = "NEURON_RT_NUM_CORES"


class InstanceType(NamedTuple):
    """One inf1 size: what is inside it, and what it costs by the shipped price book."""

    name: str
    chips: int
    vcpus: int
    host_memory_gib: int

    @property
    def cores(self) -> int:
        return self.chips * CORES_PER_CHIP

    @property
    def device_memory_gib(self) -> int:
        return 8 * self.chips

    @property
    def prices(self) -> Tuple[Price, ...]:
        """Its prices in the shipped price book, newest first."""
        return shipped_prices().history(self.name)

    @property
    def usd_per_hour(self) -> float:
        return self.prices[0].usd_per_hour


INSTANCE_TYPES: Dict[str, InstanceType] = {
    instance.name: instance
    for instance in (
        InstanceType("inf1.xlarge", 1, 4, 8),
        InstanceType("inf1.2xlarge", 1, 8, 16),
        InstanceType("inf1.6xlarge", 4, 24, 48),
        InstanceType("inf1.24xlarge", 16, 96, 192),
    )
}
MAX_CORES = max(instance.cores for instance in INSTANCE_TYPES.values())


def instance_type(name: str) -> InstanceType:
    """The inf1 size called ``name``; UsageError if there is none."""
    if name not in INSTANCE_TYPES:
        raise UsageError(f"there is no instance type {name!r}", hint=f"one of {', '.join(INSTANCE_TYPES)}")
    return INSTANCE_TYPES[name]


@dataclass(frozen=True)
class PipelineChoice:
    """How a number of pipeline cores was chosen, so that it can be explained to a person."""

    parameters: int  # weights that go to the NeuronCores: the encoder's, embeddings stay on the host
    asked: Optional[int]  # None: the formula was asked
    computed: int  # the formula's answer, before any clamp
    available: int  # cores of the instance, or of the largest one
    cores: int  # the answer

    @property
    def clamped(self) -> bool:
        return self.asked is None and self.cores != self.computed

    def sentence(self) -> str:
        """One line for the user: what was asked, computed and clamped."""
        formula = f"4 * round({self.parameters:,} / 2e7) = {self.computed}"
        if self.asked is not None:
            return f"{self.cores} pipeline cores as asked (the formula says {formula})"
        if not self.clamped:
            return f"{self.cores} pipeline cores: {formula}"
        bound = "at least 1" if self.computed < 1 else f"at most the {self.available} cores there are"
        return f"{self.cores} pipeline cores: {formula}, clamped to {bound}"


def choose_pipeline_cores(
    parameters: float, cores: Optional[int] = None, asked: Optional[int] = None
) -> PipelineChoice:
    """Cores for one pipelined model of ``parameters`` encoder weights on an instance of ``cores`` cores.

    The formula is 4 * round(parameters / 2e7), half up, at least 1, at most ``cores`` (64, the largest
    instance's, when None). ``asked`` overrides it and is never clamped: UsageError if it does not fit.
    """
    weights = _whole_positive(parameters, "the number of parameters")
    available = MAX_CORES if cores is None else _whole_positive(cores, "the number of cores")
    computed = 4 * ((weights + WEIGHTS_PER_FOUR_CORES // 2) // WEIGHTS_PER_FOUR_CORES)
    if asked is None:
        return PipelineChoice(weights, None, computed, available, min(max(computed, 1), available))
    chosen = _whole_positive(asked, "--neuroncore-pipeline-cores")
    if chosen > available:
        raise UsageError(
            f"a pipeline of {chosen} cores does not fit {available} cores",
            hint=f"--neuroncore-pipeline-cores {available}, or a larger --instance-type",
        )
    return PipelineChoice(weights, chosen, computed, available, chosen)


def pipeline_cores(parameters: float, cores: Optional[int] = None) -> int:
    """4 * round(parameters / 2e7), rounded half up, at least 1, at most ``cores`` (64 when None)."""
    return choose_pipeline_cores(parameters, cores).cores


def why_too_long(pipeline_cores: int, matrix_products: int) -> str:
    """Why neuron-cc does not cut so many products over so many cores; empty when it does.

    A core without a product has nothing to do. What neuron-cc says is known (aws-neuron-sdk#618), its bound is not.
    """
    if pipeline_cores <= max(1, matrix_products):
        return ""
    return f"The requested number of neuroncore-pipeline-cores ({pipeline_cores}) may not be suitable for this network"


def fewest_layers(pipeline_cores: int) -> int:
    """Of a BERT-like model, so that every core of the pipeline has a matrix product."""
    return math.ceil(pipeline_cores / PRODUCTS_PER_LAYER)


def _whole_positive(number: Any, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, (int, float)) and not hasattr(number, "__index__"):
        raise UsageError(f"{name} must be a number, not {number!r}")
    if isinstance(number, float) and not (math.isfinite(number) and number == int(number)):
        raise UsageError(f"{name} must be a whole number, not {number!r}")
    if number < 1:
        raise UsageError(f"{name} must be at least 1, not {number!r}")
    return int(number)


def format_cores(cores: range) -> str:
    """The form NEURON_RT_VISIBLE_CORES takes: "2" for one core, "0-3" for several."""
    return str(cores[0]) if len(cores) == 1 else f"{cores[0]}-{cores[-1]}"


@dataclass(frozen=True)
class CoreLayout:
    """How an instance's cores are shared out: ``replicas`` copies of a model over ``cores_per_model`` cores each.

    They begin at ``first_core``, where those before it are another model's.
    """

    instance: str
    mode: str
    cores_per_model: int
    replicas: int
    first_core: int = 0

    def __post_init__(self) -> None:
        total = instance_type(self.instance).cores
        if self.mode not in MODES:
            raise UsageError(f"there is no mode {self.mode!r}", hint=f"one of {', '.join(MODES)}")
        _whole_positive(self.cores_per_model, "cores_per_model")
        _whole_positive(self.replicas, "replicas")
        if self.mode == DATA_PARALLEL and self.cores_per_model != 1:
            raise UsageError(
                f"data-parallel runs one model per core, not one over {self.cores_per_model} cores",
                hint="--mode pipeline",
            )
        if as_whole(self.first_core) is None or not 0 <= self.first_core < total:
            raise UsageError(
                f"{self.instance} has no core {self.first_core!r}", hint=f"first_core from 0 to {total - 1}"
            )
        if self.first_core + self.used_cores > total:
            behind = f" behind core {self.first_core - 1}" if self.first_core else ""
            raise UsageError(
                f"{self.replicas} models over {self.cores_per_model} cores each need {self.used_cores} cores{behind}; "
                f"{self.instance} has {total}",
                hint="fewer models or cores per model, or a larger --instance-type",
            )

    @property
    def used_cores(self) -> int:
        return self.replicas * self.cores_per_model

    @property
    def idle_cores(self) -> int:
        return instance_type(self.instance).cores - self.used_cores

    @property
    def groups(self) -> Tuple[range, ...]:
        """The contiguous cores of each worker, in order."""
        return tuple(self.cores_of(worker) for worker in range(self.replicas))

    @property
    def in_flight_per_group(self) -> int:
        """Requests that keep one core group busy: 2 hide the host's part, a pipeline needs one a stage."""
        return 2 if self.mode == DATA_PARALLEL else self.cores_per_model

    @property
    def threads_per_worker(self) -> int:
        """Host threads for each worker, so that all workers together do not oversubscribe the vCPUs."""
        return max(1, min(MAX_HOST_THREADS, instance_type(self.instance).vcpus // self.replicas))

    def cores_of(self, worker: int) -> range:
        """The cores of worker ``worker``, counted over the instance from 0."""
        if isinstance(worker, bool) or not isinstance(worker, int) or not 0 <= worker < self.replicas:
            raise UsageError(
                f"there is no worker {worker!r}: the layout has {self.replicas}",
                hint=f"a number from 0 to {self.replicas - 1}",
            )
        first = self.first_core + worker * self.cores_per_model
        return range(first, first + self.cores_per_model)

    def environment(self) -> Dict[str, str]:
        """The variables of one process that drives the whole instance."""
        return {
            GROUP_SIZES: ",".join([str(self.cores_per_model)] * self.replicas),
            VISIBLE_CORES: format_cores(range(self.first_core, self.first_core + self.used_cores)),
        }

    def worker_environment(self, worker: int) -> Dict[str, str]:
        """The variables of worker ``worker``: its own cores only, and its share of the host's."""
        return {
            GROUP_SIZES: str(self.cores_per_model),
            VISIBLE_CORES: format_cores(self.cores_of(worker)),
            "OMP_NUM_THREADS": str(self.threads_per_worker),
            # One process per core group is the parallelism; the tokenizer's own threads would fight it.
            "TOKENIZERS_PARALLELISM": "false",
        }

    def describe(self) -> Dict[str, Any]:
        """The layout as plain JSON data."""
        return {
            "instance_type": self.instance,
            "mode": self.mode,
            "cores_per_model": self.cores_per_model,
            "replicas": self.replicas,
            "groups": [list(group) for group in self.groups],
            "idle_cores": self.idle_cores,
            "in_flight_per_group": self.in_flight_per_group,
            "threads_per_worker": self.threads_per_worker,
        }


def layout_for(
    instance: str, mode: str = DATA_PARALLEL, cores_per_model: int = 1, replicas: Optional[int] = None
) -> CoreLayout:
    """The layout that fills ``instance``: a model per core, or cores // p pipelines of p cores.

    UsageError for an unknown instance or mode, data-parallel over more than one core per model, and a
    model or number of ``replicas`` that the instance has no cores for.
    """
    total = instance_type(instance).cores
    width = _whole_positive(cores_per_model, "cores per model")
    return CoreLayout(instance, mode, width, max(1, total // width) if replicas is None else replicas)


# ---------------------------------------------------------------------------- the environment, set and put back


def merged_environment(variables: Mapping[str, str], base: Optional[Mapping[str, str]] = None) -> Dict[str, str]:
    """A child's environment: ``base`` (this process's by default) with ``variables`` on top.

    NEURON_RT_NUM_CORES goes when group sizes or visible cores are set: the documentation forbids the
    first pair and lets the second win, and a leftover of the parent's must not decide.
    """
    environment = dict(os.environ if base is None else base)
    if NUM_CORES in variables and GROUP_SIZES in variables:
        raise UsageError(f"{NUM_CORES} and {GROUP_SIZES} must not be set together", hint=f"leave out {NUM_CORES}")
    if GROUP_SIZES in variables or VISIBLE_CORES in variables:
        environment.pop(NUM_CORES, None)
    if NUM_CORES in variables:
        environment.pop(GROUP_SIZES, None)
    environment.update(variables)
    return environment


@contextlib.contextmanager
def environment_set(
    variables: Mapping[str, str], environ: Optional[MutableMapping[str, str]] = None
) -> Iterator[MutableMapping[str, str]]:
    """Inside, ``environ`` (this process's by default) is as ``merged_environment`` says; after, as it was.

    Only the variables concerned are touched: one that was absent is absent again, whatever the body did to it.
    """
    target: MutableMapping[str, str] = os.environ if environ is None else environ
    wanted = merged_environment(variables, target)
    concerned = sorted(set(variables) | {GROUP_SIZES, VISIBLE_CORES, NUM_CORES})
    before = {name: target.get(name) for name in concerned}
    try:
        _put(target, {name: wanted.get(name) for name in concerned})
        yield target
    finally:
        _put(target, before)


def _put(environ: MutableMapping[str, str], values: Mapping[str, Optional[str]]) -> None:
    for name, value in values.items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value


# ---------------------------------------------------------------------------- device memory


class MemoryEstimate(NamedTuple):
    """Bytes of device memory on the fullest chip, and how they come about."""

    layout: CoreLayout
    parameters: int
    buckets: int
    bytes_per_copy: int
    bytes_on_fullest_chip: int
    bytes_per_chip: int

    @property
    def fits(self) -> bool:
        return self.bytes_on_fullest_chip <= self.bytes_per_chip

    def sentence(self) -> str:
        """The numbers, in one line."""
        return (
            f"{self.parameters:,} weights take {self.bytes_per_copy / GIB:.2f} GiB a copy; "
            f"{self.layout.replicas} copies over {self.layout.cores_per_model} cores each, "
            f"times {counted(self.buckets, 'bucket')}, put {self.bytes_on_fullest_chip / GIB:.2f} GiB on the fullest "
            f"chip of {self.layout.instance}, which has {self.bytes_per_chip / GIB:.0f} GiB"
        )


def estimate_device_memory(layout: CoreLayout, parameters: int, buckets: int = 1) -> MemoryEstimate:
    """What ``buckets`` compiled models of ``parameters`` encoder weights take on every core group of ``layout``.

    Each bucket is a program with weights of its own, and each core group loads every bucket.
    """
    weights = _whole_positive(parameters, "the number of parameters")
    count = _whole_positive(buckets, "the number of buckets")
    per_copy = math.ceil(weights * BYTES_PER_WEIGHT * PROGRAM_OVERHEAD)
    used: List[int] = [0] * instance_type(layout.instance).chips
    for core in range(layout.used_cores):
        used[core // CORES_PER_CHIP] += 1
    fullest = math.ceil(max(used) * per_copy / layout.cores_per_model) * count
    return MemoryEstimate(layout, weights, count, per_copy, fullest, CHIP_BYTES)


def require_device_memory(layout: CoreLayout, parameters: int, buckets: int = 1) -> MemoryEstimate:
    """The estimate; UsageError with its numbers when the layout cannot fit."""
    estimate = estimate_device_memory(layout, parameters, buckets)
    if not estimate.fits:
        raise UsageError(
            f"this layout does not fit device memory: {estimate.sentence()}",
            hint="fewer --sequence-length buckets, --mode pipeline over more cores, or fewer workers",
        )
    return estimate
