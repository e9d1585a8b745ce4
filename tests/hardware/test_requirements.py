import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuronbert.hardware import requirements
from neuronbert.hardware.machine import VNNI
from neuronbert.hardware.requirements import unmet_requirements, version_meets

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
