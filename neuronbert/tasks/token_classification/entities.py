"""Turns the logits of a text's windows (windows.py) into labelled tokens or entities, as transformers' pipeline does.

What that pipeline does with one window, and with several where entities are joined, is done here to the letter: which
tokens are joined, which of two overlapping entities of neighbouring windows is kept, and what is called a word. It
refuses several windows where tokens stay apart; there each token is taken from the window that shows most around it.
"""

from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from neuronbert.backends.outputs import Outputs
from neuronbert.tasks.token_classification.options import WORD_STRATEGIES, EntityOptions
from neuronbert.tasks.token_classification.windows import Example, Window

Entity = Dict[str, Any]  # entity or entity_group, score, index (of a token), word, start, end

QUICKLY_DECODED = 5_000  # tokens, in less than about 0.05 s


class _Pieces(NamedTuple):
    """A window's tokens of the text cut into pieces that have one label each: the tokens themselves, or words."""

    labels: np.ndarray  # the number of each one's label, int64 of shape [pieces]
    scores: List[float]
    bounds: List[int]  # index of each one's first token among the text's; then where the last one ends


def entities_of_text(
    example: Example, outputs: Sequence[Outputs], options: EntityOptions = EntityOptions()
) -> List[Entity]:
    """The entities of a text in order, or its tokens with strategy "none": dictionaries with transformers' keys.

    ``outputs``: for each window ``logits``, float32 of shape [tokens, labels]; padding behind the window's tokens is
    ignored. ``start`` and ``end`` are characters of the text, ``index`` a token's place in the row that the whole text
    would be, ``score`` a softmax from 0 to 1: a token's, or the mean over the tokens or words that were joined.
    """
    if options.aggregation_strategy == "none":
        return _single_tokens(example, token_scores(example, outputs), options)
    entities: List[Entity] = []
    for window, own in zip(example.windows, outputs):
        pieces = _pieces(example, window, _window_scores(window, own), options.aggregation_strategy)
        entities += _joined(example, pieces, options)
    return _without_overlaps(entities) if len(example.windows) > 1 else entities


def is_slow_to_join(example: Example, options: EntityOptions) -> bool:
    """Whether ``entities_of_text`` may take longer than about 0.05 s."""
    return sum(window.token_count for window in example.windows) > QUICKLY_DECODED


def token_scores(example: Example, outputs: Sequence[Outputs]) -> np.ndarray:
    """The probability of every label of every token, float32 of shape [tokens, labels], each token once.

    A token of several windows is taken from the one in which it is farthest from both ends, of equals the first: a
    model knows least about what stands at the edge of what it sees.
    """
    first = outputs[0]["logits"]
    scores = np.zeros((len(example.ids), first.shape[-1]), dtype=np.float32)
    seen = np.full(len(example.ids), -1)  # tokens between each token and the nearer end of the window it is from
    for window, own in zip(example.windows, outputs):
        place = np.arange(window.token_count)
        margin = np.minimum(place, place[::-1])
        part = slice(window.first_token, window.first_token + window.token_count)
        better = margin > seen[part]
        scores[part][better] = _window_scores(window, own)[better]
        seen[part][better] = margin[better]
    return scores


def best_labels(example: Example, outputs: Sequence[Outputs]) -> np.ndarray:
    """The number of each token's best label, int64 of shape [tokens]."""
    return np.asarray(token_scores(example, outputs).argmax(axis=-1), dtype=np.int64)


def _window_scores(window: Window, outputs: Outputs) -> np.ndarray:
    """Softmax over the labels of a window's tokens of the text, float32 of shape [tokens, labels]."""
    # In float32 and in this order as in transformers, so that what is equal there is equal here.
    logits = outputs["logits"][window.text_start : window.text_start + window.token_count].astype(np.float32)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


# ---------------------------------------------------------------------------- tokens


def _single_tokens(example: Example, scores: np.ndarray, options: EntityOptions) -> List[Entity]:
    labels = example.vocabulary.labels
    wanted = np.array([label not in options.ignore_labels for label in labels])
    best = scores.argmax(axis=-1) if len(scores) else np.zeros(0, dtype=np.int64)
    shift = example.windows[0].text_start
    found = []
    for token in np.flatnonzero(wanted[best]).tolist():
        start, end = example.offsets[token]
        label = int(best[token])
        found.append(
            {
                "entity": labels[label],
                "score": float(scores[token, label]),
                "index": token + shift,
                "word": _token_text(example, token),
                "start": start,
                "end": end,
            }
        )
    return found


def _token_text(example: Example, token: int) -> str:
    """The token as the vocabulary writes it; of the one for unknown text, that text."""
    if example.ids[token] == example.vocabulary.unk_id:
        start, end = example.offsets[token]
        return example.text[start:end]
    return example.tokens[token]


def _decoded(example: Example, tokens: List[str]) -> str:
    decoder = example.vocabulary.decoder
    return " ".join(tokens) if decoder is None else str(decoder.decode(tokens))


# ---------------------------------------------------------------------------- tokens and words with one label each


def _pieces(example: Example, window: Window, scores: np.ndarray, strategy: str) -> _Pieces:
    """The window's tokens, or its words, in order; ``scores`` is float32 of shape [tokens, labels]."""
    firsts = np.arange(len(scores))
    if strategy in WORD_STRATEGIES:
        firsts = _word_starts(example, window)
        scores = _WORD_SCORES[strategy](scores, firsts) if len(firsts) else scores
    labels = scores.argmax(axis=-1)
    tops = scores[np.arange(len(labels)), labels].tolist()
    return _Pieces(labels, tops, [*(firsts + window.first_token).tolist(), window.first_token + window.token_count])


def _word_starts(example: Example, window: Window) -> np.ndarray:
    """The places in a window of the tokens that begin words; its first token does, wherever in a word it stands."""
    first, stop = window.first_token, window.first_token + window.token_count
    goes_on = [token > first and _continues_word(example, token) for token in range(first, stop)]
    return np.flatnonzero(~np.array(goes_on, dtype=bool))


def _continues_word(example: Example, token: int) -> bool:
    """Whether transformers takes a token for one that goes on with the word before it."""
    start, end = example.offsets[token]
    if example.ids[token] == example.vocabulary.unk_id:
        return False
    if example.vocabulary.marks_words:  # the mark makes it longer than its text
        return len(example.tokens[token]) != end - start
    return start > 0 and " " not in example.text[start - 1 : start + 1]


def _of_first_tokens(scores: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    return np.asarray(scores[firsts])


def _of_means(scores: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    lengths = np.diff(firsts, append=len(scores)).astype(np.float32)
    return np.asarray(np.add.reduceat(scores, firsts, axis=0) / lengths[:, None])


def _of_surest_tokens(scores: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    tops = scores.max(axis=-1)
    lengths = np.diff(firsts, append=len(scores))
    surest = np.flatnonzero(tops == np.repeat(np.maximum.reduceat(tops, firsts), lengths))
    # Of equally sure tokens of a word the first: the one at which its number is met first.
    _, places = np.unique(np.repeat(np.arange(len(firsts)), lengths)[surest], return_index=True)
    return np.asarray(scores[surest[places]])


# [tokens, labels] and the places of words' first tokens → [words, labels], float32
_WORD_SCORES: Dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "first": _of_first_tokens,
    "average": _of_means,
    "max": _of_surest_tokens,
}


# ---------------------------------------------------------------------------- entities


def _joined(example: Example, pieces: _Pieces, options: EntityOptions) -> Iterator[Entity]:
    """The entities that neighbouring pieces of one type make, without the ignored ones."""
    labels = example.vocabulary.labels
    # transformers names an entity by what is behind the first hyphen of its label, whatever is before it.
    names = [label.split("-", 1)[-1] for label in labels]
    is_wanted = [name not in options.ignore_labels for name in names]
    starts = _group_starts(pieces.labels, labels)
    for first, stop in zip(starts, [*starts[1:], len(pieces.labels)]):
        label = int(pieces.labels[first])
        if is_wanted[label]:
            yield {
                "entity_group": names[label],
                "score": sum(pieces.scores[first:stop]) / (stop - first),
                "word": _group_text(example, pieces.bounds[first : stop + 1], options.aggregation_strategy),
                "start": example.offsets[pieces.bounds[first]][0],
                "end": example.offsets[pieces.bounds[stop] - 1][1],
            }


def _group_starts(numbers: np.ndarray, labels: Sequence[str]) -> List[int]:
    """The pieces that begin an entity: those of another type than the piece before, and those with a B- label."""
    types = [label[2:] if label.startswith(("B-", "I-")) else label for label in labels]
    kinds = np.array([types.index(type_) for type_ in types])[numbers]
    begins = np.array([label.startswith("B-") for label in labels])[numbers]
    begins[1:] |= kinds[1:] != kinds[:-1]
    begins[:1] = True
    return [int(place) for place in np.flatnonzero(begins)]


def _group_text(example: Example, bounds: Sequence[int], strategy: str) -> str:
    """The text of neighbouring pieces; words become text one by one, and then once more together."""
    pieces = [[_token_text(example, token) for token in range(first, stop)] for first, stop in zip(bounds, bounds[1:])]
    if strategy in WORD_STRATEGIES:
        return _decoded(example, [_decoded(example, tokens) for tokens in pieces])
    return _decoded(example, [token for tokens in pieces for token in tokens])


def _without_overlaps(entities: Sequence[Entity]) -> List[Entity]:
    """Of entities that begin within one another the longest, of equally long ones the surest; by their start."""
    kept: List[Entity] = []
    for entity in sorted(entities, key=lambda entity: int(entity["start"])):
        if kept and kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            if _rank(entity) > _rank(kept[-1]):
                kept[-1] = entity
        else:
            kept.append(entity)
    return kept


def _rank(entity: Entity) -> Tuple[int, float]:
    return entity["end"] - entity["start"], entity["score"]
