"""Stands in for transformers' text-classification pipeline: its calls, keywords, results and errors.

from neuronbert import pipeline                                   # was: from transformers import pipeline
classify = pipeline("text-classification", model="artifact")      # a folder that `neuronbert compile` wrote
classify("I lost my card")                                        # [{"label": "lost_or_stolen_card", "score": 0.98}]
"""

from functools import partial
from typing import Any, Dict, List, Mapping, Optional, Sequence

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import LARGEST_COUNT, InputError, positive, shown_value
from neuronbert.tasks.base import Answerer, Keywords
from neuronbert.tasks.labels import label_names
from neuronbert.tasks.pipeline_calls import call_each, is_stream, iterate, known_keywords, stream_results, warn
from neuronbert.tasks.rows import TextPair, check_text
from neuronbert.tasks.text_classification.inputs import Asked, Ranking
from neuronbert.tasks.text_classification.options import FUNCTIONS, LabelOptions, RowOptions
from neuronbert.tasks.text_classification.results import Result

OWN_KEYWORDS = ("batch_size", "function_to_apply", "max_length", "return_all_scores")
EVERY_LABEL = LARGEST_COUNT
NO_TOP_K = ""  # transformers' own
OTHER_TRUNCATION = ("only_first", "only_second")  # what no text is cut by here


class TextClassificationPipeline:
    """Labels texts and pairs of texts, with the calls, results and errors of the transformers pipeline.

    Keywords, here or at any call (a call's wins): top_k (1; None: every label), function_to_apply ("softmax",
    "sigmoid", "none"; without it by the checkpoint's problem_type and number of labels), max_length (tokens of a row),
    batch_size (1: how many inputs are taken at once from a generator). A text that is longer than a row is cut where
    transformers fails, or cuts it without a word with ``truncation=True``: its labels have ``truncated`` (True).
    """

    task = "text-classification"

    def __init__(self, model: Answerer, tokenizer: Any = None, **keywords: Any):
        self.model = model
        if isinstance(tokenizer, Tokenizer) and tokenizer is model.tokenizer:
            tokenizer = None
        self._keywords = _known({**keywords, "tokenizer": tokenizer})
        self._options({})  # a wrong value is refused here, not at the first call

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the artifact."""
        return self.model.tokenizer

    def __call__(self, inputs: Any, **keywords: Any) -> Any:
        """The labels of one or many texts.

        classify("text"), classify({"text": ..., "text_pair": ...}), a list of either, or a generator of them.

        As in transformers: a list gives a list with {"label", "score"} for each; so does one text, while a dictionary
        gives its label alone, and a generator a generator. With ``top_k`` each result is a list of labels, best first,
        and that of one text the list itself.
        """
        options = self._options(keywords)
        if is_stream(inputs):
            return stream_results(iterate(inputs), options.batch_size, _input, partial(self._results, options=options))
        if isinstance(inputs, list):
            return self._results(call_each(_input, inputs), options)
        (result,) = self._results([_input(inputs)], options)
        # transformers looks at the call's own keywords only.
        return [result] if isinstance(inputs, str) and "top_k" not in keywords else result

    def rank(self, query: str, texts: Sequence[str], *, top_k: Optional[int] = None, return_texts: bool = False) -> Any:
        """The texts by how well they fit the query, best first: a list of {"index", "score"}, and "text" if asked for.

        For cross-encoders, whose checkpoint gives one score.
        """
        if isinstance(texts, str):
            raise InputError(f"the texts are one text, {shown_value(texts)}", hint="a list of texts")
        options = self._options({})
        decode = LabelOptions(top_k, options.decode.function_to_apply, return_texts)
        (result,) = self.model.answer([Ranking(query, tuple(texts))], options.encode, decode)
        return result

    def _options(self, keywords: Keywords) -> "_Options":
        return _Options({**self._keywords, **_known(keywords)}, self.tokenizer.config)

    def _results(self, asked: Sequence[Asked], options: "_Options") -> List[Any]:
        return [options.shaped(result) for result in self.model.answer(asked, options.encode, options.decode)]


class _Options:
    """The checked keywords of a call, and the shape that they give a result."""

    def __init__(self, keywords: Keywords, config: Mapping[str, Any]):
        self.batch_size = positive("batch_size", keywords.get("batch_size")) or 1
        # transformers lets what is no whole number pass, as NO_TOP_K.
        self.is_listed = "top_k" in keywords and isinstance(keywords["top_k"], (int, type(None)))
        # The way before top_k: every label, in the order of the checkpoint's labels.
        self.is_unsorted = not self.is_listed and bool(keywords.get("return_all_scores"))
        self._places = {label: number for number, label in enumerate(label_names(config))} if self.is_unsorted else {}
        top_k = keywords.get("top_k") if self.is_listed else (None if self.is_unsorted else 1)
        function = keywords.get("function_to_apply", FUNCTIONS[0])
        self.encode = RowOptions(keywords.get("max_length"))
        self.decode = LabelOptions(EVERY_LABEL if top_k is None else top_k, function)

    def shaped(self, result: Result) -> Any:
        """A result as a list of labels if one was asked for, else its only label."""
        if self.is_unsorted:
            return sorted(result, key=lambda entry: self._places[entry["label"]])
        return result if self.is_listed else result[0]


def _known(keywords: Keywords) -> Dict[str, Any]:
    """The keywords that have an effect, ``top_k`` even if it is None; warns of those that have none here."""
    known = known_keywords({**keywords, "top_k": None}, OWN_KEYWORDS, "text-classification")
    if keywords.get("truncation") in OTHER_TRUNCATION:
        warn(f"truncation={keywords['truncation']!r} is ignored: of a pair, the longer text is cut first")
    if "return_all_scores" in known:
        warn("`return_all_scores` is now deprecated, use `top_k=None` if you want similar functionality")
        known["top_k"] = NO_TOP_K
    return {**known, "top_k": keywords["top_k"]} if "top_k" in keywords else known


def _input(item: Any) -> Asked:
    """A text, or a pair in one of the forms that transformers takes."""
    if isinstance(item, str):
        return item
    if isinstance(item, dict):
        return _of_fields(item)
    if isinstance(item, list) and len(item) == 1 and isinstance(item[0], list) and len(item[0]) == 2:
        return _text_or_pair(*item[0])
    if isinstance(item, (list, tuple)):
        raise InputError(
            "The pipeline received invalid inputs, if you are trying to send text pairs, you can try to send a "
            'dictionary `{"text": "My text", "text_pair": "My pair"}` in order to send a text pair.'
        )
    raise InputError(f"{shown_value(item)} is no text", hint="a str, or a dictionary of text and text_pair")


def _of_fields(item: Dict[str, Any]) -> Asked:
    unknown = sorted(set(item).difference(("text", "text_pair")))
    if unknown or "text" not in item:
        wrong = f"there is no key {unknown[0]!r}" if unknown else "the key 'text' is missing"
        raise InputError(f"{shown_value(item)}: {wrong}", hint='{"text": ...} or {"text": ..., "text_pair": ...}')
    return _text_or_pair(item["text"], item.get("text_pair"))


def _text_or_pair(text: Any, text_pair: Any) -> Asked:
    """transformers takes an empty other text for none, and what is no text for a batch of which it reads the first."""
    check_text("text", text)
    if text_pair is None or text_pair == "":
        return str(text)
    check_text("text_pair", text_pair)
    return TextPair(text, text_pair)
