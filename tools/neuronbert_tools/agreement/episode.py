"""One process that loads a subject (subjects.py) a few times and compares all its answers with the quiet ones.

Both run the same batches on the same number of threads a batch, so every bit should be the same.
"""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

import numpy as np

from neuronbert.backends.base import Batch, Session, ThroughputPlan
from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.batches import collate, plan_batches
from neuronbert.hardware.machine import environment
from neuronbert.tasks.base import FP32_MAX_ABS_DIFF, Row
from neuronbert.tasks.question_answering.options import WindowOptions
from neuronbert.tasks.question_answering.task import encode
from neuronbert_tools.agreement.subjects import Opener
from neuronbert_tools.paths import DEMO, XQUAD
from neuronbert_tools.questions import squad_pairs

PASSES = 2  # over all batches, for each load: the first runs of a load are the ones that prepare its memory
REPEATS = 3  # of a batch that differed, to see which side is right


class Episode(NamedTuple):
    """What one process does."""

    subject: str
    folder: Path  # quiet answers and evidence are kept in it
    windows: int
    loads: int
    threads: int
    streams: int
    seed: int


class Counts(NamedTuple):
    """What was compared: how often the subject was loaded, how many windows it answered, and how many of those wrong.

    ``rounded`` windows differ from the quiet answer by at most the gate's tolerance for FP32.
    """

    loads: int = 0
    windows: int = 0
    rounded: int = 0
    different: int = 0
    seconds: float = 0.0

    def plus(self, other: "Counts") -> "Counts":
        mine, its = self._asdict(), other._asdict()
        return Counts(**{name: mine[name] + its[name] for name in mine})


def windows_of(count: int) -> List[Row]:
    """So many windows of XQuAD, of all lengths."""
    tokenizer = Tokenizer.from_files(DEMO)
    pairs = list(squad_pairs(XQUAD))
    chosen = [pairs[number * len(pairs) // count] for number in range(count)]
    rows: List[Row] = [row for example in encode(tokenizer, chosen, WindowOptions()) for row in example.windows]
    return rows[:count]


def batches_of(rows: Sequence[Row], plan: ThroughputPlan) -> List[Batch]:
    """The rows as the subject is asked them."""
    pad_id = Tokenizer.from_files(DEMO).pad_id
    return [
        collate([rows[index] for index in batch], pad_id)
        for batch in plan_batches([len(row.input_ids) for row in rows], plan)
    ]


def quiet_answers(opener: Opener, episode: Episode) -> Dict[str, np.ndarray]:
    """Each batch's outputs from one stream, ``NUMBER/NAME`` → array; the share of the threads that a stream has."""
    with opener(max(1, episode.threads // episode.streams), 1) as opened:
        answers = [opened.session.run(batch) for batch in batches_of(windows_of(episode.windows), opened.plan)]
    return {f"{number}/{name}": array for number, outputs in enumerate(answers) for name, array in outputs.items()}


def quiet_path(episode: Episode) -> Path:
    return episode.folder / "quiet" / f"{episode.subject.replace(' ', '-')}.npz"


def keep_quiet_answers(opener: Opener, episode: Episode) -> bool:
    """Write the quiet answers; whether a second load gave them too, bit for bit: if not, rounding is to be expected."""
    first, second = quiet_answers(opener, episode), quiet_answers(opener, episode)
    path = quiet_path(episode)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **first)  # type: ignore[arg-type]
    return all(np.array_equal(first[name], second[name]) for name in first)


def run_episode(opener: Opener, episode: Episode) -> Counts:
    """Load the subject ``episode.loads`` times and ask it everything with all its streams busy."""
    with np.load(quiet_path(episode)) as stored:
        quiet = dict(stored)
    rows, counts, choice = windows_of(episode.windows), Counts(), random.Random(episode.seed)
    for load in range(episode.loads):
        started = time.monotonic()
        with opener(episode.threads, episode.streams) as opened:
            batches = batches_of(rows, opened.plan)
            asked = [number for _ in range(PASSES) for number in choice.sample(range(len(batches)), len(batches))]
            check = _Check(episode, load, opened.session, batches, quiet)
            with ThreadPoolExecutor(opened.streams) as pool:
                found = list(pool.map(check.compare, asked))
        seconds = Counts(loads=1, seconds=time.monotonic() - started)
        for part in [*found, seconds]:
            counts = counts.plus(part)
    return counts


class _Check:
    """Asks a session the batches and compares; a difference leaves its evidence in the folder."""

    def __init__(
        self, episode: Episode, load: int, session: Session, batches: Sequence[Batch], quiet: Mapping[str, np.ndarray]
    ):
        self._episode, self._load = episode, load
        self._session, self._batches, self._quiet = session, batches, quiet

    def compare(self, number: int) -> Counts:
        batch = self._batches[number]
        outputs = self._session.run(batch)
        rows = len(batch.input_ids)
        differences = self._differences(number, outputs)
        different = int((~(differences <= FP32_MAX_ABS_DIFF)).sum())
        if different:
            self._keep(number, outputs, differences)
        return Counts(windows=rows, rounded=int((differences > 0).sum()) - different, different=different)

    def _differences(self, number: int, outputs: Outputs) -> np.ndarray:
        """The largest difference of each row from its quiet answer, over the tokens that are not padding."""
        real = self._batches[number].attention_mask.astype(bool)
        by_output = [
            np.where(real, np.abs(array - self._quiet[f"{number}/{name}"]), 0).max(axis=1)
            for name, array in outputs.items()
        ]
        largest: np.ndarray = np.max(by_output, axis=0)
        return largest

    def _keep(self, number: int, outputs: Outputs, differences: np.ndarray) -> None:
        """Inputs, both outputs and those of asking again, as arrays; the circumstances as JSON."""
        again = [self._session.run(self._batches[number]) for _ in range(REPEATS)]
        name = f"{self._episode.subject.replace(' ', '-')}-{time.time_ns()}"
        path = self._episode.folder / "evidence" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = dict(self._batches[number]._asdict())
        for kind, side in [("got", outputs), *((f"again{index}", side) for index, side in enumerate(again))]:
            arrays.update({f"{kind}/{key}": array for key, array in side.items()})
        arrays.update({f"quiet/{key}": self._quiet[f"{number}/{key}"] for key in outputs})
        np.savez(f"{path}.npz", **arrays)
        facts: Dict[str, Any] = {
            **self._episode._asdict(),
            "folder": str(self._episode.folder),
            "load": self._load,
            "batch": number,
            "row_differences": differences.tolist(),
            "row_differences_again": [self._differences(number, side).tolist() for side in again],
            "machine": environment(),
        }
        Path(f"{path}.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
