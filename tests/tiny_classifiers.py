"""Tiny random classifiers, saved by transformers itself (tiny_checkpoints.py) and compiled; for the tests of theirs."""

from pathlib import Path
from typing import Any, Dict, Sequence

from tiny_checkpoints import write_checkpoint, write_vocabulary

from neuronbert.artifact.manifest import Artifact
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.checkpoint.tokenizer_files import read_tokenizer
from neuronbert.compiler.compilation import compile_checkpoint

LABELS = ("calm", "glad", "cross")
POSITIONS = 64  # tokens of the longest row


def labels_of(names: Sequence[str]) -> Dict[str, Any]:
    """The keys of a config for labels of these names."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


def write_classifier(folder: Path, family: str = "bert", labels: Sequence[str] = LABELS, **changes: Any) -> Path:
    """A whole checkpoint with random weights, and a classifier of ``labels``."""
    return write_checkpoint(folder, family, "SequenceClassification", **labels_of(labels), **changes)


def compiled(checkpoint: Path, output: Path, backend: str = "torchscript") -> Artifact:
    """Compiled in FP32 without the gate. ``echo`` gives numbers that mean nothing, and is quick to load."""
    return compile_checkpoint(checkpoint, output, backend=backend, precision="fp32", threads=1, skip_gate=True)


def tokenizer_of(folder: Path, **config: Any) -> Tokenizer:
    """A tiny BERT's tokenizer, of a model that has this ``config``."""
    write_vocabulary(folder, "bert")
    files = read_tokenizer(folder, "bert", POSITIONS)
    own = {"model_type": "bert", "max_position_embeddings": POSITIONS}
    return Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], {**own, **config})
