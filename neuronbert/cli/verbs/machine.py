"""The verbs about this machine: what it can run, and what its runners are doing."""

import sys
import time
from contextlib import suppress
from typing import Optional, TextIO

import click

from neuronbert.cli.options import json_option
from neuronbert.cli.output import show
from neuronbert.cli.progress import is_terminal


@click.command("top", short_help="Watch running jobs and runners.")
@click.argument("url", required=False)
@click.option("--once", is_flag=True, help="One plain table; also when stdout is no terminal.")
@json_option
def top(url: Optional[str], once: bool, as_json: bool) -> None:
    """Watch this user's running jobs and other runners live: queue, fill, padding, and every worker.

    Those that were made with Runner(publish=True) are seen; neuronbert run and serve make theirs so. With URL, those
    of a server elsewhere: NEURONBERT_API_KEY is its key, where it wants one. Ctrl-C leaves.
    """
    from neuronbert.cli.remote import RemoteRunners
    from neuronbert.cli.top import as_text, running, watch

    server = None if url is None else RemoteRunners(url)
    if as_json or once or not is_terminal(sys.stdout):
        runners = running() if server is None else server.running()
        show(as_json, {"runners": runners}, lambda: as_text(runners, time.time()))
        return
    with suppress(KeyboardInterrupt):  # the way out
        watch(running if server is None else server.running_or_last)


@click.command("doctor", short_help="What this machine can run, and the command that mends the rest.")
@click.option("--log", type=click.File(errors="replace"), help="A log of Neuron's software to explain; - is stdin.")
@json_option
def doctor(log: Optional[TextIO], as_json: bool) -> None:
    """What this machine can run, what is wrong with it, and the command that mends it.

    With --log, instead, what a log of torch-neuron, neuron-cc, the Neuron runtime or their installation says, by AWS's
    guides and users' reports (docs/neuron-errors.md): the cause first, what follows from it below.
    """
    if log is not None:
        from neuronbert.cli.doctor import neuron_log

        diagnoses = neuron_log.diagnose(log)
        document = {"diagnoses": [one._asdict() for one in diagnoses]}
        show(as_json, document, lambda: neuron_log.render(diagnoses))
        return
    from neuronbert.cli.doctor.examination import examine, render

    examination = examine()
    show(as_json, examination.as_dict(), lambda: render(examination.checks))
