"""Hugging Face's inference API, as InferenceClient and SageMaker's containers speak it: {"inputs", "parameters"}."""

from typing import Any, Dict

from neuronbert.errors import InputError
from neuronbert.server.caching import cached
from neuronbert.server.exchange import Exchange, placed
from neuronbert.server.failures import Failure, HttpError, as_details
from neuronbert.server.models import Model
from neuronbert.server.routes import Protocol, Reply, Route, decoder_of, json_reply, text_of

BODY_OF_MODEL = ("/", "/invocations", "/models/{name}")  # whose body is what the model's task says


async def _first(exchange: Exchange) -> Reply:
    return await _answer(exchange, exchange.service.models.first())


async def _named(exchange: Exchange) -> Reply:
    return await _answer(exchange, exchange.service.models.named(text_of(exchange, "name")))


async def _answer(exchange: Exchange, model: Model) -> Reply:
    body = await exchange.decoded(decoder_of(model.http.BODY))

    async def answer() -> Reply:
        try:
            asked = model.http.asked(body)
            if not asked.inputs:
                raise HttpError(400, "$.inputs: there are none", path="$.inputs")
            results = await exchange.ask(model, asked.inputs, asked.keywords)
            return json_reply(asked.answer(results))
        except InputError as error:
            raise placed(error, "$.inputs") from None

    return await cached(exchange, model, "hugging_face", body, answer)


def failure_body(failure: Failure) -> Dict[str, Any]:
    """As the hosted API's, with the kind and the place beside it."""
    return {"error": failure.message, **as_details(failure)}


PROTOCOL = Protocol(
    "Hugging Face",
    (
        Route("POST", "/", _first, "Ask the first model, as InferenceClient does"),
        Route("POST", "/invocations", _first, "Ask the first model, as SageMaker does"),
        Route("POST", "/models/{name}", _named, "Ask a model, as InferenceClient does"),
    ),
    failure_body,
)
