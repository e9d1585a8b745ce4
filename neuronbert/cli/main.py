"""The command ``neuronbert``: its verbs (verbs/) in one group, run inside the error boundary (boundary.py)."""

import os
import sys
from typing import List, NoReturn, Optional, Sequence

import click

from neuronbert import __version__
from neuronbert.cli.boundary import run_group
from neuronbert.cli.interrupts import Interrupts
from neuronbert.cli.verbs import answering, artifacts, machine, measuring, serving
from neuronbert.hardware.machine import prepare_standard_streams, wait_without_spinning

CONTEXT_SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    # Both --batch-size and --batch_size are understood.
    "token_normalize_func": lambda name: name.replace("_", "-"),
}


class VerbsInOrder(click.Group):
    """Lists the verbs in the order in which they are used, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> List[str]:
        return list(self.commands)


@click.group(
    cls=VerbsInOrder,
    context_settings=CONTEXT_SETTINGS,
    epilog="neuronbert VERB --help says more. Begin with: neuronbert compile demo OUTPUT",
)
@click.version_option(__version__, "-V", "--version", prog_name="neuronbert")
def cli() -> None:
    """Compile a BERT checkpoint, check and measure it, and answer with it: questions, labels, entities."""


VERBS: List[click.Command] = [
    artifacts.compile_,
    artifacts.cascade,
    artifacts.inspect_,
    artifacts.sign,
    artifacts.env,
    *answering.task_verbs(),
    answering.run_,
    serving.serve_,
    measuring.evaluate,
    measuring.benchmark_,
    measuring.plan_,
    machine.doctor,
    machine.top,
]
for verb in VERBS:
    cli.add_command(verb)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; its exit code. Never raises for what a user, the machine or a bug did."""
    interrupts = Interrupts()
    try:
        return run_group(cli, arguments, interrupts)
    finally:
        interrupts.give_back()


def main(arguments: Optional[Sequence[str]] = None) -> NoReturn:
    """Run the command line and exit with its code: 0, 1, 2, 3, 4, 5 or 130."""
    interrupts = Interrupts()
    interrupts.keep()
    prepare_standard_streams()
    wait_without_spinning(os.environ)  # verbs load libraries with threads when they run
    os.environ["PYTHONSAFEPATH"] = "1"  # for what libraries start: no import from the working directory (Python 3.11)
    interrupts.exit(run_group(cli, sys.argv[1:] if arguments is None else list(arguments), interrupts))
