"""Entities of tagged sentences, and their precision, recall and F1 as seqeval counts them; evaluation.py reports them.

An entity counts as found when its type and both of its ends are right. As in the official script of CoNLL-2000
(conlleval), which seqeval follows unless it is told to be strict, tags of every scheme are read alike: IOB1, IOB2, IOE
and IOBES.
"""

from collections import Counter
from typing import AbstractSet, Dict, Iterable, List, NamedTuple, Sequence, Tuple

import numpy as np

from neuronbert.errors import InputError

OUTSIDE = "O"
NO_TYPE = "_"  # seqeval's name for the type of a bare B, I, E or S


class Span(NamedTuple):
    """An entity among words, or among characters: its type, where it begins, and where it ends, not included."""

    type: str
    start: int
    stop: int


class Counts(NamedTuple):
    """Entities of one type, or of all: those of the data, those that were predicted, and those that are both."""

    gold: int
    predicted: int
    right: int

    @property
    def precision(self) -> float:
        """Share of the predicted entities that are right; 0 where none was predicted."""
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the data's entities that were found; 0 where it has none."""
        return self.right / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where nothing is right."""
        return 2 * self.right / (self.predicted + self.gold) if self.right else 0.0


def tag_parts(tag: str) -> Tuple[str, str]:
    """The place of a tag (B, I, E, S, or O outside) and its type.

    A tag without such a prefix, as those of parts of speech are, is a type by itself, which its repetition continues.
    That is how transformers groups tokens; seqeval would take the first letter of such a tag for its place.
    """
    if tag == OUTSIDE:
        return OUTSIDE, NO_TYPE
    if tag[:1] in ("B", "I", "E", "S") and tag[1:2] in ("", "-"):
        return tag[0], tag[2:] or NO_TYPE
    return "I", tag


def entities_of(tags: Sequence[str]) -> List[Span]:
    """The entities of one sentence, in order, over its words; any sequence of tags is read as seqeval does."""
    spans: List[Span] = []
    begun = 0
    before, before_type = OUTSIDE, NO_TYPE
    for number, tag in enumerate((*tags, OUTSIDE)):
        place, type_ = tag_parts(tag)
        changes = before_type != type_
        if before != OUTSIDE and (changes or before in ("E", "S") or place in ("B", "S", OUTSIDE)):
            spans.append(Span(before_type, begun, number))
        if place != OUTSIDE and (changes or place in ("B", "S") or before in (OUTSIDE, "E", "S")):
            begun = number
        before, before_type = place, type_
    return spans


def count_entities(gold: Iterable[AbstractSet[Span]], predicted: Iterable[AbstractSet[Span]]) -> Dict[str, Counts]:
    """The counts of each type, by name in order; one set of entities for each text in both arguments."""
    golds: Counter[str] = Counter()
    guesses: Counter[str] = Counter()
    rights: Counter[str] = Counter()
    for own, guessed in zip(gold, predicted):
        golds.update(span.type for span in own)
        guesses.update(span.type for span in guessed)
        rights.update(span.type for span in own & guessed)
    return {name: Counts(golds[name], guesses[name], rights[name]) for name in sorted({*golds, *guesses})}


def overall(by_type: Dict[str, Counts]) -> Counts:
    """The counts of all types together; their F1 is the micro average."""
    return Counts(*(sum(counts[part] for counts in by_type.values()) for part in range(3)))


def macro_f1(by_type: Dict[str, Counts]) -> float:
    """Mean of the types' F1, 0 to 1, each of the same weight; 0 without a type."""
    return float(np.mean([counts.f1 for counts in by_type.values()])) if by_type else 0.0


def shared_f1(ours: Sequence[AbstractSet[Span]], theirs: Sequence[AbstractSet[Span]]) -> float:
    """Entity F1 of one reader's entities against another's, 0 to 1, one set for each text; 1 where neither has any."""
    counts = overall(count_entities(theirs, ours))
    return counts.f1 if counts.gold or counts.predicted else 1.0


def tag_accuracy(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Share of the words whose tag is that of the data, 0 to 1; InputError where there is no word."""
    equal = [a == b for own, guessed in zip(gold, predicted) for a, b in zip(own, guessed)]
    if not equal:
        raise InputError("there is no tag to compare", hint="data with a tag for every token")
    return sum(equal) / len(equal)


def f1_interval(
    counts: Sequence[Counts], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Tuple[float, float]:
    """Bootstrap percentile interval of the micro F1, 0 to 1, from the counts of each text: whole texts are drawn."""
    table = np.array(counts, dtype=np.int64).reshape(-1, 3)
    random = np.random.default_rng(seed)
    scores = []
    for _ in range(resamples):  # one by one: a table of all draws would not fit into memory for a large file
        drawn = Counts(*table[random.integers(len(table), size=len(table))].sum(axis=0).tolist())
        scores.append(drawn.f1)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(scores, [tail, 100 - tail])
    return float(low), float(high)
