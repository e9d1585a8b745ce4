"""Turns raw measurements into medians, ratios, targets and a table; pure, so that it is tested without measuring."""

from statistics import median
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from neuronbert.cli.tables import table

Facts = Mapping[str, Any]  # JSON: a report, or a part of one

US = "neuronbert"
BASELINE = "transformers-fp32"

# The least that was asked of each model: ratios of speeds, and the share of the int8 GEMM rate.
SPEED_TARGETS: Mapping[str, Mapping[str, float]] = {
    "bert-base": {"best peer": 1.3, BASELINE: 5.0, "int8 GEMM": 0.75},
    "demo": {"best peer": 2.0},
}
MOST_START_SHARE = 1 / 5
MOST_START_MB = 300
MOST_F1_LOST = 1.0


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


def operations(tokens: Sequence[int], config: Facts) -> float:
    """Arithmetic of a BERT encoder on windows of so many tokens each, a multiply-add being 2 operations.

    Per layer and token: four h × h projections and two h × i of the feed-forward; per layer and window: S × S × h for
    the scores and again for the weighted sum. Embeddings, normalisation and softmax are left out, as is all padding.
    """
    hidden, layers, inner = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    weights = layers * (4 * hidden * hidden + 2 * hidden * inner) + 2 * hidden
    return float(sum(2 * count * weights + 4 * count * count * hidden * layers for count in tokens))


def speeds(seconds: Sequence[float], questions: int) -> List[float]:
    """Questions per second of every round."""
    return [questions / round_s for round_s in seconds]


def best_mode(contender: Facts, questions: int) -> Tuple[str, List[float]]:
    """The mode with the highest median speed, and its speed in every round."""
    by_mode = {mode: speeds(seconds, questions) for mode, seconds in contender["seconds"].items()}
    mode = max(by_mode, key=lambda name: median(by_mode[name]))
    return mode, by_mode[mode]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Round by round, because what a neighbour on the machine does to one round it does to both."""
    return spread([a / b for a, b in zip(ours, theirs)])


def summarize_model(model: Facts, questions: int) -> Dict[str, Any]:
    """Every contender's best mode, our ratio to it, and the share of the GEMM rates that we reach."""
    best = {name: best_mode(contender, questions) for name, contender in model["contenders"].items()}
    summary: Dict[str, Any] = {
        "speed": {
            name: {"mode": mode, "questions_per_s": spread(rates)._asdict()} for name, (mode, rates) in best.items()
        }
    }
    peers = [name for name in best if name != US]
    if US not in best:
        return summary
    ours = best[US][1]
    summary["ratio_to"] = {name: ratios(ours, best[name][1])._asdict() for name in peers}
    if peers:
        summary["best_peer"] = max(peers, key=lambda name: median(best[name][1]))
    if model["gemm"]:
        summary.update(_arithmetic(ours, model))
    return summary


def _arithmetic(ours: Sequence[float], model: Facts) -> Dict[str, Any]:
    """Our arithmetic rate, and its share of the fastest GEMM shape's rate in the same round."""
    rates = [speed * model["operations_per_question"] / 1e9 for speed in ours]
    shares = {}
    for kind in ("int8", "fp32"):
        fastest = [max(round_[kind].values()) for round_ in model["gemm"]]
        shares[kind] = {"gops": spread(fastest)._asdict(), "our_share": ratios(rates, fastest)._asdict()}
    return {"our_gops": spread(rates)._asdict(), "gemm": shares}


def targets(report: Facts) -> List[Target]:
    """Everything that was asked for and that this run measured."""
    return [*_speed_targets(report), *_start_targets(report), *_accuracy_targets(report)]


def _speed_targets(report: Facts) -> Iterator[Target]:
    for name, model in report["models"].items():
        summary, wanted = model["summary"], SPEED_TARGETS.get(name, {})
        got = {BASELINE: summary.get("ratio_to", {}).get(BASELINE)}
        if "best_peer" in summary:
            got["best peer"] = summary["ratio_to"][summary["best_peer"]]
        if "gemm" in summary:
            got["int8 GEMM"] = summary["gemm"]["int8"]["our_share"]
        for against, least in wanted.items():
            measured = got.get(against)
            if measured is not None:
                share = Spread(**measured)
                yield Target(f"{name}: speed / {against}", f">= {least:.2f}", str(share), share.median >= least)


def _start_targets(report: Facts) -> Iterator[Target]:
    start = report["start"]
    if not start:
        return
    ours, theirs = start[US], start[BASELINE]
    share = spread([a["answer_s"] / b["answer_s"] for a, b in zip(ours, theirs)])
    # 300 MB is 10^6 bytes each, ru_maxrss counts 2^10.
    peak_mb = max(run["peak_mib"] for run in ours) * 2**20 / 1e6
    met = share.median <= MOST_START_SHARE
    yield Target("demo: start to answer / transformers", f"<= {MOST_START_SHARE:.2f}", str(share), met)
    yield Target("demo: peak memory of `answer`", f"< {MOST_START_MB} MB", f"{peak_mb:.0f} MB", peak_mb < MOST_START_MB)


def _accuracy_targets(report: Facts) -> Iterator[Target]:
    accuracy = report["accuracy"]
    if accuracy:
        lost = accuracy["fp32"]["f1"] - accuracy["chosen"]["f1"]
        yield Target("demo: F1 lost against FP32", f"<= {MOST_F1_LOST:.1f}", f"{lost:.2f} points", lost <= MOST_F1_LOST)


def render(report: Facts) -> str:
    """The report as text."""
    lines: List[str] = []
    questions = report["workload"]["questions"]
    for name, model in report["models"].items():
        lines += ["", f"{name}: {model['note']}", *_speed_table(model, questions), *_gemm_lines(model["summary"])]
    lines += _start_table(report["start"]) + _accuracy_lines(report["accuracy"])
    if report["targets"]:
        lines += ["", *table([("target", "wanted", "measured", ""), *map(_target_row, report["targets"])]).splitlines()]
    lines += ["", *(f"warning: {warning}" for warning in report["warnings"])]
    return "\n".join(lines).rstrip() + "\n"


def _speed_table(model: Facts, questions: int) -> List[str]:
    summary = model["summary"]
    rows: List[Sequence[str]] = [("contender", "mode", "questions/s [min, max]", "ours / it", "F1", "peak MiB")]
    for name, contender in model["contenders"].items():
        for mode, seconds in contender["seconds"].items():
            is_best = mode == summary["speed"][name]["mode"]
            ratio = summary.get("ratio_to", {}).get(name) if is_best else None
            rows.append(
                (
                    name,
                    mode + (" *" if is_best else ""),
                    str(spread(speeds(seconds, questions))),
                    str(Spread(**ratio)) if ratio else "",
                    f"{contender['f1']:.1f}" if contender["f1"] is not None else "-",
                    f"{contender['peak_mib']:.0f}",
                )
            )
    facts = (f"{fact} {value}" for fact, value in model["contenders"].get(US, {}).get("facts", {}).items())
    failed = (f"FAILED {name}: {why}" for name, why in model["failed"].items())
    return [*table(rows).splitlines(), "* the faster mode; ours: " + ", ".join(facts), *failed]


def _gemm_lines(summary: Facts) -> List[str]:
    if "gemm" not in summary:
        return []
    lines = [f"our arithmetic: {Spread(**summary['our_gops'])} Gop/s"]
    for kind, rate in summary["gemm"].items():
        lines.append(f"{kind} GEMM: {Spread(**rate['gops'])} Gop/s; ours is {Spread(**rate['our_share'])} of it")
    return lines


def _start_table(start: Facts) -> List[str]:
    if not start:
        return []
    rows: List[Sequence[str]] = [("process start (demo)", "to answer, s", "to exit, s", "peak MiB")]
    for name, runs in start.items():
        rows.append((name, *(str(spread([run[key] for run in runs])) for key in ("answer_s", "exit_s", "peak_mib"))))
    return ["", *table(rows).splitlines()]


def _accuracy_lines(accuracy: Facts) -> List[str]:
    rows: List[Sequence[str]] = [("accuracy (demo)", "variant", "F1", "exact match", "questions")]
    for name, result in accuracy.items():
        scores = (f"{result['f1']:.2f}", f"{result['exact_match']:.2f}", str(result["questions"]))
        rows.append((name, result["variant"], *scores))
    return ["", *table(rows).splitlines()] if accuracy else []


def _target_row(target: Facts) -> Sequence[str]:
    return (target["name"], target["wanted"], target["got"], "met" if target["met"] else "NOT MET")
