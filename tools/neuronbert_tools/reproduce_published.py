"""Both tables of AWS's blog post "Achieve 12x higher throughput", run again by the real runner on the timed emulator.

    tools/reproduce_published                       # half an hour: runs tools/measure_runner twin
    tools/reproduce_published --measured FILE       # prints the tables from what that printed
    tools/reproduce_published --measured FILE --device-alone      # without the runner

EMULATED: the device's time comes from the device model, which was calibrated on these very rows among others; what is
real is the runner, its workers and their sockets. So it shows what the runner costs the device on this machine,
not that the model is right: tools/calibrate_device_model --check prints what it says of rows that were left out. Ends
with 1 when a row is off by more than 3 % in throughput or 10 % in p95, or the configurations come in another order.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from neuronbert.cli.tables import table
from neuronbert.errors import InputError
from neuronbert.hardware.prices import Price, load_prices
from neuronbert.hardware.schema import TEXT, Form, Schema, list_of, record
from neuronbert.hardware.untrusted import Refusal, document_of, read_given
from neuronbert_tools.console import new_parser
from neuronbert_tools.processes import run_module
from neuronbert_tools.published_rows import CONFIGURATION, blog_rows, configuration

MOST_THROUGHPUT_ERROR = 0.03
MOST_P95_ERROR = 0.10
# What the post compares with, as it gives it: BERT-base on g4dn.xlarge, batch 1 and 64.
G4DN = {1: (149.0, 8.2, 0.98), 64: (422.0, 153.3, 0.35)}
FIGURES = ("throughput_per_s", "p95_ms", "usd_per_1m")
CONTENDERS = ("device", "tokens")
REFUSAL = Refusal(InputError, "what tools/measure_runner twin printed")
_FIGURE: Form = {"type": "number", "minimum": 1e-9, "maximum": 1e9}
_MEASURED = record({"throughput_per_s": _FIGURE, "p95_ms": _FIGURE})
TWIN = Schema(
    **record({"rows": list_of(record({**dict.fromkeys(CONFIGURATION, TEXT), **dict.fromkeys(CONTENDERS, _MEASURED)}))})
)


class Row(NamedTuple):
    """A configuration: what was published and what was reached on the emulator."""

    batch_size: int
    name: str
    published: Dict[str, float]
    ours: Dict[str, float]

    def error(self, figure: str) -> float:
        """Relative to the published figure."""
        return self.ours[figure] / self.published[figure] - 1


def rows_of(measured: Mapping[str, Any], contender: str) -> List[Row]:
    """The post's eight rows, each beside the ``contender``'s measurement of the same configuration."""
    prices = {name: price_of_2021(name) for name in ("inf1.xlarge", "inf1.6xlarge")}
    measured_rows = {configuration(row): row for row in measured["rows"]}
    published = blog_rows()
    missing = [row for row in published if configuration(row) not in measured_rows]
    if missing:
        sys.exit(f"{len(missing)} of {len(published)} rows were not measured: {configuration(missing[0])}, ...")
    return [
        row_of(row, measured_rows[configuration(row)][contender], prices[row["instance_type"]]) for row in published
    ]


def price_of_2021(instance: str) -> Price:
    """The price that the post's dollars imply: the oldest of the shipped ones."""
    return min(load_prices().history(instance), key=lambda price: price.date)


def row_of(row: Mapping[str, str], measured: Mapping[str, Any], price: Price) -> Row:
    """A published row beside its measurement; the dollars of both are the post's."""
    ours = {
        "throughput_per_s": measured["throughput_per_s"],
        "p95_ms": measured["p95_ms"],
        "usd_per_1m": price.per_million(measured["throughput_per_s"]),
    }
    cores = f" × {row['pipeline_cores']}" if row["mode"] == "pipeline" else ""
    name = f"{row['instance_type']} {row['mode']}{cores}"
    return Row(int(row["batch_size"]), name, {figure: float(row[figure]) for figure in FIGURES}, ours)


def show(rows: Sequence[Row], whose: str) -> None:
    """Print a table for each batch size, and the headline."""
    for batch_size in sorted({row.batch_size for row in rows}):
        print(f"\nBERT-base, 128 tokens, batch {batch_size}: published → {whose} (EMULATED)\n")
        lines = [
            [
                row.name,
                *(f"{row.published[name]:g} → {row.ours[name]:.4g} ({row.error(name):+.1%})" for name in FIGURES),
            ]
            for row in rows
            if row.batch_size == batch_size
        ]
        print(table(lines, header=["configuration", "sequences/s", "p95 ms", "$ per million"]))
    print(f"\ncost {price_of_2021('inf1.xlarge').sentence()}; {price_of_2021('inf1.6xlarge').sentence()}")
    show_headline(rows)


def show_headline(rows: Sequence[Row]) -> None:
    """The post's "12 x" and "9.2 x": the best Inferentia row over g4dn.xlarge, in throughput of either batch size."""
    print("\nagainst the post's own g4dn.xlarge rows (not measured by us):")
    for batch_size, rate in ((1, G4DN[1]), (6, G4DN[64])):
        best = max((row for row in rows if row.batch_size == batch_size), key=lambda row: row.ours[FIGURES[0]])
        there, here = (figures[FIGURES[0]] / rate[0] for figures in (best.published, best.ours))
        print(
            f"  {best.name}, batch {batch_size}, over batch {1 if batch_size == 1 else 64} on g4dn.xlarge "
            f"({rate[0]:g}/s, p95 {rate[1]} ms, ${rate[2]} per million): published {there:.1f} ×, ours {here:.1f} ×"
        )


def complaints(rows: Sequence[Row]) -> List[str]:
    """Rows that are off by more than they may be, and orders that differ."""
    wrong: List[str] = []
    for row in rows:
        for figure, most in ((FIGURES[0], MOST_THROUGHPUT_ERROR), (FIGURES[1], MOST_P95_ERROR)):
            if abs(row.error(figure)) > most:
                wrong.append(f"{row.name}, batch {row.batch_size}: {figure} is off by {row.error(figure):+.1%}")
    return wrong + [complaint for figure in FIGURES for complaint in swapped(rows, figure)]


def swapped(rows: Sequence[Row], figure: str) -> List[str]:
    """Pairs that come in another order than the published ones, which must differ by more than a measurement may."""
    return [
        f"{low.name}, batch {low.batch_size}, and {high.name}, batch {high.batch_size}, change places in {figure}"
        for low, high in itertools.combinations(sorted(rows, key=lambda row: row.published[figure]), 2)
        if low.published[figure] * (1 + MOST_THROUGHPUT_ERROR) < high.published[figure]
        and low.ours[figure] > high.ours[figure]
    ]


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("--measured", type=Path, help="what tools/measure_runner twin printed")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each contender in each round (default: 10)")
    parser.add_argument("--device-alone", action="store_true", help="the emulated device, asked without a runner")
    options = parser.parse_args(arguments)
    if options.measured:
        document = document_of(read_given(options.measured, REFUSAL), str(options.measured), TWIN, REFUSAL)
    else:
        document = json.loads(run_module("measure_runner", "twin", "--seconds", options.seconds, variables={}))
    rows = rows_of(document, CONTENDERS[0] if options.device_alone else CONTENDERS[1])
    show(rows, "the emulated device, without a runner" if options.device_alone else "the runner on the timed emulator")
    for complaint in complaints(rows):
        print(f"OFF: {complaint}")
    return 1 if complaints(rows) else 0
