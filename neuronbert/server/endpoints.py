"""A route as an ASGI application: lets the client in, calls the handler, sends its answer or error, and counts it."""

import asyncio
import time
from typing import Any, Awaitable, Callable, Dict, Iterable, List, Optional

from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.bodies import Receive
from neuronbert.server.exchange import Exchange, Scope, Send, Service
from neuronbert.server.failures import ClientGone, Failure, Header, failure_of, forget_frames
from neuronbert.server.logs import RequestDone, log, log_request
from neuronbert.server.metrics import STAGES
from neuronbert.server.routes import JSON, Reply, Route, Stream

with optional_imports():
    import msgspec

CLIENT_GONE = 499  # in log and metrics, as nginx has it: nobody receives it
NO_MODEL = ""  # of routes that ask none


class Endpoint:
    """One route."""

    def __init__(self, service: Service, route: Route, failure_body: Callable[[Failure], Any]):
        self._service = service
        self._route = route
        self._failure_body = failure_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(self._service, scope, receive)
        failure: Optional[Failure] = None
        try:
            if not self._route.is_open:
                exchange.identify()
            reply = await self._route.handler(exchange)
            if isinstance(reply, Stream):
                await self._stream(exchange, reply, send)
                return
        except ClientGone as error:
            forget_frames(error)
            self._note(exchange, CLIENT_GONE, None)
            return
        except asyncio.CancelledError:  # the server ends, and its time to drain is over
            self._note(exchange, 503, None)
            return
        except Exception as error:
            failure = failure_of(error, exchange.request_id)
            if failure.is_ours:  # of others the line of the request says enough
                log.error("request %s failed", exchange.request_id, exc_info=error)
            forget_frames(error)
            reply = Reply(msgspec.json.encode(self._failure_body(failure)), JSON, failure.status, failure.headers)
        await _send(send, reply, self._headers(exchange, reply), scope["method"] == "HEAD")
        self._note(exchange, reply.status, failure)

    def _headers(self, exchange: Exchange, reply: Reply) -> List[Header]:
        headers = [
            (b"content-length", str(len(reply.body)).encode()),
            *reply.headers,
            *_common_headers(exchange, reply.content_type),
        ]
        if not exchange.is_read and b"expect" in exchange.headers:
            headers.append((b"connection", b"close"))  # nobody knows whether the body will come all the same
        if exchange.breakdowns:
            headers.append((b"server-timing", _timing(exchange).encode()))
        return headers

    async def _stream(self, exchange: Exchange, stream: Stream, send: Send) -> None:
        """Send the parts as they are made; what goes wrong after the first is the end of them."""
        headers = _common_headers(exchange, stream.content_type)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        status = 200
        try:
            async for part in stream.parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except ClientGone:
            status = CLIENT_GONE
        except Exception as error:  # the end that is missing tells the client
            status = 500
            log.error("request %s failed", exchange.request_id, exc_info=error)
        self._note(exchange, status, None)

    def _note(self, exchange: Exchange, status: int, failure: Optional[Failure]) -> None:
        at, seconds = time.time(), exchange.seconds
        model = NO_MODEL if exchange.model is None else exchange.model.name
        self._service.metrics.answered(at, self._route.path, model, status, seconds, exchange.breakdowns)
        if self._service.tracer is not None:
            self._service.tracer.answered(
                f"{self._route.method} {self._route.path}",
                seconds,
                exchange.headers,
                _span_attributes(exchange, self._route, status),
                exchange.breakdowns,
            )
        if self._service.settings.access_log:
            log_request(
                RequestDone(
                    at,
                    exchange.scope["method"],
                    exchange.scope["path"],
                    status,
                    seconds,
                    exchange.request_id,
                    exchange.client,
                    model or None,
                    exchange.rows,
                    None if failure is None else failure.message,
                )
            )


def _common_headers(exchange: Exchange, content_type: bytes) -> List[Header]:
    headers = [
        (b"content-type", content_type),
        (b"x-request-id", exchange.request_id.encode()),
        *exchange.answer_headers,
    ]
    if exchange.model is not None:
        headers.append((b"x-artifact-digest", exchange.model.digest.encode()))
        if exchange.model.runner.emulated:
            headers.append((b"x-emulated", b"true"))
    return headers


def _span_attributes(exchange: Exchange, route: Route, status: int) -> Dict[str, Any]:
    """By OpenTelemetry's names where it has them (semantic conventions for HTTP)."""
    attributes = {
        "http.request.method": route.method,
        "http.route": route.path,
        "url.path": exchange.scope["path"],
        "http.response.status_code": status,
        "neuronbert.request_id": exchange.request_id,
    }
    if exchange.model is None:
        return attributes
    of_model = {
        "neuronbert.model": exchange.model.name,
        "neuronbert.artifact_digest": exchange.model.digest,
        "neuronbert.emulated": exchange.model.runner.emulated,
        "neuronbert.rows": exchange.rows,
    }
    return {**attributes, **of_model}


def _timing(exchange: Exchange) -> str:
    """The way of the slowest input, for a browser's tools (Server-Timing, in milliseconds), and all of it."""
    slowest = max(exchange.breakdowns, key=lambda breakdown: breakdown["total_ms"])
    stages = [f"{stage};dur={slowest[name]:.3f}" for stage, name in STAGES.items()]
    return ", ".join([*stages, f"total;dur={exchange.seconds * 1000:.3f}"])


async def _send(send: Callable[[Any], Awaitable[None]], reply: Reply, headers: Iterable[Header], is_head: bool) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": b"" if is_head else reply.body})
