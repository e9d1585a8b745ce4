"""neuronbert.tasks.question_answering.lexical against BM25 written down once more, word by word."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.tasks.question_answering.lexical import LENGTH_SHARE, SATURATION, by_shared_words, shared_words

TOKENS = st.integers(0, 12)


@st.composite
def cut_texts(draw):
    """A question, a context, and the ranges of its windows, as they overlap."""
    context = draw(st.lists(TOKENS, min_size=1, max_size=60))
    length = draw(st.integers(1, 20))
    step = draw(st.integers(1, length))
    firsts = range(0, max(1, len(context) - length + step), step)
    ranges = [(first, min(first + length, len(context))) for first in firsts if first < len(context)]
    return draw(st.lists(TOKENS, max_size=8)), context, ranges


def bm25(question, windows):
    mean = sum(map(len, windows)) / len(windows)
    scores = []
    for window in windows:
        score = 0.0
        for word in set(question):
            count, having = window.count(word), sum(word in each for each in windows)
            weight = math.log(1 + (len(windows) - having + 0.5) / (having + 0.5))
            longer = 1 - LENGTH_SHARE + LENGTH_SHARE * len(window) / mean
            score += weight * count * (SATURATION + 1) / (count + SATURATION * longer)
        scores.append(score)
    return scores


@given(cut_texts())
def test_it_is_bm25(texts):
    question, context, ranges = texts
    found = shared_words(np.array(question, np.int64), np.array(context, np.int64), ranges)
    assert found == pytest.approx(bm25(question, [context[first:stop] for first, stop in ranges]))


@given(cut_texts())
def test_all_windows_are_ordered_best_first_or_none_where_no_word_is_shared(texts):
    question, context, ranges = texts
    arrays = np.array(question, np.int64), np.array(context, np.int64), ranges
    order, scores = by_shared_words(*arrays), shared_words(*arrays)
    if not set(question) & set(context):
        assert order == ()
        return
    assert sorted(order) == list(range(len(ranges)))
    keys = [(-scores[number], number) for number in order]
    assert keys == sorted(keys)


def test_rare_words_count_more_than_frequent_ones():
    ranges = [(0, 4), (4, 8), (8, 12)]
    context = np.array([1, 1, 1, 9, 1, 1, 1, 7, 1, 1, 1, 9])
    assert by_shared_words(np.array([1, 7]), context, ranges)[0] == 1
