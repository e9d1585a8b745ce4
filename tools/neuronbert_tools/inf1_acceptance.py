"""What only a real inf1 instance can tell, in one command and one JSON report to send back.

    tools/inf1_acceptance                             everything, about an hour on inf1.6xlarge; writes inf1-report.json
    tools/inf1_acceptance --only doctor,unknowns      some of it
    tools/inf1_acceptance --seconds 2 --layers 1      a quick look, also emulated (NEURONBERT_EMULATE=inf1.xlarge)

In order: doctor; the demo compiled in both modes, through the gate, and its answers; BERT-base (random weights: speed
depends on shapes alone) compiled as the published table has it, and those of its rows that this instance can run;
then what the documentation leaves open. A step that fails is recorded with its words, and the next one runs. Every
measurement is a process of its own, because a process keeps its cores until it ends. Needs neuronbert[inf1].
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
from neuronbert_tools.acceptance.steps import FULL_LAYERS, STEPS, Acceptance, Options
from neuronbert_tools.console import new_parser, print_message

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
    chosen = parser.parse_args(arguments)
    chosen.only = [name.strip() for name in chosen.only.split(",")]
    chosen.instance_type = chosen.instance_type or instance_here()
    if set(chosen.only) - set(STEPS):
        parser.error(f"--only takes {', '.join(STEPS)}")
    if chosen.instance_type not in INSTANCE_TYPES:
        parser.error(f"this is no inf1 instance ({chosen.instance_type}); --instance-type names one")
    return Options(**vars(chosen))


def make_report(options: Options, steps: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Everything that was found, and where; one JSON document."""
    return {
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "emulated": bool(os.environ.get("NEURONBERT_EMULATE")),
        "instance_type": options.instance_type,
        "whole_instance": layout_for(options.instance_type).environment(),
        "python": platform.python_version(),
        "options": options._asdict(),
        "failed": [step["name"] for step in steps if not step["ok"]],
        "steps": steps,
    }


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="inf1-acceptance-") as folder:
        acceptance = Acceptance(options, Path(folder))
        for name in options.only:
            STEPS[name](acceptance)
    report = make_report(options, acceptance.steps)
    Path(options.output).write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    print_message(
        f"{options.output}: {len(report['steps'])} steps, {len(report['failed'])} failed; please send this file back"
    )
    return 1 if report["failed"] else 0
