"""The child of measure_simulation, on the timed emulator: one row at each load with the runner and the simulation.

python -m neuronbert_tools.measurements.simulation_row ARTIFACT ROW REQUESTS
"""

import json
import time
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from neuronbert import Runner
from neuronbert.backends.base import Batch
from neuronbert.hardware.device_model import published_work
from neuronbert.planner.candidates import DeviceService
from neuronbert.planner.queueing import poisson_arrivals, settled
from neuronbert.planner.simulation import simulate
from neuronbert_tools.emulated_rows import recorded_windows
from neuronbert_tools.encoding import full_batches
from neuronbert_tools.published_rows import Row

UTILISATIONS = (0.2, 0.4, 0.6, 0.8, 0.95)
LIGHT = 0.2  # of the capacity, at which the host's share of a latency is measured
LIGHT_REQUESTS = 300


def service_of(runner: Runner, row: Row) -> DeviceService:
    """The runner's layout with the device model's seconds, at any load."""
    work, _ = published_work(row)
    assert runner.layout is not None
    return DeviceService(work, runner.layout, runner.layout.in_flight_per_group)


def measure_row(artifact: Path, row: Row, requests: int) -> List[Dict[str, Any]]:
    """On the timed emulator: each load with the runner and with the simulation."""
    points = []
    with Runner(artifact, max_queue=100_000) as runner:
        service_at = service_of(runner, row)
        capacity_per_s = service_at.saturated.capacity_per_s
        batches = full_batches(recorded_windows(runner.tokenizer), 1, runner.tokenizer.pad_id)
        light_per_s = LIGHT * capacity_per_s
        # At random, as the simulation has them: at even distances a device is as idle or busy as they happen to meet.
        sent, light_s = ask(runner, batches, poisson_arrivals(light_per_s, LIGHT_REQUESTS, seed=0))
        beyond_s = light_s - simulated_s(service_at, light_per_s, sent)
        host_s = max(0.0, float(np.median(beyond_s[LIGHT_REQUESTS // 3 :])))  # after a warm-up
        for number, utilisation in enumerate(UTILISATIONS):
            rate_per_s = utilisation * capacity_per_s
            arrivals = poisson_arrivals(rate_per_s, requests, seed=number + 1)
            sent, real = ask(runner, batches, arrivals)
            played = simulated_s(service_at, rate_per_s, sent)
            points.append({"utilisation": utilisation, "host_ms": host_s * 1e3, **compared(real, played + host_s)})
    return points


def simulated_s(service_at: DeviceService, rate_per_s: float, sent: np.ndarray) -> np.ndarray:
    """Latencies of requests that are sent then, as the planner has them."""
    return simulate(settled(service_at, rate_per_s), sent).latencies_s


def ask(runner: Runner, batches: Sequence[Batch], arrivals: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """When each request was handed over, as near to ``arrivals`` as this machine manages, and its latency; seconds."""
    sent, done = np.zeros(len(arrivals)), np.zeros(len(arrivals))
    futures = []
    began = time.perf_counter() + 0.05
    for number, moment in enumerate(arrivals):
        time.sleep(max(0.0, began + moment - time.perf_counter()))
        sent[number] = time.perf_counter() - began
        future = runner.submit_encoded(*batches[number % len(batches)])
        future.add_done_callback(lambda _, number=number: done.__setitem__(number, time.perf_counter() - began))
        futures.append(future)
    for future in futures:
        future.result()
    time.sleep(0.05)  # callbacks of the last one
    return sent, done - sent


def compared(real_s: np.ndarray, played_s: np.ndarray) -> Dict[str, float]:
    """Percentiles in ms of both, the first tenth left out: it found an empty runner."""
    first = len(real_s) // 10
    figures = {
        f"{name}_p{percent}_ms": float(np.percentile(values[first:], percent) * 1e3)
        for name, values in (("runner", real_s), ("simulation", played_s))
        for percent in (50, 95)
    }
    return {**figures, "p95_error": figures["simulation_p95_ms"] / figures["runner_p95_ms"] - 1}


def main(arguments: Sequence[str]) -> None:
    """The child: ARTIFACT ROW REQUESTS; one JSON document on stdout."""
    print(json.dumps(measure_row(Path(arguments[0]), json.loads(arguments[1]), int(arguments[2]))))
