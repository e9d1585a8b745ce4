"""A checkpoint's config.json, read with the schema that families.py and everything above rely on."""

import json
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from neuronbert.errors import CheckpointError
from neuronbert.hardware.schema import NUMBER, Form, Schema, whole
from neuronbert.hardware.untrusted import Refusal, json_object, read_optional

FILE_NAME = "config.json"
DAMAGED = Refusal(CheckpointError, f"fetch {FILE_NAME} again from where the checkpoint came from")

# The largest that is served of anything is far below; the weights decide in the end.
_WIDTH = whole(1, 1 << 20)
_TOKENS = whole(1, 1 << 27)
_COUNT = whole(1, 10_000)
_SHARE: Form = {**NUMBER, "minimum": 0, "maximum": 1}

CONFIG = Schema(
    properties={
        "vocab_size": _TOKENS,
        "hidden_size": _WIDTH,
        "dim": _WIDTH,  # DistilBERT's spelling
        "embedding_size": _WIDTH,
        "num_hidden_layers": _COUNT,
        "n_layers": _COUNT,
        "num_attention_heads": _COUNT,
        "n_heads": _COUNT,
        "intermediate_size": _WIDTH,
        "hidden_dim": _WIDTH,
        "max_position_embeddings": _TOKENS,
        "type_vocab_size": whole(0, 1 << 20),
        "pad_token_id": whole(0, 1 << 27, "null"),
        "num_labels": whole(0, 1 << 20, "null"),
        "id2label": {"type": ["object", "null"]},
        "layer_norm_eps": _SHARE,
        "hidden_dropout_prob": _SHARE,
        "attention_probs_dropout_prob": _SHARE,
        "dropout": _SHARE,
        "attention_dropout": _SHARE,
    }
)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json, as transformers reads it."""
    (folder / FILE_NAME).write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")


def read_config(folder: Path) -> Optional[Dict[str, Any]]:
    """The content of config.json in ``folder``, still of any form; None where there is none. CheckpointError."""
    raw = read_optional(folder / FILE_NAME, DAMAGED)
    return None if raw is None else json_object(raw, str(folder / FILE_NAME), DAMAGED)


def refuse_malformed(config: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError where a size or share in ``config``, found at ``where``, is none."""
    fault = CONFIG.fault(config)
    if fault is not None:
        raise DAMAGED.of(f"{where}: {fault}")
