"""Makes a small model of a large one: it has some of the layers, and learns to say what the large one says."""

import re
from typing import Any, Sequence

from neuronbert.checkpoint.families import Head, Tensor, size_of, with_size
from neuronbert.checkpoint.loading import BaseCheckpoint
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import UsageError
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert_tools.finetuning.task import Lessons

# Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531); as transformers'
# example of distilling on SQuAD weighs the two losses.
TEMPERATURE = 2.0
SHARE_OF_TEACHER = 0.5

_LAYER = re.compile(r"^(.*\.layer\.)(\d+)(\..*)$")


def with_layers(base: BaseCheckpoint, count: int) -> BaseCheckpoint:
    """The base with ``count`` of its layers, at even distances from the first to the last; UsageError for more."""
    layers = size_of(base.config, base.family, "num_hidden_layers")
    if count > layers:
        raise UsageError(f"--layers {count}: {base.source} has {layers}", hint=f"--layers from 1 to {layers}")
    kept = kept_layers(layers, count)
    tensors = {}
    for name, tensor in base.tensors.items():
        found = _LAYER.match(name)
        if found is None:
            tensors[name] = tensor
        elif int(found[2]) in kept:
            tensors[f"{found[1]}{kept.index(int(found[2]))}{found[3]}"] = tensor
    return base._replace(tensors=tensors, config=with_size(base.config, base.family, "num_hidden_layers", count))


def kept_layers(layers: int, count: int) -> Sequence[int]:
    """Which of so many layers a smaller model has; a single one is the first."""
    return [round(number * (layers - 1) / max(1, count - 1)) for number in range(count)]


class Teacher:
    """A checkpoint for the same task, whose outputs are imitated."""

    def __init__(self, source: str, head: Head, tokenizer: Tokenizer, device: str, **hub: Any):
        checkpoint = load_checkpoint(source, task=head.task, **hub)
        self.fingerprint = checkpoint.fingerprint
        self._source, self._head, self._config = source, head, checkpoint.config
        own = checkpoint.tokenizer()
        if not own.makes_rows_of(tokenizer):
            raise UsageError(
                f"{source} and the base make different rows of a text",
                hint="a --distil with the same tokenizer.json and padding_side",
            )
        self._model = checkpoint.torch_model().to(device)

    def refuse_other_labels(self, lessons: Lessons) -> None:
        """UsageError for a teacher of other labels than those that are learnt."""
        own, other = (config.get("id2label") for config in (self._config, lessons.base.config))
        if own != other and self._head.labels is None:
            raise UsageError(
                f"{self._source} tells other labels apart than the data", hint="a --distil with the data's labels"
            )

    def loss(self, lessons: Lessons, inputs: Sequence[Tensor], outputs: Sequence[Tensor], targets: Tensor) -> Tensor:
        """That of the lessons and that of imitating the teacher, in equal shares."""
        import torch

        with torch.no_grad():
            taught = self._model(*inputs)
        hard, soft = lessons.loss(outputs, inputs[1], targets), lessons.imitation(outputs, taught, inputs[1])
        return (1 - SHARE_OF_TEACHER) * hard + SHARE_OF_TEACHER * soft


def softened(logits: Tensor, taught: Tensor) -> Tensor:
    """Mean over the rows of how far one distribution of the last axis is from the other, both at TEMPERATURE."""
    from torch.nn.functional import kl_div, log_softmax

    own, other = (log_softmax(values.float() / TEMPERATURE, dim=-1) for values in (logits, taught))
    return kl_div(own, other, reduction="batchmean", log_target=True) * TEMPERATURE**2
