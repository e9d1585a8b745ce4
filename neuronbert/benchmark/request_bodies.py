"""What an input of a task is in the words of each protocol of a server: paths and bodies, made before anything is sent.

server_target.py has them made, connections.py sends them. Pure; it knows no task, only the keys of its lines.
"""

import json
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence
from urllib.parse import quote

from neuronbert.errors import InputError, UsageError, shown_value
from neuronbert.tasks.base import Input, LineForm, Task
from neuronbert.tasks.offers import EMBEDDINGS, LABELS, RANKING

# How many of the texts behind it a text is a query for, where a protocol only ranks and the inputs are single texts.
RANKED_TEXTS = 4

Record = Mapping[str, Any]  # the keys of a line, each with a text or a list of texts


class HttpRequest(NamedTuple):
    """What is posted to a path below the server's URL."""

    path: str
    body: bytes


class Addressee(NamedTuple):
    """Who is asked: a model's name, None where the server has one without; and its task's OFFERS that it keeps."""

    name: Optional[str]
    offers: FrozenSet[str]


class Words(NamedTuple):
    """What a protocol can say: ``request`` makes one of a record, or None where it has no words for it."""

    request: Callable[[Record, Addressee], Optional[HttpRequest]]
    needs_name: bool = False  # of the model
    only_ranks: bool = False


def requests_of(protocol: str, task: Task, inputs: Sequence[Input], addressee: Addressee) -> List[HttpRequest]:
    """A request for each input.

    UsageError for a protocol that there is not, that needs a model's name and has none, or that has no words for one of
    the inputs.
    """
    if protocol not in PROTOCOLS:
        raise UsageError(f"there is no protocol {shown_value(protocol)}", hint=f"one of {', '.join(PROTOCOLS)}")
    words = PROTOCOLS[protocol]
    if words.needs_name and addressee.name is None:
        raise UsageError(f"{protocol} names the model that is asked", hint="--model NAME")
    records = [record_of(task.LINES, task.call_arguments(each)) for each in inputs]
    made = _requests(words, records, addressee)
    if made is None:
        fit = [name for name, other in PROTOCOLS.items() if _requests(other, records, addressee) is not None]
        called = addressee.name or "this model"
        raise UsageError(
            f"{protocol} has no words for what {called} ({task.NAME}) is asked",
            hint=f"--protocol {' or '.join(fit)}" if fit else "other --input-data",
        )
    return made


def record_of(form: LineForm, arguments: Sequence[Any]) -> Dict[str, Any]:
    """The fields of the line that gives an input with these ``call_arguments``."""
    for needed in form.needs:
        for names in (needed, (*needed, *form.may_have)):
            if [name in form.lists for name in names] == [not isinstance(each, str) for each in arguments]:
                return {name: each if isinstance(each, str) else list(each) for name, each in zip(names, arguments)}
    raise InputError(f"{shown_value(arguments)} has no form of a line", hint=form.hint)


def _requests(words: Words, records: Sequence[Record], addressee: Addressee) -> Optional[List[HttpRequest]]:
    if words.needs_name and addressee.name is None:
        return None
    if words.only_ranks and all(set(record) == {"text"} for record in records):
        records = rankings_of([record["text"] for record in records])
    made = [words.request(record, addressee) for record in records]
    return [request for request in made if request is not None] if None not in made else None


def rankings_of(texts: Sequence[str]) -> List[Record]:
    """Each text as the query for those behind it, in a circle."""
    count = len(texts)
    return [
        {"query": text, "texts": [texts[(number + step) % count] for step in range(1, RANKED_TEXTS + 1)]}
        for number, text in enumerate(texts)
    ]


def _posted(path: str, document: Any) -> HttpRequest:
    return HttpRequest(path, json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _hugging_face(record: Record, addressee: Addressee) -> Optional[HttpRequest]:
    if not all(isinstance(value, str) for value in record.values()):
        return None
    path = "/" if addressee.name is None else f"/models/{quote(addressee.name, safe='')}"
    return _posted(path, {"inputs": record["text"] if set(record) == {"text"} else record})


def _open_inference(record: Record, addressee: Addressee) -> Optional[HttpRequest]:
    return _posted(
        f"/v2/models/{quote(addressee.name or '', safe='')}/infer",
        {"inputs": [_tensor(name, value) for name, value in record.items()]},
    )


def _tensor(name: str, value: Any) -> Dict[str, Any]:
    """One text, or one list of texts, as a tensor of a batch of one."""
    data = [value] if isinstance(value, str) else list(value)
    return {"name": name, "shape": [1] if isinstance(value, str) else [1, len(data)], "datatype": "BYTES", "data": data}


def _text_embeddings(record: Record, addressee: Addressee) -> Optional[HttpRequest]:
    keys, offers = set(record), addressee.offers
    if keys == {"query", "texts"} and RANKING in offers:
        return _posted("/rerank", record)
    if keys == {"text"} and EMBEDDINGS in offers:
        return _posted("/embed", {"inputs": record["text"]})
    if keys == {"text"} and LABELS in offers:
        return _posted("/predict", {"inputs": record["text"]})
    if keys == {"text", "text_pair"} and LABELS in offers:
        return _posted("/predict", {"inputs": [[record["text"], record["text_pair"]]]})
    return None


def _openai(record: Record, addressee: Addressee) -> Optional[HttpRequest]:
    if set(record) != {"text"} or EMBEDDINGS not in addressee.offers:
        return None
    body = {"model": addressee.name, "input": record["text"], "encoding_format": "base64"}
    return _posted("/v1/embeddings", body)


def _cohere(record: Record, addressee: Addressee) -> Optional[HttpRequest]:
    if set(record) != {"query", "texts"} or RANKING not in addressee.offers:
        return None
    return _posted("/v2/rerank", {"model": addressee.name, "query": record["query"], "documents": record["texts"]})


DEFAULT_PROTOCOL = "hugging-face"
PROTOCOLS: Mapping[str, Words] = {
    DEFAULT_PROTOCOL: Words(_hugging_face),
    "open-inference": Words(_open_inference, needs_name=True),
    "text-embeddings": Words(_text_embeddings),
    "openai": Words(_openai, needs_name=True),
    "cohere": Words(_cohere, needs_name=True, only_ranks=True),
}
