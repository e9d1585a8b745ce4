"""A plan in words: what to choose, why, what it costs, what else there was, and what was ruled out."""

import textwrap
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from neuronbert.cli.tables import table
from neuronbert.hardware import cores
from neuronbert.planner.planning import Configuration, Plan

WIDTH = 110
SHOWN = 8  # configurations in the table, beside the best of each formula answer


def plan_text(plan: Plan) -> str:
    """What ``neuronbert plan`` prints."""
    return "\n".join(
        [*_wrapped(explanation(plan)), "", ranking(plan), "", *_wrapped(ruled_out(plan) + footnotes(plan))]
    )


def _wrapped(lines: Sequence[str]) -> Iterator[str]:
    """Broken at WIDTH, but for commands, which are to be copied."""
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        if "neuronbert compile" in line:
            yield line
        else:
            yield textwrap.fill(line, WIDTH, subsequent_indent=indent + "  ", break_on_hyphens=False)


def explanation(plan: Plan) -> List[str]:
    """The choice and its reasons, for somebody who meets these words for the first time."""
    best, target = plan.best, plan.target
    what = {"cost": "lowest cost", "latency": "lowest latency", "throughput": "highest throughput of an instance"}
    return [
        f"{what[target.objective].capitalize()}: {best.name}{_times(best)}.",
        f"  {_how_it_works(best)}",
        f"  {_what_it_takes(best, plan)}",
        f"  {_cost(best)}",
        *(f"  {line}" for line in _others(plan)),
        f"  make it: {best.compile_command}",
    ]


def _times(one: Configuration) -> str:
    return f", {one.instances} instances" if one.instances > 1 else ", 1 instance"


def _how_it_works(one: Configuration) -> str:
    if one.measured:
        return f"Measured on {one.instance_type}: {one.capacity_per_s:.0f} sequences/s at batch {one.batch_size}."
    if one.mode == cores.DATA_PARALLEL:
        start = f"Data-parallel: each of the {one.models} cores holds a whole copy of the model. "
        if one.batch_size == 1:
            return start + "It fetches the weights from its chip's memory again for every sequence."
        return (
            start + f"It fetches the weights from its chip's memory once for a batch, so {one.batch_size} sequences "
            "share what is the dearest part of the work."
        )
    groups = f"{one.models} such groups work side by side. " if one.models > 1 else ""
    return (
        f"Pipeline: a model is cut into {one.pipeline_cores} parts, one to a core, and a sequence passes them in turn. "
        f"{groups}A part is small enough to stay in its core, wholly or mostly, so little is fetched from memory: a "
        "sequence is done sooner, but a core does less in a second than one that works on a batch."
    )


def _what_it_takes(one: Configuration, plan: Plan) -> str:
    assert one.latency is not None
    load = one.load_per_instance * one.instances
    asked = "" if plan.target.throughput_per_s else " (no load was asked for: one instance, less the headroom)"
    limit = f" ({plan.target.latency_p95_ms:g} allowed)" if plan.target.latency_p95_ms else ""
    return (
        f"A batch takes {one.service_ms:.3g} ms on an idle instance. At {load:.4g} sequences/s{asked}, which come at "
        f"random, half are answered within {one.p50_ms:.3g} ms and 95 of 100 within {one.p95_ms:.3g} ms{limit}: "
        "what is more than the batch's own time is waiting, for the batch to fill or for a core. That is "
        f"{one.latency.utilisation:.0%} of what {'it' if one.instances == 1 else 'they'} could take."
    )


def _cost(one: Configuration) -> str:
    if one.price is None or one.usd_per_million is None:
        return f"No price is known for {one.instance_type}: --prices FILE gives it one."
    return (
        f"{one.usd_per_hour:.4g} USD/h, {one.usd_per_million:.3g} USD for a million at this load, "
        f"{one.usd_per_million_at_capacity:.3g} if it were saturated; {one.price.sentence()}."
    )


def _others(plan: Plan) -> List[str]:
    """The best of the other modes and sizes, and the formula's answer, each with what speaks against it."""
    objective = plan.target.objective
    return [f"Not {one.name}{label}: {_against(one, plan.best, objective)}." for label, one in _notable(plan)]


def _notable(plan: Plan) -> List[Tuple[str, Configuration]]:
    best = plan.best
    other_mode = _first(plan.ranked, lambda one: not one.measured and one.mode != best.mode)
    other_batch = _first(
        plan.ranked,
        lambda one: _layout(one) == _layout(best) and one.batch_size != best.batch_size,
    )
    formula = _first(plan.ranked, lambda one: one.formula and one is not best) if not best.formula else None
    found: Dict[int, Tuple[str, Configuration]] = {}
    for label, one in (("", other_mode), ("", other_batch), (" (the formula's cores)", formula)):
        if one is not None:
            found[id(one)] = (label, one)
    return list(found.values())


def _first(items: Sequence[Configuration], wanted: Callable[[Configuration], bool]) -> Optional[Configuration]:
    return next((one for one in items if wanted(one)), None)


def _layout(one: Configuration) -> Tuple[str, str, int]:
    return one.instance_type, one.mode, one.pipeline_cores


def _against(one: Configuration, best: Configuration, objective: str) -> str:
    cost = ""
    if one.usd_per_million is not None and best.usd_per_million:
        ratio = one.usd_per_million / best.usd_per_million
        cost = "costs the same" if abs(ratio - 1) < 0.005 else f"costs {ratio:.3g} times as much"
    latency = f"a batch takes {one.service_ms:.3g} ms, p95 is {one.p95_ms:.3g} ms"
    rate = f"an instance takes {one.capacity_per_s:.4g}/s"
    parts = {"cost": (cost, latency), "latency": (latency, cost), "throughput": (rate, cost)}[objective]
    return "; ".join(part for part in parts if part)


def ranking(plan: Plan) -> str:
    """The best configurations as a table; the formula's best is always among them."""
    shown = list(plan.ranked[:SHOWN])
    formula = _first(plan.ranked, lambda one: one.formula)
    if formula is not None and formula not in shown:
        shown.append(formula)
    header = ("", "configuration", "instances", "used", "batch ms", "p50 ms", "p95 ms", "USD/h", "USD/1M", "")
    return table([_row(plan, one) for one in shown], header)


def _row(plan: Plan, one: Configuration) -> List[str]:
    assert one.latency is not None
    note = [word for word, said in (("formula", one.formula), ("measured", one.measured)) if said]
    return [
        str(plan.ranked.index(one) + 1),
        one.name,
        str(one.instances),
        f"{one.latency.utilisation:.0%}",
        f"{one.service_ms:.3g}",
        f"{one.p50_ms:.3g}",
        f"{one.p95_ms:.3g}",
        "?" if one.usd_per_hour is None else f"{one.usd_per_hour:.4g}",
        "?" if one.usd_per_million is None else f"{one.usd_per_million:.3g}",
        ", ".join(note),
    ]


def ruled_out(plan: Plan) -> List[str]:
    """Layouts that the target excludes, those of one kind in one line."""
    if not plan.rejected:
        return []
    kinds: Dict[Tuple[Tuple[str, str, int], str], List[Configuration]] = {}
    for one in plan.rejected:
        kinds.setdefault((_layout(one), one.rejected.split(" ")[0]), []).append(one)
    lines = [f"Ruled out: {len(plan.rejected)} configurations (--json lists them all)."]
    for several in kinds.values():
        one = several[0]
        batches = ", ".join(str(other.batch_size) for other in several)
        pipeline = f" × {one.pipeline_cores}" if one.pipeline_cores > 1 else ""
        formula = " (the formula's cores)" if one.formula else ""
        first = f" (batch {one.batch_size})" if len(several) > 1 and " ms" in one.rejected else ""
        lines.append(f"  {one.mode}{pipeline}, batch {batches}, {one.instance_type}{formula}: {one.rejected}{first}")
    return lines


def footnotes(plan: Plan) -> List[str]:
    """What the figures rest on."""
    formula = cores.choose_pipeline_cores(plan.shape.weights).sentence()
    prices = dict.fromkeys(one.price[1:] for one in plan.ranked if one.price)
    return [
        f"Formula: {formula}, AWS's starting point; its configurations are marked.",
        "Predicted by a model of the device that was fitted to AWS's published figures (within 15 % of those that were "
        "left out of the fit), not measured; the host's own work (tokenising, decoding) is not in it.",
        f"Headroom {plan.target.headroom:.0%}. Prices: {'; '.join(map(', '.join, prices)) or 'none are known'}.",
    ]
