"""docs/serving.md: every curl line and every snippet of a client does what the page says, and no route is missing."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Tuple

import pytest

from neuronbert.server.protocols import PROTOCOLS
from neuronbert.server.settings import ServerSettings
from server.served import Served

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
CURLS = [line[2:] for line in PAGE.splitlines() if line.startswith("$ curl")]
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
NEEDS_RELOAD = "(with --allow-reload)"
PLACE = "localhost:8080"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_every_curl_line_is_answered(served: Served) -> None:
    """In one process: starting one for each would take longer than the answers."""
    commands: List[str] = []
    for line in CURLS:
        words = shlex.split(line.replace(PLACE, served.url), comments=True)
        commands.append(shlex.join([*words, "--noproxy", "*", "-s", "-o", "/dev/null", "-w", r"%{http_code}\n"]))
    done = subprocess.run(["sh", "-c", "\n".join(commands)], capture_output=True, text=True, cwd=ROOT)
    statuses = dict(zip(CURLS, done.stdout.split()))
    expected = {line: "403" if NEEDS_RELOAD in line else "200" for line in CURLS}
    assert statuses == expected, done.stderr


def test_the_page_has_every_route() -> None:
    shown = {(_method(line), path) for line in CURLS for path in [_path(line)]}
    names = {"{name}": ("answers", "labels", "tags", "embeds"), "{version}": ("1",)}
    for protocol in PROTOCOLS:
        for route in protocol.routes:
            possible = _filled(route.path, names)
            versioned = "{version}" in route.path  # of those one stands for all
            assert versioned or any((route.method, path) in shown for path in possible), (route.method, route.path)


def _method(line: str) -> str:
    return "POST" if "-d" in line.split() or "--data-binary" in line or "-X POST" in line else "GET"


def _path(line: str) -> str:
    found = re.search(re.escape(PLACE) + r"([^ \"?]*)", line)
    assert found
    return found[1]


def _filled(path: str, names: Dict[str, Tuple[str, ...]]) -> List[str]:
    paths = [path]
    for parameter, values in names.items():
        paths = [each.replace(parameter, value) for each in paths for value in values]
    return paths


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[snippet.split()[1] for snippet in SNIPPETS])
def test_every_snippet_runs(served: Served, snippet: str) -> None:
    for library in re.findall(r"^(?:from|import) (\w+)", snippet, flags=re.MULTILINE):
        pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, "-c", snippet.replace(PLACE, served.url.partition("//")[2])], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_every_option_that_the_page_names_is_there() -> None:
    from neuronbert.cli.main import CONTEXT_SETTINGS
    from neuronbert.cli.verbs.measuring import benchmark_
    from neuronbert.cli.verbs.serving import serve_

    before, measuring = PAGE.split("\n## Measuring it\n")
    options = {name for parameter in serve_.params for name in parameter.opts}
    for verb, part in ((serve_, before), (benchmark_, measuring)):
        known = {name for parameter in verb.params for name in parameter.opts}
        named = set(re.findall(r"`(--[a-z0-9-]+)", part)) - {"--host"}
        assert named <= known, named - known
    lines = re.findall(r"^\$ neuronbert benchmark (.*)", measuring, flags=re.MULTILINE)
    assert len(lines) == 5
    for line in lines:
        # With these settings, for a command keeps the help option that it is first made with.
        benchmark_.make_context("benchmark", shlex.split(line), **CONTEXT_SETTINGS)
    fields = {f"--{name.replace('_', '-')}" for name in ServerSettings.__dataclass_fields__}
    assert fields <= options
