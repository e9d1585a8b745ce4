"""What an answered request leaves behind."""

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import Any, Callable, List

import pytest

from neuronbert.server.bodies import Unfinished
from neuronbert.server.endpoints import Endpoint
from neuronbert.server.exchange import Exchange
from neuronbert.server.failures import ClientGone, failure_body
from neuronbert.server.metrics import Metrics
from neuronbert.server.routes import Reply, Route
from neuronbert.server.waiting import fail


async def in_time(exchange: Exchange) -> Reply:
    return Reply(b"{}")


async def too_late(exchange: Exchange) -> Reply:
    exchange.timeout_s = 0.01
    await exchange.until(asyncio.get_running_loop().create_future())
    raise AssertionError("it never comes")


async def nobody_waits(exchange: Exchange) -> Reply:
    done = asyncio.get_running_loop().create_future()
    fail(done, ClientGone())
    await exchange.until(done)
    raise AssertionError("it failed")


@pytest.mark.parametrize(("handler", "statuses"), [(in_time, [200]), (too_late, [504]), (nobody_waits, [])])
def test_nothing_of_a_request_is_left_for_the_garbage_collector(
    handler: Callable[..., Any], statuses: List[int]
) -> None:
    """The server has it look seldom: what refers to itself would be kept for hours, bodies included."""
    settings = SimpleNamespace(request_timeout_s=None, access_log=False)
    clients = SimpleNamespace(identify=lambda headers, address: "local")
    metrics, unfinished = Metrics([]), Unfinished(0)  # type: ignore[arg-type]
    service: Any = SimpleNamespace(
        settings=settings, clients=clients, metrics=metrics, tracer=None, unfinished=unfinished
    )
    kept: List[weakref.ref[Exchange]] = []
    sent: List[int] = []

    async def noted(exchange: Exchange) -> Reply:
        kept.append(weakref.ref(exchange))
        reply: Reply = await handler(exchange)
        return reply

    async def receive() -> Any:
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.extend([message["status"]] if "status" in message else [])

    async def ask() -> None:
        endpoint = Endpoint(service, Route("POST", "/", noted, ""), failure_body)
        await endpoint({"headers": [], "method": "POST", "path": "/", "type": "http"}, receive, send)

    gc.collect()
    gc.disable()
    try:
        asyncio.run(ask())
        assert sent == statuses
        assert [reference() for reference in kept] == [None]
    finally:
        gc.enable()
