"""The steps in which a server ends, without one: signals as they come to uvicorn's loop."""

import signal
from concurrent.futures import Future
from typing import Any, Callable, List, Tuple

import pytest

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

from neuronbert.server.models import Models  # noqa: E402
from neuronbert.server.process import _Server  # noqa: E402
from neuronbert.server.settings import Placed, ServerSettings  # noqa: E402


class Loop:
    """Runs what it is told when it is told to go on."""

    def __init__(self) -> None:
        self.soon: List[Tuple[Callable[..., None], Tuple[Any, ...]]] = []
        self.later: List[float] = []

    def call_soon_threadsafe(self, function: Callable[..., None], *arguments: Any) -> None:
        self.soon.append((function, arguments))

    def call_later(self, seconds: float, function: Callable[..., None], *_: Any) -> None:
        self.later.append(seconds)

    def go_on(self) -> None:
        for function, arguments in self.soon:
            function(*arguments)
        self.soon = []


@pytest.mark.parametrize(("count", "is_forced"), [(1, False), (2, False), (3, True)])
def test_signals_that_come_before_the_loop_runs_are_each_a_step(count: int, is_forced: bool) -> None:
    models = Models([Placed("a", "a")], lambda folder: None, 0)  # type: ignore[arg-type, return-value]
    received: List[int] = []
    server = _Server(uvicorn.Config(None), models, ServerSettings(grace_s=3600.0), received)
    server._loop = loop = Loop()  # type: ignore[assignment]
    server.started = True
    for _ in range(count):
        server.handle_exit(signal.SIGTERM, None)
    assert not models.is_draining
    loop.go_on()
    assert models.is_draining and loop.later == [3600.0]
    assert server.should_exit == (count > 1) and server.force_exit == is_forced


def test_nobody_is_told_that_it_serves_before_it_listens() -> None:
    models = Models([Placed("a", "a")], lambda folder: None, 0)  # type: ignore[arg-type, return-value]
    server = _Server(uvicorn.Config(None), models, ServerSettings(), [])
    server._loop = loop = Loop()  # type: ignore[assignment]
    loading: Future[None] = Future()
    loading.set_result(None)
    told: List[bool] = []
    server._loaded(loading, lambda: told.append(True))
    assert not told and len(loop.later) == 1  # it looks again
    server.started = True
    server._loaded(loading, lambda: told.append(True))
    assert told == [True]
