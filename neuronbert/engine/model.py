"""The model's own interface over an artifact: token ids in, logits out, with neither windows nor answers."""

import json
from typing import Any, Mapping, NamedTuple, Optional, Union

import numpy as np

from neuronbert.artifact.manifest import Artifact, PathLike
from neuronbert.backends import Batch
from neuronbert.engine.engine import Engine
from neuronbert.errors import InputError


class QuestionAnsweringOutput(NamedTuple):
    """Logits of each token as float32 [rows, tokens], as long as the input was."""

    start_logits: Any
    end_logits: Any


class NeuronBertForQuestionAnswering:
    """A compiled model called as the transformers class is: ``model(input_ids, attention_mask, token_type_ids)``."""

    def __init__(self, engine: Engine):
        self.engine = engine
        self.config = json.loads((engine.artifact.folder / "config.json").read_text())

    @classmethod
    def from_pretrained(
        cls, artifact: Union[Artifact, PathLike], *, variant: Optional[str] = None, threads: Optional[int] = None
    ) -> "NeuronBertForQuestionAnswering":
        """Load an artifact that compile wrote, verified and self-tested."""
        return cls(Engine(artifact, variant=variant, threads=threads, streams=1))

    def __call__(
        self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None
    ) -> QuestionAnsweringOutput:
        """Logits for int [rows, tokens] ids (numpy, lists or torch tensors; torch in, torch out).

        Without a mask every token counts; without token types all are 0. Raises InputError for shapes that differ.
        """
        batch = encoded_batch(input_ids, attention_mask, token_type_ids)
        refuse_foreign_tokens(batch, self.config, self.engine.tokenizer.max_length)
        logits = self.engine.session.run(batch)
        return QuestionAnsweringOutput(*(_like(input_ids, side) for side in logits))

    def close(self) -> None:
        """Release the loaded model."""
        self.engine.close()

    def __enter__(self) -> "NeuronBertForQuestionAnswering":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def encoded_batch(input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None) -> Batch:
    """A Batch of what the caller tokenised, int [rows, tokens] each; InputError for shapes that differ.

    Without a mask every token counts; without token types all are 0.
    """
    ids = _matrix("input_ids", input_ids)
    mask = np.ones_like(ids) if attention_mask is None else _matrix("attention_mask", attention_mask)
    types = np.zeros_like(ids) if token_type_ids is None else _matrix("token_type_ids", token_type_ids)
    if not ids.shape == mask.shape == types.shape:
        raise InputError(
            f"input_ids {ids.shape}, attention_mask {mask.shape} and token_type_ids {types.shape} differ in shape",
            hint="pad all three to one [rows, tokens]",
        )
    return Batch(ids, mask, types)


def refuse_foreign_tokens(batch: Batch, config: Mapping[str, Any], longest: Optional[int]) -> None:
    """InputError for what no tokenizer of the checkpoint gives: an engine would answer it with numbers."""
    _in_range("input_ids", batch.input_ids, int(config["vocab_size"]))
    _in_range("attention_mask", batch.attention_mask, 2)
    _in_range("token_type_ids", batch.token_type_ids, max(1, int(config.get("type_vocab_size", 1))))
    tokens = batch.input_ids.shape[1]
    if longest is not None and tokens > longest:
        raise InputError(
            f"{tokens} tokens are more than the {longest} that this artifact takes",
            hint="cut the text into windows, as pipeline() does",
        )


def _in_range(name: str, array: np.ndarray, count: int) -> None:
    if array.min() < 0 or array.max() >= count:
        wrong = array[(array < 0) | (array >= count)]
        raise InputError(
            f"{name} holds {wrong[0]}, and this model has 0 to {count - 1}", hint="the checkpoint's tokenizer"
        )


def _matrix(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except ValueError:
        raise InputError(
            f"the rows of {name} differ in length", hint="pad them: tokenizer(..., padding=True)"
        ) from None
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "iub":
        raise InputError(
            f"{name} must be whole numbers of shape [rows, tokens], not {array.dtype} of shape {array.shape}",
            hint="tokenizer(..., return_tensors='np'), or add the batch dimension: ids[None, :]",
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def _like(given: Any, array: np.ndarray) -> Any:
    if not hasattr(given, "detach"):
        return array
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))
