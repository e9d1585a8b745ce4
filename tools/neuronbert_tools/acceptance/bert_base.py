"""A checkpoint to measure speed with: the published table's model, whose weights do not matter."""

import shutil
from pathlib import Path

from neuronbert_tools.paths import DEMO


def write_bert_base(folder: Path, layers: int) -> Path:
    """A BERT-base question-answering checkpoint with random weights and the demo's vocabulary; its folder."""
    # Heavy, and a step that may fail: the others do without these libraries.
    import torch
    from safetensors.torch import save_file

    from neuronbert.checkpoint.reference_model import transformers

    config = transformers.BertConfig(num_hidden_layers=layers, architectures=["BertForQuestionAnswering"])
    torch.manual_seed(0)
    config.save_pretrained(str(folder))
    # transformers' own save_pretrained writes a pickle where it is as old as on inf1.
    weights = transformers.BertForQuestionAnswering(config).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, str(folder / "model.safetensors"))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(str(DEMO / name), str(folder / name))
    return folder
