"""Reads weights as raw bytes, without torch, so that loading.py can count, check and fingerprint them."""

import hashlib
import json
import math
import mmap
import os
import struct
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from neuronbert.checkpoint.families import Tensor
from neuronbert.errors import CheckpointError, quoted
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.schema import TEXT, Schema, list_of, object_of, record, shown, whole
from neuronbert.hardware.untrusted import (
    MEBIBYTE,
    Refusal,
    document_of,
    is_there,
    open_regular,
    read_document,
    readable,
)

# safetensors' names for the floating types: the numpy type that holds their bits, and the bits all set in NaN and Inf.
_FLOATS: Dict[str, Tuple[np.dtype, int]] = {
    "F64": (np.dtype("<u8"), 0x7FF0000000000000),
    "F32": (np.dtype("<u4"), 0x7F800000),
    "F16": (np.dtype("<u2"), 0x7C00),
    "BF16": (np.dtype("<u2"), 0x7F80),
}
_FETCH_AGAIN = "fetch the checkpoint again: the file is damaged"
DAMAGED = Refusal(CheckpointError, _FETCH_AGAIN)
_MAX_HEADER_BYTES = 16 * MEBIBYTE  # of 100,000 tensors
_MAX_BYTES = 1 << 53

HEADER = Schema(
    properties={"__metadata__": {"type": ["object", "null"]}},
    additionalProperties=record(
        {
            "dtype": TEXT,
            "shape": list_of(whole(0, _MAX_BYTES), maxItems=8),
            "data_offsets": list_of(whole(0, _MAX_BYTES), minItems=2, maxItems=2),
        }
    ),
)
# Names of files in the index's own folder.
INDEX = Schema(**record({"weight_map": object_of({"type": "string", "pattern": r"^[A-Za-z0-9_][^/\\]*$"})}))

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class StoredTensor(NamedTuple):
    """One weight as stored: safetensors' dtype name, shape, its little-endian bytes, and the file they are in."""

    dtype: str
    shape: Tuple[int, ...]
    data: np.ndarray  # uint8, 1-D
    file: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def is_finite(self) -> bool:
        """Whether no element is NaN or Inf, judged by the exponent bits."""
        bits, exponent = _FLOATS[self.dtype]
        mask = bits.type(exponent)
        return not bool(np.any((self.data.view(bits) & mask) == mask))

    def float32(self) -> np.ndarray:
        """A new float32 array of ``shape``; exact for F16 and BF16, rounded for F64."""
        bits, _ = _FLOATS[self.dtype]
        raw = self.data.view(bits)
        values: np.ndarray
        if self.dtype == "BF16":  # bfloat16 is the upper half of a float32
            values = (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        else:
            values = raw.view(f"<f{bits.itemsize}").astype(np.float32)
        return values.reshape(self.shape)


Tensors = Dict[str, StoredTensor]


def fingerprint(tensors: Mapping[str, StoredTensor]) -> str:
    """sha256 (hex) over the tensors sorted by name: name, dtype, shape and bytes of each.

    How the weights are spread over files does not matter; a changed bit, name or dtype does.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, tensor.dtype, list(tensor.shape)]).encode() + b"\n")
        digest.update(np.ascontiguousarray(tensor.data).data)
    return digest.hexdigest()


def read_folder(folder: Path, allow_pickle: bool) -> Tensors:
    """All tensors of a checkpoint folder: one safetensors file, a sharded set, or (if allowed) a pickle."""
    if is_there(folder / SINGLE_FILE, DAMAGED):
        return read_safetensors(folder / SINGLE_FILE)
    if is_there(folder / INDEX_FILE, DAMAGED):
        return _read_shards(folder / INDEX_FILE, read_safetensors)
    return _read_pickles(folder, allow_pickle)


def read_safetensors(path: Path) -> Tensors:
    """Map one safetensors file; nothing but the header is read until a tensor is used.

    Raises CheckpointError naming the file, with expected and actual size if it was cut short.
    """
    with open_regular(path, DAMAGED) as file, readable(path, DAMAGED):
        actual = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        if len(prefix) < 8:
            raise DAMAGED.of(f"{path} is truncated: it has {actual} bytes, a header takes 8")
        _refuse_pointer(path, prefix)
        length = struct.unpack("<Q", prefix)[0]
        if length > _MAX_HEADER_BYTES:
            raise DAMAGED.of(f"{path} is no safetensors file: it does not start with a header")
        if actual < 8 + length:
            raise DAMAGED.of(f"{path} is truncated: its header alone takes {8 + length} bytes, the file has {actual}")
        header = document_of(file.read(length), f"{path}, its header", HEADER, DAMAGED)
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
    header.pop("__metadata__", None)
    expected = 8 + length + _end_of_data(path, header)
    if actual != expected:
        what = "is truncated" if actual < expected else "has bytes behind its last tensor"
        raise DAMAGED.of(f"{path} {what}: expected {expected} bytes, found {actual}")
    return {name: _stored(path, name, entry, mapped[8 + length :]) for name, entry in header.items()}


def _end_of_data(path: Path, header: Mapping[str, Any]) -> int:
    """How many bytes the tensors take; CheckpointError where two share bytes, or some bytes are no tensor's."""
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        if begin != end or stop < begin:
            raise DAMAGED.of(
                f"{path}: {shown(name)} lies at bytes {begin} to {stop} of the data, and the tensor before it ends at "
                f"{end}"
            )
        end = stop
    return end


def _refuse_pointer(path: Path, start: bytes) -> None:
    if start == b"version ":
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights themselves", hint=f"git -C {quoted(path.parent)} lfs pull"
        )


def _stored(path: Path, name: str, entry: Mapping[str, Any], body: np.ndarray) -> StoredTensor:
    begin, end = entry["data_offsets"]
    tensor = StoredTensor(entry["dtype"], tuple(entry["shape"]), body[begin:end], str(path))
    if tensor.dtype not in _FLOATS:
        # A buffer of integers (position_ids) is dropped by its name later; a quantised weight is refused there.
        return tensor
    bytes_expected = tensor.size * _FLOATS[tensor.dtype][0].itemsize
    if end - begin != bytes_expected:
        raise DAMAGED.of(
            f"{path}: {shown(name)} of shape {entry['shape']} takes {bytes_expected} bytes, "
            f"its header says {end - begin}"
        )
    return tensor


def check_values(tensors: Mapping[str, StoredTensor]) -> None:
    """Raise CheckpointError for a weight that is not floating point, or holds NaN or Inf."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            raise CheckpointError(
                f"{tensor.file}: weight {name} is of type {tensor.dtype}, not floating point",
                hint="take the checkpoint from before it was quantised; neuronbert quantises by itself",
            )
        if not tensor.is_finite():
            raise CheckpointError(
                f"{tensor.file}: weight {name} holds NaN or Inf", hint="take another checkpoint of the training run"
            )


def _read_shards(index_path: Path, read: Callable[[Path], Tensors]) -> Tensors:
    weight_map = read_document(index_path, INDEX, DAMAGED, _MAX_HEADER_BYTES)["weight_map"]
    shards = sorted(set(weight_map.values()))
    missing = [name for name in shards if not is_there(index_path.parent / name, DAMAGED)]
    if missing:
        raise CheckpointError(
            f"{index_path.parent} lacks {_listed(missing)}, which {index_path.name} names",
            hint="fetch the missing files",
        )
    tensors: Tensors = {}
    for shard in shards:
        tensors.update(read(index_path.parent / shard))
    absent = sorted(set(weight_map) - set(tensors))
    if absent:
        raise DAMAGED.of(f"{index_path} promises {shown(absent[0])}, which none of its files holds")
    return {name: tensors[name] for name in weight_map}


def _read_pickles(folder: Path, allow_pickle: bool) -> Tensors:
    single, index = (folder / name for name in PICKLE_FILES)
    path = single if is_there(single, DAMAGED) else index
    if not is_there(path, DAMAGED):
        with readable(folder, DAMAGED):
            present = sorted(os.listdir(folder))
        raise CheckpointError(
            f"{folder} has no weights, neither {SINGLE_FILE} nor {PICKLE_FILES[0]}; it has {_listed(present)}",
            hint=_other_framework(present) or "put model.safetensors into the folder",
        )
    if not allow_pickle:
        raise CheckpointError(
            f"{path} is a pickle, which can run code when it is read, and there is no {SINGLE_FILE}",
            hint=f"--allow-pickle if you trust it, or convert it once: {conversion_command(folder)}",
        )
    _require_safe_torch(path)
    return _read_shards(index, _read_pickle) if path == index else _read_pickle(path)


def _listed(names: List[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "no files"


def _other_framework(names: List[str]) -> Optional[str]:
    if "tf_model.h5" in names or "flax_model.msgpack" in names:
        return "convert TensorFlow or Flax weights with transformers 4.x: from_pretrained(…, from_tf=True)"
    return None


def conversion_command(folder: Path) -> str:
    """A shell command that turns ``folder``'s pickle into model.safetensors (torch >= 2.6)."""
    code = (
        "import glob, torch, safetensors.torch as s; "
        f"d = {json.dumps(str(folder))}; "
        'files = sorted(glob.glob(glob.escape(d) + "/pytorch_model*.bin")); '
        "w = {k: v for p in files for k, v in torch.load(p, weights_only=True).items()}; "
        's.save_file({k: v.clone().contiguous() for k, v in w.items()}, d + "/model.safetensors", {"format": "pt"})'
    )
    return f"python -c {quoted(code)}"  # nothing in the name of a folder is for the shell


@optional_imports()
def _require_safe_torch(path: Path) -> None:
    """weights_only=True could be tricked into running code before torch 2.6 (CVE-2025-32434)."""
    import torch

    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < (2, 6):
        raise CheckpointError(
            f"{path} is a pickle, and torch {torch.__version__} cannot read one safely (2.6 and later can)",
            hint=f"convert it once on a machine with torch >= 2.6: {conversion_command(path.parent)}",
        )


@optional_imports()
def _read_pickle(path: Path) -> Tensors:
    import torch

    try:
        with open_regular(path, DAMAGED) as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, … for a damaged or hostile file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path} ({os.path.getsize(path)} bytes) is not a file of plain weights: {reason}", hint=_FETCH_AGAIN
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a dictionary of weights", hint=_FETCH_AGAIN)
    return from_state_dict(state, str(path))


@optional_imports()
def from_state_dict(state: Mapping[str, Tensor], where: str) -> Tensors:
    """Copies of torch tensors as StoredTensor, from any device; ``where`` is named in later errors."""
    import torch

    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    stored: Tensors = {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(
                f"{where}: {name} is a {type(tensor).__name__}, not a weight",
                hint="pass the model as it was before it was quantised or scripted",
            )
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        dtype = names.get(flat.dtype, str(flat.dtype))
        data = flat.view(torch.uint8).numpy().copy() if dtype in _FLOATS else np.zeros(0, np.uint8)
        stored[name] = StoredTensor(dtype, tuple(tensor.shape), data, where)
    return stored
