"""The Open Inference Protocol, KServe's and Triton's "V2": health, metadata, and inference on texts or token ids.

A tensor of texts (BYTES) has the name of a key of the task's lines (tasks/base.py:LineForm), a tensor of results that
of a key of its documents; ``input_ids`` and what belongs to them are answered with the model's own outputs.
"""

import asyncio
import functools
import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, TypeVar

from neuronbert import __version__
from neuronbert.errors import UsageError
from neuronbert.server.caching import cached
from neuronbert.server.columns import tensors_of_documents
from neuronbert.server.exchange import Exchange, placed
from neuronbert.server.failures import RESTART_WAIT_S, Header, HttpError, Places, failure_body, retry_headers
from neuronbert.server.logs import log
from neuronbert.server.models import Model, Models, begin
from neuronbert.server.protocols.operations import live, ready
from neuronbert.server.routes import JSON, Protocol, Reply, Route, json_reply, optional_text_of, text_of
from neuronbert.server.tensors import (
    BYTES,
    InferBody,
    InferRequest,
    Tensor,
    read_request,
    refuse_unknown_outputs,
    write_head,
    write_outputs,
)
from neuronbert.tasks.base import Column, ColumnType, Keywords, LineForm, option_kinds, options_of

Changed = TypeVar("Changed")

EXTENSIONS = ["binary_tensor_data", "model_configuration", "statistics", "model_repository"]
VERSION = "1"  # of every model: which artifact it is, its digest says
BINARY = b"application/octet-stream"
HEADER_LENGTH = b"inference-header-content-length"
TOKEN_TENSORS = ("input_ids", "attention_mask", "token_type_ids")
# What Triton's clients may put beside the parameters of a task; of a sequence of requests we keep no state.
_NOT_THE_TASKS = frozenset(
    ("timeout", "priority", "sequence_id", "sequence_start", "sequence_end", "binary_data_output")
)
_DATATYPES: Mapping[ColumnType, str] = {
    ColumnType.TEXT: "BYTES",
    ColumnType.NUMBER: "FP64",
    ColumnType.WHOLE: "INT64",
    ColumnType.FLAG: "BOOL",
    ColumnType.OBJECTS: "BYTES",
    ColumnType.VECTOR: "FP32",
    ColumnType.VECTORS: "BYTES",
}
_NS = 1_000_000_000


# ---------------------------------------------------------------------------- metadata


async def _server(exchange: Exchange) -> Reply:
    return json_reply({"name": "neuronbert", "version": __version__, "extensions": EXTENSIONS})


async def _model_ready(exchange: Exchange) -> Reply:
    model = _asked_model(exchange)
    if not exchange.service.models.can_answer(model):
        raise HttpError(503, f"{model.name} is not ready", headers=retry_headers(RESTART_WAIT_S))
    return json_reply({"name": model.name, "ready": True})


async def _metadata(exchange: Exchange) -> Reply:
    model = _asked_model(exchange)
    return json_reply(
        {
            "name": model.name,
            "versions": [VERSION],
            "platform": f"neuronbert_{model.runner.variants[0]['backend']}",
            "inputs": [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in _inputs(model)],
            "outputs": [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in _outputs(model)],
            "parameters": {"task": model.task, "artifact_digest": model.digest, "emulated": model.runner.emulated},
        }
    )


async def _config(exchange: Exchange) -> Reply:
    """As much of Triton's model configuration as there is to say."""
    model = _asked_model(exchange)
    return json_reply(
        {
            "name": model.name,
            "platform": f"neuronbert_{model.runner.variants[0]['backend']}",
            "backend": "neuronbert",
            "max_batch_size": exchange.service.settings.max_rows_per_request,
            "input": [
                {"name": name, "data_type": f"TYPE_{_triton_type(kind)}", "dims": shape, "optional": True}
                for name, kind, shape in _inputs(model)
            ],
            "output": [
                {"name": name, "data_type": f"TYPE_{_triton_type(kind)}", "dims": shape}
                for name, kind, shape in _outputs(model)
            ],
            "instance_group": [{"name": model.name, "count": len(model.runner.places)}],
            "parameters": {"task": {"string_value": model.task}},
        }
    )


def _triton_type(datatype: str) -> str:
    return "STRING" if datatype == "BYTES" else datatype


async def _stats(exchange: Exchange) -> Reply:
    """Triton's statistics, and beside them the runner's own."""
    model = _asked_model(exchange)
    stats, totals = model.runner.stats(), exchange.service.metrics.totals(model.name)
    counts = stats["requests"]
    durations = {
        "success": totals.answered_s,
        "queue": totals.queue_s,
        "compute_infer": totals.device_s,
    }
    statistics = {
        "name": model.name,
        "version": VERSION,
        "last_inference": int(totals.last_at * 1000),
        "inference_count": stats["rows"],
        "execution_count": sum(stats["batches"].values()),
        "inference_stats": {
            **{name: {"count": totals.count, "ns": int(seconds * _NS)} for name, seconds in durations.items()},
            "fail": {"count": counts["failed"], "ns": 0},
        },
    }
    return json_reply({"model_stats": [statistics], "runner": {**stats, "workers": _told_to_all(stats["workers"])}})


def _told_to_all(workers: Sequence[Any]) -> List[Dict[str, Any]]:
    """The workers without why one cannot start, which may name what is on the server."""
    return [{**worker, "unable": worker["unable"] and "cannot start: the server's log says why"} for worker in workers]


async def _index(exchange: Exchange) -> Reply:
    models = exchange.service.models
    loaded = {model.name: model for model in models}
    return json_reply([_index_entry(name, name in loaded and models.can_answer(loaded[name])) for name in models.names])


async def _load(exchange: Exchange) -> Reply:
    """Put what is in the model's folder now in its place."""
    name = _reloadable(exchange)
    await exchange.body()
    models = exchange.service.models
    model = await _unless_it_ends(models, functools.partial(_loaded, models, name))
    return json_reply({"name": name, "version": VERSION, "digest": model.digest})


def _loaded(models: Models, name: str) -> Model:
    try:
        return models.reload(name)
    except HttpError:
        raise
    except Exception as error:
        log.error("cannot put a new %s in place", name, exc_info=error)
        raise HttpError(
            422, f"the new {name} cannot be loaded, and the old one stays: the server's log says why"
        ) from None


async def _unload(exchange: Exchange) -> Reply:
    name = _reloadable(exchange)
    await exchange.body()
    models = exchange.service.models
    await _unless_it_ends(models, functools.partial(models.unload, name))
    return json_reply({"name": name, "version": VERSION})


async def _unless_it_ends(models: Models, change: Callable[[], Changed]) -> Changed:
    """What ``change`` gives, in a thread that nobody waits for at the end; HttpError 503 where the server ends first.

    A model may take minutes to load.
    """
    changed, ending = asyncio.wrap_future(begin(change)), asyncio.wrap_future(models.closing)
    await asyncio.wait((changed, ending), return_when=asyncio.FIRST_COMPLETED)
    if changed.done():
        return changed.result()
    raise HttpError(503, "the server ends", headers=retry_headers(RESTART_WAIT_S))


def _reloadable(exchange: Exchange) -> str:
    if not exchange.service.settings.allow_reload:
        raise HttpError(403, "this server keeps the models that it has", hint="start it with --allow-reload")
    return text_of(exchange, "name")


def _index_entry(name: str, is_ready: bool) -> Dict[str, str]:
    return {"name": name, "version": VERSION, "state": "READY" if is_ready else "UNAVAILABLE", "reason": ""}


def _asked_model(exchange: Exchange) -> Model:
    model = exchange.service.models.named(text_of(exchange, "name"))
    version = optional_text_of(exchange, "version")
    if version not in (None, VERSION):
        raise HttpError(404, f"{model.name} has no version {version!r:.40}", hint=f"version {VERSION}, or none")
    return model


Specification = Tuple[str, str, List[int]]  # name, datatype, shape


def _inputs(model: Model) -> List[Specification]:
    form = model.runner.task.LINES
    texts = [(name, "BYTES", [-1, -1] if name in form.lists else [-1]) for name in _text_names(form)]
    return [*texts, *((name, "INT64", [-1, -1]) for name in TOKEN_TENSORS)]


def _text_names(form: LineForm) -> Tuple[str, ...]:
    return tuple(dict.fromkeys([*(name for names in form.needs for name in names), *form.may_have]))


def _outputs(model: Model) -> List[Specification]:
    columns = _columns(model, {})
    texts = [(name, _DATATYPES[column.type], _shape(column)) for name, column in columns.items()]
    return [*texts, *((output.name, "FP32", [-1, -1]) for output in model.runner.specs)]


def _shape(column: Column) -> List[int]:
    return [-1, column.width] if column.type == ColumnType.VECTOR else [-1]


def _columns(model: Model, keywords: Keywords) -> Mapping[str, Column]:
    task = model.runner.task
    _, decode = options_of(option_kinds(task), keywords)
    return task.columns(model.runner.tokenizer.config, decode)


# ---------------------------------------------------------------------------- inference


async def _infer(exchange: Exchange) -> Reply:
    model = _asked_model(exchange)
    body = await exchange.body()
    request = read_request(body, _header_length(exchange))
    _wait_as_asked(exchange, request)
    tensors_of = _answer_tokens if _holds_tokens(request) else _answer_texts

    async def answer() -> Reply:
        # Without model and id: the id is of one answer.
        outputs, binary = write_outputs(request, await tensors_of(exchange, model, request))
        body = b"".join([outputs, *binary])
        return Reply(body, BINARY if binary else JSON, headers=_length_header(len(outputs)))

    reply = await cached(exchange, model, "infer", _asked(model, request), answer)
    return _completed(reply, model, request)


def _completed(reply: Reply, model: Model, request: InferRequest) -> Reply:
    """The answer whose outputs ``reply`` has: their JSON as long as its header says, and binary data behind it."""
    headers = dict(reply.headers)
    end = int(headers.pop(HEADER_LENGTH))
    head = write_head(model.name, VERSION, request.id, reply.body[:end])
    length = _length_header(len(head)) if reply.content_type == BINARY else ()
    return reply._replace(body=head + reply.body[end:], headers=(*headers.items(), *length))


def _wait_as_asked(exchange: Exchange, request: InferRequest) -> None:
    place = "$.parameters.timeout"
    try:
        exchange.wait_at_most_ms(request.parameters.get("timeout"), f"{place} (microseconds)", per_ms=1000)
    except HttpError as error:
        raise HttpError(error.http_status, error.message, hint=error.hint, path=place) from None


def _asked(model: Model, request: InferRequest) -> Tuple[Any, ...]:
    """What the answer depends on, however it was sent."""
    tensors = {tensor.name: (tensor.datatype, tensor.array.shape, _data(tensor)) for tensor in request.tensors}
    return model.name, tensors, _keywords(request), request.wanted, request.binary_default


def _data(tensor: Tensor) -> Any:
    """As msgpack can encode it, without a copy."""
    return tensor.array.ravel().tolist() if tensor.datatype == BYTES else tensor.array.data


def _length_header(length_bytes: int) -> Tuple[Header, ...]:
    return ((HEADER_LENGTH, str(length_bytes).encode()),)


def _header_length(exchange: Exchange) -> Any:
    given = exchange.headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not given.isdigit() or len(given) > 12:
        raise HttpError(400, f"the header Inference-Header-Content-Length is {given.decode('latin-1')!r:.40}")
    return int(given)


def _holds_tokens(request: InferRequest) -> bool:
    return any(tensor.name == TOKEN_TENSORS[0] for tensor in request.tensors)


async def _answer_tokens(exchange: Exchange, model: Model, request: InferRequest) -> List[Tensor]:
    arrays: Dict[str, Any] = {}
    for number, tensor in enumerate(request.tensors):
        if tensor.name not in TOKEN_TENSORS:
            raise _unknown_tensor(number, tensor.name, TOKEN_TENSORS)
        arrays[tensor.name] = tensor.array
    refuse_unknown_outputs(request, [output.name for output in model.runner.specs])
    outputs = await exchange.ask_encoded(model, *(arrays.get(name) for name in TOKEN_TENSORS))
    found = outputs._asdict()
    return [Tensor(name, "FP32", array) for name, array in found.items() if array is not None]


async def _answer_texts(exchange: Exchange, model: Model, request: InferRequest) -> List[Tensor]:
    task = model.runner.task
    keywords = _keywords(request)
    inputs = _inputs_of(request, task.LINES)
    places = Places(lambda number, field: _tensor_place(request, field))
    try:  # before the runner sees them: it would take some for its own
        columns = _columns(model, keywords)
    except UsageError as error:
        raise placed(error, places) from None
    refuse_unknown_outputs(request, list(columns))
    documents = await exchange.ask(model, inputs, keywords, place=places, as_documents=True)
    return tensors_of_documents(documents, columns, {wanted.name for wanted in request.wanted})


def _tensor_place(request: InferRequest, name: Optional[str]) -> str:
    """The place of the tensor of that name; of all of them where there is none."""
    numbers = [number for number, tensor in enumerate(request.tensors) if tensor.name == name]
    return f"$.inputs[{numbers[0]}]" if numbers else "$.inputs"


def _keywords(request: InferRequest) -> Keywords:
    return {name: value for name, value in request.parameters.items() if name not in _NOT_THE_TASKS}


def _inputs_of(request: InferRequest, form: LineForm) -> List[Any]:
    """One input of the task for each place in the tensors."""
    known = _text_names(form)
    columns: Dict[str, Sequence[Any]] = {}
    for number, tensor in enumerate(request.tensors):
        if tensor.name not in known:
            raise _unknown_tensor(number, tensor.name, (*known, *TOKEN_TENSORS))
        columns[tensor.name] = _texts(tensor, number, tensor.name in form.lists)
    if not any(set(names) <= set(columns) for names in form.needs):
        needed = ", or ".join(" and ".join(names) for names in form.needs)
        raise HttpError(400, f"$.inputs: the tensors {needed} are needed", path="$.inputs")
    counts = sorted({len(column) for column in columns.values()})
    if len(counts) > 1:
        raise HttpError(400, f"$.inputs: the tensors have {counts[0]} and {counts[-1]} texts", path="$.inputs")
    records = [dict(zip(columns, values)) for values in zip(*columns.values())]
    for number, record in enumerate(records):
        fault = form.fault(record)
        if fault:
            key = _KEY.match(fault)  # a fault begins with the key of what is wrong
            place = _tensor_place(request, key and key[0])
            raise HttpError(400, f"{place}: text {number}: {fault}", path=place)
    return [form.input(record) for record in records]


_KEY = re.compile(r"\w+")


def _texts(tensor: Tensor, number: int, is_listed: bool) -> List[Any]:
    """The texts of a tensor of shape [n] or [n, 1], or the lists of one of shape [n, texts]."""
    place = f"$.inputs[{number}]"
    if tensor.datatype != "BYTES":
        raise HttpError(
            400, f"{place}.datatype: {tensor.name} is {tensor.datatype}, not BYTES", path=f"{place}.datatype"
        )
    shape = list(tensor.array.shape)
    if is_listed and len(shape) == 2:
        return [[_text(text, place) for text in row] for row in tensor.array.tolist()]
    if is_listed or not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        expected = "[n, texts]" if is_listed else "[n]"
        raise HttpError(400, f"{place}.shape: {tensor.name} has shape {shape}, not {expected}", path=f"{place}.shape")
    return [_text(text, place) for text in tensor.array.reshape(-1).tolist()]


def _text(raw: bytes, place: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HttpError(400, f"{place}.data: a text is not UTF-8 ({error.reason})", path=f"{place}.data") from None


def _unknown_tensor(number: int, name: str, known: Sequence[str]) -> HttpError:
    place = f"$.inputs[{number}].name"
    return HttpError(400, f"{place}: there is no input {name!r:.60}", hint=f"one of {', '.join(known)}", path=place)


def _of_model(method: str, end: str, handler: Any, summary: str, body: Any = None) -> Tuple[Route, Route]:
    """A route of a model, and of its version."""
    return (
        Route(method, f"/v2/models/{{name}}{end}", handler, summary, body),
        Route(method, f"/v2/models/{{name}}/versions/{{version}}{end}", handler, summary, body),
    )


PROTOCOL = Protocol(
    "Open Inference Protocol",
    (
        Route("GET", "/v2", _server, "The server's name, version and extensions"),
        Route("GET", "/v2/health/live", live, "Whether the process answers", is_open=True),
        Route("GET", "/v2/health/ready", ready, "Whether new requests would find a worker", is_open=True),
        Route("POST", "/v2/repository/index", _index, "The models, and whether each is ready"),
        Route(
            "POST",
            "/v2/repository/models/{name}/load",
            _load,
            "Load a model again, as its folder is now",
            refusals=(403, 409, 422),
        ),
        Route("POST", "/v2/repository/models/{name}/unload", _unload, "Take a model out", refusals=(403, 409)),
        *_of_model("GET", "", _metadata, "A model's inputs and outputs"),
        *_of_model("GET", "/ready", _model_ready, "Whether a model would find a worker"),
        *_of_model("GET", "/config", _config, "A model's configuration, as Triton's"),
        *_of_model("GET", "/stats", _stats, "What a model did so far, as Triton's, and its runner's statistics"),
        *_of_model("POST", "/infer", _infer, "Infer from texts, or from token ids", InferBody),
    ),
    failure_body,
)
