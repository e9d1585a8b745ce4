"""Tiny random models of every family, as the compiler hands them to a backend; shared by the tests of this folder."""

from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import Outputs, named
from neuronbert.checkpoint.families import FAMILIES, Family
from neuronbert.tasks.question_answering import task as question_answering

# Small enough that exporting one takes seconds; 80 positions, so that longer rows fail.
SIZES: Dict[str, int] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 80,
}
DISTILBERT_SIZES = {
    "vocab_size": 120, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 80,
}  # fmt: skip


class TinySource:
    """An ExportSource with random weights, large enough that logits differ by more than rounding.

    ``task`` is a task's module, ``changes`` are for its config.
    """

    def __init__(
        self,
        model_type: str = "bert",
        task: Any = question_answering,
        uses_token_types: Optional[bool] = None,
        **changes: Any,
    ):
        self.family: Family = FAMILIES[model_type]
        self.head = task.HEAD
        self.config: Dict[str, Any] = {
            "model_type": model_type,
            **(DISTILBERT_SIZES if model_type == "distilbert" else SIZES),
        }
        if model_type == "electra":
            self.config["embedding_size"] = 16
        self.config.update(changes)
        self.outputs = tuple(task.outputs(self.config))
        names = ("input_ids", "attention_mask", "token_type_ids")
        self._uses_token_types = self.family.has_token_types if uses_token_types is None else uses_token_types
        self.input_names: Tuple[str, ...] = names if self._uses_token_types else names[:2]
        self._model = self._build()

    def _build(self) -> Any:
        import torch

        from neuronbert.checkpoint.reference_model import ReferenceModel, new_transformers_model

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = new_transformers_model(self.family, self.head, self.config).eval()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(torch.randn_like(parameter) * 0.25 + (1.0 if "orm.weight" in name else 0.0))
        return ReferenceModel(model, self.family.prefix, self.head, self._uses_token_types).eval()

    def torch_model(self) -> Any:
        return self._model

    def progress(self, line: str) -> None:
        """Not shown."""

    def on_step(self, what: str, done: int, total: int) -> None:
        pass

    def calibration(self) -> List[Batch]:
        return [random_batch(1, tokens, seed=tokens) for tokens in range(5, 45)]

    def logits(self, batch: Batch) -> Outputs:
        """What torch says."""
        import torch

        with torch.no_grad():
            found = self._model(*[torch.from_numpy(batch._asdict()[name]) for name in self.input_names])
        return named(self.outputs, [array.numpy() for array in found])


def random_batch(rows: int, tokens: int, seed: int = 0, padding: int = 0) -> Batch:
    """Random ids; row r ends in ``r * padding`` tokens of padding (id 1, RoBERTa's)."""
    random = np.random.default_rng(seed)
    ids = random.integers(5, SIZES["vocab_size"], size=(rows, tokens))
    mask = np.ones((rows, tokens), dtype=np.int64)
    for row in range(rows):
        length = tokens - row * padding
        mask[row, length:] = 0
        ids[row, length:] = 1
    types = (np.arange(tokens)[None, :] >= tokens // 3).astype(np.int64) * mask
    return Batch(ids, mask, types)


def difference(actual: Outputs, expected: Outputs, mask: np.ndarray) -> float:
    """The largest difference over real tokens, as a share of the spread of the expected logits."""
    kept = mask.astype(bool)
    spread = max(float(np.ptp(side[kept])) for side in expected.values())
    return max(float(np.abs(actual[name] - expected[name])[kept].max()) for name in expected) / spread
