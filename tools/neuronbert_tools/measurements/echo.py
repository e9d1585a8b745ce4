"""The runner without a model: requests a second through the whole path, and where the CPU time goes."""

import itertools
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

import numpy as np

from neuronbert import Runner
from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.tasks.question_answering import spans
from neuronbert.tasks.question_answering.answers import rank_answers
from neuronbert.tasks.question_answering.options import AnswerOptions
from neuronbert.tasks.question_answering.windows import Example, encode_examples
from neuronbert_tools.artifacts import echo_artifact
from neuronbert_tools.console import print_message
from neuronbert_tools.encoding import cut_to_tokens
from neuronbert_tools.measurements.usage import cpu_us, usage_of
from neuronbert_tools.paths import XQUAD
from neuronbert_tools.questions import Pair, squad_pairs

TOKENS = 128
WARM_UP_PAIRS = 500
COMPONENT_PAIRS = 400
CHUNK = 32  # pairs tokenised at once


def measure_echo(folder: Path, *, workers: int, requests: int, rounds: int) -> Dict[str, Any]:
    """Text in, answer out, without a model: what is left is ours."""
    artifact = echo_artifact(folder / "echo")
    tokenizer = Tokenizer.from_files(artifact.folder)
    tokenizer.recent.resize(0)  # the same pairs come again and again
    pairs = cut_to_tokens(squad_pairs(XQUAD), TOKENS, tokenizer)
    asked = list(itertools.islice(itertools.cycle(pairs), requests))
    with Runner(artifact, workers=workers) as runner:
        runner.tokenizer.recent.resize(0)
        list(runner.map(pairs[:WARM_UP_PAIRS]))
        measured = [measure_round(runner, asked) for _ in range(rounds)]
        batches = runner.stats()["batches"]
    report = {
        "tokens": TOKENS,
        "workers": workers,
        "requests_per_s": statistics.median(figures["requests_per_s"] for figures in measured),
        "runner_cpu_us": statistics.median(figures["runner_cpu_s"] for figures in measured),
        "workers_cpu_us": statistics.median(figures["workers_cpu_s"] for figures in measured),
        "of_which_us": component_costs_us(tokenizer, pairs[:COMPONENT_PAIRS]),
        "batches": batches,
        "rounds": measured,
    }
    print_message("\n".join(report_lines(report)))
    return report


def measure_round(runner: Runner, asked: Sequence[Pair]) -> Dict[str, float]:
    """Requests a second, and microseconds a request under the names of Usage."""
    with usage_of(runner) as usage:
        count = sum(1 for _ in runner.map(asked))
    per_request_us = {name: seconds / count * 1e6 for name, seconds in asdict(usage).items()}
    return {"requests_per_s": count / usage.wall_s, **per_request_us}


def report_lines(report: Mapping[str, Any]) -> List[str]:
    """The report for a person; what the pure parts do not account for is the last line."""
    runner_us, workers_us, parts = report["runner_cpu_us"], report["workers_cpu_us"], report["of_which_us"]
    rest_us = runner_us - sum(parts.values())
    return [
        f"{report['requests_per_s']:.0f} requests/s of 128 tokens through {report['workers']} echo worker(s)",
        f"CPU per request: runner {runner_us:.0f} us, workers {workers_us:.0f} us; of it",
        *(f"  {name:<40} {cost_us:6.1f} us" for name, cost_us in parts.items()),
        f"  {'queue, batches, sockets, futures (rest)':<40} {rest_us:6.1f} us",
    ]


def component_costs_us(tokenizer: Tokenizer, pairs: Sequence[Pair]) -> Dict[str, float]:
    """What the pure parts of a request cost by themselves, in microseconds of CPU."""
    examples = [encode_examples(tokenizer, [pair])[0] for pair in pairs]
    random = np.random.default_rng(0)
    reduced = [spans_of_random_logits(random, example) for example in examples]

    def tokenise() -> None:
        for first in range(0, len(pairs), CHUNK):
            tokenizer.encode([text for pair in pairs[first : first + CHUNK] for text in pair])

    def cut() -> None:
        for first in range(0, len(pairs), CHUNK):
            encode_examples(tokenizer, pairs[first : first + CHUNK])

    def rank() -> None:
        for example, outputs in zip(examples, reduced):
            rank_answers(example, outputs)

    tokens_us = cpu_us(tokenise, len(pairs))
    return {
        f"tokenise (tokenizers, {CHUNK} pairs at once)": tokens_us,
        "cut windows": max(0.0, cpu_us(cut, len(pairs)) - tokens_us),
        "rank answers (of the workers' spans)": cpu_us(rank, len(pairs)),
    }


def spans_of_random_logits(random: np.random.Generator, example: Example) -> List[Outputs]:
    """What workers send in place of logits, of each window."""
    return [
        {name: rows[0] for name, rows in spans.reduce(logits, np.array([wanted])).items()}
        for wanted, logits in zip(
            spans.wanted_of(example, AnswerOptions()),
            (random_logits(random, len(window.input_ids)) for window in example.windows),
        )
    ]


def random_logits(random: np.random.Generator, tokens: int) -> Outputs:
    """Of one row."""
    return {name: random.normal(size=(1, tokens)).astype(np.float32) for name in (spans.START_LOGITS, spans.END_LOGITS)}
