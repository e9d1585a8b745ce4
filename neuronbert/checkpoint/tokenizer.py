"""A checkpoint's tokenizer: texts to token ids, and the special tokens around them; tasks put rows together with it."""

import re
from functools import wraps
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    MutableMapping,
    NamedTuple,
    Optional,
    Sequence,
    TypeVar,
    Union,
)
from weakref import WeakKeyDictionary

import numpy as np
import tokenizers

from neuronbert.checkpoint.config import read_config, refuse_malformed
from neuronbert.checkpoint.encoded_text import Encoded
from neuronbert.checkpoint.families import FAMILIES, Config, family_like, usable_positions
from neuronbert.checkpoint.recent_texts import RecentTexts
from neuronbert.checkpoint.tokenizer_files import (
    DAMAGED,
    SETTINGS,
    TOKENIZER_BYTES,
    Settings,
    library_errors,
    tokenizer_errors,
)
from neuronbert.errors import CheckpointError, InputError, shown_value
from neuronbert.hardware.untrusted import document_of, json_value, read_optional

_SAVE_AGAIN = (
    "save the tokenizer again with this machine's transformers: "
    "AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)"
)
LONE_SURROGATES = re.compile("[\ud800-\udfff]")
# Below this, the threads of tokenizers cost more than they save. But only with them does it release Python's lock,
# which is why the runner sets Tokenizer.few_texts to 0.
FEW_TEXTS = 4


_MAKES_TOKENS = ("normalizer", "pre_tokenizer", "model", "added_tokens")  # parts of tokenizer.json


class Template(NamedTuple):
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


class SingleTemplate(NamedTuple):
    """The special tokens around a single text, and the token types: ids and types are int64 arrays."""

    before: np.ndarray
    after: np.ndarray
    before_types: np.ndarray
    after_types: np.ndarray
    text_type: int

    @property
    def special_tokens(self) -> int:
        return len(self.before) + len(self.after)


class RowLimit(NamedTuple):
    """How many rows one input may become: all are in memory before the first one is with the model."""

    rows: int
    whose: str  # who sets it, for the error
    way_out: str = ""  # what raises it


# Of a context of 2.5 million tokens at the default lengths; 80 MB in rows of 512 tokens.
ROW_LIMIT = RowLimit(10_000, "neuronbert")


class Tokenizer:
    """A checkpoint's tokenizer, with what a task needs to know of it to cut texts into rows.

    Attributes: ``cls_id``, ``pad_id`` and ``unk_id`` (token ids; of the last -1 where no token stands for unknown
    text), ``max_length`` (tokens; None when neither tokenizer nor model names a limit), ``max_positions`` (tokens; None
    when the model's config was not given), ``pads_left`` (of padding that the checkpoint was trained with),
    ``cuts_left`` (whether a text that is too long loses its beginning), ``template`` (the special tokens around a pair
    of texts), ``single`` (those around one text), ``config`` (the model's, from which a task reads such things as the
    names of its labels; empty when it was not given), ``row_limit`` (what a task that cuts a text into many rows
    refuses before it makes them), ``first_rows`` (how many of them such a task reads at first, where a caller does not
    say; 0: all), ``recent`` (the texts that ``encode_documents`` keeps, which copies share).
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        tokenizer_config: Settings,
        config: Optional[Config] = None,
    ):
        padding, truncation = backend.padding or {}, backend.truncation or {}
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.recent = RecentTexts()
        self.config: Mapping[str, Any] = config or {}
        self.few_texts = FEW_TEXTS
        self.row_limit = ROW_LIMIT
        self.first_rows = 0
        self.template = _derive_template(backend)
        self.single = _derive_single(backend)
        self.pads_left = tokenizer_config.get("padding_side", "right") != "right"
        cut_side = tokenizer_config.get("truncation_side") or truncation.get("direction", "right")
        self.cuts_left = cut_side.lower() == "left"
        self.cls_id = _special_id(backend, tokenizer_config, "cls_token", int(self.template.before[0]))
        self.pad_id = _special_id(backend, tokenizer_config, "pad_token", int(padding.get("pad_id", 0)))
        self.unk_id = _special_id(backend, tokenizer_config, "unk_token", -1)
        self.max_positions = _positions(self.config)
        limits = (tokenizer_config.get("model_max_length"), self.max_positions)
        self.max_length = min((int(limit) for limit in limits if limit and limit >= 1), default=None)
        self._refuse_foreign_ids()

    @classmethod
    def from_bytes(cls, tokenizer_json: bytes, tokenizer_config: bytes, config: Optional[Config] = None) -> "Tokenizer":
        """From the contents of tokenizer.json and tokenizer_config.json, and the model's config where it is known.

        CheckpointError when either cannot be read or has no template for a pair of texts.
        """
        with tokenizer_errors("tokenizer.json", _SAVE_AGAIN):
            backend = tokenizers.Tokenizer.from_buffer(tokenizer_json)
        settings = document_of(tokenizer_config, "tokenizer_config.json", SETTINGS, DAMAGED)
        return cls(backend, settings, config)

    @classmethod
    def from_files(cls, folder: Union[str, Path]) -> "Tokenizer":
        """From a folder with tokenizer.json, and tokenizer_config.json and config.json where they are present."""
        folder = Path(folder)
        tokenizer_json = read_optional(folder / "tokenizer.json", DAMAGED, TOKENIZER_BYTES)
        if tokenizer_json is None:
            raise CheckpointError(
                f"{folder} has no tokenizer.json",
                hint="save it with transformers: AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)",
            )
        config = read_config(folder)
        if config is not None:
            refuse_malformed(config, str(folder / "config.json"))
        return cls.from_bytes(tokenizer_json, read_optional(folder / "tokenizer_config.json", DAMAGED) or b"{}", config)

    def _refuse_foreign_ids(self) -> None:
        """CheckpointError for ids in every row that the model has no embedding for; an engine reads on regardless."""
        rows = self.config.get("vocab_size")
        pair, single = self.template, self.single
        given = [*pair.before, *pair.between, *pair.after, *single.before, *single.after, self.cls_id, self.pad_id]
        if rows is not None and max(given) >= rows:
            raise CheckpointError(
                f"the tokenizer puts the id {max(given)} into every row, and the model has {rows} tokens (vocab_size)",
                hint="fetch tokenizer and weights from one revision",
            )

    def encode(self, texts: Sequence[str]) -> List[tokenizers.Encoding]:
        """Encode each text by itself, without special tokens; offsets count characters of the text given.

        InputError for a text that the tokenizer cannot encode, as one without its unknown token cannot a new word.
        """
        texts = [_encodable(text) for text in texts]
        if len(texts) < self.few_texts:
            return list(map(self._encode_alone, texts))
        with library_errors(lambda reason: self._one_at_fault(texts, reason)):
            return self.backend.encode_batch(texts, add_special_tokens=False)

    def encode_documents(self, texts: Sequence[str]) -> Dict[str, Encoded]:
        """Each text encoded once, as ``encode`` does it, and a long one not again that came in another call of late."""
        texts = list(dict.fromkeys(texts))
        known = self.recent.known(texts)
        new = [text for text in texts if text not in known]
        encodings = self.encode(new) if new else []
        made = {text: Encoded(each, np.array(each.ids, dtype=np.int64)) for text, each in zip(new, encodings)}
        self.recent.keep(made)
        made.update(known)
        return made

    def _encode_alone(self, text: str) -> tokenizers.Encoding:
        with library_errors(lambda reason: _cannot_encode(shown_value(text), reason)):
            return self.backend.encode(text, add_special_tokens=False)

    def _one_at_fault(self, texts: Sequence[str], reason: BaseException) -> InputError:
        """The error of the first of ``texts`` that cannot be encoded, which were encoded together and failed."""
        for text in texts:
            try:
                self._encode_alone(text)
            except InputError as error:
                return error
        return _cannot_encode(f"one of {len(texts):,} texts", reason)

    def makes_rows_of(self, other: "Tokenizer") -> bool:
        """Whether both make the same rows of a text, but for their length."""
        settings = [json_value(each.backend.to_str()) for each in (self, other)]
        if any(settings[0].get(part) != settings[1].get(part) for part in _MAKES_TOKENS):
            return False
        if (self.pad_id, self.cuts_left, self.pads_left) != (other.pad_id, other.cuts_left, other.pads_left):
            return False
        parts: Iterable[Any] = zip((*self.template, *self.single), (*other.template, *other.single))
        return all(np.array_equal(own, others) for own, others in parts)

    def limit_length(self, tokens: int) -> None:
        """Keep rows to ``tokens`` at most, as if the model had no more positions: the longest of its static shapes."""
        self.max_length = min(tokens, self.max_length or tokens)
        self.max_positions = min(tokens, self.max_positions or tokens)


Value = TypeVar("Value")


def once_per_tokenizer(read: Callable[[Tokenizer], Value]) -> Callable[[Tokenizer], Value]:
    """``read``, called once for each tokenizer: what it reads of config and backend never changes, and costs time."""
    values: MutableMapping[Tokenizer, Value] = WeakKeyDictionary()

    @wraps(read)
    def value_of(tokenizer: Tokenizer) -> Value:
        if tokenizer not in values:
            values[tokenizer] = read(tokenizer)
        return values[tokenizer]

    return value_of


def _cannot_encode(what: str, reason: BaseException) -> InputError:
    return InputError(
        f"the checkpoint's tokenizer cannot encode {what}: {reason}",
        hint="its files are damaged: fetch them again from where the checkpoint came from, and compile again",
    )


def _encodable(text: str) -> str:
    """The text as UTF-8 can hold it: U+FFFD for half a surrogate pair keeps every other character in its place."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return LONE_SURROGATES.sub("\ufffd", text)
    return text


def _derive_single(backend: tokenizers.Tokenizer) -> SingleTemplate:
    """Read the special tokens from a text that the tokenizer itself surrounds with them."""
    with tokenizer_errors("tokenizer.json", _SAVE_AGAIN):
        encoding = backend.encode("a")
    ids = np.array(encoding.ids, dtype=np.int64)
    types = np.array(encoding.type_ids, dtype=np.int64)
    sides = encoding.sequence_ids
    first, stop = sides.index(0), sides.index(0) + sides.count(0)
    return SingleTemplate(ids[:first], ids[stop:], types[:first], types[stop:], int(types[first]))


def _derive_template(backend: tokenizers.Tokenizer) -> Template:
    """Read the special tokens from a pair that the tokenizer itself puts together, whatever its post-processor."""
    with tokenizer_errors("tokenizer.json", _SAVE_AGAIN):
        encoding = backend.encode("a", "a")
    ids = np.array(encoding.ids, dtype=np.int64)
    types = np.array(encoding.type_ids, dtype=np.int64)
    sides = encoding.sequence_ids  # of each token: None for a special one, 0 or 1 for the text it is from
    if 0 not in sides or 1 not in sides or sides[0] is not None:
        raise CheckpointError(
            "the tokenizer does not put a classification token before a pair of texts",
            hint="use the checkpoint's own BERT, DistilBERT, ELECTRA or RoBERTa tokenizer",
        )
    first, second = sides.index(0), sides.index(1)
    after_first = first + sides.count(0)
    after_second = second + sides.count(1)
    before, between, after = slice(0, first), slice(after_first, second), slice(after_second, None)
    return Template(
        ids[before],
        ids[between],
        ids[after],
        types[before],
        types[between],
        types[after],
        int(types[first]),
        int(types[second]),
    )


def _special_id(backend: tokenizers.Tokenizer, tokenizer_config: Settings, name: str, otherwise: int) -> int:
    token = tokenizer_config.get(name)
    if isinstance(token, dict):  # transformers writes an AddedToken as a dictionary
        token = token.get("content")
    number = backend.token_to_id(token) if token else None
    return otherwise if number is None else number


def _positions(config: Config) -> Optional[int]:
    # A tokenizer may come with the config of a model that is not served, or with none.
    if config.get("max_position_embeddings") is None and config.get("model_type") not in list(FAMILIES):
        return None
    return usable_positions(config, family_like(config))
