"""Measures how much is left of a command's speed beside busy processes, on two cores unless told otherwise.

    tools/measure_neighbours qa-artifact                      # everything; under 12 minutes on an idle machine
    tools/measure_neighbours qa-artifact --parts answer run runner --rounds 5
    tools/measure_neighbours --parts compile pair memory      # without an artifact

Parts: compile (the demo in FP32 with OpenVINO), compile-int8, answer (--input), run, runner (Runner.map), pair (two
compiles at once), memory (compiles one after another in one process). The first five are measured alone, beside one
busy process and beside two, in turns. Bars, of the median: at least 40 % of the speed alone beside one process, 25 %
beside two; two compiles at once take at most 2.5 times as long as one; memory grows by less than 100 MB after the
first compile. With --baseline-s, a compile must also be faster alone than that.

The table goes to stderr and the report, one JSON document with every sample, to stdout. The exit code is 1 when a bar
is missed.
"""

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

from neuronbert import Runner, compile_checkpoint
from neuronbert.backends.child import python_environment
from neuronbert.cli.tables import table
from neuronbert.hardware.machine import environment
from neuronbert.tasks.question_answering.lines import question_line
from neuronbert_tools.console import add_report_option, new_parser, print_document, print_message
from neuronbert_tools.neighbours import busy_neighbours
from neuronbert_tools.paths import XQUAD
from neuronbert_tools.processes import module_command, verb_command
from neuronbert_tools.questions import squad_pairs

SHARES = {1: 0.40, 2: 0.25}  # of the speed alone, beside so many busy processes
PAIR_RATIO = 2.5  # two compiles at once, as a multiple of one
GROWTH_MB = 100.0
COMPILES = "--compiles-in-this-process"  # how this module is started for the part memory
TIMED = ("compile", "compile-int8", "answer", "run", "runner")
PARTS = (*TIMED, "pair", "memory")
DEFAULT_PARTS = tuple(part for part in PARTS if part != "compile-int8")
ONCE = ("compile", "compile-int8")  # long enough that one round is steady


class Options(NamedTuple):
    """The command line's options; their defaults and meanings are in ``parse``."""

    artifact: Optional[Path]
    parts: List[str]
    rounds: int
    compile_rounds: int
    questions: int
    compiles: int
    checkpoint: str
    baseline_s: Optional[float]
    cores: int
    json: Optional[Path]


Measured = Callable[[], float]  # seconds of one run


class Measurements:
    """What is run, once a call, and how long it takes; files go into ``folder``."""

    def __init__(self, options: Options, folder: Path):
        self._options, self._folder = options, folder
        self._pairs = list(squad_pairs(XQUAD))[: options.questions]
        self._questions = folder / "questions.jsonl"
        lines = [question_line(*pair, str(number)) + "\n" for number, pair in enumerate(self._pairs)]
        self._questions.write_text("".join(lines), encoding="utf-8")

    def of(self, part: str) -> Measured:
        return {
            "compile": lambda: self.compile("fp32"),
            "compile-int8": lambda: self.compile("int8"),
            "answer": lambda: self._verb("answer", self._artifact(), "--input", self._questions),
            "run": self._run,
            "runner": self._runner,
        }[part]

    def _artifact(self) -> Path:
        assert self._options.artifact is not None
        return self._options.artifact

    def compile_command(self, precision: str, name: str = "compiled") -> List[str]:
        options = ("--backend", "openvino", "--precision", precision)
        return verb_command("compile", self._options.checkpoint, self._folder / name, *options)

    def compile(self, precision: str) -> float:
        seconds = timed(self.compile_command(precision))
        shutil.rmtree(self._folder / "compiled")
        return seconds

    def _verb(self, *arguments: object) -> float:
        return timed(verb_command(str(arguments[0]), *arguments[1:]))

    def _run(self) -> float:
        output = self._folder / "answers.jsonl"
        seconds = self._verb("run", self._artifact(), "--input", self._questions, "--output", output)
        output.unlink()
        return seconds

    def _runner(self) -> float:
        """Without its start, which is over when a service takes requests."""
        with Runner(self._artifact()) as runner:
            started = time.perf_counter()
            for _ in runner.map(self._pairs):
                pass
            return time.perf_counter() - started

    def pair(self) -> float:
        """Two compiles at once."""
        names = ("first", "second")
        begun = time.perf_counter()
        with ExitStack() as stack:
            both = [stack.enter_context(started(self.compile_command("fp32", name))) for name in names]
            if any(process.wait() for process in both):
                raise RuntimeError("a compile failed beside another")
        seconds = time.perf_counter() - begun
        for name in names:
            shutil.rmtree(self._folder / name)
        return seconds


@contextmanager
def started(command: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The process of ``command``; it does not outlive the block, however that ends."""
    environment = python_environment()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


def timed(command: Sequence[str]) -> float:
    """Seconds that the command takes."""
    begun = time.perf_counter()
    with started(command) as process:
        code = process.wait()
    if code:
        raise RuntimeError(f"exit code {code}: {' '.join(command)}")
    return time.perf_counter() - begun


def beside_neighbours(part: str, measured: Measured, rounds: int) -> Dict[str, Any]:
    """Seconds of ``rounds`` runs beside no, one and two busy processes, in turns, and what share of speed is left."""
    seconds: Dict[int, List[float]] = {count: [] for count in (0, *SHARES)}
    for number in range(rounds):
        for count, samples in seconds.items():
            with busy_neighbours(count):
                samples.append(measured())
            print_message(f"{part}, round {number + 1}, {count} busy processes: {samples[-1]:.1f} s")
    shares = {count: median(seconds[0]) / median(seconds[count]) for count in SHARES}
    return {"seconds": seconds, "shares": shares}


def memory_of_compiles(options: Options) -> List[float]:
    """Resident megabytes of a process after each of its compiles."""
    command = module_command("measure_neighbours", COMPILES, options.compiles, options.checkpoint)
    done = subprocess.run(command, check=True, env=python_environment(), stdout=subprocess.PIPE, text=True)
    return [float(line) for line in done.stdout.splitlines() if line]


def compile_in_this_process(count: int, checkpoint: str) -> int:
    """Compile so many times, and print the resident megabytes after each."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            output = Path(folder, str(number))
            compile_checkpoint(checkpoint, output, backend="openvino", precision="fp32")
            shutil.rmtree(output)
            print(resident_mb(), flush=True)
    return 0


def resident_mb() -> float:
    with open("/proc/self/status", encoding="utf-8") as file:
        line = next(line for line in file if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def measure(options: Options, folder: Path) -> Dict[str, Any]:
    """The figures of every part asked for."""
    measurements = Measurements(options, folder)
    report: Dict[str, Any] = {}
    for part in TIMED:
        if part in options.parts:
            rounds = options.compile_rounds if part in ONCE else options.rounds
            report[part] = beside_neighbours(part, measurements.of(part), rounds)
    if "pair" in options.parts:
        alone = median(report["compile"]["seconds"][0]) if "compile" in report else measurements.compile("fp32")
        together = measurements.pair()
        report["pair"] = {"alone_s": alone, "together_s": together, "ratio": together / alone}
    if "memory" in options.parts:
        report["memory"] = {"resident_mb": memory_of_compiles(options)}
    return report


def rows_of(report: Dict[str, Any], options: Options) -> List[Sequence[str]]:
    """(what, figure, bar, verdict) of everything measured."""
    rows: List[Sequence[str]] = []

    def row(what: str, figure: str, bar: str, holds: bool) -> None:
        rows.append((what, figure, bar, "ok" if holds else "MISSED"))

    for part in TIMED:
        for count, share in report.get(part, {}).get("shares", {}).items():
            alone_s = median(report[part]["seconds"][0])
            least = SHARES[count]
            row(f"{part} ({alone_s:.1f} s alone) beside {count}", f"{share:.0%}", f">= {least:.0%}", share >= least)
    if options.baseline_s is not None and "compile" in report:
        alone_s = median(report["compile"]["seconds"][0])
        row("compile alone", f"{alone_s:.1f} s", f"< {options.baseline_s:g} s", alone_s < options.baseline_s)
    if "pair" in report:
        ratio = report["pair"]["ratio"]
        row("two compiles at once", f"{ratio:.2f} x", f"<= {PAIR_RATIO} x", ratio <= PAIR_RATIO)
    if "memory" in report:
        resident = report["memory"]["resident_mb"]
        grown = resident[-1] - resident[0]
        row(f"growth over {len(resident)} compiles", f"{grown:.0f} MB", f"< {GROWTH_MB:.0f} MB", grown < GROWTH_MB)
    return rows


def parse(arguments: Sequence[str]) -> Options:
    parser = new_parser(__doc__)
    parser.add_argument("artifact", nargs="?", type=Path, help="for answer, run and runner")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(DEFAULT_PARTS), help="default: all but int8")
    parser.add_argument("--rounds", type=int, default=2, help="of answer, run and runner (default: 2)")
    parser.add_argument("--compile-rounds", type=int, default=1, help="default: 1")
    parser.add_argument("--questions", type=int, default=300, help="of XQuAD (default: 300)")
    parser.add_argument("--compiles", type=int, default=20, help="of the part memory (default: 20)")
    parser.add_argument("--checkpoint", default="demo", help='what is compiled (default: "demo")')
    parser.add_argument("--baseline-s", type=float, help="a compile alone must be faster than this")
    parser.add_argument("--cores", type=int, default=2, help="that everything runs on (default: 2)")
    add_report_option(parser)
    options = Options(**vars(parser.parse_args(arguments)))
    if options.artifact is None and set(options.parts) & {"answer", "run", "runner"}:
        parser.error("answer, run and runner need an artifact; or --parts compile pair memory")
    return options


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    if arguments[:1] == [COMPILES]:
        return compile_in_this_process(int(arguments[1]), arguments[2])
    options = parse(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, Path(folder))
    rows = rows_of(report, options)
    print_message(table(rows, ("what", "measured", "bar", "")))
    print_document({"machine": environment(), **report}, options.json, indent=2)
    return int(any(row[-1] == "MISSED" for row in rows))
