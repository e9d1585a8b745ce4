"""Measures neuronbert and its peers side by side in one run: real text in, answers out.

    tools/compare_peers                                     # everything; about half an hour on 2 cores
    tools/compare_peers --models demo --questions 20 --rounds 1 --only speed
    tools/compare_peers --contenders neuronbert,openvino-int8 --json report.json

Each contender has its own virtual environment and its own long-lived process, loaded before anything is timed.
They take turns for several rounds, one working at a time; medians and ranges are over the rounds. int8 and FP32
matrix products are timed in the same rounds. Environments, exports and artifacts are kept in --work for the next run.
The table goes to stderr and the report, one JSON document with every raw sample, to stdout as its last line. The exit
code is 1 if a contender failed or a target that was measured is not met.
"""

import argparse
from pathlib import Path
from typing import Callable, Optional, Sequence, Tuple

from neuronbert.hardware.machine import affinity_cpus
from neuronbert_tools.console import add_report_option, new_parser, print_document, print_message
from neuronbert_tools.paths import XQUAD, cache_folder
from neuronbert_tools.peers.comparison import NOTES, Options, compare
from neuronbert_tools.peers.contenders import CONTENDERS
from neuronbert_tools.peers.summary import render

PARTS = ("speed", "start", "accuracy")


def some_of(known: Sequence[str]) -> Callable[[str], Tuple[str, ...]]:
    """The type of an option that takes some of the names ``known`` with commas between them."""

    def split(text: str) -> Tuple[str, ...]:
        chosen = tuple(text.split(","))
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(known)}")
        return chosen

    return split


def parse(arguments: Sequence[str]) -> Tuple[Options, Optional[Path]]:
    """What to compare, and the file that also gets the report; ends the process with 2 where an option is wrong."""
    parser = new_parser(__doc__)
    models, contenders = tuple(sorted(NOTES, reverse=True)), tuple(CONTENDERS)
    add = parser.add_argument
    add("--models", type=some_of(models), default=models, help=f"default: {','.join(models)}")
    add("--contenders", type=some_of(contenders), default=contenders, help=f"default: {','.join(contenders)}")
    add("--only", type=some_of(PARTS), default=PARTS, help=f"default: {','.join(PARTS)}")
    add("--data", type=Path, default=XQUAD, help="SQuAD-format questions (default: the XQuAD of the tests)")
    add("--questions", type=int, default=100, help="the first so many of them (default: 100)")
    add("--rounds", type=int, default=5, help="default: 5")
    add("--threads", type=int, default=affinity_cpus(), help="of each contender (default: all)")
    add("--work", type=Path, default=cache_folder("compare_peers"), help="kept between runs (default: %(default)s)")
    add_report_option(parser)
    chosen = parser.parse_args(arguments)
    if min(chosen.questions, chosen.rounds, chosen.threads) < 1:
        parser.error("--questions, --rounds and --threads must be at least 1")
    if not chosen.data.is_file():
        parser.error(f"there is no file {chosen.data}")
    shared = {name: value for name, value in vars(chosen).items() if name in Options._fields}
    return Options(**shared, parts=chosen.only), chosen.json


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options, copy = parse(arguments)
    report = compare(options)
    print_message(render(report))
    print_document(report, copy)
    failed = any(model["failed"] for model in report["models"].values())
    return int(failed or not all(target["met"] for target in report["targets"]))
