"""Turns questions and contexts into token windows for an engine; answers.py turns its logits back into text.

A window is what the model sees at once: the question and as many tokens of the context as fit. A long context
becomes several windows, each overlapping the one before it by ``doc_stride`` tokens.
"""

import json
import re
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import tokenizers

from neuronbert.backends import Batch
from neuronbert.checkpoint.families import FAMILIES, usable_positions
from neuronbert.errors import CheckpointError, InputError, UsageError

DEFAULT_MAX_SEQ_LEN = 384  # tokens; with DEFAULT_DOC_STRIDE the defaults of the transformers pipeline
DEFAULT_DOC_STRIDE = 128  # tokens

LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_EMPTY_HINTS = {
    "question": "ask something: a question of one character or more",
    "context": "pass the text that may hold the answer, or leave this question out",
}
# Below this, tokenizers' own threads cost more than they save. But only they leave Python's lock to other threads,
# which is why the runner sets Tokenizer.few_texts to 0.
FEW_TEXTS = 4


@dataclass(frozen=True)
class WindowOptions:
    """How a context is cut into windows; all lengths in tokens.

    max_seq_len: length of a window with question and special tokens. None is the smallest of 384, the tokenizer's
        ``model_max_length`` and the model's positions; more than those positions is lowered to them.
    doc_stride: overlap of neighbouring windows. None is the smaller of 128 and half of max_seq_len. An overlap that
        would keep windows from advancing is lowered until each window starts one token after the last.
    max_question_len: the question is cut after that many tokens. None keeps it whole, as the transformers pipeline
        did: there the documented default of 64 had no effect with a fast tokenizer.
    """

    max_seq_len: Optional[int] = None
    doc_stride: Optional[int] = None
    max_question_len: Optional[int] = None

    def __post_init__(self) -> None:
        for name, smallest in (("max_seq_len", 1), ("doc_stride", 0), ("max_question_len", 1)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Integral) and int(value) >= smallest):
                raise UsageError(f"{name} parameter should be a whole number >= {smallest} (got {value!r})")


class Window(NamedTuple):
    """One row for the model, unpadded, and which tokens of the context it shows."""

    input_ids: np.ndarray  # int64, shape [tokens]
    token_type_ids: np.ndarray  # int64, shape [tokens]
    context_start: int  # position in input_ids of the first context token
    first_token: int  # index of that token among all tokens of the context
    token_count: int  # context tokens in this window


class Example(NamedTuple):
    """A question, its context, their windows, and what is needed to find an answer's characters."""

    question: str
    context: str
    windows: List[Window]
    question_encoding: tokenizers.Encoding  # without special tokens
    context_encoding: tokenizers.Encoding  # without special tokens, all of the context
    question_start: int  # position of the question's first token in every window
    question_cls: Tuple[int, ...]  # question tokens that are the classification token, typed by the asker


class _Template(NamedTuple):
    """The special tokens around a pair of texts, and the token types: ids and types are int64 arrays."""

    before: np.ndarray
    between: np.ndarray
    after: np.ndarray
    before_types: np.ndarray
    between_types: np.ndarray
    after_types: np.ndarray
    first_type: int
    second_type: int

    @property
    def special_tokens(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


class Tokenizer:
    """A checkpoint's tokenizer, with what question answering needs to know of it.

    Attributes: ``cls_id`` and ``pad_id`` (token ids), ``max_length`` (tokens; None when neither tokenizer nor model
    names a limit), ``max_positions`` (tokens; None when the model's config was not given), ``question_first``
    (False for a tokenizer that pads on the left, whose models are trained with the context first).
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        tokenizer_config: Mapping[str, Any],
        config: Optional[Mapping[str, Any]] = None,
    ):
        padding = backend.padding or {}
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.few_texts = FEW_TEXTS
        self.template = _derive_template(backend)
        self.question_first = tokenizer_config.get("padding_side", "right") == "right"
        self.cls_id = _special_id(backend, tokenizer_config, "cls_token", int(self.template.before[0]))
        self.pad_id = _special_id(backend, tokenizer_config, "pad_token", int(padding.get("pad_id", 0)))
        self.max_positions = _positions(config or {})
        limits = (tokenizer_config.get("model_max_length"), self.max_positions)
        self.max_length = min((int(limit) for limit in limits if limit), default=None)

    @classmethod
    def from_bytes(
        cls, tokenizer_json: bytes, tokenizer_config: bytes, config: Optional[Mapping[str, Any]] = None
    ) -> "Tokenizer":
        """From the contents of tokenizer.json and tokenizer_config.json, and the model's config where it is known.

        CheckpointError when either cannot be read or has no template for a pair of texts.
        """
        try:
            backend = tokenizers.Tokenizer.from_buffer(tokenizer_json)
        except Exception as error:  # tokenizers raises plain Exception
            raise CheckpointError(
                f"tokenizer.json cannot be read by tokenizers {tokenizers.__version__}: {error}",
                hint="save the tokenizer again with this machine's transformers: "
                "AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)",
            ) from error
        return cls(backend, _parse(tokenizer_config, "tokenizer_config.json"), config)

    @classmethod
    def from_files(cls, folder: Union[str, Path]) -> "Tokenizer":
        """From a folder with tokenizer.json, and tokenizer_config.json and config.json where they are present."""
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"{folder} has no tokenizer.json",
                hint="save it with transformers: AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)",
            )
        contents = {
            name: (folder / name).read_bytes() if (folder / name).is_file() else b"{}"
            for name in ("tokenizer_config.json", "config.json")
        }
        config = _parse(contents["config.json"], "config.json")
        return cls.from_bytes(path.read_bytes(), contents["tokenizer_config.json"], config)

    def encode(self, texts: Sequence[str]) -> List[tokenizers.Encoding]:
        """Encode each text by itself, without special tokens; offsets count characters of the text given."""
        texts = [_encodable(text) for text in texts]
        if len(texts) < self.few_texts:
            return [self.backend.encode(text, add_special_tokens=False) for text in texts]
        return self.backend.encode_batch(texts, add_special_tokens=False)

    def limit_length(self, tokens: int) -> None:
        """Cut windows to ``tokens`` at most, as if the model had no more positions: static shapes have a longest."""
        self.max_length = min(tokens, self.max_length or tokens)
        self.max_positions = min(tokens, self.max_positions or tokens)

    def lengths(self, options: WindowOptions) -> Tuple[int, int]:
        """(max_seq_len, doc_stride) in tokens, with the defaults filled in.

        A max_seq_len beyond the model's positions is lowered to them, and doc_stride to half of that at most: windows
        that overlap by more would come one token after the other. UsageError if doc_stride is the larger of the two
        as they are given, with the old pipeline's text.
        """
        max_seq_len, doc_stride = options.max_seq_len, options.doc_stride
        if max_seq_len is None:
            max_seq_len = min(DEFAULT_MAX_SEQ_LEN, self.max_length or DEFAULT_MAX_SEQ_LEN)
        if doc_stride is None:
            doc_stride = min(max_seq_len // 2, DEFAULT_DOC_STRIDE)
        if doc_stride > max_seq_len:
            raise UsageError(f"`doc_stride` ({doc_stride}) is larger than `max_seq_len` ({max_seq_len})")
        if self.max_positions is not None and max_seq_len > self.max_positions:
            max_seq_len = self.max_positions
            doc_stride = min(doc_stride, max_seq_len // 2)
        return max_seq_len, doc_stride


def encode_examples(
    tokenizer: Tokenizer, pairs: Sequence[Tuple[str, str]], options: WindowOptions = WindowOptions()
) -> List[Example]:
    """Cut every (question, context) into windows; a text that occurs several times is encoded once.

    InputError for a question or context that is empty or no str, and for a question that leaves no room for the
    context. A context without a single token (only zero-width characters, say) gives one window with no context.
    """
    max_seq_len, doc_stride = tokenizer.lengths(options)
    encodings: Dict[str, Any] = {}
    for question, context in pairs:
        check_text("question", question)
        check_text("context", context)
        encodings[question] = encodings[context] = None
    for text, encoding in zip(encodings, tokenizer.encode(list(encodings))):
        encodings[text] = (encoding, np.array(encoding.ids, dtype=np.int64))
    return [
        _cut(tokenizer, pair, encodings[pair[0]], encodings[pair[1]], max_seq_len, doc_stride, options.max_question_len)
        for pair in pairs
    ]


def collate(windows: Sequence[Window], pad_id: int, length: Optional[int] = None) -> Batch:
    """Stack windows into a Batch of shape [windows, tokens], padded on the right.

    tokens is ``length``, or that of the longest window. UsageError if a window is longer than ``length``.
    """
    longest = max((len(window.input_ids) for window in windows), default=0)
    if length is None:
        length = longest
    if longest > length:
        raise UsageError(f"a window of {longest} tokens does not fit into {length}", hint=f"a max_seq_len of {length}")
    input_ids = np.full((len(windows), length), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(windows), length), dtype=np.int64)
    token_type_ids = np.zeros((len(windows), length), dtype=np.int64)
    for row, window in enumerate(windows):
        tokens = len(window.input_ids)
        input_ids[row, :tokens] = window.input_ids
        attention_mask[row, :tokens] = 1
        token_type_ids[row, :tokens] = window.token_type_ids
    return Batch(input_ids, attention_mask, token_type_ids)


def check_text(name: str, text: Any) -> None:
    """InputError unless ``text`` is a str with at least one character; white space alone is answered, with nothing."""
    if not isinstance(text, str):
        raise InputError(f"the {name} is of type {type(text).__name__}, not str", hint=f"pass the {name} as text")
    if not text:
        raise InputError(f"`{name}` cannot be empty", hint=_EMPTY_HINTS[name])


def _encodable(text: str) -> str:
    """The text as UTF-8 can hold it: U+FFFD for half a surrogate pair keeps every other character in its place."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return LONE_SURROGATES.sub("\ufffd", text)
    return text


def window_ranges(tokens: int, room: int, overlap: int) -> List[Tuple[int, int]]:
    """Which of a context's ``tokens`` each window shows, as (first, stop), with ``room`` for them in a window.

    Windows start every ``room - overlap`` tokens (at least one) and the last one ends with the context.
    """
    if tokens <= room:
        return [(0, tokens)]
    step = max(room - overlap, 1)
    count = -(-(tokens - room) // step) + 1
    return [(index * step, min(index * step + room, tokens)) for index in range(count)]


def _cut(
    tokenizer: Tokenizer,
    pair: Tuple[str, str],
    question: Tuple[tokenizers.Encoding, np.ndarray],
    context: Tuple[tokenizers.Encoding, np.ndarray],
    max_seq_len: int,
    doc_stride: int,
    max_question_len: Optional[int],
) -> Example:
    question_ids = question[1][:max_question_len]
    context_ids = context[1]
    room = max_seq_len - len(question_ids) - tokenizer.template.special_tokens
    if room < 1 and len(context_ids) > room:
        raise _no_room(len(question_ids), tokenizer.template.special_tokens, max_seq_len)
    head, head_types, tail, tail_types, context_type = _surround(tokenizer, question_ids)
    windows = []
    for first, stop in window_ranges(len(context_ids), room, doc_stride):
        input_ids = np.concatenate((head, context_ids[first:stop], tail))
        token_type_ids = np.full(len(input_ids), context_type, dtype=np.int64)
        token_type_ids[: len(head)] = head_types
        token_type_ids[len(input_ids) - len(tail) :] = tail_types
        windows.append(Window(input_ids, token_type_ids, len(head), first, stop - first))
    question_cls: Tuple[int, ...] = ()
    if tokenizer.question_first:
        question_cls = tuple(np.flatnonzero(question_ids == tokenizer.cls_id).tolist())
    question_start = len(tokenizer.template.before)
    return Example(pair[0], pair[1], windows, question[0], context[0], question_start, question_cls)


def _surround(
    tokenizer: Tokenizer, question_ids: np.ndarray
) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Ids and types before the context, ids and types after it, and the context's own type."""
    template = tokenizer.template
    if tokenizer.question_first:
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
        f"a question of {question_tokens} tokens and {special_tokens} special tokens leave no room for the context "
        f"in a window of {max_seq_len} tokens",
        hint=f"a shorter question, {advice}a larger max_seq_len",
    )


def _derive_template(backend: tokenizers.Tokenizer) -> _Template:
    """Read the special tokens off a pair that the tokenizer itself puts together, whatever its post-processor is."""
    encoding = backend.encode("a", "a")
    ids = np.array(encoding.ids, dtype=np.int64)
    types = np.array(encoding.type_ids, dtype=np.int64)
    places = encoding.sequence_ids
    if 0 not in places or 1 not in places or places[0] is not None:
        raise CheckpointError(
            "the tokenizer does not put a classification token before a pair of texts",
            hint="use the checkpoint's own BERT, DistilBERT, ELECTRA or RoBERTa tokenizer",
        )
    first, second = places.index(0), places.index(1)
    after_first = first + places.count(0)
    after_second = second + places.count(1)
    before, between, after = slice(0, first), slice(after_first, second), slice(after_second, None)
    return _Template(
        ids[before],
        ids[between],
        ids[after],
        types[before],
        types[between],
        types[after],
        int(types[first]),
        int(types[second]),
    )


def _special_id(backend: tokenizers.Tokenizer, tokenizer_config: Mapping[str, Any], name: str, otherwise: int) -> int:
    token = tokenizer_config.get(name)
    if isinstance(token, dict):  # transformers writes an AddedToken as a dictionary
        token = token.get("content")
    number = backend.token_to_id(token) if token else None
    return otherwise if number is None else number


def _positions(config: Mapping[str, Any]) -> Optional[int]:
    if config.get("max_position_embeddings") is None:
        return None
    # A tokenizer may come with the config of a model that is not served; most count as BERT does.
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type, FAMILIES["bert"]) if isinstance(model_type, str) else FAMILIES["bert"]
    return usable_positions(config, family)


def _parse(contents: bytes, name: str) -> Dict[str, Any]:
    try:
        return dict(json.loads(contents.decode("utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{name} is not a JSON object: {error}", hint="save the tokenizer again") from error
