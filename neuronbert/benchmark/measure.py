"""Measures one point of an artifact's sweep: a runner of its own, a load, and the machine time and memory that it took.

artifact_target.py asks for the points; load.py and loadgen.py are the clients.
"""

import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from neuronbert.artifact.manifest import Artifact
from neuronbert.backends.base import Batch
from neuronbert.benchmark.load import Client, Item, LoadResult, Period, closed_loop, open_loop
from neuronbert.benchmark.loadgen import OFFLINE as LOADGEN_OFFLINE
from neuronbert.benchmark.loadgen import SERVER, SINGLE_STREAM, LoadGenResult, run_loadgen
from neuronbert.benchmark.points import CLOSED, OFFLINE, OPEN, LoadSpec, Setting
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.batches import collate
from neuronbert.hardware.machine import process_cpu_s
from neuronbert.runner.documents import RunnerStatistics
from neuronbert.runner.runner import Runner
from neuronbert.tasks.base import Input, Task

# This many clients for each row of the workers' batches keep them full, however long a batch takes.
OFFLINE_BATCHES = 4
# Answers come a batch at a time: among this many batches, one more or less is 2 % of the throughput.
LEAST_BATCHES = 50
# Rows that may wait: the open loop keeps the runner's default, clients that wait for answers are never refused.
OPEN_QUEUE, CLOSED_QUEUE = 1024, 1 << 20
ITEMS = 200  # different requests of a point


class MeasureOptions(NamedTuple):
    """What is the same for every point of a sweep."""

    inputs: List[Input]
    distribution: str  # of the open loop's requests
    period: Period
    loadgen_folder: Optional[Path]  # for its logs; None: LoadGen does not measure
    busy_wait: bool


class _Texts:
    """A client that asks with text, of its own lengths."""

    def __init__(self, runner: Runner):
        self._runner = runner
        runner.tokenizer.recent.resize(0)  # the same inputs come again and again, which a service's do not

    def submit(self, item: Input) -> "Future[object]":
        return self._runner.submit(*self._runner.task.call_arguments(item))


class _Tokens:
    """A client that asks with tokens: windows of one length."""

    def __init__(self, runner: Runner):
        self._runner = runner

    def submit(self, item: Batch) -> "Future[object]":
        return self._runner.submit_encoded(*item)


def full_rows(task: Task, tokenizer: Tokenizer, inputs: Sequence[Input], tokens: int) -> List[Batch]:
    """Rows of exactly ``tokens`` of real text, as batches of one."""
    return [collate([row], tokenizer.pad_id) for row in task.full_rows(tokenizer, inputs, tokens, ITEMS)]


class Measured(NamedTuple):
    """What was seen of a point; ``facts`` are the columns of a report that do not come from the load."""

    load: LoadResult
    loadgen: Optional[LoadGenResult]
    facts: Dict[str, Any]


def measure(
    artifact: Artifact, setting: Setting, options: MeasureOptions, inf1_instance_type: Optional[str]
) -> Measured:
    """Start a runner for ``setting`` and put it under its load.

    ``inf1_instance_type``: whose NeuronCores a variant that runs on them gets, if not those it was compiled for.
    """
    began = time.perf_counter()
    with Runner(
        artifact,
        variant=setting.variant,
        workers=setting.workers,
        threads=setting.threads,
        batch_size=setting.batch_size,
        instance_type=inf1_instance_type if setting.pipeline_cores else None,
        busy_wait=options.busy_wait,
        max_queue=OPEN_QUEUE if setting.load.kind == OPEN else CLOSED_QUEUE,
    ) as runner:
        cold_start_s = time.perf_counter() - began
        client, items = _client_and_items(runner, setting, options.inputs)
        before = runner.stats()
        cpu_s = _cpu_s(before)
        assert setting.batch_size is not None
        in_flight = len(before["workers"]) * setting.batch_size * OFFLINE_BATCHES
        # LoadGen measures for as long as it was told: both are to last equally long.
        period = options.period if options.loadgen_folder is None else options.period._replace(until_steady=False)
        result = put_under_load(client, items, setting.load, in_flight, options.distribution, period)
        after = runner.stats()
        used_s, memory_bytes = _cpu_s(after) - cpu_s, _memory_bytes(after)
        loadgen_result = _ask_with_loadgen(client, items, setting, in_flight, options, result)
    completed = after["requests"]["completed"] - before["requests"]["completed"]
    return Measured(
        result,
        loadgen_result,
        {
            **_described(artifact, setting, len(after["workers"]), in_flight),
            "cold_start_s": cold_start_s,
            "padding_ratio": after["padding"],
            "fill": after["fill"],
            "host_cpu_us": used_s / completed * 1e6 if completed else None,
            "memory_bytes": memory_bytes,
        },
    )


def _client_and_items(runner: Runner, setting: Setting, inputs: Sequence[Input]) -> Tuple[Client[Any], Sequence[Any]]:
    """Who asks, and what: the inputs as text, or full rows of their tokens."""
    if setting.text:
        return _Texts(runner), inputs
    assert setting.sequence_length is not None
    return _Tokens(runner), full_rows(runner.task, runner.tokenizer, inputs, setting.sequence_length)


def put_under_load(
    client: Client[Item], items: Sequence[Item], load: LoadSpec, in_flight: int, distribution: str, period: Period
) -> LoadResult:
    """Ask as ``load`` says; ``in_flight`` is how many requests keep every batch full."""
    if load.kind == OPEN:
        assert load.number is not None
        return open_loop(client, items, rate_per_s=load.number, distribution=distribution, period=period)
    clients = in_flight if load.kind == OFFLINE else int(load.number or 1)
    least = LEAST_BATCHES * min(clients, in_flight // OFFLINE_BATCHES)
    return closed_loop(client, items, concurrency=clients, period=period._replace(least_answers=least))


def _ask_with_loadgen(
    client: Client[Item],
    items: Sequence[Item],
    setting: Setting,
    in_flight: int,
    options: MeasureOptions,
    ours: LoadResult,
) -> Optional[LoadGenResult]:
    if options.loadgen_folder is None or not ours.throughput_per_s:
        return None
    kind, rate = setting.load
    scenario = {CLOSED: SINGLE_STREAM, OFFLINE: LOADGEN_OFFLINE, OPEN: SERVER}[kind]
    name = f"{scenario}-{setting.variant}-w{setting.workers or 'auto'}-t{setting.threads or 'auto'}"
    name += f"-b{setting.batch_size}-s{'text' if setting.text else setting.sequence_length}"
    return run_loadgen(
        client,
        items,
        scenario=scenario,
        folder=options.loadgen_folder / (name + (f"-{rate:g}" if kind == OPEN else "")),
        seconds=options.period.longest_s,
        expected_per_s=(rate if kind == OPEN else None) or ours.throughput_per_s,
        in_flight=in_flight,
    )


def _memory_bytes(stats: RunnerStatistics) -> Optional[int]:
    """Of this process and the workers together, shared pages counted once (Linux's proportional set size).

    None where that cannot be read.
    """
    total = 0
    for pid in ["self", *(worker["pid"] for worker in stats["workers"])]:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
                total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
        except OSError:
            return None
    return total


def _cpu_s(stats: RunnerStatistics) -> float:
    """CPU seconds of this process and, on Linux, of the workers."""
    total = time.process_time()
    for worker in stats["workers"]:
        if worker["pid"] is not None:
            with suppress(OSError):
                total += process_cpu_s(worker["pid"])
    return total


def _described(artifact: Artifact, setting: Setting, workers: int, in_flight: int) -> Dict[str, Any]:
    """The setting as columns of a report."""
    variant = next(variant for variant in artifact.variants if variant["name"] == setting.variant)
    kind, number = setting.load
    return {
        "model_filename": artifact.folder.name,
        "n_models": workers,
        "workers_per_model": 1,
        "threads": setting.threads,
        "pipeline_size": variant["pipeline_cores"] or 1,
        "batch_size": setting.batch_size,
        "sequence_length": setting.sequence_length,
        "input": "text" if setting.text else "tokens",
        "variant": setting.variant,
        "engine": variant["backend"],
        "mode": setting.mode if setting.pipeline_cores else None,
        "precision": variant["precision"],
        "emulated": variant["emulated"],
        "concurrency": None if kind == OPEN else in_flight if kind == OFFLINE else int(number or 1),
        "offered_qps": number if kind == OPEN else None,
    }
