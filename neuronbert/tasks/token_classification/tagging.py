"""What a model found in a text whose right tags or entities are known (data.py), for gate.py and evaluation.py.

A word gets the label of its first token, which is what models are trained and measured by; its other tokens are not
looked at.
"""

from typing import Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.outputs import Outputs, all_finite
from neuronbert.tasks.token_classification.data import characters_of
from neuronbert.tasks.token_classification.entities import best_labels
from neuronbert.tasks.token_classification.entity_f1 import OUTSIDE, Span, entities_of
from neuronbert.tasks.token_classification.windows import Example, Words


class Found(NamedTuple):
    """What one model found in a text."""

    labels: np.ndarray  # the number of each token's best label, int64 of shape [tokens]
    names: Tuple[str, ...]  # of the labels, by their numbers
    tags: Tuple[str, ...]  # of each word
    entities: FrozenSet[Span]  # over characters


def found_in(example: Example, outputs: Sequence[Outputs]) -> Found:
    """The tags of the words that the example's input says, or of the tokenizer's own, and the entities they make.

    A word without a token of its own is outside of any entity. Where the outputs hold NaN or Inf nothing is found, and
    every label is -1.
    """
    names = example.vocabulary.labels
    if not all(map(all_finite, outputs)):
        return Found(np.full(len(example.ids), -1), names, (), frozenset())
    labels = best_labels(example, outputs)
    firsts = _tokenizer_words(example) if example.words is None else _first_tokens(example, example.words)
    tags = tuple(OUTSIDE if first is None else names[labels[first]] for first in firsts.values())
    return Found(labels, names, tags, characters_of(entities_of(tags), tuple(firsts)))


def equal_labels(pairs: Sequence[Tuple[Found, Found]]) -> float:
    """Share of the tokens that have the same label in both of each pair, 0 to 1; 1 where there is no token.

    Two checkpoints may number their labels differently; of a text that they tokenise differently no label is the same.
    """
    equal = np.concatenate([_equal(ours, theirs) for ours, theirs in pairs])
    return float(equal.mean()) if len(equal) else 1.0


def _equal(ours: Found, theirs: Found) -> np.ndarray:
    if len(ours.labels) != len(theirs.labels):
        return np.zeros(len(ours.labels), dtype=bool)
    if ours.names == theirs.names:
        return np.asarray(ours.labels == theirs.labels)
    numbers = {name: number for number, name in enumerate(theirs.names)}
    renumbered = np.array([*(numbers.get(name, len(numbers)) for name in ours.names), -2])  # the last is label -1
    return np.asarray(renumbered[ours.labels] == theirs.labels)


def _first_tokens(example: Example, words: Words) -> Dict[Tuple[int, int], Optional[int]]:
    """The first token that begins in each word."""
    shown = [(start, token) for token, (start, end) in enumerate(example.offsets) if start < end]
    places = np.searchsorted([start for start, _ in shown], [start for start, _ in words]).tolist()
    return {
        word: shown[place][1] if place < len(shown) and shown[place][0] < word[1] else None
        for word, place in zip(words, places)
    }


def _tokenizer_words(example: Example) -> Dict[Tuple[int, int], Optional[int]]:
    """(start, end) in characters of each word that the tokenizer made of the text → its first token."""
    found: Dict[Tuple[int, int], Optional[int]] = {}
    for tokens in _runs([number for encoding in example.encodings for number in encoding.word_ids]):
        start, end = example.offsets[tokens[0]][0], example.offsets[tokens[-1]][1]
        while start < end and example.text[start].isspace():  # some tokenizers take it to the word behind it
            start += 1
        if start < end:
            found[start, end] = tokens[0]
    return found


def _runs(words: Sequence[Optional[int]]) -> Iterator[List[int]]:
    """The places of equal numbers that follow one another, without those of None."""
    run: List[int] = []
    for place, number in enumerate(words):
        if run and number != words[run[0]]:
            yield run
            run = []
        if number is not None:
            run.append(place)
    if run:
        yield run
