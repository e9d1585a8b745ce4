"""What ``neuronbert plan`` prints: the planner's explanation around a table of the ranking."""

import textwrap
from typing import Iterator, List, Sequence

from neuronbert.cli.tables import table
from neuronbert.planner.configurations import Configuration
from neuronbert.planner.explanation import (
    bests_of_devices,
    explanation,
    figure,
    first_where,
    footnotes,
    ruled_out,
    spread,
)
from neuronbert.planner.planning import Plan

WIDTH = 110  # characters
SHOWN = 8  # configurations in the table, beside the best of each device and the best that has the formula's cores


def plan_text(plan: Plan) -> str:
    """The whole plan for a person: the choice and its reasons, the ranking, what was ruled out, what it rests on."""
    before = explanation(plan.target, plan.ranked)
    after = ruled_out(plan.rejected) + footnotes(plan.shape, plan.target, plan.ranked)
    return "\n".join([*_wrapped(before), "", ranking(plan.ranked), "", *_wrapped(after)])


def _wrapped(lines: Sequence[str]) -> Iterator[str]:
    """Lines broken at WIDTH, except commands, which are to be copied."""
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        if "neuronbert compile" in line:
            yield line
        else:
            yield textwrap.fill(line, WIDTH, subsequent_indent=indent + "  ", break_on_hyphens=False)


def ranking(ranked: Sequence[Configuration]) -> str:
    """The best configurations as a table, among them the best of each device and that with the formula's cores."""
    formula = first_where(ranked, lambda configuration: configuration.formula)
    notable = {id(one) for one in [*ranked[:SHOWN], *bests_of_devices(ranked), *([formula] if formula else [])]}
    shown = [configuration for configuration in ranked if id(configuration) in notable]
    header = (
        "",
        "configuration",
        "instances",
        "used",
        "takes/s",
        "batch ms",
        "p50 ms",
        "p95 ms",
        "USD/h",
        "USD/1M",
        "",
    )
    return table([_row(ranked.index(configuration) + 1, configuration) for configuration in shown], header)


def _row(rank: int, configuration: Configuration) -> List[str]:
    assert configuration.latency is not None
    notes = {
        "formula": configuration.formula,
        "measured": configuration.measured,
        "extrapolated": configuration.extrapolated,
    }
    return [
        str(rank),
        configuration.name,
        str(configuration.instances),
        f"{configuration.latency.utilisation:.0%}",
        _range(*configuration.capacity_range_per_s),
        figure(configuration.service_ms),
        figure(configuration.p50_ms),
        _range(*configuration.p95_range_ms),
        "?" if configuration.usd_per_hour is None else f"{configuration.usd_per_hour:.4g}",
        "?" if configuration.usd_per_million is None else f"{configuration.usd_per_million:.3g}",
        ", ".join(word for word, true in notes.items() if true),
    ]


def _range(low: float, high: float) -> str:
    return spread(low, high) if low < high else figure(low)
