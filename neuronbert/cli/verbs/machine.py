"""The verbs about this machine: what it can run, and what its runners are doing."""

import sys
import time
from contextlib import suppress

import click

from neuronbert.cli.options import json_option
from neuronbert.cli.output import show
from neuronbert.cli.progress import is_terminal


@click.command("top", short_help="Watch running jobs and runners.")
@click.option("--once", is_flag=True, help="One plain table; also when stdout is no terminal.")
@json_option
def top(once: bool, as_json: bool) -> None:
    """Watch this user's running jobs and other runners live: queue, fill, padding, and every worker.

    Those that were made with Runner(publish=True) are seen; neuronbert run makes its own so. Ctrl-C leaves.
    """
    from neuronbert.cli.top import as_text, running, watch

    if as_json or once or not is_terminal(sys.stdout):
        runners = running()
        show(as_json, {"runners": runners}, lambda: as_text(runners, time.time()))
        return
    with suppress(KeyboardInterrupt):  # the way out
        watch()


@click.command("doctor", short_help="What this machine can run, and the command that mends the rest.")
@json_option
def doctor(as_json: bool) -> None:
    """What this machine can run, what is wrong with it, and the command that mends it."""
    from neuronbert.cli.doctor.examination import examine, render

    examination = examine()
    show(as_json, examination.as_dict(), lambda: render(examination.checks))
