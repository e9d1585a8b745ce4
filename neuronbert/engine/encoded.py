"""Checks batches that the caller tokenised, for model.py: arrays of one shape, with ids that the model has."""

from typing import Any, Optional

import numpy as np

from neuronbert.backends.base import Batch
from neuronbert.checkpoint.families import Config, family_like, size_of
from neuronbert.errors import InputError

ArrayLike = Any  # a numpy array, lists, or a torch tensor

LARGEST_ID = np.iinfo(np.int64).max  # a larger one would become negative


def encoded_batch(input_ids: ArrayLike, attention_mask: ArrayLike = None, token_type_ids: ArrayLike = None) -> Batch:
    """A Batch of what the caller tokenised, int64 [rows, tokens] each; InputError for shapes that differ.

    It shares no memory with what was given: the runner's batches wait, and the caller may fill its arrays anew.
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


def refuse_foreign_tokens(batch: Batch, config: Config, longest: Optional[int]) -> None:
    """InputError for ids that the checkpoint's tokenizer never gives: an engine would compute something from them."""
    family = family_like(config)
    _in_range("input_ids", batch.input_ids, size_of(config, family, "vocab_size"))
    _in_range("attention_mask", batch.attention_mask, 2)
    _in_range("token_type_ids", batch.token_type_ids, max(1, size_of(config, family, "type_vocab_size")))
    tokens = batch.input_ids.shape[1]
    if longest is not None and tokens > longest:
        raise InputError(
            f"{tokens} tokens are more than the {longest} that this artifact takes",
            hint="cut the text into windows, as pipeline() does",
        )


def _in_range(name: str, array: np.ndarray, count: int) -> None:
    if array.view(np.uint64).max() >= count:  # one look for both ends: without its sign a negative number is large
        wrong = array[(array < 0) | (array >= count)]
        raise InputError(
            f"{name} holds {wrong[0]}, and this model has 0 to {count - 1}", hint="the checkpoint's tokenizer"
        )


def _ragged(name: str) -> InputError:
    return InputError(f"the rows of {name} differ in length", hint="pad them: tokenizer(..., padding=True)")


def _matrix(name: str, value: ArrayLike) -> np.ndarray:
    # numpy before 1.24 makes an array of lists of them, and warns.
    if isinstance(value, (list, tuple)) and len({len(row) for row in value if isinstance(row, (list, tuple))}) > 1:
        raise _ragged(name)
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except ValueError:
        raise _ragged(name) from None
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "iub":
        raise InputError(
            f"{name} must be whole numbers of shape [rows, tokens], not {array.dtype} of shape {array.shape}",
            hint="tokenizer(..., return_tensors='np'), or add the batch dimension: ids[None, :]",
        )
    # As whole numbers of Python's: numpy before 2 would compare the two as floats, which round.
    if array.dtype.kind == "u" and int(array.max()) > LARGEST_ID:
        raise InputError(f"{name} holds {array.max()}, more than any model has", hint="the checkpoint's tokenizer")
    return np.array(array, dtype=np.int64, order="C")
