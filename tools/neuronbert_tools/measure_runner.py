"""Measures the multi-worker runner: what it costs, what it loses against the device, and what it does when flooded.

    tools/measure_runner echo                 # no model: requests/s through the whole path, and where the CPU time goes
    tools/measure_runner overload             # 4 x capacity: who is refused, how fast, and what the others get
    tools/measure_runner twin                 # the published rows on the timed emulator (EMULATED), tokens and text,
                                              # and what bare processes reach there
    tools/measure_runner twin --rows 1,5      # only some of them
    tools/measure_runner twin --busy-wait     # with idle processors that do not sleep
    tools/measure_runner turnaround           # from an answer to the next request, beside two bare processes

Every figure is a ratio to something measured in the same run, or says what it was measured on. One JSON document goes
to stdout, the table to stderr.
"""

import argparse
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, Sequence

from neuronbert.hardware.machine import environment
from neuronbert.runner.awake import awake_processors
from neuronbert_tools.console import new_parser, one_or_more, print_document, whole_numbers
from neuronbert_tools.measurements.echo import measure_echo
from neuronbert_tools.measurements.overload import measure_overload
from neuronbert_tools.measurements.published import measure_published
from neuronbert_tools.measurements.turnaround import measure_turnaround
from neuronbert_tools.paths import cache_folder


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = new_parser(__doc__)
    parser.add_argument("what", choices=("echo", "overload", "twin", "turnaround"))
    parser.add_argument("--workers", type=int, default=2, help="echo and overload (default: 2)")
    parser.add_argument("--requests", type=int, help="echo: of a round (default: 10000); turnaround (default: 300)")
    parser.add_argument("--rounds", type=one_or_more, help="echo (default: 5); twin, in turns (default: 3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="overload and twin (default: 10)")
    parser.add_argument("--deadline-s", type=float, default=0.5, help="overload: of each request (default: 0.5)")
    parser.add_argument("--rows", type=whole_numbers, help="twin: 1 to 8")
    parser.add_argument("--busy-wait", action="store_true", help="as of Runner; turnaround measures both")
    parser.add_argument("--work", type=Path, default=cache_folder("measure_runner"), help="twin: kept artifacts")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, folder: Path) -> Dict[str, Any]:
    """What was asked for, in a temporary folder."""
    if options.what == "echo":
        requests = options.requests or 10_000
        return measure_echo(folder, workers=options.workers, requests=requests, rounds=options.rounds or 5)
    if options.what == "overload":
        return measure_overload(folder, workers=options.workers, seconds=options.seconds, deadline_s=options.deadline_s)
    if options.what == "turnaround":
        return measure_turnaround(folder, requests=options.requests or 300)
    rounds = options.rounds or 3
    return measure_published(folder, rows=options.rows, seconds=options.seconds, rounds=rounds, work=options.work)


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if options.busy_wait:  # of the whole machine: of what has no runner too
            stack.enter_context(awake_processors())
        figures = measure(options, Path(folder))
    facts = {"measured": options.what, "busy_wait": options.busy_wait, "machine": environment()}
    print_document({**facts, "load": os.getloadavg(), **figures})
    return 0
