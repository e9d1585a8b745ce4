"""Stands in for transformers' feature-extraction pipeline: its calls, keywords, results and errors.

from neuronbert import pipeline                              # was: from transformers import pipeline
extract = pipeline("feature-extraction", model="artifact")   # a folder that `neuronbert compile` wrote
extract("I lost my card")                                    # [0.012, ...], or with --pooling none [[[...], ...]]
"""

from functools import partial
from typing import Any, Dict, List, Sequence

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, counted, positive, shown_value, yes_or_no
from neuronbert.hardware.libraries import optional_imports
from neuronbert.tasks.base import Answerer, Keywords, option_names, options_of
from neuronbert.tasks.feature_extraction.options import EmbeddingOptions, TextOptions
from neuronbert.tasks.feature_extraction.results import EMBEDDING, TOKENS, Result
from neuronbert.tasks.pipeline_calls import call_each, is_stream, iterate, known_keywords, stream_results, warn

_KINDS = (TextOptions, EmbeddingOptions)
OWN_KEYWORDS = ("batch_size", "return_tensors", "tokenize_kwargs", *option_names(_KINDS))
# Of tokenize_kwargs, those that change nothing here: rows are padded, and cut, in any case.
WITHOUT_EFFECT = ("padding", "truncation", "return_tensors")


class FeatureExtractionPipeline:
    """Gives texts their embeddings, with the calls, results and errors of the transformers pipeline.

    Keywords, here or at any call (a call's wins): return_tensors (a torch tensor in place of lists), tokenize_kwargs
    (of which max_length counts), batch_size (1: how many inputs are taken at once from a generator), and those of
    TextOptions and EmbeddingOptions. A text that is longer than a row is cut, with a warning, where transformers fails.
    """

    task = "feature-extraction"

    def __init__(self, model: Answerer, tokenizer: Any = None, **keywords: Any):
        self.model = model
        if isinstance(tokenizer, Tokenizer) and tokenizer is model.tokenizer:
            tokenizer = None
        self._keywords = _known({**keywords, "tokenizer": tokenizer})
        _Options(self._keywords)  # a wrong value is refused here, not at the first call

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the artifact."""
        return self.model.tokenizer

    def __call__(self, inputs: Any, **keywords: Any) -> Any:
        """The embeddings of one text, or of each of a list or a generator of them.

        Of an artifact compiled with ``--pooling none`` each is what transformers gives: lists [1][tokens][width]. Of
        one that pools it is a list [width], the embedding of the text.
        """
        options = _Options({**self._keywords, **_known(keywords)})
        if is_stream(inputs):
            answer = partial(self._results, options=options)
            return stream_results(iterate(inputs), options.batch_size, _listed_text, answer)
        if isinstance(inputs, (list, tuple)):
            return self._results(call_each(_listed_text, inputs), options)
        if not isinstance(inputs, str):
            raise InputError(f"{shown_value(inputs)} is no text", hint="a str, or a list of them")
        return self._results([inputs], options)[0]

    def _results(self, texts: Sequence[str], options: "_Options") -> List[Any]:
        results = self.model.answer(texts, options.text, options.embedding)
        warn_of_cuts(results)
        return [options.shaped(result) for result in results]


class _Options:
    """The checked keywords of a call, and the shape that they give a result."""

    def __init__(self, keywords: Keywords):
        own = dict(keywords)
        self.batch_size = positive("batch_size", own.pop("batch_size", None)) or 1
        self._as_tensor = yes_or_no("return_tensors", own.pop("return_tensors", False))
        self.text, self.embedding = options_of(_KINDS, {**_tokenize_keywords(own.pop("tokenize_kwargs", {})), **own})

    def shaped(self, result: Result) -> Any:
        """A result as transformers has it: with an axis of one text before the tokens, in lists or a tensor."""
        array = result[EMBEDDING] if EMBEDDING in result else result[TOKENS][None]
        if not self._as_tensor:
            return array.tolist()
        with optional_imports():
            import torch

        return torch.from_numpy(array.copy())


def warn_of_cuts(results: Sequence[Result]) -> None:
    """Warn where texts were longer than the model reads: an array cannot say so."""
    cut = sum("truncated" in result for result in results)
    if cut:
        warn(
            f"{counted(cut, 'text')} of {len(results)} did not fit a row, and the end was left out; where the artifact "
            "pools, long_texts='pooled' reads all of it"
        )


def _tokenize_keywords(given: Any) -> Dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"tokenize_kwargs is {shown_value(given)}", hint="a dictionary, such as {'max_length': 128}")
    for name in given:
        if name != "max_length" and name not in WITHOUT_EFFECT:
            warn(f"tokenize_kwargs: {name} is ignored: the artifact's tokenizer has no such keyword")
    return {name: value for name, value in given.items() if name == "max_length"}


def _known(keywords: Keywords) -> Dict[str, Any]:
    """The keywords that have an effect; warns of those that have none here."""
    known = known_keywords({**keywords, "tokenize_kwargs": None}, OWN_KEYWORDS, "feature-extraction")
    given = keywords.get("tokenize_kwargs")
    return known if given is None else {**known, "tokenize_kwargs": given}


def _listed_text(item: Any) -> str:
    if not isinstance(item, str):
        raise InputError(f"{shown_value(item)} is no text", hint="a list of str")
    return item
