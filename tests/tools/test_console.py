"""neuronbert_tools.console: what every tool's command line does with its report."""

import argparse
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from neuronbert.errors import OutputError
from neuronbert_tools.console import add_report_option, print_document


@pytest.fixture()
def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_report_option(made)
    return made


@pytest.mark.parametrize("place, match", [("missing/report.json", "there is no folder .*missing"), ("", "is a folder")])
def test_a_place_that_takes_no_file_is_refused_before_anything_is_measured(
    place: str, match: str, parser: argparse.ArgumentParser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["--json", str(tmp_path / place)])
    assert re.search(match, capsys.readouterr().err)


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


def test_a_copy_is_written_even_if_nobody_reads_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", gone)
    with pytest.raises(BrokenPipeError):
        print_document({"a": 1}, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": 1}


def test_a_copy_goes_where_a_link_or_a_pipe_leads(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real.json", tmp_path / "link.json", tmp_path / "pipe"
    link.symlink_to(real)
    print_document({"a": 1}, link)
    assert link.is_symlink() and json.loads(real.read_text()) == {"a": 1}
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        print_document({"a": 2}, pipe)
        assert json.loads(read.result(timeout=60)) == {"a": 2} and pipe.is_fifo()
