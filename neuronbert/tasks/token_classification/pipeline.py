"""Stands in for transformers' TokenClassificationPipeline: its calls, keywords, results and errors.

from neuronbert import pipeline                                   # was: from transformers import pipeline
ner = pipeline("token-classification", model="ner-artifact")      # a folder that `neuronbert compile` wrote
ner("Jim Henson was from Greenville", aggregation_strategy="simple")
"""

from functools import partial
from typing import Any, Dict, List, Tuple

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, positive, yes_or_no
from neuronbert.tasks.base import Answerer, Keywords, option_names, options_of
from neuronbert.tasks.pipeline_calls import call_each, is_stream, iterate, known_keywords, stream_results, warn
from neuronbert.tasks.token_classification.entities import Entity
from neuronbert.tasks.token_classification.options import EntityOptions, StrideOptions
from neuronbert.tasks.token_classification.windows import TextInput

KINDS = (StrideOptions, EntityOptions)
OPTIONS = option_names(KINDS)
OWN = ("batch_size", "is_split_into_words")
DEPRECATED = ("grouped_entities", "ignore_subwords")


class TokenClassificationPipeline:
    """Finds entities in texts, with the calls, results and errors of the transformers pipeline of this name.

    Keywords, here or at any call (a call's wins; None is the default): aggregation_strategy ("none"), ignore_labels
    (["O"]), stride, is_split_into_words (False), delimiter (" ") and batch_size (1: how many texts are taken at once
    from a generator), and a new one, max_length; see StrideOptions and EntityOptions. ``grouped_entities`` and
    ``ignore_subwords``, which transformers had before 5.0, choose a strategy as they did there.

    A text that is longer than a row is read to its end, in rows that overlap; transformers cuts it off unless it is
    given ``stride``.
    """

    task = "token-classification"

    def __init__(self, model: Answerer, tokenizer: Any = None, **keywords: Any):
        self.model = model
        if isinstance(tokenizer, Tokenizer) and tokenizer is model.tokenizer:
            tokenizer = None
        self._keywords = _known({**keywords, "tokenizer": tokenizer})
        _CallOptions(self._keywords)  # a wrong value is refused here, not at the first call

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the artifact."""
        return self.model.tokenizer

    def __call__(self, inputs: Any, **keywords: Any) -> Any:
        """The entities of one or many texts.

        ner(TEXT), ner([TEXT, ...]), or ner(GENERATOR) of texts, read lazily. With is_split_into_words a text is a list
        of its words.

        One text gives its list of entities, several give a list of such lists, a generator gives a generator. An entity
        is a dictionary of word, score, start and end (characters of the text), with ``entity`` and ``index`` for a
        token, and with ``entity_group`` where tokens are joined.
        """
        options = _CallOptions({**self._keywords, **_known(keywords)})
        read = partial(_text, split=options.split)
        if is_stream(inputs):
            return stream_results(iterate(inputs), options.batch_size, read, partial(self._answer, options=options))
        if not isinstance(inputs, (str, list, tuple)) or (not isinstance(inputs, str) and not inputs):
            raise InputError("At least one input is required.", hint="a text, or a list of texts")
        if options.split and not all(isinstance(item, list) for item in inputs):
            inputs = [list(inputs)] if isinstance(inputs, tuple) else [inputs]
        if isinstance(inputs, str):
            return self._answer([read(inputs)], options)[0]
        return self._answer(call_each(read, inputs) if len(inputs) > 1 else [read(inputs[0])], options)

    def _answer(self, texts: List[TextInput], options: "_CallOptions") -> List[List[Entity]]:
        return self.model.answer(texts, *options.kinds)


class _CallOptions:
    """The options of one call."""

    def __init__(self, keywords: Keywords):
        others = {name: value for name, value in keywords.items() if name not in OWN}
        self.kinds: Tuple[StrideOptions, EntityOptions] = options_of(KINDS, others)
        self.batch_size = positive("batch_size", keywords.get("batch_size")) or 1
        self.split = yes_or_no("is_split_into_words", keywords.get("is_split_into_words", False))


def _text(item: Any, split: bool) -> TextInput:
    """A text, or its words; InputError with the text of transformers' own error for the other of the two."""
    if split and not isinstance(item, list):
        raise InputError(
            "When `is_split_into_words=True`, `sentence` must be a list of tokens.", hint='["Jim", "Henson"]'
        )
    if not split and not isinstance(item, str):
        raise InputError(
            "When `is_split_into_words=False`, `sentence` must be an untokenized string.", hint='"Jim Henson"'
        )
    return tuple(item) if split else str(item)


def _known(keywords: Keywords) -> Dict[str, Any]:
    """The keywords that have a value and an effect; warns of those that have no effect here."""
    current = {name: value for name, value in keywords.items() if name not in DEPRECATED}
    return {**known_keywords(current, (*OPTIONS, *OWN), "token-classification"), **_of_deprecated(keywords)}


def _of_deprecated(keywords: Keywords) -> Dict[str, Any]:
    """The strategy that transformers < 5 made of its two older keywords, which it preferred to the newer one."""
    grouped, ignore_subwords = keywords.get("grouped_entities"), keywords.get("ignore_subwords")
    if grouped is None and ignore_subwords is None:
        return {}
    strategy = ("first" if ignore_subwords else "simple") if grouped else "none"
    for name in DEPRECATED:
        if keywords.get(name) is not None:
            warn(f'`{name}` is deprecated, `aggregation_strategy="{strategy}"` is what it means here')
    return {"aggregation_strategy": strategy}
