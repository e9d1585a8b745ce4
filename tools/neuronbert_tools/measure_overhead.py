"""Measures the CPU time of a text outside the engine, in its batch path: what tokens, rows, batches and results cost.

    tools/measure_overhead                                  # an echo artifact of the demo, the questions in the package
    tools/measure_overhead ARTIFACT --data texts.jsonl --rounds 9 --json overhead.json
    tools/measure_overhead ARTIFACT --profile               # where it goes, by function
    tools/measure_overhead --document 20000                 # the questions about one document, each in its own call

The engine has one thread, so that CPU time is all there is. ``outside`` is that of ``Engine.answer`` less that of the
session's runs; the other figures are its parts, each called by itself. All are medians over the rounds, in microseconds
a text, each over the whole data. An artifact of the echo backend computes next to nothing, so that little can disturb
the rest.

``--document`` takes the contexts one after another for a document of so many characters. Its figures are given twice:
as it is, where a text that comes again is known, and ``anew``, where all of it is encoded again in every call.
"""

import argparse
import cProfile
import pstats
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from neuronbert import Engine
from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.recent_texts import MAX_BYTES
from neuronbert.engine.engine import chunks_of
from neuronbert.errors import UsageError
from neuronbert.hardware.machine import environment
from neuronbert.tasks.base import Input
from neuronbert_tools.artifacts import echo_artifact
from neuronbert_tools.console import add_report_option, new_parser, one_or_more, print_document, print_message

SHOWN_FUNCTIONS = 25

Calls = Sequence[Sequence[Input]]  # the inputs of each call


class Clock:
    """CPU seconds by name; ``timed`` makes a function count its own."""

    def __init__(self) -> None:
        self.seconds: Dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, whose time is added to what ``name`` has."""

        def call(*arguments: Any) -> Any:
            began = time.process_time()
            try:
                return function(*arguments)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began

        return call


class TimedSession:
    """A session whose runs count their CPU time."""

    def __init__(self, session: Any, clock: Clock):
        self._session = session
        self._run = clock.timed("session", session.run)

    def run(self, batch: Batch) -> Outputs:
        """As the session's."""
        outputs: Outputs = self._run(batch)
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@contextmanager
def timed_session(engine: Engine, clock: Clock) -> Iterator[None]:
    """Have the runs of the engine's session count their CPU time inside the block, as ``session``."""
    loaded = engine._soonest
    engine._soonest = loaded._replace(session=TimedSession(loaded.session, clock))
    try:
        yield
    finally:
        engine._soonest = loaded


def one_round(engine: Engine, calls: Calls) -> Dict[str, float]:
    """Microseconds of CPU time a text: of the whole path, and of its parts."""
    clock = Clock()
    with timed_session(engine, clock):
        for inputs in calls:
            clock.timed("answer", engine.answer)(inputs)
    figures = {"outside": clock.seconds["answer"] - clock.seconds["session"], **_parts(engine, calls)}
    return {name: 1e6 * seconds / sum(map(len, calls)) for name, seconds in figures.items()}


def one_round_of_a_document(engine: Engine, calls: Calls) -> Dict[str, float]:
    """The same figures where the tokenizer keeps texts from call to call, and where it does not: ``anew_…``."""
    anew = {f"anew_{name}": figure for name, figure in one_round(engine, calls).items()}
    engine.tokenizer.recent.resize(MAX_BYTES)
    try:
        return {**one_round(engine, calls), **anew}
    finally:
        engine.tokenizer.recent.resize(0)


def calls_about_one_document(inputs: Sequence[Input], characters: int) -> Calls:
    """The questions of the inputs, each in a call of its own, about their contexts one after another."""
    contexts = list(dict.fromkeys(context for _, context in inputs))
    together = " ".join(contexts)
    document = " ".join([together] * (1 + characters // len(together)))[:characters]
    return [[(question, document)] for question, _ in inputs]


def _parts(engine: Engine, calls: Calls) -> Dict[str, float]:
    """CPU seconds of the parts, each called as ``Engine.answer`` calls it."""
    clock = Clock()
    task, encode = engine.task, engine.tokenizer.encode
    options = task.DECODE_OPTIONS()
    engine.tokenizer.encode = clock.timed("tokens", encode)  # type: ignore[method-assign]
    try:
        with timed_session(engine, clock):
            for chunk in (chunk for inputs in calls for chunk in chunks_of(inputs)):
                examples = clock.timed("encode", engine.encode)(chunk)
                rows = [row for example in examples for row in example.windows]
                outputs = iter(clock.timed("outputs", engine.outputs)(rows))
                of_examples = [[next(outputs) for _ in example.windows] for example in examples]
                clock.timed("results", _decode_all)(task, list(zip(examples, of_examples)), options)
    finally:
        engine.tokenizer.encode = encode  # type: ignore[method-assign]
    seconds = clock.seconds
    return {
        "tokens": seconds["tokens"],
        "rows": seconds["encode"] - seconds["tokens"],
        "batches": seconds["outputs"] - seconds["session"],
        "results": seconds["results"],
    }


def _decode_all(task: Any, pairs: Sequence[Tuple[Any, List[Outputs]]], options: Any) -> None:
    for example, outputs in pairs:
        task.decode(example, outputs, options)


def print_profile(engine: Engine, calls: Calls) -> None:
    """The functions that take longest, on stdout."""
    profile = cProfile.Profile()
    for inputs in calls:
        profile.runcall(engine.answer, inputs)
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(SHOWN_FUNCTIONS)


def new_options() -> argparse.ArgumentParser:
    """The command's options."""
    parser = new_parser(__doc__)
    parser.add_argument("artifact", nargs="?", type=Path)
    parser.add_argument("--data", type=Path, help="inputs of the artifact's task; default: those in the package")
    parser.add_argument("--rounds", type=one_or_more, default=5)
    parser.add_argument("--document", type=one_or_more, metavar="CHARACTERS", help="questions: all about one document")
    parser.add_argument("--profile", action="store_true", help="print a profile in place of the report")
    add_report_option(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command."""
    options = new_options().parse_args(arguments)
    with ExitStack() as stack:
        artifact = options.artifact
        if artifact is None:
            artifact = echo_artifact(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "echo")
        engine = stack.enter_context(Engine(artifact, threads=1, streams=1))
        inputs = engine.task.read_inputs(options.data)
        calls: Calls = [inputs]
        if options.document is not None:
            if engine.task.NAME != "question-answering":
                raise UsageError(f"--document is for questions, not for {engine.task.NAME}", hint="leave it out")
            calls = calls_about_one_document(inputs, options.document)
        engine.tokenizer.recent.resize(0)  # every round costs what the first does
        engine.answer(inputs)  # warm
        if options.profile:
            print_profile(engine, calls)
            return 0
        measure = one_round if options.document is None else one_round_of_a_document
        rounds = [measure(engine, calls) for _ in range(options.rounds)]
        rows = [row for inputs in calls for example in engine.encode(inputs) for row in example.windows]
    figures = {f"{name}_us": round(median(each[name] for each in rounds), 1) for name in rounds[0]}
    print_message(", ".join(f"{name[:-3]} {value:.1f} µs" for name, value in figures.items()) + " of CPU time a text")
    report = {
        "artifact": str(options.artifact or "echo"),
        "task": engine.task.NAME,
        "texts": sum(map(len, calls)),
        "tokens_mean": round(sum(len(row.input_ids) for row in rows) / len(rows), 1),
        **figures,
        "rounds": rounds,
        "environment": environment(),
    }
    print_document(report, options.json, indent=1)
    return 0
