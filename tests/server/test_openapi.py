"""/openapi.json is made once for what is served. What it says is tested with the routes (test_protocols)."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any, List

import pytest

from neuronbert.server import application
from neuronbert.server.application import _description
from neuronbert.tasks import load_http


def model(task: str) -> Any:
    return SimpleNamespace(task=task, http=load_http(task))


def test_it_is_made_once_for_the_tasks_that_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    made: List[Any] = []
    make = application.openapi_document
    monkeypatch.setattr(application, "openapi_document", lambda *asked: made.append(asked) or make(*asked))
    service = SimpleNamespace(models=[model("question-answering")], settings=SimpleNamespace(api_key=()))
    (route,) = _description(service).routes  # type: ignore[arg-type]

    def asked() -> bytes:
        return asyncio.run(route.handler(None)).body  # type: ignore[arg-type, union-attr]

    first = asked()
    assert asked() is first and len(made) == 1
    service.models = [model("text-classification"), *service.models]
    both = asked()
    service.models.reverse()
    assert asked() is both != first and len(made) == 2


def test_what_infer_takes_is_described() -> None:
    service = SimpleNamespace(models=[model("question-answering")], settings=SimpleNamespace(api_key=()))
    (route,) = _description(service).routes  # type: ignore[arg-type]
    described = json.loads(asyncio.run(route.handler(None)).body)  # type: ignore[arg-type, union-attr]
    for version in ("", "/versions/{version}"):
        body = described["paths"][f"/v2/models/{{name}}{version}/infer"]["post"]["requestBody"]
        assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/InferBody"}
    tensor = described["components"]["schemas"]["InferInput"]
    assert tensor["required"] == ["name", "shape", "datatype"] and "data" in tensor["properties"]
