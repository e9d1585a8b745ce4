"""Loads and runs every backend again and again beside busy processes, and compares each window with a quiet run.

    tools/stress_agreement --minutes 60                     # everything that this machine runs
    tools/stress_agreement --minutes 5 --only openvino-fp32
    tools/stress_agreement --folder /tmp/stress --minutes 60 --json stress.json

Subjects are the variants of the checkpoint, the FP32 reference (as it is computed now, and as 0.1 did), and both of
them fresh from an export, as compile's gate asks them. Every load happens in a process that loads a few times; all
streams are busy with batches in random order. A window counts as different when it is off by more than 0.001 from the
answer of one stream that ran alone, and as rounded when by less; where the quiet run repeats itself bit for bit, no
window should be rounded either.

Evidence of a difference (inputs, outputs, those of asking again, the circumstances) is kept in the folder, where the
counts are added up too: a run that was cut off goes on. The exit code is 1 if any window was ever different.
"""

import json
import subprocess
import time
from itertools import cycle
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from neuronbert.artifact.files import replace_file
from neuronbert.artifact.manifest import load_artifact
from neuronbert.backends.child import python_environment
from neuronbert.cli.tables import table
from neuronbert.hardware.machine import environment
from neuronbert_tools.agreement.episode import Counts, Episode, keep_quiet_answers, run_episode
from neuronbert_tools.agreement.subjects import Opener, compiled, subjects
from neuronbert_tools.console import add_report_option, new_parser, print_document, print_message
from neuronbert_tools.neighbours import busy_neighbours
from neuronbert_tools.paths import cache_folder
from neuronbert_tools.processes import module_command

EPISODE = "--episode"  # how this module is started for one episode
QUIET, STRESSED = "quiet", "stressed"  # the two kinds of it
REPORT_S = 60.0
NEIGHBOURS = ("burst", "multiply")


class Options(NamedTuple):
    """The command line's options; their defaults and meanings are in ``parse``."""

    minutes: float
    checkpoint: str
    artifact: List[Path]
    only: List[str]
    neighbours: int
    streams: int
    threads: int
    windows: int
    loads: int
    seed: int
    folder: Path
    json: Optional[Path]


class Totals:
    """The counts of every subject, in a file that the next run adds to."""

    def __init__(self, folder: Path):
        self._path = folder / "totals.json"
        stored = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
        self.counts = {name: Counts(**counts) for name, counts in stored.items()}

    def add(self, subject: str, counts: Counts) -> None:
        self.counts[subject] = self.counts.get(subject, Counts()).plus(counts)
        replace_file(self._path, json.dumps(self.as_dict(), indent=2) + "\n")

    def as_dict(self) -> Dict[str, Dict[str, float]]:
        return {name: counts._asdict() for name, counts in self.counts.items()}

    def sum(self) -> Counts:
        total = Counts()
        for counts in self.counts.values():
            total = total.plus(counts)
        return total

    def text(self) -> str:
        """A table, with the sum as its last row."""
        named = [*sorted(self.counts.items()), ("all", self.sum())]
        rows = [(name, *(f"{figure:,.0f}" for figure in counts)) for name, counts in named]
        return table(rows, ("subject", *Counts._fields))


def in_child(what: str, episode: Episode, options: Options) -> Any:
    """What a child's episode says, as JSON; CalledProcessError when it failed."""
    job = {
        "what": what,
        "episode": {**episode._asdict(), "folder": str(episode.folder)},
        "checkpoint": options.checkpoint,
        "artifacts": [str(path) for path in options.artifact],
    }
    command = module_command("stress_agreement", EPISODE, json.dumps(job))
    done = subprocess.run(command, check=True, env=python_environment(), stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(job: Mapping[str, Any]) -> int:
    """Be the process of one episode."""
    episode = Episode(**{**job["episode"], "folder": Path(job["episode"]["folder"])})
    opener = subjects(job["checkpoint"], [load_artifact(path) for path in job["artifacts"]])[episode.subject]
    quiet = job["what"] == QUIET
    print(json.dumps(keep_quiet_answers(opener, episode) if quiet else run_episode(opener, episode)._asdict()))
    return 0


def stress(options: Options, chosen: Mapping[str, Opener], totals: Totals) -> List[str]:
    """Episodes of each subject in turn until the time is over; the subjects whose quiet run repeats itself exactly."""

    def episode(subject: str, number: int) -> Episode:
        return Episode(
            subject, options.folder, options.windows, options.loads, options.threads, options.streams,
            options.seed + number,
        )  # fmt: skip

    exact = [name for name in chosen if in_child(QUIET, episode(name, 0), options)]
    print_message(f"one stream repeats itself bit for bit: {', '.join(exact) or 'none'}")
    end = time.monotonic() + 60 * options.minutes
    reported = time.monotonic()
    with busy_neighbours(options.neighbours, NEIGHBOURS):
        for number, subject in enumerate(cycle(chosen)):
            if time.monotonic() >= end:
                break
            counts = Counts(**in_child(STRESSED, episode(subject, number), options))
            totals.add(subject, counts)
            if counts.different:
                print_message(f"DIFFERENT: {counts.different} windows of {subject}; see {options.folder}/evidence")
            if time.monotonic() - reported > REPORT_S:
                reported = time.monotonic()
                left_min = max(0.0, end - reported) / 60
                print_message(f"{left_min:.0f} min left; {totals.sum()}")
    return exact


def parse(arguments: Sequence[str]) -> Options:
    parser = new_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of stress (default: 60)")
    parser.add_argument("--checkpoint", default="demo", help='default: "demo"')
    parser.add_argument("--artifact", type=Path, action="append", default=[], help="default: compiled from it")
    parser.add_argument("--only", action="append", default=[], help="this subject, not all; repeatable")
    parser.add_argument("--neighbours", type=int, default=2, help="busy processes beside it (default: 2)")
    parser.add_argument("--streams", type=int, default=2, help="batches that run at once (default: 2)")
    parser.add_argument("--threads", type=int, default=2, help="that the streams share (default: 2)")
    parser.add_argument("--windows", type=int, default=48, help="different ones (default: 48)")
    parser.add_argument("--loads", type=int, default=4, help="in one process (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of batches (default: 0)")
    parser.add_argument("--folder", type=Path, default=cache_folder("stress_agreement"), help="default: %(default)s")
    add_report_option(parser)
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    if arguments[:1] == [EPISODE]:
        return child(json.loads(arguments[1]))
    options = parse(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    artifacts = [load_artifact(path) for path in options.artifact] or compiled(options.checkpoint, options.folder)
    options = options._replace(artifact=[artifact.folder for artifact in artifacts])
    found = subjects(options.checkpoint, artifacts)
    unknown = [name for name in options.only if name not in found]
    if unknown:
        print_message(f"there is no {', '.join(unknown)}; one of {', '.join(found)}")
        return 2
    chosen = {name: found[name] for name in options.only or found}
    totals = Totals(options.folder)
    exact = stress(options, chosen, totals)
    print_message(totals.text())
    print_document(
        {"machine": environment(), "subjects": totals.as_dict(), "exact": exact, "folder": str(options.folder)},
        options.json,
        indent=2,
    )
    different = totals.sum().different
    print_message(f"WRONG: {different} windows" if different else "no window was ever different")
    return 1 if different else 0
