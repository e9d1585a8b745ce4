"""Measures the offline job against one engine in one process, in one run: ratios of questions per second.

    tools/measure_job qa-artifact squad.json more.json              # every question of them, 3 rounds
    tools/measure_job qa-artifact squad.json --questions 3000 --workers 1 2 --rounds 5

The contenders take turns, each measurement in a fresh process; loading is counted for neither. The engine answers
texts from memory (Engine.for_many), the job reads JSON lines and writes them to the disk. Every job must write the
same bytes. The table goes to stderr and the report, one JSON document with every raw sample, to stdout as its last
line. The exit code is 1 if the job as it is by default stays below --target times the engine.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from neuronbert.backends.child import python_environment
from neuronbert.cli.tables import table
from neuronbert.hardware.machine import environment
from neuronbert.tasks.question_answering.lines import question_line
from neuronbert.tasks.question_answering.squad import load_squad
from neuronbert_tools.console import new_parser, print_document, print_message
from neuronbert_tools.processes import module_command, verb_command

ENGINE_NAME = "engine"


class Sample(NamedTuple):
    """One measurement."""

    questions_per_s: float
    cpu_s: float  # of all processes, loading counted: what a busy machine does not change


def run_engine(artifact: str, questions: Path) -> Sample:
    """One engine, once over the questions."""
    return measured(module_command("measurements.engine_rate", artifact, questions))


def run_job(artifact: str, questions: Path, output: Path, workers: Optional[int]) -> Sample:
    """The same as a job, which leaves ``output``."""
    chosen = [] if workers is None else ["--workers", workers]
    return measured(verb_command("run", artifact, "--input", questions, "--output", output, *chosen, "--json"))


def measured(command: List[str]) -> Sample:
    """What a command reports as its rate, and what it cost."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=python_environment(), text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Sample(float(json.loads(done.stdout)["inputs_per_s"]), cpu_s)


def measure(
    artifact: str, questions: Path, workers: List[Optional[int]], rounds: int, folder: Path
) -> Dict[str, List[Sample]]:
    """Every contender's samples, one for each round."""
    names = {"job, default" if count is None else f"job, {count} workers": count for count in workers}
    samples: Dict[str, List[Sample]] = {name: [] for name in (ENGINE_NAME, *names)}
    output, first = folder / "answers.jsonl", None
    for number in range(1, rounds + 1):
        samples[ENGINE_NAME].append(run_engine(artifact, questions))
        for name, count in names.items():
            samples[name].append(run_job(artifact, questions, output, count))
            written = output.read_bytes()
            output.unlink()
            if written != (first := first or written):
                sys.exit(f"round {number}: {name} wrote another output than the first job")
        rates = ", ".join(f"{name} {taken[-1].questions_per_s:.1f}/s" for name, taken in samples.items())
        print_message(f"round {number}: {rates}")
    return samples


def median_ratio(of: List[Sample], to: List[Sample], field: str) -> float:
    """The median over the rounds of a contender's figure as a multiple of the engine's in the same round."""
    ratios: List[float] = [getattr(sample, field) / getattr(base, field) for sample, base in zip(of, to)]
    return statistics.median(ratios)


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("artifact")
    parser.add_argument("data", nargs="+", type=Path, help="SQuAD-format files")
    parser.add_argument("--questions", type=int, help="so many, from all files alike (default: all)")
    parser.add_argument("--workers", type=int, nargs="*", default=[], help="also with so many workers; several counts")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--target", type=float, default=0.95, help="default: %(default)s")
    options = parser.parse_args(arguments)
    share = None if options.questions is None else max(1, options.questions // len(options.data))
    chosen = [question for path in options.data for question in load_squad(path)[:share]]
    with tempfile.TemporaryDirectory() as folder:
        questions = Path(folder, "questions.jsonl")
        lines = [question_line(question.question, question.context, question.id) + "\n" for question in chosen]
        questions.write_text("".join(lines), encoding="utf-8")
        samples = measure(options.artifact, questions, [None, *options.workers], options.rounds, Path(folder))
    report = make_report(samples, len(chosen))
    print_message(report_table(report))
    print_document({**report, "target": options.target})
    return int(report["median_ratios"]["job, default"]["questions_per_s"] < options.target)


def make_report(samples: Dict[str, List[Sample]], questions: int) -> Dict[str, Any]:
    """Raw samples, and their ratios to the engine's."""
    ratios = {
        name: {field: median_ratio(taken, samples[ENGINE_NAME], field) for field in Sample._fields}
        for name, taken in samples.items()
    }
    raw = {name: [sample._asdict() for sample in taken] for name, taken in samples.items()}
    return {"samples": raw, "median_ratios": ratios, "questions": questions, "machine": environment()}


def report_table(report: Mapping[str, Any]) -> str:
    """The ratios as columns, and what they were measured on."""
    ratios, machine = report["median_ratios"], report["machine"]
    rows = [(name, *(f"{ratio[field]:.3f}" for field in Sample._fields)) for name, ratio in ratios.items()]
    columns = table(rows, ("median ratio to the engine", "questions/s", "CPU time"))
    return f"{columns}\n{report['questions']} questions on {machine['cpu_model']}, {machine['usable_cpus']} CPUs"
