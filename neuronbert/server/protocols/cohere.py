"""Cohere's rerank API: /v1/rerank and /v2/rerank."""

from typing import Any, Dict, List, Optional, Union

from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.caching import cached
from neuronbert.server.exchange import Exchange
from neuronbert.server.failures import Failure, HttpError, Places
from neuronbert.server.routes import Protocol, Reply, Route, decoder_of, json_reply
from neuronbert.tasks.http import RANKING, Struct

with optional_imports():
    import msgspec


class Document(Struct):
    """A text in an object of its own."""

    text: str


class CohereRerankBody(Struct):
    """Documents to be ordered by how well they fit the query."""

    query: str
    documents: List[Union[str, Document]]
    model: Optional[str] = None
    top_n: Optional[int] = None
    return_documents: Optional[bool] = None


async def _rerank(exchange: Exchange) -> Reply:
    body: CohereRerankBody = await exchange.decoded(decoder_of(CohereRerankBody))
    if body.top_n is not None and body.top_n < 1:
        raise HttpError(400, f"$.top_n: {body.top_n} documents are none", hint="1 or more", path="$.top_n")
    model = exchange.service.models.offering(RANKING, body.model)
    texts = [each if isinstance(each, str) else each.text for each in body.documents]
    asked = {"query": body.query, "texts": texts}
    keywords = {"top_k": body.top_n, "return_texts": bool(body.return_documents)}

    async def results() -> Reply:
        (ranking,) = await exchange.ask(model, [asked], keywords, place=_PLACES)
        return json_reply([_result(each) for each in ranking])

    reply = await cached(exchange, model, "cohere", (asked, keywords), results)
    answer = {
        "id": exchange.request_id,  # so the answer as a whole is nobody else's
        "results": msgspec.Raw(reply.body),
        "meta": {"api_version": {"version": "2" if exchange.scope["path"].startswith("/v2") else "1"}},
    }
    return reply._replace(body=msgspec.json.encode(answer))


def _place(number: Optional[int], field: Optional[str]) -> str:
    return "$.query" if field == "query" else "$.documents"


_PLACES = Places(_place, "$", {"top_k": "top_n", "return_texts": "return_documents"})


def _result(entry: Dict[str, Any]) -> Dict[str, Any]:
    document = {"document": {"text": entry["text"]}} if "text" in entry else {}
    return {"index": entry["index"], "relevance_score": entry["score"], **document}


def failure_body(failure: Failure) -> Dict[str, Any]:
    """As Cohere's: a message."""
    return {"message": failure.message, "path": failure.path, "error_type": failure.kind}


PROTOCOL = Protocol(
    "Cohere",
    (
        Route("POST", "/v1/rerank", _rerank, "Order documents, as Cohere's clients ask for it", CohereRerankBody),
        Route("POST", "/v2/rerank", _rerank, "The same, in the second version of its API", CohereRerankBody),
    ),
    failure_body,
)
