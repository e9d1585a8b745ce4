"""Finds fast schedules for the functions of a program by running them, until the time is over; for compile_job.py.

MetaSchedule gives candidates (spaces.py) and keeps records; which function is measured next is decided here: the one
that the model spends most time in, as long as it gets faster.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, List, Optional, Set

import numpy as np

from neuronbert.backends.tvm.cpu import Cpu
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
KEPT = 4  # records of a function that later compiles begin with
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
        if self.empty >= EMPTY_ROUNDS:
            return 0.0
        if self.best_s is None:
            return float("inf")
        return float(self.weight * self.best_s / 2.0 ** (self.stale / PATIENCE))


class Tuner:
    """Measures the functions of a program on the runtime's threads; what it finds is in two files of JSON lines.

    ``earlier`` is a folder of what was measured before, with the same CPU, threads and TVM, of whatever model.
    """

    def __init__(
        self, program: Any, cpu: Cpu, target: Any, threads: int, *, workloads: Path, records: Path, earlier: Path
    ):
        self._target = target
        self._cpu = cpu
        self._threads = threads
        self._earlier = earlier
        self._records = meta_schedule.database.JSONDatabase(str(workloads), str(records))
        extracted = meta_schedule.relax_integration.extract_tasks(program, target)
        # Where the time is short, what has most to compute is measured.
        extracted = sorted(extracted, key=lambda task: -task.weight * estimate_tir_flops(task.dispatched[0]))
        self._tasks = [self._task(each) for each in extracted]
        self.measured = 0

    def _task(self, extracted: Any) -> Task:
        module = extracted.dispatched[0]
        context = meta_schedule.TuneContext(
            mod=module,
            target=self._target,
            space_generator=space_for(module, self._cpu),
            search_strategy=meta_schedule.search_strategy.ReplayTrace(),
            task_name=extracted.task_name,
            num_threads=self._threads,
            rand_state=SEED,
        )
        context.pre_tuning(ROUND * MOST_ROUNDS, ROUND, context.generate_design_space(), self._records, None)
        task = Task(module, int(extracted.weight), context, self._records.commit_workload(module))
        for record in _top(self._measured_before(module), module, KEPT):
            self._record(task, record.trace, float(min(record.run_secs)), record.args_info)
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
        for candidate, library in zip(candidates, builders.map(self._compiled, candidates)):
            if time.monotonic() >= deadline:
                return
            if library is not None:
                self._measure(task, candidate, library)
                self.measured += 1
                told(self.measured)
        faster = task.best_s is not None and (before is None or task.best_s < FASTER * before)
        task.stale = 0 if faster else task.stale + 1
        task.empty = 0 if candidates else task.empty + 1

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
        except Exception:
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
            measured = _top(self._records, task.module, 1)
            if measured:
                trace, arguments = measured[0].trace, measured[0].args_info
            else:
                first = task.context.generate_measure_candidates()[0]
                trace, arguments = first.sch.trace, first.args_info
            best.commit_tuning_record(self._tuning_record(workload, trace, 1.0, arguments))
        return best

    def remember(self) -> None:
        """Keep the fastest schedules for later compiles."""
        for task in self._tasks:
            database = self._measured_before(task.module)
            known_s = [float(min(record.run_secs)) for record in _top(database, task.module, KEPT)]
            workload = database.commit_workload(task.module)
            for record in _top(self._records, task.module, KEPT):
                seconds = float(min(record.run_secs))
                if seconds not in known_s:
                    database.commit_tuning_record(
                        self._tuning_record(workload, record.trace, seconds, record.args_info)
                    )

    def _measured_before(self, module: Any) -> Any:
        """The database of what was measured of a function before; what cannot be read of it is begun anew."""
        name = meta_schedule.utils.shash2hex(module)
        paths = [self._earlier / f"{name}.{part}.json" for part in ("workload", "records")]
        try:
            return meta_schedule.database.JSONDatabase(*map(str, paths))
        except Exception:
            for path in paths:
                path.unlink()
            return meta_schedule.database.JSONDatabase(*map(str, paths))


def _top(database: Any, module: Any, count: int) -> List[Any]:
    """The fastest records of a function, at most ``count``."""
    if not database.has_workload(module):
        return []
    return list(database.get_top_k(database.commit_workload(module), count))


def _seconds(library: Any, arguments: List[Any], fastest_s: Optional[float]) -> float:
    """Seconds of one run: the fastest of some, as a neighbour on the machine can only add to them."""
    run = library.mod.time_evaluator
    once = float(run("main", tvm.cpu(), number=1, repeat=1)(*arguments).results[0])
    if fastest_s is not None and once > HOPELESS * fastest_s:
        return once
    return float(min(run("main", tvm.cpu(), number=1, repeat=REPEATS, min_repeat_ms=LEAST_MS)(*arguments).results))
