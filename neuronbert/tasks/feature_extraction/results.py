"""Turns the outputs of an example's rows (inputs.py) into an embedding of its text, or of its tokens. Pure."""

from typing import Any, Dict, Optional, Sequence

import numpy as np

from neuronbert.backends.outputs import Outputs
from neuronbert.errors import UsageError
from neuronbert.tasks.base import Document
from neuronbert.tasks.feature_extraction.inputs import Example
from neuronbert.tasks.feature_extraction.modules import SentenceModules
from neuronbert.tasks.feature_extraction.options import EmbeddingOptions
from neuronbert.tasks.feature_extraction.pooling import normalized, pooled, together

Result = Dict[str, Any]  # "embedding": float32 [width], or "token_embeddings": [tokens, width]; "truncated" if it is

SENTENCE, TOKENS = "sentence_embedding", "token_embeddings"  # the outputs, as sentence-transformers calls them
EMBEDDING = "embedding"
DIGITS = 9  # of a number in JSON: with so many significant ones every float32 is read back as it was (IEEE 754)


def decode(example: Example, outputs: Sequence[Outputs], options: EmbeddingOptions) -> Result:
    """The embedding of a text, or those of its tokens, special ones included.

    A dictionary of ``embedding`` (float32 [width]) or ``token_embeddings`` ([tokens, width]), with ``truncated`` (True)
    where the text did not fit the row. UsageError for options that tokens' embeddings have not.
    """
    more = {"truncated": True} if example.truncated else {}
    refuse_of_tokens(example.modules, options)
    if not example.modules.pooling:
        return {TOKENS: outputs[0][TOKENS], **more}
    return {EMBEDDING: _finished(_of_text(example, outputs), example, options), **more}


def refuse_of_tokens(modules: SentenceModules, options: EmbeddingOptions) -> None:
    """UsageError for options that embeddings of tokens have not."""
    if not modules.pooling and (options.truncate_dim or options.normalize):
        raise UsageError(
            "truncate_dim and normalize are for one embedding of a text, and this artifact has one for each token",
            hint="compile with --pooling mean",
        )


def _of_text(example: Example, outputs: Sequence[Outputs]) -> np.ndarray:
    if example.unpooled_tokens:
        rows = [pooled(example.modules, row[TOKENS], example.unpooled_tokens) for row in outputs]
    else:
        rows = [row[SENTENCE] for row in outputs]
    if len(rows) == 1:
        return rows[0]
    return together(rows, [len(row.input_ids) for row in example.windows], example.modules)


def _finished(embedding: np.ndarray, example: Example, options: EmbeddingOptions) -> np.ndarray:
    embedding = embedding[: kept(example.modules, options)]
    return normalized(embedding) if options.normalize else embedding


def kept(modules: SentenceModules, options: EmbeddingOptions) -> Optional[int]:
    """How many numbers of an embedding are kept; None: all of them."""
    return options.truncate_dim or modules.truncate_dim


def document(result: Result, options: EmbeddingOptions) -> Document:
    """A result as a line of JSON: numbers in lists, which as float32 are those of the result."""
    return {name: _numbers(value) if isinstance(value, np.ndarray) else value for name, value in result.items()}


def _numbers(array: np.ndarray) -> Any:
    numbers = array.astype(np.float64)
    places = np.floor(np.log10(np.abs(numbers), where=numbers != 0, out=np.zeros_like(numbers)))
    powers = 10.0 ** (DIGITS - 1 - places)
    return (np.round(numbers * powers) / powers).tolist()


def result_text(result: Result) -> str:
    """The numbers, an embedding a line; and whether the text was cut."""
    array = result[EMBEDDING] if EMBEDDING in result else result[TOKENS]
    lines = [" ".join(f"{number:.{DIGITS}g}" for number in row) for row in np.atleast_2d(array).tolist()]
    return "\n".join([*lines, *(["(truncated: the text is longer than the model reads)"] if len(result) > 1 else [])])
