"""Texts and pairs of texts as rows of tokens, one each, for the tasks that do not cut texts into windows. Pure."""

from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

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
            field="max_length",
        )
    return limit


def encode_rows(tokenizer: Tokenizer, inputs: Sequence[TextOrPair], max_length: Optional[int] = None) -> List[CutRow]:
    """Every text or pair as one row; a text that occurs several times is encoded once.

    What does not fit ``row_limit`` is cut at its end (where the tokenizer ``cuts_left``, at its beginning), of a pair
    the longer text first, as transformers does with ``truncation=True``. An empty text is a row of special tokens.
    """
    limit = row_limit(tokenizer, max_length)
    texts = list(dict.fromkeys(text for each in inputs for text in _texts(each)))
    ids = {text: encoding.ids for text, encoding in zip(texts, tokenizer.encode(texts))}
    single, pair = _SingleRows(tokenizer, limit), _PairRows(tokenizer, limit)
    return [
        single.row(ids[each]) if isinstance(each, str) else pair.row(ids[each.text], ids[each.text_pair])
        for each in inputs
    ]


def token_rows(tokenizer: Tokenizer, texts: Sequence[List[int]], limit: int) -> List[TextRow]:
    """Texts that are token ids already as rows, each of ``limit`` tokens at most with the special ones."""
    single = _SingleRows(tokenizer, limit)
    return [single.row(ids).row for ids in texts]


def full_rows(tokenizer: Tokenizer, texts: Iterable[str], tokens: int, count: int) -> List[TextRow]:
    """At most ``count`` rows of exactly ``tokens``, of the texts one after another; InputError where there is none."""
    words = " ".join(texts).split()
    full: List[TextRow] = []
    while words and len(full) < count:
        (cut,) = encode_rows(tokenizer, [" ".join(words[: 2 * tokens])], tokens)
        if len(cut.row.input_ids) == tokens:
            full.append(cut.row)
        words = words[tokens:]
    if not full:
        raise InputError(f"the texts hold no row of {tokens} tokens", hint="more --input-data, or a shorter one")
    return full


def check_text(name: str, text: object) -> None:
    """InputError unless ``text`` is a str."""
    if not isinstance(text, str):
        raise InputError(
            f"the {name} is of type {type(text).__name__}, not str", hint=f"pass the {name} as text", field=name
        )


def _texts(each: TextOrPair) -> Tuple[str, ...]:
    return (each,) if isinstance(each, str) else each


# Lists of Python's, and one array made of each at the end: of short texts there are thousands a second, and joining
# arrays of a dozen tokens takes three times as long.


class _SingleRows:
    """The rows of single texts, each at most ``limit`` tokens."""

    def __init__(self, tokenizer: Tokenizer, limit: int):
        single = tokenizer.single
        self._before, self._after = single.before.tolist(), single.after.tolist()
        self._before_types, self._after_types = single.before_types.tolist(), single.after_types.tolist()
        self._text_type = single.text_type
        self._room = limit - single.special_tokens
        self._cuts_left = tokenizer.cuts_left

    def row(self, ids: List[int]) -> CutRow:
        """The row of a text of these tokens."""
        kept = _kept(ids, self._room, self._cuts_left)
        types = self._before_types + [self._text_type] * len(kept) + self._after_types
        return CutRow(_text_row(self._before + kept + self._after, types), len(kept) < len(ids))


class _PairRows:
    """The rows of pairs of texts, each at most ``limit`` tokens."""

    def __init__(self, tokenizer: Tokenizer, limit: int):
        pair = tokenizer.template
        self._special = [each.tolist() for each in (pair.before, pair.between, pair.after)]
        self._special_types = [each.tolist() for each in (pair.before_types, pair.between_types, pair.after_types)]
        self._first_type, self._second_type = pair.first_type, pair.second_type
        self._room = limit - pair.special_tokens
        self._cuts_left = tokenizer.cuts_left

    def row(self, first: List[int], second: List[int]) -> CutRow:
        """The row of two texts of these tokens."""
        first_room, second_room = longest_first(len(first), len(second), self._room)
        kept, other = _kept(first, first_room, self._cuts_left), _kept(second, second_room, self._cuts_left)
        before, between, after = self._special
        before_types, between_types, after_types = self._special_types
        types = [*before_types, *[self._first_type] * len(kept), *between_types]
        types += [*[self._second_type] * len(other), *after_types]
        cut = len(kept) < len(first) or len(other) < len(second)
        return CutRow(_text_row([*before, *kept, *between, *other, *after], types), cut)


def _text_row(ids: List[int], types: List[int]) -> TextRow:
    return TextRow(np.array(ids, dtype=np.int64), np.array(types, dtype=np.int64))


def _kept(ids: List[int], count: int, cuts_left: bool) -> List[int]:
    return ids[max(0, len(ids) - count) :] if cuts_left else ids[:count]


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
