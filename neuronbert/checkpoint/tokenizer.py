"""A checkpoint's tokenizer: texts to token ids, and the special tokens around them; tasks put rows together with it."""

import json
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

import numpy as np
import tokenizers

from neuronbert.checkpoint.families import FAMILIES, Config, usable_positions
from neuronbert.checkpoint.tokenizer_files import Settings
from neuronbert.errors import CheckpointError

LONE_SURROGATES = re.compile("[\ud800-\udfff]")
# Below this, the threads of tokenizers cost more than they save. But only with them does it release Python's lock,
# which is why the runner sets Tokenizer.few_texts to 0.
FEW_TEXTS = 4


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


class Tokenizer:
    """A checkpoint's tokenizer, with what a task needs to know of it to cut texts into rows.

    Attributes: ``cls_id`` and ``pad_id`` (token ids), ``max_length`` (tokens; None when neither tokenizer nor model
    names a limit), ``max_positions`` (tokens; None when the model's config was not given), ``pads_left`` (of padding
    that the checkpoint was trained with), ``template`` (the special tokens around a pair of texts), ``config`` (the
    model's, from which a task reads such things as the names of its labels; empty when it was not given).
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        tokenizer_config: Settings,
        config: Optional[Config] = None,
    ):
        padding = backend.padding or {}
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.config: Mapping[str, Any] = config or {}
        self.few_texts = FEW_TEXTS
        self.template = _derive_template(backend)
        self.pads_left = tokenizer_config.get("padding_side", "right") != "right"
        self.cls_id = _special_id(backend, tokenizer_config, "cls_token", int(self.template.before[0]))
        self.pad_id = _special_id(backend, tokenizer_config, "pad_token", int(padding.get("pad_id", 0)))
        self.max_positions = _positions(self.config)
        limits = (tokenizer_config.get("model_max_length"), self.max_positions)
        self.max_length = min((int(limit) for limit in limits if limit), default=None)

    @classmethod
    def from_bytes(cls, tokenizer_json: bytes, tokenizer_config: bytes, config: Optional[Config] = None) -> "Tokenizer":
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
        """Keep rows to ``tokens`` at most, as if the model had no more positions: the longest of its static shapes."""
        self.max_length = min(tokens, self.max_length or tokens)
        self.max_positions = min(tokens, self.max_positions or tokens)


def _encodable(text: str) -> str:
    """The text as UTF-8 can hold it: U+FFFD for half a surrogate pair keeps every other character in its place."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return LONE_SURROGATES.sub("\ufffd", text)
    return text


def _derive_template(backend: tokenizers.Tokenizer) -> Template:
    """Read the special tokens from a pair that the tokenizer itself puts together, whatever its post-processor."""
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
