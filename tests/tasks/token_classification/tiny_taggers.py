"""Tiny random taggers of every served family, what they answer without an engine, and texts to ask them."""

from pathlib import Path
from random import Random
from typing import Any, List, Sequence

import numpy as np
from tiny_checkpoints import write_checkpoint

from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.tasks.checkpoints import load_checkpoint
from neuronbert.tasks.token_classification.windows import Example

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WORDS = (
    "the", "who", "was", "puppet", "a", "nice", "jim", "henson", "sings", "walking", "é", "中国", "?", ".", ",", "'",
    "The", "Jim-Henson", "café", "naïve", "Straße", "🙂", "xylophone", "(x)", "don't", "[SEP]", "<s>", "İ", "\u200b",
)  # fmt: skip


def write_tagger(folder: Path, family: str, **changes: Any) -> Path:
    """A checkpoint with LABELS."""
    numbers = {label: number for number, label in enumerate(LABELS)}
    return write_checkpoint(
        folder, family, "TokenClassification", id2label=dict(enumerate(LABELS)), label2id=numbers, **changes
    )


class Tagger:
    """A checkpoint as its FP32 model and its tokenizer, asked row by row."""

    def __init__(self, folder: Path):
        checkpoint = load_checkpoint(str(folder))
        files = checkpoint.tokenizer_files()
        self.tokenizer = Tokenizer.from_bytes(
            files["tokenizer.json"], files["tokenizer_config.json"], checkpoint.config
        )
        self._model = checkpoint.torch_model()

    def outputs(self, example: Example) -> List[Outputs]:
        """The logits of each window."""
        import torch

        found = []
        for window in example.windows:
            ids, types = (torch.from_numpy(array)[None] for array in (window.input_ids, window.token_type_ids))
            with torch.inference_mode():
                (logits,) = self._model(ids, torch.ones_like(ids), types)
            found.append({"logits": logits[0].numpy()})
        return found


def random_text(random: Random, words: int) -> str:
    """Words in any order, with any white space between them, or none."""
    return "".join(random.choice(WORDS) + random.choice((" ", " ", " ", "  ", "", "\n")) for _ in range(words))


def logits_of(example: Example, numbers: Sequence[int], size: float = 6.0) -> List[Outputs]:
    """Logits that say the labels of these numbers, one for each token of the text."""
    found = []
    for window in example.windows:
        logits = np.zeros((len(window.input_ids), len(example.vocabulary.labels)), dtype=np.float32)
        for place in range(window.token_count):
            logits[window.text_start + place, numbers[window.first_token + place]] = size
        found.append({"logits": logits})
    return found
