"""Chooses how sure the small model of a cascade must be, on the gate's questions, for cascade.py."""

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Iterator, List, Mapping, NamedTuple, Optional, Sequence, Union

import numpy as np

from neuronbert.artifact.manifest import Artifact, PathLike, Variant, artifact_of
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.artifact.variants import choose_variants
from neuronbert.backends.base import Steps
from neuronbert.backends.outputs import Outputs, all_finite
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.cascade import row_sureness
from neuronbert.engine.engine import Engine
from neuronbert.errors import GateRefused
from neuronbert.tasks import load_task
from neuronbert.tasks.base import NOT_FINITE, Agreement, Judged, Row

CASCADE = "cascade"  # what the gate is told in place of a precision
STEPS = 50  # thresholds that are tried: with each, a fiftieth of the rows more is asked of the large model
ROWS_IN_TURN = 128  # that one model reads before the other does: a machine's speed drifts


class Part(NamedTuple):
    """One of the two artifacts, and its variant."""

    artifact: Artifact
    variant: Variant

    @classmethod
    def of(cls, artifact: Union[Artifact, PathLike], name: Optional[str], trusted_key: TrustedKey) -> "Part":
        """The artifact, verified, with the variant that an Engine would load."""
        loaded = artifact_of(artifact, trusted_key)
        return cls(loaded, choose_variants(loaded, name)[0])


class Parts(NamedTuple):
    """The two artifacts of a cascade."""

    small: Part
    large: Part


class Reading(NamedTuple):
    """What one model says to every row of the gate, and how long that took it."""

    outputs: List[Outputs]
    seconds: float


class Choice(NamedTuple):
    """How sure the small model must be, and what becomes of that."""

    threshold: float
    share_of_large: float  # of the gate's rows, that the large model is asked
    agreement: Agreement  # with the large model
    speedup: float  # over the large model alone, if both take as long for a token as they did here


class CascadeGate:
    """The gate's questions, which both models answer."""

    def __init__(self, parts: Parts, gate_data: Optional[PathLike], limits: Mapping[str, float]):
        self.task = load_task(parts.large.artifact.task)
        large = Tokenizer.from_files(parts.large.artifact.folder)
        self.outputs = self.task.outputs(large.config)
        self.task_gate = self.task.gate(large.config)
        self.limits = replace(self.task_gate.LIMITS, **limits)
        self.questions = self.task_gate.questions(gate_data, None, False)
        inputs = self.task_gate.inputs(self.questions.asked)
        self.examples = self.task.encode(large, inputs, self.task.ENCODE_OPTIONS())
        self.rows = [row for example in self.examples for row in example.windows]

    def read(self, parts: Parts, threads: Optional[int], on_step: Steps) -> List[Reading]:
        """What each model says to every row, in turns; GateRefused for one that gives no numbers."""
        found = [Reading([], 0.0) for _ in parts]
        with ExitStack() as stack:
            engines = [
                stack.enter_context(Engine.for_many(part.artifact, variant=part.variant["name"], threads=threads))
                for part in parts
            ]
            for first in range(0, len(self.rows), ROWS_IN_TURN):
                on_step("windows answered by both", first, len(self.rows))
                for number, engine in enumerate(engines):
                    found[number] = _read(engine, self.rows[first : first + ROWS_IN_TURN], found[number])
        for part, reading in zip(parts, found):
            if not all(map(all_finite, reading.outputs)):
                raise GateRefused(
                    f"{part.variant['name']} of {part.artifact.folder}: {NOT_FINITE}", hint="compile it again"
                )
        return found

    def choose(self, small: Reading, large: Reading) -> Choice:
        """The lowest of some thresholds with which it and every higher one pass.

        GateRefused where none does, where the small model passes alone, and where the cascade would be no faster than
        the large model.
        """
        sure = np.array([row_sureness(outputs, self.outputs) for outputs in small.outputs])
        reference = self._judge(large.outputs)
        chosen, refused = None, "the small model is sure of nothing"
        for threshold in thresholds(sure):
            doubtful = sure < threshold
            mixed = [large.outputs[row] if doubtful[row] else small.outputs[row] for row in range(len(sure))]
            agreement = self.task_gate.compare(self.questions.asked, self._judge(mixed), reference)
            reasons = self.task_gate.refusals(CASCADE, agreement, self.limits)
            if reasons:
                refused = "; ".join(reasons)
                break
            chosen = Choice(threshold, float(doubtful.mean()), agreement, self._speedup(doubtful, small, large))
        return refuse_useless(chosen, refused)

    def _speedup(self, doubtful: np.ndarray, small: Reading, large: Reading) -> float:
        tokens = np.array([len(row.input_ids) for row in self.rows])
        share = float(tokens[doubtful].sum() / tokens.sum())
        return large.seconds / (small.seconds + share * large.seconds)

    def _judge(self, outputs: Sequence[Outputs]) -> Judged:
        return self.task_gate.judge(self.questions.asked, self.examples, outputs)


def _read(engine: Engine, rows: Sequence[Row], before: Reading) -> Reading:
    started = time.perf_counter()
    outputs = engine.outputs(rows)
    return Reading([*before.outputs, *outputs], before.seconds + time.perf_counter() - started)


def thresholds(sure: np.ndarray) -> Iterator[float]:
    """At most STEPS thresholds, highest first, that leave a fiftieth of the rows fewer in doubt each; the last is 0.

    Each lies in the middle between two rows: how a row is rounded elsewhere must not decide.
    """
    ordered = np.sort(sure)
    for step in range(STEPS - 1, -1, -1):
        rest = step * len(ordered) // STEPS
        if rest == 0:
            yield 0.0
            return
        if ordered[rest - 1] < ordered[rest]:
            yield float(ordered[rest - 1] + ordered[rest]) / 2


def refuse_useless(chosen: Optional[Choice], refused: str) -> Choice:
    """The choice itself, or GateRefused for a cascade that nobody needs."""
    if chosen is None:
        raise GateRefused(
            f"the large model would have to be asked nearly every window: {refused}",
            hint="a better small model, or lower --min-f1-ratio and --min-answer-f1",
        )
    if chosen.share_of_large == 0:
        raise GateRefused(
            "the small model alone passes: nothing would be asked of the large one",
            hint="use the small artifact by itself, or a higher --min-f1-ratio",
        )
    if chosen.speedup <= 1:
        raise GateRefused(
            f"it would be {chosen.speedup:.2f} times as fast as the large model alone, which is asked "
            f"{chosen.share_of_large:.0%} of the windows",
            hint="a smaller or a better small model",
        )
    return chosen
