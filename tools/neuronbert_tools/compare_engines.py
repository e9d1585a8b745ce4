"""Compares the engines for CPUs in FP32 on one row: torch itself, TorchScript, ONNX Runtime, OpenVINO and TVM.

    tools/compare_engines                                   # the demo, a row of 128 tokens, 300 questions
    tools/compare_engines --tokens 384 --tuning-minutes 30 --json engines.json
    tools/compare_engines --checkpoint base                 # BERT-base's sizes, random weights, the demo's tokenizer

Every engine runs in this process on the same row, in turns, a few runs each; a round's figure is its fastest run, as
neighbours only ever add to one, and engines are compared round by round. Then all answer the same questions, in windows
of as many tokens. What is compiled is kept for the next run (--work). The exit code is 1 where an engine answers
a question otherwise than torch.
"""

import argparse
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Mapping, Sequence

from neuronbert.backends.base import Batch, Session
from neuronbert.backends.outputs import Outputs
from neuronbert.backends.reference import ROW_BY_ROW, ReferenceSession
from neuronbert.engine.batches import RowsDone, collate, infer_rows
from neuronbert.engine.engine import Engine
from neuronbert.errors import UsageError
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.machine import compute_threads, environment
from neuronbert.tasks.base import Row
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert.tasks.question_answering.options import WindowOptions
from neuronbert_tools.compiled import compiled_once, random_bert_base
from neuronbert_tools.console import add_report_option, new_parser, one_or_more, print_document, print_message
from neuronbert_tools.paths import XQUAD, cache_folder
from neuronbert_tools.questions import Pair, squad_pairs

DYNAMIC = ("openvino", "onnxruntime", "torchscript")  # engines that take any shape
TORCH, TVM, OPENVINO = "torch", "tvm", "openvino"
BASE = "base"
PAUSE_S = 0.05  # between engines: some poll for a while after a run
WARM_UPS = 2

Run = Callable[[], object]


class TorchEngine(Engine):
    """An engine that asks the checkpoint itself, on all of torch's threads; the artifact gives task and tokenizer."""

    reference: ReferenceSession

    @property
    def session(self) -> Session:
        return self.reference

    def outputs(self, rows: Sequence[Row], rows_done: RowsDone = lambda rows: None) -> List[Outputs]:
        """As those of an Engine."""
        return infer_rows(self.reference, rows, self.specs, ROW_BY_ROW, self.tokenizer.pad_id, rows_done=rows_done)


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parser().parse_args(arguments)
    options.threads = options.threads or compute_threads()
    pairs = list(squad_pairs(XQUAD))
    if options.questions > len(pairs):
        raise UsageError(
            f"{options.questions} questions are more than the {len(pairs)} of {XQUAD.name}",
            hint=f"--questions {len(pairs)}",
        )
    pairs = pairs[: options.questions]
    with ExitStack() as stack:
        engines = opened(options, stack)
        row = row_of_text(engines[TVM], pairs, options.tokens)
        runs = {name: partial(engine.session.run, row) for name, engine in engines.items()}
        seconds = in_rounds(runs, options.rounds, options.runs)
        answers = {name: answered(engine, pairs, options.tokens) for name, engine in engines.items()}
    document = report(options, seconds, answers)
    print_message(table(document))
    print_document(document, options.json, indent=2)
    return int(any(engine["equal_answers"] < len(pairs) for engine in document["engines"].values()))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = new_parser(__doc__)
    made.add_argument("--checkpoint", default="demo", help="as compile takes it, or base (default: %(default)s)")
    made.add_argument("--tokens", type=one_or_more, default=128, help="of the row (default: %(default)s)")
    made.add_argument("--tuning-minutes", type=float, default=10.0, help="of TVM (default: %(default)s)")
    made.add_argument("--threads", type=one_or_more, help="default: one for each core")
    made.add_argument("--rounds", type=one_or_more, default=40, help="turns (default: %(default)s)")
    made.add_argument("--runs", type=one_or_more, default=5, help="of an engine in its turn (default: %(default)s)")
    made.add_argument("--questions", type=one_or_more, default=300, help="of XQuAD (default: %(default)s)")
    made.add_argument("--work", type=Path, default=cache_folder("compare_engines"), help="default: %(default)s")
    add_report_option(made)
    return made


def opened(options: argparse.Namespace, stack: ExitStack) -> Dict[str, Engine]:
    """Each engine by its name, on the same threads, torch first; ``stack`` closes them."""
    checkpoint = str(random_bert_base(options.work)) if options.checkpoint == BASE else options.checkpoint
    any_shape = compiled_once(checkpoint, options.work, DYNAMIC, ["fp32"], skip_gate=True)
    tuned = compiled_once(
        checkpoint,
        options.work,
        [TVM],
        ["fp32"],
        skip_gate=True,
        sequence_length=options.tokens,
        tuning_minutes=options.tuning_minutes,
        threads=options.threads,
    )
    load = partial(_load, threads=options.threads, stack=stack)
    torch_itself = load(TorchEngine, any_shape, "torchscript")
    torch_itself.reference = ReferenceSession(load_checkpoint(checkpoint).torch_model(), torch_itself.specs, threads=1)
    engines = {TORCH: torch_itself, **{name: load(Engine, any_shape, name) for name in DYNAMIC}}
    engines[TVM] = load(Engine, tuned, TVM)
    set_torch_threads(options.threads)
    return engines


def _load(kind: Any, artifact: Any, variant: str, threads: int, stack: ExitStack) -> Any:
    return stack.enter_context(kind(artifact, variant=variant, threads=threads, streams=1))


@optional_imports()
def set_torch_threads(threads: int) -> None:
    """For torch and TorchScript, which have one number of threads in a process."""
    import torch

    torch.set_num_threads(threads)


def row_of_text(engine: Engine, pairs: Sequence[Pair], tokens: int) -> Batch:
    """A row of exactly so many tokens of real text."""
    return collate([engine.task.full_rows(engine.tokenizer, list(pairs), tokens, 1)[0]], engine.tokenizer.pad_id)


def in_rounds(runs: Mapping[str, Run], count: int, each: int) -> Dict[str, List[float]]:
    """Seconds of the fastest of ``each`` runs, by engine, for each of ``count`` rounds."""
    seconds: Dict[str, List[float]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            time.sleep(PAUSE_S)
            for _ in range(WARM_UPS):
                run()
            seconds[name].append(min(timed(run) for _ in range(each)))
    return seconds


def timed(run: Run) -> float:
    """Seconds of one run."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def answered(engine: Engine, pairs: Sequence[Pair], tokens: int) -> List[str]:
    """The best answer to each question."""
    return [str(ranked[0]["answer"]) for ranked in engine.answer(pairs, WindowOptions(max_seq_len=tokens))]


def report(
    options: argparse.Namespace, seconds: Mapping[str, Sequence[float]], answers: Mapping[str, Sequence[str]]
) -> Dict[str, Any]:
    """What was found: milliseconds, and how many times as fast as torch and as OpenVINO, round by round."""
    engines = {
        name: {
            "median_ms": round(1e3 * median(own), 3),
            "fastest_ms": round(1e3 * min(own), 3),
            "times_torch": _times(seconds[TORCH], own),
            "times_openvino": _times(seconds[OPENVINO], own),
            "equal_answers": sum(a == b for a, b in zip(answers[name], answers[TORCH])),
            "rounds_s": list(own),
        }
        for name, own in seconds.items()
    }
    named = ("checkpoint", "tokens", "threads", "tuning_minutes", "questions")
    return {
        "options": {name: getattr(options, name) for name in named},
        "engines": engines,
        "environment": environment(),
    }


def _times(others: Sequence[float], own: Sequence[float]) -> float:
    return round(median(other / mine for other, mine in zip(others, own)), 3)


def table(document: Mapping[str, Any]) -> str:
    """The figures as text, a line for each engine."""
    lines = [f"{'':12} {'ms':>8} {'fastest':>8} {'x torch':>8} {'x OpenVINO':>10}  equal answers"]
    for name, found in document["engines"].items():
        lines.append(
            f"{name:12} {found['median_ms']:8.2f} {found['fastest_ms']:8.2f} {found['times_torch']:8.2f} "
            f"{found['times_openvino']:10.2f}  {found['equal_answers']} of {document['options']['questions']}"
        )
    return "\n".join(lines)
