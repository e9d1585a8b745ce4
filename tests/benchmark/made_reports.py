"""Made-up measurements and a report of them, for the tests of report.py and comparison.py."""

import numpy as np

from neuronbert.benchmark import report
from neuronbert.benchmark.load import LoadResult, RequestSample
from neuronbert.benchmark.statistics import MeasuredWindow
from neuronbert.hardware.prices import shipped_prices

ENVIRONMENT = {"cpu_model": "AMD EPYC", "usable_cpus": 2, "memory_bytes": 8 * 2**30}
ARTIFACT = {"name": "qa-artifact", "fingerprint": "abc"}


def load_result(rate, latency_ms, count=1200, seed=0):
    random = np.random.default_rng(seed)
    samples = [RequestSample(0.0, one / 1e3, None) for one in random.gamma(20, latency_ms / 20, count)]
    windows = [MeasuredWindow(rate * share, latency_ms * 1.4) for share in (0.99, 1.0, 1.01)]
    return LoadResult(samples, windows, True, count / rate)


def point(batch_size, concurrency, seed=0, slowdown=1.0, **setting):
    rate = 100 * min(batch_size, 6) * concurrency / (concurrency + 2) / slowdown
    given = {"instance_type": "inf1.xlarge", "engine": "neuron", "variant": "neuron",
             "mode": "data-parallel", "precision": "bf16", "emulated": False,
             "n_models": 4, "pipeline_size": 1, "batch_size": batch_size, "sequence_length": 128,
             "concurrency": concurrency, **setting}  # fmt: skip
    latency_ms = 1e3 * batch_size * concurrency / rate
    return report.measured_point(given, load_result(rate, latency_ms, seed=seed), shipped_prices().price("inf1.xlarge"))


def document(**options):
    points = [point(batch, concurrency, **options) for batch in (1, 2, 4, 6, 8) for concurrency in (1, 2, 4, 8, 16)]
    return report.document_of(
        points, command="neuronbert benchmark qa-artifact", artifact=ARTIFACT, environment=ENVIRONMENT
    )
