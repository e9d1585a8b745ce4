"""Hugging Face's inference API, as InferenceClient and SageMaker's containers speak it: {"inputs", "parameters"}."""

from neuronbert.errors import InputError
from neuronbert.server.caching import cached
from neuronbert.server.exchange import Exchange, placed
from neuronbert.server.failures import HttpError, Places, failure_body, inputs_at
from neuronbert.server.models import Model
from neuronbert.server.routes import Protocol, Reply, Route, decoder_of, json_reply, text_of

BODY_OF_MODEL = ("/", "/invocations", "/models/{name}")  # whose body is what the model's task says


async def _first(exchange: Exchange) -> Reply:
    return await _answer(exchange, exchange.service.models.first())


async def _named(exchange: Exchange) -> Reply:
    return await _answer(exchange, exchange.service.models.named(text_of(exchange, "name")))


async def _answer(exchange: Exchange, model: Model) -> Reply:
    body = await exchange.decoded(decoder_of(model.http.BODY))

    places = Places(inputs_at("$.inputs", body.inputs))

    async def answer() -> Reply:
        try:
            asked = model.http.asked(body)
            if not asked.inputs:
                raise HttpError(400, "$.inputs: there are none", path="$.inputs")
            results = await exchange.ask(model, asked.inputs, asked.keywords, place=places)
            return json_reply(asked.answer(results))
        except InputError as error:
            raise placed(error, places) from None

    return await cached(exchange, model, "hugging_face", body, answer)


PROTOCOL = Protocol(
    "Hugging Face",
    (
        Route("POST", "/", _first, "Ask the first model, as InferenceClient does"),
        Route("POST", "/invocations", _first, "Ask the first model, as SageMaker does"),
        Route("POST", "/models/{name}", _named, "Ask a model, as InferenceClient does"),
    ),
    failure_body,
)
