"""Compares the engines for CPUs in FP32 on one row: torch itself, TorchScript, ONNX Runtime, OpenVINO and TVM.

    tools/compare_engines                                   # the demo, a row of 128 tokens, 300 questions
    tools/compare_engines --tokens 384 --tuning-minutes 30 --json engines.json
    tools/compare_engines --checkpoint base                 # BERT-base's sizes, random weights, the demo's tokenizer

Every engine runs in this process on the same row, in turns, a few runs each; a round's figure is its fastest run, as
neighbours only ever add to one, and engines are compared round by round. Then all answer the same questions, in windows
of as many tokens. What is compiled is kept for the next run (--work).
"""

import argparse
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Mapping, Sequence

from neuronbert import Engine
from neuronbert.backends.base import Batch
from neuronbert.backends.reference import ReferenceSession
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.engine.batches import collate
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.machine import compute_threads, environment
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert.tasks.question_answering.options import WindowOptions
from neuronbert_tools.console import add_report_option, new_parser, one_or_more, print_document, print_message
from neuronbert_tools.paths import DEMO, XQUAD, cache_folder
from neuronbert_tools.peers.libraries import make_random_bert
from neuronbert_tools.questions import squad_pairs

DYNAMIC = ("openvino", "onnxruntime", "torchscript")  # engines that take any shape
TORCH, TVM = "torch", "tvm"
PAUSE_S = 0.05  # between engines: some poll for a while after a run
WARM_UPS = 2

Run = Callable[[], object]


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 where an engine's answers are not torch's."""
    options = parser().parse_args(arguments)
    options.threads = options.threads or compute_threads()
    with ExitStack() as stack:
        engines = opened(options, stack)
        rows = timed_row(engines[TVM], options.tokens)
        runs = {name: partial(engine._soonest.session.run, rows) for name, engine in engines.items()}
        seconds = rounds(runs, options.rounds, options.runs)
        answers = answered(engines, options.questions, options.tokens)
    document = report(options, seconds, answers)
    print_message(table(document))
    print_document(document, options.json, indent=2)
    return 0 if all(engine["equal_answers"] == options.questions for engine in document["engines"].values()) else 1


def parser() -> argparse.ArgumentParser:
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
    """Each engine by its name, on the same threads; torch is the checkpoint itself behind the same code."""
    checkpoint = checkpoint_of(options)
    any_shape = compiled(options, checkpoint, "any-shape", backend=list(DYNAMIC))
    of_shape = f"tvm-{options.tokens}-{options.tuning_minutes:g}-minutes-{options.threads}-threads"
    tvm = compiled(
        options,
        checkpoint,
        of_shape,
        backend=TVM,
        sequence_length=options.tokens,
        tuning_minutes=options.tuning_minutes,
        threads=options.threads,
    )
    folders = {TORCH: any_shape, **dict.fromkeys(DYNAMIC, any_shape), TVM: tvm}
    engines = {
        name: stack.enter_context(
            Engine(folder, variant="torchscript" if name == TORCH else name, threads=options.threads, streams=1)
        )
        for name, folder in folders.items()
    }
    loaded = engines[TORCH]._soonest
    model = load_checkpoint(checkpoint).torch_model()
    session = ReferenceSession(model, engines[TORCH].specs, threads=1)
    engines[TORCH]._soonest = loaded._replace(session=session)
    set_torch_threads(options.threads)
    return engines


def checkpoint_of(options: argparse.Namespace) -> str:
    """What compile takes: a model of BERT-base's sizes is made for ``base``."""
    if options.checkpoint != "base":
        return str(options.checkpoint)
    folder = options.work / "base-checkpoint"
    if not folder.exists():
        make_random_bert(folder, DEMO, "QuestionAnswering", 1)
    return str(folder)


def compiled(options: argparse.Namespace, checkpoint: str, name: str, **compile_options: Any) -> Path:
    """The artifact called ``name`` of the checkpoint, compiled unless it is there; answers are compared here."""
    folder: Path = options.work / Path(checkpoint).name / name
    if not folder.exists():
        print_message(f"compiling {checkpoint} for {name}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        compile_checkpoint(checkpoint, folder, precision="fp32", skip_gate=True, **compile_options)
    return folder


@optional_imports()
def set_torch_threads(threads: int) -> None:
    """For torch and TorchScript, which have one number of threads in a process."""
    import torch

    torch.set_num_threads(threads)


def timed_row(engine: Engine, tokens: int) -> Batch:
    """A row of exactly so many tokens of real text."""
    pairs = list(squad_pairs(XQUAD))[:50]
    return collate([engine.task.full_rows(engine.tokenizer, pairs, tokens, 1)[0]], engine.tokenizer.pad_id)


def rounds(runs: Mapping[str, Run], count: int, each: int) -> Dict[str, List[float]]:
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


def answered(engines: Dict[str, Engine], count: int, tokens: int) -> Dict[str, List[str]]:
    """The best answer to each question, by engine."""
    pairs = list(squad_pairs(XQUAD))[:count]
    windows = WindowOptions(max_seq_len=tokens)
    return {
        name: [str(found[0]["answer"]) for found in engine.answer(pairs, windows)] for name, engine in engines.items()
    }


def report(
    options: argparse.Namespace, seconds: Dict[str, List[float]], answers: Dict[str, List[str]]
) -> Dict[str, Any]:
    """What was found: milliseconds, and how many times as fast as torch and as OpenVINO, round by round."""
    engines = {
        name: {
            "median_ms": round(1e3 * median(own), 3),
            "fastest_ms": round(1e3 * min(own), 3),
            "times_torch": round(median(a / b for a, b in zip(seconds[TORCH], own)), 3),
            "times_openvino": round(median(a / b for a, b in zip(seconds["openvino"], own)), 3),
            "equal_answers": sum(a == b for a, b in zip(answers[name], answers[TORCH])),
            "rounds_s": own,
        }
        for name, own in seconds.items()
    }
    asked = {
        name: getattr(options, name) for name in ("checkpoint", "tokens", "threads", "tuning_minutes", "questions")
    }
    return {"options": asked, "engines": engines, "environment": environment()}


def table(document: Dict[str, Any]) -> str:
    """The figures as text, a line for each engine."""
    lines = [f"{'':12} {'ms':>8} {'fastest':>8} {'x torch':>8} {'x OpenVINO':>10}  equal answers"]
    for name, found in document["engines"].items():
        lines.append(
            f"{name:12} {found['median_ms']:8.2f} {found['fastest_ms']:8.2f} {found['times_torch']:8.2f} "
            f"{found['times_openvino']:10.2f}  {found['equal_answers']} of {document['options']['questions']}"
        )
    return "\n".join(lines)
