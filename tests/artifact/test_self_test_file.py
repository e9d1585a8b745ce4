"""A self-test file that compile never wrote is refused by name, before it takes memory or reaches an engine."""

import io
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.artifact.self_test_file import MAX_BYTES, read_self_test
from neuronbert.backends.outputs import PER_TOKEN, Output
from neuronbert.errors import ArtifactError

OUTPUTS = (Output("logits", PER_TOKEN), Output("pooled", "row"))
GOOD = {
    "input_ids": np.array([[2, 5, 3], [2, 3, 0]]),
    "attention_mask": np.array([[1, 1, 1], [1, 1, 0]]),
    "token_type_ids": np.array([[0, 0, 1], [0, 1, 0]]),
    "logits": np.arange(6, dtype=np.float32).reshape(2, 3),
    "pooled": np.ones((2, 4), np.float32),
}


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    config = {"model_type": "bert", "vocab_size": 10, "max_position_embeddings": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def saved(folder: Path, **changes) -> Path:
    arrays = {name: array for name, array in {**GOOD, **changes}.items() if array is not None}
    np.savez(folder / "selftest.npz", **arrays)
    return folder / "selftest.npz"


def test_outputs_with_more_in_them_than_the_task_s_are_refused(folder):
    """Such an artifact was loaded, and its first answer was a TypeError."""
    saved(folder, logits=np.ones((2, 3, 5), np.float32))
    with pytest.raises(ArtifactError, match=r"logits has the shape \(2, 3, 5\), for inputs of \(2, 3\)"):
        read_self_test(folder, (Output("logits", PER_TOKEN, ()), Output("pooled", "row", (4,))))
    with pytest.raises(ArtifactError, match=r"pooled has the shape \(2, 4\)"):
        read_self_test(folder, (Output("logits", PER_TOKEN, (5,)), Output("pooled", "row", (3,))))


def test_what_compile_writes_is_read(folder):
    saved(folder)
    batch, expected = read_self_test(folder, OUTPUTS)
    for name, array in {**batch._asdict(), **expected}.items():
        assert array.dtype == GOOD[name].dtype and np.array_equal(array, GOOD[name])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"logits": None}, "holds .*, not attention_mask.npy, input_ids.npy, logits.npy"),
        ({"more": np.zeros(1)}, "holds .*, not attention_mask.npy"),
        ({"input_ids": GOOD["input_ids"].astype(np.int32)}, "input_ids is of type int32, and must be int64"),
        ({"logits": GOOD["logits"].astype(np.float64)}, "logits is of type float64, and must be float32"),
        ({"logits": np.asfortranarray(np.ones((2, 3), np.float32))}, "logits is of type float32"),
        ({"input_ids": np.array([[2, 5, 3]])}, r"the inputs have the shapes .*, not one of \[rows, tokens\]"),
        ({name: np.array([1, 1]) for name in list(GOOD)[:3]}, r"the inputs have the shapes \[\(2,\)\]"),
        ({name: np.zeros((0, 3), np.int64) for name in list(GOOD)[:3]}, r"the inputs have the shapes \[\(0, 3\)\]"),
        ({"input_ids": GOOD["input_ids"] + 5}, "input_ids holds 5 to 10, the model has 0 to 9"),
        ({"input_ids": GOOD["input_ids"] - 1}, "input_ids holds -1 to 4"),
        ({"attention_mask": GOOD["attention_mask"] * 2}, "attention_mask holds 0 to 2, the model has 0 to 1"),
        ({"attention_mask": GOOD["attention_mask"] * 0}, "a row of attention_mask has no token"),
        ({"token_type_ids": GOOD["token_type_ids"] + 1}, "token_type_ids holds 1 to 2, the model has 0 to 1"),
        ({name: np.ones((2, 9), np.int64) for name in list(GOOD)[:3]}, "rows of 9 tokens, and this model has 8"),
        ({"logits": np.ones((2, 4), np.float32)}, r"logits has the shape \(2, 4\), for inputs of \(2, 3\)"),
        ({"pooled": np.ones((3, 4), np.float32)}, r"pooled has the shape \(3, 4\), for inputs of \(2, 3\)"),
        ({"pooled": np.ones((2, 0), np.float32)}, r"pooled has the shape \(2, 0\)"),
        ({"pooled": np.full((2, 4), np.nan, np.float32)}, "pooled holds NaN or Inf"),
        ({"logits": np.array([[{}]], dtype=object)}, "logits is of type object|no array|damaged"),
    ],
)
def test_arrays_that_are_no_self_test_are_refused(folder, changes, said):
    path = saved(folder, **changes)
    with pytest.raises(ArtifactError, match=said) as caught:
        read_self_test(folder, OUTPUTS)
    assert caught.value.message.startswith(str(path)) and caught.value.hint


def with_header(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    "array",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x02\x00" + bytes(200),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000, 10000000000), }\n", bytes(24)),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3), }\n", bytes(24)),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': 6, }\n", bytes(24)),
        with_header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }\n", bytes(24)),
        with_header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }\n", bytes(24)),
        with_header("(" * 900 + "\n"),
        with_header("-" * 900 + "1\n"),
        with_header("__import__('os').abort()\n"),
        with_header("{" + " " * 5000 + "}\n"),
    ],
)
def test_an_array_that_numpy_never_wrote_is_refused(folder, array):
    path = saved(folder)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in {**members, "logits.npy": array}.items():
            archive.writestr(name, raw)
    with pytest.raises(ArtifactError, match="selftest.npz"):
        read_self_test(folder, OUTPUTS)


def test_what_is_packed_is_not_unpacked(folder):
    with zipfile.ZipFile(folder / "selftest.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in GOOD:
            archive.writestr(f"{name}.npy", bytes(1 << 26))
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=r"input_ids.npy is packed, and compile packs nothing"):
        read_self_test(folder, OUTPUTS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 24


def test_an_archive_with_one_name_twice_is_refused(folder):
    path = saved(folder)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("logits.npy", b"")
    with pytest.raises(ArtifactError, match="not attention_mask.npy"):
        read_self_test(folder, OUTPUTS)


def test_a_file_too_large_is_not_read(folder):
    with open(folder / "selftest.npz", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ArtifactError, match="make no sense for it"):
        read_self_test(folder, OUTPUTS)


def test_a_missing_file_is_missing(folder):
    with pytest.raises(ArtifactError, match="selftest.npz is missing"):
        read_self_test(folder, OUTPUTS)


WRITTEN = io.BytesIO()
np.savez(WRITTEN, **GOOD)


@given(st.integers(0, len(WRITTEN.getvalue()) - 1), st.integers(0, 255), st.booleans())
def test_any_changed_byte_or_cut_is_read_or_refused(tmp_path_factory, place, value, cut):
    raw = WRITTEN.getvalue()
    folder = tmp_path_factory.mktemp("changed")
    (folder / "config.json").write_text("{}")
    (folder / "selftest.npz").write_bytes(raw[:place] if cut else raw[:place] + bytes([value]) + raw[place + 1 :])
    try:
        read_self_test(folder, OUTPUTS)
    except ArtifactError as error:
        assert "selftest.npz" in error.message
