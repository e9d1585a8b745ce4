"""Figures that the evaluations of several tasks share; beside it, question_answering/metrics.py has SQuAD's own.

Pure: labels, numbers or ids in, plain numbers out, each as the library says that its docstring names.
"""

import math
from dataclasses import dataclass
from typing import AbstractSet, Dict, Hashable, List, NamedTuple, Optional, Sequence, Sized, Tuple, Union

import numpy as np

from neuronbert.errors import InputError, count_of, counted

Labels = Union[Sequence[Hashable], np.ndarray]  # [texts]: names or numbers
Numbers = Union[Sequence[float], np.ndarray]  # [texts]
Decisions = Union[Sequence[Sequence[bool]], np.ndarray]  # [texts, labels]: whether a text has a label

# Scores drawn at a time by mean_interval: 8 MB of each array, however many scores there are.
_DRAWN_TOGETHER = 1_000_000


# ---------------------------------------------------------------------- one label a text


def accuracy(predicted: Labels, gold: Labels) -> float:
    """Share of the texts whose label is the gold one, 0 to 1 (scikit-learn's ``accuracy_score``).

    Both are [texts]. InputError for different lengths and for no texts.
    """
    _refuse_unpaired(predicted, gold, "prediction", "gold label")
    return sum(bool(ours == theirs) for ours, theirs in zip(predicted, gold)) / len(gold)


def macro_f1(predicted: Labels, gold: Labels) -> float:
    """Mean of the F1 of each label that occurs in ``predicted`` or ``gold``, 0 to 1; both are [texts].

    A label's F1 is 2 right / (predicted + gold): scikit-learn's ``f1_score`` with ``average="macro"``. A label that is
    never predicted, or never gold, counts as 0; one that occurs in neither is not known here and does not count.
    InputError for different lengths and for no texts.
    """
    counts = _label_counts(predicted, gold)
    return float(np.mean(2 * counts.right / (counts.predicted + counts.gold)))


def matthews(predicted: Labels, gold: Labels) -> float:
    """Matthews' correlation of two labellings of [texts], -1 to 1, for any number of labels.

    R_K of Gorodkin (2004, "Comparing two K-category assignments by a K-category correlation coefficient"), as
    scikit-learn's ``matthews_corrcoef``: 0 where one side has a single label, also when both have the same.
    InputError for different lengths and for no texts.
    """
    counts = _label_counts(predicted, gold)
    # Python's whole numbers: the products of large sets do not fit 64 bits.
    texts, right = len(gold), int(counts.right.sum())
    ours, theirs = counts.predicted.tolist(), counts.gold.tolist()
    covariance = right * texts - sum(a * b for a, b in zip(ours, theirs))
    variances = (texts**2 - sum(a * a for a in ours)) * (texts**2 - sum(b * b for b in theirs))
    return covariance / math.sqrt(variances) if variances else 0.0


class _Counts(NamedTuple):
    """How often each label was right, predicted and gold: int64 [labels]."""

    right: np.ndarray
    predicted: np.ndarray
    gold: np.ndarray


def _label_counts(predicted: Labels, gold: Labels) -> _Counts:
    _refuse_unpaired(predicted, gold, "prediction", "gold label")
    numbers: Dict[Hashable, int] = {}
    ours, theirs = (
        np.array([numbers.setdefault(label, len(numbers)) for label in labels]) for labels in (predicted, gold)
    )
    return _Counts(*(np.bincount(each, minlength=len(numbers)) for each in (ours[ours == theirs], ours, theirs)))


# ---------------------------------------------------------------------- any number of labels a text


class MultilabelF1(NamedTuple):
    """F1 of decisions about several labels, each 0 to 1."""

    macro: float  # mean of the labels' F1
    micro: float  # F1 of all decisions together


def subset_accuracy(predicted: Decisions, gold: Decisions) -> float:
    """Share of the texts of which every label is right, 0 to 1 (scikit-learn's ``accuracy_score`` of indicators).

    Both are booleans [texts, labels]. InputError for other types, for different shapes, and for no texts or labels.
    """
    ours, theirs = _decisions(predicted, gold)
    return float(np.mean((ours == theirs).all(axis=1)))


def multilabel_f1(predicted: Decisions, gold: Decisions) -> MultilabelF1:
    """Macro and micro F1 of booleans [texts, labels], as scikit-learn's ``f1_score`` with ``zero_division=0``.

    A label that no text has and for which none was predicted counts as 0 in the macro figure; if there is no other, so
    is the micro figure. InputError for other types, for different shapes, and for no texts or labels.
    """
    ours, theirs = _decisions(predicted, gold)
    right, occurrences = (ours & theirs).sum(axis=0), ours.sum(axis=0) + theirs.sum(axis=0)
    # A label that occurs nowhere has nothing right either: any divisor but 0 makes its F1 0.
    macro = np.mean(2 * right / np.maximum(occurrences, 1))
    return MultilabelF1(float(macro), float(2 * right.sum() / max(occurrences.sum(), 1)))


def _decisions(predicted: Decisions, gold: Decisions) -> Tuple[np.ndarray, np.ndarray]:
    ours, theirs = np.asarray(predicted), np.asarray(gold)
    for name, values in (("predicted", ours), ("gold", theirs)):
        if values.dtype != bool or values.ndim != 2:
            raise InputError(
                f"{name} must be booleans of shape [texts, labels], not {values.dtype} of shape {list(values.shape)}",
                hint="compare scores with a threshold first",
            )
    if ours.shape != theirs.shape:
        raise InputError(
            f"predicted has the shape {list(ours.shape)} and gold {list(theirs.shape)}",
            hint="give a row for each text and a column for each label, in the same order",
        )
    if not ours.size:
        raise InputError(f"there is nothing to score in the shape {list(ours.shape)}", hint="give at least one text")
    return ours, theirs


# ---------------------------------------------------------------------- a number a text


def pearson(x: Numbers, y: Numbers) -> float:
    """Pearson's correlation of [texts] numbers with as many others, -1 to 1, as ``scipy.stats.pearsonr``.

    NaN, without a warning, where a side is constant (one number always is), holds NaN or Inf, or has a sum beyond
    float64. InputError for different lengths, for nothing, and for more than one dimension.
    """
    return _pearson(*_number_pairs(x, y))


def spearman(x: Numbers, y: Numbers) -> float:
    """Spearman's correlation, -1 to 1: Pearson's of the ranks, as ``scipy.stats.spearmanr``.

    Both are [texts]; equal numbers share the mean of their ranks. NaN, without a warning, where a side is constant or
    holds NaN. InputError for different lengths, for nothing, and for more than one dimension.
    """
    ours, theirs = _number_pairs(x, y)
    if np.isnan(ours).any() or np.isnan(theirs).any():
        return math.nan
    return _pearson(_ranks(ours), _ranks(theirs))


def _number_pairs(x: Numbers, y: Numbers) -> Tuple[np.ndarray, np.ndarray]:
    _refuse_unpaired(x, y, "number", "other")
    pairs = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    for values in pairs:
        if values.ndim != 1:
            raise InputError(f"numbers to correlate have the shape {list(values.shape)}", hint="give one for each text")
    return pairs


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    # Asked first: the mean of equal numbers may differ from them in the last digit.
    if (x == x[0]).all() or (y == y[0]).all():
        return math.nan
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.clip(_direction(x) @ _direction(y), -1, 1))


def _direction(values: np.ndarray) -> np.ndarray:
    """How far the values are from their mean, as a vector of length 1."""
    centred = values - values.mean()
    centred /= np.abs(centred).max()  # so that no square is too large or too small for a float
    direction: np.ndarray = centred / np.linalg.norm(centred)
    return direction


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 up, float64 [texts]; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = np.cumsum(count) - (count - 1) / 2
    return ranks[place]


# ---------------------------------------------------------------------- ranked documents


@dataclass(frozen=True, eq=False)
class RetrievalFigures:
    """Which places of each query's ranking hold relevant documents, and what that is worth among the first ``k``.

    Each figure is 0 to 1, a mean over the queries, and defined as in the InformationRetrievalEvaluator of
    sentence-transformers. ``k`` may exceed the length of a ranking, whose further places then hold nothing relevant;
    UsageError unless it is a whole number of at least 1.
    """

    hits: np.ndarray  # bool [queries, places]: whether the document there is relevant
    relevant: np.ndarray  # int64 [queries]: how many documents are, ranked or not; at least 1

    @classmethod
    def of(cls, ranked: Sequence[Sequence[Hashable]], relevant: Sequence[AbstractSet[Hashable]]) -> "RetrievalFigures":
        """From the ids of each query's documents, best first, and the set of ids that are relevant to it.

        As in the evaluator, a query to which nothing is relevant does not count. InputError for different lengths, for
        no query that counts, and for a document that is ranked twice.
        """
        _refuse_unpaired(ranked, relevant, "ranking", "relevant set")
        for number, ids in enumerate(ranked):
            if len(set(ids)) != len(ids):
                raise InputError(f"ranked[{number}] has a document twice", hint="rank each document once")
        asked = [(ids, right) for ids, right in zip(ranked, relevant) if right]
        if not asked:
            raise InputError("no query has a relevant document", hint="give at least one query that has")
        hits = np.zeros((len(asked), max(len(ids) for ids, _ in asked)), dtype=bool)
        for row, (ids, right) in zip(hits, asked):
            row[: len(ids)] = [one in right for one in ids]
        return cls(hits, np.array([len(right) for _, right in asked]))

    def accuracy(self, k: int) -> float:
        """Share of the queries with a relevant document among the first ``k``."""
        return float(np.mean(self._top(k).any(axis=1)))

    def precision(self, k: int) -> float:
        """Relevant documents among the first ``k``, of ``k``, even where fewer are ranked."""
        return float(np.mean(self._top(k).sum(axis=1) / k))

    def recall(self, k: int) -> float:
        """Relevant documents among the first ``k``, of all relevant ones."""
        return float(np.mean(self._top(k).sum(axis=1) / self.relevant))

    def mrr(self, k: int) -> float:
        """1 / the place of the first relevant document, counted from 1; 0 where there is none among the first ``k``."""
        top = self._top(k)
        return float(np.mean((top / _places(top.shape[1])).max(axis=1, initial=0)))

    def map(self, k: int) -> float:
        """Average precision: the precisions at relevant documents' places, summed, of min(``k``, relevant ones)."""
        top = self._top(k)
        precisions = np.cumsum(top, axis=1) / _places(top.shape[1])
        return float(np.mean((precisions * top).sum(axis=1) / np.minimum(self.relevant, k)))

    def ndcg(self, k: int) -> float:
        """Gain of the relevant documents, 1 / log2(place + 1) each, of the gain were they in front."""
        top = self._top(k)
        possible = np.minimum(self.relevant, k)
        ideal = np.cumsum(_gains(possible.max()))[possible - 1]
        return float(np.mean((top * _gains(top.shape[1])).sum(axis=1) / ideal))

    def _top(self, k: int) -> np.ndarray:
        return self.hits[:, : count_of("k", k)]


def _places(count: int) -> np.ndarray:
    return np.arange(1, count + 1)


def _gains(count: int) -> np.ndarray:
    gains: np.ndarray = 1 / np.log2(_places(count) + 1)
    return gains


# ---------------------------------------------------------------------- how certain a mean is


def mean_interval(
    scores: Numbers,
    groups: Optional[Labels] = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Tuple[float, float]:
    """Bootstrap percentile interval of the mean of ``scores``, [texts], in their unit; the same for the same seed.

    Whole ``groups`` are drawn, [texts] names: questions on one paragraph succeed and fail together, so drawing them one
    by one would make the interval too narrow. None: each score is a group. A single group, or equal scores, have an
    interval without width. InputError for different lengths and for no scores.
    """
    _refuse_unpaired(scores, scores if groups is None else groups, "score", "group")
    numbers: Dict[Hashable, int] = {}
    names = range(len(scores)) if groups is None else groups
    group = [numbers.setdefault(name, len(numbers)) for name in names]
    sums = np.bincount(group, weights=np.asarray(scores, dtype=np.float64))
    counts = np.bincount(group)
    random = np.random.default_rng(seed)
    means: List[np.ndarray] = []
    at_a_time = max(1, _DRAWN_TOGETHER // len(sums))
    for first in range(0, resamples, at_a_time):
        drawn = random.integers(len(sums), size=(min(at_a_time, resamples - first), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return float(low), float(high)


def _refuse_unpaired(first: Sized, second: Sized, noun: str, other: str) -> None:
    """InputError unless there are as many of both, and some."""
    if len(first) != len(second):
        raise InputError(f"{counted(len(first), noun)} for {counted(len(second), other)}", hint="give one for each")
    if not len(first):
        raise InputError(f"there is nothing to score: {counted(0, noun)}", hint="give at least one")
