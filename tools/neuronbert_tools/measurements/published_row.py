"""The child of published.py, on the timed emulator: one row with the runner, from tokens and from text.

python -m neuronbert_tools.measurements.published_row ARTIFACT ROW SECONDS ROUNDS
"""

import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any, Dict, Mapping, Sequence

from neuronbert import Runner
from neuronbert.backends.base import Batch
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


def measure_row(artifact: Path, row: Row, seconds: float, rounds: int) -> Dict[str, Any]:
    """One row: what was published, what the model says, and what was measured.

    The contenders take turns, ``rounds`` times: medians of their figures, and of these as shares of the device's in the
    same turn. Text is asked once, after them.
    """
    work, load = published_work(row)
    model = predict(work, **load)
    tokenizer = Tokenizer.from_files(artifact)
    batches = full_batches(recorded_windows(tokenizer), work.batch_size, 0)
    turns = [measure_in_turn(artifact, batches, load, seconds) for _ in range(rounds)]
    with Runner(artifact) as runner:
        pairs = recorded_pairs(tokenizer)
        text = {**measure_text(runner, pairs, seconds), "tokenizer_per_s": tokenizer_rate(tokenizer, pairs)}
    return {
        **{name: row[name] for name in CONFIGURATION},
        "published": {"throughput_per_s": float(row["throughput_per_s"]), "p95_ms": float(row["p95_ms"])},
        "model": {"throughput_per_s": model.throughput_per_s, "p95_ms": model.p95_s * 1000},
        **{contender: medians([turn[contender] for turn in turns]) for contender in turns[0]},
        "of_device": {
            name: medians([shares_of(turn, name) for turn in turns]) for name in turns[0] if name != "device"
        },
        "text": text,
        "turns": turns,
    }


def measure_in_turn(
    artifact: Path, batches: Sequence[Batch], load: Mapping[str, Any], seconds: float
) -> Dict[str, Dict[str, float]]:
    """The device alone, behind bare processes, and with the runner, one right after the other.

    Tokenised input, with as many requests in flight as were published; through the runner with one more for each model
    too: then the host's work between two requests costs the device nothing.
    """
    models, in_flight, batch_size = load["models"], load["in_flight"], len(batches[0].input_ids)
    alone_s = device_latencies_s(artifact, batch_size, seconds, in_flight)
    bare_s = bare_latencies_s(artifact, batches, seconds, in_flight)
    turns = itertools.cycle(batches)
    with Runner(artifact) as runner:

        def ask() -> object:
            return runner.submit_encoded(*next(turns)).result()

        with usage_of(runner) as usage:
            latencies_s = closed_loop(models * in_flight, seconds, ask)
        more_s = closed_loop(models * (in_flight + 1), seconds, ask)
    sequences = len(latencies_s) * batch_size * 1.2  # with those of the warm-up
    cpu_us = (usage.runner_cpu_s + usage.workers_cpu_s) / sequences * 1e6
    return {
        "device": figures(alone_s, batch_size, seconds),
        "bare": figures(bare_s, batch_size, seconds),
        "tokens": {**figures(latencies_s, batch_size, seconds), "cpu_us": cpu_us},
        "one_more": figures(more_s, batch_size, seconds),
    }


def shares_of(turn: Mapping[str, Mapping[str, float]], contender: str) -> Dict[str, float]:
    """A contender's figures of one turn as shares of the device's: of all that the two have in common."""
    return {name: turn[contender][name] / figure for name, figure in turn["device"].items()}


def medians(turns: Sequence[Mapping[str, float]]) -> Dict[str, float]:
    """Of each figure."""
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def figures(latencies_s: Sequence[float], batch_size: int, seconds: float) -> Dict[str, float]:
    """Throughput in sequences and two percentiles."""
    return {
        "throughput_per_s": len(latencies_s) * batch_size / seconds,
        "p50_ms": percentile(latencies_s, 50) * 1000,
        "p95_ms": percentile(latencies_s, 95) * 1000,
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
    """The child: ARTIFACT ROW SECONDS ROUNDS; one JSON document on stdout."""
    artifact, row = Path(arguments[0]), json.loads(arguments[1])
    print(json.dumps(measure_row(artifact, row, float(arguments[2]), int(arguments[3]))))
