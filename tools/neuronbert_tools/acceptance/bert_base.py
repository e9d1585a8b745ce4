"""Checkpoints to measure speed with: models of published tables, whose weights do not matter."""

import shutil
from pathlib import Path

from neuronbert_tools.paths import DEMO
from neuronbert_tools.random_weights import told_apart

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def write_bert_base(folder: Path, layers: int) -> Path:
    """A BERT-base question-answering checkpoint with random weights and the demo's vocabulary; its folder."""
    return write_bert(folder, num_hidden_layers=layers)


def write_bert(folder: Path, **sizes: int) -> Path:
    """The same with other ``sizes`` than BERT-base's, by the names of config.json."""
    # Heavy, and a step that may fail: the others do without these libraries.
    import torch
    from safetensors.torch import save_file

    from neuronbert.checkpoint.reference_model import transformers

    config = transformers.BertConfig(**sizes, architectures=["BertForQuestionAnswering"])
    torch.manual_seed(0)
    config.save_pretrained(str(folder))
    # transformers' own save_pretrained writes a pickle where it is as old as on inf1.
    weights = told_apart(transformers.BertForQuestionAnswering(config)).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, str(folder / "model.safetensors"))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(str(DEMO / name), str(folder / name))
    return folder
