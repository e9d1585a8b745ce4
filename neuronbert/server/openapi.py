"""The description of all routes at /openapi.json, made of the types that bodies are decoded as. Pure."""

import re
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from neuronbert import __version__
from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.failures import KINDS
from neuronbert.server.routes import Protocol, Route

with optional_imports():
    import msgspec

_PARAMETER = re.compile(r"\{(\w+)\}")
_SCHEMAS = "#/components/schemas/{name}"


def openapi_document(
    protocols: Sequence[Protocol], bodies: Mapping[str, Sequence[Any]], needs_key: bool
) -> Dict[str, Any]:
    """OpenAPI 3.1. ``bodies``: the types of the bodies that the models say, by path, each of which may be sent."""
    routes = [(protocol, route) for protocol in protocols for route in protocol.routes]
    kinds = [kind for _, route in routes for kind in (route.body, route.answer) if kind is not None]
    kinds += [kind for several in bodies.values() for kind in several]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_SCHEMAS)
    schema_of = {id(kind): schema for kind, schema in zip(kinds, schemas)}
    paths: Dict[str, Dict[str, Any]] = {}
    for protocol, route in routes:
        of_models = [schema_of[id(kind)] for kind in bodies.get(route.path, ()) if route.method == "POST"]
        body = {"anyOf": of_models} if of_models else schema_of.get(id(route.body))
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(
            protocol, route, body, schema_of.get(id(route.answer)), needs_key
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "neuronbert", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(protocol: Protocol, route: Route, body: Any, answer: Any, needs_key: bool) -> Dict[str, Any]:
    operation: Dict[str, Any] = {
        "summary": route.summary,
        "tags": [protocol.name],
        "operationId": f"{route.method.lower()}{re.sub('[^a-zA-Z0-9]+', '_', route.path)}",
        "parameters": _parameters(route),
        "responses": {
            "200": {"description": "Answered", "content": {route.content_type: {"schema": answer or {}}}},
            **{str(status): _refusal(KINDS[status]) for status in _statuses(route)},
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if needs_key and not route.is_open:
        operation["security"] = [{"key": []}]
    return operation


def _parameters(route: Route) -> List[Dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(route.path)
    ]


def _statuses(route: Route) -> Tuple[int, ...]:
    """With which it may be refused."""
    of_any: Tuple[int, ...] = () if route.is_open else (401,)
    if _PARAMETER.search(route.path) or route.method == "POST":
        of_any = (*of_any, 404)
    if route.method == "POST":
        return (400, *of_any, *route.refusals, 413, 415, 429, 500, 503, 504)
    return (*of_any, *route.refusals, 503)


def _refusal(kind: str) -> Dict[str, Any]:
    return {"description": kind, "content": {"application/json": {"schema": {"type": "object"}}}}
