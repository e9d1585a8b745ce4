"""Inside a child: loads an artifact on the cores that its variables name, and says what it is asked for.

Its arguments: load|measure ARTIFACT [IN_FLIGHT SECONDS]
"""

import time
from typing import Any, Dict, List, Protocol, Sequence, Tuple, cast

import numpy as np

from neuronbert.backends.base import Batch
from neuronbert.engine.engine import Engine
from neuronbert_tools.acceptance.processes import print_found
from neuronbert_tools.load import in_threads

WARM_UP_S = 5.0
LEAST_SECONDS_TO_WARM_UP = 20


class Bucket(Protocol):
    """A session of one shape."""

    @property
    def shape(self) -> Sequence[int]: ...

    def run(self, batch: Batch) -> object: ...


def timed(bucket: Bucket, in_flight: int, seconds: float) -> Dict[str, Any]:
    """Throughput and latency with ``in_flight`` callers that ask again as soon as they are answered."""
    rows, tokens = bucket.shape[:2]
    ids = np.random.default_rng(0).integers(1000, 2000, size=(rows, tokens))
    batch = Batch(ids, np.ones_like(ids), np.zeros_like(ids))
    warm = time.perf_counter() + (WARM_UP_S if seconds >= LEAST_SECONDS_TO_WARM_UP else 0.0)
    counted = ask_until(bucket, batch, in_flight, warm, warm + seconds)
    if not counted:
        raise RuntimeError(f"not one inference began within {seconds:.1f} s")
    milliseconds = 1000 * np.array([finished - started for started, finished in counted])
    percentiles = {f"p{share}_ms": round(float(np.percentile(milliseconds, share)), 3) for share in (50, 90, 95, 99)}
    rate = len(counted) * rows / (max(finished for _, finished in counted) - warm)
    return {"sequences_per_s": round(rate, 3), "inferences": len(counted), **percentiles}


def ask_until(bucket: Bucket, batch: Batch, in_flight: int, warm: float, end: float) -> List[Tuple[float, float]]:
    """When each call that began between ``warm`` and ``end`` began and ended; raises what a call raised."""
    counted: List[Tuple[float, float]] = []
    failures: List[Exception] = []

    def ask() -> None:
        try:
            while time.perf_counter() < end:
                started = time.perf_counter()
                bucket.run(batch)
                finished = time.perf_counter()
                # One that began in time counts, however slow the device is; the last of them is awaited.
                if started >= warm:
                    counted.append((started, finished))
        except Exception as error:
            failures.append(error)

    in_threads([ask] * in_flight)
    if failures:
        raise failures[0]
    return counted


def main(arguments: Sequence[str]) -> None:
    """The child; what it found on stdout, among whatever libraries print there."""
    mode, artifact, *numbers = arguments
    with Engine(artifact) as engine:
        result: Dict[str, Any] = {"variants": engine.name, "concurrency": engine.session.concurrency}
        if mode == "measure":
            in_flight, seconds = numbers
            # An artifact for Neuron is loaded as one session for each shape.
            buckets: Sequence[Bucket] = cast(Any, engine.session).sessions
            result.update(timed(buckets[0], int(in_flight), float(seconds)))
    print_found(result)
