"""Measures the steps: what their answers are worth, then questions a second and latencies, in turns."""

import random
import time
from typing import Dict, List, NamedTuple, Optional, Sequence, TypeVar

from neuronbert.tasks.question_answering.metrics import evaluate_answers
from neuronbert.tasks.question_answering.squad import SquadData
from neuronbert_tools.chain.readers import CachedReader, Readers
from neuronbert_tools.chain.steps import Step
from neuronbert_tools.console import print_message
from neuronbert_tools.questions import Pair
from neuronbert_tools.server.asking import with_repeats
from neuronbert_tools.server.throughput import REPEATED, rate_of
from neuronbert_tools.server.turns import in_rounds

LEAST_QUESTIONS = 8  # of a pass, however slow the step is
Item = TypeVar("Item")


class Measured(NamedTuple):
    """What was seen of a step."""

    f1: Optional[float]  # in percent; None: the weights are random
    questions_per_round: int
    rates_per_s: List[float]  # questions a second, of each round
    latencies_ms: List[float]  # of questions that were asked alone, of all rounds
    hit_rate: Optional[float]  # of the cache


def pairs_of(data: SquadData) -> List[Pair]:
    """The questions with their contexts."""
    return [(item.question, item.context) for item in data.questions]


def by_length(pairs: Sequence[Pair]) -> List[Pair]:
    """The shortest first."""
    return sorted(pairs, key=lambda pair: sum(map(len, pair)))


def spread_sample(items: Sequence[Item], count: int, phase: float) -> List[Item]:
    """``count`` different ones at even distances, from ``phase`` (0 to 1) of a distance on, in random order.

    Of sorted items every sample is like the whole, however small: a slow step is asked few of them.
    """
    found = [items[int((number + phase) * len(items) / count)] for number in range(count)]
    random.Random(0).shuffle(found)
    return found


def measure_steps(
    steps: Sequence[Step], readers: Readers, data: SquadData, rounds: int, seconds: float
) -> Dict[str, Measured]:
    """All steps by name; a pass over questions, together or one by one, takes about ``seconds``."""
    measuring = {step.name: _Measuring(step, readers, data, rounds, seconds) for step in steps}
    found = in_rounds({name: each.turn for name, each in measuring.items()}, rounds)
    return {
        name: each.measured([figures["questions_per_s"] for figures in found[name]]) for name, each in measuring.items()
    }


class _Measuring:
    """One step; it has answered each question, if those answers mean anything, before its first turn."""

    def __init__(self, step: Step, readers: Readers, data: SquadData, rounds: int, seconds: float):
        self._step = step
        self._reader = readers.reader(step.configuration)
        self._pairs = by_length(pairs_of(data))
        self._rounds = rounds
        self._round = 0
        self._latencies_ms: List[float] = []
        self._hit_rate: Optional[float] = None
        self._f1: Optional[float] = None
        if readers.models.is_meaningful(step.configuration.model):
            rate_per_s = self._assess(data)
        else:
            few = spread_sample(self._pairs, min(LEAST_QUESTIONS, len(self._pairs)), 0.5)
            rate_per_s = rate_of(lambda: self._reader.answer_together(few), len(few))["questions_per_s"]
        streams = step.configuration.streams
        self._together = self._bounded(rate_per_s * seconds)
        # A question alone has but its share of the streams.
        self._alone = self._bounded(self._together / streams)

    @property
    def _is_concurrent(self) -> bool:
        configuration = self._step.configuration
        return configuration.streams > 1 or configuration.batched or configuration.cached

    def _bounded(self, count: float) -> int:
        return min(len(self._pairs), max(LEAST_QUESTIONS, round(count)))

    def _assess(self, data: SquadData) -> float:
        """F1 of the answers to all questions, of a cache as it gives them again; questions a second."""
        pairs = pairs_of(data) * (2 if isinstance(self._reader, CachedReader) else 1)
        began = time.perf_counter()
        answers = self._reader.answer_together(pairs)[-len(data.questions) :]
        rate_per_s = len(pairs) / (time.perf_counter() - began)
        texts = {item.id: answer["answer"] for item, answer in zip(data.questions, answers)}
        self._f1 = float(evaluate_answers(data.questions, texts, version=data.version)["f1"])
        print_message(f"{self._step.name}: F1 {self._f1:.2f} of {len(texts)} questions, {rate_per_s:.1f} a second")
        return rate_per_s

    def turn(self) -> Dict[str, float]:
        """The figures of the next round."""
        phase = (self._round + 0.5) / self._rounds
        self._round += 1
        alone = self._seconds_each(self._asked(self._alone, phase))
        self._latencies_ms += [each_s * 1e3 for each_s in alone]
        if not self._is_concurrent:
            return {"questions_per_s": len(alone) / sum(alone)}
        asked = self._asked(self._together, phase)
        rate = rate_of(lambda: self._reader.answer_together(asked), len(asked))
        if not isinstance(self._reader, CachedReader):
            return rate
        self._hit_rate = self._reader.hit_rate
        return {**rate, "hit_rate": self._hit_rate}

    def _asked(self, count: int, phase: float) -> List[Pair]:
        """Different questions; of a cache, which is emptied for them, a part again and again."""
        if not isinstance(self._reader, CachedReader):
            return spread_sample(self._pairs, count, phase)
        self._reader.empty()
        new = count - round(count * REPEATED)
        return with_repeats(spread_sample(self._pairs, new, phase), count, REPEATED)

    def _seconds_each(self, pairs: Sequence[Pair]) -> List[float]:
        seconds = []
        for pair in pairs:
            began = time.perf_counter()
            self._reader.answer(pair)
            seconds.append(time.perf_counter() - began)
        return seconds

    def measured(self, rates_per_s: List[float]) -> Measured:
        """Everything, after the last turn."""
        asked = self._together if self._is_concurrent else self._alone
        return Measured(self._f1, asked, rates_per_s, self._latencies_ms, self._hit_rate)
