"""neuronbert_tools.console: what every tool's command line does with its report."""

import argparse
import json
from pathlib import Path

import pytest

from neuronbert.errors import OutputError
from neuronbert_tools.console import add_report_option, print_document


@pytest.fixture()
def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_report_option(made)
    return made


@pytest.mark.parametrize("place", ["missing/report.json", "", "/dev/null"])
def test_a_place_that_takes_no_file_is_refused_before_anything_is_measured(
    place: str, parser: argparse.ArgumentParser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["--json", str(tmp_path / place)])
    assert "is no file in a folder that exists" in capsys.readouterr().err


def test_the_copy_replaces_what_was_there(
    parser: argparse.ArgumentParser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "report.json"
    copy.write_text("a longer report than the next one")
    print_document({"a": 1}, parser.parse_args(["--json", str(copy)]).json, indent=2)
    assert json.loads(capsys.readouterr().out) == json.loads(copy.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [copy]


def test_a_report_is_printed_even_if_its_copy_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OutputError):
        print_document({"a": 1}, tmp_path / "gone" / "report.json")
    assert json.loads(capsys.readouterr().out) == {"a": 1}
