"""Measures neuronbert and its peers side by side in one run: real text in, answers out.

    tools/compare_peers                                     # everything; about half an hour on 2 cores
    tools/compare_peers --models demo --questions 20 --rounds 1 --only speed
    tools/compare_peers --contenders neuronbert,openvino-int8 --json report.json
    tools/compare_peers --task text-classification --model CHECKPOINT --data test.csv
    tools/compare_peers --task feature-extraction --models bert-base --data test.csv --texts 256 --rounds 3

Each contender has its own virtual environment and its own long-lived process, loaded before anything is timed.
They take turns for several rounds, one working at a time; medians and ranges are over the rounds. int8 and FP32
matrix products are timed in the same rounds. Where a contender has a choice of batch sizes, a short probe before the
rounds picks its fastest. Environments, exports and artifacts are kept in --work for the next run.
The table goes to stderr and the report, one JSON document with every raw sample, to stdout as its last line. The exit
code is 1 if a contender failed or a target that was measured is not met.
"""

import argparse
from pathlib import Path
from typing import Optional, Sequence, Tuple

from neuronbert.hardware.machine import affinity_cpus
from neuronbert_tools.console import add_report_option, new_parser, print_document, print_message
from neuronbert_tools.paths import cache_folder
from neuronbert_tools.peers import TASKS, load_peer_task
from neuronbert_tools.peers.base import PeerTask
from neuronbert_tools.peers.children import ChildFailed
from neuronbert_tools.peers.comparison import compare
from neuronbert_tools.peers.preparation import Options
from neuronbert_tools.peers.summary import render

DEFAULT_TASK = "question-answering"


def parse(arguments: Sequence[str]) -> Tuple[Options, Optional[Path]]:
    """What to compare, and the file that also gets the report; ends the process with 2 where an option is wrong."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--task", choices=tuple(TASKS), default=DEFAULT_TASK, help="default: %(default)s")
    add("--models", help=f"with commas between them; {_defaults('MODELS')}")
    add("--model", type=Path, help="the checkpoint folder of the model called so")
    add("--contenders", help=f"with commas between them; {_defaults('CONTENDERS')}")
    add("--only", help=f"with commas between them; {_defaults('PARTS')}")
    add("--data", type=Path, help="SQuAD-format questions (default: the XQuAD of the tests), or a file of texts")
    add("--calibration", type=Path, help="the same for int8, ours too (default: the text that neuronbert ships)")
    add("--questions", "--texts", type=int, help=f"so many of them; {_defaults('COUNT')}")
    add("--rounds", type=int, default=5, help="default: 5")
    add("--threads", type=int, default=affinity_cpus(), help="of each contender (default: all)")
    add("--work", type=Path, default=cache_folder("compare_peers"), help="kept between runs (default: %(default)s)")
    add_report_option(parser)
    chosen = parser.parse_args(arguments)
    options = _options(parser, chosen, load_peer_task(chosen.task))
    return options, chosen.json


def _defaults(name: str) -> str:
    """The default of an option that depends on the task, for its help."""
    described = []
    for task in TASKS:
        default = getattr(load_peer_task(task), name)
        described.append(f"{task}: {default if isinstance(default, int) else ','.join(default)}")
    return "default: " + "; ".join(described)


def _options(parser: argparse.ArgumentParser, chosen: argparse.Namespace, task: PeerTask) -> Options:
    questions = task.COUNT if chosen.questions is None else chosen.questions
    if min(questions, chosen.rounds, chosen.threads) < 1:
        parser.error("--questions, --rounds and --threads must be at least 1")
    models = _some_of(parser, "--models", chosen.models, tuple(task.MODELS))
    is_given = "model" in task.MODELS
    if chosen.model is not None and not is_given:
        parser.error(f"--model is not for {task.NAME}, whose models are {', '.join(task.MODELS)}")
    measurable = task.PARTS
    if is_given and chosen.model is None:
        if "model" in models:
            parser.error("--model FOLDER is missing; --models bert-base needs none")
        measurable = ("speed",)
    if chosen.model is not None and not (chosen.model / "config.json").is_file():
        parser.error(f"there is no checkpoint {chosen.model}")
    data = task.DATA if chosen.data is None else chosen.data
    if data is None:
        parser.error(f"--data FILE is missing: {task.NAME} has no texts of its own")
    for path in (data, chosen.calibration):
        if path is not None and not path.is_file():
            parser.error(f"there is no file {path}")
    return Options(
        task=task.NAME,
        models=models,
        contenders=_some_of(parser, "--contenders", chosen.contenders, tuple(task.CONTENDERS)),
        model=chosen.model,
        data=data,
        calibration=chosen.calibration,
        questions=questions,
        rounds=chosen.rounds,
        threads=chosen.threads,
        work=chosen.work,
        parts=_some_of(parser, "--only", chosen.only, measurable),
    )


def _some_of(
    parser: argparse.ArgumentParser, option: str, text: Optional[str], known: Tuple[str, ...]
) -> Tuple[str, ...]:
    """Some of the names ``known`` that ``text`` has with commas between them; all of them without it."""
    chosen = known if text is None else tuple(text.split(","))
    unknown = [name for name in chosen if name not in known]
    if unknown:
        parser.error(f"argument {option}: {unknown[0]!r} is not one of {', '.join(known)}")
    return chosen


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    options, copy = parse(arguments)
    try:
        report = compare(options)
    except ChildFailed as failure:  # of a model, or of ours: without that there is nothing to compare
        print_message(f"error: {failure}")
        return 1
    print_message(render(report))
    print_document(report, copy)
    failed = any(model["failed"] for model in report["models"].values())
    return int(failed or not all(target["met"] for target in report["targets"]))
