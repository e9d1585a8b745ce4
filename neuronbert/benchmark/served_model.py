"""What a server says of the model that is to be measured, before and after; server_target.py measures it.

Of a neuronbert server /info says it. Any other server can be measured too: then its user has to say what it is for.
"""

from typing import Any, FrozenSet, List, Mapping, NamedTuple, Optional
from urllib.parse import quote

from neuronbert.errors import InputError, UsageError
from neuronbert.hardware.remote import KEY_HINT, SAID_URL, RemoteAnswer, RemoteServer
from neuronbert.hardware.schema import ANY, FLAG, TEXT, Schema, list_of, object_of, record, whole
from neuronbert.hardware.untrusted import Refusal, document_of
from neuronbert.tasks import load_options, load_task

_MOST = 1 << 20
_VARIANT = record({"name": TEXT, "backend": TEXT, "precision": TEXT, "batch_size": whole(1, _MOST, "null")})
_MODEL = record(
    {
        "name": TEXT,
        "task": TEXT,
        "digest": TEXT,
        "emulated": FLAG,
        "checkpoint": object_of(ANY),
        "variants": list_of(_VARIANT, minItems=1),
        "workers": whole(1, _MOST),
        "offers": list_of(TEXT),
    }
)
_INFO = Schema(**record({"version": TEXT, "models": list_of(_MODEL)}))
_REFUSAL = Refusal(InputError, SAID_URL)


class ServedModel(NamedTuple):
    """A model of a server; what only a neuronbert server says is None, or empty, of another."""

    name: Optional[str]
    task: str
    offers: FrozenSet[str]  # of its task's OFFERS
    version: Optional[str] = None  # of neuronbert
    digest: Optional[str] = None  # of its artifact
    fingerprint: Optional[str] = None  # of its weights
    source: Optional[str] = None  # that it was compiled from
    emulated: bool = False
    variants: Mapping[str, Mapping[str, Any]] = {}  # by name
    workers: Optional[int] = None


def look_at(server: RemoteServer, name: Optional[str], task: Optional[str]) -> ServedModel:
    """The model called ``name`` of the server, or its only one; ``task`` is what the user says it is for.

    Raises InputError for a server that does not answer, wants a key, is not ready or has no such model, UsageError
    where a name or the task has to be said, or is another one.
    """
    _refuse_unready(server, name)
    answer = server.get("/info")
    if answer.status in (401, 403):
        raise InputError(f"{server.url} lets nobody in without a key ({answer.status})", hint=KEY_HINT)
    if answer.status == 200 and _is_ours(answer):
        return _of_info(document_of(answer.body, f"{server.url}/info", _INFO, _REFUSAL), server.url, name, task)
    if answer.status not in (200, 404, 405):
        raise InputError(f"{server.url}/info answers {answer.status} {answer.reason}", hint=SAID_URL)
    if task is None:
        raise UsageError(
            f"{server.url} does not say that it is a neuronbert server, nor what it is for",
            hint="--task TASK --protocol PROTOCOL, and --model NAME where it has names",
        )
    load_task(task)
    return ServedModel(name, task, frozenset(load_options(task).OFFERS))


def _refuse_unready(server: RemoteServer, name: Optional[str]) -> None:
    """InputError for a server that says it is not ready; one that has no such route is asked all the same."""
    route = "/v2/health/ready" if name is None else f"/v2/models/{quote(name, safe='')}/ready"
    if server.get(route).status == 503:
        raise InputError(f"{server.url} is not ready", hint=f"wait until {server.url}{route} answers 200")


def _is_ours(answer: RemoteAnswer) -> bool:
    try:
        document_of(answer.body, "/info", _INFO, _REFUSAL)
    except InputError:
        return False
    return True


def _of_info(info: Mapping[str, Any], url: str, name: Optional[str], task: Optional[str]) -> ServedModel:
    models = {model["name"]: model for model in info["models"]}
    names: List[str] = list(models)
    if not names:
        raise InputError(f"{url} has no model at the moment", hint=f"wait until {url}/v2/health/ready answers 200")
    if name is None and len(names) > 1:
        raise UsageError(f"{url} has the models {', '.join(names)}", hint=f"--model {names[0]}")
    model = models.get(names[0] if name is None else name)
    if model is None:
        raise InputError(f"{url} has no model {name!r}", hint=f"--model {' or '.join(names)}")
    if task not in (None, model["task"]):
        raise UsageError(f"{model['name']} is for {model['task']}, not {task}", hint="leave out --task")
    checkpoint = model["checkpoint"]
    return ServedModel(
        name=model["name"],
        task=model["task"],
        offers=frozenset(model["offers"]),
        version=info["version"],
        digest=model["digest"],
        fingerprint=checkpoint.get("fingerprint"),
        source=checkpoint.get("source"),
        emulated=model["emulated"],
        variants={variant["name"]: variant for variant in model["variants"]},
        workers=model["workers"],
    )
