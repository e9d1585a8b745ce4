"""Every configuration that could serve a checkpoint: predicted by the device model, or measured by a benchmark.

planning.py judges them against the target.
"""

from pathlib import Path
from typing import Dict, Iterator, Optional, Tuple, Union

from neuronbert.benchmark.columns import LOAD
from neuronbert.benchmark.report import Point, identity_of
from neuronbert.benchmark.report_file import read_report
from neuronbert.errors import InputError, UsageError, quoted
from neuronbert.hardware import cores
from neuronbert.hardware.device_model import ModelShape, Work, host_call_seconds, host_waits, shared_stage_seconds
from neuronbert.hardware.prices import PriceBook
from neuronbert.planner.configurations import Configuration, Target
from neuronbert.planner.queueing import MAX_WAIT_S, Service

# The sizes in AWS's tables and tutorials: between them the device model would interpolate what nobody has measured.
BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12)
PIPELINE_CORES = (2, 4, 8, 16)
# What the published rows were compiled with, so what predictions are for: neuron-cc's default, --fast-math all.
PREDICTED_CASTS = " --auto-cast all"


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
            yield Configuration(
                instance_type=instance, mode=layout.mode, pipeline_cores=width, batch_size=batch_size,
                models=layout.replicas, measured=False, formula=width == formula,
                compile_command=_compile_command(source, layout, batch_size, target.sequence_length) + PREDICTED_CASTS,
                service=None if why else device_service(shape, layout, batch_size, target),
                price=book.price(instance), rejected=why,
            )  # fmt: skip


def _why_impossible(layout: cores.CoreLayout, shape: ModelShape) -> str:
    """Why the model cannot run in this layout; empty when it can."""
    memory = cores.estimate_device_memory(layout, shape.weights)
    return "" if memory.fits else f"does not fit device memory: {memory.sentence()}"


def device_service(
    shape: ModelShape, layout: cores.CoreLayout, batch_size: int, target: Target, casts: str = "all"
) -> Service:
    """What the device model says of a layout whose callers are never idle: at less load it is a little faster."""
    active = min(cores.CORES_PER_CHIP, layout.used_cores)
    work = Work(shape, batch_size, target.sequence_length, layout.cores_per_model, active, target.sdk_release, casts)
    in_flight = target.in_flight or layout.in_flight_per_group
    stages = shared_stage_seconds(work, in_flight)
    host_s, parallel = host_call_seconds(), layout.cores_per_model
    batches_per_s = layout.replicas * min(1 / stages[0], in_flight / (host_s + sum(stages)))
    waits = host_waits(work, batches_per_s, instance=layout.instance, models=layout.replicas, in_flight=in_flight)
    max_wait_s = min(MAX_WAIT_S, (host_s + sum(stages)) / 2)  # as the runner adapts it
    return Service(layout.replicas, batch_size, stages[0], sum(stages), in_flight, parallel, max_wait_s, host_s, waits)


def _compile_command(source: str, layout: cores.CoreLayout, batch_size: int, sequence_length: int) -> str:
    pipeline = f" --neuroncore-pipeline-cores {layout.cores_per_model}" if layout.mode == cores.PIPELINE else ""
    return (
        f"neuronbert compile {quoted(source)} OUTPUT --backend neuron --instance-type {layout.instance} "
        f"--mode {layout.mode}{pipeline} --batch-size {batch_size} --sequence-length {sequence_length}"
    )


def measured_configurations(
    path: Optional[Union[str, Path]], source: str, book: PriceBook, target: Target
) -> Iterator[Configuration]:
    """What the benchmark report at ``path`` measured: of each configuration the point of highest throughput.

    Nothing when ``path`` is None. Raises InputError for a file that is no report, and for cores that an instance lacks.
    """
    best: Dict[Tuple[object, ...], Configuration] = {}
    for number, point in enumerate(read_report(path)["points"] if path is not None else [], 1):
        key = identity_of(point, *LOAD)
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
        else f"neuronbert compile {quoted(source)} OUTPUT --backend {engine} --precision {precision}"
    )
    return Configuration(
        instance_type=instance, mode=point["mode"] if static else f"{engine} {precision}",
        pipeline_cores=cores_per_model, batch_size=batch, models=models, measured=True, formula=False,
        service=service, price=book.price(instance) if instance in book else None, spread=spread,
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
