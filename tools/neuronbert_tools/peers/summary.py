"""Turns raw measurements into medians, ratios, targets and a table; pure, so that it is tested without measuring."""

from statistics import median
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert.checkpoint.families import family_like, size_of
from neuronbert.cli.tables import table
from neuronbert_tools.peers import load_peer_task
from neuronbert_tools.peers.base import OURS, US, PeerTask

Facts = Mapping[str, Any]  # JSON: a report, or a part of one

BASELINE = "transformers-fp32"
SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size")
MOST_START_SHARE = 1 / 5
MOST_START_MB = 300


class Spread(NamedTuple):
    """A median and what it varied between."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


class Target(NamedTuple):
    """One thing that was asked for, and what was measured."""

    name: str
    wanted: str
    got: str
    met: bool


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def operations(tokens: Sequence[int], config: Facts, head_sizes: int) -> float:
    """Arithmetic of a BERT encoder on windows of so many tokens each, a multiply-add being 2 operations.

    Per layer and token: four h × h projections and two h × i of the feed-forward; per layer and window: S × S × h for
    the scores and again for the weighted sum; per token ``head_sizes`` × h of the head. Embeddings, normalisation and
    softmax are left out, as is all padding.
    """
    family = family_like(config)
    hidden, layers, inner = (size_of(config, family, key) for key in SIZES)
    weights = layers * (4 * hidden * hidden + 2 * hidden * inner) + head_sizes * hidden
    return float(sum(2 * count * weights + 4 * count * count * hidden * layers for count in tokens))


def speeds(seconds: Sequence[float], inputs: int) -> List[float]:
    """Inputs per second of every round."""
    return [inputs / round_s for round_s in seconds]


def best_mode(contender: Facts, inputs: int) -> Tuple[str, List[float]]:
    """The mode with the highest median speed, and its speed in every round."""
    by_mode = {mode: speeds(seconds, inputs) for mode, seconds in contender["seconds"].items()}
    mode = max(by_mode, key=lambda name: median(by_mode[name]))
    return mode, by_mode[mode]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Round by round, because what a neighbour on the machine does to one round it does to both."""
    return spread([a / b for a, b in zip(ours, theirs)])


def summarize_model(model: Facts, inputs: int, unit: str) -> Dict[str, Any]:
    """Every contender's best mode, our ratio to it and to every mode, and the share of the GEMM rates that we reach."""
    best = {name: best_mode(contender, inputs) for name, contender in model["contenders"].items()}
    summary: Dict[str, Any] = {
        "speed": {
            name: {"mode": mode, f"{unit}s_per_s": spread(rates)._asdict()} for name, (mode, rates) in best.items()
        }
    }
    if US not in best:
        return summary
    ours = best[US][1]
    summary["ratio_to"] = {name: ratios(ours, rates)._asdict() for name, (_, rates) in best.items() if name != US}
    summary["ratio_to_modes"] = {
        name: {mode: ratios(ours, speeds(seconds, inputs))._asdict() for mode, seconds in contender["seconds"].items()}
        for name, contender in model["contenders"].items()
        if name != US
    }
    peers = [name for name in best if name not in OURS]
    if peers:
        summary["best_peer"] = max(peers, key=lambda name: median(best[name][1]))
    if model["gemm"]:
        summary.update(_arithmetic(ours, model, model[f"operations_per_{unit}"]))
    return summary


def _arithmetic(ours: Sequence[float], model: Facts, operations_each: float) -> Dict[str, Any]:
    """Our arithmetic rate, and its share of the fastest GEMM shape's rate in the same round."""
    rates = [speed * operations_each / 1e9 for speed in ours]
    shares = {}
    for kind in ("int8", "fp32"):
        fastest = [max(round_[kind].values()) for round_ in model["gemm"]]
        shares[kind] = {"gops": spread(fastest)._asdict(), "our_share": ratios(rates, fastest)._asdict()}
    return {"our_gops": spread(rates)._asdict(), "gemm": shares}


def targets(report: Facts) -> List[Target]:
    """Everything that was asked for and that this run measured."""
    task = load_peer_task(report["workload"]["task"])
    return [*_speed_targets(report, task), *_start_targets(report, task), *_accuracy_targets(report, task)]


def _speed_targets(report: Facts, task: PeerTask) -> Iterator[Target]:
    for name, model in report["models"].items():
        for against, least in task.SPEED_TARGETS.get(name, {}).items():
            measured = _ratio_to(against, model["summary"])
            if measured is not None:
                share = Spread(**measured)
                yield Target(f"{name}: speed / {against}", f">= {least:.2f}", str(share), share.median >= least)


def _ratio_to(against: str, summary: Facts) -> Optional[Facts]:
    """Our ratio to what a speed target names; None where it was not measured."""
    found: Optional[Facts]
    if against == "best peer":
        found = summary["ratio_to"][summary["best_peer"]] if "best_peer" in summary else None
    elif against == "int8 GEMM":
        found = summary["gemm"]["int8"]["our_share"] if "gemm" in summary else None
    elif " " in against:
        contender, mode = against.split(" ")
        found = summary.get("ratio_to_modes", {}).get(contender, {}).get(mode)
    else:
        found = summary.get("ratio_to", {}).get(against)
    return found


def _start_targets(report: Facts, task: PeerTask) -> Iterator[Target]:
    start = report["start"]
    if not start:
        return
    ours, theirs = start[US], start[BASELINE]
    share = spread([a["answer_s"] / b["answer_s"] for a, b in zip(ours, theirs)])
    # 300 MB is 10^6 bytes each, ru_maxrss counts 2^10.
    peak_mb = max(run["peak_mib"] for run in ours) * 2**20 / 1e6
    met = share.median <= MOST_START_SHARE
    name, least = task.MAIN_MODEL, f"< {MOST_START_MB} MB"
    yield Target(f"{name}: start to answer / transformers", f"<= {MOST_START_SHARE:.2f}", str(share), met)
    yield Target(f"{name}: peak memory of `answer`", least, f"{peak_mb:.0f} MB", peak_mb < MOST_START_MB)


def _accuracy_targets(report: Facts, task: PeerTask) -> Iterator[Target]:
    accuracy = report["accuracy"]
    if accuracy:
        figure = task.FIGURES[0]
        lost = accuracy["fp32"][figure.key] - accuracy["chosen"][figure.key]
        name, most = f"{task.MAIN_MODEL}: {figure.name} lost against FP32", f"<= {task.MOST_LOST:.1f}"
        yield Target(name, most, f"{lost:.2f} points", lost <= task.MOST_LOST)


def render(report: Facts) -> str:
    """The report as text."""
    lines: List[str] = []
    task = load_peer_task(report["workload"]["task"])
    inputs = report["workload"][f"{task.UNIT}s"]
    for name, model in report["models"].items():
        lines += ["", f"{name}: {model['note']}", *_speed_table(model, inputs, task), *_gemm_lines(model["summary"])]
    lines += _start_table(report["start"], task) + _accuracy_lines(report["accuracy"], task)
    if report["targets"]:
        lines += ["", *table([("target", "wanted", "measured", ""), *map(_target_row, report["targets"])]).splitlines()]
    lines += ["", *(f"warning: {warning}" for warning in report["warnings"])]
    return "\n".join(lines).rstrip() + "\n"


def _speed_table(model: Facts, inputs: int, task: PeerTask) -> List[str]:
    summary, figure = model["summary"], task.FIGURES[0]
    speed = f"{task.UNIT}s/s [min, max]"
    rows: List[Sequence[str]] = [("contender", "mode", speed, "ours / it", figure.label, "peak MiB")]
    for name, contender in model["contenders"].items():
        for mode, seconds in contender["seconds"].items():
            is_best = mode == summary["speed"][name]["mode"]
            ratio = summary.get("ratio_to_modes", {}).get(name, {}).get(mode)
            score = contender[figure.key]
            rows.append(
                (
                    name,
                    mode + (" *" if is_best else ""),
                    str(spread(speeds(seconds, inputs))),
                    str(Spread(**ratio)) if ratio else "",
                    f"{score:.{figure.decimals}f}" if score is not None else "-",
                    f"{contender['peak_mib']:.0f}",
                )
            )
    facts = ", ".join(f"{fact} {value}" for fact, value in model["contenders"].get(US, {}).get("facts", {}).items())
    failed = (f"FAILED {name}: {why}" for name, why in model["failed"].items())
    return [*table(rows).splitlines(), "* the fastest mode" + (f"; ours: {facts}" if facts else ""), *failed]


def _gemm_lines(summary: Facts) -> List[str]:
    if "gemm" not in summary:
        return []
    lines = [f"our arithmetic: {Spread(**summary['our_gops'])} Gop/s"]
    for kind, rate in summary["gemm"].items():
        lines.append(f"{kind} GEMM: {Spread(**rate['gops'])} Gop/s; ours is {Spread(**rate['our_share'])} of it")
    return lines


def _start_table(start: Facts, task: PeerTask) -> List[str]:
    if not start:
        return []
    rows: List[Sequence[str]] = [(f"process start ({task.MAIN_MODEL})", "to answer, s", "to exit, s", "peak MiB")]
    for name, runs in start.items():
        rows.append((name, *(str(spread([run[key] for run in runs])) for key in ("answer_s", "exit_s", "peak_mib"))))
    return ["", *table(rows).splitlines()]


def _accuracy_lines(accuracy: Facts, task: PeerTask) -> List[str]:
    counted = f"{task.UNIT}s"
    labels = (figure.label for figure in task.FIGURES)
    rows: List[Sequence[str]] = [(f"accuracy ({task.MAIN_MODEL})", "variant", *labels, counted)]
    for name, result in accuracy.items():
        figures = (f"{result[figure.key]:.2f}" for figure in task.FIGURES)
        rows.append((name, result["variant"], *figures, str(result[counted])))
    return ["", *table(rows).splitlines()] if accuracy else []


def _target_row(target: Facts) -> Sequence[str]:
    return (target["name"], target["wanted"], target["got"], "met" if target["met"] else "NOT MET")
