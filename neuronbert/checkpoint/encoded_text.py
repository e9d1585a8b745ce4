"""A text that was encoded: its tokens, and where its words and characters are, found once however often it is asked."""

from functools import cached_property
from typing import NamedTuple, Tuple

import numpy as np
import tokenizers


class WordRanges(NamedTuple):
    """The first and the last token of each token's word, int64 [tokens]."""

    firsts: np.ndarray
    lasts: np.ndarray
    are_words: np.ndarray  # bool [tokens]: false for a token that belongs to none


class Encoded:
    """A text's tokens, without special ones: their ids, int64 [tokens], and what ``tokenizers`` knows of them."""

    def __init__(self, encoding: tokenizers.Encoding, ids: np.ndarray):
        self.encoding = encoding
        self.ids = ids

    @cached_property
    def characters(self) -> Tuple[np.ndarray, np.ndarray]:
        """Where each token begins and where it ends in the text, int64 [tokens] each."""
        begins, ends = np.array(self.encoding.offsets, dtype=np.int64).reshape(-1, 2).T.copy()  # take() copies views
        return begins, ends

    @cached_property
    def words(self) -> WordRanges:
        """The words of the tokens."""
        words = np.array([-1 if word is None else word for word in self.encoding.word_ids], dtype=np.int64)
        tokens = np.arange(len(words))
        begins = np.ones(len(words) + 1, dtype=bool)  # a word, or the end
        begins[1:-1] = (words[1:] != words[:-1]) | (words[1:] < 0)
        firsts = np.maximum.accumulate(np.where(begins[:-1], tokens, 0))
        lasts = np.minimum.accumulate(np.where(begins[1:], tokens, len(words))[::-1])[::-1].copy()  # no view, as above
        return WordRanges(firsts, lasts, words >= 0)
