"""What Prometheus scrapes at /metrics: counted by request here, and read from each model's runner at every scrape."""

import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, DefaultDict, Deque, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple
from typing import Counter as CounterOf

from neuronbert.hardware.libraries import optional_imports
from neuronbert.runner.documents import Reading, RunnerStatistics
from neuronbert.runner.publishing import rates
from neuronbert.server.cache import ResultCache
from neuronbert.server.models import Model, Models

with optional_imports():
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

# Seconds: from one row on a fast device to a minute's patience.
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
COUNTED_AT_ONCE = 32  # inputs, in less than a millisecond
WINDOW_S = 60.0  # over which utilisation is a mean
LEAST_APART_S = 1.0  # readings in it
# The parts of a request's time, by the names of ``Request.breakdown``.
STAGES = {
    "tokenise": "tokenise_ms",
    "queue": "queue_ms",
    "batch_wait": "batch_wait_ms",
    "worker_wait": "worker_wait_ms",
    "device": "device_ms",
    "decode": "decode_ms",
}


@dataclass
class Totals:
    """Of a model's answered inputs: how many, the sums of their times, and when the last was answered (Unix time)."""

    count: int = 0
    answered_s: float = 0.0
    queue_s: float = 0.0
    device_s: float = 0.0
    last_at: float = 0.0

    def add(self, breakdown: Mapping[str, Any], at: float) -> None:
        """Add one that was answered ``at`` this Unix time."""
        self.count += 1
        self.answered_s += breakdown["total_ms"] / 1000
        self.queue_s += (breakdown["queue_ms"] + breakdown["batch_wait_ms"]) / 1000
        self.device_s += breakdown["device_ms"] / 1000
        self.last_at = at


class Latencies:
    """Times in LATENCY_BUCKETS_S. Of one thread, which makes it ten times as cheap as prometheus-client's Histogram:
    each request has seven of them.
    """

    def __init__(self) -> None:
        self._counts = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Add one."""
        self._counts[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        self._sum_s += seconds

    def add_to(self, family: "HistogramMetricFamily", labels: Sequence[str]) -> None:
        """Add them to a family as its sample with these labels."""
        bounds = [*map(str, map(float, LATENCY_BUCKETS_S)), "+Inf"]
        family.add_metric(list(labels), list(zip(bounds, accumulate(self._counts))), self._sum_s)


class Metrics:
    """The metrics of one server. Counted and read in its loop's thread.

    Requests are counted many at once: one after the other costs a fraction of one by itself in the middle of other
    work, whose code and data a processor has at hand.
    """

    def __init__(self, models: Models, cache: Optional[ResultCache[Any]] = None):
        self._requests: CounterOf[Tuple[str, str, str]] = Counter()  # by route, model and status
        self._latencies: DefaultDict[Tuple[str, str], Latencies] = defaultdict(Latencies)  # by route and model
        self._stages: DefaultDict[str, Dict[str, Latencies]] = defaultdict(_of_stages)  # by model, as in breakdowns
        self._totals: DefaultDict[str, Totals] = defaultdict(Totals)
        self._uncounted: List[Tuple[float, str, str, int, float, Sequence[Mapping[str, Any]]]] = []
        self._uncounted_inputs = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)  # type: ignore[arg-type]  # anything with collect()
        self._registry.register(_Runners(models))  # type: ignore[arg-type]
        if cache is not None:
            self._registry.register(_Cache(cache))  # type: ignore[arg-type]

    def answered(
        self, at: float, route: str, model: str, status: int, seconds: float, breakdowns: Sequence[Mapping[str, Any]]
    ) -> None:
        """Count a request that has its answer, since ``at`` (Unix time)."""
        self._uncounted.append((at, route, model, status, seconds, breakdowns))
        self._uncounted_inputs += max(1, len(breakdowns))
        if self._uncounted_inputs >= COUNTED_AT_ONCE:
            self._count()

    def _count(self) -> None:
        for at, route, model, status, seconds, breakdowns in self._uncounted:
            self._requests[route, model, str(status)] += 1
            self._latencies[route, model].add(seconds)
            for breakdown in breakdowns:
                self._totals[model].add(breakdown, at)
                for name, latencies in self._stages[model].items():
                    latencies.add(breakdown[name] / 1000)
        self._uncounted.clear()
        self._uncounted_inputs = 0

    def totals(self, model: str) -> "Totals":
        """Of the inputs that a model answered."""
        self._count()
        return self._totals[model]

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return bytes(generate_latest(self._registry))

    def describe(self) -> List[Metric]:
        """Nothing: the registry would read all of them to learn their names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """What was counted by request."""
        self._count()
        requests = CounterMetricFamily(
            "neuronbert_http_requests",
            "Requests that were answered, by route, model and status; 499: the client had gone.",
            labels=("route", "model", "status"),
        )
        for labels, count in self._requests.items():
            requests.add_metric(labels, count)
        yield requests
        yield _histogram(
            "neuronbert_http_request_seconds",
            "From a request's head to its answer.",
            ("route", "model"),
            self._latencies,
        )
        yield _histogram(
            "neuronbert_stage_seconds",
            "Where the time of an input's way through the runner went.",
            ("model", "stage"),
            {(model, stage): each[name] for model, each in self._stages.items() for stage, name in STAGES.items()},
        )


def _of_stages() -> Dict[str, Latencies]:
    """By their names in ``Request.breakdown``."""
    return {name: Latencies() for name in STAGES.values()}


def _histogram(
    name: str, help: str, labels: Sequence[str], of_labels: Mapping[Tuple[str, str], Latencies]
) -> "HistogramMetricFamily":
    family = HistogramMetricFamily(name, help, labels=labels)
    for values, latencies in of_labels.items():
        latencies.add_to(family, values)
    return family


class _Runners:
    """Reads the runners when Prometheus does."""

    def __init__(self, models: Models):
        self._models = models
        self._readings: Dict[str, Tuple[Model, Deque[Reading]]] = {}  # of what is in place under each name

    def describe(self) -> List[Metric]:
        """Nothing: there is no need to read the runners at the start."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One family after the other, each with a sample for each model."""
        read = [(model, model.runner.stats()) for model in self._models]  # once: a model may go meanwhile
        yield from _gauges(read, self._models)
        yield from _counters(read)
        yield from _of_workers(read)
        yield self._utilisation(read)

    def _utilisation(self, read: List[Tuple[Model, RunnerStatistics]]) -> Metric:
        """Of the last minute, whoever scraped meanwhile."""
        family = GaugeMetricFamily(
            "neuronbert_core_group_utilisation",
            f"Share of the last {WINDOW_S:.0f} s in which a worker held a batch, 0 to 1: since the scrape at their "
            "beginning, or the first of this model.",
            labels=("model", "worker", "cores"),
        )
        for model, stats in read:
            now: Reading = {"at": time.time(), "workers": stats["workers"]}
            of, readings = self._readings.get(model.name, (model, deque([now])))
            if of is not model:  # the same artifact loaded again is another runner, which counts from 0
                readings = deque([now])
            self._readings[model.name] = (model, readings)
            for worker in rates(_window(readings, now), now)["workers"]:
                if worker["busy"] is not None:
                    family.add_metric((model.name, str(worker["worker"]), worker["cores"]), worker["busy"])
        return family


def _window(readings: Deque[Reading], now: Reading) -> Reading:
    """The youngest of ``readings`` that is WINDOW_S old, or the oldest; ``now`` is added, once a second at most."""
    if now["at"] - readings[-1]["at"] >= LEAST_APART_S:
        readings.append(now)
    while len(readings) > 1 and readings[1]["at"] <= now["at"] - WINDOW_S:
        readings.popleft()
    return readings[0]


def _gauges(read: List[Tuple[Model, RunnerStatistics]], models: Models) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "neuronbert_model_info",
        "1; what is in place. An emulated model's figures are of no hardware.",
        labels=("model", "task", "digest", "variant", "emulated"),
    )
    ready = GaugeMetricFamily("neuronbert_model_ready", "1 if a new request would find a worker.", labels=("model",))
    queue = GaugeMetricFamily("neuronbert_queue_rows", "Rows that wait for a worker.", labels=("model",))
    room = GaugeMetricFamily("neuronbert_queue_max_rows", "Rows that may wait.", labels=("model",))
    wait = GaugeMetricFamily(
        "neuronbert_predicted_wait_seconds",
        "How long a row that comes now waits, 0 before any was measured.",
        labels=("model",),
    )
    fill = GaugeMetricFamily(
        "neuronbert_batch_fill_ratio", "Rows of the batches by their room, 0 to 1.", labels=("model",)
    )
    padding = GaugeMetricFamily(
        "neuronbert_padding_ratio", "Share of the computed tokens that are padding, 0 to 1.", labels=("model",)
    )
    for model, stats in read:
        emulated = "true" if model.runner.emulated else "false"
        info.add_metric((model.name, model.task, model.digest, model.runner.name, emulated), 1)
        ready.add_metric((model.name,), float(models.can_answer(model, stats)))
        queue.add_metric((model.name,), stats["queue"]["rows"])
        room.add_metric((model.name,), stats["queue"]["max_rows"])
        wait.add_metric((model.name,), stats["queue"]["predicted_wait_s"] or 0.0)
        fill.add_metric((model.name,), stats["fill"] or 0.0)
        padding.add_metric((model.name,), stats["padding"] or 0.0)
    yield from (info, ready, queue, room, wait, fill, padding)


def _counters(read: List[Tuple[Model, RunnerStatistics]]) -> Iterator[Metric]:
    rows = CounterMetricFamily("neuronbert_rows", "Rows that the model computed.", labels=("model",))
    outcomes = CounterMetricFamily(
        "neuronbert_inputs", "What became of the inputs that the runner was asked.", labels=("model", "outcome")
    )
    batches = CounterMetricFamily(
        "neuronbert_batches", "Batches, by the reason for which they left.", labels=("model", "reason")
    )
    for model, stats in read:
        rows.add_metric((model.name,), stats["rows"])
        for outcome, count in stats["requests"].items():
            outcomes.add_metric((model.name, outcome), count)
        for reason, count in stats["batches"].items():
            batches.add_metric((model.name, reason), count)
    yield from (rows, outcomes, batches)


def _of_workers(read: List[Tuple[Model, RunnerStatistics]]) -> Iterator[Metric]:
    labels = ("model", "worker", "cores")
    up = GaugeMetricFamily("neuronbert_worker_up", "1 if the worker is ready.", labels=labels)
    restarts = CounterMetricFamily("neuronbert_worker_restarts", "Times that it was started again.", labels=labels)
    busy = CounterMetricFamily("neuronbert_worker_busy_seconds", "While it held a batch or more.", labels=labels)
    device = CounterMetricFamily("neuronbert_worker_device_seconds", "Of its batches on the device.", labels=labels)
    for model, stats in read:
        for worker in stats["workers"]:
            values = (model.name, str(worker["worker"]), worker["cores"])
            up.add_metric(values, float(worker["state"] == "ready"))
            restarts.add_metric(values, worker["restarts"])
            busy.add_metric(values, worker["busy_s"])
            device.add_metric(values, worker["device_s"])
    yield from (up, restarts, busy, device)


class _Cache:
    """Reads the cache at every scrape."""

    def __init__(self, cache: ResultCache[Any]):
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """Its families."""
        cache = self._cache
        requests = CounterMetricFamily(
            "neuronbert_cache_requests",
            "Requests by what the cache did for them; joined: it waited for the answer to one that asked the same.",
            labels=("model", "result"),
        )
        for names, count in sorted(cache.requests.items()):
            requests.add_metric(names, count)
        entries, size_bytes = cache.local.size()
        yield requests
        yield GaugeMetricFamily("neuronbert_cache_entries", "Answers in this process's cache.", entries)
        yield GaugeMetricFamily("neuronbert_cache_bytes", "Of those, with keys and overhead.", size_bytes)
        if cache.shared is not None:
            errors = CounterMetricFamily(
                "neuronbert_cache_errors",
                "Failures of the shared cache; unverified: answers in it that nobody with the secret wrote.",
                labels=("reason",),
            )
            errors.add_metric(("unreachable",), cache.shared.unreachable)
            errors.add_metric(("unverified",), cache.shared.unverified)
            yield errors
