"""Finds fast schedules for the functions of a program by running them, until the time is over; for compile_job.py.

MetaSchedule gives candidates (spaces.py) and keeps records; which function is measured next is decided here: the one
that the model spends most time in, as long as it gets faster.
"""

import random
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, List, Optional, Set

import numpy as np

from neuronbert.backends.tvm.cpu import Cpu
from neuronbert.backends.tvm.records import KEPT, KeptRecords, seconds_of, top_records
from neuronbert.backends.tvm.spaces import space_for
from neuronbert.hardware.libraries import optional_imports

with optional_imports("tvm"):
    import tvm
    from tvm.s_tir import meta_schedule
    from tvm.s_tir.analysis import estimate_tir_flops
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

RecordsDone = Callable[[int], None]  # how many candidates have been measured

ROUND = 8  # candidates of one function that are compiled and measured together
MOST_ROUNDS = 1000  # the search wants a bound
EMPTY_ROUNDS = 3  # without a new candidate: there are hardly any left
LEAST_PROMISE = 0.002  # of the model's seconds: what a function must still promise
PATIENCE = 3  # rounds without a faster candidate, after which a function's share counts half
FASTER = 0.98  # of the seconds before: less is noise
REPEATS, LEAST_MS = 5, 2  # of a measurement: the fastest of so many, of so many milliseconds each
HOPELESS = 4  # times as long as the fastest: one run says enough
SEED = 1  # so that equal compiles try the same candidates, in the same order


@dataclass
class Task:
    """A function to be scheduled, as often as the model calls it, and what is known of it."""

    module: Any
    weight: int
    context: Any
    workload: Any
    seen: Set[str] = field(default_factory=set)  # traces
    best_s: Optional[float] = None
    stale: int = 0  # rounds since it last got faster
    empty: int = 0  # rounds since there last was a candidate that had not been tried

    @property
    def promise(self) -> float:
        """Seconds of the model that might be saved; infinite before the first measurement, 0 when nothing is left."""
        if self.empty >= EMPTY_ROUNDS or (self.best_s is None and self.stale >= PATIENCE):
            return 0.0
        if self.best_s is None:
            return float("inf")
        return float(self.weight * self.best_s / 2.0 ** (self.stale / PATIENCE))


class Tuner:
    """Measures the functions of a program on the runtime's threads; what it finds is in two files of JSON lines.

    It begins with the records of ``kept``, and keeps there what is faster, round by round: a candidate may end the
    process.
    """

    def __init__(
        self, program: Any, cpu: Cpu, target: Any, threads: int, *, workloads: Path, records: Path, kept: KeptRecords
    ):
        self._target = target
        self._cpu = cpu
        self._threads = threads
        self._kept = kept
        self._records = meta_schedule.database.JSONDatabase(str(workloads), str(records))
        extracted = meta_schedule.relax_integration.extract_tasks(program, target)
        # Where the time is short, what has most to compute is measured.
        extracted = sorted(extracted, key=lambda task: -task.weight * estimate_tir_flops(task.dispatched[0]))
        self._tasks = [self._task(each) for each in extracted]
        self.measured = self.failed = 0  # candidates

    def _task(self, extracted: Any) -> Task:
        module = extracted.dispatched[0]
        workload = self._records.commit_workload(module)
        earlier = self._kept.of(module)
        context = meta_schedule.TuneContext(
            mod=module,
            target=self._target,
            space_generator=space_for(module, self._cpu),
            search_strategy=meta_schedule.search_strategy.ReplayTrace(),
            task_name=extracted.task_name,
            num_threads=self._threads,
            rand_state=random.randrange(SEED, 1 << 31) if earlier else SEED,  # each later compile tries others
        )
        context.pre_tuning(ROUND * MOST_ROUNDS, ROUND, context.generate_design_space(), self._records, None)
        task = Task(module, int(extracted.weight), context, workload)
        for record in earlier:
            self._record(task, record.trace, seconds_of(record), record.args_info)
        return task

    def tune(self, deadline: float, told: RecordsDone) -> None:
        """Measure until ``deadline`` (time.monotonic), or until no function promises to get faster."""
        with ThreadPoolExecutor(self._threads) as builders:
            while time.monotonic() < deadline:
                task = max(self._tasks, key=lambda task: task.promise)
                whole_s = sum(each.weight * each.best_s for each in self._tasks if each.best_s is not None)
                if task.promise <= LEAST_PROMISE * whole_s:
                    break
                self._round(task, deadline, builders, told)

    def _round(self, task: Task, deadline: float, builders: ThreadPoolExecutor, told: RecordsDone) -> None:
        before = task.best_s
        candidates = self._next(task)
        libraries = list(builders.map(self._compiled, candidates))  # before any is timed: compilers take the cores
        for number, (candidate, library) in enumerate(zip(candidates, libraries)):
            # The first is measured however late it is: compiling it took longer.
            if number > 0 and time.monotonic() >= deadline:
                break
            if library is not None:
                self._measure(task, candidate, library)
                self.measured += 1
            else:
                self.failed += 1
            told(self.measured)
        faster = task.best_s is not None and (before is None or task.best_s < FASTER * before)
        task.stale = 0 if faster else task.stale + 1
        task.empty = 0 if candidates else task.empty + 1
        if task.best_s is not None and (before is None or task.best_s < before):
            self._kept.keep(task.module, top_records(self._records, task.module, KEPT))

    def _next(self, task: Task) -> List[Any]:
        """Candidates that have not been tried; none where the search has found no other for now."""
        candidates = task.context.generate_measure_candidates() or []
        new = {str(candidate.sch.trace): candidate for candidate in candidates}
        new = {trace: candidate for trace, candidate in new.items() if trace not in task.seen}
        task.seen.update(new)
        # The search only wants to know that it may go on.
        results = [meta_schedule.runner.RunnerResult([1.0], None) for _ in candidates]
        task.context.notify_runner_results(candidates, results)
        return list(new.values())

    def _compiled(self, candidate: Any) -> Any:
        """The library of a candidate; None where TVM cannot make one of it, as of some that it samples."""
        try:
            # Weights are measured in the layout that the schedule wants: they are brought into it when compiling.
            module = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(candidate.sch.mod)
            return tvm.compile(module, target=self._target)
        except (MemoryError, OSError):
            raise
        except Exception:
            traceback.print_exc()  # to the job's log
            return None

    def _measure(self, task: Task, candidate: Any, library: Any) -> None:
        arguments = [
            tvm.runtime.tensor(np.ones([int(size) for size in info.shape], dtype=str(info.dtype)))
            for info in candidate.args_info
        ]
        self._record(task, candidate.sch.trace, _seconds(library, arguments, task.best_s), candidate.args_info)

    def _record(self, task: Task, trace: Any, seconds: float, arguments: Any) -> None:
        self._records.commit_tuning_record(self._tuning_record(task.workload, trace, seconds, arguments))
        task.best_s = seconds if task.best_s is None else min(task.best_s, seconds)

    def _tuning_record(self, workload: Any, trace: Any, seconds: float, arguments: Any) -> Any:
        return meta_schedule.database.TuningRecord(trace, workload, [seconds], self._target, arguments)

    def best(self) -> Any:
        """A database with one schedule for each function: the fastest measured, else the first of its space."""
        best = meta_schedule.database.MemoryDatabase()
        for task in self._tasks:
            workload = best.commit_workload(task.module)
            measured = top_records(self._records, task.module, 1)
            if measured:
                trace, arguments = measured[0].trace, measured[0].args_info
            else:
                first = task.context.generate_measure_candidates()[0]
                trace, arguments = first.sch.trace, first.args_info
            best.commit_tuning_record(self._tuning_record(workload, trace, 1.0, arguments))
        return best


def _seconds(library: Any, arguments: List[Any], fastest_s: Optional[float]) -> float:
    """Seconds of one run: the fastest of some, as a neighbour on the machine can only add to them."""
    run = library.mod.time_evaluator
    once = float(run("main", tvm.cpu(), number=1, repeat=1)(*arguments).results[0])
    if fastest_s is not None and once > HOPELESS * fastest_s:
        return once
    return float(min(run("main", tvm.cpu(), number=1, repeat=REPEATS, min_repeat_ms=LEAST_MS)(*arguments).results))
