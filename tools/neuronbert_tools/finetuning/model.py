"""The model that is trained: a base checkpoint's encoder under the head of a task (task.py)."""

from typing import Any, Dict, List

import numpy as np

from neuronbert.checkpoint.families import Head, label_count, size_of
from neuronbert.checkpoint.loading import BaseCheckpoint
from neuronbert.checkpoint.tokenizer_files import uses_token_types
from neuronbert_tools.finetuning.options import TrainingOptions

WEIGHT_DECAY = 0.01  # with trainer.MAX_GRADIENT_NORM, of the BERT paper (arXiv 1810.04805, appendix A.2)


def build_model(base: BaseCheckpoint, head: Head, options: TrainingOptions) -> Any:
    """The base's weights in a model with ``head``; what they lack of the head is drawn from the seed."""
    from neuronbert.checkpoint.reference_model import build_reference_model

    arrays = {name: tensor.float32() for name, tensor in base.tensors.items()}
    arrays.update(_drawn(base, head, options.seed))
    types = base.family.has_token_types and uses_token_types(base.tokenizer)
    model = build_reference_model(base.family, head, base.config, arrays, types)
    if base.family.model_type == "electra" and "electra.embeddings_project.weight" in arrays:
        # Under autocast this projection gives bfloat16, which the norms of torch 1.13 do not take.
        model.model.electra.embeddings_project.register_forward_hook(lambda _module, _inputs, output: output.float())
    if options.freeze_embeddings:
        for name, parameter in model.named_parameters():
            if ".embeddings." in name:
                parameter.requires_grad_(False)
    return model


def _drawn(base: BaseCheckpoint, head: Head, seed: int) -> Dict[str, np.ndarray]:
    """The head's weights that the base does not have: normal, as transformers initialises them, and biases of 0."""
    width = size_of(base.config, base.family, "hidden_size")
    spread = float(base.config.get("initializer_range") or 0.02)
    random = np.random.default_rng(seed)
    return {
        name: np.zeros(shape, np.float32)
        if name.endswith(".bias")
        else random.normal(0.0, spread, shape).astype(np.float32)
        for name, shape in head.shapes(base.family, width, label_count(base.config, head)).items()
        if name not in base.tensors
    }


def parameter_groups(model: Any) -> List[Dict[str, Any]]:
    """Weight decay for the matrices, none for biases and norms."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [
        {"params": [p for _, p in trained if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for _, p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
