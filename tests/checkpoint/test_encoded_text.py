"""Where words and characters are, against what ``tokenizers`` says of each token by itself."""

from typing import Any, List, Optional

import numpy as np
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from neuronbert_demo import FOLDER as DEMO

from neuronbert.checkpoint.encoded_text import Encoded
from neuronbert.checkpoint.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_files(DEMO)
PIECES = [
    "Henson's",
    "unbelievably",
    "\u00ad",
    "a\u0301b",
    "🙂",
    "Jim",
    "[SEP]",
    "北京",
    "antidisestablishment",
    "\u200b",
]


def encoded(text: str) -> Encoded:
    return TOKENIZER.encode_documents([text])[text]


@given(st.lists(st.sampled_from(PIECES)), st.sampled_from(["", " "]))
def test_words_and_characters_are_where_the_encoding_has_them(pieces: List[str], space: str) -> None:
    found = encoded(space.join(pieces))
    encoding: tokenizers.Encoding = found.encoding
    starts, stops = found.characters
    assert len(starts) == len(stops) == len(found.words.firsts) == len(found.words.lasts) == len(found.ids)
    for token in range(len(found.ids)):
        assert (starts[token], stops[token]) == encoding.token_to_chars(token)
        word = encoding.token_to_word(token)
        assert found.words.are_words[token] == (word is not None)
        if word is not None:
            first, stop = encoding.word_to_tokens(word)
            assert (found.words.firsts[token], found.words.lasts[token]) == (first, stop - 1)


class OfWords:
    """An encoding of tokens with these words, which counts how often it is read."""

    def __init__(self, words: List[Optional[int]]):
        self._words = words
        self.readings = 0

    @property
    def word_ids(self) -> List[Optional[int]]:
        self.readings += 1
        return self._words

    @property
    def offsets(self) -> List[Any]:
        self.readings += 1
        return [(token, token + 1) for token in range(len(self._words))]


@given(st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=12))
def test_a_word_is_a_run_of_tokens_and_no_word_is_a_token_of_its_own(words: List[Optional[int]]) -> None:
    found = Encoded(OfWords(words), np.zeros(len(words), np.int64)).words  # type: ignore[arg-type]
    for token, word in enumerate(words):
        first = last = token
        while word is not None and first > 0 and words[first - 1] == word:
            first -= 1
        while word is not None and last + 1 < len(words) and words[last + 1] == word:
            last += 1
        assert (found.firsts[token], found.lasts[token]) == (first, last)
        assert found.are_words[token] == (word is not None)


def test_the_encoding_is_read_once() -> None:
    encoding = OfWords([0, 0, 1])
    found = Encoded(encoding, np.zeros(3, np.int64))  # type: ignore[arg-type]
    for _ in range(3):
        assert found.words.lasts.tolist() == [1, 1, 2]
        assert found.characters[1].tolist() == [1, 2, 3]
    assert encoding.readings == 2
