"""Turns questions and contexts into token windows for the engine; spans.py and answers.py make answers of their logits.

A window is what the model sees at once: the question and as many tokens of the context as fit. A long context
becomes several windows, each overlapping the one before it by ``doc_stride`` tokens.
"""

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert.checkpoint.encoded_text import Encoded
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, TooManyRows, UsageError, counted, shown_value
from neuronbert.tasks.question_answering.lexical import by_shared_words
from neuronbert.tasks.question_answering.options import WindowOptions
from neuronbert.tasks.rows import check_text
from neuronbert.tasks.window_ranges import window_count, window_ranges

DEFAULT_MAX_SEQ_LEN = 384  # tokens; with DEFAULT_DOC_STRIDE the defaults of the transformers pipeline
DEFAULT_DOC_STRIDE = 128  # tokens

_EMPTY_HINTS = {
    "question": "ask something: a question of one character or more",
    "context": "pass the text that may hold the answer, or leave this question out",
}


class Window(NamedTuple):
    """One row for the model, unpadded, and which tokens of the context it shows."""

    input_ids: np.ndarray  # int64, shape [tokens]
    token_type_ids: np.ndarray  # int64, shape [tokens]
    context_start: int  # position in input_ids of the first context token
    first_token: int  # index of that token among all tokens of the context
    token_count: int  # context tokens in this window
    number: int = 0  # its own among the context's windows


class WindowSelection(NamedTuple):
    """Which windows are read before others (selection.py)."""

    order: Tuple[int, ...]  # the numbers of all windows, most promising first
    first: int  # so many are read, and as many more to see whether they change the answer


class Example(NamedTuple):
    """A question, its context, their windows, and what is needed to find an answer's characters."""

    question: str
    context: str
    windows: List[Window]
    encoded_context: Encoded  # all of it
    selection: Optional[WindowSelection] = None  # None: all windows are read


def window_lengths(tokenizer: Tokenizer, options: WindowOptions) -> Tuple[int, int]:
    """(max_seq_len, doc_stride) in tokens, with the defaults filled in.

    A max_seq_len beyond the model's positions is lowered to them, and doc_stride to half of that at most: windows
    that overlap by more would advance by one token at a time. UsageError, with the old pipeline's text, if doc_stride
    is larger than max_seq_len as given.
    """
    max_seq_len, doc_stride = options.max_seq_len, options.doc_stride
    if max_seq_len is None:
        max_seq_len = min(DEFAULT_MAX_SEQ_LEN, tokenizer.max_length or DEFAULT_MAX_SEQ_LEN)
    if doc_stride is None:
        doc_stride = min(max_seq_len // 2, DEFAULT_DOC_STRIDE)
    if doc_stride > max_seq_len:
        raise UsageError(
            f"`doc_stride` ({doc_stride}) is larger than `max_seq_len` ({max_seq_len})", field="doc_stride"
        )
    if tokenizer.max_positions is not None and max_seq_len > tokenizer.max_positions:
        max_seq_len = tokenizer.max_positions
        doc_stride = min(doc_stride, max_seq_len // 2)
    return max_seq_len, doc_stride


def encode_examples(
    tokenizer: Tokenizer, pairs: Sequence[Any], options: WindowOptions = WindowOptions()
) -> List[Example]:
    """Cut every (question, context) into windows.

    A text that occurs several times is encoded once, a long one also if it comes again in other calls
    (``Tokenizer.encode_documents``). A pair may also be a dictionary of both. InputError for a question or context that
    is empty or no str, for a question that leaves no room for the context, and for more windows than the tokenizer's
    ``row_limit``, of which none is made. A context without a single token (only zero-width characters, say) gives one
    window with no context.
    """
    max_seq_len, doc_stride = window_lengths(tokenizer, options)
    select = tokenizer.first_rows if options.select_windows is None else options.select_windows
    pairs = list(map(as_pair, pairs))
    for question, context in pairs:
        _check_filled("question", question)
        _check_filled("context", context)
    encodings = tokenizer.encode_documents([text for pair in pairs for text in pair])
    examples = [
        _cut(tokenizer, pair, encodings[pair[0]], encodings[pair[1]], max_seq_len, doc_stride, options.max_question_len)
        for pair in pairs
    ]
    if not select:
        return examples
    return [
        _ordered(example, encodings[example.question].ids[: options.max_question_len], select) for example in examples
    ]


def _ordered(example: Example, question_ids: np.ndarray, select: int) -> Example:
    """The example with its windows ordered, if there are more than are read at first and words to order them by."""
    if len(example.windows) <= 2 * select:
        return example
    ranges = [(window.first_token, window.first_token + window.token_count) for window in example.windows]
    order = by_shared_words(question_ids, example.encoded_context.ids, ranges)
    return example._replace(selection=WindowSelection(order, select)) if order else example


def as_pair(asked: Any) -> Tuple[Any, Any]:
    """The question and the context of an input in any of its forms; InputError for what is none of them."""
    if isinstance(asked, dict) and "question" in asked and "context" in asked:
        return asked["question"], asked["context"]
    if hasattr(asked, "question_text") and hasattr(asked, "context_text"):  # transformers' SquadExample
        return asked.question_text, asked.context_text
    if isinstance(asked, (tuple, list)) and len(asked) == 2:
        return asked[0], asked[1]
    raise InputError(
        f"{shown_value(asked)} is not a question with its context",
        hint='("Who was it?", "It was me."), or {"question": "Who was it?", "context": "It was me."}',
    )


def _check_filled(name: str, text: Any) -> None:
    """InputError unless ``text`` is a str with at least one character; white space alone is let pass."""
    check_text(name, text)
    if not text:
        raise InputError(f"`{name}` cannot be empty", hint=_EMPTY_HINTS[name], field=name)


def _cut(
    tokenizer: Tokenizer,
    pair: Tuple[str, str],
    question: Encoded,
    context: Encoded,
    max_seq_len: int,
    doc_stride: int,
    max_question_len: Optional[int],
) -> Example:
    question_ids = question.ids[:max_question_len]
    context_ids = context.ids
    room = max_seq_len - len(question_ids) - tokenizer.template.special_tokens
    if room < 1 and len(context_ids) > room:
        raise _no_room(len(question_ids), tokenizer.template.special_tokens, max_seq_len)
    count, limit = window_count(len(context_ids), room, doc_stride), tokenizer.row_limit
    if count > limit.rows:
        raise TooManyRows(
            f"this request needs {count} windows, and {limit.whose} takes {limit.rows}",
            hint=f"a shorter context, a smaller doc_stride, or {limit.way_out or 'a larger max_seq_len'}",
        )
    head, head_types, tail, tail_types, context_type = _surround(tokenizer, question_ids)
    windows = []
    for number, (first, stop) in enumerate(window_ranges(len(context_ids), room, doc_stride)):
        input_ids = np.concatenate((head, context_ids[first:stop], tail))
        token_type_ids = np.full(len(input_ids), context_type, dtype=np.int64)
        token_type_ids[: len(head)] = head_types
        token_type_ids[len(input_ids) - len(tail) :] = tail_types
        windows.append(Window(input_ids, token_type_ids, len(head), first, stop - first, number))
    return Example(pair[0], pair[1], windows, context)


def _surround(
    tokenizer: Tokenizer, question_ids: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Ids and types before the context, ids and types after it, and the context's own type."""
    template = tokenizer.template
    if not tokenizer.pads_left:
        types = np.full(len(question_ids), template.first_type, dtype=np.int64)
        head = np.concatenate((template.before, question_ids, template.between))
        head_types = np.concatenate((template.before_types, types, template.between_types))
        return head, head_types, template.after, template.after_types, template.second_type
    types = np.full(len(question_ids), template.second_type, dtype=np.int64)
    tail = np.concatenate((template.between, question_ids, template.after))
    tail_types = np.concatenate((template.between_types, types, template.after_types))
    return template.before, template.before_types, tail, tail_types, template.first_type


def _no_room(question_tokens: int, special_tokens: int, max_seq_len: int) -> InputError:
    half = (max_seq_len - special_tokens) // 2  # the most that fits would leave a single token for the context
    # Named without the dashes or the = of one interface: both have these options.
    advice = f"a max_question_len of {half}, or " if half > 0 else ""
    return InputError(
        f"a question of {counted(question_tokens, 'token')} and {counted(special_tokens, 'special token')} "
        f"leave no room for the context in a window of {counted(max_seq_len, 'token')}",
        hint=f"a shorter question, {advice}a larger max_seq_len",
        field="question",
    )
