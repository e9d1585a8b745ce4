"""Loads of an HTTP server: callers that wait for their answers, and callers that come whatever happens."""

import asyncio
import math
import time
from typing import Iterable, List, NamedTuple, Optional, Sequence

from neuronbert_tools.server.client import Answer, Connections, Lost, expect_ok, run_loop

SLEEP_S = 0.001  # the least that is worth sleeping


class Rate(NamedTuple):
    """What a closed loop reached. ``client_cpu_us`` is this process's, for each request."""

    per_s: float
    client_cpu_us: float


def closed_loop(port: int, requests: Iterable[bytes], connections: int) -> Rate:
    """Ask all ``requests`` over so many connections, each one after the other; every answer must be 200."""
    return run_loop(_closed_loop(port, requests, connections, None))


def closed_loop_for(port: int, request: bytes, connections: int, seconds: float) -> Rate:
    """Ask ``request`` again and again for 1.2 times so long: what comes back in the first sixth is not counted."""

    def again() -> Iterable[bytes]:
        while True:
            yield request

    return run_loop(_closed_loop(port, again(), connections, seconds))


async def _closed_loop(port: int, requests: Iterable[bytes], connections: int, seconds: Optional[float]) -> Rate:
    pool, left, count = Connections(port), iter(requests), 0
    await pool.open(connections)
    began, cpu_s = time.perf_counter(), time.process_time()
    if seconds is not None:
        began += seconds / 5
    end = math.inf if seconds is None else began + seconds

    async def caller() -> None:
        nonlocal count
        connection = await pool.take()
        for request in left:
            expect_ok(await connection.ask(request))
            now = time.perf_counter()
            if now >= end:
                return
            if seconds is None or now >= began:
                count += 1

    await asyncio.gather(*(caller() for _ in range(connections)))
    took_s = time.perf_counter() - began if seconds is None else seconds
    pool.close()
    return Rate(count / took_s, (time.process_time() - cpu_s) / max(1, count) * 1e6)


class Arrival(NamedTuple):
    """One request of an open loop: how late it was sent, and its answer; None where the connection was lost."""

    late_s: float
    answer: Optional[Answer]


def open_loop(port: int, request: bytes, rate: float, seconds: float, connections: int) -> Sequence[Arrival]:
    """Send ``request`` ``rate`` times a second, whatever comes back, and wait for the answers of all.

    ``connections`` are open beforehand; more are made when all of them wait.
    """
    return run_loop(_open_loop(port, request, rate, seconds, connections))


async def _open_loop(port: int, request: bytes, rate: float, seconds: float, connections: int) -> Sequence[Arrival]:
    pool = Connections(port)
    await pool.open(connections)
    arrivals: List[Arrival] = []

    async def arrive(due: float) -> None:
        late_s = time.perf_counter() - due
        try:
            arrivals.append(Arrival(late_s, await pool.ask(request)))
        except (Lost, ConnectionError):
            arrivals.append(Arrival(late_s, None))

    begin, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = begin + number / rate
        wait_s = due - time.perf_counter()
        if wait_s > SLEEP_S:
            await asyncio.sleep(wait_s)
        elif number % 16 == 0:
            await asyncio.sleep(0)  # behind its time it must still read what comes back
        tasks.append(asyncio.ensure_future(arrive(due)))
    await asyncio.gather(*tasks)
    pool.close()
    return arrivals
