"""A process that asks a Runner the one question again and again: what the overhead of a server is measured above.

Its child's arguments: ARTIFACT BODY.json REQUESTS IN_FLIGHT WORKERS (0: as many as Runner takes)
"""

import json
import threading
import time
from typing import Dict, Sequence

from neuronbert import Runner

WARM_UP = 500


def main(arguments: Sequence[str]) -> None:
    """The child: requests a second and its own CPU microseconds a request, as JSON on stdout."""
    with open(arguments[1], encoding="utf-8") as file:
        asked = json.load(file)["inputs"]
    requests, in_flight, workers = map(int, arguments[2:])
    with Runner(arguments[0], workers=workers or None) as runner:
        _ask(runner, asked, WARM_UP, in_flight)
        began, cpu_s = time.perf_counter(), time.process_time()
        _ask(runner, asked, requests, in_flight)
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    print(json.dumps({"requests_per_s": requests / took_s, "cpu_us": cpu_s / requests * 1e6}))


def _ask(runner: Runner, asked: Dict[str, str], count: int, in_flight: int) -> None:
    places = threading.Semaphore(in_flight)
    for _ in range(count):
        places.acquire()
        future = runner.submit(asked["question"], asked["context"])
        future.add_done_callback(lambda _: places.release())
    for _ in range(in_flight):
        places.acquire()
    future.result()
