"""Tiny random encoders in folders as sentence-transformers saves them, written by hand; for the tests of their task."""

import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from tiny_checkpoints import write_checkpoint

from neuronbert.artifact.manifest import Artifact
from neuronbert.compiler.compilation import compile_checkpoint

WIDTH = 32  # of a token's embedding (tiny_checkpoints.py)
PREFIX = "sentence_transformers.models."
PROMPTS = {"query": "the puppet: ", "passage": ""}


def write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def modules_of(*kinds: str, prefix: str = PREFIX) -> List[Dict[str, Any]]:
    """modules.json of a Transformer and these classes, in the folders that sentence-transformers gives them."""
    return [
        {"idx": number, "name": str(number), "path": f"{number}_{kind}" if number else "", "type": prefix + kind}
        for number, kind in enumerate(("Transformer", *kinds))
    ]


def write_dense(folder: Path, inputs: int, outputs: int, **settings: Any) -> None:
    """A dense layer with seeded random weights."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(inputs)
    weights = {"linear.weight": random.normal(0, 0.3, (outputs, inputs)).astype(np.float32)}
    if settings.get("bias", True):
        weights["linear.bias"] = random.normal(0, 0.1, outputs).astype(np.float32)
    if settings.get("use_residual") and inputs != outputs:
        weights["residual.weight"] = random.normal(0, 0.3, (outputs, inputs)).astype(np.float32)
    write_json(folder / "config.json", {"in_features": inputs, "out_features": outputs, "bias": True, **settings})
    save_file(weights, str(folder / "model.safetensors"))


def write_sentence_folder(
    folder: Path,
    family: str = "bert",
    *,
    pooling: Optional[Dict[str, Any]] = None,
    kinds: Sequence[str] = ("Pooling", "Normalize"),
    max_seq_length: Optional[int] = 24,
    prompts: Optional[Dict[str, str]] = None,
    **settings: Any,
) -> Path:
    """A whole folder: an encoder with random weights, mean pooling and length 1 unless something else is asked for."""
    write_checkpoint(folder, family, head="")
    write_json(folder / "modules.json", modules_of(*kinds))
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
    own = {"prompts": PROMPTS if prompts is None else prompts, "default_prompt_name": None, **settings}
    write_json(folder / "config_sentence_transformers.json", own)
    if "Pooling" in kinds:
        given = pooling or {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
        write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **given})
    return folder


def compiled(checkpoint: Path, output: Path, backend: str = "torchscript", **options: Any) -> Artifact:
    """Compiled in FP32 without the gate. ``echo`` gives numbers that mean nothing, and is quick to load."""
    return compile_checkpoint(
        str(checkpoint), output, backend=backend, precision="fp32", threads=1, skip_gate=True, **options
    )
