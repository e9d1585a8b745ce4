"""Folders of sentence encoders that every library reads alike, for feature_extraction.py and its contenders, encoders.

They are written as sentence-transformers did before 6.0: every release reads that.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Dict

from neuronbert_tools.peers import texts

MODULES_FILE, POOLING_FILE, LENGTH_FILE = "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"
TOKENIZER_FILE = "tokenizer_config.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.onnx", "*.xml")
LENGTH, TOKENIZER_LENGTH = "max_seq_length", "model_max_length"


def refuse_other_encoders(model: Path) -> None:
    """InputError for an encoder whose embeddings are not the mean of its tokens (needs neuronbert).

    Half of the libraries are told how to pool, and know nothing of what else sentence-transformers can do.
    """
    from neuronbert.errors import InputError
    from neuronbert.tasks.feature_extraction.folder import read_modules
    from neuronbert.tasks.feature_extraction.modules import NORMALIZE, SentenceModules, modules_of

    config, _ = read_modules(model, texts.config_of(model), None, False)
    modules = modules_of(config)
    plain = SentenceModules(max_seq_length=modules.max_seq_length, prompts=modules.prompts)
    if modules._replace(similarity=plain.similarity) not in (plain, plain._replace(layers=(NORMALIZE,))):
        raise InputError(
            f"{model} is more than the mean of its tokens",
            hint="an encoder with mean Pooling, with or without Normalize, and no default prompt",
        )


def copy_small_files(model: Path, folder: Path) -> None:
    """The tokenizer, and the files of sentence-transformers."""
    shutil.copytree(model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*WEIGHTS))


def complete(folder: Path) -> None:
    """Make a sentence encoder of a checkpoint that is none, and have every library read as many tokens of a text."""
    if not (folder / MODULES_FILE).exists():
        _write_modules(folder)
    lengths = _read(folder / LENGTH_FILE) if (folder / LENGTH_FILE).exists() else {"do_lower_case": False}
    tokenizer = _read(folder / TOKENIZER_FILE)
    given = (lengths.get(LENGTH), tokenizer.get(TOKENIZER_LENGTH), texts.max_positions(folder))
    length = min(number for number in given if number)
    _write(folder / LENGTH_FILE, {**lengths, LENGTH: length})
    _write(folder / TOKENIZER_FILE, {**tokenizer, TOKENIZER_LENGTH: length})


def max_length(model: Path) -> int:
    """Tokens of a text that are read, special ones included, of a folder that is complete."""
    return int(_read(model / LENGTH_FILE)[LENGTH])


def _write_modules(folder: Path) -> None:
    kinds = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds)
    ]
    _write(folder / MODULES_FILE, modules)
    pooling = {"word_embedding_dimension": texts.width(folder), "pooling_mode_mean_tokens": True}
    _write(folder / POOLING_FILE, pooling)


def _read(path: Path) -> Dict[str, Any]:
    content: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
