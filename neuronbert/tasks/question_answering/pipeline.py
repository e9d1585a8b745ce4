"""Stands in for the question-answering pipeline that transformers removed: its calls, keywords, results and errors.

from neuronbert import pipeline                                   # was: from transformers import pipeline
qa = pipeline("question-answering", model="qa-artifact")          # a folder that `neuronbert compile` wrote
qa(question="Who was Jim Henson?", context="Jim Henson was a nice puppet")
"""

from collections.abc import Iterable
from functools import partial
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, positive
from neuronbert.tasks.base import Answerer, Keywords, option_names, options_of
from neuronbert.tasks.pipeline_calls import call_each, is_stream, iterate, known_keywords, stream_results, warn
from neuronbert.tasks.question_answering.answers import Answer, single
from neuronbert.tasks.question_answering.lines import Pair
from neuronbert.tasks.question_answering.options import AnswerOptions, WindowOptions

Result = Union[Answer, List[Answer]]

KINDS = (WindowOptions, AnswerOptions)
OPTIONS = option_names(KINDS)
INPUT_KEYWORDS = ("question", "context", "data", "X")


class MissingKey(InputError, KeyError):
    """An input without its question or its context."""


class Sample(NamedTuple):
    """A question and its context, under the names that transformers' SquadExample gave them."""

    question_text: str
    context_text: str


class QuestionAnsweringPipeline:
    """Answers questions about contexts, with the calls, results and errors of the removed transformers pipeline.

    Keywords, here or at any call (a call's wins; None is the default):
    top_k (1), doc_stride (128 tokens of overlap), max_answer_len (15 tokens), max_seq_len (384 tokens),
    max_question_len (None: the question is kept whole, which is what the old pipeline did with fast tokenizers in
    spite of its documented default of 64), handle_impossible_answer (False), align_to_words (True), batch_size (1:
    how many inputs are taken at once from a generator); and new ones: ranking ("window"), null_threshold (None) and
    details (False), see AnswerOptions. ``padding`` is accepted; it never changed an answer.
    """

    task = "question-answering"

    def __init__(self, model: Answerer, tokenizer: Any = None, **keywords: Any):
        self.model = model
        if isinstance(tokenizer, Tokenizer) and tokenizer is model.tokenizer:
            tokenizer = None
        self._keywords = _known({**keywords, "tokenizer": tokenizer})
        # A wrong value is refused here, not at the first call.
        _batch_size(self._keywords.get("batch_size"))
        options_of(KINDS, {name: value for name, value in self._keywords.items() if name in OPTIONS})

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the artifact."""
        return self.model.tokenizer

    @staticmethod
    def create_sample(
        question: Union[str, Sequence[str]], context: Union[str, Sequence[str]]
    ) -> Union[Sample, List[Sample]]:
        """A Sample, or a list of them for lists of questions and contexts."""
        if isinstance(question, str) and isinstance(context, str):
            return Sample(question, context)
        return [Sample(*pair) for pair in _pairs_of_lists(question, context)]

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        """Answer one or many questions.

        qa(question=Q, context=C) with texts, lists, or a list of questions and one context; qa(Q, C); qa(ITEM) or
        qa([ITEM, ...]) with dictionaries {"question": Q, "context": C} or objects with question_text and context_text;
        qa(GENERATOR) of such items, answered lazily; data= or X= in place of the position.

        One input gives its result, several a list of results, a generator gives a generator. A result is a
        dictionary of score, start, end (characters of the context) and answer when there is exactly one answer,
        else a list of them, best first. The answers of score 0 with which the old pipeline filled up top_k are left
        out.
        """
        named_inputs = {name: keywords.pop(name) for name in INPUT_KEYWORDS if name in keywords}
        chosen = {**self._keywords, **_known(keywords)}
        batch_size = _batch_size(chosen.pop("batch_size", None))
        options = options_of(KINDS, chosen)
        pairs = read_inputs(inputs, named_inputs)
        if not isinstance(pairs, list):
            return stream_results(pairs, batch_size, _pair, partial(self._results, options=options))
        results = self._results(pairs, options)
        return results[0] if len(results) == 1 else results

    def _results(self, pairs: List[Pair], options: Tuple[WindowOptions, AnswerOptions]) -> List[Result]:
        return [single(ranked) for ranked in self.model.answer(pairs, *options)]


def read_inputs(inputs: Sequence[Any], keywords: Keywords) -> Union[List[Pair], Iterator[Any]]:
    """The (question, context) pairs of a call, checked; an iterator of unchecked items for a generator or Dataset.

    MissingKey (a KeyError) and InputError (a ValueError) with the texts of the old pipeline.
    """
    items = _find_items(inputs, keywords)
    if is_stream(items):
        return iterate(items)
    if isinstance(items, dict) or _is_sample(items):
        items = [items]
    elif isinstance(items, str):
        items = items[:1]  # the old pipeline took a text for a list of letters, and refused the first
    elif not isinstance(items, Iterable):
        raise InputError(f"Invalid arguments {dict(keywords)}")
    forms = [form for item in items for form in _forms(item)]
    if len(forms) == 1:
        return [_pair(forms[0])]
    return call_each(_pair, forms)


def _find_items(inputs: Sequence[Any], keywords: Keywords) -> Any:
    """The inputs of a call, in whatever form they came."""
    if len(inputs) == 1:
        return inputs[0]
    if len(inputs) == 2 and all(isinstance(item, str) for item in inputs):
        return [{"question": inputs[0], "context": inputs[1]}]
    if inputs:
        return list(inputs)
    for name in ("X", "data"):
        if name in keywords:
            return keywords[name]
    if "question" in keywords and "context" in keywords:
        return _from_question_and_context(keywords["question"], keywords["context"])
    raise InputError(f"Unknown arguments {dict(keywords)}")


def _from_question_and_context(question: Any, context: Any) -> List[Dict[str, Any]]:
    if isinstance(question, str) and isinstance(context, str):
        return [{"question": question, "context": context}]
    if isinstance(question, list) and isinstance(context, (str, list)):
        return [{"question": pair[0], "context": pair[1]} for pair in _pairs_of_lists(question, context)]
    raise InputError("Arguments can't be understood")


def _pairs_of_lists(questions: Any, contexts: Any) -> List[Tuple[Any, Any]]:
    if isinstance(contexts, str):
        contexts = [contexts] * len(questions)
    if isinstance(questions, str) or len(questions) != len(contexts):
        raise InputError("Questions and contexts don't have the same lengths")
    return list(zip(questions, contexts))


def _forms(item: Any) -> List[Any]:
    """An item, or several if it is a dictionary of lists."""
    if isinstance(item, dict) and isinstance(item.get("question"), list) and "context" in item:
        pairs = _pairs_of_lists(item["question"], item["context"])
        return [{"question": question, "context": context} for question, context in pairs]
    return [item]


def _pair(item: Any) -> Pair:
    if _is_sample(item):
        item = {"question": item.question_text, "context": item.context_text}
    if not isinstance(item, dict):
        raise InputError(f"{item} argument needs to be of type (SquadExample, dict)")
    for name in ("question", "context"):
        if name not in item:
            raise MissingKey("You need to provide a dictionary with keys {question:..., context:...}")
        if item[name] is None:
            raise InputError(f"`{name}` cannot be None")
        if item[name] == "":
            raise InputError(f"`{name}` cannot be empty")
    return Pair(item["question"], item["context"])


def _is_sample(item: Any) -> bool:
    return hasattr(item, "question_text") and hasattr(item, "context_text")


def _known(keywords: Keywords) -> Dict[str, Any]:
    """The keywords that have a value and an effect; warns of those that have no effect here."""
    keywords = dict(keywords)
    old_name = keywords.pop("topk", None)
    known = known_keywords(keywords, (*OPTIONS, "batch_size"), "question-answering")
    if old_name is not None:
        warn("topk parameter is deprecated, use top_k instead")
        known.setdefault("top_k", old_name)
    return known


def _batch_size(value: Optional[int]) -> int:
    return positive("batch_size", value) or 1
