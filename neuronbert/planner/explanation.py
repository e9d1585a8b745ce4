"""A plan in words: what to choose, why, what it costs, what else there was, and what was ruled out.

Pure: configurations in, sentences out. cli/plan_table.py puts them around the table of the ranking.
"""

from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from neuronbert.errors import counted
from neuronbert.hardware import cores
from neuronbert.hardware.device_model import ModelShape
from neuronbert.hardware.gpu_model import calibrated_share, gpu_sizes, likely_range, runner_rate, share_of
from neuronbert.planner.candidates import GPU_PRECISION, device_service
from neuronbert.planner.configurations import DEVICES, GPU, INF1, Configuration, Target

OBJECTIVE_WORDS = {
    "cost": "lowest cost",
    "latency": "lowest latency",
    "throughput": "highest throughput of an instance",
}


class Layout(NamedTuple):
    """What makes configurations of different batch sizes one kind."""

    instance_type: str
    mode: str
    pipeline_cores: int


def explanation(target: Target, ranked: Sequence[Configuration]) -> List[str]:
    """The best of ``ranked`` and its reasons, for a reader who meets these words for the first time."""
    best = ranked[0]
    instances = "1 instance" if best.instances <= 1 else f"{best.instances} instances"
    return [
        f"{OBJECTIVE_WORDS[target.objective].capitalize()}: {best.name}, {instances}.",
        f"  {_how_it_works(best)}",
        f"  {_how_long_it_takes(best, target)}",
        f"  {_cost(best)}",
        *(f"  {line}" for line in _alternatives(target, ranked)),
        f"  make it: {best.compile_command}",
    ]


def _how_it_works(best: Configuration) -> str:
    if best.measured:
        rate = figure(best.capacity_per_s, 4)
        return f"Measured on {best.instance_type}: {rate} sequences/s at batch {best.batch_size}."
    if best.device == GPU:
        kind = gpu_sizes()[best.instance_type].kind
        each = f"each of the {best.models} GPUs holds" if best.models > 1 else "its GPU holds"
        return (
            f"{kind.name}: {each} a whole copy of the model, and takes batches of {best.batch_size} sequences, the "
            f"least that keep all of its {kind.multiprocessors} multiprocessors busy. Predicted: {share_of(kind):.2g} "
            f"of the {kind.dense_flops_per_s / 1e12:.4g} TFLOPS of its datasheet."
        )
    if best.mode == cores.DATA_PARALLEL:
        start = f"Data-parallel: each of the {best.models} cores holds a whole copy of the model. "
        if best.batch_size == 1:
            return start + "It fetches the weights from its chip's memory again for every sequence."
        return (
            start + f"It fetches the weights from its chip's memory once for a batch, so {best.batch_size} sequences "
            "share what is the dearest part of the work."
        )
    groups = f"{best.models} such groups work side by side. " if best.models > 1 else ""
    return (
        f"Pipeline: a model is cut into {best.pipeline_cores} parts, one to a core, and a sequence passes them in "
        f"turn. {groups}A part is small enough to stay in its core, wholly or mostly, so little is fetched from "
        "memory: a sequence is done sooner, but a core does less in a second than one that works on a batch."
    )


def _how_long_it_takes(best: Configuration, target: Target) -> str:
    assert best.latency is not None
    load_per_s = best.load_per_instance * best.instances
    asked = "" if target.throughput_per_s else " (no load was asked for: one instance, less the headroom)"
    limit = f" ({target.latency_p95_ms:g} allowed)" if target.latency_p95_ms else ""
    return (
        f"A batch that meets no other takes {figure(best.service_ms)} ms. At {figure(load_per_s, 4)} "
        f"sequences/s{asked}, which come at random, half are answered within {figure(best.p50_ms)} ms and 95 of 100 "
        f"within {figure(best.p95_ms)} ms{limit}: what is more than the batch's own time is waiting, for the batch to "
        f"fill, for a core, or for what cores share. That is {best.latency.utilisation:.0%} of what "
        f"{'it' if best.instances == 1 else 'they'} could take{_likely(best)}."
    )


def _likely(best: Configuration) -> str:
    """How far the truth may be from a prediction."""
    if best.measured:
        return ""
    low_ms, high_ms = best.p95_range_ms
    capacity, p95 = spread(*best.capacity_range_per_s), spread(low_ms, high_ms)
    extrapolated = f" (extrapolated: {best.extrapolated})" if best.extrapolated else ""
    return f"; likely {capacity} sequences/s an instance, and a p95 of {p95} ms{extrapolated}"


def spread(low: float, high: float) -> str:
    """A range as a person reads it."""
    return f"{figure(low)}–{figure(high)}"


def figure(value: float, digits: int = 3) -> str:
    """Rounded to ``digits``, and never as 1e+03."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if rounded >= 10 ** (digits - 1) else f"{rounded:.{digits}g}"


def _cost(best: Configuration) -> str:
    if best.price is None or best.usd_per_million is None:
        return f"No price is known for {best.instance_type}: --prices FILE gives it one."
    return (
        f"{best.usd_per_hour:.4g} USD/h, {best.usd_per_million:.3g} USD for a million at this load, "
        f"{best.usd_per_million_at_capacity:.3g} if it were saturated; {best.price.sentence()}."
    )


def _alternatives(target: Target, ranked: Sequence[Configuration]) -> List[str]:
    """The best of the other modes, sizes and devices, and the formula's answer, each with what speaks against it."""
    return [
        f"Not {alternative.name}{label}: {_drawbacks(alternative, ranked[0], target.objective)}."
        for label, alternative in _notable(ranked)
    ]


def _notable(ranked: Sequence[Configuration]) -> List[Tuple[str, Configuration]]:
    """The alternatives worth a sentence, each once and with what is said after its name."""
    best = ranked[0]
    other_mode = first_where(
        ranked, lambda candidate: candidate.device == INF1 and not candidate.measured and candidate.mode != best.mode
    )
    other_batch = first_where(
        ranked,
        lambda candidate: _layout(candidate) == _layout(best) and candidate.batch_size != best.batch_size,
    )
    formula = None
    if not best.formula:
        formula = first_where(ranked, lambda candidate: candidate.formula and candidate is not best)
    notable: Dict[int, Tuple[str, Configuration]] = {}
    for label, alternative in (("", other_mode), ("", other_batch), (" (the formula's cores)", formula)):
        if alternative is not None:
            notable[id(alternative)] = (label, alternative)
    for other in bests_of_devices(ranked):
        if other is not best:
            notable.setdefault(id(other), ("", other))
    return list(notable.values())


def bests_of_devices(ranked: Sequence[Configuration]) -> List[Configuration]:
    """The best on Inferentia, on a CPU and on a GPU, of those that there are."""
    found = {one.device: one for one in reversed(ranked)}
    return [found[device] for device in DEVICES if device in found]


def first_where(
    configurations: Sequence[Configuration], condition: Callable[[Configuration], bool]
) -> Optional[Configuration]:
    """The first of ``configurations`` that ``condition`` holds for; None when there is none."""
    return next((configuration for configuration in configurations if condition(configuration)), None)


def _layout(configuration: Configuration) -> Layout:
    return Layout(configuration.instance_type, configuration.mode, configuration.pipeline_cores)


def _drawbacks(alternative: Configuration, best: Configuration, objective: str) -> str:
    cost = ""
    if alternative.usd_per_million is not None and best.usd_per_million:
        ratio = alternative.usd_per_million / best.usd_per_million
        cost = "costs the same" if abs(ratio - 1) < 0.005 else f"costs {ratio:.3g} times as much"
    latency = f"a batch takes {figure(alternative.service_ms)} ms, p95 is {figure(alternative.p95_ms)} ms"
    rate = f"an instance takes {figure(alternative.capacity_per_s, 4)}/s"
    parts = {"cost": (cost, latency), "latency": (latency, cost), "throughput": (rate, cost)}[objective]
    return "; ".join(part for part in parts if part)


def ruled_out(rejected: Sequence[Configuration]) -> List[str]:
    """The configurations that the target excludes, one line for each layout and kind of reason."""
    if not rejected:
        return []
    kinds: Dict[Tuple[Layout, str], List[Configuration]] = {}
    for configuration in rejected:
        kinds.setdefault((_layout(configuration), configuration.rejected.split(" ")[0]), []).append(configuration)
    return [
        f"Ruled out: {counted(len(rejected), 'configuration')} (--json has the figures of each).",
        *(_ruled_out_line(layout, several) for (layout, _), several in kinds.items()),
    ]


def _ruled_out_line(layout: Layout, several: Sequence[Configuration]) -> str:
    first = several[0]
    batches = ", ".join(str(configuration.batch_size) for configuration in several)
    pipeline = f" × {layout.pipeline_cores}" if layout.pipeline_cores > 1 else ""
    formula = " (the formula's cores)" if first.formula else ""
    example = f" (batch {first.batch_size})" if len(several) > 1 and " ms" in first.rejected else ""
    return f"  {layout.mode}{pipeline}, batch {batches}, {layout.instance_type}{formula}: {first.rejected}{example}"


def _casts(shape: ModelShape, target: Target, ranked: Sequence[Configuration]) -> List[str]:
    """Which precision the predictions are for, and what is known of another."""
    best = _predicted_on(ranked, INF1)
    if best is None:
        return []
    layout = cores.layout_for(best.instance_type, best.mode, best.pipeline_cores)
    exact = device_service(shape, layout, best.batch_size, target, casts="matmul").saturated.capacity_per_s
    return [
        "Predictions are for --auto-cast all (everything in bf16, neuron-cc's own default), as all published figures "
        "are. What compile's default costs (--auto-cast matmul, more exact) has not been published; by the bytes of "
        f"activations in 32 bits, {best.name} may take as few as {figure(exact)} sequences/s instead of "
        f"{figure(best.capacity_per_s)}."
    ]


def footnotes(shape: ModelShape, target: Target, ranked: Sequence[Configuration]) -> List[str]:
    """What the figures rest on."""
    prices = dict.fromkeys(configuration.price[1:] for configuration in ranked if configuration.price)
    return [
        *_inf1_footnotes(shape, target, ranked),
        *_gpu_footnotes(ranked),
        f"Headroom {target.headroom:.0%}. Prices: {'; '.join(map(', '.join, prices)) or 'none are known'}.",
    ]


def _inf1_footnotes(shape: ModelShape, target: Target, ranked: Sequence[Configuration]) -> List[str]:
    if _predicted_on(ranked, INF1) is None:
        return []
    return [
        f"Formula: {cores.choose_pipeline_cores(shape.weights).sentence()}, AWS's starting point; its configurations "
        "are marked.",
        "Inferentia is predicted by a model of the device that was fitted to AWS's published figures, not measured. "
        "Ranges are where 8 of 10 published figures lie of a configuration that it was not fitted to; all of those are "
        "of 128 tokens, BERT-base or 6 layers of it, and clients that are never idle. Tokenising and decoding are not "
        "in it.",
        *_casts(shape, target, ranked),
    ]


def _gpu_footnotes(ranked: Sequence[Configuration]) -> List[str]:
    if _predicted_on(ranked, GPU) is None:
        return []
    share, fed, (low, high) = calibrated_share(), runner_rate(), likely_range("throughput_per_s")
    return [
        f"GPUs are predicted, not measured: {share.value:g} of the datasheet's dense 16-bit rate ({share.source}), or "
        f"less where less is published of a chip in 16 bits, at {GPU_PRECISION} with full batches. What is published "
        f"in 16 bits is {low:.2g} to {high:.2g} times the prediction. No GPU is given more than the {fed.value:,.0f} "
        f"sequences/s that one Runner tokenises and decodes ({fed.source}). What the host adds to a batch is not in "
        "it, so short latencies are too short. --measured with a report of neuronbert benchmark says what a machine "
        "does."
    ]


def _predicted_on(ranked: Sequence[Configuration], device: str) -> Optional[Configuration]:
    """The best that is predicted for ``device``."""
    return first_where(ranked, lambda candidate: candidate.device == device and not candidate.measured)
