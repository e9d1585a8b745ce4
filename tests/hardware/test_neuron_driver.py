"""What the Neuron driver and tools say: core variables, and the chips on the PCI bus."""

import re
from pathlib import Path
from typing import List, Optional

import pytest

from neuronbert.hardware.neuron import (
    PACKAGE_COMMANDS,
    CoreHolder,
    core_holders,
    count_inferentia_chips,
    neuron_install_command,
    neuron_install_hint,
    package_manager,
    parse_visible_cores,
    run_neuron_ls,
)
from neuronbert.hardware.requirements import version_meets


@pytest.mark.parametrize(
    ("value", "cores"),
    [
        ("0", [0]),
        ("0-3", [0, 1, 2, 3]),
        ("3-5,6", [3, 4, 5, 6]),
        ("3,2", None),
        ("0-1,1", None),
        ("5-4", None),
        ("a", None),
        ("", None),
        ("0-999999999", None),
    ],
)
def test_parse_visible_cores(value: str, cores: Optional[List[int]]) -> None:
    assert parse_visible_cores(value) == cores


def test_inferentia_chips_are_counted_on_the_pci_bus(tmp_path: Path) -> None:
    for number, (vendor, device) in enumerate([("0x1d0f", "0x7064"), ("0x1d0f", "0x7264"), ("0x8086", "0x7064")]):
        folder = tmp_path / f"0000:00:{number}"
        folder.mkdir()
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "device").write_text(device + "\n")
    assert count_inferentia_chips(tmp_path) == 1
    assert count_inferentia_chips(tmp_path / "absent") == 0


@pytest.mark.parametrize(
    ("printed", "holders"),
    [
        ('[{"neuron_device": 1, "neuron_processes": [{"pid": 42, "command": "serve"}]}]', [CoreHolder(1, 42, "serve")]),
        ('[{"neuron_device": 0, "neuron_processes": null}]', []),
        ('{"neuron_device": 0}', None),
        ("error: no devices", None),
    ],
)
def test_the_holders_of_cores_are_those_that_neuron_ls_lists(printed: str, holders: Optional[List[CoreHolder]]) -> None:
    assert core_holders(printed) == holders


def test_neuron_ls_is_run_where_there_is_one_and_says_what_it_says(tmp_path: Path) -> None:
    tool = tmp_path / "neuron-ls"
    assert run_neuron_ls(str(tool)) is None
    tool.write_text('#!/bin/sh\necho "asked $1"\n')
    tool.chmod(0o755)
    assert run_neuron_ls(str(tool)) == "asked -j\n"
    tool.chmod(0o644)
    assert "PermissionError" in str(run_neuron_ls(str(tool)))


def test_how_to_install_it_depends_on_the_python():
    assert neuron_install_hint((3, 10)).startswith('python -m pip install "torch-neuron==1.13.1.*"')
    # The versions that AWS locked together: aws-samples/sample-YOLOv8-neuron, neuron_env.yml.
    assert '"protobuf==3.20.1" "numpy==1.22.2"' in neuron_install_command((3, 8))
    # aws-neuron-sdk#462: PyPI's placeholder neuron-cc 1.0 was installed, and pip leaves what meets a requirement.
    assert not version_meets("1.0", re.findall(r"neuron-cc\[tensorflow\](\S+?)\"", neuron_install_command((3, 8)))[0])
    assert neuron_install_command((3, 10, 12)) == neuron_install_command((3, 8, 0))
    hint = neuron_install_hint((3, 11))
    assert hint.startswith("with Python 3.8 to 3.10 (torch-neuron has no wheels for 3.11): python -m pip install")
    assert hint.endswith("export NEURONBERT_EMULATE=inf1.xlarge")


@pytest.mark.parametrize(
    ("there", "manager"), [(["apt-get"], "apt"), (["yum"], "yum"), (["apt-get", "yum"], "apt"), ([], "apt")]
)
def test_the_package_manager_is_the_one_that_is_there(tmp_path, monkeypatch, there, manager):
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert package_manager() == manager


def test_a_driver_and_tools_are_installed_over_newer_ones_that_are_held():
    """AWS's neuronsetuphelper.py: --allow-downgrades with apt, and with yum remove it before, and its lock on DLAMIs.

    aws-neuron-sdk#736: "E: Held packages were changed and -y was used without --allow-change-held-packages."
    """
    for package, release in (("aws-neuronx-dkms", "2.24.*"), ("aws-neuronx-tools", "2.25.*")):
        apt, yum = (
            [command for command in PACKAGE_COMMANDS[manager] if f"{package}{equals}{release}" in command]
            for manager, equals in (("apt", "="), ("yum", "-"))
        )
        assert "--allow-downgrades --allow-change-held-packages" in apt[0] and len(apt) == len(yum) == 1
        steps = yum[0].split("; ")
        assert steps == [
            f"sudo yum versionlock delete {package}",
            f"sudo yum remove -y {package}",
            f"sudo yum install -y {package}-{release}",
        ]
