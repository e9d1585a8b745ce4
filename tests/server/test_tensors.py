"""Tensors of the Open Inference Protocol, against broken bodies, arbitrary bytes, and Triton's own client."""

import json
import math
import struct
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from neuronbert.errors import InputError

pytest.importorskip("msgspec")

from neuronbert.server.tensors import (  # noqa: E402
    DTYPES,
    InferRequest,
    Tensor,
    Wanted,
    read_request,
    refuse_unknown_outputs,
    write_head,
    write_outputs,
)

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8).map(str.encode)


def write_response(
    model: str, version: str, request: InferRequest, made: Sequence[Tensor]
) -> Tuple[bytes, Optional[int]]:
    """A body, and the length of its JSON where binary data comes behind it."""
    outputs, binary = write_outputs(request, made)
    head = write_head(model, version, request.id, outputs)
    return b"".join([head, *binary]), len(head) if binary else None


class Body(NamedTuple):
    """What goes over the wire: the arguments of ``read_request``."""

    body: bytes
    header_length: Optional[int]


def array_of(datatype: str, elements: st.SearchStrategy, shape: Sequence[int]) -> st.SearchStrategy:
    """Arrays of a datatype; of BYTES, numpy's own strategy would make an array of each element that is empty."""
    if datatype != "BYTES":
        return arrays.arrays(DTYPES[datatype], tuple(shape), elements=elements)
    count = math.prod(shape)
    return st.lists(elements, min_size=count, max_size=count).map(lambda values: objects(values).reshape(shape))


def objects(values: Sequence[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def elements_of(datatype: str, in_json: bool) -> st.SearchStrategy:
    if datatype == "BYTES":
        return TEXTS if in_json else st.binary(max_size=8)
    return arrays.from_dtype(DTYPES[datatype], **({"allow_nan": False, "allow_infinity": False} if in_json else {}))


@st.composite
def tensors(draw: st.DrawFn, in_json: bool) -> Tuple[Tensor, ...]:
    datatypes = draw(st.lists(st.sampled_from(sorted(DTYPES)), max_size=4))
    return tuple(
        Tensor(f"t{number}", kind, draw(array_of(kind, elements_of(kind, in_json), draw(SHAPES))))
        for number, kind in enumerate(datatypes)
    )


def as_binary(tensor: Tensor) -> bytes:
    """Its elements as the extension writes them."""
    if tensor.datatype != "BYTES":
        return tensor.array.astype(DTYPES[tensor.datatype]).tobytes()
    return b"".join(struct.pack("<I", len(one)) + one for one in tensor.array.ravel().tolist())


def as_json(array: np.ndarray, nested: bool) -> List[Any]:
    values = array if nested and array.ndim else array.ravel()
    return json.loads(json.dumps(values.tolist(), default=bytes.decode))  # type: ignore[no-any-return]


def request_of(sent: Sequence[Tensor], binary: bool, nested: bool = False, **more: Any) -> Body:
    inputs: List[Dict[str, Any]] = []
    behind = b""
    for tensor in sent:
        entry = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.array.shape)}
        if binary:
            data = as_binary(tensor)
            behind += data
            entry["parameters"] = {"binary_data_size": len(data)}
        else:
            entry["data"] = as_json(tensor.array, nested)
        inputs.append(entry)
    header = json.dumps({"inputs": inputs, **more}).encode()
    return Body(header + behind, len(header) if binary else None)


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    for one, other in zip(found, expected):
        assert (one.array.shape, one.array.dtype) == (other.array.shape, DTYPES[one.datatype])
        np.testing.assert_array_equal(one.array, other.array)


def one_input(**fields: Any) -> Body:
    """A request of one input, INT32 of shape [2], but for ``fields``; None leaves one out."""
    entry = {"name": "a", "shape": [2], "datatype": "INT32", "data": [1, 2], **fields}
    return Body(json.dumps({"inputs": [{k: v for k, v in entry.items() if v is not None}]}).encode(), None)


def behind(data: bytes, size: Any = None, **fields: Any) -> Body:
    """The same with ``data`` behind the JSON."""
    parameters = {"binary_data_size": len(data) if size is None else size}
    header = one_input(**{"data": None, "parameters": parameters, **fields}).body
    return Body(header + data, len(header))


# --- what is right ---


@given(tensors(in_json=False))
def test_binary_data_is_read_as_it_was_sent(sent: Tuple[Tensor, ...]) -> None:
    assert_same(read_request(*request_of(sent, binary=True)).tensors, sent)


@given(tensors(in_json=True), st.booleans())
def test_json_is_read_as_it_was_sent(sent: Tuple[Tensor, ...], nested: bool) -> None:
    assert_same(read_request(*request_of(sent, binary=False, nested=nested)).tensors, sent)


@given(st.data())
@pytest.mark.parametrize("binary", [True, False])
def test_what_is_written_can_be_read_as_a_request(binary: bool, data: st.DataObject) -> None:
    sent = data.draw(tensors(in_json=not binary))
    request = InferRequest("7", {}, (), (), binary)
    body, header_length = write_response("model", "3", request, sent)
    document = json.loads(body[:header_length])
    assert {name: document[name] for name in document if name != "outputs"} == {
        "model_name": "model", "model_version": "3", "id": "7",
    }  # fmt: skip
    outputs = document["outputs"]
    assert all(list(map(bool, [one.get("parameters"), "data" in one])) == [binary, not binary] for one in outputs)
    header = json.dumps({"inputs": outputs}).encode()
    again = header + (b"" if header_length is None else body[header_length:])
    assert_same(read_request(again, len(header) if header_length is not None else None).tensors, sent)


def test_numbers_are_not_copied_out_of_the_body() -> None:
    body = behind(struct.pack("<2i", 5, -5))
    (tensor,) = read_request(*body).tensors
    assert tensor.array.tolist() == [5, -5] and not tensor.array.flags.owndata and not tensor.array.flags.writeable
    assert np.shares_memory(tensor.array, np.frombuffer(body.body, np.uint8))


def test_a_request_keeps_what_is_said_beside_the_tensors() -> None:
    more = {
        "id": "x1", "model_name": "other", "parameters": {"timeout": 5, "top_k": 2, "binary_data_output": True},
        "outputs": [{"name": "y"}, {"name": "z", "parameters": {"binary_data": False, "unknown": 1}}],
    }  # fmt: skip
    request = read_request(*request_of((), binary=False, **more))
    wanted = (Wanted("y", True), Wanted("z", False))
    assert request == InferRequest("x1", {"timeout": 5, "top_k": 2}, (), wanted, True)


@pytest.mark.parametrize("nothing", [{}, {"id": None, "parameters": None, "outputs": None}])
def test_what_a_request_leaves_out_is_empty(nothing: Dict[str, None]) -> None:
    assert read_request(*request_of((), binary=False, **nothing)) == InferRequest("", {}, (), (), False)


def test_binary_and_json_inputs_may_stand_beside_each_other() -> None:
    header = json.dumps(
        {
            "inputs": [
                {"name": "a", "shape": [1], "datatype": "UINT8", "parameters": {"binary_data_size": 1}, "data": None},
                {"name": "b", "shape": [2], "datatype": "BYTES", "data": ["é", ""]},
                {"name": "c", "shape": [1], "datatype": "BOOL", "parameters": {"binary_data_size": 1}},
            ]
        }
    ).encode()
    request = read_request(header + b"\x07\x01", len(header))
    assert [one.array.tolist() for one in request.tensors] == [[7], ["é".encode(), b""], [True]]


def test_bytes_stay_bytes() -> None:
    (tensor,) = read_request(*behind(b"\x02\0\0\0\xff\0", shape=[1], datatype="BYTES")).tensors
    assert tensor.array.tolist() == [b"\xff\0"]


def test_an_answer_holds_what_was_wanted_as_it_was_wanted() -> None:
    made = [Tensor(name, "UINT8", np.array([number], np.uint8)) for number, name in enumerate("abc")]
    request = InferRequest("", {}, (), (Wanted("c", True), Wanted("a", False)), True)
    body, header_length = write_response("m", "", request, made)
    assert header_length == len(body) - 1 and body[-1:] == b"\x02"
    assert json.loads(body[:header_length]) == {
        "model_name": "m",
        "outputs": [
            {"name": "c", "shape": [1], "datatype": "UINT8", "parameters": {"binary_data_size": 1}},
            {"name": "a", "shape": [1], "datatype": "UINT8", "data": [0]},
        ],
    }


def test_nan_is_null_in_an_answer() -> None:
    body, _ = write_response(
        "m", "", InferRequest("", {}, (), (), False), [Tensor("x", "FP32", np.float32([[math.nan]]))]
    )
    assert json.loads(body)["outputs"] == [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [None]}]


# --- what is wrong ---

LIMITED = 2**31 - 1
BROKEN = {
    "empty": (Body(b"", None), "the body is empty"),
    "empty, header 0": (Body(b"", 0), "the body is empty"),
    "header 0": (Body(b"{}", 0), "Inference-Header-Content-Length is 0 and the body has 2 bytes"),
    "header below 0": (Body(b"{}", -1), "Inference-Header-Content-Length is -1 and the body has 2 bytes"),
    "header beyond": (Body(b"{}", 3), "Inference-Header-Content-Length is 3 and the body has 2 bytes"),
    "no JSON": (Body(b"\x00", None), "$: JSON is malformed: invalid character (byte 0)"),
    "cut": (Body(b'{"inputs":', None), "$: Input data was truncated"),
    "list": (Body(b"[]", None), "$: Expected `object`, got `array`"),
    "no inputs": (Body(b"{}", None), "$: Object missing required field `inputs`"),
    "JSON goes on": (Body(b'{"inputs":[]}{', None), "$: JSON is malformed: trailing characters"),
    "bytes go on": (Body(b'{"inputs":[]} abc', 14), "after the binary data of all inputs the body has 3 bytes more"),
    "id": (request_of((), False, id=7), "$.id: Expected `str | null`, got `int`"),
    "deep": (Body(b'{"parameters":{"a":' + b"[" * 100_000, None), "$: JSON that is nested too deeply"),
    "no name": (one_input(name=None), "$.inputs[0]: Object missing required field `name`"),
    "shape of floats": (one_input(shape=[1.5]), "$.inputs[0].shape[0]: Expected `int`, got `float`"),
    "shape below 0": (one_input(shape=[2, -1]), "$.inputs[0].shape: a dimension is at least 0, not -1"),
    "shape twice below 0": (one_input(shape=[-1, -2]), "$.inputs[0].shape: a dimension is at least 0, not -2"),
    "huge shape": (one_input(shape=[2**40]), "$.inputs[0].shape: [1099511627776] has more elements than a tensor may"),
    "huge product": (one_input(shape=[2**20] * 9), "$.inputs[0].shape: [1048576, 1048576, "),
    "huge and empty": (one_input(shape=[0, 2**70], data=[]), "$.inputs[0].shape: [0, 1180591620717411303424] has more"),
    "largest": (
        one_input(shape=[LIMITED]),
        "$.inputs[0].data: shape [2147483647] has 2,147,483,647 elements and data has 2",
    ),
    "ranks": (one_input(shape=[1] * 33), "$.inputs[0].shape: 33 dimensions, and a tensor has 32 at most"),
    "datatype": (one_input(datatype="INT128"), "$.inputs[0].datatype: there is no datatype 'INT128'"),
    "BF16": (one_input(datatype="BF16"), "$.inputs[0].datatype: there is no datatype 'BF16'"),
    "lower case": (one_input(datatype="int32"), "$.inputs[0].datatype: there is no datatype 'int32'"),
    "no data": (one_input(data=None), "$.inputs[0]: neither data nor binary_data_size is there"),
    "both": (one_input(parameters={"binary_data_size": 0}), "$.inputs[0]: both data and binary_data_size are there"),
    "fewer": (one_input(data=[1]), "$.inputs[0].data: shape [2] has 2 elements and data has 1"),
    "more": (one_input(data=[1, 2, 3]), "$.inputs[0].data: shape [2] has 2 elements and data has 3"),
    "scalar": (one_input(shape=[], data=7), "$.inputs[0].data: Expected `array`, got `int`"),
    "too nested": (one_input(data=[[1, 2]]), "$.inputs[0].data[0]: Expected `int`, got `array`"),
    "half nested": (
        one_input(shape=[1, 1, 2], data=[[1, 2]]),
        "$.inputs[0].data[0][0]: Expected `array`, got `int`",
    ),
    "ragged": (
        one_input(shape=[2, 2], data=[[1, 2], [3]]),
        "$.inputs[0].data[1]: shape [2, 2] asks for 2 here, and the list has 1",
    ),
    "rows": (
        one_input(shape=[1, 2], data=[[1, 2], [3, 4]]),
        "$.inputs[0].data: shape [1, 2] asks for 1 here, and the list has 2",
    ),
    "text": (one_input(data=[1, "2"]), "$.inputs[0].data[1]: Expected `int`, got `str`"),
    "flags as numbers": (one_input(datatype="BOOL"), "$.inputs[0].data[0]: Expected `bool`, got `int`"),
    "numbers as texts": (one_input(datatype="BYTES"), "$.inputs[0].data[0]: Expected `str`, got `int`"),
    "null": (one_input(datatype="FP32", data=[1, None]), "$.inputs[0].data[1]: Expected `float`, got `null`"),
    "NaN": (one_input(datatype="FP32", data=[1, math.nan]), "$: JSON is malformed: invalid character"),
    "infinity": (one_input(datatype="FP32", data=[1, -math.inf]), "$: JSON is malformed: invalid character"),
    "beyond FP16": (one_input(datatype="FP16", data=[1, 1e5]), "$.inputs[0].data[1]: 100000.0 is no finite FP16"),
    "beyond FP32": (
        one_input(shape=[2, 1], datatype="FP32", data=[[1], [-1e39]]),
        "$.inputs[0].data[1][0]: -1e+39 is no finite FP32",
    ),
    "beyond INT32": (
        one_input(data=[1, 2**31]),
        "$.inputs[0].data[1]: 2147483648 is beyond INT32: -2147483648 to 2147483647",
    ),
    "below UINT64": (one_input(datatype="UINT64", data=[-1, 0]), "$.inputs[0].data[0]: -1 is beyond UINT64: 0 to "),
    "beyond UINT64": (one_input(datatype="UINT64", data=[2**64, 0]), "$.inputs[0].data[0]: 18446744073709551616 is"),
    "beyond, nested": (
        one_input(shape=[2, 2], datatype="INT8", data=[[1, 2], [3, 128]]),
        "$.inputs[0].data[1][1]: 128 is beyond INT8: -128 to 127",
    ),
    "no UTF-8": (
        Body(b'{"inputs":[{"name":"a","shape":[1],"datatype":"BYTES","data":["\xff"]}]}', None),
        "$.inputs[0].data: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    ),
    "name twice": (
        Body(json.dumps({"inputs": json.loads(one_input().body)["inputs"] * 2}).encode(), None),
        "$.inputs[1].name: the name 'a' is there twice",
    ),
    "output twice": (
        request_of((), False, outputs=[{"name": "y"}, {"name": "y"}]),
        "$.outputs[1].name: the name 'y' is there twice",
    ),
    "classes": (
        request_of((), False, outputs=[{"name": "y", "parameters": {"classification": 3}}]),
        "$.outputs[0].parameters.classification: outputs as classes are not supported",
    ),
    "output in shared memory": (
        request_of((), False, outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]),
        "$.outputs[0].parameters.shared_memory_region: shared memory is not supported",
    ),
    "input in shared memory": (
        one_input(data=None, parameters={"shared_memory_region": "r"}),
        "$.inputs[0].parameters.shared_memory_region: shared memory is not supported",
    ),
    "binary_data": (
        request_of((), False, outputs=[{"name": "y", "parameters": {"binary_data": 1}}]),
        "$.outputs[0].parameters.binary_data: Expected `bool | null`, got `int`",
    ),
    "binary_data_output": (
        request_of((), False, parameters={"binary_data_output": "yes"}),
        "$.parameters.binary_data_output: Expected `bool`, got 'yes'",
    ),
    "size as text": (
        behind(b"", size="8"),
        "$.inputs[0].parameters.binary_data_size: Expected `int | null`, got `str`",
    ),
    "size below 0": (behind(b"", size=-1), "$.inputs[0].parameters.binary_data_size: it is -1, of 0 bytes"),
    "size beyond": (
        behind(bytes(8), size=9),
        "$.inputs[0].parameters.binary_data_size: it is 9, of 8 bytes that the inputs before leave",
    ),
    "size without header": (
        Body(behind(b"", size=8).body, None),
        "$.inputs[0].parameters.binary_data_size: it is 8, of 0 bytes that the inputs before leave",
    ),
    "huge binary": (
        behind(bytes(8), shape=[LIMITED]),
        "$.inputs[0].parameters.binary_data_size: INT32 of shape [2147483647] has 8,589,934,588 bytes, not 8",
    ),
    "huge BYTES": (
        behind(bytes(8), shape=[LIMITED], datatype="BYTES"),
        "$.inputs[0].parameters.binary_data_size: 2,147,483,647 elements of BYTES take 4 bytes each at least",
    ),
    "wrong size": (
        behind(bytes(4)),
        "$.inputs[0].parameters.binary_data_size: INT32 of shape [2] has 8 bytes, not 4",
    ),
    "size of nothing": (
        behind(bytes(4), shape=[0]),
        "$.inputs[0].parameters.binary_data_size: INT32 of shape [0] has 0 bytes, not 4",
    ),
    "byte of BOOL": (
        behind(b"\x01\x02", datatype="BOOL"),
        "$.inputs[0].parameters.binary_data_size: the bytes of BOOL are 0 and 1, not 2",
    ),
    "cut element": (
        behind(b"\x05\0\0\0abcd", shape=[1], datatype="BYTES"),
        "$.inputs[0].parameters.binary_data_size: element 0 is said to have 5 bytes and 4 are left",
    ),
    "cut length": (
        behind(b"\x03\0\0\0abc\0", datatype="BYTES"),
        "$.inputs[0].parameters.binary_data_size: the data ends in the length of element 1",
    ),
    "bytes behind elements": (
        behind(b"\x01\0\0\0ab", shape=[1], datatype="BYTES"),
        "$.inputs[0].parameters.binary_data_size: after 1 element the data goes on for 1 byte",
    ),
    "bytes of the next input": (
        Body(behind(bytes(8)).body + b"x", behind(bytes(8)).header_length),
        "after the binary data of all inputs the body has 1 byte more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_a_broken_body_is_refused_with_its_place(case: str) -> None:
    body, message = BROKEN[case]
    with pytest.raises(InputError) as raised:
        read_request(*body)
    assert raised.value.message.startswith(message)


@given(st.binary(), st.none() | st.integers(-2, 40))
def test_arbitrary_bytes_are_read_or_refused(body: bytes, header_length: Optional[int]) -> None:
    with pytest.raises(InputError):
        read_request(body, header_length)


SIZES = st.integers(-2, 12) | st.sampled_from([2**31, 2**63, 2**64, 10**300])
JSON = st.recursive(
    st.none() | st.booleans() | SIZES | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=8,
)
INPUTS = st.fixed_dictionaries(
    {
        "name": st.text(max_size=2),
        "shape": st.lists(SIZES, max_size=3),
        "datatype": st.sampled_from([*sorted(DTYPES), "BF16", ""]),
    },
    optional={"data": JSON, "parameters": st.fixed_dictionaries({"binary_data_size": SIZES | JSON})},
)


@given(st.lists(INPUTS | JSON, max_size=3), st.binary(max_size=40), st.integers(-3, 3))
def test_requests_that_are_nearly_right_are_read_or_refused(inputs: List[Any], data: bytes, shift: int) -> None:
    """Only InputError ever leaves ``read_request``, and every place that it names is one of the body."""
    header = json.dumps({"inputs": inputs}).encode()
    try:
        request = read_request(header + data, len(header) + shift)
    except InputError as error:
        assert error.message.startswith(("$", "Inference-Header", "after the binary data"))
    else:
        assert [list(one.array.shape) for one in request.tensors] == [one["shape"] for one in inputs]


@given(st.data())
def test_a_damaged_request_is_read_or_refused(data: st.DataObject) -> None:
    body, header_length = request_of(data.draw(tensors(in_json=False)), binary=True)
    place = data.draw(st.integers(0, len(body) - 1))
    damaged = body[:place] + data.draw(st.binary(max_size=2)) + body[place + data.draw(st.integers(0, 2)) :]
    try:
        read_request(damaged, header_length)
    except InputError as error:
        assert error.message


def answer_in_json(tensor: Tensor) -> None:
    write_response("m", "", InferRequest("", {}, (), (), False), [tensor])


def test_an_answer_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match=r"\$\.outputs\[0\]: JSON has no infinity, which 'x' holds"):
        answer_in_json(Tensor("x", "FP32", np.float32([1, math.inf])))
    with pytest.raises(InputError, match=r"\$\.outputs\[0\]: 'x' holds bytes that are no UTF-8.*\n.*binary_data"):
        answer_in_json(Tensor("x", "BYTES", objects([b"\xff"])))


def test_an_output_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match=r"\$\.outputs\[1\]\.name: there is no output 'y'\n  try: one of x"):
        refuse_unknown_outputs(InferRequest("", {}, (), (Wanted("x", False), Wanted("y", False)), False), ["x"])


def test_an_array_that_is_not_of_its_datatype_is_a_bug() -> None:
    with pytest.raises(TypeError):
        answer_in_json(Tensor("x", "FP32", np.float64([1])))


# --- against Triton's client ---


@given(st.data())
@pytest.mark.parametrize("binary", [True, False])
def test_what_tritons_client_sends_is_read(binary: bool, data: st.DataObject) -> None:
    triton = pytest.importorskip("tritonclient.http")
    sent = data.draw(tensors(in_json=not binary))
    inputs = []
    for tensor in sent:
        made = triton.InferInput(tensor.name, list(tensor.array.shape), tensor.datatype)
        inputs.append(made.set_data_from_numpy(tensor.array, binary_data=binary))
    outputs = [triton.InferRequestedOutput("y", binary_data=False), triton.InferRequestedOutput("z", binary_data=True)]
    named = data.draw(st.booleans())
    body, header_length = triton.InferenceServerClient.generate_request_body(
        inputs, outputs=outputs if named else None, request_id="r", timeout=7, parameters={"top_k": 2}
    )
    request = read_request(body, header_length)
    assert_same(request.tensors, sent)
    assert (request.id, request.parameters) == ("r", {"timeout": 7, "top_k": 2})
    assert request.wanted == ((Wanted("y", False), Wanted("z", True)) if named else ())
    assert request.binary_default is not named


@given(st.data())
@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_reads_what_is_written(binary: bool, data: st.DataObject) -> None:
    triton = pytest.importorskip("tritonclient.http")
    sent = data.draw(tensors(in_json=not binary))
    body, header_length = write_response("m", "1", InferRequest("r", {}, (), (), binary), sent)
    result = triton.InferenceServerClient.parse_response_body(body, header_length=header_length)
    assert result.get_response()["id"] == "r"
    for tensor in sent:
        found = result.as_numpy(tensor.name)
        if tensor.datatype == "BYTES" and not binary:
            found = objects([text.encode() for text in found.ravel().tolist()]).reshape(found.shape)
        assert found.shape == tensor.array.shape
        np.testing.assert_array_equal(found, tensor.array)
