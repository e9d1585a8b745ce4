"""What only a real inf1 instance can tell, in one command and one JSON report to send back.

    tools/inf1_acceptance                             everything; hours, most of them neuron-cc's; inf1-report.json
    tools/inf1_acceptance --only doctor,demo          some of it: the first half hour
    tools/inf1_acceptance --seconds 2 --layers 1      a quick look, also emulated (NEURONBERT_EMULATE=inf1.xlarge)

In order: doctor; the demo compiled in both modes, through the gate, its answers and accuracy; the published rows that
this instance can run, BERT-base with random weights (speed depends on shapes alone), each compiled with neuron-cc's own
casts, with --fast-math all and with ours, since AWS compiled in the first two; then what the documentation leaves open.
A step that fails is recorded with its words, and the next one runs; the report is written after each. Every measurement
is a process of its own, because a process keeps its cores until it ends. Needs neuronbert[inf1].

Where the instance has too little memory for neuron-cc (inf1.xlarge: 8 GB), a larger machine compiles, with a chip or
without one, and the folder is copied:

    tools/inf1_acceptance --compile-only compiled --instance-type inf1.xlarge
    tools/inf1_acceptance --artifacts compiled
"""

import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence
from urllib.request import Request, urlopen

from neuronbert.hardware.cores import INSTANCE_TYPES, layout_for
from neuronbert_tools.acceptance.recipes import CASTS, FULL_LAYERS
from neuronbert_tools.acceptance.steps import STEPS, Acceptance, Options
from neuronbert_tools.console import new_parser, print_message, whole_numbers

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


def parse(arguments: Sequence[str]) -> Options:
    """The command line; ends the process with 2 where an option or this machine is not what it has to be."""
    parser = new_parser(__doc__)
    parser.add_argument("--output", default="inf1-report.json", help="the report [default: inf1-report.json]")
    parser.add_argument("--instance-type", help=f"one of {', '.join(INSTANCE_TYPES)} [default: what EC2 says]")
    parser.add_argument("--only", default=",".join(STEPS), help=f"comma-separated: {', '.join(STEPS)} [default: all]")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement [default: 30]")
    parser.add_argument(
        "--layers", type=int, default=FULL_LAYERS, help="of BERT-base; fewer for a quick look [default: 12]"
    )
    parser.add_argument(
        "--casts",
        default=",".join(CASTS),
        help=f"of the published rows, comma-separated: {', '.join(CASTS)} [default: all]",
    )
    parser.add_argument("--rows", type=whole_numbers, default=[], help="published rows by number: 1,5 [default: all]")
    parser.add_argument(
        "--artifacts", type=Path, action="append", default=[], help="a folder of --compile-only; repeatable"
    )
    parser.add_argument(
        "--compile-only", type=Path, metavar="FOLDER", help="compile what is missing in FOLDER, and measure nothing"
    )
    chosen = parser.parse_args(arguments)
    for name, offered in (("only", STEPS), ("casts", CASTS)):
        values = [value.strip() for value in getattr(chosen, name).split(",")]
        if set(values) - set(offered):
            parser.error(f"--{name} takes {', '.join(offered)}")
        setattr(chosen, name, values)
    missing = [str(folder) for folder in chosen.artifacts if not folder.is_dir()]
    if missing:
        parser.error(f"--artifacts {', '.join(missing)}: there is no such folder")
    chosen.instance_type = chosen.instance_type or instance_here()
    if chosen.instance_type not in INSTANCE_TYPES:
        parser.error(f"this is no inf1 instance ({chosen.instance_type}); --instance-type names one")
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
        unfinished = output.with_name(output.name + ".unfinished")
        unfinished.write_text(json.dumps(make_report(options, steps), indent=1, default=str) + "\n", encoding="utf-8")
        os.replace(unfinished, output)

    with tempfile.TemporaryDirectory(prefix="inf1-acceptance-") as scratch:
        acceptance = Acceptance(options, Path(scratch), save)
        if options.compile_only:
            options.compile_only.mkdir(parents=True, exist_ok=True)
            acceptance.compile_all()
        else:
            for name in options.only:
                STEPS[name](acceptance)
        save(acceptance.steps)
    return told(options, acceptance.steps)


def told(options: Options, steps: Sequence[Dict[str, Any]]) -> int:
    """Say where the report is and what comes next; the exit code."""
    failed = [step["name"] for step in steps if not step["ok"]]
    if options.compile_only:
        next_step = f"copy {options.compile_only} to the inf1 instance, then: tools/inf1_acceptance --artifacts FOLDER"
    else:
        next_step = "please send this file back"
    print_message(f"{options.output}: {len(steps)} steps, {len(failed)} failed; {next_step}")
    return 1 if failed else 0
