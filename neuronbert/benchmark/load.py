"""Load: clients that ask a runner as people would, and what they saw.

*Closed loop*: each of so many clients asks, waits for the answer and asks again. *Open loop*: requests come at their
own times, constantly or at random, whether or not the earlier ones are answered; latency counts from the moment a
request was meant to come, so a system that stalls cannot hide it by being asked later.

A client is anything with ``submit(item)`` that returns a concurrent.futures.Future.
"""

import itertools
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence

import numpy as np

from neuronbert.benchmark.statistics import Window, steady_from
from neuronbert.errors import UsageError

DISTRIBUTIONS = ("constant", "poisson")


class Period(NamedTuple):
    """How long to measure: until three windows in a row are alike and there are ``least_answers``, or ``longest_s``
    after the warm-up.
    """

    warm_up_s: float = 1.0
    window_s: float = 1.0
    longest_s: float = 30.0
    until_steady: bool = True  # else always longest_s
    least_answers: int = 0


class Sample(NamedTuple):
    """One request, in seconds since the load began."""

    intended_s: float
    done_s: float
    error: Optional[str]

    @property
    def latency_ms(self) -> float:
        return (self.done_s - self.intended_s) * 1e3


@dataclass
class LoadResult:
    """What the clients saw."""

    samples: List[Sample]  # of the windows that count: the steady ones, or all after the warm-up when never steady
    windows: List[Window]  # all after the warm-up
    steady: bool
    measured_s: float
    first_window: int = 0  # that counts
    arrived_per_s: float = 0.0  # requests that were meant to come while it was measured
    offered_per_s: Optional[float] = None  # open loop
    errors: Dict[str, int] = field(default_factory=dict)  # class name → how many, over the whole run

    @property
    def latencies_ms(self) -> List[float]:
        """Of the requests that were answered."""
        return [sample.latency_ms for sample in self.samples if sample.error is None]

    @property
    def throughput_per_s(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.measured_s if self.measured_s else 0.0

    @property
    def throughputs_per_s(self) -> List[float]:
        """Of each window that counts."""
        return [window.throughput_per_s for window in self.windows[self.first_window :]]


def closed_loop(
    client: Any, items: Sequence[Any], *, concurrency: int, period: Period = Period(), clock: Any = time.perf_counter
) -> LoadResult:
    """``concurrency`` clients, each a thread that always has one request out; the items come round in turn."""
    _require(items, concurrency=concurrency)
    run = _Run(period, clock)
    turn = itertools.count()  # next() of it is atomic

    def ask() -> None:
        while not run.over.is_set():
            begun = run.now()
            run.record(begun, _outcome(client, items[next(turn) % len(items)]))

    clients = [threading.Thread(target=ask, name=f"client-{number}", daemon=True) for number in range(concurrency)]
    for one in clients:
        one.start()
    try:
        run.watch()
    finally:
        run.over.set()
        for one in clients:
            one.join()
    return run.result()


def open_loop(
    client: Any,
    items: Sequence[Any],
    *,
    rate_per_s: float,
    distribution: str = "poisson",
    seed: int = 0,
    period: Period = Period(),
    clock: Any = time.perf_counter,
) -> LoadResult:
    """Requests at ``rate_per_s``, evenly spaced ("constant") or independent of one another ("poisson")."""
    _require(items, rate_per_s=rate_per_s)
    if distribution not in DISTRIBUTIONS:
        raise UsageError(f"there is no distribution {distribution!r}", hint=f"one of {', '.join(DISTRIBUTIONS)}")
    run = _Run(period, clock)
    pending = _Pending()
    sender = threading.Thread(
        target=_send,
        args=(run, client, items, _intervals(rate_per_s, distribution, seed), pending),
        name="sender",
        daemon=True,
    )
    sender.start()
    try:
        run.watch()
    finally:
        run.over.set()
        sender.join()
        pending.wait()
    result = run.result()
    result.offered_per_s = rate_per_s
    return result


def _require(items: Sequence[Any], **numbers: float) -> None:
    if not items:
        raise UsageError("there is nothing to ask", hint="--input-data FILE with at least one question")
    for name, value in numbers.items():
        if not value > 0:
            raise UsageError(f"{name} must be above 0, not {value!r}")


def _intervals(rate_per_s: float, distribution: str, seed: int) -> Iterator[float]:
    if distribution == "constant":
        return itertools.repeat(1 / rate_per_s)
    random = np.random.default_rng(seed)
    return (float(value) for _ in itertools.count() for value in random.exponential(1 / rate_per_s, 1000))


class _Pending:
    """How many requests are out, and a wait until none is."""

    def __init__(self) -> None:
        self._count = 0
        self._none = threading.Condition()

    def add(self, change: int) -> None:
        with self._none:
            self._count += change
            self._none.notify_all()

    def wait(self) -> None:
        with self._none:
            self._none.wait_for(lambda: self._count == 0)


def _send(run: "_Run", client: Any, items: Sequence[Any], intervals: Iterable[float], pending: _Pending) -> None:
    intended = run.now()
    for number, interval in enumerate(intervals):
        intended += interval
        # wait() returns at once when the time has passed: a sender that was held up catches up.
        if run.over.wait(max(0.0, intended - run.now())):
            return
        try:
            future = client.submit(items[number % len(items)])
        except Exception as error:
            run.record(intended, type(error).__name__)
            continue
        pending.add(1)
        future.add_done_callback(_recorder(run, intended, pending))


def _recorder(run: "_Run", intended_s: float, pending: _Pending) -> Callable[["Future[Any]"], None]:
    def record(future: "Future[Any]") -> None:
        run.record(intended_s, error_of(future))
        pending.add(-1)

    return record


def _outcome(client: Any, item: Any) -> Optional[str]:
    """Asks and waits; the class name of what went wrong, if anything did."""
    try:
        client.submit(item).result()
    except Exception as error:
        return type(error).__name__
    return None


def error_of(future: "Future[Any]") -> Optional[str]:
    """The class name of what a finished request failed with."""
    if future.cancelled():
        return "CancelledError"
    error = future.exception()
    return None if error is None else type(error).__name__


class _Run:
    """The samples as they come, cut into windows; ends when three windows are alike."""

    def __init__(self, period: Period, clock: Callable[[], float]):
        if period.window_s <= 0 or period.longest_s < period.window_s:
            raise UsageError(f"a window must take some time, and no more than the whole measurement: {period}")
        self.period = period
        self.over = threading.Event()
        self._clock = clock
        self._begun = clock()
        self._samples: List[Sample] = []  # append() is atomic

    def now(self) -> float:
        """Seconds since the load began."""
        return self._clock() - self._begun

    def record(self, intended_s: float, error: Optional[str]) -> None:
        self._samples.append(Sample(intended_s, self.now(), error))

    def watch(self) -> None:
        """Returns when the load was steady, or has lasted long enough."""
        for number in range(1, self._most_windows() + 1):
            end = self.period.warm_up_s + number * self.period.window_s
            self.over.wait(max(0.0, end - self.now()))
            if self.period.until_steady and self._is_enough(self._windows(number)):
                break
        self._ended_windows = number

    def _is_enough(self, windows: List[Window]) -> bool:
        answers = sum(window.throughput_per_s for window in windows) * self.period.window_s
        return answers >= self.period.least_answers and steady_from(windows) is not None

    def _most_windows(self) -> int:
        return int(self.period.longest_s / self.period.window_s + 1e-9)

    def _windows(self, count: int) -> List[Window]:
        found = []
        for number in range(count):
            start = self.period.warm_up_s + number * self.period.window_s
            some = [one.latency_ms for one in self._between(start, start + self.period.window_s) if one.error is None]
            p95 = float(np.percentile(some, 95)) if some else 0.0
            found.append(Window(len(some) / self.period.window_s, p95))
        return found

    def _between(self, start_s: float, end_s: float) -> List[Sample]:
        # By completion: a request that crosses the edge of a window counts where it was done, once.
        return [sample for sample in tuple(self._samples) if start_s <= sample.done_s < end_s]

    def result(self) -> LoadResult:
        windows = self._windows(self._ended_windows)
        steady = steady_from(windows)
        first = (steady or 0) if self.period.until_steady else 0
        start = self.period.warm_up_s + first * self.period.window_s
        end = self.period.warm_up_s + len(windows) * self.period.window_s
        errors: Dict[str, int] = {}
        for sample in self._samples:
            if sample.error is not None:
                errors[sample.error] = errors.get(sample.error, 0) + 1
        return LoadResult(
            samples=self._between(start, end),
            windows=windows,
            steady=steady is not None,
            measured_s=end - start,
            first_window=first,
            arrived_per_s=sum(start <= sample.intended_s < end for sample in self._samples) / (end - start),
            errors=errors,
        )
