"""What only a real inf1 instance can tell, in one command and one JSON report to send back.

    tools/inf1_acceptance                             everything; hours, most of them neuron-cc's
    tools/inf1_acceptance --only doctor,demo          some of it, to begin with
    tools/inf1_acceptance --seconds 2 --layers 1      a quick look, also emulated (NEURONBERT_EMULATE=inf1.xlarge)

Its parts, in order:

    doctor      what the machine says of itself
    demo        the demo compiled in both modes, through the gate; its answers and accuracy
    rows        the published rows that fit this instance: BERT-base with random weights (speed depends on shapes
                alone), compiled with neuron-cc's own casts and with --fast-math all, as AWS did, and with ours
    unknowns    what the documentation leaves open

A step that fails is recorded with its words, and the next one runs; the report is written after each. Every measurement
is a process of its own, because a process keeps its cores until it ends. Needs neuronbert[inf1].

Where the instance has too little memory for neuron-cc (inf1.xlarge: 8 GB), a larger machine compiles, with a chip or
without one, and the folder is copied:

    tools/inf1_acceptance --compile-only compiled --instance-type inf1.xlarge
    tools/inf1_acceptance --artifacts compiled
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence
from urllib.request import Request, urlopen

from neuronbert.artifact.files import output_errors, replace_file
from neuronbert.hardware.cores import INSTANCE_TYPES, layout_for
from neuronbert_tools.acceptance.probes import NOT_ASKED
from neuronbert_tools.acceptance.recipes import CASTS, FULL_LAYERS
from neuronbert_tools.acceptance.steps import STEPS, Acceptance, Options
from neuronbert_tools.console import new_parser, print_message, whole_numbers

LONGEST_S = 3600.0
METADATA_URL = "http://169.254.169.254/latest/"


def instance_here() -> Optional[str]:
    """The instance type from NEURONBERT_EMULATE or EC2's metadata; None where neither answers."""
    if os.environ.get("NEURONBERT_EMULATE"):
        return os.environ["NEURONBERT_EMULATE"]
    try:
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        token = fetch(Request(METADATA_URL + "api/token", headers=lifetime, method="PUT"))
        return fetch(Request(METADATA_URL + "meta-data/instance-type", headers={"X-aws-ec2-metadata-token": token}))
    except OSError:
        return None


def fetch(request: Request) -> str:
    """The body of the reply; OSError where there is none within 2 s."""
    with urlopen(request, timeout=2) as reply:
        body: bytes = reply.read()
    return body.decode()


def seconds(text: str) -> float:
    """The type of --seconds."""
    value = float(text)
    if not 0 < value <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most {LONGEST_S:.0f}")
    return value


def instance_of(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> str:
    """The instance type that the run is about: the machine's own, or one that it only compiles for.

    Ends the process with 2 where that is no inf1 instance, or another one than the options say.
    """
    named: Optional[str] = chosen.instance_type
    if not (named and chosen.compile_only):
        here = instance_here()
        if named and here not in (None, named):
            parser.error(f"--instance-type {named}, and this is {here}: only --compile-only is for another machine")
        named = named or here
    if named not in INSTANCE_TYPES:
        said = named or "EC2 does not say what it is"
        parser.error(f"this is no inf1 instance ({said}): --compile-only FOLDER --instance-type TYPE compiles for one")
    return named


def option_parser() -> argparse.ArgumentParser:
    """The options, each judged by itself."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "--output", metavar="FILE", default="inf1-report.json", help="the report [default: inf1-report.json]"
    )
    parser.add_argument(
        "--only",
        metavar="PARTS",
        default=",".join(STEPS),
        help=f"{', '.join(STEPS)}; with commas between them [default: all four]",
    )
    parser.add_argument(
        "--seconds", type=seconds, metavar="S", default=30.0, help="how long each measurement takes [default: 30]"
    )
    parser.add_argument(
        "--layers",
        type=int,
        choices=range(1, FULL_LAYERS + 1),
        metavar="N",
        default=FULL_LAYERS,
        help=f"how many of BERT-base's layers, fewer for a quick look [default: {FULL_LAYERS}]",
    )
    parser.add_argument(
        "--rows",
        type=whole_numbers,
        metavar="NUMBERS",
        default=[],
        help="rows of published_performance.csv, from 1 on: 1,5 [default: all that fit]",
    )
    parser.add_argument(
        "--casts",
        metavar="WAYS",
        default=",".join(CASTS),
        help=f"how the rows are compiled: {', '.join(CASTS)} [default: all three ways]",
    )
    parser.add_argument(
        "--compile-only",
        type=Path,
        metavar="FOLDER",
        help="compile what is missing in FOLDER of what the parts load; measure nothing",
    )
    parser.add_argument(
        "--instance-type",
        metavar="TYPE",
        help=f"what --compile-only compiles for: {', '.join(INSTANCE_TYPES)}; needed elsewhere only where EC2 does not "
        "tell [default: what EC2 says]",
    )
    parser.add_argument(
        "--artifacts",
        type=Path,
        metavar="FOLDER",
        action="append",
        default=[],
        help="take artifacts from a folder of --compile-only; repeatable",
    )
    return parser


def parse(arguments: Sequence[str]) -> Options:
    """The command line; ends the process with 2 where an option or this machine is not what it has to be."""
    parser = option_parser()
    chosen = parser.parse_args(arguments)
    for name, offered in (("only", STEPS), ("casts", CASTS)):
        values = [value.strip() for value in getattr(chosen, name).split(",")]
        if set(values) - set(offered):
            parser.error(f"--{name} takes {', '.join(offered)}")
        setattr(chosen, name, list(dict.fromkeys(values)))
    missing = [str(folder) for folder in chosen.artifacts if not folder.is_dir()]
    if missing:
        parser.error(f"--artifacts {', '.join(missing)}: there is no such folder")
    chosen.instance_type = instance_of(parser, chosen)
    return Options(**vars(chosen))


def make_report(options: Options, steps: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """Everything that was found, and where; one JSON document."""
    return {
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "emulated": bool(os.environ.get("NEURONBERT_EMULATE")),
        "instance_type": options.instance_type,
        "whole_instance": layout_for(options.instance_type).environment(),
        "python": platform.python_version(),
        "options": options._asdict(),
        "failed": [step["name"] for step in steps if not step["ok"]],
        "like_with_like": like_with_like(steps),
        "not_asked": NOT_ASKED,
        "steps": steps,
    }


def like_with_like(steps: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The published rows that were measured with the casts that AWS compiled them with, and how they compare."""
    rows = [step["result"] for step in steps if step["ok"] and "like_the_published" in step["result"]]
    keys = ("casts", "sequences_per_s", "p50_ms", "p95_ms", "p99_ms", "ratio")
    return [
        {"published": row["published"], **{key: row[key] for key in keys}} for row in rows if row["like_the_published"]
    ]


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    output = Path(options.output)

    def save(steps: Sequence[Dict[str, Any]]) -> None:
        # After every step: an instance may be taken away.
        with output_errors(output):
            replace_file(output, json.dumps(make_report(options, steps), indent=1, default=str) + "\n")

    with tempfile.TemporaryDirectory(prefix="inf1-acceptance-") as scratch:
        acceptance = Acceptance(options, Path(scratch), save)
        acceptance.check()
        if options.compile_only:
            with output_errors(options.compile_only):
                options.compile_only.mkdir(parents=True, exist_ok=True)
        save([])  # a report that cannot be written is no news for the end of the first hour
        if options.compile_only:
            acceptance.compile_all()
        else:
            for name in options.only:
                STEPS[name](acceptance)
    return told(options, acceptance.steps)


def told(options: Options, steps: Sequence[Dict[str, Any]]) -> int:
    """Say where the report is and what comes next; the exit code."""
    failed = [step["name"] for step in steps if not step["ok"]]
    if options.compile_only:
        instance = f"the {options.instance_type} instance"
        next_step = f"copy {options.compile_only} to {instance}, then: tools/inf1_acceptance --artifacts FOLDER"
    else:
        next_step = "please send this file back"
    print_message(f"{options.output}: {len(steps)} steps, {len(failed)} failed; {next_step}")
    return 1 if failed else 0
