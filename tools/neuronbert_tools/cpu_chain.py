"""Measures, on this CPU, the steps from BERT-base padded to its maximum to a small model behind a cache.

    tools/cpu_chain --plot chain.svg                    # about half an hour on 2 cores
    tools/cpu_chain --json >chain.json                  # the report in place of the table
    tools/cpu_chain --base CHECKPOINT --student CHECKPOINT --questions FILE

The steps are those of Roblox's "How we scaled BERT to serve 1+ billion daily requests on CPUs":

    base        BERT-base in FP32, one row after the other on all threads, each padded to the model's maximum
    student     the distilled model in its place (--student; the demo has 6 layers of 384)
    lengths     rows as long as they are
    engine      the fastest other one of --backends, still in FP32
    int8        the fastest int8 of --backends
    streams     several streams that share the threads, with a question each
    batches     rows of similar length together, as Engine.for_many has them
    cache       the server's result cache in this process, with 40 % of the questions repeated

Whether that engine, int8, streams and batches are faster than what was there, with which backend and with how many
streams, a probe before the rounds decides: a step that is not is measured and shown, and the chain goes on without it.
The steps take turns for several rounds over one text, from text to answers; figures are medians, factors are medians
of the ratios within a round. Latencies are those of a question that is asked alone. F1 is of all questions and measured
first.

BERT-base has random weights and an F1 of "-" unless --base names a trained reader. Artifacts are kept in --work for the
next run. The table goes to stdout, or with --json one JSON document, and progress to stderr. The exit code is 1 where
all steps before the cache are less than 30 times the first.
"""

import argparse
import gc
import os
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from neuronbert.backends import load_backend
from neuronbert.errors import UsageError
from neuronbert.hardware.machine import compute_threads, environment
from neuronbert.hardware.untrusted import sha256_of
from neuronbert.planner.picture import refuse_undrawable
from neuronbert.tasks.question_answering.options import AnswerOptions
from neuronbert.tasks.question_answering.squad import SquadData, load_squad_data
from neuronbert_tools.chain.measuring import by_length, measure_steps, pairs_of, spread_sample
from neuronbert_tools.chain.models import FP32, INT8, prepare
from neuronbert_tools.chain.readers import Readers, longest_row
from neuronbert_tools.chain.steps import choose_steps
from neuronbert_tools.chain.summary import goals_of, notes_of, render, step_documents
from neuronbert_tools.chain.waterfall import write_waterfall
from neuronbert_tools.console import above_zero, new_parser, one_or_more, print_document, print_message
from neuronbert_tools.paths import XQUAD, cache_folder

PROBE_QUESTIONS = 256  # of fewer, rows in a batch would differ more in length than they do in service


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--base", help="a trained reader of BERT-base's size, as compile takes it (default: random weights)")
    add("--student", default="demo", help="the distilled one (default: %(default)s)")
    add("--questions", type=Path, default=XQUAD, help="a SQuAD-format file (default: the XQuAD of the tests)")
    add("--count", type=one_or_more, help="only so many of them, at even distances of length (default: all)")
    add("--backends", default="openvino,onnxruntime", help="the first steps have the first (default: %(default)s)")
    add("--padded-to", type=one_or_more, metavar="TOKENS", help="of the first steps (default: the models' positions)")
    add("--threads", type=one_or_more, help="default: one for each core")
    add("--rounds", type=one_or_more, default=5, help="default: %(default)s")
    add("--seconds-per-step", type=above_zero, default=20.0, help="of each pass over questions (default: 20)")
    add("--skip-gate", action="store_true", help="take int8 whatever it loses: its F1 is measured here too")
    add("--work", type=Path, default=cache_folder("cpu_chain"), help="kept between runs (default: %(default)s)")
    add("--json", action="store_true", help="one JSON document on stdout, and the table on stderr")
    add("--plot", type=Path, metavar="FILE", help="also draw the steps: .svg or .png")
    return parser.parse_args(arguments)


def backends_of(names: str) -> List[str]:
    """CPU backends with FP32 and int8, without repetitions; UsageError for others."""
    backends = list(dict.fromkeys(names.split(",")))
    for name in backends:
        backend = load_backend(name)
        if backend.DEVICE != "cpu" or not {FP32, INT8} <= set(backend.PRECISIONS):
            raise UsageError(f"{name} is no CPU backend with FP32 and int8", hint="--backends openvino,onnxruntime")
        for precision in (FP32, INT8):
            backend.check_available(precision)
    return backends


def read_questions(path: Path, count: Optional[int]) -> SquadData:
    """The questions that are asked, in random order; UsageError for more than there are."""
    data = load_squad_data(path)
    total = len(data.questions)
    if count is not None and count > total:
        raise UsageError(f"{count} questions are more than the {total} of {path}", hint=f"--count {total}")
    ordered = sorted(data.questions, key=lambda item: len(item.question) + len(item.context))
    return data._replace(questions=spread_sample(ordered, count or total, 0.5))


def measure(options: argparse.Namespace) -> Dict[str, Any]:
    """Everything; the report, which is JSON as it stands."""
    backends = backends_of(options.backends)
    data = read_questions(options.questions, options.count)
    threads = options.threads or compute_threads()
    models = prepare(options.base, options.student, backends, options.work, options.skip_gate)
    padded_to = longest_row((models.base, *models.student.values()), options.padded_to)
    load_before = os.getloadavg()
    with ExitStack() as stack:
        # What compiling has loaded would be looked through for garbage now and then: pauses of a third of a second.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        answer_options = AnswerOptions(handle_impossible_answer=data.version == "2.0")
        readers = Readers(models, threads, answer_options, stack)
        probe = spread_sample(by_length(pairs_of(data)), min(PROBE_QUESTIONS, len(data.questions)), 0.5)
        steps = choose_steps(readers, backends, padded_to, probe)
        measured = measure_steps(steps, readers, data, options.rounds, options.seconds_per_step)
    documents = step_documents(steps, measured)
    return {
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": environment(),
        "threads": threads,
        "load": {"before": load_before, "after": os.getloadavg()},
        "workload": {
            "data": options.questions.name,
            "sha256": sha256_of(options.questions),
            "version": data.version,
            "questions": len(data.questions),
            "rounds": options.rounds,
            "seconds_per_step": options.seconds_per_step,
        },
        "models": models.documents(),
        "steps": documents,
        "goals": [goal.document() for goal in goals_of(documents)],
        "notes": notes_of(documents, models.documents()),
    }


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    if options.plot is not None:
        refuse_undrawable(options.plot)
    report = measure(options)
    if options.plot is not None:
        write_waterfall(report, options.plot)
    if options.json:
        print_message(render(report))
        print_document(report)
    else:
        print(render(report))
    return int(not all(goal["met"] for goal in report["goals"]))
