"""uvicorn with our application, for ``serving``: ready when the models are, and drained by a signal before it ends."""

import asyncio
import functools
import gc
import math
import signal
import socket
import sys
from concurrent.futures import Future
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any, AsyncIterator, Callable, List, Optional

from neuronbert.errors import in_words
from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.application import application_of
from neuronbert.server.caching import cache_of
from neuronbert.server.connections import connections_of
from neuronbert.server.exchange import Service
from neuronbert.server.logs import gather_lines, log
from neuronbert.server.models import Models, Told, begin
from neuronbert.server.settings import ServerSettings

with optional_imports():
    import uvicorn

BACKLOG = 2048  # connections that wait to be accepted
LOOK_S = 0.01  # how often one looks whether uvicorn has begun
LONGEST_S = 1e9  # some thirty years
GOODBYE_S = 1.0  # for a client's part of TLS' end, which one that reads nothing never sends
# New objects before they are looked through, times of that before what was left is, and times of that before the rest.
COLLECTED_AFTER = (500, 2, 1000)
MARGIN_S = 2.0  # for answers to be sent after their runner drained


def run(
    settings: ServerSettings,
    models: Models,
    loading: "Future[None]",
    listening: socket.socket,
    on_ready: Told,
    received: List[int],
) -> None:
    """Serve until a signal, or until the loading fails. ``received``: the signals so far, and those that come."""
    service = Service(settings, models, cache_of(settings))
    server: _Server

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        if service.cache is not None:
            service.cache.open()
        server.begin(loading, lambda: on_ready(url_of(settings, listening), models))
        yield
        await asyncio.wrap_future(server.drained())
        if service.cache is not None:
            await service.cache.close()
        if service.tracer is not None:  # its collector may be dead
            sending = asyncio.wrap_future(begin(service.tracer.close))
            await asyncio.wait((sending,), timeout=min(settings.drain_timeout_s + MARGIN_S, LONGEST_S))

    config = uvicorn.Config(
        application_of(service, lifespan),
        http=connections_of(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=_whole_seconds(settings.keep_alive_s),
        timeout_graceful_shutdown=_whole_seconds(settings.drain_timeout_s + MARGIN_S),
        ssl_keyfile=settings.ssl_keyfile,
        ssl_certfile=settings.ssl_certfile,
    )
    server = _Server(config, models, settings, received)
    thresholds = gc.get_threshold()
    try:
        server.run(sockets=[listening])
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def _whole_seconds(seconds: float) -> int:
    """Not 0 for half a second, and a number for infinity."""
    return math.ceil(min(seconds, LONGEST_S))


def url_of(settings: ServerSettings, listening: socket.socket) -> str:
    """Where the server is found."""
    host, port = listening.getsockname()[:2]
    scheme = "http" if settings.ssl_keyfile is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class _Server(uvicorn.Server):
    """Ends in steps: not ready any more, a grace, then no new connections, and what was accepted is finished."""

    def __init__(self, config: uvicorn.Config, models: Models, settings: ServerSettings, received: List[int]):
        super().__init__(config)
        self._handshake_timeout_s = settings.head_timeout_s
        self._allow_reload = settings.allow_reload
        self._received = received
        self._models = models
        self._grace_s = settings.grace_s
        self._drain_timeout_s = settings.drain_timeout_s
        self._drained: Optional[Future[None]] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None

    async def startup(self, sockets: Optional[List[socket.socket]] = None) -> None:
        """As uvicorn's, which gives a client a minute for TLS' handshake, and has no option for it: we listen."""
        await super().startup(sockets=[])
        if not self.started:
            return
        self.started = False
        for listening in sockets or ():
            self.servers.append(await self._listen(listening))
        self.started = True

    async def _listen(self, listening: socket.socket) -> Any:
        config: Any = self.config
        loop: Any = asyncio.get_running_loop()  # uvloop's takes what asyncio's takes since Python 3.11
        connection = functools.partial(
            config.http_protocol_class, config=config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return await loop.create_server(
            connection,
            sock=listening,
            ssl=config.ssl,
            ssl_handshake_timeout=None if config.ssl is None else min(self._handshake_timeout_s, LONGEST_S),
            ssl_shutdown_timeout=None if config.ssl is None else GOODBYE_S,
            backlog=config.backlog,
        )

    def begin(self, loading: "Future[None]", on_ready: Callable[[], None]) -> None:
        """Called in the loop, before the first connection."""
        self._loop = asyncio.get_running_loop()
        gather_lines(self._loop)
        self._models.turn_in(self._loop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup, where it is not for reloading
            self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop = self._loop
        if self._received:  # before uvicorn looked for them
            self._models.is_draining = True
            self._stop()
        loading.add_done_callback(lambda _: loop.call_soon_threadsafe(self._loaded, loading, on_ready))

    def _loaded(self, loading: "Future[None]", on_ready: Callable[[], None]) -> None:
        """Tell that the models are there, but not before anybody can connect: they may be there first."""
        assert self._loop is not None
        if loading.exception() is not None:  # which ``serve`` raises
            self._stop()
        elif not self.started:
            self._loop.call_later(LOOK_S, self._loaded, loading, on_ready)
        elif not self._models.is_draining:
            # What is there now stays. Looked through for garbage again and again it would hold up everybody for a tenth
            # of a second each time (measured: refusals of an overload with a p99 of 66 to 130 ms), and what an overload
            # keeps, connections and what waits, for 10 ms. Little is garbage that refers to itself
            # (``failures.forget_frames``): it is looked for among what is new, and seldom among all of it.
            gc.freeze()
            if sys.version_info < (3, 14):  # which looks through what is old in small parts by itself
                gc.set_threshold(*COLLECTED_AFTER)
            on_ready()

    def _on_hangup(self) -> None:
        """New artifacts where that is allowed; else the terminal has gone, and with it whoever would end the server."""
        if not self._allow_reload:
            self.handle_exit(signal.SIGTERM, None)
            return
        begin(self._reload_all)

    def _reload_all(self) -> None:
        """One after the other: what the old one of one leaves, such as NeuronCores, the next may need."""
        for name in self._models.names:
            self._reload(name)

    def _reload(self, name: str) -> None:
        try:
            model = self._models.reload(name)
        except Exception as error:  # the old one stays, and answers
            log.error("cannot put a new %s in place: %s", name, in_words(error))
        else:
            log.info("a new %s is in place", name, extra={"facts": {"digest": model.digest}})

    def handle_exit(self, sig: int, frame: Optional[FrameType]) -> None:
        """uvicorn's handler of SIGTERM and SIGINT. It may interrupt anything: the loop decides."""
        self._received.append(sig)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end_step, len(self._received))

    def _end_step(self, count: int) -> None:
        """The first signal drains, SIGTERM after a grace; a second one leaves the grace out, a third the draining.

        count: of the signals when this one came; more may have come since.
        """
        assert self._loop is not None
        self._models.is_draining = True
        if count == 1:
            grace_s = self._grace_s if self._received[0] == signal.SIGTERM else 0.0
            log.info(
                "draining", extra={"facts": {"signal": signal.Signals(self._received[0]).name, "grace_s": grace_s}}
            )
            self._loop.call_later(grace_s, self._stop)
        else:
            self._stop()
            self.force_exit = count > 2

    def _stop(self) -> None:
        """End, but not before it has begun: uvicorn would leave the application in the middle of its start."""
        assert self._loop is not None
        if self.started:
            self.should_exit = True
            self.drained()
        else:
            self._loop.call_later(LOOK_S, self._stop)

    def drained(self) -> "Future[None]":
        """Done once the runners are closed, which begins now: uvicorn waits for answers, and the runners make them."""
        if self._drained is None:
            self._drained = begin(functools.partial(self._models.close, self._drain_timeout_s))
        return self._drained
