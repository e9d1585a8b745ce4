"""Every configuration that could serve a checkpoint: predicted for inf1 and for GPUs, or measured by a benchmark.

planning.py judges them against the target.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, Optional, Sequence, Tuple, Union

from neuronbert.benchmark.columns import LOAD
from neuronbert.benchmark.report import Point, identity_of
from neuronbert.benchmark.report_file import read_report
from neuronbert.errors import InputError, UsageError, quoted
from neuronbert.hardware import cores, gpu_model
from neuronbert.hardware.closed_loop import most_batches_per_s, occupied_s
from neuronbert.hardware.device_model import (
    ModelShape,
    Work,
    host_call_seconds,
    host_waits,
    shared_stage_seconds,
    stage_seconds,
    unlike_published,
)
from neuronbert.hardware.prices import PriceBook
from neuronbert.planner.configurations import CPU, GPU, INF1, Configuration, Target
from neuronbert.planner.queueing import MAX_WAIT_S, Service

# The sizes in AWS's tables and tutorials: between them the device model would interpolate what nobody has measured.
BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12)
PIPELINE_CORES = (2, 4, 8, 16)
# What the published rows were compiled with, so what predictions are for: neuron-cc's default, --fast-math all.
PREDICTED_CASTS = " --auto-cast all"
# What predictions for GPUs are for: every kind in the table has it.
GPU_PRECISION = "fp16"
# The engines that compute elsewhere than on the CPU.
DEVICE_OF_ENGINE = {"neuron": INF1, "cuda": GPU}


def predicted_configurations(
    instance: str, shape: ModelShape, target: Target, source: str, book: PriceBook
) -> Iterator[Configuration]:
    """Every layout of an inf1 size with its predicted times, or ``rejected`` with the reason why it cannot be."""
    available = cores.instance_type(instance).cores
    formula = cores.pipeline_cores(shape.weights, available)
    widths = sorted({1, formula, *(width for width in PIPELINE_CORES if width <= available)})
    for width in widths:
        layout = cores.layout_for(instance, cores.PIPELINE if width > 1 else cores.DATA_PARALLEL, width)
        for batch_size in BATCH_SIZES:
            why = _why_impossible(layout, shape)
            service_at = None if why else device_service(shape, layout, batch_size, target)
            yield Configuration(
                instance_type=instance, mode=layout.mode, pipeline_cores=width, batch_size=batch_size,
                models=layout.replicas, measured=False, formula=width == formula,
                compile_command=_compile_command(source, layout, batch_size, target.sequence_length) + PREDICTED_CASTS,
                service=service_at.saturated if service_at else None, service_at=service_at,
                price=book.price(instance), rejected=why,
                extrapolated=unlike_published(shape, target.sequence_length),
            )  # fmt: skip


def _why_impossible(layout: cores.CoreLayout, shape: ModelShape) -> str:
    """Why the model cannot run in this layout; empty when it can."""
    why = cores.why_too_long(layout.cores_per_model, shape.layers * cores.PRODUCTS_PER_LAYER)
    if why:
        return f"neuron-cc refuses it: {why}"
    memory = cores.estimate_device_memory(layout, shape.weights)
    return "" if memory.fits else f"does not fit device memory: {memory.sentence()}"


@dataclass(frozen=True)
class DeviceService:
    """What the device model says of a layout whose groups hold ``in_flight`` batches at most, at any load."""

    work: Work  # with every core of a chip that has a part of a model active
    layout: cores.CoreLayout
    in_flight: int

    @property
    def saturated(self) -> Service:
        """With callers who are never idle."""
        stages = shared_stage_seconds(self.work, self.in_flight)
        return self._service(stages, most_batches_per_s(self.in_flight, stages[0], host_call_seconds() + sum(stages)))

    def __call__(self, busy: float) -> Service:
        """With groups that are busy for that share of the time, 0 to 1."""
        # Of a pipeline too: a batch that meets no other is in one stage at a time.
        active = 1 + (self.work.active_cores_per_chip - 1) * busy
        stages = stage_seconds(self.work._replace(active_cores_per_chip=active))
        round_s = host_call_seconds() + sum(stages)
        return self._service(stages, busy / occupied_s(len(stages), stages[0], round_s))

    def _service(self, stages: Tuple[float, ...], batches_per_s: float) -> Service:
        """``batches_per_s`` of each group."""
        models, host_s, round_s = self.layout.replicas, host_call_seconds(), host_call_seconds() + sum(stages)
        waits = host_waits(
            self.work,
            models * batches_per_s,
            instance=self.layout.instance,
            round_s=round_s,
            models=models,
            in_flight=self.in_flight,
        )
        return Service(
            groups=models,
            batch_size=self.work.batch_size,
            bottleneck_s=stages[0],
            service_s=sum(stages),
            in_flight=self.in_flight,
            parallel=self.layout.cores_per_model,
            max_wait_s=min(MAX_WAIT_S, round_s / 2),  # as the runner adapts it
            host_s=host_s,
            host_waits=waits,
        )


def device_service(
    shape: ModelShape, layout: cores.CoreLayout, batch_size: int, target: Target, casts: str = "all"
) -> DeviceService:
    """The layout with the target's sequence length, release and batches in flight."""
    active = min(cores.CORES_PER_CHIP, layout.used_cores)
    work = Work(shape, batch_size, target.sequence_length, layout.cores_per_model, active, target.sdk_release, casts)
    return DeviceService(work, layout, target.in_flight or layout.in_flight_per_group)


def _compile_command(source: str, layout: cores.CoreLayout, batch_size: int, sequence_length: int) -> str:
    pipeline = f" --neuroncore-pipeline-cores {layout.cores_per_model}" if layout.mode == cores.PIPELINE else ""
    return (
        f"neuronbert compile {quoted(source)} OUTPUT --backend neuron --instance-type {layout.instance} "
        f"--mode {layout.mode}{pipeline} --batch-size {batch_size} --sequence-length {sequence_length}"
    )


def predicted_gpu_configurations(
    shape: ModelShape, target: Target, source: str, book: PriceBook, wanted: Sequence[str] = ()
) -> Iterator[Configuration]:
    """The ``wanted`` GPU sizes with their predicted times; by default, of each kind and number of GPUs, the cheapest.

    A GPU is a group of its own, with a Runner of its own. A batch is taken to last as long as a full one however few
    rows it has.
    """
    for size in _gpu_sizes(book, wanted):
        kind, tokens = size.kind, target.sequence_length
        batch_size = gpu_model.full_batch(shape, tokens, kind)
        why = gpu_model.why_no_room(shape, kind)
        batch_s = batch_size / gpu_model.sequences_per_s(shape, tokens, kind)
        service = Service(size.gpus, batch_size, batch_s, batch_s, max_wait_s=min(MAX_WAIT_S, batch_s / 2))
        yield Configuration(
            instance_type=size.instance_type, mode=f"cuda {GPU_PRECISION}", pipeline_cores=1, batch_size=batch_size,
            models=size.gpus, measured=False, formula=False,
            compile_command=_dynamic_command(source, "cuda", GPU_PRECISION),
            service=None if why else service, price=book.price(size.instance_type), device=GPU,
            rejected=f"does not fit GPU memory: {why}" if why else "",
            extrapolated=gpu_model.unlike_published(shape, tokens, kind),
            fed_per_s=size.gpus * gpu_model.runner_rate().value,
        )  # fmt: skip


def _gpu_sizes(book: PriceBook, wanted: Sequence[str]) -> Iterator[gpu_model.GpuSize]:
    """More vCPUs beside the same GPUs change no prediction, so a dearer size is asked for by its name or not at all."""
    cheapest: Dict[Tuple[str, int], gpu_model.GpuSize] = {}
    for size in gpu_model.gpu_sizes().values():
        if size.instance_type in wanted:
            yield size
        key = (size.kind.name, size.gpus)
        price = book.price(size.instance_type).usd_per_hour
        if key not in cheapest or price < book.price(cheapest[key].instance_type).usd_per_hour:
            cheapest[key] = size
    if not wanted:
        yield from cheapest.values()


def _dynamic_command(source: str, engine: str, precision: str) -> str:
    return f"neuronbert compile {quoted(source)} OUTPUT --backend {engine} --precision {precision}"


def measured_configurations(
    path: Optional[Union[str, Path]], source: str, book: PriceBook, target: Target
) -> Iterator[Configuration]:
    """What the benchmark report at ``path`` measured: of each configuration the point of highest throughput.

    Nothing when ``path`` is None. Raises InputError for a file that is no report, for one of a server, and for cores
    that an instance lacks.
    """
    best: Dict[Tuple[object, ...], Configuration] = {}
    for number, point in enumerate(read_report(path)["points"] if path is not None else [], 1):
        key = identity_of(point, *LOAD)
        if None in (point["batch_size"], point["n_models"], point["pipeline_size"]):
            raise InputError(
                f"point {number} of {path} is of a server, which keeps its batches to itself",
                hint="--measured with a report of neuronbert benchmark ARTIFACT",
            )
        try:
            measured = _measured_configuration(point, source, book, target)
        except UsageError as error:  # cores that its instance does not have
            raise InputError(f"point {number} of {path}: {error.message}", hint=error.hint) from None
        if key not in best or _preference(measured) > _preference(best[key]):
            best[key] = measured
    yield from best.values()


def _preference(measured: Configuration) -> Tuple[bool, float]:
    """The key that is largest for the best of a configuration's points."""
    return not measured.rejected, measured.capacity_per_s


def _measured_configuration(point: Point, source: str, book: PriceBook, target: Target) -> Configuration:
    """The configuration behind a measured point.

    The point's throughput is taken for its capacity, so a batch takes batch_size * n_models / throughput, and its p95
    exceeds its p50 by the measured ratio.
    """
    instance, batch, models = str(point["instance_type"]), int(point["batch_size"]), int(point["n_models"])
    length, engine, precision = point["sequence_length"], str(point["engine"]), str(point["precision"])
    cores_per_model = int(point["pipeline_size"])
    why, service, spread = _why_unusable(point, target), None, 1.0
    if not why:
        batch_s = models * batch / float(point["throughput_avg"])
        service = Service(models, batch, batch_s, batch_s)
        spread = max(1.0, float(point["latency_ms_p95"]) / float(point["latency_ms_p50"]))
    static = point["mode"] is not None
    command = (
        _compile_command(source, cores.layout_for(instance, point["mode"], cores_per_model), batch, length)
        if static
        else _dynamic_command(source, engine, precision)
    )
    return Configuration(
        instance_type=instance, mode=point["mode"] if static else f"{engine} {precision}",
        pipeline_cores=cores_per_model, batch_size=batch, models=models, measured=True, formula=False,
        service=service, price=book.price(instance) if instance in book else None, spread=spread,
        device=DEVICE_OF_ENGINE.get(engine, CPU),
        compile_command=command, rejected=why,
    )  # fmt: skip


def _why_unusable(point: Point, target: Target) -> str:
    """Why a measured point says nothing about the target; empty when it does."""
    length = point["sequence_length"]
    if point["emulated"]:
        return "was measured on an emulated device, which is no measurement of the real one"
    if point["errors"] or not (point["throughput_avg"] and point["latency_ms_p50"] and point["latency_ms_p95"]):
        return f"had {point['errors']} errors when it was measured, and gave {point['throughput_avg'] or 0} answers/s"
    return f"was measured at {length} tokens" if length and length != target.sequence_length else ""
