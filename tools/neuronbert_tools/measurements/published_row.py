"""The child of published.py, on the timed emulator: one row with the runner, from tokens and from text.

python -m neuronbert_tools.measurements.published_row ARTIFACT ROW SECONDS
"""

import itertools
import json
import time
from pathlib import Path
from typing import Any, Dict, Sequence

from neuronbert import Runner
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.hardware.device_model import predict, published_work
from neuronbert_tools.emulated_rows import recorded_pairs, recorded_windows
from neuronbert_tools.encoding import full_batches
from neuronbert_tools.load import closed_loop, percentile
from neuronbert_tools.measurements.bare import bare_latencies_s
from neuronbert_tools.measurements.device import device_latencies_s
from neuronbert_tools.measurements.usage import usage_of
from neuronbert_tools.published_rows import CONFIGURATION, Row
from neuronbert_tools.questions import Pair


def measure_row(artifact: Path, row: Row, seconds: float) -> Dict[str, Any]:
    """One row: what was published, what the model says, the device alone and behind bare processes, and the runner."""
    work, load = published_work(row)
    model = predict(work, **load)
    tokenizer = Tokenizer.from_files(artifact)
    pairs = recorded_pairs(tokenizer)
    alone_s = device_latencies_s(artifact, work.batch_size, seconds, load["in_flight"])
    batches = full_batches(recorded_windows(tokenizer), work.batch_size, 0)
    bare_s = bare_latencies_s(artifact, batches, seconds, load["in_flight"])
    with Runner(artifact) as runner:
        tokens = measure_tokens(runner, work.batch_size, load["models"], load["in_flight"], seconds)
        text = {**measure_text(runner, pairs, seconds), "tokenizer_per_s": tokenizer_rate(tokenizer, pairs)}
    return {
        **{name: row[name] for name in CONFIGURATION},
        "published": {"throughput_per_s": float(row["throughput_per_s"]), "p95_ms": float(row["p95_ms"])},
        "model": {"throughput_per_s": model.throughput_per_s, "p95_ms": model.p95_s * 1000},
        "device": figures(alone_s, work.batch_size, seconds),
        "bare": figures(bare_s, work.batch_size, seconds),
        "tokens": tokens,
        "text": text,
    }


def figures(latencies_s: Sequence[float], batch_size: int, seconds: float) -> Dict[str, float]:
    """Throughput in sequences and two percentiles."""
    return {
        "throughput_per_s": len(latencies_s) * batch_size / seconds,
        "p50_ms": percentile(latencies_s, 50) * 1000,
        "p95_ms": percentile(latencies_s, 95) * 1000,
    }


def measure_tokens(runner: Runner, batch_size: int, models: int, in_flight: int, seconds: float) -> Dict[str, float]:
    """Tokenised input with as many requests in flight as were published, and with one more for each model."""
    windows = recorded_windows(runner.tokenizer)
    turns = itertools.cycle(full_batches(windows, batch_size, 0))

    def ask() -> object:
        return runner.submit_encoded(*next(turns)).result()

    with usage_of(runner) as usage:
        latencies_s = closed_loop(models * in_flight, seconds, ask)
    sequences = len(latencies_s) * batch_size * 1.2  # with those of the warm-up
    cpu_us = (usage.runner_cpu_s + usage.workers_cpu_s) / sequences * 1e6
    # One request more for each group: then the host's work between two requests costs the device nothing.
    more_s = closed_loop(models * (in_flight + 1), seconds, ask)
    one_more = len(more_s) * batch_size / seconds
    return {
        **figures(latencies_s, batch_size, seconds),
        "cpu_us": cpu_us,
        "throughput_one_more_per_s": one_more,
    }


def measure_text(runner: Runner, pairs: Sequence[Pair], seconds: float) -> Dict[str, float]:
    """The pairs again and again as text, for so many seconds."""
    began = time.perf_counter()
    asked = itertools.takewhile(lambda _: time.perf_counter() < began + seconds, itertools.cycle(pairs))
    count = sum(1 for _ in runner.map(asked))
    return {"throughput_per_s": count / (time.perf_counter() - began)}


def tokenizer_rate(tokenizer: Tokenizer, pairs: Sequence[Pair]) -> float:
    """Pairs a second that the tokenizer alone takes with all the cores there are."""
    texts = [text for pair in list(pairs) * 20 for text in pair]
    began = time.perf_counter()
    for _ in range(5):
        tokenizer.backend.encode_batch(texts, add_special_tokens=False)
    return 5 * len(texts) / 2 / (time.perf_counter() - began)


def main(arguments: Sequence[str]) -> None:
    """The child: ARTIFACT ROW SECONDS; one JSON document on stdout."""
    print(json.dumps(measure_row(Path(arguments[0]), json.loads(arguments[1]), float(arguments[2]))))
