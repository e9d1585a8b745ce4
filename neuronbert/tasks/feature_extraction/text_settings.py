"""Reads sentence_bert_config.json, where sentence-transformers says how texts become tokens; for folder.py.

What it hands to transformers' classes can be anything. What changes no embedding is passed over, and what would is
refused by name: dropped, it would give other embeddings without a word.
"""

from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional, Tuple

from neuronbert.checkpoint.families import Config
from neuronbert.errors import CheckpointError, shown_value
from neuronbert.hardware.schema import Form, Schema, whole
from neuronbert.hardware.untrusted import Refusal, document_of, read_optional

# The name of the first is that of the encoder, whichever it was when the checkpoint was saved.
TEXTS_FILES = tuple(f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert"))
REFUSAL = Refusal(CheckpointError, "fetch the checkpoint again from where it came from")

_MOST_TOKENS = 1 << 20
_TEXT_OR_NULL: Form = {"type": ["string", "null"]}
_OBJECT: Form = {"type": ["object", "null"]}
# What transformers' classes are given: the names of old releases, which win, and those of new ones.
_TOKENIZER, _MODEL, _CONFIG = (
    ("tokenizer_args", "processor_kwargs"),
    ("model_args", "model_kwargs"),
    ("config_args", "config_kwargs"),
)
TEXTS = Schema(
    properties={
        "max_seq_length": whole(1, _MOST_TOKENS, "null"),
        "do_lower_case": {"type": ["boolean", "null"]},
        "transformer_task": _TEXT_OR_NULL,
        "module_output_name": _TEXT_OR_NULL,
        "modality_config": _OBJECT,
        "processing_kwargs": {"type": ["object", "null"], "additionalProperties": _OBJECT},
        **{name: _OBJECT for names in (_MODEL, _CONFIG) for name in names},
        **{
            name: {**_OBJECT, "properties": {"model_max_length": {"type": ["number", "null"], "minimum": 1}}}
            for name in _TOKENIZER
        },
    }
)
# Where files come from: sentence-transformers puts its caller's in their place.
_LOADING = (
    "cache_dir", "code_revision", "force_download", "local_files_only", "proxies", "resume_download", "revision",
    "subfolder", "token", "trust_remote_code", "use_auth_token",
)  # fmt: skip
# How the same weights are held and multiplied, and what has no part in the tokens' embeddings.
_HARMLESS_OF_MODEL = (
    "add_pooling_layer", "attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "output_attentions",
    "output_hidden_states", "return_dict", "torch_dtype", "use_cache", "use_safetensors",
)  # fmt: skip
_HARMLESS_OF_TOKENIZER = ("clean_up_tokenization_spaces", "use_fast")
_LOWER_CASE = "do_lower_case"
# What new releases write for every encoder of text.
_TEXT_OUTPUT = {"method": "forward", "method_output_name": "last_hidden_state"}


class TextSettings(NamedTuple):
    """What is done with a text before the encoder."""

    max_seq_length: Optional[int] = None  # tokens, special ones included
    lowercase: bool = False


class _Setting(NamedTuple):
    """A setting that would change embeddings, and what can be done about it."""

    name: str
    value: Any
    hint: str


def read_text_settings(folder: Path, config: Config) -> TextSettings:
    """What the first of TEXTS_FILES in the encoder's ``folder`` says; CheckpointError for what is not served in it."""
    for name in TEXTS_FILES:
        found = document_at(folder / name, TEXTS)
        if found:
            return _read(found, folder, name, config)
    return TextSettings()


def document_at(path: Path, schema: Schema) -> Dict[str, Any]:
    """The content of a file; empty where there is none."""
    raw = read_optional(path, REFUSAL)
    return {} if raw is None else document_of(raw, str(path), schema, REFUSAL)


def _read(found: Mapping[str, Any], folder: Path, name: str, config: Config) -> TextSettings:
    task = found.get("transformer_task")
    if task not in (None, "feature-extraction"):
        raise CheckpointError(
            f"{folder / name}: an encoder for {shown_value(task)} gives no embeddings",
            hint="choose a checkpoint that was saved by a SentenceTransformer",
        )
    for setting in (*_of_tokenizer(found, folder, config), *_of_model(found, config), *_of_itself(found)):
        raise CheckpointError(
            f"{folder / name}: {setting.name} is {shown_value(setting.value)}, which is not served", hint=setting.hint
        )
    longest = _given(found, _TOKENIZER)[1].get("model_max_length")  # wins, as it does in sentence-transformers
    tokens = found.get("max_seq_length") if longest is None else int(min(longest, _MOST_TOKENS))
    return TextSettings(tokens, bool(found.get(_LOWER_CASE)))


def _given(found: Mapping[str, Any], names: Tuple[str, str]) -> Tuple[str, Mapping[str, Any]]:
    """The name of those that counts, and what it has."""
    old, new = names
    name = old if old in found else new
    return name, found.get(name) or {}


def _of_tokenizer(found: Mapping[str, Any], folder: Path, config: Config) -> Iterator[_Setting]:
    """Those of the tokenizer that it has not itself."""
    group, given = _given(found, _TOKENIZER)
    if not given:
        return
    own: Dict[str, Any] = {_LOWER_CASE: True, **document_at(folder / "tokenizer_config.json", Schema())}
    harmless = {"model_max_length", *_LOADING, *_HARMLESS_OF_TOKENIZER}
    if config.get("model_type") == "roberta":
        harmless.add(_LOWER_CASE)  # which its tokenizer does not know
    for name, value in given.items():
        if name not in harmless and value != own.get(name):
            save = f"AutoTokenizer.from_pretrained(FOLDER, {name}={shown_value(value)}).save_pretrained(FOLDER)"
            yield _Setting(f"{group}, {name}", value, f"keep it in the tokenizer itself: {save}")


def _of_model(found: Mapping[str, Any], config: Config) -> Iterator[_Setting]:
    """Those of the model that are not what config.json says."""
    for names in (_MODEL, _CONFIG):
        group, given = _given(found, names)
        for name, value in given.items():
            if name not in (*_LOADING, *_HARMLESS_OF_MODEL) and value != config.get(name):
                yield _Setting(f"{group}, {name}", value, "a checkpoint that was saved with it in its config.json")


def _of_itself(found: Mapping[str, Any]) -> Iterator[_Setting]:
    """Those of sentence-transformers' own Transformer module."""
    hint = "a checkpoint that takes texts as they are, and gives its tokens' last hidden states"
    for name in ("query_length", "document_length", "query_expansion", "tokenizer_name_or_path"):
        if found.get(name):
            yield _Setting(name, found[name], hint)
    for name in ("common", "text"):  # others are for pictures, sounds and conversations
        more = (found.get("processing_kwargs") or {}).get(name)
        if more:
            yield _Setting(f"processing_kwargs, {name}", more, hint)
    outputs = found.get("modality_config")
    if outputs and outputs.get("text") != _TEXT_OUTPUT:
        yield _Setting("modality_config, text", outputs.get("text"), hint)
    if found.get("module_output_name") not in (None, "token_embeddings"):
        yield _Setting("module_output_name", found["module_output_name"], hint)
