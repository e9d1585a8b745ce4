"""Texts and pairs of texts as rows of tokens, one each, for the tasks that do not cut texts into windows. Pure."""

from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, UsageError, counted

DEFAULT_LENGTH = 512  # tokens, where neither tokenizer nor model names a limit


class TextRow(NamedTuple):
    """One row for the model, unpadded: int64 arrays of shape [tokens]."""

    input_ids: np.ndarray
    token_type_ids: np.ndarray


class CutRow(NamedTuple):
    """A row, and whether it holds less than all of its text."""

    row: TextRow
    truncated: bool


class TextPair(NamedTuple):
    """Two texts that one row holds."""

    text: str
    text_pair: str


TextOrPair = Union[str, TextPair]


def row_limit(tokenizer: Tokenizer, max_length: Optional[int]) -> int:
    """The most tokens of a row, special ones included: ``max_length``, and no more than the model's positions.

    UsageError where it leaves no room for text beside the special tokens of a pair.
    """
    limit = min(max_length or tokenizer.max_length or DEFAULT_LENGTH, tokenizer.max_positions or max_length or 1 << 30)
    special = tokenizer.template.special_tokens
    if limit <= special:
        raise UsageError(
            f"a max_length of {limit} leaves no room for text beside {counted(special, 'special token')}",
            hint=f"a max_length of {special + 1} or more",
        )
    return limit


def encode_rows(tokenizer: Tokenizer, inputs: Sequence[TextOrPair], max_length: Optional[int] = None) -> List[CutRow]:
    """Every text or pair as one row; a text that occurs several times is encoded once.

    What does not fit ``row_limit`` is cut at its end (where the tokenizer ``cuts_left``, at its beginning), of a pair
    the longer text first, as transformers does with ``truncation=True``. An empty text is a row of special tokens.
    """
    limit = row_limit(tokenizer, max_length)
    texts = list(dict.fromkeys(text for each in inputs for text in _texts(each)))
    encodings = tokenizer.encode(texts)
    ids = {text: np.array(encoding.ids, dtype=np.int64) for text, encoding in zip(texts, encodings)}
    return [_row(tokenizer, [ids[text] for text in _texts(each)], limit) for each in inputs]


def check_text(name: str, text: object) -> None:
    """InputError unless ``text`` is a str."""
    if not isinstance(text, str):
        raise InputError(f"the {name} is of type {type(text).__name__}, not str", hint=f"pass the {name} as text")


def _texts(each: TextOrPair) -> Tuple[str, ...]:
    return (each,) if isinstance(each, str) else tuple(each)


def _row(tokenizer: Tokenizer, ids: Sequence[np.ndarray], limit: int) -> CutRow:
    if len(ids) == 1:
        single = tokenizer.single
        kept = _kept(tokenizer, ids[0], limit - single.special_tokens)
        types = np.full(len(kept), single.text_type, dtype=np.int64)
        row = TextRow(
            np.concatenate((single.before, kept, single.after)),
            np.concatenate((single.before_types, types, single.after_types)),
        )
        return CutRow(row, len(kept) < len(ids[0]))
    pair = tokenizer.template
    first, second = longest_first(len(ids[0]), len(ids[1]), limit - pair.special_tokens)
    kept_first, kept_second = _kept(tokenizer, ids[0], first), _kept(tokenizer, ids[1], second)
    row = TextRow(
        np.concatenate((pair.before, kept_first, pair.between, kept_second, pair.after)),
        np.concatenate(
            (
                pair.before_types,
                np.full(first, pair.first_type, dtype=np.int64),
                pair.between_types,
                np.full(second, pair.second_type, dtype=np.int64),
                pair.after_types,
            )
        ),
    )
    return CutRow(row, first < len(ids[0]) or second < len(ids[1]))


def _kept(tokenizer: Tokenizer, ids: np.ndarray, count: int) -> np.ndarray:
    return ids[max(0, len(ids) - count) :] if tokenizer.cuts_left else ids[:count]


def longest_first(first: int, second: int, room: int) -> Tuple[int, int]:
    """How many tokens of two texts are kept where ``room`` are left: the longer one is cut until both are alike.

    The rule of the tokenizers library's strategy "longest_first" (tokenizers/src/utils/truncation.rs): of an odd room
    the longer text gets the odd token, the second where both are of one length.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second)
    kept = (shorter, room - shorter) if 2 * shorter <= room else (room // 2, room - room // 2)
    return kept if first <= second else (kept[1], kept[0])
