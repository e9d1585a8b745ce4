"""The routes of Hugging Face's text-embeddings-inference: /embed, /predict, /rerank, /similarity."""

from typing import Any, List, Optional, Union

from neuronbert.errors import InputError
from neuronbert.server.caching import cached
from neuronbert.server.exchange import Exchange, placed
from neuronbert.server.failures import HttpError, Places, failure_body, inputs_at
from neuronbert.server.routes import Protocol, Reply, Route, decoder_of, json_reply, refuse_no_dimensions
from neuronbert.tasks.http import EMBEDDINGS, EVERY_LABEL, LABELS, RANKING, Struct, as_list, refuse_cut


class EmbedBody(Struct):
    """Texts to embed."""

    inputs: Union[str, List[str]]
    normalize: bool = True
    truncate: Optional[bool] = None
    prompt_name: Optional[str] = None
    dimensions: Optional[int] = None


class PredictBody(Struct):
    """A text, or a pair of texts; or a list with a list for each text or pair."""

    inputs: Union[str, List[Union[str, List[str]]]]
    raw_scores: bool = False
    truncate: Optional[bool] = None


class RerankBody(Struct):
    """Texts to be ordered by how well they fit the query."""

    query: str
    texts: List[str]
    raw_scores: bool = False
    return_text: bool = False
    truncate: Optional[bool] = None


class Compared(Struct):
    """A text, and those that it is compared with."""

    source_sentence: str
    sentences: List[str]


class SimilarityParameters(Struct):
    """How texts are read."""

    truncate: Optional[bool] = None
    prompt_name: Optional[str] = None


class SimilarityBody(Struct):
    """A text, and those that it is compared with."""

    inputs: Compared
    parameters: Optional[SimilarityParameters] = None


async def _embed(exchange: Exchange) -> Reply:
    body: EmbedBody = await exchange.decoded(decoder_of(EmbedBody))
    refuse_no_dimensions(body.dimensions)
    model = exchange.service.models.offering(EMBEDDINGS)
    texts = as_list(body.inputs)
    if not texts:
        raise HttpError(400, "$.inputs: there are none", path="$.inputs")
    keywords = {"normalize": body.normalize, "prompt_name": body.prompt_name, "truncate_dim": body.dimensions}
    places = Places(inputs_at("$.inputs", body.inputs), "$", {"truncate_dim": "dimensions"})

    async def answer() -> Reply:
        results = await exchange.ask(model, texts, keywords, place=places)
        _refuse_cut(body.truncate, results, places)
        return json_reply([result["embedding"].tolist() for result in results])

    return await cached(exchange, model, "embed", body, answer)


async def _predict(exchange: Exchange) -> Reply:
    body: PredictBody = await exchange.decoded(decoder_of(PredictBody))
    model = exchange.service.models.offering(LABELS)
    is_batch = isinstance(body.inputs, list) and any(isinstance(each, list) for each in body.inputs)
    inputs = [_text_or_pair(each) for each in (body.inputs if is_batch else [body.inputs])]
    function = "none" if body.raw_scores else "default"
    places = Places(inputs_at("$.inputs", body.inputs if is_batch else None), "$")

    async def answer() -> Reply:
        results = await exchange.ask(model, inputs, {"top_k": EVERY_LABEL, "function_to_apply": function}, place=places)
        _refuse_cut(body.truncate, results, places)
        labels = [[{"score": each["score"], "label": each["label"]} for each in as_list(result)] for result in results]
        return json_reply(labels if is_batch else labels[0])

    return await cached(exchange, model, "predict", body, answer)


def _text_or_pair(given: Union[str, List[Any]]) -> Any:
    texts = as_list(given)
    if not 1 <= len(texts) <= 2 or not all(isinstance(text, str) for text in texts):
        raise HttpError(400, "$.inputs: each is a text, or a pair of two texts", path="$.inputs")
    return texts[0] if len(texts) == 1 else tuple(texts)


async def _rerank(exchange: Exchange) -> Reply:
    body: RerankBody = await exchange.decoded(decoder_of(RerankBody))
    model = exchange.service.models.offering(RANKING)
    keywords = {
        "function_to_apply": "none" if body.raw_scores else "default",
        "return_texts": body.return_text,
    }
    asked = {"query": body.query, "texts": body.texts}

    async def answer() -> Reply:
        results = await exchange.ask(model, [asked], keywords, place=_OF_RANKING)
        _refuse_cut(body.truncate, results, _OF_RANKING)
        return json_reply(
            [{name: each[name] for name in ("index", "score", "text") if name in each} for each in results[0]]
        )

    return await cached(exchange, model, "rerank", body, answer)


async def _similarity(exchange: Exchange) -> Reply:
    body: SimilarityBody = await exchange.decoded(decoder_of(SimilarityBody))
    model = exchange.service.models.offering(EMBEDDINGS)
    if not body.inputs.sentences:
        raise HttpError(400, "$.inputs.sentences: there are none", path="$.inputs.sentences")
    parameters = body.parameters or SimilarityParameters()
    keywords = {"normalize": True, "prompt_name": parameters.prompt_name}

    async def answer() -> Reply:
        texts = [body.inputs.source_sentence, *body.inputs.sentences]
        results = await exchange.ask(model, texts, keywords, place=_OF_SIMILARITY)
        _refuse_cut(parameters.truncate, results, _OF_SIMILARITY)
        source, *others = (result["embedding"] for result in results)
        return json_reply([float(source @ other) for other in others])

    return await cached(exchange, model, "similarity", body, answer)


def _ranked_place(number: Optional[int], field: Optional[str]) -> str:
    return "$.query" if field == "query" else "$.texts"


def _compared_place(number: Optional[int], field: Optional[str]) -> str:
    if number is None:
        return "$.inputs"
    return f"$.inputs.sentences[{number - 1}]" if number else "$.inputs.source_sentence"


_OF_RANKING = Places(_ranked_place, "$")
_OF_SIMILARITY = Places(_compared_place)


def _refuse_cut(truncate: Optional[bool], results: List[Any], places: Places) -> None:
    if truncate is not False:
        return
    try:
        refuse_cut(results)
    except InputError as error:
        raise placed(error, places) from None


PROTOCOL = Protocol(
    "text-embeddings-inference",
    (
        Route("POST", "/embed", _embed, "Embed texts", EmbedBody, List[List[float]]),
        Route("POST", "/predict", _predict, "Label texts, or pairs of texts", PredictBody),
        Route("POST", "/rerank", _rerank, "Order texts by how well they fit a query", RerankBody),
        Route("POST", "/similarity", _similarity, "Compare a text with others", SimilarityBody, List[float]),
    ),
    failure_body,
)
