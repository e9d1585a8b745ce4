"""Measures where a CPU variant spends its time, operator by operator, and what could be gained from each.

    tools/profile_operators ARTIFACT --variant openvino-int8 --rows 8 --tokens 160
    tools/profile_operators ARTIFACT --variant onnxruntime-int8 --threads 1

The engine's own counters, of one batch of random tokens: the median of --runs, by kind of operator. "were it free" is
how many times as fast the whole would be if that operator took no time: no work on it can give more. Plain products of
the model's own shapes (torch, that is oneDNN or MKL) are timed beside it: what the products lack of that rate is what
better kernels could still give.
"""

import argparse
import json
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence

from neuronbert.artifact.manifest import Artifact, Variant, load_artifact
from neuronbert.artifact.variants import choose_variants
from neuronbert.backends import onnxruntime as onnxruntime_backend
from neuronbert.backends.base import Batch
from neuronbert.backends.openvino import backend as openvino_backend
from neuronbert.backends.quiet import import_without_telemetry
from neuronbert.backends.tracing import example_inputs
from neuronbert.checkpoint.config import read_config
from neuronbert.checkpoint.families import family_of, size_of
from neuronbert.errors import UsageError
from neuronbert.hardware.machine import compute_threads, environment
from neuronbert_tools.console import add_report_option, new_parser, one_or_more, print_document, print_message
from neuronbert_tools.peers.worker import gemm_rates

Milliseconds = Dict[str, float]  # of one run, by kind of operator
Profile = Callable[[], Milliseconds]  # runs once

PRECISIONS = ("fp32", "int8")
PRODUCT = re.compile("MatMul|Gemm|FullyConnected|Attention|MHA")
WARM_UPS = 3
RATE_SECONDS = 1.0


class Sizes(NamedTuple):
    """Of an encoder."""

    layers: int
    hidden: int
    inner: int
    vocabulary: int


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser().parse_args(arguments)
    artifact = load_artifact(options.artifact)
    variant = choose_variants(artifact, options.variant)[0]
    refuse_odd(variant)
    sizes = sizes_of(artifact)
    batch = Batch(**example_inputs(sizes.vocabulary, options.rows, options.tokens))
    run = PROFILES[variant["backend"]](artifact.variant_folder(variant), variant, batch, options.threads)
    runs = measured(run, options.runs)
    together = options.tokens if runs_alone(variant) else options.rows * options.tokens
    rates = plain_rates(options.threads, variant["precision"], shapes(sizes, together))
    report = make_report(runs, sizes, options.rows, options.tokens, rates)
    report["options"] = {**vars(options), "artifact": str(options.artifact), "json": None}
    report["environment"] = environment()
    print_message(table(report))
    print_document(report, options.json, indent=2)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = new_parser(__doc__)
    add = made.add_argument
    add("artifact", type=Path)
    add("--variant", required=True, help="of OpenVINO or ONNX Runtime, in FP32 or int8")
    add("--rows", type=one_or_more, default=8, help="default: %(default)s")
    add("--tokens", type=one_or_more, default=160, help="default: %(default)s")
    add("--threads", type=one_or_more, default=compute_threads(), help="default: one for each core")
    add("--runs", type=one_or_more, default=20, help="default: %(default)s")
    add_report_option(made)
    return made


def refuse_odd(variant: Variant) -> None:
    """UsageError for a variant whose operators are not counted here, or not those of its artifact's config alone."""
    if variant["backend"] not in PROFILES or variant["precision"] not in PRECISIONS:
        raise UsageError(
            f"{variant['name']} is of {variant['backend']} in {variant['precision']}",
            hint=f"a variant of {' or '.join(PROFILES)} in {' or '.join(PRECISIONS)}",
        )
    if "cascade" in variant or {"pruned", "student"} & set(variant["recipe"]):
        raise UsageError(
            f"{variant['name']} is not the whole model that its config describes, and nothing else", hint="one that is"
        )


def runs_alone(variant: Variant) -> bool:
    """Whether the backend runs rows by themselves."""
    return variant["backend"] == "onnxruntime" and onnxruntime_backend.runs_rows_alone(variant["precision"])


def sizes_of(artifact: Artifact) -> Sizes:
    """Those of the artifact's model."""
    config = read_config(artifact.folder)
    assert config is not None, "an artifact has one"
    family = family_of(config, "config.json")
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
    return Sizes(*(size_of(config, family, name) for name in names))


def measured(profile: Profile, runs: int) -> List[Milliseconds]:
    """What each of so many runs took."""
    for _ in range(WARM_UPS):
        profile()
    return [profile() for _ in range(runs)]


def _openvino(folder: Path, variant: Variant, batch: Batch, threads: int) -> Profile:
    openvino = import_without_telemetry("openvino")
    options = {**openvino_backend.compile_options(variant, threads, 1), "PERF_COUNT": True}
    compiled = openvino.Core().compile_model(str(folder / openvino_backend.FILE_NAME), "CPU", options)
    request = compiled.create_infer_request()
    padded = openvino_backend.pad_tokens(batch, variant["recipe"].get("padding"))._asdict()
    arrays = [padded[port.get_any_name()] for port in compiled.inputs]

    def run() -> Milliseconds:
        request.infer(arrays)
        taken: Milliseconds = defaultdict(float)
        for node in request.profiling_info:
            taken[node.node_type] += node.real_time.total_seconds() * 1e3
        return taken

    return run


def _onnxruntime(folder: Path, variant: Variant, batch: Batch, threads: int) -> Profile:
    rows = batch.input_ids.shape[0] if runs_alone(variant) else 1
    together = Batch(*(field[:1] for field in batch)) if runs_alone(variant) else batch

    def run() -> Milliseconds:
        # A session writes its profile when it ends: one for each run.
        with tempfile.TemporaryDirectory() as scratch:
            options = onnxruntime_backend.session_options(threads, 1)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(scratch) / "profile")
            session = onnxruntime_backend.open_session(folder / onnxruntime_backend.FILE_NAME, options)
            arrays = {each.name: together._asdict()[each.name] for each in session.get_inputs()}
            for _ in range(1 + WARM_UPS):
                session.run(None, arrays)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return {kind: rows * taken for kind, taken in last_run_of(events).items()}

    return run


def last_run_of(events: Sequence[Mapping[str, Any]]) -> Milliseconds:
    """What the operators of a trace's last run took; its events are in the order of time (microseconds)."""
    starts = [event["ts"] for event in events if event.get("name") == "model_run"]
    taken: Milliseconds = defaultdict(float)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= max(starts):
            taken[event["args"]["op_name"]] += event["dur"] / 1e3
    return taken


PROFILES = {"openvino": _openvino, "onnxruntime": _onnxruntime}


def shapes(sizes: Sizes, tokens: int) -> List[Any]:
    """The products with weights of one layer, as (rows, inner, columns)."""
    hidden, inner = sizes.hidden, sizes.inner
    return [(tokens, hidden, hidden), (tokens, hidden, inner), (tokens, inner, hidden)]


def plain_rates(threads: int, precision: str, of: Sequence[Any]) -> Dict[str, float]:
    """1e9 operations a second of products of these shapes; in FP32 too, for torch has no fast int8 without VNNI."""
    kinds = ["fp32", *(["int8"] if precision == "int8" else [])]
    rates = {kind: gemm_rates(threads, RATE_SECONDS, kind, of) for kind in kinds}
    return {f"{kind} {shape}": rate for kind in kinds for shape, rate in rates[kind].items()}


def products_gop(sizes: Sizes, rows: int, tokens: int) -> float:
    """1e9 operations of an encoder's matrix products; a multiply-add is two."""
    layers, hidden, inner, _ = sizes
    weights = rows * tokens * (4 * hidden * hidden + 2 * hidden * inner)
    attention = 2 * rows * tokens * tokens * hidden
    return 2 * layers * (weights + attention) / 1e9


def make_report(
    runs: Sequence[Milliseconds], sizes: Sizes, rows: int, tokens: int, rates: Mapping[str, float]
) -> Dict[str, Any]:
    """Medians by kind of operator, the slowest first, and what the products reach."""
    kinds = sorted({kind for run in runs for kind in run})
    medians = {kind: median(run.get(kind, 0.0) for run in runs) for kind in kinds}
    whole = sum(medians.values())
    operators = [
        {"kind": kind, "ms": ms, "share": ms / whole, "were_it_free": whole / (whole - ms) if ms < whole else None}
        for kind, ms in sorted(medians.items(), key=lambda item: -item[1])
        if ms > 0
    ]
    products_ms = sum(ms for kind, ms in medians.items() if PRODUCT.search(kind))
    rate = products_gop(sizes, rows, tokens) / products_ms * 1e3
    machine = max(rates.values())
    return {
        "operators": operators,
        "whole_ms": whole,
        "products": {"ms": products_ms, "gops": rate, "share_of_plain": rate / machine},
        "plain_products_gops": dict(rates),
        "others_free": whole / products_ms,
        "products_at_that_rate": whole / (whole - products_ms + products_ms * rate / machine),
    }


def table(report: Mapping[str, Any]) -> str:
    """For a person."""
    lines = [f"{'operator':28} {'ms':>8} {'share':>7} {'were it free':>13}"]
    for each in report["operators"]:
        free = "" if each["were_it_free"] is None else f"{each['were_it_free']:.2f} x"
        lines.append(f"{each['kind']:28} {each['ms']:8.2f} {each['share']:7.1%} {free:>13}")
    products = report["products"]
    fastest = max(report["plain_products_gops"], key=report["plain_products_gops"].get)
    lines += [
        f"{'all':28} {report['whole_ms']:8.2f}",
        f"products: {products['gops']:.0f} GOP/s, {products['share_of_plain']:.2f} times the rate of plain ones "
        f"({fastest}: {report['plain_products_gops'][fastest]:.0f})",
        f"the whole were {report['products_at_that_rate']:.2f} times as fast at that rate, and "
        f"{report['others_free']:.2f} times if all but products were free",
    ]
    return "\n".join(lines)
