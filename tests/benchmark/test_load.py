"""Load generators against clients whose behaviour is known: counts, errors, latency from the intended start."""

import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from neuronbert.benchmark.load import LoadResult, Period, RequestSample, closed_loop, open_loop
from neuronbert.benchmark.statistics import MeasuredWindow
from neuronbert.errors import UsageError

SHORT = Period(warm_up_s=0.05, window_s=0.1, longest_s=0.5)


class Instant:
    """Answers at once."""

    def __init__(self):
        self.asked = []

    def submit(self, item):
        self.asked.append(item)
        future = Future()
        future.set_result(item)
        return future


class Servers:
    """So many requests at a time, each for a given time."""

    def __init__(self, workers, seconds):
        self.pool, self.seconds = ThreadPoolExecutor(workers), seconds
        self.out = self.most_out = 0
        self.lock = threading.Lock()

    def submit(self, item):
        with self.lock:
            self.out += 1
            self.most_out = max(self.most_out, self.out)
        return self.pool.submit(self._serve)

    def _serve(self):
        time.sleep(self.seconds)
        with self.lock:  # before anybody is told: a callback may come after the next request
            self.out -= 1


def test_a_closed_loop_keeps_so_many_out_and_never_more():
    client = Servers(8, 0.005)
    result = closed_loop(client, ["q"], concurrency=3, period=SHORT)
    assert client.most_out == 3 and client.out == 0
    assert all(latency >= 5 for latency in result.latencies_ms)
    # Little's law: concurrency = throughput * latency. The last term is a client's request that came before.
    mean_s, longest_s = sum(result.latencies_ms) / len(result.latencies_ms) / 1e3, max(result.latencies_ms) / 1e3
    assert result.throughput_per_s * mean_s <= 3 * (1 + longest_s / result.measured_s) + 1e-6


def test_items_come_round_in_turn():
    client = Instant()
    closed_loop(client, ["a", "b", "c"], concurrency=1, period=Period(0.0, 0.01, 0.02))
    assert client.asked == [item for item, _ in zip(itertools.cycle("abc"), client.asked)]


@pytest.mark.parametrize("distribution", ["constant", "poisson"])
def test_an_open_loop_asks_at_its_rate_whatever_the_answers_do(distribution):
    client = Servers(50, 0.02)
    result = open_loop(client, ["q"], rate_per_s=300, distribution=distribution, period=Period(0.0, 0.25, 0.5))
    intended = [sample.intended_s for sample in result.samples]
    assert result.offered_per_s == 300 and client.out == 0
    assert max(intended) <= 0.5 and len(intended) <= 0.5 * 300 * 1.4


class Stalls:
    """Answers at once but for one call, in which submit() itself hangs: what a closed loop would not notice."""

    def __init__(self, at, seconds):
        self.at, self.seconds, self.calls = at, seconds, 0

    def submit(self, item):
        self.calls += 1
        if self.calls == self.at:
            time.sleep(self.seconds)
        future = Future()
        future.set_result(None)
        return future


def test_a_stall_counts_for_every_request_that_should_have_come_meanwhile():
    result = open_loop(
        Stalls(at=20, seconds=0.2), ["q"], rate_per_s=200, distribution="constant", period=Period(0.0, 0.5, 0.5)
    )
    late = [latency for latency in result.latencies_ms if latency > 20]
    assert max(result.latencies_ms) >= 200
    assert len(late) >= 30  # 40 were due in those 200 ms; one alone was asked


def test_errors_are_counted_by_class_and_are_no_latencies():
    class Fails(Instant):
        def submit(self, item):
            if item == "refused":
                raise UsageError("full")
            future = super().submit(item)
            if item == "broken":
                future = Future()
                future.set_exception(ValueError())
            return future

    items = ["fine", "refused", "broken"]
    for result in (
        closed_loop(Fails(), items, concurrency=2, period=SHORT),
        open_loop(Fails(), items, rate_per_s=300, period=SHORT),
    ):
        assert set(result.errors) == {"UsageError", "ValueError"}
        failed = sum(sample.error is not None for sample in result.samples)
        assert failed and len(result.latencies_ms) + failed == len(result.samples)


def test_a_cancelled_request_is_an_error():
    class Cancels(Instant):
        def submit(self, item):
            future = Future()
            future.cancel()
            return future

    assert set(open_loop(Cancels(), ["q"], rate_per_s=200, period=SHORT).errors) == {"CancelledError"}


def test_the_open_loop_waits_for_what_is_still_out():
    client = Servers(1, 0.05)
    open_loop(client, ["q"], rate_per_s=50, period=Period(0.0, 0.1, 0.2))
    assert client.out == 0


def test_a_steady_load_ends_early_and_a_rising_one_says_that_it_never_was():
    steady = closed_loop(Servers(4, 0.01), ["q"], concurrency=4, period=Period(0.05, 0.2, 120.0))
    assert steady.steady and steady.measured_s < 120

    more = closed_loop(Servers(4, 0.01), ["q"], concurrency=4, period=Period(0.05, 0.2, 120.0, least_answers=500))
    assert more.steady and sum(window.throughput_per_s for window in more.windows) * 0.2 >= 500
    assert len(more.windows) >= 7  # four clients get 80 answers a window at most

    class Slower(Instant):
        def submit(self, item):
            self.asked.append(item)
            time.sleep(0.001 * 1.05 ** len(self.asked))
            future = Future()
            future.set_result(None)
            return future

    rising = closed_loop(Slower(), ["q"], concurrency=1, period=Period(0.0, 0.1, 0.6))
    assert not rising.steady and len(rising.windows) == 6 and rising.measured_s == pytest.approx(0.6)


def test_only_the_windows_that_count_give_samples_and_throughput():
    windows = [MeasuredWindow(10, 9), MeasuredWindow(100, 5), MeasuredWindow(100, 5), MeasuredWindow(100, 5)]
    result = LoadResult([RequestSample(0, 0.005, None)] * 300, windows, True, 3.0, first_window=1)
    assert result.throughput_per_s == 100 and result.throughputs_per_s == [100, 100, 100]
    assert LoadResult([], windows, False, 4.0).throughputs_per_s == [10, 100, 100, 100]


@pytest.mark.parametrize(
    "call, why",
    [(lambda: closed_loop(Instant(), [], concurrency=1), "nothing to ask"),
     (lambda: closed_loop(Instant(), ["q"], concurrency=0), "concurrency must be above 0"),
     (lambda: closed_loop(Instant(), ["q"], concurrency=4097), "concurrency is 4,097, and .* at most 4,096 clients"),
     (lambda: open_loop(Instant(), ["q"], rate_per_s=0), "rate_per_s must be above 0"),
     (lambda: open_loop(Instant(), ["q"], rate_per_s=1, distribution="bursty"), "no distribution 'bursty'"),
     (lambda: closed_loop(Instant(), ["q"], concurrency=1, period=Period(1, 2, 1)), "no more than the whole")],
)  # fmt: skip
def test_a_load_that_cannot_be_is_refused(call, why):
    with pytest.raises(UsageError, match=why):
        call()


def clients_alive():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("client-")]


@pytest.mark.parametrize(
    ("met", "raised", "words"),
    [
        (RuntimeError("can't start new thread"), UsageError, "9 clients .* after 5 of them .* can't start new thread"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
)
def test_a_start_of_clients_that_ends_early_leaves_none_and_asks_nothing(monkeypatch, met, raised, words):
    start, started = threading.Thread.start, []

    def start_five(thread):
        if len(started) == 5:
            raise met
        started.append(thread)
        start(thread)

    client = Instant()
    monkeypatch.setattr(threading.Thread, "start", start_five)
    with pytest.raises(raised, match=words):
        closed_loop(client, ["q"], concurrency=9, period=SHORT)
    assert (len(started), clients_alive(), client.asked) == (5, [], [])
