"""The ASGI application: every protocol's routes in one router. ``serving`` runs it."""

from collections import defaultdict
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.endpoints import Endpoint
from neuronbert.server.exchange import Exchange, Service
from neuronbert.server.failures import HttpError, failure_body
from neuronbert.server.openapi import openapi_document
from neuronbert.server.protocols import PROTOCOLS
from neuronbert.server.protocols.hugging_face import BODY_OF_MODEL
from neuronbert.server.routes import Protocol, Reply, Route, json_reply

with optional_imports():
    from starlette.routing import Route as Routed
    from starlette.routing import Router


def application_of(service: Service, lifespan: Optional[Callable[[Any], Any]] = None) -> Router:
    """The router of a server; ``lifespan`` is Starlette's."""
    protocols = (*PROTOCOLS, _description(service))
    routes = [
        Routed(route.path, Endpoint(service, route, protocol.failure_body), methods=[route.method])
        for protocol in protocols
        for route in protocol.routes
    ]
    return Router(
        [*routes, *_other_methods(service, protocols)],
        redirect_slashes=False,
        default=Endpoint(service, Route("*", "unknown", _not_found, "", is_open=True), failure_body),
        lifespan=lifespan,
    )


def _description(service: Service) -> Protocol:
    """/openapi.json, which lists all of them."""

    made: Dict[Tuple[str, ...], Reply] = {}  # by the tasks of the models, on which it depends: it takes milliseconds

    async def describe(_: Exchange) -> Reply:
        of_models = {model.task: model.http.BODY for model in service.models}
        tasks = tuple(sorted(of_models))
        if tasks not in made:
            bodies = {path: tuple(of_models[task] for task in tasks) for path in BODY_OF_MODEL}
            document = openapi_document((*PROTOCOLS, protocol), bodies, bool(service.settings.api_key))
            made[tasks] = json_reply(document)
        return made[tasks]

    route = Route("GET", "/openapi.json", describe, "This description", is_open=True)
    protocol = Protocol("Description", (route,), failure_body)
    return protocol


def _other_methods(service: Service, protocols: Sequence[Protocol]) -> List[Routed]:
    """For each path what answers the methods that it has not."""
    methods: Dict[str, List[str]] = defaultdict(list)
    of_path: Dict[str, Protocol] = {}
    for protocol in protocols:
        for route in protocol.routes:
            methods[route.path].append(route.method)
            of_path.setdefault(route.path, protocol)
    return [
        Routed(path, Endpoint(service, _refusal(path, methods[path]), protocol.failure_body))
        for path, protocol in of_path.items()
    ]


def _refusal(path: str, methods: List[str]) -> Route:
    allowed = ", ".join(sorted(methods))

    async def refuse(exchange: Exchange) -> Any:
        raise HttpError(
            405,
            f"{path} has no {exchange.scope['method']}",
            hint=allowed,
            headers=((b"allow", allowed.encode()),),
        )

    return Route("*", path, refuse, "", is_open=True)


async def _not_found(exchange: Exchange) -> Any:
    raise HttpError(404, "there is no such route", hint="GET /openapi.json lists them")
