"""What the driver says of GPUs, and what CUDA_VISIBLE_DEVICES leaves of them."""

import inspect
import sys
from pathlib import Path
from typing import List, Optional

import pytest
from fake_nvml import A100, GIB, SLICED, T4, UNSLICED, Card, fake_pynvml, use_gpus
from hypothesis import example, given
from hypothesis import strategies as st

from neuronbert.hardware import cuda
from neuronbert.hardware.cuda import (
    Device,
    Gpu,
    count_cards,
    driver_version,
    gpu_records,
    gpus_in_words,
    has_gpu,
    left_by,
    torch_cuda_version,
    visible_entries,
    visible_gpus,
    why_no_gpu,
)

H100 = Card("GPU-h100")


def test_the_fake_has_the_functions_of_the_real_library() -> None:
    real = pytest.importorskip("pynvml")
    for name, fake in vars(fake_pynvml([])).items():
        if name.startswith("nvml"):
            needed = len(inspect.signature(fake).parameters)
            taken = inspect.signature(getattr(real, name)).parameters.values()
            required = [one for one in taken if one.default is one.empty]
            assert len(required) <= needed <= len(taken), name
        elif name.startswith("NVMLError"):
            assert issubclass(getattr(real, name), real.NVMLError)
    assert real.NVML_DEVICE_MIG_ENABLE == fake_pynvml([]).NVML_DEVICE_MIG_ENABLE


def test_a_gpu_is_what_the_driver_says_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    use_gpus(monkeypatch, H100, T4)
    assert visible_gpus() == [
        Gpu("GPU-h100", "NVIDIA H100 80GB HBM3", (9, 0), 80 * GIB, 0),
        Gpu("GPU-t4", "Tesla T4", (7, 5), 16 * GIB, 1),
    ]
    assert [gpu.capability for gpu in visible_gpus()] == ["9.0", "7.5"]
    assert has_gpu() and why_no_gpu() is None
    assert (driver_version(), cuda.ask_driver().cuda) == ("570.86.15", (12, 8))


def test_a_gpu_in_mig_mode_is_its_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    use_gpus(monkeypatch, H100, SLICED)
    assert [(gpu.identifier, gpu.number) for gpu in visible_gpus()] == [("GPU-h100", 0), ("MIG-1", 1), ("MIG-2", 1)]
    one = visible_gpus({"CUDA_VISIBLE_DEVICES": "MIG-2"})
    assert one == [Gpu("MIG-2", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", (8, 0), 5 * GIB, 1)]


def test_a_gpu_that_could_be_sliced_and_is_not_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    use_gpus(monkeypatch, A100)
    assert [gpu.identifier for gpu in visible_gpus()] == ["GPU-a100"]


def test_memory_that_the_driver_does_not_say_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    use_gpus(monkeypatch, H100._replace(memory_bytes=None))
    assert gpus_in_words(gpu_records()) == "NVIDIA H100 80GB HBM3 (compute capability 9.0)"


@pytest.mark.parametrize(
    ("cards", "more", "visible", "words"),
    [
        ([], {}, None, "/dev/nvidia0 does not exist: no driver is loaded, or this container was given no GPU"),
        ([], {"files": 1}, None, "the driver lists none"),
        ([H100], {"fault": "Driver/library version mismatch"}, None,
         "the driver cannot be asked: Driver/library version mismatch"),
        ([UNSLICED], {}, None, "1 GPU in MIG mode without slices"),
        ([H100, SLICED], {}, "", "CUDA_VISIBLE_DEVICES='' hides 3 GPUs of this machine"),
        ([H100], {}, "1", "CUDA_VISIBLE_DEVICES='1' hides 1 GPU of this machine"),
    ],
)  # fmt: skip
def test_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, cards, more, visible, words) -> None:
    use_gpus(monkeypatch, *cards, **more)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == [] and why_no_gpu() == words


def test_a_driver_whose_library_for_python_is_missing_still_shows_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    use_gpus(monkeypatch, H100)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert has_gpu() and visible_gpus() == []
    assert why_no_gpu() == "the driver cannot be asked: nvidia-ml-py is not installed"


def test_the_driver_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    use_gpus(monkeypatch, H100)
    assert visible_gpus()
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml([], fault="asked again"))
    assert visible_gpus()


def test_gpus_in_words() -> None:
    record = {"name": "NVIDIA L4", "compute_capability": "8.9", "memory_bytes": 24 * GIB}
    other = {"name": "Tesla T4", "compute_capability": "7.5", "memory_bytes": 16 * GIB}
    assert gpus_in_words([record, other, record]) == (
        "2 × NVIDIA L4 (compute capability 8.9, 24.0 GiB), Tesla T4 (compute capability 7.5, 16.0 GiB)"
    )
    assert gpus_in_words([]) == ""


def test_the_cards_on_the_bus_are_counted_without_a_driver(tmp_path: Path) -> None:
    # A GPU, its sound device, a GPU for computing only, and one of another vendor.
    ids = [("0x10de", "0x030000"), ("0x10de", "0x040300"), ("0x10de", "0x030200"), ("0x1002", "0x030000")]
    for number, (vendor, kind) in enumerate(ids):
        folder = tmp_path / f"0000:00:0{number}.0"
        folder.mkdir()
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    assert count_cards(tmp_path) == 2
    assert count_cards(tmp_path / "none") == 0


# ---- CUDA_VISIBLE_DEVICES


def devices(*identifiers: str) -> List[Device]:
    return [Device(one, "", False, (Gpu(one, "", (9, 0), 0, number),)) for number, one in enumerate(identifiers)]


FOUR = devices("GPU-aa1", "GPU-ab2", "GPU-ab3", "GPU-c44")


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        (" 1 ,3", [1, 3]),
        ("+1,03", [1, 3]),
        ("1st,2nd", [1, 2]),
        ("0,4,1", [0]),
        ("0,-1,1", [0]),
        ("0,x,1", [0]),
        ("0,,1", [0]),
        ("1,1", []),
        ("1,01", []),
        ("none", []),
        ("GPU-c,GPU-aa", [3, 0]),
        ("GPU-ab,GPU-c", []),  # of two: nobody can tell which
        ("GPU-aa,GPU-ab,GPU-c", [0]),
        ("GPU-c,1", [3]),
        ("1,GPU-c", [1]),
        ("GPU-c,GPU-c44", []),
        ("GPU-dd", []),
        ("MIG-1", []),
        ("9" * 5000, []),
    ],
)
def test_what_a_value_leaves(value: Optional[str], numbers: List[int]) -> None:
    assert [gpu.number for gpu in left_by(value, FOUR)] == numbers


@pytest.mark.parametrize(
    ("value", "identifiers"),
    [
        (None, ["GPU-h100", "MIG-1", "MIG-2"]),
        ("1", ["MIG-1", "MIG-2"]),
        ("GPU-a", ["MIG-1", "MIG-2"]),
        ("MIG-2,MIG-1", ["MIG-2", "MIG-1"]),
        ("MIG-2,0", ["MIG-2"]),
        ("MIG-", []),
        ("MIG-GPU", []),
    ],
)
def test_what_a_value_leaves_of_slices(monkeypatch: pytest.MonkeyPatch, value: Optional[str], identifiers) -> None:
    use_gpus(monkeypatch, H100, SLICED)
    assert [gpu.identifier for gpu in left_by(value, cuda.ask_driver().devices)] == identifiers


# What torch can read: it raises for a sign alone.
ENTRY = st.one_of(
    st.integers(-1, 5).map(str),
    st.sampled_from(["", " 2", "3x", "+1", "-0", "00", "x", "GPU-", "GPU-a", "GPU-aa1", "GPU-ab", "GPU-ab3", "GPU-c",
                     "GPU-zz", "gpu-c", "MIG-1"]),
)  # fmt: skip


@given(st.lists(ENTRY, max_size=5).map(",".join))
@example("0,9,9")
@example("GPU-c,GPU-zz,GPU-zz")
def test_a_value_is_read_as_torch_reads_it(value: str) -> None:
    """torch reads it without CUDA too, to count GPUs before a process has any."""
    torch_cuda = pytest.importorskip("torch.cuda")
    if not hasattr(torch_cuda, "_transform_uuid_to_ordinals"):
        pytest.skip("this torch leaves the reading to CUDA")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", value)
        entries = torch_cuda._parse_visible_devices()
    if entries and isinstance(entries[0], str):
        expected = torch_cuda._transform_uuid_to_ordinals(entries, [device.identifier for device in FOUR])
    else:
        bad = [place for place, number in enumerate(entries) if number >= len(FOUR)]
        expected = entries[: bad[0]] if bad else entries
    assert [gpu.number for gpu in left_by(value, FOUR)] == expected


@given(st.text(), st.lists(st.text("ab-1", min_size=1, max_size=3), max_size=4, unique=True))
def test_any_value_leaves_each_gpu_once_at_most_and_none_that_is_not_there(value: str, ends: List[str]) -> None:
    there = devices(*(f"GPU-{end}" for end in ends))
    for text in (value, f"GPU-{value}", f"MIG-{value}"):
        left = left_by(text, there)
        assert len(left) == len(set(left)) <= len(there)
        assert set(left) <= {gpu for device in there for gpu in device.usable}


@given(st.permutations(range(4)), st.integers(0, 4))
def test_a_list_of_what_is_there_is_read_in_its_order(order: List[int], count: int) -> None:
    chosen = order[:count]
    assert [gpu.number for gpu in left_by(",".join(map(str, chosen)), FOUR)] == chosen
    by_uuid = left_by(",".join(FOUR[number].identifier for number in chosen), FOUR)
    assert [gpu.number for gpu in by_uuid] == chosen
    # What a worker is given is what it finds.
    assert all(left_by(gpu.identifier, FOUR) == [gpu] for gpu in by_uuid)


def test_entries_are_of_one_kind() -> None:
    assert visible_entries("GPU-a,MIG-b") == ["GPU-a"]
    assert visible_entries("MIG-b,GPU-a") == ["MIG-b"]


# ---- torch


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "__version__ = '2.9.0+cu128'\ndebug = False\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n",
            "12.8",
        ),
        ("__version__ = '1.13.1'\ncuda = \"11.7\"\n", "11.7"),
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", None),
        ("__version__ = '2.9.0+rocm6.4'\ncuda: Optional[str] = None\nhip: Optional[str] = '6.4'\n", None),
        ("", None),
    ],
)
def test_the_cuda_of_torch_is_read_from_its_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, version: Optional[str]
) -> None:
    (tmp_path / "torch-1.dist-info").mkdir()
    (tmp_path / "torch-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1\n")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert torch_cuda_version() == version


def test_where_there_is_no_torch_it_has_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert torch_cuda_version() is None


def test_the_installed_torch_says_the_same_of_itself() -> None:
    torch = pytest.importorskip("torch")
    assert torch_cuda_version() == torch.version.cuda
