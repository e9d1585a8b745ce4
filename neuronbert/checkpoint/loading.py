"""Turns a folder, a hub id, "demo" or (model, tokenizer) into a checked Checkpoint, with a head that tasks gives it.

Reads and checks everything without torch or transformers; only ``Checkpoint.torch_model`` (and a pickle) needs them.
"""

import json
import os
import stat
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Container, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.checkpoint import weights
from neuronbert.checkpoint.config import DAMAGED, read_config, refuse_malformed
from neuronbert.checkpoint.families import (
    Config,
    Family,
    Head,
    Modules,
    Shape,
    TorchModel,
    canonical_name,
    expected_shapes,
    family_of,
    head_parts,
    head_weights,
    heads_in,
    is_encoder_weight,
    is_ignored,
    named_classes,
    size_of,
    usable_positions,
)
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.checkpoint.tokenizer_files import largest_id, read_tokenizer, uses_token_types
from neuronbert.checkpoint.weights import StoredTensor, Tensors
from neuronbert.errors import CheckpointError, UsageError, is_path, quoted
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.untrusted import is_there, readable

# A name or folder, or a pair of transformers objects (model, tokenizer).
Source = Union[str, "os.PathLike[str]", Tuple[Any, Any], List[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked as a whole.

    ``parameters`` counts the encoder with its ``head``, ``encoder_parameters`` the transformer layers alone (BERT-base:
    85,054,464). ``fingerprint`` is weights.fingerprint over the served weights under transformers' current names.
    ``input_names`` are the model's inputs in forward order. ``revision`` is the commit a hub id was resolved to.
    ``says_pooling``: its own files say how token embeddings become one of the text.
    """

    source: str
    revision: Optional[str]
    config: Config
    model_type: str
    architecture: str
    fingerprint: str
    parameters: int
    encoder_parameters: int
    input_names: Tuple[str, ...]
    head: Head
    says_pooling: bool
    _tensors: Mapping[str, StoredTensor] = field(repr=False, compare=False)
    _tokenizer: Mapping[str, bytes] = field(repr=False, compare=False)

    @property
    def pooling(self) -> Optional[str]:
        """What ``pooling`` would have to be asked for to get the same outputs; None for a head without such a thing."""
        return None if self.head.modules is None else self.head.modules.pooling(self.config)

    def as_dict(self) -> Dict[str, Any]:
        """For a manifest."""
        return {
            "source": self.source,
            "revision": self.revision,
            "fingerprint": self.fingerprint,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "encoder_parameters": self.encoder_parameters,
        }

    def tokenizer_files(self) -> Dict[str, bytes]:
        """File name → content; always tokenizer.json and tokenizer_config.json (with a sane model_max_length)."""
        return dict(self._tokenizer)

    def tokenizer(self) -> Tokenizer:
        """A new tokenizer that knows the model's config. Raises CheckpointError where the two do not fit."""
        files = self.tokenizer_files()
        return Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], self.config)

    def torch_model(self) -> TorchModel:
        """A new reference_model.ReferenceModel: float32, on the CPU, in eval mode.

        ``forward(input_ids, attention_mask, token_type_ids)`` → the task's outputs, in order.
        Needs torch and transformers.
        """
        with optional_imports():
            from neuronbert.checkpoint.reference_model import build_reference_model

        arrays = {name: tensor.float32() for name, tensor in self._tensors.items()}
        family = family_of(self.config, self.source)
        return build_reference_model(family, self.head, self.config, arrays, "token_type_ids" in self.input_names)


class BaseCheckpoint(NamedTuple):
    """A checkpoint to fine-tune: like Checkpoint, but ``tensors`` may lack the head."""

    source: str
    revision: Optional[str]
    config: Config
    family: Family
    tensors: Tensors
    tokenizer: Dict[str, bytes]


class _Location(NamedTuple):
    """Where a checkpoint's files are, and what the user called it."""

    folder: Path
    source: str
    revision: Optional[str]


def load_checkpoint(
    source: Source,
    heads: Sequence[Head],
    *,
    revision: Optional[str] = None,
    token: Optional[str] = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
    pooling: Optional[str] = None,
) -> Checkpoint:
    """Read ``source`` and check it as a whole: config, weights with one of ``heads``, tokenizer.

    A head without weights of its own (``Head.modules``) is taken where the weights have no other; ``pooling`` is for
    such a head, which says what it may be.

    ``source`` is a folder as transformers saves it, a hub id, ``"demo"`` (the one of the package neuronbert_demo), or
    a pair of transformers objects ``(model, tokenizer)``. ``revision``, ``token`` and ``local_files_only`` concern hub
    ids; one revision pins weights, config and tokenizer, and code from the hub never runs. ``pytorch_model.bin`` is
    read only with ``allow_pickle`` and torch >= 2.6. Raises CheckpointError, and MissingLibrary for what a hub id, a
    pickle or ``"demo"`` needs and is not installed; the hints say what to do.
    """
    if isinstance(source, (tuple, list)):
        return _from_objects(source, heads, pooling)
    modules = [head.modules for head in heads if head.modules is not None]
    location = _locate(source, revision, token, local_files_only, allow_pickle, modules)
    folder = location.folder
    location = location._replace(folder=encoder_folder(folder, modules))
    config, family, stored = _read_weights(location, allow_pickle)
    head = _find_head(stored, family, config, location.source, heads)
    config, stored = _with_modules(head, folder, config, stored, pooling, allow_pickle)
    says_pooling = head.modules is not None and is_there(folder / head.modules.first_file, DAMAGED)
    return _describe(_checked(location, config, family, stored, head), head, says_pooling)


def _with_modules(
    head: Head, folder: Optional[Path], config: Config, stored: Tensors, pooling: Optional[str], allow_pickle: bool
) -> Tuple[Config, Tensors]:
    """Config and weights with what a checkpoint's own files add, for a head that they decide about."""
    if head.modules is None:
        if pooling is not None:
            raise UsageError(f"a pooling is nothing for {head.task}", hint="leave it out, or --task feature-extraction")
        return config, stored
    config, more = head.modules.read(folder, config, pooling, allow_pickle)
    return config, {**stored, **more}


def encoder_folder(folder: Path, modules: Sequence[Modules]) -> Path:
    """Where config, weights and tokenizer of the checkpoint in ``folder`` are: there, or below where a file says so."""
    places = [each.encoder(folder) for each in modules]
    return next((place for place in places if place != folder), folder)


def needed_libraries(source: Source) -> Tuple[str, ...]:
    """The modules that reading ``source`` and ``Checkpoint.torch_model`` need, as far as its name tells."""
    return ("torch", "transformers", *(["neuronbert_demo"] if source == "demo" else []))


def load_base_checkpoint(
    source: Union[str, "os.PathLike[str]"],
    head: Optional[Head] = None,
    *,
    modules: Sequence[Modules] = (),
    revision: Optional[str] = None,
    token: Optional[str] = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
) -> BaseCheckpoint:
    """Read and check a checkpoint to fine-tune, as ``load_checkpoint`` does; it may lack ``head``.

    Of ``modules`` only where the encoder is counts.
    """
    location = _locate(source, revision, token, local_files_only, allow_pickle, modules)
    location = location._replace(folder=encoder_folder(location.folder, modules))
    config, family, stored = _read_weights(location, allow_pickle)
    stored_head = head if head is not None and _has_head(stored, family, head) else None
    return _checked(location, config, family, stored, stored_head)


def _locate(
    source: Union[str, "os.PathLike[str]"],
    revision: Optional[str],
    token: Optional[str],
    local_files_only: bool,
    allow_pickle: bool,
    modules: Sequence[Modules],
) -> _Location:
    if not isinstance(source, (str, os.PathLike)):
        raise CheckpointError(
            f'a checkpoint is a folder, a hub id, "demo" or (model, tokenizer), not a {type(source).__name__}',
            hint="neuronbert compile demo OUTPUT, or the folder that save_pretrained wrote",
        )
    name = os.fspath(source)
    if name == "demo":
        return _Location(_demo_folder(), "demo", None)
    folder = Path(os.path.expanduser(name))  # unlike Path's, it leaves a user that does not exist as it is
    try:
        with readable(folder, DAMAGED):
            kind = os.stat(folder).st_mode if name and is_path(name) else 0
    except (FileNotFoundError, NotADirectoryError):
        kind = 0
    if stat.S_ISDIR(kind):
        return _Location(folder, name, None)
    if kind:
        raise CheckpointError(
            f"{name} is a file; a checkpoint is a folder with config.json",
            hint=f"pass its folder: {quoted(folder.parent)}",
        )
    from neuronbert.checkpoint.hub import download, looks_like_hub_id

    if not looks_like_hub_id(name):
        raise CheckpointError(
            f"there is no checkpoint {name!r}: no such folder, and not the form of a hub id (name or owner/name)",
            hint='an existing folder, a hub id such as deepset/minilm-uncased-squad2, or "demo"',
        )
    more_files = [pattern for each in modules for pattern in each.files]
    encoder = partial(encoder_folder, modules=modules)
    snapshot, commit = download(name, revision, token, local_files_only, allow_pickle, more_files, encoder)
    return _Location(snapshot, name, commit)


def _demo_folder() -> Path:
    with optional_imports():
        from neuronbert_demo import FOLDER
    return Path(FOLDER)


def _read_weights(location: _Location, allow_pickle: bool) -> Tuple[Config, Family, Tensors]:
    config = _read_config(location.folder)
    family = _family_of(config, str(location.folder / "config.json"))
    return config, family, weights.read_folder(location.folder, allow_pickle)


def _family_of(config: Config, where: str) -> Family:
    """The family first: a model that is not served may call anything ``hidden_size``."""
    family = family_of(config, where)
    refuse_malformed(config, where)
    return family


def _checked(
    location: _Location, config: Config, family: Family, stored: Tensors, head: Optional[Head]
) -> BaseCheckpoint:
    tensors = _served(stored, family, head, config, str(location.folder / "config.json"))
    tokenizer = _read_tokenizer(location.folder, family, config, location.source)
    return BaseCheckpoint(location.source, location.revision, config, family, tensors, tokenizer)


def _from_objects(source: Sequence[Any], heads: Sequence[Head], pooling: Optional[str]) -> Checkpoint:
    if len(source) != 2 or not hasattr(source[0], "state_dict") or not hasattr(source[1], "save_pretrained"):
        kinds = ", ".join(type(item).__name__ for item in source)
        raise CheckpointError(
            f"an in-memory checkpoint is a pair of transformers objects (model, tokenizer), not ({kinds})",
            hint=f"(AutoModel{heads[0].class_suffix}.from_pretrained(…), AutoTokenizer.from_pretrained(…))",
        )
    model, tokenizer_object = source
    name = f"in-memory {type(model).__name__}"
    config = json.loads(model.config.to_json_string(use_diff=False))
    config["architectures"] = [type(model).__name__]
    family = _family_of(config, name)
    state = weights.from_state_dict(model.state_dict(), name)
    head = _find_head(state, family, config, name, heads)
    config, state = _with_modules(head, None, config, state, pooling, False)
    tensors = _served(state, family, head, config, name)
    with tempfile.TemporaryDirectory(prefix="neuronbert-tokenizer-") as folder:
        tokenizer_object.save_pretrained(folder)
        tokenizer = _read_tokenizer(Path(folder), family, config, name)
    return _describe(BaseCheckpoint(name, None, config, family, tensors, tokenizer), head, says_pooling=False)


def _read_tokenizer(folder: Path, family: Family, config: Config, source: str) -> Dict[str, bytes]:
    files = read_tokenizer(folder, family.model_type, usable_positions(config, family))
    largest, token = largest_id(files)
    rows = size_of(config, family, "vocab_size")
    if largest >= rows:
        raise CheckpointError(
            f"{source}: the tokenizer gives {token!r} the id {largest}, and the model has {rows} tokens (vocab_size)",
            hint="fetch tokenizer and weights from one revision; after adding tokens, model.resize_token_embeddings"
            "(len(tokenizer)) before training",
        )
    return files


def _describe(base: BaseCheckpoint, head: Head, says_pooling: bool) -> Checkpoint:
    source, revision, config, family, tensors, tokenizer = base
    return Checkpoint(
        source=source,
        revision=revision,
        config=config,
        model_type=family.model_type,
        architecture=family.architecture(head),
        fingerprint=weights.fingerprint(tensors),
        parameters=sum(tensor.size for tensor in tensors.values()),
        encoder_parameters=sum(tensor.size for name, tensor in tensors.items() if is_encoder_weight(name)),
        input_names=_input_names(family, config, tokenizer),
        head=head,
        says_pooling=says_pooling,
        _tensors=tensors,
        _tokenizer=tokenizer,
    )


def _input_names(family: Family, config: Config, tokenizer: Mapping[str, bytes]) -> Tuple[str, ...]:
    kinds = size_of(config, family, "type_vocab_size")
    if family.has_token_types and kinds >= 2 and uses_token_types(tokenizer):
        return ("input_ids", "attention_mask", "token_type_ids")
    return ("input_ids", "attention_mask")


def _read_config(folder: Path) -> Config:
    # Checked first: an artifact holds a config.json too.
    if is_there(folder / "neuronbert.json", DAMAGED):
        raise CheckpointError(
            f"{folder} is a compiled artifact already, not a checkpoint",
            hint=f"neuronbert inspect {quoted(folder)}, or pass the checkpoint that it was compiled from",
        )
    config = read_config(folder)
    if config is None:
        raise CheckpointError(
            f"{folder} has no config.json", hint="pass the folder that transformers' save_pretrained wrote, or a hub id"
        )
    return config


def _served(stored: Tensors, family: Family, head: Optional[Head], config: Config, config_name: str) -> Tensors:
    """The weights that ``config`` and ``head`` ask for, under their current names; all checks made."""
    named = _renamed(stored, family, head)
    layers = size_of(config, family, "num_hidden_layers")
    if layers > len(named):
        raise CheckpointError(
            f"{config_name}: num_hidden_layers is {layers:,}, and {_file_of(named)} holds {len(named):,} weights",
            hint="fetch the checkpoint again, or check num_hidden_layers in config.json",
        )
    shapes = expected_shapes(config, family, head, config_name)
    model = family.class_prefix + ("Model" if head is None else head.class_suffix)
    _require_same_names(named, shapes, model, config_name)
    wrong = [
        f"{name} is {list(named[name].shape)}, the config asks for {list(shape)}"
        for name, shape in shapes.items()
        if named[name].shape != shape
    ]
    if wrong:
        raise CheckpointError(
            f"{_file_of(named)} does not fit {config_name}: {_first(wrong)}",
            hint="weights and config come from different models; fetch both from one revision",
        )
    weights.check_values(named)
    return named


def _renamed(stored: Tensors, family: Family, head: Optional[Head]) -> Tensors:
    named: Tensors = {}
    for raw, tensor in stored.items():
        name = canonical_name(raw, family)
        if is_ignored(name, family, head):
            continue
        if name in named:
            raise CheckpointError(
                f"{tensor.file} holds {name} twice (once as {raw})",
                hint="save the checkpoint again with save_pretrained",
            )
        named[name] = tensor
    return named


def _has_head(stored: Tensors, family: Family, head: Head) -> bool:
    return not _missing_of_head({canonical_name(name, family) for name in stored}, family, head)


def _missing_of_head(names: Container[str], family: Family, head: Head) -> List[str]:
    """What ``head`` lacks among canonical ``names``; a bias alone may be missing, which has an error of its own."""
    wanted = sorted(name for name in head_weights(family, head) if name.endswith(".weight"))
    return [name for name in wanted if name not in names]


def _find_head(stored: Tensors, family: Family, config: Config, source: str, heads: Sequence[Head]) -> Head:
    """The head that the weights have; of several the one that the config's class names.

    Where the weights have none, and the config promises none of ``heads``, it is one that needs no weights of its own.
    CheckpointError says what the weights have instead, or that nothing tells which of several is meant.
    """
    classes = named_classes(config)
    names = {canonical_name(name, family) for name in stored}
    otherwise = next((head for head in heads if head.modules is not None), None)
    heads = [head for head in heads if head.modules is None]
    named = next((head for head in heads if family.architecture(head) in classes), None)
    there = [head for head in heads if not _missing_of_head(names, family, head)]
    if named in there or len(there) == 1:
        return named if named in there else there[0]
    if there:
        raise CheckpointError(
            f"{source} has the heads of {' and '.join(head.task for head in there)}, and its config.json names the"
            f" class of neither",
            hint=f"--task {there[0].task}, or another of them",
        )
    if named is not None:
        raise CheckpointError(
            f"{_file_of(stored)} lacks weights of {family.architecture(named)}, which config.json names:"
            f" {_first(_missing_of_head(names, family, named))}",
            hint="fetch the checkpoint again, or save the model again with save_pretrained",
        )
    if otherwise is not None:
        return otherwise
    said = (classes or [f"{family.model_type} encoder"])[0]
    others = heads_in(names, family)
    instead = f"{_article(said)} with {', '.join(others)}" if others else f"{_article(said)} without a head"
    wanted = " nor ".join(f"{head.task} head ({', '.join(head_parts(family, head))})" for head in heads)
    served = " or ".join(family.architecture(head) for head in heads)
    raise CheckpointError(
        f"{_file_of(stored)} has no {wanted}: it is {instead}",
        hint=f"fine-tune one: {heads[0].training_command.format(source=quoted(source))},"
        f" or choose a checkpoint of class {served}",
    )


def _require_same_names(named: Tensors, shapes: Mapping[str, Shape], model: str, config_name: str) -> None:
    missing = [name for name in shapes if name not in named]
    unknown = sorted(name for name in named if name not in shapes)
    if missing:
        raise CheckpointError(
            f"{_file_of(named)} lacks weights that {config_name} asks for: {_first(missing)}",
            hint="fetch the checkpoint again, or check num_hidden_layers in config.json",
        )
    if unknown:
        raise CheckpointError(
            f"{_file_of(named)} holds weights that are no part of {model} as {config_name} describes it:"
            f" {_first(unknown)}",
            hint="merge adapters into the model before saving it, or check num_hidden_layers in config.json",
        )


def _first(items: List[str]) -> str:
    return items[0] if len(items) == 1 else f"{items[0]} and {len(items) - 1} more"


def _file_of(named: Tensors) -> str:
    return next((tensor.file for tensor in named.values()), "the weights file")


def _article(noun: str) -> str:
    return ("an " if noun[0] in "AEIOUaeiou" else "a ") + noun
