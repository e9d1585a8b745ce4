"""Reads the files that sentence-transformers saves beside an encoder, for modules.py: poolings, layers, prompts.

No class that a file names is imported: what is not known here by its name is refused.
"""

from pathlib import Path
from typing import Any, List, Mapping, NamedTuple, Optional, Tuple

from neuronbert.checkpoint import weights
from neuronbert.checkpoint.families import Config
from neuronbert.errors import CheckpointError, shown_value
from neuronbert.hardware.schema import FLAG, TEXT, Form, Schema, list_of, record, whole
from neuronbert.hardware.untrusted import document_of, is_there, json_list, read_optional, refuse_unfit
from neuronbert.tasks.feature_extraction.modules import (
    AUTO,
    KEY,
    NONE,
    NORMALIZE,
    POOLINGS,
    SIMILARITIES,
    Dense,
    Layer,
    SentenceModules,
    chosen_pooling,
    hidden_size,
    refuse_odd_widths,
)
from neuronbert.tasks.feature_extraction.text_settings import REFUSAL, TEXTS_FILES, document_at, read_text_settings

MODULES_FILE = "modules.json"
SETTINGS_FILE = "config_sentence_transformers.json"
# Of a repository on the hub; a Normalize has no files, and a Dense has weights in one of two forms.
_DENSE_FILES = ("config.json", weights.SINGLE_FILE, weights.PICKLE_FILES[0])
FILES = (
    *(MODULES_FILE, SETTINGS_FILE, *TEXTS_FILES, "*_Pooling/config.json"),
    *(f"*_Dense/{name}" for name in _DENSE_FILES),
)

_PREFIX = "sentence_transformers."  # of every class of the library, in all of its releases
_MOST_MODULES = 32
_FOLDER: Form = {"type": "string", "pattern": "^(|[A-Za-z0-9_-]{1,64})$"}
_WIDTH = whole(1, 1 << 20)

MODULE_LIST = Schema(properties={"modules": list_of(record({"path": _FOLDER, "type": TEXT}), maxItems=_MOST_MODULES)})
_OLD_MODES = {  # their order is that of the parts of an embedding
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLING = Schema(
    properties={
        "word_embedding_dimension": _WIDTH,
        "embedding_dimension": _WIDTH,
        "pooling_mode": {"type": ["string", "array"], "items": TEXT, "maxItems": len(POOLINGS)},
        "include_prompt": FLAG,
    },
    patternProperties={"^pooling_mode_": FLAG},
)
DENSE = Schema(
    **record(
        {"in_features": _WIDTH, "out_features": _WIDTH},
        {
            "bias": FLAG,
            "activation_function": {"type": ["string", "null"]},
            "module_input_name": {"type": ["string", "null"]},
            "module_output_name": {"type": ["string", "null"]},
            "use_residual": FLAG,
        },
    )
)
SETTINGS = Schema(
    properties={
        "prompts": {"type": ["object", "null"], "additionalProperties": {"type": ["string", "null"]}},
        "default_prompt_name": {"type": ["string", "null"]},
        "similarity_fn_name": {"type": ["string", "null"]},
        "truncate_dim": whole(1, 1 << 20, "null"),
    }
)
# The classes of torch that a Dense may name, and what they are called here.
_ACTIVATIONS = {
    f"torch.nn.modules.{module}.{name}": name.lower()
    for module, name in (
        ("linear", "Identity"),
        *(("activation", name) for name in ("Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")),
    )
}


class _Module(NamedTuple):
    """An entry of modules.json: the last part of its class (all of one that is not served), and its folder."""

    kind: str
    folder: str


def encoder_folder(folder: Path) -> Path:
    """Where config, weights and tokenizer of a checkpoint are: in ``folder``, or below where modules.json says so.

    A modules.json that is not served is refused here only where there is no config.json beside it: the checkpoint may
    be for another task, and ``read_modules`` refuses it where it is for this one.
    """
    try:
        entries = _entries(folder)
        if entries:
            _refuse_unserved(entries[:1], folder / MODULES_FILE)
    except CheckpointError:
        if not is_there(folder / "config.json", REFUSAL):
            raise
        return folder
    return folder / entries[0].folder if entries else folder


def read_modules(
    folder: Optional[Path], config: Config, pooling: Optional[str], allow_pickle: bool
) -> Tuple[Config, Mapping[str, Any]]:
    """The config with what the files in ``folder`` say (and ``pooling`` asks for), and the dense layers' weights.

    A folder without modules.json, or a model in memory (None), is a plain encoder. CheckpointError for a module that
    is not served, by name, and for files that do not fit together; UsageError for what is no pooling. What ``pooling``
    replaces is not refused: the files' own pooling, and for ``"none"`` all that is behind the encoder.
    """
    entries = _entries(folder) if folder is not None else []
    modules = SentenceModules()
    if folder is not None and entries:
        used = entries[:1] if pooling == NONE else entries
        _refuse_unserved(used, folder / MODULES_FILE)
        texts = read_text_settings(folder / used[0].folder, config)
        modules = _of_folder(folder, used, pooling)._replace(**texts._asdict())
    modules = chosen_pooling(modules, pooling)
    refuse_odd_widths(modules, hidden_size(config), str(MODULES_FILE if folder is None else folder / MODULES_FILE))
    tensors = {
        f"{layer.name}.{name}": tensor
        for layer in modules.dense
        for name, tensor in weights.read_folder(Path(folder or ".") / layer.name, allow_pickle).items()
    }
    return {**config, KEY: modules.document()}, tensors


def _entries(folder: Path) -> List[_Module]:
    """The entries of modules.json; none where there is no such file."""
    path = folder / MODULES_FILE
    raw = read_optional(path, REFUSAL)
    if raw is None:
        return []
    entries = json_list(raw, str(path), REFUSAL)
    refuse_unfit({"modules": entries}, str(path), MODULE_LIST, REFUSAL)
    if not entries:
        raise REFUSAL.of(f"{path}: the modules are none")
    return [_Module(_kind(entry["type"]), entry["path"]) for entry in entries]


_SERVED = ("Transformer", "Pooling", "Dense", "Normalize")
_WITHOUT_MODULES = "--pooling none, which gives the embeddings of the Transformer's tokens"


def _kind(name: str) -> str:
    kind = name.rpartition(".")[2]
    return kind if name.startswith(_PREFIX) and kind in _SERVED else name


def _refuse_unserved(modules: List[_Module], path: Path) -> None:
    """CheckpointError for a module that is not served, and for modules in another order."""
    kinds = [module.kind for module in modules]
    behind_encoder = kinds[0] == "Transformer"
    unserved = [kind for kind in kinds if kind not in _SERVED]
    if unserved:
        hint = f"a checkpoint of {', '.join(_SERVED)} modules"
        raise CheckpointError(
            f"{path}: a module of type {shown_value(unserved[0])} is not served",
            hint=f"{hint}, or {_WITHOUT_MODULES}" if behind_encoder else hint,
        )
    if not behind_encoder or kinds[1:2] not in ([], ["Pooling"]) or kinds.count("Pooling") > 1:
        raise CheckpointError(
            f"{path}: the modules {', '.join(kinds)}; a Transformer with a Pooling behind it is served",
            hint=_WITHOUT_MODULES if behind_encoder else "a checkpoint whose first module is a Transformer",
        )


def _of_folder(folder: Path, found: List[_Module], asked: Optional[str]) -> SentenceModules:
    settings = document_at(folder / SETTINGS_FILE, SETTINGS)
    prompts = {name: text or "" for name, text in (settings.get("prompts") or {}).items()}
    default = settings.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise REFUSAL.of(f"{folder / SETTINGS_FILE}: the default prompt {shown_value(default)} is not among prompts")
    similarity = settings.get("similarity_fn_name")
    pooling = SentenceModules(pooling=())
    if found[1:]:
        pooling = _pooling(folder / found[1].folder / "config.json", asked)
    return pooling._replace(
        layers=tuple(_layer(folder, module) for module in found[2:]),
        prompts=prompts,
        default_prompt=default,
        # As sentence-transformers itself takes a name that is for other models.
        similarity=similarity if similarity in SIMILARITIES else SIMILARITIES[0],
        truncate_dim=settings.get("truncate_dim"),
    )


def _pooling(path: Path, asked: Optional[str]) -> SentenceModules:
    """What the file says; of its pooling nothing where another is asked for."""
    raw = read_optional(path, REFUSAL)
    if raw is None:
        raise REFUSAL.of(f"{path} is missing, which {MODULES_FILE} names")
    found = document_of(raw, str(path), POOLING, REFUSAL)
    include_prompt = found.get("include_prompt", True)
    if asked not in (None, AUTO):
        return SentenceModules(include_prompt=include_prompt)
    named = found.get("pooling_mode")
    if named is None:
        named = [_OLD_MODES.get(key, key) for key in _in_order(found) if found[key]] or ["mean"]
    modes = [_mode(mode) for mode in ([named] if isinstance(named, str) else named)]
    unknown = [mode for mode in modes if mode not in POOLINGS]
    if unknown or not modes:
        raise CheckpointError(
            f"{path}: the pooling {shown_value(unknown[0] if unknown else '')} is not served",
            hint=f"--pooling with one of {', '.join(POOLINGS)}",
        )
    return SentenceModules(pooling=tuple(modes), include_prompt=include_prompt)


def _in_order(found: Mapping[str, Any]) -> List[str]:
    flags = [key for key in found if key.startswith("pooling_mode_")]
    return sorted(flags, key=lambda key: list(_OLD_MODES).index(key) if key in _OLD_MODES else len(_OLD_MODES))


def _mode(name: str) -> str:
    return "mean_sqrt_len" if name == "mean_sqrt_len_tokens" else name


def _layer(folder: Path, module: _Module) -> Layer:
    if module.kind == "Normalize":
        return NORMALIZE
    path = folder / module.folder / "config.json"
    raw = read_optional(path, REFUSAL)
    if raw is None or not module.folder:
        raise REFUSAL.of(f"{path} is missing, which {MODULES_FILE} names")
    found = document_of(raw, str(path), DENSE, REFUSAL)
    names = {found.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name")}
    if names != {"sentence_embedding"}:
        raise CheckpointError(
            f"{path}: a dense layer over {', '.join(sorted(names))} is not served", hint="one over sentence_embedding"
        )
    activation = found.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation is not None and activation not in _ACTIVATIONS:
        raise CheckpointError(
            f"{path}: the activation {shown_value(activation)} is not served",
            hint=f"one of {', '.join(sorted(_ACTIVATIONS))}",
        )
    return Dense(
        module.folder,
        found["in_features"],
        found["out_features"],
        found.get("bias", True),
        "identity" if activation is None else _ACTIVATIONS[activation],
        found.get("use_residual", False),
    )
