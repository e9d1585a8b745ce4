"""Measures what it saves to encode a document once that is asked much: questions a second with the cache and without.

    tools/measure_contexts qa-artifact squad.json                            # 1,000 questions about 32 paragraphs
    tools/measure_contexts qa-artifact squad.json --words 5000 --select-windows 1    # about long documents

Questions come one by one, about one document after the other or, with --shuffled, about any. All of them are encoded in
turns, with the engine's cache of texts and without; a sample is answered too. So the report is a profile of a question:
encoding, the model, and finding the answer. The saving is what encoding without the cache adds to that sum: where the
model takes long it is small, however well the cache does.
"""

import random
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Sequence

from neuronbert.checkpoint.recent_texts import MAX_BYTES
from neuronbert.engine.engine import Engine
from neuronbert.errors import UsageError
from neuronbert.hardware.machine import environment
from neuronbert.tasks.question_answering.long_documents import long_documents
from neuronbert.tasks.question_answering.options import WindowOptions
from neuronbert.tasks.question_answering.squad import load_squad
from neuronbert_tools.console import add_report_option, new_parser, one_or_more, print_document, print_message
from neuronbert_tools.peers.texts import spaced
from neuronbert_tools.questions import Pair

WITH, WITHOUT = "with the cache", "without"
CACHE_BYTES = {WITH: MAX_BYTES, WITHOUT: 0}


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("artifact")
    add("data", type=Path, help="a SQuAD file")
    add("--variant", help="default: as the artifact's users get it")
    add("--documents", type=one_or_more, default=32, help="default: %(default)s")
    add("--questions", type=one_or_more, default=1000, help="again and again, where the data has fewer (%(default)s)")
    add("--words", type=one_or_more, help="put paragraphs together to documents of so many (default: as they are)")
    add("--select-windows", type=one_or_more, help="read so many windows of a document first (default: all)")
    add("--shuffled", action="store_true", help="not one document after the other")
    add("--sample", type=one_or_more, default=64, help="questions that are answered too (default: %(default)s)")
    add("--rounds", type=one_or_more, default=5, help="default: %(default)s")
    add_report_option(parser)
    options = parser.parse_args(arguments)
    pairs = asked(options.data, options.documents, options.questions, options.words, options.shuffled)
    windows = WindowOptions(select_windows=options.select_windows)
    with Engine(options.artifact, variant=options.variant) as engine:
        encoding_ms = encoded_in_turns(engine, pairs, windows, options.rounds)
        answering_ms = answered(engine, spaced(pairs, options.sample), windows)
    report = make_report(encoding_ms, answering_ms, pairs)
    print_message(table(report))
    print_document(report, options.json, indent=2)
    return 0


def asked(path: Path, documents: int, count: int, words: Any, shuffled: bool) -> List[Pair]:
    """``count`` questions about the first ``documents`` of a SQuAD file, those about one beside each other."""
    questions = load_squad(path)
    if words is not None:
        questions = long_documents(questions, words)
    by_document: Dict[str, List[str]] = {}
    for question in questions:
        by_document.setdefault(question.context, []).append(question.question)
    if len(by_document) < documents:
        raise UsageError(f"{path} has {len(by_document)} documents", hint=f"--documents {len(by_document)}")
    chosen = list(by_document.items())[:documents]
    shares = [count // documents + (number < count % documents) for number in range(documents)]
    pairs = [
        (there[number % len(there)], document)
        for (document, there), share in zip(chosen, shares)
        for number in range(share)
    ]
    if shuffled:
        random.Random(0).shuffle(pairs)
    return pairs


def encoded_in_turns(
    engine: Engine, pairs: Sequence[Pair], windows: WindowOptions, rounds: int
) -> Dict[str, List[float]]:
    """Milliseconds of encoding a question, the mean of each round, with the cache and without."""
    found: Dict[str, List[float]] = {name: [] for name in CACHE_BYTES}
    for _ in range(rounds):
        for name, most_bytes in CACHE_BYTES.items():
            engine.tokenizer.recent.resize(0)  # each round begins with nothing
            engine.tokenizer.recent.resize(most_bytes)
            found[name].append(mean_ms([partial(engine.encode, [pair], windows) for pair in pairs]))
    engine.tokenizer.recent.resize(MAX_BYTES)
    return found


def answered(engine: Engine, pairs: Sequence[Pair], windows: WindowOptions) -> float:
    """Milliseconds of answering a question that is encoded."""
    engine.answer(pairs[:2], windows)  # to warm up
    encoded = [engine.encode([pair], windows) for pair in pairs]
    return mean_ms([partial(_exhaust, engine, examples) for examples in encoded])


def _exhaust(engine: Engine, examples: Sequence[Any]) -> None:
    list(engine.answer_encoded(examples))


def mean_ms(calls: Sequence[Callable[[], object]]) -> float:
    """Of a call; one follows the other."""
    began = time.perf_counter()
    for call in calls:
        call()
    return 1e3 * (time.perf_counter() - began) / len(calls)


def make_report(encoding_ms: Dict[str, List[float]], answering_ms: float, pairs: Sequence[Pair]) -> Dict[str, Any]:
    """The profile of a question, and how many times as many are answered with the cache."""
    with_ms, without_ms = median(encoding_ms[WITH]), median(encoding_ms[WITHOUT])
    return {
        "questions": len(pairs),
        "documents": len({context for _, context in pairs}),
        "encoding_ms": encoding_ms,
        "answering_ms": answering_ms,
        "encoding_times": without_ms / with_ms,
        "questions_times": (without_ms + answering_ms) / (with_ms + answering_ms),
        "machine": environment(),
    }


def table(report: Dict[str, Any]) -> str:
    """The report in four lines."""
    lines = [f"{report['questions']} questions about {report['documents']} documents, milliseconds a question:"]
    for name, rounds_ms in report["encoding_ms"].items():
        lines.append(f"  encoding {name}: {median(rounds_ms):.3f} ({min(rounds_ms):.3f} to {max(rounds_ms):.3f})")
    lines.append(f"  answering: {report['answering_ms']:.2f}")
    lines.append(
        f"the cache makes encoding {report['encoding_times']:.1f} times as fast, "
        f"and the whole {report['questions_times']:.3f} times"
    )
    return "\n".join(lines)
