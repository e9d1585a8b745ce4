"""Measures a cascade beside its two models: questions a second in turns, and F1, of questions it was not made with.

    tools/measure_cascade small-artifact large-artifact squad.json --gate-half
    tools/measure_cascade small-artifact large-artifact squad.json --gate-data other.json --min-f1-ratio 0.993
    tools/measure_cascade small-artifact random-artifact squad.json --share 0.3 --questions 100    # speed alone

The cascade is what `neuronbert cascade` makes of the two artifacts; with --gate-half its gate asks every other document
of the data, filled up with shipped questions where those are few, and the rest is asked here. With --share no gate is
asked: the large model gets that share of the windows, those of which the small one is least sure. So a large model with
random weights, whose F1 means nothing, shows how fast a cascade is whose small model is in doubt as often as that of a
real pair.
"""

import argparse
import json
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert import make_cascade
from neuronbert.artifact.manifest import Artifact
from neuronbert.backends.outputs import Outputs, all_finite
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.compiler.cascade import cascade_variant, refuse_unlike, write_cascade
from neuronbert.compiler.cascade_gate import Part, Parts
from neuronbert.engine.cascade import row_sureness
from neuronbert.engine.engine import Engine
from neuronbert.errors import BackendFailed, UsageError
from neuronbert.hardware.machine import environment
from neuronbert.tasks import load_task
from neuronbert.tasks.base import NOT_FINITE
from neuronbert.tasks.question_answering.metrics import evaluate_answers
from neuronbert.tasks.question_answering.options import AnswerOptions, WindowOptions
from neuronbert.tasks.question_answering.squad import SquadData, load_squad_data, squad_document
from neuronbert_tools.chain.measuring import pairs_of, spread_sample
from neuronbert_tools.console import add_report_option, new_parser, one_or_more, print_document, print_message
from neuronbert_tools.peers.summary import Spread, ratios, spread
from neuronbert_tools.server.throughput import rate_of
from neuronbert_tools.server.turns import in_rounds

PARTS = SMALL, LARGE = "small", "large"
CASCADE = "cascade"
EVERY_WINDOW = WindowOptions(select_windows=0)  # whatever the artifacts read of a long document


class Asked(NamedTuple):
    """What is measured of one model, and of the cascade."""

    rates_per_s: List[float]  # questions, of each round
    f1: float  # in percent


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = read_options(arguments)
    parts = Parts(
        Part.of(options.small, options.small_variant, None), Part.of(options.large, options.large_variant, None)
    )
    refuse_unlike(parts)
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        asked, gate_data = questions_of(options, Path(work))
        if options.share is None:
            asked = unknown_to_gate(asked, parts, gate_data)
        asked = sample_of(asked, options.questions)
        engines = {name: opened(part.artifact, part.variant["name"], stack) for name, part in zip(PARTS, parts)}
        sure = window_sureness(engines[SMALL], asked)
        made = Path(work) / CASCADE
        if options.share is None:
            cascade = make_cascade(
                options.small, options.large, made, small_variant=options.small_variant,
                large_variant=options.large_variant, min_f1_ratio=options.min_f1_ratio,
                min_answer_f1=options.min_answer_f1, gate_data=gate_data, progress=print_message,
            )  # fmt: skip
        else:
            outputs_of(engines[LARGE], asked)  # refused if they are no numbers
            cascade = cascade_with(parts, threshold_for(sure, options.share), options.share, made)
        (variant,) = cascade.variants
        engines[CASCADE] = opened(cascade, variant["name"], stack)
        found = measured(engines, asked, options.rounds)
    keys = ("threshold", "share_of_large", "speedup") if options.share is None else ("threshold",)
    chosen = {key: variant["cascade"][key] for key in keys}
    report = {
        **make_report(found, chosen, float((sure < chosen["threshold"]).mean())),
        "gate_questions": cascade.manifest["gate"]["n"] if options.share is None else 0,
        "variants": {name: engine.name for name, engine in engines.items()},
        "questions": len(asked.questions),
        "options": {key: str(value) for key, value in vars(options).items()},
        "machine": environment(),
    }
    print_message(table(report))
    print_document(report, options.json, indent=2)
    return 0


def opened(artifact: Artifact, variant: str, stack: ExitStack) -> Engine:
    """An engine for many questions, which ``stack`` closes."""
    return stack.enter_context(Engine.for_many(artifact, variant=variant))


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; UsageError for options that exclude each other."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("small")
    add("large")
    add("data", type=Path, help="a SQuAD file")
    for model in (SMALL, LARGE):
        add(f"--{model}-variant", help="default: as the artifact's users get it")
    add("--gate-data", type=Path, help="a SQuAD file, by which the cascade is made (default: the shipped questions)")
    add("--gate-half", action="store_true", help="by every other document of the data instead; the rest is asked")
    add("--min-f1-ratio", type=float, help="as for neuronbert cascade")
    add("--min-answer-f1", type=float, help="as for neuronbert cascade")
    add("--share", type=float, help="of the windows, that the large model is asked, whatever becomes of the answers")
    add("--questions", type=one_or_more, help="so many at even distances (default: all)")
    add("--rounds", type=one_or_more, default=3, help="default: %(default)s")
    add_report_option(parser)
    options = parser.parse_args(arguments)
    gated = [options.gate_data, options.gate_half or None, options.min_f1_ratio, options.min_answer_f1]
    if options.share is not None and any(each is not None for each in gated):
        raise UsageError("with --share no gate chooses anything", hint="leave the gate's options out, or --share")
    if options.gate_half and options.gate_data is not None:
        raise UsageError("the gate has one file", hint="--gate-data or --gate-half")
    if options.share is not None and not 0 < options.share < 1:
        raise UsageError(f"--share {options.share} is not between 0 and 1", hint="such as --share 0.3")
    return options


def questions_of(options: argparse.Namespace, work: Path) -> Tuple[SquadData, Optional[Path]]:
    """What may be asked, and the file for the gate; None: the one that is shipped."""
    data, gate_data = load_squad_data(options.data), options.gate_data
    if options.gate_half:
        documents = list(dict.fromkeys(question.context for question in data.questions))
        if len(documents) < 2:
            raise UsageError(f"{options.data} is about one document", hint="--gate-data")
        for_gate = set(documents[::2])
        gate_data = work / "gate.json"
        document = squad_document([each for each in data.questions if each.context in for_gate], data.version)
        gate_data.write_text(json.dumps(document), encoding="utf-8")
        data = data._replace(questions=[each for each in data.questions if each.context not in for_gate])
    return data, gate_data


def unknown_to_gate(asked: SquadData, parts: Parts, gate_data: Optional[Path]) -> SquadData:
    """Those about documents that the gate, which fills ``gate_data`` up with shipped questions, does not ask about."""
    large = parts.large.artifact
    gate = load_task(large.task).gate(Tokenizer.from_files(large.folder).config)
    known = {each.context for each in gate.questions(gate_data, None, False).asked}
    questions = [each for each in asked.questions if each.context not in known]
    if not questions:
        raise UsageError("the gate asks about every document of the data", hint="other data, or --gate-half")
    return asked._replace(questions=questions)


def sample_of(asked: SquadData, count: Optional[int]) -> SquadData:
    """So many of the questions, at even distances; all where there are fewer."""
    total = len(asked.questions)
    return asked._replace(questions=spread_sample(asked.questions, min(count or total, total), 0.5))


def outputs_of(engine: Engine, asked: SquadData) -> List[Outputs]:
    """What it says of each window; BackendFailed where those are no numbers."""
    rows = [row for example in engine.encode(pairs_of(asked), EVERY_WINDOW) for row in example.windows]
    outputs = engine.outputs(rows)
    if not all(map(all_finite, outputs)):
        raise BackendFailed(f"{engine.name} of {engine.artifact.folder}: {NOT_FINITE}", hint="compile it again")
    return outputs


def window_sureness(small: Engine, asked: SquadData) -> np.ndarray:
    """How sure the small model is of each window: float64 of shape [windows]."""
    return np.array([row_sureness(outputs, small.specs) for outputs in outputs_of(small, asked)])


def threshold_for(sure: np.ndarray, share: float) -> float:
    """Below which ``share`` of the windows are, or fewer where some are equally sure; UsageError where that is none."""
    threshold = float(np.quantile(sure, share))
    if not (sure < threshold).any():
        raise UsageError(
            f"--share {share}: none of {len(sure)} windows is surely below that share of them: {threshold:.3g} is the "
            "least that the small model is sure of one",
            hint="more --questions, or another --share",
        )
    return threshold


def cascade_with(parts: Parts, threshold: float, share: float, output: Path) -> Artifact:
    """A cascade whose threshold no gate has chosen, for about that share of the windows."""
    manifest = parts.large.artifact.manifest
    unjudged = {"agreement": None, "accuracy": None}
    variant = cascade_variant(parts, unjudged, threshold=threshold, share_of_large=share, speedup=1.0)
    gate = {**manifest["gate"], "skipped": True}
    return write_cascade(parts, {**manifest, "variants": [variant], "gate": gate}, output)


def measured(engines: Mapping[str, Engine], asked: SquadData, rounds: int) -> Dict[str, Asked]:
    """All of them in turns, from text to answers."""
    pairs = pairs_of(asked)
    options = AnswerOptions(handle_impossible_answer=asked.version == "2.0")
    f1: Dict[str, float] = {}
    for name, engine in engines.items():
        engine.tokenizer.recent.resize(0)  # every pass is over the same contexts: each is to cost what the first does
        answers = engine.answer(pairs, EVERY_WINDOW, options)
        texts = {each.id: ranked[0]["answer"] for each, ranked in zip(asked.questions, answers)}
        f1[name] = float(evaluate_answers(asked.questions, texts, version=asked.version)["f1"])
    turns = {
        name: partial(rate_of, partial(engine.answer, pairs, EVERY_WINDOW, options), len(pairs))
        for name, engine in engines.items()
    }
    samples = in_rounds(turns, rounds)
    return {name: Asked([each["questions_per_s"] for each in samples[name]], f1[name]) for name in engines}


def make_report(found: Mapping[str, Asked], chosen: Mapping[str, float], share: float) -> Dict[str, Any]:
    """Rates, and as many times the large model's: medians and ranges, the ratios within a round."""
    large = found[LARGE]
    return {
        "models": {
            name: {
                "questions_per_s": spread(each.rates_per_s)._asdict(),
                "times_large": ratios(each.rates_per_s, large.rates_per_s)._asdict(),
                "f1": each.f1,
                "rounds": each.rates_per_s,
            }
            for name, each in found.items()
        },
        "chosen": dict(chosen),
        "share_of_large": share,  # of the windows asked here
    }


def table(report: Mapping[str, Any]) -> str:
    """For a person."""
    lines = [
        f"{report['questions']} questions; the large model was asked {report['share_of_large']:.1%} of the windows"
    ]
    for name, model in report["models"].items():
        rate, times = Spread(**model["questions_per_s"]), Spread(**model["times_large"])
        lines.append(f"  {name:8} {rate} questions/s, {times} times the large one's, F1 {model['f1']:.2f}")
    return "\n".join(lines)
