"""schemathesis, which makes requests of what /openapi.json says: its command, and what it reports of them.

It comes in an environment of its own, as the peers do.
"""

import base64
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

from neuronbert.errors import BackendFailed, UsageError
from neuronbert_tools.console import print_message
from neuronbert_tools.server.served import MODEL, SHOWN_CHARACTERS, Server
from neuronbert_tools.server.verdict import Said

LEAST_EXAMPLES, MOST_EXAMPLES = 10, 250  # of an operation in a round, which has a second or two of its own
ANSWER_S = 30.0  # what takes longer hangs
ROUND_S = 1200.0
# Every other round fills in the names that the server knows: any other ends at 404, before the body is looked at.
KNOWN_NAMES = f'[parameters]\nname = "{MODEL}"\nversion = "1"\n'
SHOWN_CASES = 20  # of what went wrong, in a report

_VERSION = "from importlib.metadata import version; print(version('schemathesis'))"


class Case(NamedTuple):
    """A request, and what was said to it: None where nothing was, or too late."""

    operation: str
    request: Dict[str, Any]
    said: Optional[Said]
    seconds: float


class Fuzzed(NamedTuple):
    """What came of all cases; in ``wrong`` are the first of those that should have ended otherwise."""

    cases: int
    statuses: Dict[int, int]
    operations: Dict[str, int]
    not_allowed: int
    unanswered: int
    slowest_s: float
    wrong: List[Dict[str, Any]]
    troubles: List[str]  # of schemathesis with itself, the description or the network
    rounds: List[Dict[str, Any]]


def require_schemathesis(python: Path) -> str:
    """Its version in the environment of ``python``; UsageError with the command that installs it."""
    command = [str(python), "-I", "-c", _VERSION]
    try:
        found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    except OSError as error:
        raise UsageError(
            f"{python} cannot be run: {error.strerror}", hint="--fuzz-python ENVIRONMENT/bin/python"
        ) from None
    if found.returncode:
        raise UsageError(
            f"schemathesis was not found by {python}", hint=f"{python} -m pip install schemathesis, or another Python"
        )
    return found.stdout.decode().strip()


def fuzz(server: Server, python: Path, folder: Path, cases: int, seed: int) -> Fuzzed:
    """Have ``cases`` sent or a few more, in rounds that each have a seed of their own."""
    operations = sum(len(methods) for methods in server.get("/openapi.json")["paths"].values())
    found = Fuzzed(0, Counter(), Counter(), 0, 0, 0.0, [], [], [])
    while found.cases < cases:
        number = len(found.rounds)
        examples = min(MOST_EXAMPLES, max(LEAST_EXAMPLES, (cases - found.cases) // operations))
        report = folder / f"fuzz-{number}.ndjson"
        _run_schemathesis(server.url, python, folder, report, number, examples, seed + number)
        with open(report, encoding="utf-8") as lines:
            found = add_round(found, *read_report(lines), {"seed": seed + number, "examples": examples})
        print_message(f"fuzzing, round {number + 1}: {found.cases:,} cases so far, {dict(found.statuses)}")
        report.unlink()
    return found


def _run_schemathesis(
    url: str, python: Path, folder: Path, report: Path, number: int, examples: int, seed: int
) -> None:
    """One round; BackendFailed, with what it printed, where it could not test anything."""
    config, log = folder / "schemathesis.toml", folder / "schemathesis.log"
    config.write_text(KNOWN_NAMES if number % 2 else "")
    phases = "fuzzing" if number else "examples,coverage,fuzzing"  # the first two make the same cases each time
    command = [str(python), "-I", "-m", "schemathesis.cli", f"--config-file={config}", "--no-color", "run"]
    command += [f"{url}/openapi.json", f"--phases={phases}", f"--max-examples={examples}", f"--seed={seed}"]
    command += ["--checks=not_a_server_error", "--continue-on-failure", "--no-shrink", "--generation-database=none"]
    command += [f"--request-timeout={ANSWER_S:g}", "--warnings=off", "--report=ndjson"]
    command += [f"--report-ndjson-path={report}"]
    variables = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with open(log, "wb") as output:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, env=variables, timeout=ROUND_S
        ).returncode
    if code not in (0, 1) or not report.exists():  # 1: something failed, which the report says
        printed = log.read_text(encoding="utf-8", errors="replace")[-SHOWN_CHARACTERS:]
        raise BackendFailed(f"schemathesis ended with exit code {code}:\n{printed}")


def add_round(before: Fuzzed, cases: List[Case], troubles: List[str], about: Dict[str, Any]) -> Fuzzed:
    """What came of all of them so far; BackendFailed for a round without a case, behind which there would be none."""
    if not cases:
        raise BackendFailed(f"schemathesis made no case of /openapi.json: {'; '.join(troubles) or 'it says not why'}")
    statuses = Counter(before.statuses) + Counter(case.said.status for case in cases if case.said is not None)
    not_allowed = [case for case in cases if case.said is not None and not case.said.is_allowed]
    unanswered = [case for case in cases if case.said is None]
    wrong = [
        {"operation": case.operation, "request": case.request, "said": case.said and case.said.document()}
        for case in [*not_allowed, *unanswered]
    ]
    return Fuzzed(
        before.cases + len(cases),
        statuses,
        Counter(before.operations) + Counter(case.operation for case in cases),
        before.not_allowed + len(not_allowed),
        before.unanswered + len(unanswered),
        max(before.slowest_s, *(case.seconds for case in cases)),
        [*before.wrong, *wrong][:SHOWN_CASES],
        [*before.troubles, *troubles][:SHOWN_CASES],
        [*before.rounds, {**about, "cases": len(cases)}],
    )


def read_report(lines: Iterable[str]) -> Tuple[List[Case], List[str]]:
    """The cases in its report, an event a line, and its troubles; BackendFailed for what is no such report."""
    cases: List[Case] = []
    troubles: List[str] = []
    try:
        for line in lines:
            ((kind, event),) = json.loads(line).items()
            if kind == "ScenarioFinished":
                cases += _cases_of(event["recorder"])
            elif kind in ("NonFatalError", "FatalError"):
                trouble = event.get("value") or event.get("exception") or {}
                troubles.append(f"{event.get('label') or kind}: {trouble.get('type')}: {trouble.get('message')}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendFailed(f"schemathesis' report is not as that of 4.32 is: {error!r}") from None
    return cases, troubles


def _cases_of(recorder: Dict[str, Any]) -> Iterator[Case]:
    for interaction in recorder.get("interactions", {}).values():
        answer = interaction.get("response")
        request = {name: interaction["request"].get(name) for name in ("method", "uri", "headers", "body")}
        if answer is None:
            yield Case(recorder["label"], request, None, ANSWER_S)
            continue
        headers = {name.lower(): ", ".join(values) for name, values in answer["headers"].items()}
        body = base64.b64decode(answer["content"]["$base64"]) if answer.get("content") else b""
        yield Case(recorder["label"], request, Said(answer["status_code"], headers, body), answer["elapsed"])
