"""What is printed does nothing to a terminal, whatever an artifact or a text holds."""

import json
import sys

import pytest

from neuronbert.artifact.manifest import MANIFEST_NAME, write_manifest
from neuronbert.cli.main import run
from neuronbert.cli.output import put
from neuronbert.cli.progress import Progress, Stages

ODD = "\x1b]0;owned\x07 \x9b2J\r"
SHOWN = r"\u001b]0;owned\u0007 \u009b2J\u000d"


def test_what_a_manifest_says_is_shown_and_not_done(echo_copy, capsys, monkeypatch):
    manifest = json.loads((echo_copy / MANIFEST_NAME).read_text())
    del manifest["digest"]
    manifest["checkpoint"]["source"] = ODD
    (echo_copy / MANIFEST_NAME).unlink()
    write_manifest(echo_copy, manifest)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(["inspect", str(echo_copy)]) == 0
    assert SHOWN in capsys.readouterr().out


def test_a_line_of_progress_is_shown_and_not_done(capsys):
    with Progress("compiling") as shown:
        Stages(shown).line(f"reading {ODD}")
    assert capsys.readouterr().err == f"reading {SHOWN}\n"


def test_a_name_in_an_error_is_shown_and_not_done(echo_copy, capsys):
    folder = echo_copy.rename(echo_copy.parent / f"odd{ODD}")
    (folder / "more").touch()
    assert run(["inspect", str(folder)]) == 1
    said = capsys.readouterr().err
    assert f"odd{SHOWN}: more is not listed" in said and "\x1b" not in said


@pytest.mark.parametrize("name", ["a\n  try: rm -r ~", "a\x1b[2J", "a\u2028b"])
def test_a_name_of_a_file_gives_no_advice(echo_copy, capsys, name):
    (echo_copy / name).touch()
    assert run(["inspect", str(echo_copy)]) == 1
    (advice,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  try:")]
    assert "copy the artifact again" in advice


@pytest.mark.parametrize(("terminal", "printed"), [(True, f"a\tb {SHOWN}\n"), (False, f"a\tb {ODD}\n")])
def test_only_a_terminal_is_spared(capsys, monkeypatch, terminal, printed):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    put(f"a\tb {ODD}")
    assert capsys.readouterr().out == printed
