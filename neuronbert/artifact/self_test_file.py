"""Reads selftest.npz: the inputs and FP32 outputs with which engine/loading.py tests every load.

Not by numpy.load, which inflates what is packed and makes room for whatever shape a file claims.
"""

import io
import math
import zipfile
from pathlib import Path
from typing import Dict, NamedTuple, Sequence, Tuple

import numpy as np

from neuronbert.artifact.manifest import DAMAGED, SELFTEST_NAME
from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import PER_TOKEN, Output, Outputs
from neuronbert.checkpoint.config import read_config
from neuronbert.checkpoint.families import Config, family_like, size_of
from neuronbert.errors import ArtifactError
from neuronbert.hardware.schema import shown
from neuronbert.hardware.untrusted import MEBIBYTE, read_file

MAX_BYTES = 32 * MEBIBYTE
# Of the text before an array's bytes: numpy writes about 120, and evaluates what is there.
MAX_HEADER_BYTES = 1024
MAGIC = b"\x93NUMPY\x01\x00"


class SelfTest(NamedTuple):
    """A batch, and the FP32 outputs of the reference for it."""

    batch: Batch
    expected: Outputs


def read_self_test(folder: Path, outputs: Sequence[Output]) -> SelfTest:
    """The self-test of the artifact in ``folder``, whose task returns ``outputs``.

    ArtifactError for a file that compile never wrote: arrays missing or of other names, types, shapes or sizes, token
    ids that the model does not have, outputs that are not finite.
    """
    path = folder / SELFTEST_NAME
    try:
        raw = read_file(path, DAMAGED, MAX_BYTES, links=False)
    except FileNotFoundError:
        raise DAMAGED.of(f"{path} is missing") from None
    arrays = _arrays(path, raw, [*Batch._fields, *(output.name for output in outputs)])
    batch = Batch(*(arrays[name] for name in Batch._fields))
    _refuse_odd_batch(path, batch, read_config(folder) or {})
    expected = {output.name: arrays[output.name] for output in outputs}
    for output in outputs:
        _refuse_odd_output(path, output, expected[output.name], batch.input_ids.shape)
    return SelfTest(batch, expected)


def _arrays(path: Path, raw: bytes, names: Sequence[str]) -> Dict[str, np.ndarray]:
    """The arrays in the archive, which must have these ``names`` and no others."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = {member.filename: member for member in archive.infolist()}
            wanted = {f"{name}.npy": name for name in names}
            if set(members) != set(wanted) or len(archive.infolist()) != len(wanted):
                raise DAMAGED.of(f"{path} holds {shown(sorted(members))}, not {', '.join(sorted(wanted))}")
            packed = [name for name, member in members.items() if member.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise DAMAGED.of(f"{path}: {packed[0]} is packed, and compile packs nothing")
            return {name: _array(path, name, archive.read(members[file])) for file, name in wanted.items()}
    except ArtifactError:
        raise
    except Exception as error:  # zipfile raises what its parts raise, down to struct.error
        raise DAMAGED.of(f"{path} is truncated or damaged: {error or type(error).__name__}") from error


def _array(path: Path, name: str, raw: bytes) -> np.ndarray:
    start = len(MAGIC) + 2 + int.from_bytes(raw[len(MAGIC) : len(MAGIC) + 2], "little")
    if not raw.startswith(MAGIC) or start > min(len(raw), MAX_HEADER_BYTES):
        raise DAMAGED.of(f"{path}: {name} is no array as numpy writes it")
    file = io.BytesIO(raw)
    file.seek(len(MAGIC))
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    wanted = np.dtype("<i8") if name in Batch._fields else np.dtype("<f4")
    if fortran or dtype != wanted:
        raise DAMAGED.of(f"{path}: {name} is of type {dtype}, and must be {wanted.name}")
    if math.prod(shape) * dtype.itemsize != len(raw) - start:
        raise DAMAGED.of(f"{path}: {name} says it has the shape {shown(shape)}, and takes {len(raw) - start} bytes")
    return np.frombuffer(raw, dtype, offset=start).reshape(shape)


def _refuse_odd_batch(path: Path, batch: Batch, config: Config) -> None:
    shapes = {field.shape for field in batch}
    if len(shapes) != 1 or batch.input_ids.ndim != 2 or not batch.input_ids.size:
        raise DAMAGED.of(f"{path}: the inputs have the shapes {shown(sorted(shapes))}, not one of [rows, tokens]")
    family = family_like(config)
    # A model that has fewer kinds than two does not read them.
    kinds = max(2, size_of(config, family, "type_vocab_size"))
    counts = (size_of(config, family, "vocab_size"), 2, kinds)
    for name, field, count in zip(Batch._fields, batch, counts):
        if field.min() < 0 or field.max() >= count:
            raise DAMAGED.of(f"{path}: {name} holds {field.min()} to {field.max()}, the model has 0 to {count - 1}")
    if not batch.attention_mask.any(axis=1).all():
        raise DAMAGED.of(f"{path}: a row of attention_mask has no token")
    positions = size_of(config, family, "max_position_embeddings")
    if batch.input_ids.shape[1] > positions:
        raise DAMAGED.of(f"{path}: rows of {batch.input_ids.shape[1]} tokens, and this model has {positions} positions")


def _refuse_odd_output(path: Path, output: Output, array: np.ndarray, shape: Tuple[int, ...]) -> None:
    rows, tokens = shape
    is_cut = output.per == PER_TOKEN and array.shape[1:2] != (tokens,)
    if is_cut or not output.fits(array.shape, rows, tokens) or not array.size:
        raise DAMAGED.of(f"{path}: {output.name} has the shape {array.shape}, for inputs of {shape}")
    if not np.isfinite(array).all():
        raise DAMAGED.of(f"{path}: {output.name} holds NaN or Inf")
