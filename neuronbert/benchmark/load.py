"""Puts a runner or a server under load with clients that ask as people would, and records what they saw.

*Closed loop*: each of so many clients asks, waits for the answer and asks again. *Open loop*: requests come at their
own times, constantly or at random, whether or not the earlier ones are answered; latency counts from the moment a
request was meant to come, so a system that stalls cannot hide it by being asked later.

measure.py chooses the load; statistics.py says when it was steady.
"""

import itertools
import threading
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Protocol, Sequence, TypeVar

import numpy as np

from neuronbert.benchmark.statistics import MeasuredWindow, steady_from
from neuronbert.errors import UsageError, above_zero, counted

DISTRIBUTIONS = ("constant", "poisson")

# Each client is a thread. So many keep every batch full on the 64 NeuronCores of the largest inf1 with batches of 16
# rows; several times as many hold up each other, and the thread that is to stop them.
MOST_CLIENTS = 4096

Item = TypeVar("Item")  # what a client is given to ask
AskedItem = TypeVar("AskedItem", contravariant=True)


class AnsweredWith(Exception):
    """An answer of a server that is none to what was asked; counted by its ``status``."""

    def __init__(self, status: int):
        super().__init__(f"answered with {status}")
        self.status = status


class Client(Protocol[AskedItem]):
    """What is asked: ``submit`` hands over an item and returns at once; the future ends with the answer or an error."""

    def submit(self, item: AskedItem) -> "Future[object]": ...


class Period(NamedTuple):
    """How long to measure: until three windows in a row were alike and ``least_answers`` came, at most ``longest_s``.

    The warm-up comes first and counts for nothing.
    """

    warm_up_s: float = 1.0
    window_s: float = 1.0
    longest_s: float = 30.0
    until_steady: bool = True  # else always longest_s
    least_answers: int = 0


class RequestSample(NamedTuple):
    """One request, in seconds since the load began."""

    intended_s: float
    done_s: float
    error: Optional[str]  # class name, or the status that a server answered with

    @property
    def latency_ms(self) -> float:
        """Milliseconds from the moment the request was meant to come."""
        return (self.done_s - self.intended_s) * 1e3


@dataclass(frozen=True)
class LoadResult:
    """What the clients saw."""

    samples: List[RequestSample]  # of the windows that count: the steady ones, or all when it never was steady
    windows: List[MeasuredWindow]  # all after the warm-up
    steady: bool
    measured_s: float
    first_window: int = 0  # index of the first that counts
    arrived_per_s: float = 0.0  # requests that were meant to come in the windows that count
    offered_per_s: Optional[float] = None  # requests; open loop only
    errors: Dict[str, int] = field(default_factory=dict)  # class name or status → how many, over the whole run

    @property
    def latencies_ms(self) -> List[float]:
        """Latencies of the answered requests in the windows that count."""
        return [sample.latency_ms for sample in self.samples if sample.error is None]

    @property
    def throughput_per_s(self) -> float:
        """Answers a second in the windows that count."""
        return len(self.latencies_ms) / self.measured_s if self.measured_s else 0.0

    @property
    def throughputs_per_s(self) -> List[float]:
        """Answers a second in each window that counts."""
        return [window.throughput_per_s for window in self.windows[self.first_window :]]


def closed_loop(
    client: Client[Item],
    items: Sequence[Item],
    *,
    concurrency: int,
    period: Period = Period(),
) -> LoadResult:
    """``concurrency`` threads that each keep one request in flight; the items are asked in turn, over and over.

    Raises UsageError without items, for a concurrency that is not above 0 or is above MOST_CLIENTS, and where this
    machine lets fewer threads start.
    """
    _require(items, concurrency=concurrency)
    refuse_crowd(concurrency, "concurrency")
    run = _Run(period)
    turn = itertools.count()  # next() of it is atomic

    def ask() -> None:
        while not run.over.is_set():
            begun = run.now()
            run.record(begun, _outcome(client, items[next(turn) % len(items)]))

    with _clients(ask, concurrency, run):
        run.watch()
    return run.result()


def refuse_crowd(clients: int, name: str) -> None:
    """Raise UsageError for more clients than MOST_CLIENTS; ``name`` is that of the option."""
    if clients > MOST_CLIENTS:
        raise UsageError(
            f"{name} is {clients:,}, and a benchmark has at most {MOST_CLIENTS:,} clients",
            hint="fewer clients, or smaller batches where they are to be kept full",
        )


@contextmanager
def _clients(ask: Callable[[], None], count: int, run: "_Run") -> Iterator[None]:
    """``count`` threads that ``ask`` during the block; none is left behind it, wherever starting them ended."""
    all_there = threading.Event()

    def begin() -> None:
        # A client that asked at once would hold up the start of the others.
        all_there.wait()
        ask()

    threads: List[threading.Thread] = []
    try:
        for number in range(count):
            threads.append(threading.Thread(target=begin, name=f"client-{number}", daemon=True))
            _start(threads[-1], number, count)
        all_there.set()
        yield
    finally:
        run.over.set()
        all_there.set()
        for thread in threads:
            if thread.is_alive():  # the last one may not have been started
                thread.join()


def _start(thread: threading.Thread, before: int, count: int) -> None:
    try:
        thread.start()
    except RuntimeError as error:
        raise UsageError(
            f"{counted(count, 'client')} are asked for, and after {before:,} of them this machine says: {error}",
            hint="fewer clients, or a higher limit of processes (ulimit -u, pids.max of the container)",
        ) from None


def open_loop(
    client: Client[Item],
    items: Sequence[Item],
    *,
    rate_per_s: float,
    distribution: str = "poisson",
    period: Period = Period(),
) -> LoadResult:
    """Requests at ``rate_per_s``, evenly spaced ("constant") or independent of one another ("poisson").

    Returns when the last one is answered. Raises UsageError without items, for a rate that is not above 0, and for an
    unknown distribution.
    """
    _require(items, rate_per_s=rate_per_s)
    if distribution not in DISTRIBUTIONS:
        raise UsageError(f"there is no distribution {distribution!r}", hint=f"one of {', '.join(DISTRIBUTIONS)}")
    run = _Run(period)
    pending = _Pending()
    sender = threading.Thread(
        target=_send,
        args=(run, client, items, _gaps_s(rate_per_s, distribution), pending),
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
    return replace(run.result(), offered_per_s=rate_per_s)


def _require(items: Sequence[object], **numbers: float) -> None:
    if not items:
        raise UsageError("there is nothing to ask", hint="--input-data FILE with at least one question")
    for name, value in numbers.items():
        above_zero(name, value)


def _gaps_s(rate_per_s: float, distribution: str) -> Iterator[float]:
    """Seconds from each request to the next, endlessly."""
    if distribution == "constant":
        return itertools.repeat(1 / rate_per_s)
    random = np.random.default_rng(0)
    return (float(gap_s) for _ in itertools.count() for gap_s in random.exponential(1 / rate_per_s, 1000))


class _Pending:
    """Counts the requests that are not answered yet, and waits until there are none."""

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


def _send(run: "_Run", client: Client[Item], items: Sequence[Item], gaps_s: Iterable[float], pending: _Pending) -> None:
    intended = run.now()
    for number, gap_s in enumerate(gaps_s):
        intended += gap_s
        # wait() returns at once when the moment has passed, so a sender that was held up catches up.
        if run.over.wait(max(0.0, intended - run.now())):
            return
        try:
            future = client.submit(items[number % len(items)])
        except Exception as error:
            run.record(intended, _name_of(error))
            continue
        pending.add(1)
        future.add_done_callback(_recorder(run, intended, pending))


def _recorder(run: "_Run", intended_s: float, pending: _Pending) -> Callable[["Future[object]"], None]:
    def record(future: "Future[object]") -> None:
        run.record(intended_s, error_of(future))
        pending.add(-1)

    return record


def _outcome(client: Client[Item], item: Item) -> Optional[str]:
    """Asks and waits; the name of the error, if there was one."""
    try:
        client.submit(item).result()
    except Exception as error:
        return _name_of(error)
    return None


def _name_of(error: BaseException) -> str:
    return str(error.status) if isinstance(error, AnsweredWith) else type(error).__name__


def error_of(future: "Future[object]") -> Optional[str]:
    """The class name or status of the error that a finished request ended with; None after an answer."""
    if future.cancelled():
        return "CancelledError"
    error = future.exception()
    return None if error is None else _name_of(error)


class _Run:
    """Records samples as they come and cuts them into windows; decides when the load is over."""

    def __init__(self, period: Period):
        if period.window_s <= 0 or period.longest_s < period.window_s:
            raise UsageError(f"a window must take some time, and no more than the whole measurement: {period}")
        self.period = period
        self.over = threading.Event()
        self._begun = time.perf_counter()
        self._samples: List[RequestSample] = []  # append() is atomic

    def now(self) -> float:
        """Seconds since the load began."""
        return time.perf_counter() - self._begun

    def record(self, intended_s: float, error: Optional[str]) -> None:
        self._samples.append(RequestSample(intended_s, self.now(), error))

    def watch(self) -> None:
        """Returns when the load is steady, or has lasted for ``longest_s``."""
        for number in range(1, self._most_windows() + 1):
            end = self.period.warm_up_s + number * self.period.window_s
            self.over.wait(max(0.0, end - self.now()))
            if self.period.until_steady and self._is_enough(self._windows(number)):
                break
        self._ended_windows = number

    def _is_enough(self, windows: List[MeasuredWindow]) -> bool:
        answers = sum(window.throughput_per_s for window in windows) * self.period.window_s
        return answers >= self.period.least_answers and steady_from(windows) is not None

    def _most_windows(self) -> int:
        return int(self.period.longest_s / self.period.window_s + 1e-9)

    def _windows(self, count: int) -> List[MeasuredWindow]:
        windows = []
        for number in range(count):
            start = self.period.warm_up_s + number * self.period.window_s
            samples = self._between(start, start + self.period.window_s)
            latencies_ms = [sample.latency_ms for sample in samples if sample.error is None]
            p95_ms = float(np.percentile(latencies_ms, 95)) if latencies_ms else 0.0
            windows.append(MeasuredWindow(len(latencies_ms) / self.period.window_s, p95_ms))
        return windows

    def _between(self, start_s: float, end_s: float) -> List[RequestSample]:
        # By completion: a request that crosses the edge of a window counts once, where it ended.
        return [sample for sample in tuple(self._samples) if start_s <= sample.done_s < end_s]

    def result(self) -> LoadResult:
        """The part of everything recorded that counts."""
        windows = self._windows(self._ended_windows)
        steady = steady_from(windows)
        first = (steady or 0) if self.period.until_steady else 0
        start = self.period.warm_up_s + first * self.period.window_s
        end = self.period.warm_up_s + len(windows) * self.period.window_s
        errors = Counter(sample.error for sample in self._samples if sample.error is not None)
        return LoadResult(
            samples=self._between(start, end),
            windows=windows,
            steady=steady is not None,
            measured_s=end - start,
            first_window=first,
            arrived_per_s=sum(start <= sample.intended_s < end for sample in self._samples) / (end - start),
            errors=dict(errors),
        )
