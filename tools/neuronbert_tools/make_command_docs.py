"""Writes docs/commands.md from the commands' own --help; tests/cli/test_command_docs.py holds that it is up to date.

tools/make_command_docs
"""

from typing import Iterator, Sequence

import click

from neuronbert.cli.main import cli
from neuronbert_tools.console import new_parser
from neuronbert_tools.paths import ROOT

PAGE = ROOT / "docs" / "commands.md"
WIDTH = 100  # characters of a line of help

INTRODUCTION = """# Commands

What each command's `--help` says, written here by `tools/make_command_docs`. Words that several commands share:

* **CHECKPOINT** is a hub id, a folder that transformers saved, or `demo`, the one in the package neuronbert-demo.
* **ARTIFACT** is a folder that `neuronbert compile` wrote. It holds **variants**: the model for one engine in one
  precision (`openvino-int8`), or for Inferentia in one shape.
* A **window** is what the model reads at once, the question and a piece of its context; a long context has several.
  Windows are the **rows** of a **batch**.
* The **gate** refuses a variant that disagrees with the FP32 model. A **worker** is a process with a copy of the model.
* [files.md](files.md) has the formats of the files that are read and written.
* Results go to stdout, progress and messages to stderr; `--json` makes the result one JSON document.
* `--batch-size` and `--batch_size` are the same option, and so with all others.
* Exit codes: 0 done · 1 you can mend it (the message says how) · 2 usage · 3 a bug · 4 a gate refused ·
  5 nothing satisfies the constraints · 130 interrupted.
"""


def sections() -> Iterator[str]:
    """The page, section by section."""
    yield INTRODUCTION
    for name, command in sorted(cli.commands.items()):
        context = click.Context(command, info_name=f"neuronbert {name}", terminal_width=WIDTH, **cli.context_settings)
        yield f"## neuronbert {name}\n\n```text\n{command.get_help(context)}\n```\n"


def page() -> str:
    """The page as it should be."""
    return "\n".join(sections())


def main(arguments: Sequence[str]) -> int:
    """The command; it takes no options."""
    new_parser(__doc__).parse_args(arguments)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    return 0
