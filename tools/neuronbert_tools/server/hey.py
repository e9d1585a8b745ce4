"""hey, Debian's load generator: its command, and what it prints."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from neuronbert.errors import BackendFailed, UsageError

CONNECTIONS = 16


class HeyReport(NamedTuple):
    """What it measured."""

    requests_per_s: float
    ok: int  # answers with the status 200


def require_hey() -> str:
    """Its path; UsageError with the command that installs it."""
    path = shutil.which("hey")
    if path is None:
        raise UsageError("hey, which asks the servers, was not found", hint="apt-get install hey")
    return path


def ask_with_hey(url: str, body: Path, requests: int) -> HeyReport:
    """Post the file ``body`` so many times over CONNECTIONS; BackendFailed where an answer is not 200."""
    share = max(1, requests // CONNECTIONS)
    command = [require_hey(), f"-c={CONNECTIONS}", "-n", str(share * CONNECTIONS), "-m=POST"]
    command += ["-T", "application/json", "-D", str(body), "-t", "60", url]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    report = parse_hey(printed)
    if report.ok != share * CONNECTIONS:
        raise BackendFailed(f"{report.ok} of {share * CONNECTIONS} answers of {url} are 200:\n{printed}")
    return report


def parse_hey(printed: str) -> HeyReport:
    """The figures in what it prints; BackendFailed where they are not there."""
    rate = re.search(r"Requests/sec:\s*([0-9.]+)", printed)
    if rate is None:
        raise BackendFailed(f"hey printed no rate:\n{printed}")
    ok = re.search(r"\[200\]\s+(\d+) responses", printed)
    return HeyReport(float(rate[1]), 0 if ok is None else int(ok[1]))
