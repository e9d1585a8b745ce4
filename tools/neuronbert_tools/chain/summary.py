"""The figures of the steps as a report and as a table for a person: rates, factors, latencies, F1. Pure."""

from typing import Any, Dict, List, Mapping, Sequence

from neuronbert.benchmark.statistics import LEAST_SAMPLES_P99, percentile
from neuronbert.cli.tables import table
from neuronbert.compiler.ladder import MIN_GAIN
from neuronbert.hardware.machine import VNNI, Environment, has_flag
from neuronbert_tools.chain.measuring import Measured
from neuronbert_tools.chain.steps import Step
from neuronbert_tools.peers.summary import ratios, spread
from neuronbert_tools.server.goals import Goal, goal_lines

Facts = Mapping[str, Any]  # JSON: a report, or a part of one

LEAST_FACTOR = 30.0  # of all steps before the cache
FLAGS_SHOWN = ("avx2", "avx512f", "avx512_bf16", "amx_int8")


def step_documents(steps: Sequence[Step], measured: Mapping[str, Measured]) -> List[Dict[str, Any]]:
    """What is reported of each step. Factors are medians of the ratios within a round: a machine's speed drifts."""
    return [_document(step, measured, steps[0].name) for step in steps]


def _document(step: Step, measured: Mapping[str, Measured], first: str) -> Dict[str, Any]:
    own = measured[step.name]
    latencies = own.latencies_ms
    rates = own.rates_per_s
    return {
        **step._asdict(),
        "configuration": step.configuration._asdict(),
        "questions_per_s": spread(rates)._asdict(),
        "rounds": list(rates),
        "questions_per_round": own.questions_per_round,
        "latency_ms": {
            "p50": percentile(latencies, 50).value,
            "p99": percentile(latencies, 99).value,
            "count": len(latencies),
        },
        "factor": ratios(rates, measured[step.before].rates_per_s)._asdict() if step.before else None,
        "factor_of_first": ratios(rates, measured[first].rates_per_s)._asdict(),
        "f1": own.f1,
        "hit_rate": own.hit_rate,
    }


def goals_of(steps: Sequence[Facts]) -> List[Goal]:
    """What the chain has to show."""
    uncached = [step for step in steps if step["taken"] and not step["configuration"]["cached"]][-1]
    factor = uncached["factor_of_first"]["median"]
    return [Goal("times the questions/s, before the cache", factor, LEAST_FACTOR, is_least=True)]


def machine_text(machine: Environment, threads: int) -> str:
    """The machine and the libraries, in a line each."""
    flags = machine["cpu_flags"]
    named = [flag for flag in FLAGS_SHOWN if flag in flags] + ["VNNI" if has_flag(flags, VNNI) else "no VNNI"]
    libraries = [f"{name} {machine['libraries'][name]}" for name in ("openvino", "onnxruntime", "torch", "transformers")
                 if name in machine["libraries"]]  # fmt: skip
    return (
        f"{machine['cpu_model']}, {machine['physical_cores']} cores ({', '.join(named)}), {threads} threads\n"
        f"neuronbert {machine['neuronbert']}, Python {machine['python']}, {machine['os']}, {', '.join(libraries)}"
    )


def render(report: Facts) -> str:
    """The report as text."""
    asked = report["workload"]
    rows = [_row(step) for step in report["steps"]]
    header = ("step", "questions/s [min, max]", "p50 ms", "p99 ms", "of", "F1", "× before", "× first", "")
    goals = [Goal(**{name: goal[name] for name in Goal._fields}) for goal in report["goals"]]
    return "\n".join(
        [
            f"{asked['data']}, {asked['questions']} questions, medians of {asked['rounds']} rounds",
            machine_text(report["machine"], report["threads"]),
            "",
            table(rows, header),
            "",
            f"p50 and p99 are of questions that were asked alone; p99 of fewer than {LEAST_SAMPLES_P99:,} says little.",
            *report["notes"],
            *goal_lines(goals),
        ]
    )


def _row(step: Facts) -> List[str]:
    rate, latency, factor = step["questions_per_s"], step["latency_ms"], step["factor"]
    return [
        step["title"],
        f"{rate['median']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]",
        f"{latency['p50']:.1f}",
        f"{latency['p99']:.1f}",
        f"{latency['count']:,}",
        f1_text(step["f1"]),
        f"{factor['median']:.2f}" if factor else "",
        f"{step['factor_of_first']['median']:.1f}",
        "" if step["taken"] else "not taken",
    ]


def f1_text(f1: Any) -> str:
    """In percent; "-" of random weights."""
    return "-" if f1 is None else f"{f1:.2f}"


def notes_of(steps: Sequence[Facts], models: Facts) -> List[str]:
    """What is to be said beside the figures."""
    notes = []
    if models["base"]["random_weights"]:
        notes.append("BERT-base has random weights: its speed is a trained one's, its F1 (-) would mean nothing.")
    for step in steps:
        choice = "; ".join(f"{name}: × {factor:.2f}" for name, factor in step["probed"].items())
        if choice:
            outcome = "taken" if step["taken"] else f"not taken, for want of {MIN_GAIN} times the rate before"
            notes.append(f"{step['title']}: {outcome}. A probe before the rounds: {choice}.")
            factor = step["factor"]["median"]
            if factor < 1 if step["taken"] else factor > MIN_GAIN:
                notes.append(f"{step['title']}: the rounds say otherwise. Repeat it with nothing else on the machine.")
        if step["hit_rate"] is not None:
            notes.append(f"{step['title']}: {step['hit_rate']:.1%} of the questions were answered from it.")
    return notes
