"""Turns texts into rows of tokens for the engine; entities.py turns the labels of their tokens into entities.

A window is what the model sees at once: as many tokens of the text as fit into a row. A long text becomes several
windows that overlap, as transformers' ``stride`` and ``return_overflowing_tokens`` cut it.
"""

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import tokenizers

from neuronbert.checkpoint.tokenizer import Tokenizer, once_per_tokenizer
from neuronbert.errors import InputError, TooManyRows, UsageError, counted, shown_value
from neuronbert.tasks.labels import label_names
from neuronbert.tasks.rows import row_limit
from neuronbert.tasks.token_classification.options import StrideOptions
from neuronbert.tasks.window_ranges import window_count, window_ranges

MOST_STRIDE = 128  # tokens
_WORDS_HINT = 'a text, or a list of words: "Jim Henson", ["Jim", "Henson"]'

Words = Tuple[Tuple[int, int], ...]  # (start, end) in characters of each


class SplitText(NamedTuple):
    """A text with the places of its words, which change nothing but what is measured of it (tagging.py)."""

    text: str
    words: Words


TextInput = Union[str, SplitText, Tuple[str, ...]]  # a text, or words that are tokenised one by one


class Vocabulary(NamedTuple):
    """What the names and the words of results are made with; the same for all texts of a checkpoint."""

    labels: Tuple[str, ...]  # in the order of the model's outputs
    unk_id: int  # of the token that stands for what the vocabulary does not have; -1 for none
    marks_words: bool  # whether a token tells that it continues a word, as ##ing does
    decoder: Optional[Any]  # tokenizers' decoder: tokens to text


class Window(NamedTuple):
    """One row for the model, unpadded, and which tokens of the text it shows."""

    input_ids: np.ndarray  # int64, shape [tokens]
    token_type_ids: np.ndarray  # int64, shape [tokens]
    text_start: int  # position in input_ids of the first token of the text
    first_token: int  # index of that token among all tokens of the text
    token_count: int  # tokens of the text in this window


class Example(NamedTuple):
    """A text, its windows, and its tokens, of which there are ``len(ids)``."""

    text: str
    windows: List[Window]
    ids: np.ndarray  # int64, shape [tokens]
    tokens: List[str]  # as the vocabulary writes them
    offsets: List[Tuple[int, int]]  # (start, end) of each token in characters of the text
    encodings: Sequence[tokenizers.Encoding]  # of the text, or of each of its words; without special tokens
    words: Optional[Words]  # those that the input says, if it does
    vocabulary: Vocabulary


class _Lengths(NamedTuple):
    room: int  # tokens of the text in a row
    stride: int  # tokens that neighbouring rows share


def row_lengths(tokenizer: Tokenizer, options: StrideOptions) -> Tuple[int, int]:
    """(tokens of a row, special ones included, tokens that neighbours share), with the defaults filled in.

    UsageError for a row without room for text, and for a stride that would keep rows from advancing.
    """
    length = row_limit(tokenizer, options.max_length)
    room = length - tokenizer.single.special_tokens
    stride = min(room // 4, MOST_STRIDE) if options.stride is None else options.stride
    if stride >= room:
        raise UsageError(
            f"stride must be less than the {counted(room, 'token')} of text in a row, not {stride}",
            hint=f"stride={room // 4}, or leave it out",
            field="stride",
        )
    return length, stride


def encode_texts(
    tokenizer: Tokenizer, inputs: Sequence[Any], options: StrideOptions = StrideOptions()
) -> List[Example]:
    """Cut every text into windows; one that occurs several times is encoded once.

    A text may also be a list of its words, each of which is tokenised by itself. InputError for what is neither, and
    for more windows than the tokenizer's ``row_limit``, of which none is made. A text without a token (an empty one,
    say) gives one window of the special tokens alone: transformers finds no entity there, and raises nothing.
    """
    length, stride = row_lengths(tokenizer, options)
    lengths = _Lengths(length - tokenizer.single.special_tokens, stride)
    texts = list(map(as_text, inputs))
    parts = list(dict.fromkeys(part for text in texts for part in _parts(text)))
    encodings = dict(zip(parts, tokenizer.encode(parts)))
    vocabulary = vocabulary_of(tokenizer)
    return [
        _example(tokenizer, text, [encodings[part] for part in _parts(text)], options.delimiter, lengths, vocabulary)
        for text in texts
    ]


def as_text(asked: Any) -> TextInput:
    """An input in one of its forms; InputError for what is none."""
    if isinstance(asked, (str, SplitText)):
        return asked
    if isinstance(asked, (list, tuple)):
        for word in asked:
            if not isinstance(word, str):
                raise InputError(f"a word is of type {type(word).__name__}, not str", hint=_WORDS_HINT)
        return tuple(asked)
    raise InputError(f"{shown_value(asked)} is of type {type(asked).__name__}, and no text", hint=_WORDS_HINT)


@once_per_tokenizer
def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """What results need of a checkpoint's tokenizer and config."""
    backend = tokenizer.backend
    return Vocabulary(
        label_names(tokenizer.config),
        tokenizer.unk_id,
        bool(getattr(backend.model, "continuing_subword_prefix", None)),
        backend.decoder,
    )


def _parts(text: TextInput) -> Tuple[str, ...]:
    """What is tokenised by itself."""
    if isinstance(text, SplitText):
        return (text.text,)
    return (text,) if isinstance(text, str) else text


def _example(
    tokenizer: Tokenizer,
    text: TextInput,
    encodings: Sequence[tokenizers.Encoding],
    delimiter: str,
    lengths: _Lengths,
    vocabulary: Vocabulary,
) -> Example:
    ids = np.array([number for encoding in encodings for number in encoding.ids], dtype=np.int64)
    _refuse_many(tokenizer, window_count(len(ids), *lengths))
    parts = _parts(text)
    offsets: List[Tuple[int, int]] = []
    begun = 0
    for part, encoding in zip(parts, encodings):
        offsets += [(begun + start, begun + end) for start, end in encoding.offsets] if begun else encoding.offsets
        begun += len(part) + len(delimiter)
    return Example(
        text=delimiter.join(parts),
        windows=[_window(tokenizer, ids, first, stop) for first, stop in window_ranges(len(ids), *lengths)],
        ids=ids,
        tokens=[token for encoding in encodings for token in encoding.tokens],
        offsets=offsets,
        encodings=encodings,
        words=text.words if isinstance(text, SplitText) else None,
        vocabulary=vocabulary,
    )


def _refuse_many(tokenizer: Tokenizer, count: int) -> None:
    limit = tokenizer.row_limit
    if count > limit.rows:
        raise TooManyRows(
            f"this text needs {count} windows, and {limit.whose} takes {limit.rows}",
            hint=f"a shorter text, a smaller stride, or {limit.way_out or 'a larger max_length'}",
        )


def _window(tokenizer: Tokenizer, ids: np.ndarray, first: int, stop: int) -> Window:
    single = tokenizer.single
    types = np.full(stop - first, single.text_type, dtype=np.int64)
    return Window(
        np.concatenate((single.before, ids[first:stop], single.after)),
        np.concatenate((single.before_types, types, single.after_types)),
        len(single.before),
        first,
        stop - first,
    )
