"""Orders the windows of a long context by the words that they share with the question, for windows.py. Pure."""

from typing import Sequence, Tuple

import numpy as np

# The usual ones of Okapi BM25: how soon more of a word counts no more, and how much a longer window is held against it.
# Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, section 3.
SATURATION = 1.2
LENGTH_SHARE = 0.75


def by_shared_words(
    question_ids: np.ndarray, context_ids: np.ndarray, ranges: Sequence[Tuple[int, int]]
) -> Tuple[int, ...]:
    """The numbers of the windows, best first; of equals the earlier one. Empty where no window has any of the words.

    ``question_ids`` and ``context_ids`` are tokens, which stand for words; ``ranges`` are each window's first token of
    the context and the one behind its last.
    """
    scores = shared_words(question_ids, context_ids, ranges)
    if not scores.any():
        return ()
    return tuple(np.argsort(-scores, kind="stable").tolist())


def shared_words(question_ids: np.ndarray, context_ids: np.ndarray, ranges: Sequence[Tuple[int, int]]) -> np.ndarray:
    """BM25 of each window: float64 of shape [windows]. What most windows have counts little, as "the" does."""
    words = np.unique(question_ids)
    if not len(words):
        return np.zeros(len(ranges))
    places = np.searchsorted(words, context_ids)
    places[places == len(words)] = 0
    positions = np.flatnonzero(words[places] == context_ids)
    found = places[positions]
    firsts, stops = np.array(ranges).T
    begins, ends = np.searchsorted(positions, firsts), np.searchsorted(positions, stops)
    counts = np.array([np.bincount(found[begin:end], minlength=len(words)) for begin, end in zip(begins, ends)])
    lengths = stops - firsts
    longer = 1 - LENGTH_SHARE + LENGTH_SHARE * lengths / lengths.mean()
    windows_with = (counts > 0).sum(axis=0)
    weights = np.log1p((len(ranges) - windows_with + 0.5) / (windows_with + 0.5))
    saturated = counts * (SATURATION + 1) / (counts + SATURATION * longer[:, None])
    scores: np.ndarray = saturated @ weights
    return scores
