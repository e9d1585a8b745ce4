"""The model families that are served, and the name and shape of every weight a config promises; loading.py checks."""

import importlib
import re
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple, cast

from neuronbert.checkpoint.head_steps import Steps
from neuronbert.errors import CheckpointError

Shape = Tuple[int, ...]
Config = Mapping[str, Any]  # a checkpoint's config.json
TorchModel = Any  # torch.nn.Module; torch is imported on use only
Tensor = Any  # torch.Tensor


class Modules(NamedTuple):
    """What a checkpoint's own files add to the encoder, beside config.json: for a task that needs no head's weights.

    ``read`` puts what it found into the config, under a key of ours: artifacts hold it, and everything later reads it
    there.
    """

    files: Tuple[str, ...]  # their names in a checkpoint's folder, as patterns: what a hub id is asked for
    first_file: str  # the one of them without which the others say nothing
    encoder: Callable[[Path], Path]  # (folder) → the folder in it where config, weights and tokenizer are
    # (folder; None: in memory, config, what a person asks for, pickles are read) → the config, and more weights
    read: Callable[[Optional[Path], Config, Optional[str], bool], Tuple[Config, Mapping[str, Any]]]
    pooling: Callable[[Config], str]  # what a person would have to ask for to get the same
    shapes: Callable[[Config], Dict[str, Shape]]  # name → shape of each of those weights
    build: Callable[[TorchModel, str, Config], TorchModel]  # (transformers' bare encoder, its name, config) → the model


class Head(NamedTuple):
    """What a task adds to the encoder: the transformers class, its weights, and its outputs from hidden states."""

    task: str  # its name
    class_suffix: str  # of the transformers class behind the family's prefix, such as ForTokenClassification
    labels: Optional[int]  # the config's num_labels; None: as many as the checkpoint's config says
    # (family, hidden size, labels) → name → shape of each of its weights
    shapes: Callable[["Family", int, int], Dict[str, Shape]]
    # (transformers model, hidden states [rows, tokens, hidden], attention mask [rows, tokens]) → the task's outputs, in
    # order
    forward: Callable[[TorchModel, Tensor, Tensor], Tuple[Tensor, ...]]
    # (family, config) → the same as data, for each output in order
    steps: Callable[["Family", Config], Tuple[Steps, ...]]
    training_command: str  # trains a checkpoint with this head from {source}
    place: str  # module:name, where another process finds it
    modules: Optional[Modules] = None  # instead of weights of its own: then every encoder has this head


def label_count(config: Mapping[str, Any], head: Head) -> int:
    """How many labels a model of ``config`` with ``head`` tells apart; 2 is transformers' default."""
    names, number = config.get("id2label"), config.get("num_labels")
    named = len(names) if isinstance(names, dict) else 0
    return head.labels or named or number or 2


def head_at(place: str) -> Head:
    """The Head whose ``place`` this is."""
    module, name = place.split(":")
    return cast(Head, getattr(importlib.import_module(module), name))


class Family(NamedTuple):
    """One model type: the transformers classes that serve it and how its weights are named."""

    model_type: str
    class_prefix: str
    config_class: str
    prefix: str
    has_token_types: bool
    # Defaults of config.json keys, as transformers documents them for each config class.
    defaults: Mapping[str, int]

    def architecture(self, head: Head) -> str:
        """The transformers class of this family with ``head``."""
        return self.class_prefix + head.class_suffix


_BERT_SIZES = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}

FAMILIES: Dict[str, Family] = {
    "bert": Family("bert", "Bert", "BertConfig", "bert.", True, _BERT_SIZES),
    "distilbert": Family(
        "distilbert",
        "DistilBert",
        "DistilBertConfig",
        "distilbert.",
        False,
        {**_BERT_SIZES, "num_hidden_layers": 6, "type_vocab_size": 0},
    ),
    "roberta": Family(
        "roberta",
        "Roberta",
        "RobertaConfig",
        "roberta.",
        False,  # its one token type is 0 for every token
        {**_BERT_SIZES, "vocab_size": 50265, "pad_token_id": 1},
    ),
    "electra": Family(
        "electra",
        "Electra",
        "ElectraConfig",
        "electra.",
        True,
        {**_BERT_SIZES, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "embedding_size": 128},
    ),
}

_DISTILBERT_SPELLINGS = {
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
}


def family_of(config: Config, where: str) -> Family:
    """The family that serves ``config`` (a config.json's content found at ``where``).

    Raises CheckpointError for a model type that is not served, or a variant of it that BERT kernels cannot run.
    """
    model_type = config.get("model_type") or _model_type_of_class(named_classes(config))
    if model_type is None:
        raise CheckpointError(
            f'{where} names neither a "model_type" nor a class in "architectures"',
            hint='add "model_type": one of ' + ", ".join(FAMILIES),
        )
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise CheckpointError(
            f"{where}: model type {model_type!r} is not served",
            hint=f"choose a checkpoint of type {', '.join(FAMILIES)}",
        )
    _refuse_variants(config, where)
    return FAMILIES[model_type]


def family_like(config: Config) -> Family:
    """The family of ``config``; BERT, as most models count, for one that is not served."""
    model_type = config.get("model_type")
    return FAMILIES.get(model_type, FAMILIES["bert"]) if isinstance(model_type, str) else FAMILIES["bert"]


def named_classes(config: Config) -> List[str]:
    """The class names under ``architectures``; empty where that is no list of strings."""
    names = config.get("architectures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _model_type_of_class(names: Iterable[str]) -> Optional[str]:
    """The model type of a config written before transformers 2.10, which had no model_type, from its class name."""
    for name in names:
        for family in FAMILIES.values():
            if name.startswith(family.class_prefix + "For"):
                return family.model_type
    return None


def _refuse_variants(config: Config, where: str) -> None:
    positions = config.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        raise CheckpointError(
            f"{where}: position_embedding_type {positions!r} is not served",
            hint="choose a checkpoint with absolute position embeddings",
        )
    if config.get("is_decoder"):
        raise CheckpointError(
            f"{where}: is_decoder is true; a decoder does not see the whole context",
            hint="choose an encoder checkpoint (is_decoder false)",
        )


def size_of(config: Config, family: Family, key: str) -> int:
    """One size from the config under transformers' common spelling, or the family's default."""
    value = config.get(_own_spelling(family, key), config.get(key))
    return family.defaults[key] if value is None else int(value)


def with_size(config: Config, family: Family, key: str, size: int) -> Config:
    """The config with one size changed; ``key`` as ``size_of`` takes it."""
    rest = {name: value for name, value in config.items() if name != key}
    return {**rest, _own_spelling(family, key): size}


def _own_spelling(family: Family, key: str) -> str:
    return _DISTILBERT_SPELLINGS.get(key, key) if family.model_type == "distilbert" else key


def usable_positions(config: Config, family: Family) -> int:
    """The most tokens in a row. RoBERTa counts positions from pad_token_id + 1, so 514 positions hold 512."""
    positions = size_of(config, family, "max_position_embeddings")
    before = size_of(config, family, "pad_token_id") + 1 if family.model_type == "roberta" else 0
    if positions <= before:
        raise CheckpointError(
            f"config.json: max_position_embeddings is {positions}, and this model counts positions from {before} on",
            hint="fetch config.json again from where the checkpoint came from",
        )
    return positions - before


def expected_shapes(
    config: Config, family: Family, head: Optional[Head], where: str = "config.json"
) -> Dict[str, Shape]:
    """Name → shape of every weight of the encoder that ``config`` describes, and of ``head``."""

    def size(key: str) -> int:
        return size_of(config, family, key)

    hidden, heads = size("hidden_size"), size("num_attention_heads")
    if hidden % heads:
        raise CheckpointError(
            f"{where}: hidden size {hidden} cannot be split over {heads} attention heads",
            hint="fetch config.json again from where the checkpoint came from",
        )
    shapes: Dict[str, Shape] = {}
    _add_embeddings(shapes, family, size)
    for layer in range(size("num_hidden_layers")):
        _add_layer(shapes, family, layer, hidden, size("intermediate_size"))
    if head is None:
        return shapes
    own = head.shapes(family, hidden, label_count(config, head))
    return {**shapes, **own, **({} if head.modules is None else head.modules.shapes(config))}


def _add_embeddings(shapes: Dict[str, Shape], family: Family, size: Callable[[str], int]) -> None:
    hidden = size("hidden_size")
    width = size("embedding_size") if family.model_type == "electra" else hidden
    root = family.prefix + "embeddings."
    shapes[root + "word_embeddings.weight"] = (size("vocab_size"), width)
    shapes[root + "position_embeddings.weight"] = (size("max_position_embeddings"), width)
    if family.model_type != "distilbert":
        shapes[root + "token_type_embeddings.weight"] = (size("type_vocab_size"), width)
    _add_norm(shapes, root + "LayerNorm", width)
    if width != hidden:
        _add_linear(shapes, family.prefix + "embeddings_project", hidden, width)


class LayerNames(NamedTuple):
    """What the parts of a transformer layer are called in a checkpoint; each has a ``.weight`` and a ``.bias``."""

    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    output_norm: str
    widen: str
    narrow: str


_BERT_LAYER = LayerNames(
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "output.LayerNorm", "intermediate.dense", "output.dense",
)  # fmt: skip
_DISTILBERT_LAYER = LayerNames(
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
    "sa_layer_norm", "output_layer_norm", "ffn.lin1", "ffn.lin2",
)  # fmt: skip


def layer_names(family: Family, layer: int) -> LayerNames:
    """The whole names of the parts of the layer numbered ``layer``, from 0."""
    distilbert = family.model_type == "distilbert"
    root = f"{family.prefix}{'transformer' if distilbert else 'encoder'}.layer.{layer}."
    return LayerNames(*(root + name for name in (_DISTILBERT_LAYER if distilbert else _BERT_LAYER)))


def _add_layer(shapes: Dict[str, Shape], family: Family, layer: int, hidden: int, intermediate: int) -> None:
    names = layer_names(family, layer)
    for name in (names.query, names.key, names.value, names.attention_output):
        _add_linear(shapes, name, hidden, hidden)
    for name in (names.attention_norm, names.output_norm):
        _add_norm(shapes, name, hidden)
    _add_linear(shapes, names.widen, intermediate, hidden)
    _add_linear(shapes, names.narrow, hidden, intermediate)


def _add_linear(shapes: Dict[str, Shape], name: str, outputs: int, inputs: int) -> None:
    shapes[name + ".weight"] = (outputs, inputs)
    shapes[name + ".bias"] = (outputs,)


def _add_norm(shapes: Dict[str, Shape], name: str, width: int) -> None:
    shapes[name + ".weight"] = (width,)
    shapes[name + ".bias"] = (width,)


def is_encoder_weight(name: str) -> bool:
    """Whether a weight lies in the transformer layers, the part that runs on an accelerator."""
    return ".layer." in name


_BODY = ("embeddings.", "embeddings_project.", "encoder.", "transformer.", "pooler.")
_LEGACY_NORM = re.compile(r"LayerNorm\.(gamma|beta)$")
_BUFFER = re.compile(r"(^|\.)(position_ids|token_type_ids)$")
_POOLER = re.compile(r"(^|\.)pooler\.")
# First parts of the heads' names in transformers: some checkpoints carry the heads of other tasks too.
_HEAD_PARTS = frozenset(
    "cls lm_head qa_outputs classifier pre_classifier generator_predictions generator_lm_head "
    "discriminator_predictions vocab_transform vocab_layer_norm vocab_projector sequence_summary".split()
)


def canonical_name(name: str, family: Family) -> str:
    """``name`` as transformers writes it today: LayerNorm.weight, with the family's prefix, without ``module.``."""
    if name.startswith("module."):  # saved from torch.nn.DataParallel
        name = name[len("module.") :]
    name = _LEGACY_NORM.sub(lambda m: "LayerNorm." + ("weight" if m.group(1) == "gamma" else "bias"), name)
    return family.prefix + name if name.startswith(_BODY) else name


def head_weights(family: Family, head: Optional[Head]) -> FrozenSet[str]:
    """The names of the weights of ``head``, whatever their sizes; none without one."""
    return frozenset(() if head is None else head.shapes(family, 1, 1))


def head_parts(family: Family, head: Optional[Head]) -> List[str]:
    """First parts of the names of the weights of ``head`` outside the encoder, such as ``classifier``, in order."""
    return list(dict.fromkeys(name.split(".")[0] for name in sorted(_outside(head_weights(family, head), family))))


def is_ignored(name: str, family: Family, head: Optional[Head]) -> bool:
    """Whether a file may hold a weight of this canonical name that a model with ``head`` does not use."""
    if name in head_weights(family, head):
        return False
    part, dot, _ = name.partition(".")
    other_head = dot != "" and part in _HEAD_PARTS.difference(head_parts(family, head))
    return other_head or bool(_BUFFER.search(name) or _POOLER.search(name))


def heads_in(names: Iterable[str], family: Family) -> List[str]:
    """First parts of the names outside the encoder: the heads that a checkpoint has."""
    return sorted({name.split(".")[0] for name in _outside(names, family)})


def _outside(names: Iterable[str], family: Family) -> Iterator[str]:
    return (name for name in names if not name.startswith(family.prefix))
