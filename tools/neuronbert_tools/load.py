"""Callers that keep something busy, and the percentiles of how long it took."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Callable, List, Sequence


def closed_loop(clients: int, seconds: float, ask: Callable[[], object]) -> List[float]:
    """Latencies in seconds of what ``clients`` threads asked, each one after the other.

    The loop lasts 1.2 times ``seconds``: what begins in the first sixth is warm-up and is not counted.
    """
    latencies: List[List[float]] = [[] for _ in range(clients)]
    begin = time.perf_counter() + seconds / 5
    end = begin + seconds

    def client(own: List[float]) -> None:
        while True:
            began = time.perf_counter()
            if began >= end:
                return
            ask()
            if began >= begin:
                own.append(time.perf_counter() - began)

    in_threads([partial(client, own) for own in latencies])
    return [latency for own in latencies for latency in own]


def in_threads(clients: Sequence[Callable[[], object]]) -> None:
    """Run every client in a thread of its own and wait for all of them; raises what the first of them raised."""
    with ThreadPoolExecutor(len(clients)) as pool:
        for done in [pool.submit(client) for client in clients]:
            done.result()


def percentile(values: Sequence[float], percent: float) -> float:
    """The percentile, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
