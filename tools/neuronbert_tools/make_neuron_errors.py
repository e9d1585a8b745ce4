"""Writes docs/neuron-errors.md from the known failures and tests/data/neuron-logs; a test holds that it is up to date.

tools/make_neuron_errors
"""

import json
import re
from typing import Dict, Iterator, List, Sequence, Tuple

from neuronbert.backends.neuron import known_failures
from neuronbert.backends.neuron.failures import Failure, worded
from neuronbert.hardware.neuron import PACKAGE_COMMANDS
from neuronbert_tools.console import new_parser
from neuronbert_tools.paths import ROOT

PAGE = ROOT / "docs" / "neuron-errors.md"
ERRORS = ROOT / "tests" / "data" / "neuron-logs" / "errors.json"
SECTIONS: Sequence[Tuple[str, Sequence[Failure]]] = (
    ("While installing", known_failures.INSTALL_FAILURES),
    ("At import", known_failures.IMPORT_FAILURES),
    ("While compiling", known_failures.COMPILER_FAILURES),
    ("While loading and running", known_failures.RUNTIME_FAILURES),
)

INTRODUCTION = """# What Neuron's software says when it fails

Search this page for a piece of the text that you got, or let `neuronbert doctor --log FILE` read the whole log. What
neuronbert itself runs into, it explains in the same words.

`tools/make_neuron_errors` writes this page. The texts are quoted from AWS's guides and users' reports, with their
sources (`tests/data/neuron-logs`); none was provoked here, where there is no Inferentia. What to do is what the answers
there and AWS's guides say, and has not been tried on a device either. Where it takes the system's packages, the first
line is for Ubuntu and the second for Amazon Linux; `neuronbert doctor` and errors say the one of their machine.
"""


def page() -> str:
    """The page as it should be."""
    return "\n".join([INTRODUCTION, *_contents(), *_sections()])


def _contents() -> Iterator[str]:
    yield "| it means | texts |\n| --- | --- |"
    reports = _reports()
    for title, failures in SECTIONS:
        yield f"| **{title}** | |"
        for failure in failures:
            yield f"| [{_meaning(failure)}](#{failure.name}) | {len(reports.get(failure.name, []))} |"
    yield ""


def _sections() -> Iterator[str]:
    reports = _reports()
    for title, failures in SECTIONS:
        yield f"## {title}\n"
        for failure in failures:
            advice = "\n".join(f"try: {each}" for each in advice_everywhere(failure))
            yield f"### {failure.name}\n\nIt means: {_meaning(failure)}.\n\n```text\n{advice}\n```\n"
            if failure.name not in reports:
                yield f"No report of it is quoted; it is known by `{failure.pattern}`.\n"
            for report in reports.get(failure.name, []):
                yield f"{_link(report['source'])}:\n\n```text\n{report['text'].strip()}\n```\n"


def advice_everywhere(failure: Failure) -> List[str]:
    """What to do about it, by each package manager whose commands it takes; the same for all is there once."""
    return list(dict.fromkeys(worded(failure, manager).advice for manager in PACKAGE_COMMANDS))


def _meaning(failure: Failure) -> str:
    return worded(failure, next(iter(PACKAGE_COMMANDS))).meaning


def _reports() -> Dict[str, List[Dict[str, str]]]:
    reports: Dict[str, List[Dict[str, str]]] = {}
    for report in json.loads(ERRORS.read_text(encoding="utf-8")):
        reports.setdefault(report["diagnosis"], []).append(report)
    return reports


def _link(source: str) -> str:
    """A source as a link: ``owner/name#issue`` or ``owner/name@commit:path``."""
    issue = re.fullmatch(r"([\w.-]+/[\w.-]+)#(\d+)", source)
    if issue:
        return f"[{source}](https://github.com/{issue[1]}/issues/{issue[2]})"
    file = re.fullmatch(r"([\w.-]+/[\w.-]+)@(\w+):(\S+)", source)
    if file:
        return f"[{file[1]}, {file[3]}](https://github.com/{file[1]}/blob/{file[2]}/{file[3]})"
    return source


def main(arguments: Sequence[str]) -> int:
    """The command; it takes no options."""
    new_parser(__doc__).parse_args(arguments)
    PAGE.write_text(page(), encoding="utf-8")
    return 0
