"""What doctor says of NVIDIA GPUs, their driver and torch, on machines that are made up."""

import configparser
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_nvml import A100, SLICED, T4, UNSLICED, Card, use_gpus
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.backends import backend_module
from neuronbert.cli.doctor.examination import CHECKS, examine
from neuronbert.cli.doctor.facts import CUDA, ENGINES, Facts, gather
from neuronbert.cli.doctor.machine_checks import FAIL, OK, WARN
from neuronbert.hardware import cuda, machine

LIBRARIES = {"torch": "2.9.0+cu128", "triton": "3.5.0", "nvidia-ml-py": "13.580.65", "safetensors": "0.6.2"}
CHECK_NAMES = ("gpu", "gpu env", "torch cuda")
H100 = Card("GPU-h100")


@pytest.fixture()
def machine_with(monkeypatch):
    """Builds the facts that doctor gathers on a machine with these cards, its other facts as they are by default."""

    def facts(*cards, libraries=LIBRARIES, torch_cuda="12.8", **more):
        environ = more.pop("environ", {})
        use_gpus(monkeypatch, *cards, **more)
        if "nvidia-ml-py" not in libraries:
            monkeypatch.setitem(sys.modules, "pynvml", None)
        monkeypatch.setattr(cuda, "count_cards", lambda: len(cards))
        monkeypatch.setattr(cuda, "torch_cuda_version", lambda: torch_cuda)
        monkeypatch.setattr(machine, "library_versions", lambda names: dict(libraries))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return gather()

    return facts


def test_the_bounds_are_those_of_the_backend():
    assert CUDA == backend_module("cuda").REQUIREMENTS


def found_by(facts: Facts, name: str):
    return CHECKS[name](facts)


def without(*names):
    return {"libraries": {name: version for name, version in LIBRARIES.items() if name not in names}}


def with_(**versions):
    return {"libraries": {**LIBRARIES, **versions}}


def env(**variables):
    return {"environ": variables}


def test_a_healthy_machine_with_gpus_has_nothing_to_mend(machine_with):
    facts = machine_with(H100, H100._replace(uuid="GPU-other"), SLICED)
    checks = [found_by(facts, name) for name in CHECK_NAMES]
    assert {check.status for check in checks} == {OK}
    assert [check.found for check in checks] == [
        "2 × NVIDIA H100 80GB HBM3 (compute capability 9.0, 80.0 GiB), 2 × NVIDIA A100-SXM4-40GB MIG 1g.5gb (compute "
        "capability 8.0, 5.0 GiB); driver 570.86.15, which runs CUDA up to 12.8",
        "none set: every GPU",
        "torch 2.9.0+cu128 for CUDA 12.8, triton 3.5.0",
    ]


def test_a_machine_without_gpus_lacks_nothing(machine_with):
    facts = machine_with(torch_cuda=None, libraries={"torch": "2.9.0+cpu"})
    checks = [found_by(facts, name) for name in CHECK_NAMES]
    assert [(check.status, check.mend) for check in checks] == [(OK, None)] * 3
    assert checks[2].found == "torch 2.9.0+cpu, built without CUDA; no GPU to use it"


CASES = [
    ("gpu", [H100], {"files": 0}, WARN, "1 NVIDIA GPU on the PCI bus and no /dev/nvidia0", "docker run --gpus all"),
    ("gpu", [H100], without("nvidia-ml-py"), WARN, "nvidia-ml-py is not installed, which asks it for more",
     'pip install "neuronbert[cuda]"'),
    ("gpu", [H100], {"fault": "Driver/library version mismatch"}, FAIL, "cannot be asked: Driver/library version mism",
     "sudo reboot"),
    ("gpu", [H100, UNSLICED], {}, WARN, "GPU 1 (NVIDIA A100-SXM4-40GB) is in MIG mode and has no slices",
     "sudo nvidia-smi mig -i 1 -cgi PROFILE -C"),
    ("gpu", [H100], {"cuda_version": 13010}, OK, "runs CUDA up to 13.1", None),
    ("gpu env", [H100], env(CUDA_VISIBLE_DEVICES=""), WARN, "CUDA_VISIBLE_DEVICES='' hides 1 GPU",
     "unset CUDA_VISIBLE_DEVICES"),
    ("gpu env", [H100, SLICED], env(CUDA_VISIBLE_DEVICES="7"), WARN, "CUDA_VISIBLE_DEVICES='7' hides 3 GPUs", "unset"),
    ("gpu env", [H100, T4], env(CUDA_VISIBLE_DEVICES="1"), WARN, "CUDA counts them from the fastest",
     "export CUDA_DEVICE_ORDER=PCI_BUS_ID"),
    ("gpu env", [H100, T4], env(CUDA_VISIBLE_DEVICES="1", CUDA_DEVICE_ORDER="PCI_BUS_ID"), OK, "'1': Tesla T4", None),
    ("gpu env", [H100, T4], env(CUDA_VISIBLE_DEVICES="GPU-t4"), OK, "'GPU-t4': Tesla T4", None),
    ("gpu env", [H100, H100._replace(uuid="GPU-2")], env(CUDA_VISIBLE_DEVICES="1"), OK, "'1': NVIDIA H100", None),
    ("gpu env", [], env(CUDA_VISIBLE_DEVICES="0"), OK, "CUDA_VISIBLE_DEVICES='0'", None),
    ("torch cuda", [H100], without("torch", "safetensors"), WARN,
     "safetensors is not installed; torch is not installed, so nothing", '"neuronbert[cuda]"'),
    ("torch cuda", [H100], with_(torch="2.3.1+cu121"), WARN, "torch 2.3.1+cu121 is too old, >=2.4 is needed",
     '"neuronbert[cuda]"'),
    ("torch cuda", [H100], without("safetensors"), WARN, "safetensors is not installed", '"neuronbert[cuda]"'),
    ("torch cuda", [H100], without("triton"), OK, "torch 2.9.0+cu128 for CUDA 12.8, without triton", None),
    # Minor versions of one major version run on each other's drivers.
    ("torch cuda", [H100], {"torch_cuda": "12.9"}, OK, "for CUDA 12.9", None),
    ("torch cuda", [H100], {"torch_cuda": "11.8", "cuda_version": 13000}, OK, "for CUDA 11.8", None),
    ("torch cuda", [H100], {"torch_cuda": "13.0"}, FAIL,
     "driver 570.86.15 runs CUDA up to 12.8 and is too old for torch 2.9.0+cu128 for CUDA 13.0", "/whl/cu128, or inst"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "cards", "more", "status", "found", "mend"), CASES)
def test_what_each_check_finds(machine_with, name, cards, more, status, found, mend):
    result = found_by(machine_with(*cards, **more), name)
    assert (result.name, result.status) == (name, status), result
    assert found in result.found
    assert (result.mend is None) if mend is None else (mend in result.mend)


@pytest.mark.parametrize(
    ("runs", "index"),
    [(11080, "whl/cu118"), (12000, "whl/cu126"), (12070, "whl/cu126"), (12080, "whl/cu128"), (13000, "whl/cu130"),
     (14020, "whl/cu130"), (11020, None)],
)  # fmt: skip
def test_a_torch_without_cuda_is_replaced_by_one_that_the_driver_runs(machine_with, runs, index):
    facts = machine_with(H100, torch_cuda=None, cuda_version=runs, **with_(torch="2.13.0+cpu"))
    check = found_by(facts, "torch cuda")
    assert check.status == WARN and "torch 2.13.0+cpu, built without CUDA" in check.found
    command = 'python -m pip install --force-reinstall "torch>=2.4"'
    assert check.mend == (f"{command} --index-url https://download.pytorch.org/{index}" if index else command)


def test_a_machine_that_answers_on_gpus_needs_no_engine_for_cpus(machine_with):
    for name in ENGINES:
        assert found_by(machine_with(A100), name).found == "not installed (torch for GPUs is)"
        assert found_by(machine_with(A100, torch_cuda=None), name).status == FAIL
        assert found_by(machine_with(torch_cuda="12.8"), name).status == FAIL


def test_what_is_sent_along_names_the_gpus(machine_with):
    document = json.loads(json.dumps(examine(machine_with(SLICED)).as_dict()))
    (device,) = document["nvidia"]["devices"]
    assert device["in_mig_mode"] and [gpu["identifier"] for gpu in device["usable"]] == ["MIG-1", "MIG-2"]
    assert document["nvidia"]["cuda"] == [12, 8] and document["torch_cuda"] == "12.8"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_no_value_of_the_variable_breaks_a_check(value):
    device = cuda.Device("GPU-1", "A", False, (cuda.Gpu("GPU-1", "A", (8, 0), 0),))
    facts = Facts(nvidia=cuda.Driver("1", (12, 8), (device,)), nvidia_files=("/dev/nvidia0",))
    found = CHECKS["gpu env"](replace(facts, environ={"CUDA_VISIBLE_DEVICES": value}))
    assert found.status in (OK, WARN)


def test_the_bounds_are_those_of_setup_cfg():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).resolve().parents[2] / "setup.cfg", encoding="utf-8")
    lines = setup["options.extras_require"]["cuda"].split()
    assert dict(re.fullmatch(r"([\w-]+)(>=.*)", line).groups() for line in lines) == CUDA
