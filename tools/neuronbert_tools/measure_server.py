"""Measures ``neuronbert serve``: what it costs, what it loses against the engine, and what it does when all goes wrong.

    tools/measure_server overhead                       # CPU of a request above Runner.submit's, and requests/s (hey)
    tools/measure_server overhead --peers litserve,bentoml,ray --peer-python ENVIRONMENT/bin/python
    tools/measure_server throughput --artifact ARTIFACT # questions/s of the engine's, and with repeats and the cache
    tools/measure_server overload                       # 4 x capacity for a minute: refusals, and what the others get
    tools/measure_server chaos                          # 10,000 requests while workers die and artifacts are reloaded
    tools/measure_server hostile --fuzz-python ENVIRONMENT/bin/python  # odd requests, broken messages, slow connections
    tools/measure_server start --artifact ARTIFACT      # from the process's start to ready

The environment of the peers:

    python -m venv ENVIRONMENT
    ENVIRONMENT/bin/python -m pip install litserve bentoml "ray[serve]" -e CHECKOUT

That of hostile, which has schemathesis make its requests; their seeds are --seed and the ones behind it:

    python -m venv ENVIRONMENT
    ENVIRONMENT/bin/python -m pip install schemathesis

A peer's workers hold the same echo artifact in an Engine each, as many as there are CPUs (or --workers); each peer is
asked with and without its own batching. Contenders take turns for several rounds, with nothing else running;
figures are medians of the rounds. One JSON document goes to stdout, the table to stderr. The exit code of chaos and
hostile is 1 where anything does not hold; a goal that is missed is only said.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Sequence

from neuronbert.errors import UsageError
from neuronbert.hardware.machine import environment
from neuronbert_tools.console import (
    above_zero,
    add_report_option,
    new_parser,
    one_or_more,
    print_document,
    print_message,
)
from neuronbert_tools.server.chaos import ChaosOptions, measure_chaos
from neuronbert_tools.server.hostile import HostileOptions, measure_hostile
from neuronbert_tools.server.overhead import OverheadOptions, measure_overhead
from neuronbert_tools.server.overload import OverloadOptions, measure_overload
from neuronbert_tools.server.peers.processes import PEERS
from neuronbert_tools.server.start import StartOptions, measure_start
from neuronbert_tools.server.throughput import ThroughputOptions, measure_throughput


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("what", choices=tuple(MEASUREMENTS))
    add("--artifact", type=Path, help="one that answers questions (default: the echo model; throughput needs one)")
    add("--workers", type=one_or_more, help="of servers, runners and peers (default: as they choose; chaos: 2)")
    add("--requests", type=one_or_more, help="overhead: of a turn (8000); throughput (1000); chaos (10000)")
    add("--rounds", type=one_or_more, help="overhead and throughput (5), overload (1), start (7)")
    add("--peers", help=f"overhead: some of {','.join(PEERS)}, with commas between them")
    add("--peer-python", type=Path, help="the Python that has them")
    add("--connections", type=one_or_more, help="throughput (256), chaos (16)")
    add("--seconds", type=above_zero, help="overload (60); hostile: of the client that behaves (30)")
    add("--deadline-s", type=float, default=0.5, help="overload: of each request (default: 0.5)")
    add("--period-s", type=float, default=1.0, help="chaos: between two kills (default: 1)")
    add("--texts", type=one_or_more, default=200, help="chaos: different questions (default: 200)")
    add("--fuzz-python", type=Path, help="hostile: the Python that has schemathesis")
    add("--cases", type=one_or_more, default=20_000, help="hostile: of schemathesis (default: 20000)")
    add("--messages", type=one_or_more, default=1000, help="hostile: broken ones (default: 1000)")
    add("--slow", type=one_or_more, default=500, help="hostile: connections that send a byte a second (default: 500)")
    add("--seed", type=int, default=0, help="chaos: of who is killed, and when clients leave; hostile: of all (0)")
    add_report_option(parser)
    return parser.parse_args(arguments)


def _overhead(folder: Path, options: argparse.Namespace) -> Dict[str, Any]:
    peers = options.peers.split(",") if options.peers else []
    for name in peers:
        if name not in PEERS:
            raise UsageError(f"there is no peer {name!r}", hint=f"--peers {','.join(PEERS)}")
    if peers and options.peer_python is None:
        raise UsageError("the peers need a Python that has them", hint="--peer-python PATH; --help says how to make it")
    chosen = OverheadOptions(options.requests or 8000, options.rounds or 5, options.workers, peers, options.peer_python)
    return measure_overhead(folder, chosen)


def _throughput(folder: Path, options: argparse.Namespace) -> Dict[str, Any]:
    if options.artifact is None:
        raise UsageError("throughput is of a real model", hint="--artifact; neuronbert compile demo ARTIFACT makes one")
    chosen = ThroughputOptions(
        options.artifact, options.requests or 1000, options.rounds or 5, options.connections or 256, options.workers
    )
    return measure_throughput(folder, chosen)


def _overload(folder: Path, options: argparse.Namespace) -> Dict[str, Any]:
    chosen = OverloadOptions(
        options.artifact, options.seconds or 60.0, options.deadline_s, options.rounds or 1, options.workers
    )
    return measure_overload(folder, chosen)


def _chaos(folder: Path, options: argparse.Namespace) -> Dict[str, Any]:
    chosen = ChaosOptions(
        options.artifact,
        options.requests or 10_000,
        options.connections or 16,
        options.period_s,
        options.texts,
        options.workers or 2,
        options.seed,
    )
    return measure_chaos(folder, chosen)


def _hostile(folder: Path, options: argparse.Namespace) -> Dict[str, Any]:
    if options.fuzz_python is None:
        raise UsageError(
            "hostile needs a Python that has schemathesis", hint="--fuzz-python PATH; --help says how to make it"
        )
    chosen = HostileOptions(
        options.artifact,
        options.fuzz_python,
        options.cases,
        options.messages,
        options.slow,
        options.seconds or 30.0,
        options.workers,
        options.seed,
    )
    return measure_hostile(folder, chosen)


def _start(folder: Path, options: argparse.Namespace) -> Dict[str, Any]:
    return measure_start(folder, StartOptions(options.artifact, options.rounds or 7, options.workers))


MEASUREMENTS: Mapping[str, Callable[[Path, argparse.Namespace], Dict[str, Any]]] = {
    "overhead": _overhead,
    "throughput": _throughput,
    "overload": _overload,
    "chaos": _chaos,
    "hostile": _hostile,
    "start": _start,
}


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        figures = MEASUREMENTS[options.what](Path(folder), options)
    print_message(f"load average before {load_before[0]:.2f}, after {os.getloadavg()[0]:.2f}")
    load = {"before": load_before, "after": os.getloadavg()}
    print_document({"measured": options.what, "machine": environment(), "load": load, **figures}, options.json)
    return 1 if figures.get("complaints") else 0
