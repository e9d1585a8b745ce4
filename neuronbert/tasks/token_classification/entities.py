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

QUICKLY_DECODED = 10_000  # tokens, in less than about 0.05 s


class _Piece(NamedTuple):
    """A run of tokens that has one label: a token, or a word."""

    label: str
    score: float
    first: int  # index of its first token among the text's
    stop: int


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
        joins_words = options.aggregation_strategy in WORD_STRATEGIES
        entities += _joined(example, pieces, joins_words, options.ignore_labels)
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


def _pieces(example: Example, window: Window, scores: np.ndarray, strategy: str) -> List[_Piece]:
    """The window's tokens, or its words, in order."""
    labels, first = example.vocabulary.labels, window.first_token
    if strategy not in WORD_STRATEGIES:
        best = scores.argmax(axis=-1).tolist() if len(scores) else []
        tops = scores.max(axis=-1).tolist() if len(scores) else []
        return [
            _Piece(labels[label], top, token, token + 1) for token, (label, top) in enumerate(zip(best, tops), first)
        ]
    pieces = []
    for start, stop in _words(example, first, first + window.token_count):
        label, score = _WORD_LABELS[strategy](scores[start - first : stop - first])
        pieces.append(_Piece(labels[label], score, start, stop))
    return pieces


def _words(example: Example, first: int, stop: int) -> Iterator[Tuple[int, int]]:
    """The range (first, stop) of tokens of each word of a window, which may begin or end within a word."""
    begun = first
    for token in range(first + 1, stop):
        if not _continues_word(example, token):
            yield begun, token
            begun = token
    if begun < stop:
        yield begun, stop


def _continues_word(example: Example, token: int) -> bool:
    """Whether transformers takes a token for one that goes on with the word before it."""
    start, end = example.offsets[token]
    if example.ids[token] == example.vocabulary.unk_id:
        return False
    if example.vocabulary.marks_words:  # the mark makes it longer than its text
        return len(example.tokens[token]) != end - start
    return start > 0 and " " not in example.text[start - 1 : start + 1]


def _of_first_token(scores: np.ndarray) -> Tuple[int, float]:
    label = int(scores[0].argmax())
    return label, float(scores[0, label])


def _of_mean(scores: np.ndarray) -> Tuple[int, float]:
    mean = scores.mean(axis=0)
    label = int(mean.argmax())
    return label, float(mean[label])


def _of_surest_token(scores: np.ndarray) -> Tuple[int, float]:
    return _of_first_token(scores[scores.max(axis=-1).argmax() :])


_WORD_LABELS: Dict[str, Callable[[np.ndarray], Tuple[int, float]]] = {
    "first": _of_first_token,
    "average": _of_mean,
    "max": _of_surest_token,
}


# ---------------------------------------------------------------------------- entities


def _joined(example: Example, pieces: Sequence[_Piece], joins_words: bool, ignored: Sequence[str]) -> Iterator[Entity]:
    """The entities that neighbouring pieces make, without the ignored ones."""
    for group in _groups(pieces):
        label = group[0].label
        # "B-PER" → PER, and by the same rule "LABEL-A" → A.
        name = label.split("-", 1)[-1]
        if name in ignored:
            continue
        texts = [_piece_text(example, piece, joins_words) for piece in group]
        yield {
            "entity_group": name,
            "score": float(np.mean([piece.score for piece in group])),
            "word": _decoded(example, texts),
            "start": example.offsets[group[0].first][0],
            "end": example.offsets[group[-1].stop - 1][1],
        }


def _groups(pieces: Sequence[_Piece]) -> Iterator[List[_Piece]]:
    """Neighbours of one type together; a B- begins anew."""
    group: List[_Piece] = []
    for piece in pieces:
        begins, type_ = _prefix_and_type(piece.label)
        if group and (begins or type_ != _prefix_and_type(group[-1].label)[1]):
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _prefix_and_type(label: str) -> Tuple[bool, str]:
    """Whether a label begins an entity, and its type; one without B- or I- is a type by itself."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def _piece_text(example: Example, piece: _Piece, is_word: bool) -> str:
    texts = [_token_text(example, token) for token in range(piece.first, piece.stop)]
    return _decoded(example, texts) if is_word else texts[0]


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
