"""Counts the contract: enough behaviours, every defect used, every test naming its section."""

import re
import subprocess
import sys
from pathlib import Path

import mutations

from neuronbert.emulator.unknowns import UNKNOWNS

HERE = Path(__file__).resolve().parent
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(HERE.glob("test_*.py")))


def test_every_contract_test_names_its_section_and_a_defect_that_exists():
    kept = re.findall(r'@contract\("(§[\d.]+)", "([a-z0-9-]+)"\)', SOURCE)
    assert len(kept) == len(re.findall(r"^@contract\(", SOURCE, re.M))
    assert len(kept) >= 60
    assert {name for _, name in kept} == set(mutations.MUTATIONS)


def test_every_unknown_has_a_test_and_every_test_an_unknown():
    assert sorted(re.findall(r'@unknown\("([a-z0-9-]+)"', SOURCE)) == sorted(entry.name for entry in UNKNOWNS)


def test_every_unknown_has_two_behaviours_its_sources_and_a_way_to_settle_it():
    for entry in UNKNOWNS:
        names = [name for name, _ in entry.behaviours]
        assert len(set(names)) == len(names) >= 2 and entry.question.endswith(("?", ".)"))
        assert entry.sources and entry.settled_by


def test_every_defect_can_be_made():
    import pytest

    pytest.importorskip("torch")
    for name in mutations.MUTATIONS:
        function, code = mutations._mutated(*mutations.MUTATIONS[name])
        assert code != function.__code__


def test_the_emulator_is_imported_without_torch():
    code = "import sys, neuronbert.emulator as e; e.use('inf1.xlarge'); sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=HERE.parent.parent, stderr=subprocess.DEVNULL).returncode == 0
    )
