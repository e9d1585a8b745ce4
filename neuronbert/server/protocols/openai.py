"""OpenAI's API, as far as it concerns encoders: /v1/embeddings and /v1/models."""

import base64
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from neuronbert.server.caching import cached
from neuronbert.server.exchange import Exchange
from neuronbert.server.failures import Failure, HttpError
from neuronbert.server.limits import longest_row, refuse_more_rows
from neuronbert.server.models import Model
from neuronbert.server.routes import (
    Protocol,
    Reply,
    Route,
    decoder_of,
    json_reply,
    refuse_no_dimensions,
    text_of,
)
from neuronbert.tasks.http import EMBEDDINGS, Struct

FORMATS = ("float", "base64")


class EmbeddingsBody(Struct):
    """Texts, or the token ids of texts, to embed."""

    input: Union[str, List[Union[str, int, List[int]]]]
    model: str
    encoding_format: Optional[str] = None
    dimensions: Optional[int] = None
    user: Optional[str] = None


async def _embeddings(exchange: Exchange) -> Reply:
    body: EmbeddingsBody = await exchange.decoded(decoder_of(EmbeddingsBody))
    encoding = body.encoding_format or "float"
    if encoding not in FORMATS:
        raise HttpError(
            400, f"$.encoding_format: there is no {encoding!r:.40}", hint="float or base64", path="$.encoding_format"
        )
    refuse_no_dimensions(body.dimensions)
    model = exchange.service.models.offering(EMBEDDINGS, body.model)

    async def answer() -> Reply:
        arrays = await _arrays(exchange, model, body)
        shown = [_as_base64(each) if encoding == "base64" else each.tolist() for each in arrays]
        data = [{"object": "embedding", "index": number, "embedding": each} for number, each in enumerate(shown)]
        usage = {"prompt_tokens": exchange.tokens, "total_tokens": exchange.tokens}
        return json_reply({"object": "list", "model": model.name, "data": data, "usage": usage})

    asked = (model.name, encoding, body.dimensions, body.input)
    return await cached(exchange, model, "openai", asked, answer)


def _as_base64(array: np.ndarray) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


async def _arrays(exchange: Exchange, model: Model, body: EmbeddingsBody) -> Sequence[np.ndarray]:
    """The embedding of each input, of length 1 as OpenAI's are."""
    given: List[Any] = [body.input] if isinstance(body.input, str) else [*body.input]
    if not given:
        raise HttpError(400, "$.input: there is none", path="$.input")
    if all(isinstance(each, str) for each in given):
        keywords = {"normalize": True, "truncate_dim": body.dimensions}
        results = await exchange.ask(model, given, keywords, place="$.input")
        return [result["embedding"] for result in results]
    places = [f"$.input[{number}]" for number in range(len(given))]
    if all(isinstance(each, int) for each in given):
        given, places = [given], ["$.input"]  # the ids of one text
    if not all(isinstance(each, list) and each for each in given):
        raise HttpError(400, "$.input: texts and token ids cannot be mixed, nor be empty", path="$.input")
    refuse_more_rows(len(given), exchange.service.settings.max_rows_per_request)
    _refuse_long(model, given, places)
    outputs = await exchange.ask_encoded(model, *_padded(given), place="$.input")
    embeddings = outputs.sentence_embedding[:, : body.dimensions]
    return list(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12))


def _refuse_long(model: Model, given: Sequence[Sequence[int]], places: Sequence[str]) -> None:
    """HttpError for a row that the model does not take: all others would be padded to its length."""
    longest = longest_row(model)
    for row, place in zip(given, places):
        if len(row) > longest:
            raise HttpError(
                400, f"{place}: {len(row):,} token ids, and the model takes {longest:,}", hint="fewer", path=place
            )


def _padded(given: Sequence[Any]) -> Tuple[np.ndarray, np.ndarray]:
    """Ids and mask of rows of different lengths: int64 [rows, tokens]."""
    try:
        rows = [np.array(each, dtype=np.int64) for each in given]
    except OverflowError:
        raise HttpError(400, "$.input: a token id is too large", path="$.input") from None
    width = max(map(len, rows))
    ids, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return ids, mask


async def _models(exchange: Exchange) -> Reply:
    return json_reply({"object": "list", "data": [_entry(model) for model in exchange.service.models]})


async def _model(exchange: Exchange) -> Reply:
    return json_reply(_entry(exchange.service.models.named(text_of(exchange, "name"))))


def _entry(model: Model) -> Dict[str, Any]:
    return {"id": model.name, "object": "model", "created": int(model.loaded_at), "owned_by": "neuronbert"}


def failure_body(failure: Failure) -> Dict[str, Any]:
    """As OpenAI's, with the place in the body as its ``param``."""
    kind = "invalid_request_error" if failure.status < 500 else "server_error"
    return {"error": {"message": failure.message, "type": kind, "param": failure.path, "code": failure.kind}}


PROTOCOL = Protocol(
    "OpenAI",
    (
        Route("POST", "/v1/embeddings", _embeddings, "Embed texts, as OpenAI's clients ask for it", EmbeddingsBody),
        Route("GET", "/v1/models", _models, "The models, as OpenAI's clients list them"),
        Route("GET", "/v1/models/{name}", _model, "One of them"),
    ),
    failure_body,
)
