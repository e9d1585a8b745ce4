"""The simulation against the real runner on the timed emulator (EMULATED): p95 at loads from 20 % to 95 %.

    tools/measure_simulation                          # 4 of the published rows x 5 loads, about six minutes
    tools/measure_simulation --rows 4 --requests 20000

Requests come at the same random moments in both, as tokens. The runner is real: processes, sockets, batches; the
device sleeps. The simulation knows the device model's seconds, the runner's rule, and one thing that is measured: what
the host adds to a request that is alone (sockets, threads). One JSON document goes to stdout, the table to stderr;
ends with 1 when a p95 is off by more than 10 %.
"""

import tempfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from neuronbert.hardware.machine import environment
from neuronbert_tools.console import new_parser, print_document, print_message, whole_numbers
from neuronbert_tools.emulated_rows import measure_in_emulator
from neuronbert_tools.paths import cache_folder
from neuronbert_tools.published_rows import CONFIGURATION, blog_rows

ROWS = (1, 2, 5, 6)  # inf1.xlarge in both modes, batch 1 and 6: what two host cores can ask without being the limit
MOST_ERROR = 0.10


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("--rows", type=whole_numbers, default=ROWS, help="1 to 8")
    parser.add_argument("--requests", type=int, default=3000, help="of each load (default: 3000)")
    parser.add_argument("--work", type=Path, default=cache_folder("measure_runner"), help="kept artifacts")
    options = parser.parse_args(arguments)
    report = measure_rows(options.rows, options.requests, options.work)
    off = [point for point in report if abs(point["p95_error"]) > MOST_ERROR]
    print_message(f"{len(report) - len(off)} of {len(report)} points within {MOST_ERROR:.0%} in p95")
    print_document({"emulated": True, "machine": environment(), "points": report})
    return 1 if off else 0


def measure_rows(numbers: Sequence[int], requests: int, work: Path) -> List[Dict[str, Any]]:
    """Every load of the blog's rows ``numbers``, each row in a child process (measurements/simulation_row.py)."""
    report: List[Dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            row = blog_rows()[number - 1]
            facts = {name: row[name] for name in CONFIGURATION}
            cores = Path(folder) / "cores"
            for point in measure_in_emulator("measurements.simulation_row", row, work, cores, requests):
                report.append({"row": number, **facts, **point})
                print_message(report_line(report[-1]))
    return report


def report_line(point: Mapping[str, Any]) -> str:
    """One load for a person."""
    return (
        f"EMULATED {point['instance_type']} {point['mode']} batch {point['batch_size']} at {point['utilisation']:.0%}: "
        f"p95 {point['runner_p95_ms']:.1f} ms with the runner, {point['simulation_p95_ms']:.1f} simulated "
        f"({point['p95_error']:+.1%}); p50 {point['runner_p50_ms']:.1f} and {point['simulation_p50_ms']:.1f}"
    )
