"""Where the workers go: to a group of NeuronCores each, to GPUs, or to a share of the CPUs, never oversubscribed."""

import os
from typing import Dict, List, NamedTuple, Optional, Sequence

from neuronbert.artifact.manifest import Artifact, Variant
from neuronbert.artifact.variants import choose_variants
from neuronbert.backends import load_backend
from neuronbert.backends.neuron.target import recorded_layout
from neuronbert.errors import ArtifactError, UsageError, counted, positive, shown_value, text_or_none
from neuronbert.hardware.cores import CoreLayout
from neuronbert.hardware.cuda import GIB, VISIBLE_DEVICES, Gpu
from neuronbert.hardware.machine import physical_cores
from neuronbert.hardware.requirements import gpus_that_meet
from neuronbert.runner.supervision import WorkerPlace

# Of a job's workers on one GPU. Eight times the rate of one process from text is more than a GPU's from tokens
# (docs/measurements.md), and each has its own copy of the weights.
MOST_ON_GPU = 8
ROOM_ON_GPU_BYTES = 4 * GIB  # what one may take: CUDA's context, the weights, and a few batches at once


class Placement(NamedTuple):
    """The workers' places, and what follows from them."""

    places: List[WorkerPlace]
    variants: List[Variant]
    streams: Optional[int]  # of each worker's engine; None: as its cores allow
    in_flight: Optional[int]  # batches a worker holds; None: one more than it runs at once
    layout: Optional[CoreLayout]


def place_workers(
    artifact: Artifact,
    *,
    variant: Optional[str] = None,
    workers: Optional[int] = None,
    threads: Optional[int] = None,
    streams: Optional[int] = None,
    layout: Optional[CoreLayout] = None,
    instance_type: Optional[str] = None,
    mode: Optional[str] = None,
) -> Placement:
    """Places for ``workers`` processes (None: for all core groups or GPUs; on CPUs one, with a stream for each thread).

    GPUs are those that CUDA_VISIBLE_DEVICES leaves, and slices of them; more workers than GPUs share them evenly.
    ``threads`` are each worker's. UsageError for more workers than there are groups or CPUs, for a layout that the
    artifact was not compiled for, and for a layout of NeuronCores where the variant does not run on them.
    """
    workers, threads, streams = positive("workers", workers), positive("threads", threads), positive("streams", streams)
    instance_type, mode = text_or_none("instance_type", instance_type), text_or_none("mode", mode)
    if layout is not None and not isinstance(layout, CoreLayout):
        raise UsageError(f"layout must be a CoreLayout, not {shown_value(layout)}", hint="neuronbert.cores.layout_for")
    variants = choose_variants(artifact, variant)
    backend = load_backend(variants[0]["backend"])
    if backend.DEVICE == "neuron":
        chosen = layout or _layout(artifact, variants[0], instance_type, mode)
        return _on_cores(variants, _checked(chosen, variants[0]), workers, streams)
    if layout is not None or instance_type is not None or mode is not None:
        raise UsageError(
            f"{variants[0]['name']} runs on {'GPUs' if backend.DEVICE == 'cuda' else 'the CPU'} and has no layout of "
            "NeuronCores",
            hint="workers=N, or an artifact compiled with --backend neuron",
        )
    on_device = _on_gpus if backend.DEVICE == "cuda" else _on_cpus
    return on_device(variants, workers, threads, streams)


def whole_layout(
    artifact: Artifact, variant: Optional[str] = None, instance_type: Optional[str] = None
) -> Optional[CoreLayout]:
    """The NeuronCores that ``place_workers`` gives a runner that is alone on its machine; None where it has none."""
    chosen = choose_variants(artifact, text_or_none("variant", variant))[0]
    if load_backend(chosen["backend"]).DEVICE != "neuron":
        return None
    return _layout(artifact, chosen, text_or_none("instance_type", instance_type), None)


def workers_of_job(artifact: Artifact, variant: Optional[str] = None) -> Optional[int]:
    """How many workers answer a job's text inside them where nobody asked for a number; None: as ``place_workers``."""
    chosen = choose_variants(artifact, text_or_none("variant", variant))[0]
    backend = load_backend(chosen["backend"])
    if not backend.HOST_BOUND or backend.DEVICE != "cuda":
        return None
    gpus = gpus_that_meet(chosen["requires"])
    least_bytes = min((gpu.memory_bytes for gpu in gpus if gpu.memory_bytes), default=MOST_ON_GPU * ROOM_ON_GPU_BYTES)
    on_each = min(MOST_ON_GPU, physical_cores() // max(1, len(gpus)), least_bytes // ROOM_ON_GPU_BYTES)
    return len(gpus) * max(1, on_each)


def _layout(artifact: Artifact, variant: Variant, instance_type: Optional[str], mode: Optional[str]) -> CoreLayout:
    layout = recorded_layout(variant, instance_type)
    compiled_mode = variant["recipe"]["mode"]
    if mode not in (None, compiled_mode):
        raise ArtifactError(
            f"{artifact.folder} was compiled for {compiled_mode}, not for {mode}",
            hint=f"neuronbert compile CHECKPOINT OUTPUT --backend neuron --mode {mode}",
        )
    return layout


def _checked(layout: CoreLayout, variant: Variant) -> CoreLayout:
    if layout.cores_per_model != variant["pipeline_cores"]:
        raise UsageError(
            f"{variant['name']} was compiled for {counted(variant['pipeline_cores'], 'core')} per model, "
            f"and the layout has {layout.cores_per_model}",
            hint=f"a layout with cores_per_model={variant['pipeline_cores']}, or compile with "
            f"--neuroncore-pipeline-cores {layout.cores_per_model}",
        )
    return layout


def _on_cores(
    variants: Sequence[Variant], layout: CoreLayout, workers: Optional[int], streams: Optional[int]
) -> Placement:
    count = layout.replicas if workers is None else workers
    if count > layout.replicas:
        raise UsageError(
            f"{counted(count, 'worker')} over {counted(layout.cores_per_model, 'core')} each need "
            f"{counted(count * layout.cores_per_model, 'core')}; "
            f"{layout.instance} has room for {layout.replicas}",
            hint=f"workers={layout.replicas}, or a larger instance_type",
        )
    places = [
        WorkerPlace(
            environment, None, layout.threads_per_worker, f"NeuronCore {environment['NEURON_RT_VISIBLE_CORES']}"
        )
        for environment in map(layout.worker_environment, range(count))
    ]
    return Placement(places, list(variants), streams, layout.in_flight_per_group, layout)


def _on_cpus(
    variants: Sequence[Variant], workers: Optional[int], threads: Optional[int], streams: Optional[int]
) -> Placement:
    available = physical_cores()  # two workers on the threads of one core would only take turns
    count = workers or 1
    if count > available:
        raise UsageError(
            f"{counted(count, 'worker')} are more than the {counted(available, 'CPU core')} of this process: "
            "they would take turns",
            hint=f"workers={available}",
        )
    share = _thread_share(count, threads)
    places = [_cpu_place(number, share, pinned=count > 1) for number in range(count)]
    return Placement(places, list(variants), streams or _streams(variants, share), None, None)


def _on_gpus(
    variants: Sequence[Variant], workers: Optional[int], threads: Optional[int], streams: Optional[int]
) -> Placement:
    gpus = gpus_that_meet(variants[0]["requires"])
    count, most = workers or len(gpus), max(len(gpus), physical_cores())
    if count > most:
        raise UsageError(
            f"{counted(count, 'worker')} are more than the {counted(len(gpus), 'GPU')}, slices included, and than the "
            f"{counted(physical_cores(), 'CPU core')} of this process: they would take turns",
            hint=f"workers={most}",
        )
    share = _thread_share(count, threads)
    places = [_gpu_place(gpus[number % len(gpus)], share, -(-count // len(gpus))) for number in range(count)]
    return Placement(places, list(variants), streams or _streams(variants, share), None, None)


def _thread_share(count: int, threads: Optional[int]) -> int:
    """Threads of each of ``count`` workers: one at least, though there be fewer cores. UsageError for too many."""
    available = max(count, physical_cores())
    share = available // count if threads is None else threads
    if share * count > available:
        raise UsageError(
            f"{counted(count, 'worker')} × {counted(share, 'thread')} is more than the "
            f"{counted(available, 'CPU core')} of this process",
            hint=f"threads={available // count}",
        )
    return share


def _streams(variants: Sequence[Variant], threads: int) -> int:
    return load_backend(variants[0]["backend"]).throughput_plan(threads).streams


def _gpu_place(gpu: Gpu, share: int, sharing: int) -> WorkerPlace:
    variables = {VISIBLE_DEVICES: gpu.identifier, **_host_variables(share)}
    return WorkerPlace(variables, None, share, f"GPU {gpu.number} ({gpu.name})", sharing)


def _host_variables(share: int) -> Dict[str, str]:
    return {"OMP_NUM_THREADS": str(share), "TOKENIZERS_PARALLELISM": "false"}


def _cpu_place(number: int, share: int, pinned: bool) -> WorkerPlace:
    cpus: Optional[List[int]] = None
    if pinned and hasattr(os, "sched_getaffinity"):
        cpus = sorted(os.sched_getaffinity(0))[number * share : (number + 1) * share]
    cores = f"CPU {','.join(map(str, cpus))}" if cpus else counted(share, "CPU thread")
    return WorkerPlace(_host_variables(share), cpus, share, cores)
