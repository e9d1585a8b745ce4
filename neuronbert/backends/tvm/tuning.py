"""Finds fast schedules for the functions of a program by running them, until the time is over; for compile_job.py.

MetaSchedule gives candidates (spaces.py) and keeps records; which function is measured next is decided here: the one
that the model spends most time in, as long as it gets faster.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Optional, Set

import numpy as np

from neuronbert.backends.tvm.cpu import Cpu
from neuronbert.backends.tvm.spaces import space_for
from neuronbert.hardware.libraries import optional_imports

with optional_imports("tvm"):
    import tvm
    from tvm.s_tir import meta_schedule
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

RecordsDone = Callable[[int], None]  # how many candidates have been measured

ROUND = 8  # candidates of one function that are compiled and measured together
MOST_ROUNDS = 64
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
    first: Any = None  # the candidate that is taken where nothing was measured
    best_s: Optional[float] = None
    stale: int = 0  # rounds since it last got faster
    exhausted: bool = False

    @property
    def promise(self) -> float:
        """Seconds of the model that might be saved; infinite before the first measurement."""
        if self.best_s is None:
            return float("inf")
        return self.weight * self.best_s / 2.0 ** (self.stale / PATIENCE)


class Candidate(NamedTuple):
    """A schedule of MetaSchedule's, and the library that it was compiled to."""

    measured: Any  # MeasureCandidate: schedule and arguments
    library: Any


class Tuner:
    """Measures the tasks of a program, on the runtime's threads, and keeps what it finds in two files of JSON lines."""

    def __init__(self, program: Any, cpu: Cpu, target: Any, threads: int, workloads: Path, records: Path):
        self._target = target
        self._cpu = cpu
        self._threads = threads
        self._records = meta_schedule.database.JSONDatabase(str(workloads), str(records))
        extracted = meta_schedule.relax_integration.extract_tasks(program, target)
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
        known = self._records.get_top_k(task.workload, 1)
        if known:
            task.best_s = float(min(known[0].run_secs))
        return task

    def tune(self, deadline: float, told: RecordsDone) -> None:
        """Measure until ``deadline`` (time.monotonic), or until every task's candidates are used up."""
        with ThreadPoolExecutor(self._threads) as builders:
            while time.monotonic() < deadline:
                task = max(self._tasks, key=lambda task: (not task.exhausted, task.promise))
                if task.exhausted:
                    return
                self._round(task, deadline, builders, told)

    def _round(self, task: Task, deadline: float, builders: ThreadPoolExecutor, told: RecordsDone) -> None:
        before = task.best_s
        candidates = self._next(task)
        for candidate, library in zip(candidates, builders.map(self._compiled, candidates)):
            if time.monotonic() >= deadline:
                return
            if library is not None:
                self._measure(task, Candidate(candidate, library))
                self.measured += 1
                told(self.measured)
        faster = task.best_s is not None and (before is None or task.best_s < FASTER * before)
        task.stale = 0 if faster else task.stale + 1

    def _next(self, task: Task) -> List[Any]:
        """Candidates that have not been tried; none, and the task is exhausted, where there are no more."""
        candidates = task.context.generate_measure_candidates()
        if candidates is None:
            task.exhausted = True
            return []
        new = []
        for candidate in candidates:
            trace = str(candidate.sch.trace)
            if trace not in task.seen:
                task.seen.add(trace)
                new.append(candidate)
        results = [meta_schedule.runner.RunnerResult([1.0], None) for _ in candidates]
        task.context.notify_runner_results(candidates, results)
        return new

    def _compiled(self, candidate: Any) -> Any:
        """The library of a candidate; None where TVM cannot make one of it, as of some that it samples."""
        try:
            # The weights are measured in the layout that the schedule wants, into which they are brought when compiling.
            module = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(candidate.sch.mod)
            return tvm.compile(module, target=self._target)
        except Exception:
            return None

    def _measure(self, task: Task, candidate: Candidate) -> None:
        arguments = [
            tvm.runtime.tensor(np.ones([int(size) for size in info.shape], dtype=str(info.dtype)))
            for info in candidate.measured.args_info
        ]
        seconds = _seconds(candidate.library, arguments, task.best_s)
        self._records.commit_tuning_record(
            meta_schedule.database.TuningRecord(
                candidate.measured.sch.trace, task.workload, [seconds], self._target, candidate.measured.args_info
            )
        )
        task.best_s = seconds if task.best_s is None else min(task.best_s, seconds)

    def best(self) -> Any:
        """A database with one schedule for each task: the fastest measured, else the first of its space."""
        best = meta_schedule.database.MemoryDatabase()
        for task in self._tasks:
            known = self._records.get_top_k(task.workload, 1)
            chosen, seconds = (known[0], known[0].run_secs) if known else (self._untried(task), [1.0])
            trace = chosen.trace if known else chosen.sch.trace
            workload = best.commit_workload(task.module)
            best.commit_tuning_record(
                meta_schedule.database.TuningRecord(trace, workload, seconds, self._target, chosen.args_info)
            )
        return best

    def _untried(self, task: Task) -> Any:
        return task.context.generate_measure_candidates()[0]


def _seconds(library: Any, arguments: List[Any], fastest_s: Optional[float]) -> float:
    """Seconds of one run: the fastest of some, as a neighbour on the machine can only add to them."""
    run = library.mod.time_evaluator
    once = float(run("main", tvm.cpu(), number=1, repeat=1)(*arguments).results[0])
    if fastest_s is not None and once > HOPELESS * fastest_s:
        return once
    return float(min(run("main", tvm.cpu(), number=1, repeat=REPEATS, min_repeat_ms=LEAST_MS)(*arguments).results))
