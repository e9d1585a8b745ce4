"""Clients that send a byte a second, each over a connection that it opens again whenever the server has ended it."""

import asyncio
import random
import resource
import threading
from collections import Counter
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional, Set

from neuronbert.errors import UsageError
from neuronbert_tools.server.client import run_loop
from neuronbert_tools.server.verdict import said_in

BYTE_S = 1.0
OPEN_S = 30.0  # in which all of them are open, or some never will be
OWN_FILES = 256  # that this process has open beside them
CLOSED, REFUSED = "closed without a word", "not let in"


def allow_connections(count: int) -> None:
    """Let this process have so many; UsageError where the system does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + OWN_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UsageError(
            f"{count} slow connections need {needed} open files, and this process may have {hard}",
            hint=f"--slow {max(1, hard - OWN_FILES)}, or a higher ulimit -Hn",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class SlowClients(threading.Thread):
    """So many of them, at a server at ``port``, each with ``message``, of which it never gets to the end.

    Every other one sends the head at once and drips the body. ``ended`` counts how their connections ended; ``fewest``
    is how many were open at least, from when all were.
    """

    def __init__(self, port: int, count: int, message: bytes, seed: int):
        super().__init__(name="slow clients", daemon=True)
        self.ended: Dict[str, int] = Counter()
        self.sent_bytes = 0
        self.fewest = 0
        self.opened: Set[_Slow] = set()
        self._port, self._count, self._message = port, count, message
        self._chance = random.Random(seed)
        self._are_open, self._ending = threading.Event(), threading.Event()

    def run(self) -> None:
        run_loop(self._drip())

    def await_open(self) -> None:
        """Until all are open; or OPEN_S, where the server does not let them all in."""
        self._are_open.wait(OPEN_S)

    def end(self) -> None:
        """All go away."""
        self._ending.set()
        self.join()

    async def _drip(self) -> None:
        head_bytes = self._message.index(b"\r\n\r\n") + 4
        for number in range(self._count):
            self.open_later(head_bytes * (number % 2), self._chance.uniform(0, BYTE_S))
        while not self._ending.is_set():
            await asyncio.sleep(BYTE_S / 20)
            if self._are_open.is_set():
                self.fewest = min(self.fewest, len(self.opened))
            elif len(self.opened) == self._count:
                self.fewest = self._count
                self._are_open.set()
        for connection in list(self.opened):
            connection.abort()

    # ---- in their loop

    def open_later(self, at_once: int, wait_s: float) -> None:
        """Open a connection whose first ``at_once`` bytes are not slow."""
        loop = asyncio.get_running_loop()
        loop.call_later(wait_s, lambda: loop.create_task(self._open(at_once)))

    async def _open(self, at_once: int) -> None:
        if self._ending.is_set():
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Slow(self, self._message, at_once), "127.0.0.1", self._port)
        except OSError:
            self.ended[REFUSED] += 1
            self.open_later(at_once, BYTE_S)

    def lost(self, connection: "_Slow") -> None:
        """It ended, and is opened again: not at once where it was hardly let in."""
        self.opened.discard(connection)
        if self._ending.is_set():
            return
        answers = said_in(bytes(connection.received))
        self.ended[str(answers[0].status) if answers else CLOSED] += 1
        self.open_later(connection.at_once, 0.0 if connection.sent > connection.at_once + 1 else BYTE_S)


class _Slow(asyncio.Protocol):
    """One connection."""

    def __init__(self, clients: SlowClients, message: bytes, at_once: int):
        self.at_once = self.sent = at_once
        self.received = bytearray()
        self._clients, self._message = clients, message
        self._transport: Any = None
        self._timer: Optional[asyncio.TimerHandle] = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._clients.opened.add(self)
        transport.write(self._message[: self.at_once])
        self._send_byte()

    def _send_byte(self) -> None:
        if self.sent < len(self._message) - 1:
            self._transport.write(self._message[self.sent : self.sent + 1])
            self.sent += 1
            self._clients.sent_bytes += 1
            self._timer = asyncio.get_running_loop().call_later(BYTE_S, self._send_byte)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Optional[Exception]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._clients.lost(self)

    def abort(self) -> None:
        self._transport.abort()


@contextmanager
def slow_clients(port: int, count: int, message: bytes, seed: int) -> Iterator[SlowClients]:
    """They are open, as far as they are let in, until the end of the block."""
    clients = SlowClients(port, count, message, seed)
    clients.start()
    try:
        clients.await_open()
        yield clients
    finally:
        clients.end()
