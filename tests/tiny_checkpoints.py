"""Tiny random checkpoints of every served family, saved by transformers itself; for the tests of what reads them."""

import json
from pathlib import Path
from typing import Any, Dict, Iterable, Sequence

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [
    "the",
    "who",
    "was",
    "puppet",
    "a",
    "nice",
    "jim",
    "henson",
    "##s",
    "##ing",
    "é",
    "中",
    "?",
    ".",
    ",",
    "'",
    "The",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LONE = [*LETTERS, *["##" + letter for letter in LETTERS]]
WORDPIECE = [*SPECIAL, *WORDS, *[token for token in LONE if token not in WORDS]]

FAMILIES = ("bert", "distilbert", "roberta", "electra")


def tiny_config(model_type: str, **changes: Any) -> Any:
    """A transformers config with 2 layers of 32 features."""
    from neuronbert.checkpoint.reference_model import transformers

    sizes: Dict[str, Any] = {
        "vocab_size": len(WORDPIECE),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        # Far from transformers' 0.02, so that random logits differ enough to tell two models apart.
        "initializer_range": 0.3,
    }
    if model_type == "distilbert":
        sizes = {"vocab_size": len(WORDPIECE), "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48,
                 "max_position_embeddings": 64, "initializer_range": 0.3}  # fmt: skip
    if model_type == "roberta":
        sizes.update(vocab_size=300, max_position_embeddings=66, type_vocab_size=1)
        sizes.update(pad_token_id=1, bos_token_id=0, eos_token_id=2)
    if model_type == "electra":
        sizes.update(embedding_size=16)
    sizes.update(changes)
    name = {"bert": "Bert", "distilbert": "DistilBert", "roberta": "Roberta", "electra": "Electra"}[model_type]
    return getattr(transformers, name + "Config")(**sizes)


def tiny_model(model_type: str, head: str = "QuestionAnswering", **changes: Any) -> Any:
    """A transformers model with seeded random weights, in eval mode."""
    import torch

    from neuronbert.checkpoint.reference_model import transformers

    config = tiny_config(model_type, **changes)
    name = type(config).__name__.replace("Config", "") + ("For" + head if head else "Model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = getattr(transformers, name)(config)
        for name, parameter in model.named_parameters():  # biases and norms start at 0 and 1: make them count
            if name.endswith("bias") or "LayerNorm" in name or "layer_norm" in name:
                torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.1)
    return model.eval()


def write_vocabulary(folder: Path, model_type: str, words: Sequence[str] = WORDPIECE, **settings: Any) -> None:
    """Only a vocabulary and tokenizer_config.json, as slow tokenizers were saved; ``words`` are for all but roberta."""
    folder.mkdir(parents=True, exist_ok=True)
    if model_type == "roberta":
        alphabet = sorted(_byte_alphabet().values())
        tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *alphabet, "Ġt", "he", "Ġthe", "ing"]
        (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\nĠ t\nh e\nĠt he\n", encoding="utf-8")
    else:
        (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    name = {"bert": "Bert", "distilbert": "DistilBert", "roberta": "Roberta", "electra": "Electra"}[model_type]
    settings = {"tokenizer_class": name + "Tokenizer", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _byte_alphabet() -> Dict[int, str]:
    """Byte → the printable character that stands for it in byte-level BPE (GPT-2's table)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {byte: chr(byte) for byte in shown}
    hidden = [byte for byte in range(256) if byte not in table]
    table.update({byte: chr(256 + number) for number, byte in enumerate(hidden)})
    return table


def write_checkpoint(
    folder: Path, model_type: str, head: str = "QuestionAnswering", more_words: Iterable[str] = (), **changes: Any
) -> Path:
    """A whole checkpoint: model.safetensors, config.json and a vocabulary, to which ``more_words`` are added."""
    words = list(dict.fromkeys([*WORDPIECE, *more_words]))
    model = tiny_model(model_type, head, **({"vocab_size": len(words), **changes} if more_words else changes))
    model.save_pretrained(str(folder), safe_serialization=True)
    if not (folder / "model.safetensors").exists():  # transformers 4.6.0 writes pickles only
        from safetensors.torch import save_file

        save_file(model.state_dict(), str(folder / "model.safetensors"))
        (folder / "pytorch_model.bin").unlink()
    write_vocabulary(folder, model_type, words)
    return folder
