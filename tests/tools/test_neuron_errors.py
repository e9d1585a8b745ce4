"""docs/neuron-errors.md is what the known failures and their quoted reports say."""

import json
from pathlib import Path

from neuronbert.backends.neuron.known_failures import ALL_FAILURES
from neuronbert_tools.make_neuron_errors import advice_everywhere, page

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "neuron-errors.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_tool_would_write() -> None:
    assert PAGE == page(), "run tools/make_neuron_errors"


def test_it_has_every_failure_with_its_advice_and_every_text() -> None:
    for failure in ALL_FAILURES:
        assert f"\n### {failure.name}\n" in PAGE and f"](#{failure.name})" in PAGE
        assert all(f"\ntry: {advice}\n" in PAGE for advice in advice_everywhere(failure))
    reports = json.loads((ROOT / "tests" / "data" / "neuron-logs" / "errors.json").read_text(encoding="utf-8"))
    for report in reports:
        assert (f"```text\n{report['text'].strip()}\n```" in PAGE) is (report["diagnosis"] is not None), report


def test_what_takes_the_systems_packages_is_there_for_apt_and_for_yum() -> None:
    for failure in ALL_FAILURES:
        advice = advice_everywhere(failure)
        assert ["apt-get" in each for each in advice] in ([False], [True, False]), advice
        assert ["yum" in each for each in advice] in ([False], [False, True]), advice
