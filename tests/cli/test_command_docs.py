"""docs/commands.md is what the commands say of themselves."""

import re
from pathlib import Path

from neuronbert.cli.main import cli
from neuronbert_tools.make_command_docs import page

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def words(text: str) -> str:
    # Where a line of help breaks differs between the releases of click.
    return " ".join(text.split())


def test_the_page_is_what_the_tool_would_write() -> None:
    assert words(PAGE) == words(page()), "run tools/make_command_docs"


def test_every_command_has_a_section_that_names_every_option() -> None:
    parts = re.split(r"^## neuronbert (\w+)$", PAGE, flags=re.MULTILINE)[1:]
    documented = dict(zip(parts[::2], parts[1::2]))
    assert set(documented) == set(cli.commands)
    for name, command in cli.commands.items():
        spellings = [spelling for param in command.params for spelling in param.opts if spelling.startswith("--")]
        assert [spelling for spelling in spellings if spelling not in documented[name]] == []
