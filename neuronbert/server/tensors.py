"""Tensors of the Open Inference Protocol: bodies of requests as arrays, and arrays as bodies of responses; no HTTP.

``protocols/open_inference`` has the routes. The protocol is KServe's inference_rest.md (github.com/kserve/
open-inference-protocol); tensors as bytes behind the JSON are Triton's extension_binary_data.md
(github.com/triton-inference-server/server). What is wrong with a body is an InputError that begins with the place, as
msgspec writes it: ``$.inputs[0].shape: ``.
"""

import math
import re
import struct
from functools import lru_cache
from itertools import chain
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert.errors import LARGEST_COUNT, InputError, counted, shown_value
from neuronbert.hardware.libraries import optional_imports

with optional_imports():
    import msgspec

_HEADER = "Inference-Header-Content-Length"
BYTES = "BYTES"
# How the elements of each datatype lie in binary data; those of BYTES each have their length in front of them.
DTYPES: Mapping[str, np.dtype] = {
    "BOOL": np.dtype(bool),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    BYTES: np.dtype(object),
}
_IN_JSON = {"b": bool, "u": int, "i": int, "f": float, "O": str}  # by numpy's kind
_MAX_RANK = 32  # numpy's own, before 2.0
_LENGTH = struct.Struct("<I")
_OPENING = re.compile(rb"[\[ \t\r\n]*")
_NULL = msgspec.Raw(b"null")
_AS_BINARY = "send it as binary data, with binary_data_size"
_ASK_FOR_BINARY = 'ask for this output with "parameters": {"binary_data": true}'


class Tensor(NamedTuple):
    """An array and its names on the wire.

    ``array`` has the dtype that ``DTYPES`` gives: for BYTES an object array of bytes. One that was read may lie in the
    request's body: it is read-only then, and need not be aligned.
    """

    name: str
    datatype: str
    array: np.ndarray


class Wanted(NamedTuple):
    """An output that a request asks for by name, and whether it is to come as binary data."""

    name: str
    binary: bool


class InferRequest(NamedTuple):
    """A request for inference, read.

    ``parameters`` are the request's own, without ``binary_data_output``, which is ``binary_default``. ``wanted`` is
    empty where all outputs are; ``binary_default`` says how they come then.
    """

    id: str  # "" where the request has none
    parameters: Dict[str, Any]
    tensors: Tuple[Tensor, ...]
    wanted: Tuple[Wanted, ...]
    binary_default: bool


# ---------------------------------------------------------------------- the JSON, as it is written


class InferInputParameters(msgspec.Struct):
    binary_data_size: Optional[int] = None
    shared_memory_region: Any = None


class InferInput(msgspec.Struct):
    name: str
    shape: List[int]
    datatype: str
    parameters: Optional[InferInputParameters] = None
    # What its elements are follows from the datatype. A factory, for /openapi.json has no words for this default.
    data: msgspec.Raw = msgspec.field(default_factory=lambda: _NULL)


class InferOutputParameters(msgspec.Struct):
    binary_data: Optional[bool] = None
    classification: Any = None
    shared_memory_region: Any = None


class InferOutput(msgspec.Struct):
    name: str
    parameters: Optional[InferOutputParameters] = None


class InferBody(msgspec.Struct):
    inputs: List[InferInput]
    id: Optional[str] = None
    parameters: Optional[Dict[str, Any]] = None
    outputs: Optional[List[InferOutput]] = None


class _ResponseOutput(msgspec.Struct, omit_defaults=True):
    name: str
    shape: Sequence[int]
    datatype: str
    parameters: Optional[Dict[str, int]] = None
    data: Optional[List[Any]] = None


class _Response(msgspec.Struct, omit_defaults=True):
    model_name: str
    outputs: msgspec.Raw
    model_version: str = ""
    id: str = ""


_REQUEST = msgspec.json.Decoder(InferBody)
_RESPONSE = msgspec.json.Encoder()


@lru_cache(maxsize=None)  # as many as there are kinds and ranks
def _data_decoder(element: type, depth: int) -> "msgspec.json.Decoder[List[Any]]":
    """Reads ``data`` whose lists are ``depth`` deep."""
    kind: Any = element
    for _ in range(depth):
        kind = List[kind]
    return msgspec.json.Decoder(kind)


def _decode(decoder: "msgspec.json.Decoder[Any]", text: Any, place: str) -> Any:
    """What ``decoder`` reads in ``text``, which stands at ``place``."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        said, _, inner = str(error).partition(" - at `$")
        raise _wrong(place + inner.rstrip("`"), said) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        hint = "JSON as RFC 8259 has it, in UTF-8; NaN and Infinity are none: send those as binary data"
        raise _wrong(place, str(error), hint) from error
    except RecursionError as error:
        raise _wrong(place, "JSON that is nested too deeply") from error


def _wrong(place: str, said: str, hint: Optional[str] = None) -> InputError:
    return InputError(f"{place}: {said}", hint=hint)


# ---------------------------------------------------------------------- requests


def read_request(body: bytes, header_length: Optional[int]) -> InferRequest:
    """A request's body as arrays.

    ``header_length`` is where the JSON ends and binary data begins, in bytes; None: the JSON is the whole body. Nothing
    is allocated for what a shape promises: only for bytes that are there. InputError for everything that is wrong.
    """
    if not body:
        raise InputError(
            "the body is empty", hint='{"inputs": [{"name": ..., "shape": ..., "datatype": ..., "data": ...}]}'
        )
    start = len(body) if header_length is None else header_length
    if not 0 < start <= len(body):
        said = f"{_HEADER} is {shown_value(header_length)} and the body has {counted(len(body), 'byte')}"
        raise InputError(said, hint="the length in bytes of the JSON, which the body begins with")
    request = _decode(_REQUEST, memoryview(body)[:start], "$")
    _refuse_twice(request.inputs, "$.inputs")
    _refuse_twice(request.outputs or (), "$.outputs")
    tensors = []
    for number, asked in enumerate(request.inputs):
        array, start = _read_tensor(asked, f"$.inputs[{number}]", body, start)
        tensors.append(Tensor(asked.name, asked.datatype, array))
    if start != len(body):
        raise InputError(
            f"after the binary data of all inputs the body has {counted(len(body) - start, 'byte')} more",
            hint=f"the sum of binary_data_size and {_HEADER} is the length of the body",
        )
    parameters = request.parameters or {}
    binary = parameters.pop("binary_data_output", False)
    if not isinstance(binary, bool):
        raise _wrong("$.parameters.binary_data_output", f"Expected `bool`, got {shown_value(binary)}")
    return InferRequest(request.id or "", parameters, tuple(tensors), tuple(_wanted(request, binary)), binary)


def _refuse_twice(named: Iterable[Any], place: str) -> None:
    seen = set()
    for number, one in enumerate(named):
        if one.name in seen:
            raise _wrong(f"{place}[{number}].name", f"the name {shown_value(one.name)} is there twice")
        seen.add(one.name)


def _wanted(request: InferBody, binary_default: bool) -> Iterator[Wanted]:
    for number, output in enumerate(request.outputs or ()):
        parameters = output.parameters or InferOutputParameters()
        place = f"$.outputs[{number}].parameters"
        if parameters.classification is not None:
            raise _wrong(f"{place}.classification", "outputs as classes are not supported", "leave it out")
        if parameters.shared_memory_region is not None:
            raise _wrong(f"{place}.shared_memory_region", "shared memory is not supported", "leave it out")
        yield Wanted(output.name, binary_default if parameters.binary_data is None else parameters.binary_data)


def _read_tensor(asked: InferInput, place: str, body: bytes, start: int) -> Tuple[np.ndarray, int]:
    """An input's array, and where in the body the binary data goes on after it."""
    count = _count(asked.shape, place)
    dtype = DTYPES.get(asked.datatype)
    if dtype is None:
        known = ", ".join(DTYPES)
        raise _wrong(f"{place}.datatype", f"there is no datatype {shown_value(asked.datatype)}", f"one of {known}")
    parameters = asked.parameters or InferInputParameters()
    if parameters.shared_memory_region is not None:
        raise _wrong(f"{place}.parameters.shared_memory_region", "shared memory is not supported", _AS_BINARY)
    size = parameters.binary_data_size
    in_json = asked.data != _NULL
    if in_json == (size is not None):
        said = "both data and binary_data_size are there" if in_json else "neither data nor binary_data_size is there"
        raise _wrong(place, said, "one of the two")
    if size is None:
        return _from_json(asked, count, dtype, f"{place}.data"), start
    place = f"{place}.parameters.binary_data_size"
    left = len(body) - start
    if not 0 <= size <= left:
        said = f"it is {shown_value(size)}, of {counted(left, 'byte')} that the inputs before leave behind the JSON"
        raise _wrong(place, said, f"{_HEADER} says where the JSON ends")
    if dtype.kind == "O":
        return _from_lengths(asked.shape, count, body[start : start + size], place), start + size
    if size != count * dtype.itemsize:
        said = f"{asked.datatype} of shape {asked.shape} has {counted(count * dtype.itemsize, 'byte')}, not {size:,}"
        raise _wrong(place, said)
    return _from_binary(asked.shape, count, dtype, body, start, place), start + size


def _count(shape: List[int], place: str) -> int:
    """How many elements such a tensor has."""
    if len(shape) > _MAX_RANK:
        raise _wrong(f"{place}.shape", f"{len(shape)} dimensions, and a tensor has {_MAX_RANK} at most")
    if shape and min(shape) < 0:
        raise _wrong(f"{place}.shape", f"a dimension is at least 0, not {shown_value(min(shape))}")
    if math.prod(filter(None, shape)) > LARGEST_COUNT:  # an empty array has dimensions too, which numpy bounds
        said = f"{shown_value(shape)} has more elements than a tensor may have: {LARGEST_COUNT:,}"
        raise _wrong(f"{place}.shape", said)
    return math.prod(shape)


# ---------------------------------------------------------------------- elements


def _from_binary(shape: List[int], count: int, dtype: np.dtype, body: bytes, start: int, place: str) -> np.ndarray:
    """The array that lies in ``body`` at ``start``; no copy."""
    if not count:
        return np.empty(shape, dtype)
    if dtype.kind != "b":
        return np.frombuffer(body, dtype, count, start).reshape(shape)
    flags = np.frombuffer(body, np.uint8, count, start)
    if flags.max() > 1:
        raise _wrong(place, f"the bytes of BOOL are 0 and 1, not {flags.max()}")
    return flags.view(bool).reshape(shape)


def _from_lengths(shape: List[int], count: int, data: bytes, place: str) -> np.ndarray:
    """The object array of elements that each have their length in front of them."""
    if count * _LENGTH.size > len(data):
        raise _wrong(
            place,
            f"{counted(count, 'element')} of BYTES take {_LENGTH.size} bytes each at least: {len(data)} are there",
        )
    elements = []
    start = 0
    for number in range(count):
        begin = start + _LENGTH.size
        if begin > len(data):
            raise _wrong(place, f"the data ends in the length of element {number}")
        start = begin + _LENGTH.unpack_from(data, begin - _LENGTH.size)[0]
        if start > len(data):
            raise _wrong(
                place, f"element {number} is said to have {start - begin:,} bytes and {len(data) - begin} are left"
            )
        elements.append(data[begin:start])
    if start != len(data):
        raise _wrong(
            place, f"after {counted(count, 'element')} the data goes on for {counted(len(data) - start, 'byte')}"
        )
    return _objects(elements, shape)


def _objects(elements: List[bytes], shape: List[int]) -> np.ndarray:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _from_json(asked: InferInput, count: int, dtype: np.dtype, place: str) -> np.ndarray:
    """The array of ``data``, whose lists are flat, or nested as the shape says."""
    opening = _OPENING.match(asked.data)
    depth = len(asked.shape) if opening and opening.group().count(b"[") > 1 else 1
    values = _decode(_data_decoder(_IN_JSON[dtype.kind], max(1, depth)), asked.data, place)
    if depth > 1:
        values = _flattened(values, asked.shape, place)
    elif len(values) != count:
        said = f"shape {asked.shape} has {counted(count, 'element')} and data has {len(values):,}"
        raise _wrong(place, said)
    if dtype.kind == "O":
        return _objects([text.encode() for text in values], asked.shape)
    if dtype.kind in "iu":
        _refuse_beyond(values, asked, np.iinfo(dtype), depth, place)
    with np.errstate(over="ignore"):
        array = np.array(values, dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        number = int(np.isfinite(array).argmin())
        said = f"{values[number]} is no finite {asked.datatype}"
        raise _wrong(place + _index(number, asked.shape, depth), said, _AS_BINARY)
    return array.reshape(asked.shape)


def _flattened(values: List[Any], shape: List[int], place: str) -> List[Any]:
    """The elements of nested lists, in order; InputError unless every list is as long as ``shape`` says."""
    level = [values]
    for depth, length in enumerate(shape):
        for number, one in enumerate(level):
            if len(one) != length:
                said = f"shape {shape} asks for {length} here, and the list has {len(one)}"
                raise _wrong(place + _index(number, shape[:depth], depth), said)
        level = list(chain.from_iterable(level))
    return level


def _refuse_beyond(values: List[int], asked: InferInput, limits: "np.iinfo[Any]", depth: int, place: str) -> None:
    if not values or (limits.min <= min(values) and max(values) <= limits.max):
        return
    number = next(number for number, value in enumerate(values) if not limits.min <= value <= limits.max)
    said = f"{shown_value(values[number])} is beyond {asked.datatype}: {limits.min} to {limits.max}"
    raise _wrong(place + _index(number, asked.shape, depth), said)


def _index(number: int, shape: List[int], depth: int) -> str:
    """Where element ``number`` stands in lists that are nested ``depth`` deep."""
    if depth == 1:
        return f"[{number}]"
    return "".join(f"[{one}]" for one in np.unravel_index(number, shape)) if shape else ""


# ---------------------------------------------------------------------- responses


class Outputs(NamedTuple):
    """The outputs of a response: their JSON, and the binary data that comes behind all of the JSON, a part for each."""

    json: bytes
    binary: List[bytes]


def refuse_unknown_outputs(request: InferRequest, names: Sequence[str]) -> None:
    """InputError where the request wants an output that is none of ``names``: for before it is answered."""
    for number, wanted in enumerate(request.wanted):
        if wanted.name not in names:
            said = f"there is no output {shown_value(wanted.name)}"
            raise _wrong(f"$.outputs[{number}].name", said, f"one of {', '.join(names)}")


def write_outputs(request: InferRequest, tensors: Sequence[Tensor]) -> Outputs:
    """The tensors that the request wants, each of which is among ``tensors``.

    NaN is null in JSON, of which numpy makes NaN again. InputError for what JSON cannot hold: infinity, and bytes that
    are no UTF-8.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    wanted = request.wanted or [Wanted(name, request.binary_default) for name in by_name]
    outputs = []
    binary = []
    for number, (name, as_binary) in enumerate(wanted):
        tensor = by_name[name]
        output = _ResponseOutput(name, tensor.array.shape, tensor.datatype)
        if as_binary:
            binary.append(_to_binary(tensor))
            output.parameters = {"binary_data_size": len(binary[-1])}
        else:
            output.data = _to_json(tensor, f"$.outputs[{number}]")
        outputs.append(output)
    return Outputs(_RESPONSE.encode(outputs), binary)


def write_head(model: str, version: str, request_id: str, outputs: bytes) -> bytes:
    """The JSON of a response with ``Outputs.json``. Behind it comes their binary data, if there is any: its length is
    then for the header Inference-Header-Content-Length. A version or id that is "" is left out.
    """
    return _RESPONSE.encode(_Response(model, msgspec.Raw(outputs), version, request_id))


def _native(tensor: Tensor) -> np.ndarray:
    """The array as the wire has it; TypeError, a bug of the caller, where its dtype is not that of its datatype."""
    return tensor.array.astype(DTYPES[tensor.datatype], casting="equiv", copy=False)


def _to_binary(tensor: Tensor) -> bytes:
    array = _native(tensor)
    if tensor.datatype != BYTES:
        return array.tobytes()
    return b"".join(part for element in array.flat for part in (_LENGTH.pack(len(element)), element))


def _to_json(tensor: Tensor, place: str) -> List[Any]:
    array = _native(tensor)
    if array.dtype.kind == "f" and np.isinf(array).any():
        raise _wrong(place, f"JSON has no infinity, which {tensor.name!r} holds", _ASK_FOR_BINARY)
    elements: List[Any] = array.ravel().tolist()
    if tensor.datatype != BYTES:
        return elements
    try:
        return [element.decode() for element in elements]
    except UnicodeDecodeError as error:
        raise _wrong(
            place, f"{tensor.name!r} holds bytes that are no UTF-8, which JSON needs", _ASK_FOR_BINARY
        ) from error
