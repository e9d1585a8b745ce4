"""What operators ask: health, /info, /metrics, /openapi.json, and the page for people."""

from typing import Any, Dict

from neuronbert import __version__
from neuronbert.server.exchange import Exchange
from neuronbert.server.failures import HttpError, failure_body, retry_headers
from neuronbert.server.metrics import CONTENT_TYPE
from neuronbert.server.page import page_bytes, page_policy
from neuronbert.server.routes import Protocol, Reply, Route, json_reply

HTML = b"text/html; charset=utf-8"
LOADING_S = 1.0


async def live(exchange: Exchange) -> Reply:
    """200 as long as the process answers at all."""
    return json_reply({"live": True})


async def ready(exchange: Exchange) -> Reply:
    """200 when a new request to any model would find a worker; 503 while loading, and while draining."""
    models = exchange.service.models
    if models.is_ready():
        return json_reply({"ready": True})
    raise HttpError(503, "draining" if models.is_draining else "not ready", headers=retry_headers(LOADING_S))


async def _info(exchange: Exchange) -> Reply:
    models = [model.info() for model in exchange.service.models]
    return json_reply({"version": __version__, **_of_first(models[0] if models else None, exchange), "models": models})


def _of_first(info: Any, exchange: Exchange) -> Dict[str, Any]:
    """What text-embeddings-inference says of its one model."""
    settings = exchange.service.settings
    limits = {
        "max_client_batch_size": settings.max_rows_per_request,
        "max_rows_per_client": settings.max_rows_per_client,
        "max_body_bytes": settings.max_body_bytes,
    }
    if info is None:
        return limits
    return {
        "model_id": info["checkpoint"]["source"] or info["name"],
        "model_sha": info["digest"],
        "model_dtype": info["variants"][0]["precision"],
        "max_input_length": info["max_input_length"],
        "emulated": info["emulated"],
        **limits,
    }


async def _metrics(exchange: Exchange) -> Reply:
    return Reply(exchange.service.metrics.text(), CONTENT_TYPE)


async def _page(exchange: Exchange) -> Reply:
    return Reply(page_bytes(), HTML, headers=((b"content-security-policy", page_policy()),))


PROTOCOL = Protocol(
    "Operations",
    (
        Route("GET", "/", _page, "A page to ask the models from", is_open=True, content_type="text/html"),
        Route("GET", "/info", _info, "What is served: artifact, variant, precision, the gate's figures"),
        Route("GET", "/metrics", _metrics, "For Prometheus", content_type="text/plain"),
        Route("GET", "/health", ready, "As /v2/health/ready", is_open=True),
        Route("GET", "/ping", ready, "As /v2/health/ready, for SageMaker", is_open=True),
    ),
    failure_body,
)
