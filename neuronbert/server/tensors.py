"""Placeholder."""

from typing import Any, NamedTuple


class Tensor(NamedTuple):
    name: str
    datatype: str
    array: Any


InferRequest = Any
read_request = write_response = None
