"""Many inputs in one request, as lines: POST /v1/bulk takes NDJSON of any length, and streams NDJSON back in order."""

from urllib.parse import parse_qs

from neuronbert.server.bulk import Bulk
from neuronbert.server.exchange import Exchange
from neuronbert.server.failures import HttpError, failure_body
from neuronbert.server.routes import Protocol, Route, Stream

NDJSON = b"application/x-ndjson"


async def _bulk(exchange: Exchange) -> Stream:
    query = parse_qs(exchange.scope["query_string"].decode("latin-1"))
    unknown = sorted(set(query) - {"model"})
    if unknown:
        raise HttpError(400, f"there is no parameter {unknown[0]!r:.60}", hint="model=NAME; options stand in each line")
    if b"content-encoding" in exchange.headers:
        raise HttpError(415, "lines are not unpacked", hint="send them as they are")
    models = exchange.service.models
    exchange.model = models.named(query["model"][-1]) if "model" in query else models.first()
    return Stream(Bulk(exchange, exchange.model).answers(), NDJSON)


PROTOCOL = Protocol(
    "Bulk",
    (
        Route(
            "POST",
            "/v1/bulk",
            _bulk,
            "Answer any number of JSON lines, behind whoever waits for one answer",
            content_type=NDJSON.decode(),
        ),
    ),
    failure_body,
)
