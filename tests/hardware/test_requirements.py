import sys

import pytest
from fake_nvml import T4, UNSLICED, Card, use_gpus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuronbert.hardware import requirements
from neuronbert.hardware.machine import VNNI
from neuronbert.hardware.requirements import gpus_that_meet, installs, unmet_requirements, version_meets

# A busy machine is no failure.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("version", "specifier", "met"),
    [
        ("2024.4.1", ">=2024.4", True),
        ("2024.3", ">=2024.4", False),
        ("2024.10", ">=2024.9", True),  # not as text
        ("2.13.0+cpu", ">=2.4,<3", True),
        ("3.0", ">=2.4,<3", False),
        ("1.13.1.2.11.13.0", "==1.13.1.*", True),
        ("1.0.post1", ">=1.13", False),
        ("1.13", "==1.13.0", True),
        ("1.13.1", "!=1.13.*", False),
        ("1.14", "~=1.13", True),
        ("2.0", "~=1.13", False),
        ("1.13.5", "~=1.13.1", True),
        ("1.14.0", "~=1.13.1", False),
        ("1.12", "<=1.12.0", True),
        ("1.12.1", ">1.12", True),
        ("anything", "", True),
    ],
)
def test_version_meets(version, specifier, met):
    assert version_meets(version, specifier) is met


@UNTIMED
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.sampled_from([">=", "<=", "==", "!=", ">", "<"]),
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
)
def test_version_meets_agrees_with_packaging(release, operator, bound):
    specifiers = pytest.importorskip("packaging.specifiers")
    version, clause = ".".join(map(str, release)), operator + ".".join(map(str, bound))
    assert version_meets(version, clause) == specifiers.SpecifierSet(clause).contains(version)


def test_a_requirement_that_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="not a version requirement: '2024'"):
        version_meets("1.0", "2024")


def test_unmet_requirements_in_words(monkeypatch):
    monkeypatch.setattr(requirements, "cpu_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr(requirements, "library_version", {"openvino": "2023.1"}.get)
    monkeypatch.delenv("NEURONBERT_EMULATE", raising=False)
    requires = {
        "cpu_flags": ["avx2", VNNI],
        "libraries": {"openvino": ">=2024.4", "torch": ">=2"},
        "device": "tpu",
        "moon": "full",
    }
    assert unmet_requirements(requires) == [
        "a CPU with avx512_vnni or avx_vnni",
        "openvino >=2024.4 (installed: 2023.1)",
        "torch >=2 (not installed)",
        "a device of kind 'tpu', which this version does not know",
        "a requirement this version does not know: 'moon' = 'full'",
    ]


def test_nothing_is_unmet_where_all_is_there(monkeypatch):
    monkeypatch.setattr(requirements, "cpu_flags", lambda: frozenset({"avx_vnni"}))
    requires = {"cpu_flags": [VNNI], "libraries": {"numpy": ">=1.20"}, "device": "cpu"}
    assert unmet_requirements(requires) == []
    assert unmet_requirements({}) == []


def test_a_device_and_its_emulation_are_not_the_same(monkeypatch):
    monkeypatch.setenv("NEURONBERT_EMULATE", "inf1.xlarge")
    assert unmet_requirements({"device": "neuron-emulated"}) == []
    assert unmet_requirements({"device": "neuron"}) == [
        "a real Inferentia device (NEURONBERT_EMULATE=inf1.xlarge stands in for it)"
    ]
    monkeypatch.delenv("NEURONBERT_EMULATE")
    assert unmet_requirements({"device": "neuron-emulated"}) == [
        "the emulated device it was compiled on (NEURONBERT_EMULATE=inf1.xlarge)"
    ]
    monkeypatch.setattr(requirements, "has_inferentia", lambda: False)
    assert unmet_requirements({"device": "neuron"}) == ["an Inferentia device (/dev/neuron0 does not exist)"]
    monkeypatch.setattr(requirements, "has_inferentia", lambda: True)
    assert unmet_requirements({"device": "neuron"}) == []


H100 = Card("GPU-h100")
FOR_GPU = {
    "libraries": {"nvidia-ml-py": ">=12.535"},
    "device": "cuda",
    "compute_capability": ">=8.0",
}


@pytest.fixture()
def installed(monkeypatch):
    versions = {"nvidia-ml-py": "12.535.161"}
    monkeypatch.setattr(requirements, "library_version", versions.get)
    return versions


@pytest.mark.parametrize(
    ("cards", "more", "visible", "unmet"),
    [
        ([H100], {}, None, []),
        ([T4, H100], {}, None, []),
        ([], {}, None, ["an NVIDIA GPU (/dev/nvidia0 does not exist: no driver is loaded, or this container was given "
                        "no GPU)"]),
        ([H100], {"fault": "Driver/library version mismatch"}, None,
         ["an NVIDIA GPU (the driver cannot be asked: Driver/library version mismatch)"]),
        ([T4], {}, None,
         ["a GPU of compute capability >=8.0 (there is Tesla T4 (compute capability 7.5, 16.0 GiB))"]),
        ([T4, H100], {}, "0",
         ["a GPU of compute capability >=8.0 (there is Tesla T4 (compute capability 7.5, 16.0 GiB))"]),
        ([H100], {}, "", ["an NVIDIA GPU (CUDA_VISIBLE_DEVICES='' hides 1 GPU of this machine)"]),
        ([UNSLICED], {}, None, ["an NVIDIA GPU (1 GPU in MIG mode without slices)"]),
    ],
)  # fmt: skip
def test_what_a_variant_for_gpus_lacks(monkeypatch, installed, cards, more, visible, unmet):
    use_gpus(monkeypatch, *cards, **more)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert unmet_requirements(FOR_GPU) == unmet
    assert installs(FOR_GPU) == []


@pytest.mark.parametrize("libraries", [{}, {"nvidia-ml-py": ">=12.535"}])
def test_the_library_that_asks_the_driver_is_all_that_is_missing(monkeypatch, installed, libraries):
    """Whether or not the manifest names it: without it nobody knows what else there is."""
    use_gpus(monkeypatch, H100)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    installed.clear()
    requires = {**FOR_GPU, "libraries": libraries}
    (one,) = unmet_requirements(requires)
    assert one.startswith("nvidia-ml-py") and one.endswith("(not installed)")
    assert installs(requires) == ["nvidia-ml-py"]
    use_gpus(monkeypatch)
    assert len(unmet_requirements(requires)) == 2 and installs(requires) == []


def test_the_gpus_that_meet_a_capability_are_told_from_the_others(monkeypatch):
    use_gpus(monkeypatch, T4, H100)
    assert [gpu.identifier for gpu in gpus_that_meet(FOR_GPU)] == ["GPU-h100"]
    assert [gpu.identifier for gpu in gpus_that_meet({"compute_capability": ">=7.0"})] == ["GPU-t4", "GPU-h100"]
    assert [gpu.identifier for gpu in gpus_that_meet({})] == ["GPU-t4", "GPU-h100"]
