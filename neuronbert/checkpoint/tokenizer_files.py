"""Collects a checkpoint's tokenizer files for loading.py, building tokenizer.json where only a vocabulary was saved.

Needs the ``tokenizers`` library, neither torch nor transformers.
"""

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from neuronbert.errors import CheckpointError, NeuronBertError
from neuronbert.hardware.schema import FLAG, TEXT, Form, Schema, object_of, record, whole
from neuronbert.hardware.untrusted import MEBIBYTE, Refusal, document_of, read_optional

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Settings = Mapping[str, Any]  # tokenizer_config.json

# All the files that a tokenizer of the served families may have; those that are there go into the artifact too.
FILE_NAMES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)

_BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_FETCH_AGAIN = "fetch the tokenizer files again from where the checkpoint came from"
DAMAGED = Refusal(CheckpointError, _FETCH_AGAIN)
_NO_TRUNCATION = 1_000_000  # transformers writes 1e30 for "no limit known"
TOKENIZER_BYTES = 64 * MEBIBYTE  # of tokenizer.json; a vocabulary of 250,000 tokens takes 17
_VOCABULARY_BYTES = 16 * MEBIBYTE  # of every other file

# A special token: a string, or the description of an AddedToken.
_TOKEN: Form = {"type": ["string", "object", "null"], "required": ["content"], "properties": {"content": TEXT}}
_ADDED: Form = {
    "type": ["object", "null"],
    "patternProperties": {"^[0-9]{1,9}$": record({"content": TEXT})},
    "additionalProperties": False,
}

# tokenizer_config.json and special_tokens_map.json
SETTINGS = Schema(
    properties={
        **dict.fromkeys(("unk_token", "sep_token", "pad_token", "cls_token", "mask_token"), _TOKEN),
        **dict.fromkeys(("bos_token", "eos_token"), _TOKEN),
        **dict.fromkeys(("do_lower_case", "tokenize_chinese_chars", "add_prefix_space"), FLAG),
        "strip_accents": {"type": ["boolean", "null"]},
        "model_max_length": {"type": ["number", "boolean", "null"]},
        "model_input_names": {"type": ["array", "null"], "items": TEXT},
        "padding_side": {"enum": ["left", "right", None]},
        "truncation_side": {"enum": ["left", "right", None]},
        "tokenizer_class": {"type": ["string", "null"]},
        "added_tokens_decoder": _ADDED,
    }
)
# tokenizer.json: what is not here, the library that reads it checks by itself.
TOKENIZER = Schema(properties={"normalizer": {"type": ["object", "null"]}})
VOCABULARY = Schema(**object_of(whole(0, (1 << 32) - 1)))


def read_tokenizer(folder: Path, model_type: str, usable_positions: int) -> Dict[str, bytes]:
    """File name → content of the tokenizer in ``folder``; always with tokenizer.json and tokenizer_config.json.

    ``usable_positions`` (tokens) limits model_max_length. Raises CheckpointError for a missing or damaged tokenizer.
    """
    found = {name: read_optional(folder / name, DAMAGED, _limit_bytes(name)) for name in FILE_NAMES}
    files = {name: raw for name, raw in found.items() if raw is not None}
    settings = _settings(folder, files, model_type)
    if "tokenizer.json" in files:
        files["tokenizer.json"] = _checked(folder / "tokenizer.json", files["tokenizer.json"], settings)
    elif "vocab.txt" in files and model_type != "roberta":
        with tokenizer_errors(f"the tokenizer of {folder}"):
            files["tokenizer.json"] = _build_wordpiece(folder, files, settings)
    elif "vocab.json" in files and "merges.txt" in files and model_type == "roberta":
        with tokenizer_errors(f"the tokenizer of {folder}"):
            files["tokenizer.json"] = _build_byte_level(folder, files, settings)
    else:
        wanted = "vocab.json and merges.txt" if model_type == "roberta" else "vocab.txt"
        raise CheckpointError(
            f"{folder} has no tokenizer: neither tokenizer.json nor {wanted}",
            hint="copy tokenizer.json from the model it was fine-tuned from, or tokenizer.save_pretrained(folder)",
        )
    settings["model_max_length"] = _sane_length(settings.get("model_max_length"), usable_positions)
    files["tokenizer_config.json"] = json.dumps(settings, indent=2, ensure_ascii=False, sort_keys=True).encode() + b"\n"
    return files


def _limit_bytes(name: str) -> int:
    return TOKENIZER_BYTES if name == "tokenizer.json" else _VOCABULARY_BYTES


@contextmanager
def tokenizer_errors(what: str, hint: str = _FETCH_AGAIN) -> Iterator[None]:
    """Turn whatever ``tokenizers`` raises inside the block into a CheckpointError about ``what``."""
    from tokenizers import __version__

    message = f"{what} cannot be read by tokenizers {__version__}"
    with library_errors(lambda reason: CheckpointError(f"{message}: {reason}", hint=hint)):
        yield


class library_errors:  # noqa: N801  # as contextlib names its own
    """Turn whatever ``tokenizers`` raises inside the block into the error that is made of it; ours pass through."""

    def __init__(self, error_of: Callable[[BaseException], NeuronBertError]):
        self._error_of = error_of  # a generator of contextlib's costs a tenth of encoding a question

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Optional[BaseException], traceback: Any) -> None:
        if error is None or isinstance(error, NeuronBertError):
            return
        # It raises plain Exception, and where it panics a class of its own below BaseException.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise self._error_of(error) from error


def uses_token_types(files: Mapping[str, bytes]) -> bool:
    """Whether this tokenizer hands token types to a model that could take them, as transformers decides it."""
    settings = json.loads(files["tokenizer_config.json"])
    names = settings.get("model_input_names")
    if names is not None:
        return "token_type_ids" in names
    return not str(settings.get("tokenizer_class")).startswith(("DistilBert", "Roberta"))


def largest_id(files: Mapping[str, bytes]) -> Tuple[int, str]:
    """The largest id that this tokenizer gives, and the token that has it; (-1, "") without a token."""
    from tokenizers import Tokenizer

    with tokenizer_errors("tokenizer.json"):
        tokenizer = Tokenizer.from_buffer(files["tokenizer.json"])
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return max(((number, token) for token, number in vocabulary.items()), default=(-1, ""))


def _settings(folder: Path, files: Mapping[str, bytes], model_type: str) -> Dict[str, Any]:
    """tokenizer_config.json, completed by special_tokens_map.json and the family's own special tokens."""
    defaults = _ROBERTA_TOKENS if model_type == "roberta" else _BERT_TOKENS
    settings: Dict[str, Any] = dict(defaults)
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if name in files:
            settings.update(document_of(files[name], str(folder / name), SETTINGS, DAMAGED))
    return {key: value for key, value in settings.items() if value is not None or key not in defaults}


def _sane_length(length: Any, usable_positions: int) -> int:
    if isinstance(length, (int, float)) and not isinstance(length, bool) and 0 < length < _NO_TRUNCATION:
        return min(int(length), usable_positions)
    return usable_positions


def _checked(path: Path, raw: bytes, settings: Settings) -> bytes:
    """tokenizer.json as it is, unless tokenizer_config.json overrules its normaliser, which transformers lets it do."""
    from tokenizers import Tokenizer

    described = document_of(raw, str(path), TOKENIZER, DAMAGED)
    if _overrule_normalizer(described, settings):
        raw = json.dumps(described, ensure_ascii=False).encode()
    hint = f"{_FETCH_AGAIN}, or python -m pip install --upgrade tokenizers if it was saved by a newer release"
    with tokenizer_errors(str(path), hint):
        Tokenizer.from_buffer(raw)
    return raw


_NORMALIZER_KEYS = (
    ("do_lower_case", "lowercase"),
    ("strip_accents", "strip_accents"),
    ("tokenize_chinese_chars", "handle_chinese_chars"),
)


def _overrule_normalizer(described: Dict[str, Any], settings: Settings) -> bool:
    normalizer = described.get("normalizer")
    if normalizer is None or normalizer.get("type") != "BertNormalizer":
        return False
    wanted = {inner: settings[outer] for outer, inner in _NORMALIZER_KEYS if outer in settings}
    changed = any(normalizer.get(key) != value for key, value in wanted.items())
    normalizer.update(wanted)
    return changed


def _token(settings: Settings, key: str) -> str:
    """A special token, which transformers writes as a string or as a description of an AddedToken."""
    value = settings[key]
    token: str = value["content"] if isinstance(value, dict) else value
    return token


def _build_wordpiece(folder: Path, files: Mapping[str, bytes], settings: Settings) -> bytes:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    # Split at newlines only: str.splitlines would also cut at rarer separators, which are tokens in some vocabularies.
    lines = _text(folder / "vocab.txt", files["vocab.txt"]).split("\n")
    vocab = {line.rstrip("\r"): number for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines)}
    special = _special_ids(folder / "vocab.txt", vocab, settings, _BERT_TOKENS)
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=_token(settings, "unk_token")))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = _token(settings, "cls_token"), _token(settings, "sep_token")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, special[cls]), (sep, special[sep])],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return _finished(folder, tokenizer, files, settings, sorted(special, key=special.__getitem__))


def _build_byte_level(folder: Path, files: Mapping[str, bytes], settings: Settings) -> bytes:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    vocab = document_of(files["vocab.json"], str(folder / "vocab.json"), VOCABULARY, DAMAGED)
    special = _special_ids(folder / "vocab.json", vocab, settings, _ROBERTA_TOKENS)
    prefix_space = bool(settings.get("add_prefix_space", False))
    tokenizer = Tokenizer(models.BPE(vocab, _merges(folder / "merges.txt", files["merges.txt"])))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    cls, sep = _token(settings, "cls_token"), _token(settings, "sep_token")
    tokenizer.post_processor = processors.RobertaProcessing(
        (sep, special[sep]), (cls, special[cls]), trim_offsets=True, add_prefix_space=prefix_space
    )
    return _finished(folder, tokenizer, files, settings, sorted(special, key=special.__getitem__))


def _text(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 text: {error}", hint=_FETCH_AGAIN) from error


def _merges(path: Path, raw: bytes) -> List[Tuple[str, str]]:
    merges = []
    for number, line in enumerate(_text(path, raw).split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2:
            raise CheckpointError(f"{path} line {number} is not a pair of tokens: {line!r}", hint=_FETCH_AGAIN)
        merges.append((parts[0], parts[1]))
    return merges


def _special_ids(path: Path, vocab: Mapping[str, int], settings: Settings, kinds: Mapping[str, str]) -> Dict[str, int]:
    ids = {}
    for kind in kinds:
        token = _token(settings, kind) if kind in settings else None
        if token is not None and token in vocab:
            ids[token] = vocab[token]
        elif kind in ("cls_token", "sep_token", "unk_token", "pad_token"):
            raise CheckpointError(f"{path} has no {kind} {token!r}", hint=_FETCH_AGAIN)
    return ids


def _finished(
    folder: Path, tokenizer: "Tokenizer", files: Mapping[str, bytes], settings: Settings, special: List[str]
) -> bytes:
    from tokenizers import AddedToken

    # RoBERTa's mask swallows the space before it (transformers' AddedToken(lstrip=True)).
    mask = _token(settings, "mask_token") if "mask_token" in settings else None
    lstrips = mask if "eos_token" in settings else None
    tokenizer.add_special_tokens([AddedToken(token, lstrip=token == lstrips, normalized=False) for token in special])
    tokenizer.add_tokens([token for token in _added_tokens(folder, files, settings) if token not in special])
    serialised: str = tokenizer.to_str()
    return serialised.encode("utf-8")


def _added_tokens(folder: Path, files: Mapping[str, bytes], settings: Settings) -> List[str]:
    """Tokens added after training, by number: transformers < 4.34 kept them in a file of their own."""
    numbers = {entry["content"]: int(number) for number, entry in (settings.get("added_tokens_decoder") or {}).items()}
    if "added_tokens.json" in files:
        path = folder / "added_tokens.json"
        numbers.update(document_of(files["added_tokens.json"], str(path), VOCABULARY, DAMAGED))
    return sorted(numbers, key=numbers.__getitem__)
