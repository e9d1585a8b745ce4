"""Documents of results as columns: for each key a tensor, as the task says what the key holds (tasks/base.py). Pure."""

import math
from typing import AbstractSet, Any, Callable, Dict, List, Mapping, Sequence

import numpy as np

from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.tensors import Tensor
from neuronbert.tasks.base import Column, ColumnType, Document

with optional_imports():
    import msgspec


def tensors_of_documents(
    documents: Sequence[Document], columns: Mapping[str, Column], wanted: AbstractSet[str]
) -> List[Tensor]:
    """A tensor of shape [documents], or [documents, width], for each key that a document has, or that is ``wanted``.

    Where a document lacks a key that another one has, its place holds NaN, -1, an empty text, or false.
    """
    present = [name for name in columns if name in wanted or any(name in document for document in documents)]
    return [_MAKERS[columns[name].type](name, [document.get(name) for document in documents]) for name in present]


def _texts(name: str, values: List[Any]) -> Tensor:
    return Tensor(name, "BYTES", _objects([(value or "").encode("utf-8", "replace") for value in values]))


def _documents(name: str, values: List[Any]) -> Tensor:
    return Tensor(name, "BYTES", _objects([b"" if value is None else msgspec.json.encode(value) for value in values]))


def _objects(values: List[bytes]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _numbers(name: str, values: List[Any]) -> Tensor:
    return Tensor(name, "FP64", np.array([math.nan if value is None else value for value in values], np.float64))


def _whole(name: str, values: List[Any]) -> Tensor:
    return Tensor(name, "INT64", np.array([-1 if value is None else value for value in values], np.int64))


def _flags(name: str, values: List[Any]) -> Tensor:
    return Tensor(name, "BOOL", np.array([bool(value) for value in values], np.bool_))


def _vectors(name: str, values: List[Any]) -> Tensor:
    return Tensor(name, "FP32", np.array(values, np.float32))


_MAKERS: Dict[ColumnType, Callable[[str, List[Any]], Tensor]] = {
    ColumnType.TEXT: _texts,
    ColumnType.NUMBER: _numbers,
    ColumnType.WHOLE: _whole,
    ColumnType.FLAG: _flags,
    ColumnType.OBJECTS: _documents,
    ColumnType.VECTOR: _vectors,
    ColumnType.VECTORS: _documents,
}
