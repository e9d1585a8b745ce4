"""Stands in for sentence-transformers' SentenceTransformer: texts to embeddings, and how alike those are.

from neuronbert import SentenceEncoder               # was: from sentence_transformers import SentenceTransformer
model = SentenceEncoder("artifact")                  # a folder that `neuronbert compile` wrote
model.similarity(*model.encode(["I lost my card", "my card is gone"])[:, None])
"""

from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import UsageError, count_of, shown_value, yes_or_no
from neuronbert.hardware.libraries import optional_imports
from neuronbert.tasks.base import Answerer
from neuronbert.tasks.feature_extraction.inputs import modules_for, text_limit
from neuronbert.tasks.feature_extraction.modules import SIMILARITIES, hidden_size
from neuronbert.tasks.feature_extraction.options import CUT, EmbeddingOptions, TextOptions
from neuronbert.tasks.feature_extraction.pipeline import warn_of_cuts
from neuronbert.tasks.feature_extraction.results import EMBEDDING, SENTENCE, TOKENS
from neuronbert.tasks.feature_extraction.similarity import pair_similarities, similarities

Texts = Union[str, Sequence[str], np.ndarray]
Embeddings = Any  # a numpy array, lists, or a torch tensor
QUERY, DOCUMENTS = "query", ("document", "passage", "corpus")  # names of prompts


class SentenceEncoder:
    """Embeddings of texts by a compiled sentence encoder, called as a SentenceTransformer is.

    ``truncate_dim`` keeps only the first numbers of every embedding; ``similarity_fn_name`` is "cosine", "dot",
    "euclidean" or "manhattan". Without them they are what the checkpoint says. ``device`` changes nothing: the
    artifact's variant decides.
    """

    task = "feature-extraction"

    def __init__(
        self,
        model: Answerer,
        *,
        truncate_dim: Optional[int] = None,
        similarity_fn_name: Optional[str] = None,
        device: Optional[str] = None,
    ):
        self.model = model
        self._modules = modules_for(model.tokenizer)
        self.truncate_dim = EmbeddingOptions(truncate_dim).truncate_dim or self._modules.truncate_dim
        self.similarity_fn_name = similarity_fn_name or self._modules.similarity
        if self.similarity_fn_name not in SIMILARITIES:
            raise UsageError(
                f"there is no similarity {shown_value(similarity_fn_name)}", hint=f"one of {', '.join(SIMILARITIES)}"
            )

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the artifact."""
        return self.model.tokenizer

    @property
    def prompts(self) -> Dict[str, str]:
        """The checkpoint's prompts by name."""
        return dict(self._modules.prompts)

    @property
    def default_prompt_name(self) -> Optional[str]:
        """The name of the prompt that is used where none is asked for."""
        return self._modules.default_prompt

    @property
    def max_seq_length(self) -> int:
        """Tokens of a text that are read, special ones included."""
        return text_limit(self.tokenizer, TextOptions())

    def get_sentence_embedding_dimension(self) -> int:
        """Numbers in an embedding."""
        width = self._modules.width(hidden_size(self.tokenizer.config))
        return min(width, self.truncate_dim or width)

    get_embedding_dimension = get_sentence_embedding_dimension

    def encode(
        self,
        sentences: Texts,
        prompt_name: Optional[str] = None,
        prompt: Optional[str] = None,
        batch_size: int = 32,
        show_progress_bar: Optional[bool] = None,
        output_value: str = SENTENCE,
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Optional[str] = None,
        normalize_embeddings: bool = False,
        truncate_dim: Optional[int] = None,
        *,
        long_texts: str = CUT,
        max_length: Optional[int] = None,
    ) -> Any:
        """The embeddings of a list of texts, float32 [texts, width], or of one text, [width].

        prompt_name, prompt: what is put before each text (a prompt wins over a name). normalize_embeddings: make their
        length 1, after ``truncate_dim`` cut them. output_value: "token_embeddings" gives a list of [tokens, width], of
        an artifact compiled with ``--pooling none``. convert_to_tensor: a torch tensor; convert_to_numpy=False: a list
        of them. batch_size, show_progress_bar and device change nothing: the artifact's variant decides.

        long_texts: of a text longer than ``max_seq_length``, "cut" leaves out the end, with a warning; "pooled" embeds
        all of it in parts. max_length: tokens of a part. InputError for what is no text; UsageError for options that
        the artifact does not serve.
        """
        count_of("batch_size", batch_size)
        self._refuse_other_outputs(output_value, precision)
        texts, alone = _as_list(sentences)
        text_options = TextOptions(max_length, long_texts, prompt_name if prompt is None else None, prompt)
        if output_value == TOKENS:
            embedding_options = EmbeddingOptions()
        else:
            width = self.truncate_dim if truncate_dim is None else truncate_dim
            embedding_options = EmbeddingOptions(width, normalize_embeddings)
        results = self.model.answer(texts, text_options, embedding_options)
        warn_of_cuts(results)
        arrays = [result[EMBEDDING if output_value == SENTENCE else TOKENS] for result in results]
        as_tensor = yes_or_no("convert_to_tensor", convert_to_tensor)
        if as_tensor or not yes_or_no("convert_to_numpy", convert_to_numpy):
            return _tensors(arrays, alone, stacked=as_tensor and output_value == SENTENCE)
        if alone:
            return np.array(arrays[0])
        if output_value == TOKENS:
            return arrays
        return np.stack(arrays) if arrays else np.array([], dtype=np.float32)

    def encode_query(
        self,
        sentences: Texts,
        prompt_name: Optional[str] = None,
        prompt: Optional[str] = None,
        *more: Any,
        **keywords: Any,
    ) -> Any:
        """As ``encode``, with the checkpoint's prompt called "query" if it has one and none is asked for."""
        return self.encode(sentences, self._named((QUERY,), prompt_name, prompt), prompt, *more, **keywords)

    def encode_document(
        self,
        sentences: Texts,
        prompt_name: Optional[str] = None,
        prompt: Optional[str] = None,
        *more: Any,
        **keywords: Any,
    ) -> Any:
        """As ``encode``, with the checkpoint's prompt called "document", "passage" or "corpus", as ``encode_query``."""
        return self.encode(sentences, self._named(DOCUMENTS, prompt_name, prompt), prompt, *more, **keywords)

    def _named(self, names: Sequence[str], prompt_name: Optional[str], prompt: Optional[str]) -> Optional[str]:
        """The name of the prompt: the one asked for, else the first of ``names`` that the checkpoint has."""
        if prompt_name is not None or prompt is not None:
            return prompt_name
        return next((name for name in names if name in self._modules.prompts), None)

    def similarity(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Any:
        """Every embedding of the first with every one of the second: float32 [n, m].

        By ``similarity_fn_name``; a distance counts below zero. A torch tensor where one of the two is one. UsageError
        for embeddings of different widths.
        """
        a, b = (_array(each) for each in (embeddings1, embeddings2))
        a, b = (each if not each.size else np.atleast_2d(each) for each in (a, b))
        if not (a.size and b.size):
            return _like((embeddings1, embeddings2), np.zeros((len(a), len(b)), np.float32))
        _refuse_unlike(a.shape[-1:], b.shape[-1:])
        return _like((embeddings1, embeddings2), similarities(self.similarity_fn_name, a, b))

    def similarity_pairwise(self, embeddings1: Embeddings, embeddings2: Embeddings) -> Any:
        """Each embedding of the first with the one of the second in the same place: float32 [n]; else as above."""
        a, b = _array(embeddings1), _array(embeddings2)
        if not (a.size or b.size):
            return _like((embeddings1, embeddings2), np.zeros(0, np.float32))
        _refuse_unlike(a.shape, b.shape)
        return _like((embeddings1, embeddings2), np.asarray(pair_similarities(self.similarity_fn_name, a, b)))

    def _refuse_other_outputs(self, output_value: str, precision: str) -> None:
        if precision != "float32":
            raise UsageError(f"embeddings are float32, not {shown_value(precision)}", hint="quantise them afterwards")
        if output_value not in (SENTENCE, TOKENS):
            raise UsageError(f"there is no output {shown_value(output_value)}", hint=f"{SENTENCE} or {TOKENS}")
        if output_value == TOKENS and self._modules.pooling:
            raise UsageError(
                "this artifact gives one embedding of a text, and none of its tokens",
                hint="compile the checkpoint with --pooling none beside it",
            )
        if output_value == SENTENCE and not self._modules.pooling:
            raise UsageError(
                "this artifact gives an embedding of each token, and none of a text",
                hint=f"output_value={TOKENS!r}, or compile the checkpoint with --pooling mean",
            )


def _as_list(sentences: Texts) -> Tuple[List[Any], bool]:
    """The texts, and whether it was one alone."""
    if isinstance(sentences, (list, tuple)):
        return list(sentences), False
    if isinstance(sentences, np.ndarray):
        return (sentences.tolist(), False) if sentences.ndim else ([sentences.item()], True)
    if not isinstance(sentences, str) and hasattr(sentences, "__iter__"):
        return list(sentences), False
    return [sentences], True


def _tensors(arrays: Sequence[np.ndarray], alone: bool, stacked: bool) -> Any:
    with optional_imports():
        import torch

    if alone:
        return torch.from_numpy(np.array(arrays[0]))
    if stacked:
        return torch.from_numpy(np.stack(arrays)) if arrays else torch.tensor([])
    return [torch.from_numpy(np.array(array)) for array in arrays]


def _array(embeddings: Embeddings) -> np.ndarray:
    if isinstance(embeddings, (list, tuple)) and len(embeddings) and hasattr(embeddings[0], "detach"):
        return np.stack([_array(each) for each in embeddings])
    # numpy has no bfloat16.
    return np.asarray(embeddings.detach().float().cpu() if hasattr(embeddings, "detach") else embeddings, np.float32)


def _refuse_unlike(a: Tuple[int, ...], b: Tuple[int, ...]) -> None:
    if a != b:
        raise UsageError(
            f"embeddings of shape {list(a)} and {list(b)} cannot be compared",
            hint="those of one encoder, as encode gives",
        )


def _like(given: Sequence[Embeddings], array: np.ndarray) -> Any:
    if not any(hasattr(each[0] if isinstance(each, (list, tuple)) and each else each, "detach") for each in given):
        return array
    with optional_imports():
        import torch

    return torch.from_numpy(array)
