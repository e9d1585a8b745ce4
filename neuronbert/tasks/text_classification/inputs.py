"""What can be classified (a text, a pair) or ranked (texts for a query), as rows of tokens; results.py reads logits."""

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.checkpoint.tokenizer import Tokenizer, once_per_tokenizer
from neuronbert.errors import InputError, TooManyRows, counted, shown_value
from neuronbert.tasks.rows import CutRow, TextOrPair, TextPair, TextRow, check_text, encode_rows
from neuronbert.tasks.text_classification.options import RowOptions
from neuronbert.tasks.text_classification.problem import Problem, problem_of

FORMS = '"a text", {"text": ..., "text_pair": ...}, or {"query": ..., "texts": [...]}'


class Ranking(NamedTuple):
    """A query, and the texts to be ordered by how well they fit it."""

    query: str
    texts: Tuple[str, ...]


Asked = Union[str, TextPair, Ranking]


class Example(NamedTuple):
    """An input as rows, one for each text, and what the labels of its logits are."""

    asked: Asked
    windows: List[TextRow]
    truncated: List[bool]  # of each row
    problem: Problem


@once_per_tokenizer
def problem_for(tokenizer: Tokenizer) -> Problem:
    """What the tokenizer's checkpoint decides, read from its config."""
    return problem_of(tokenizer.config)


def as_input(asked: Any) -> Asked:
    """A text, pair or ranking in any of its forms; InputError for what is none of them."""
    if isinstance(asked, (str, Ranking, TextPair)):
        return asked
    if isinstance(asked, dict):
        return _of_fields(asked)
    if isinstance(asked, (tuple, list)) and len(asked) == 2:
        text, other = asked
        return Ranking(text, tuple(other)) if isinstance(other, (tuple, list)) else TextPair(text, other)
    raise InputError(f"{shown_value(asked)} is no text that can be classified", hint=FORMS)


def _of_fields(fields: Any) -> Asked:
    if "query" in fields and isinstance(fields.get("texts"), (list, tuple)):
        return Ranking(fields["query"], tuple(fields["texts"]))
    if "text" not in fields:
        raise InputError(f"{shown_value(fields)} has no text", hint=FORMS)
    check_text("text", fields["text"])
    return fields["text"] if fields.get("text_pair") is None else TextPair(fields["text"], fields["text_pair"])


def of_call(text: Any, text_pair: Any, query: Optional[str], texts: Optional[Sequence[str]]) -> Asked:
    """The input of a call with these arguments; InputError for a mixture of them."""
    if query is None and texts is None and text is not None:
        return as_input(text) if text_pair is None else as_input((text, text_pair))
    if query is None or texts is None or text is not None or text_pair is not None or isinstance(texts, str):
        raise InputError("a call has a text, a text and its text_pair, or a query and a list of texts", hint=FORMS)
    return Ranking(query, tuple(texts))


def encode_examples(tokenizer: Tokenizer, inputs: Sequence[Any], options: RowOptions) -> List[Example]:
    """Every input as rows; what is too long for one is cut, and its ``truncated`` says so.

    InputError for what is no text, for a ranking without texts or with more than the tokenizer's ``row_limit``, and
    for a ranking by a model that gives more than one score.
    """
    problem = problem_for(tokenizer)
    asked = [as_input(each) for each in inputs]
    wanted = [_row_texts(each, problem, tokenizer) for each in asked]
    rows = iter(encode_rows(tokenizer, [text for texts in wanted for text in texts], options.max_length))
    return [_example(each, [next(rows) for _ in texts], problem) for each, texts in zip(asked, wanted)]


def _example(asked: Asked, rows: Sequence[CutRow], problem: Problem) -> Example:
    return Example(asked, [cut.row for cut in rows], [cut.truncated for cut in rows], problem)


def _row_texts(asked: Asked, problem: Problem, tokenizer: Tokenizer) -> Sequence[TextOrPair]:
    """The text or pair of each row of an input."""
    if isinstance(asked, str):
        return [asked]
    if isinstance(asked, TextPair):
        check_text("text", asked.text)
        check_text("text_pair", asked.text_pair)
        return [asked]
    _refuse_ranking(asked, problem, tokenizer)
    return [TextPair(asked.query, text) for text in asked.texts]


def _refuse_ranking(asked: Ranking, problem: Problem, tokenizer: Tokenizer) -> None:
    if len(problem.labels) != 1:
        raise InputError(
            f"this model tells {len(problem.labels)} labels apart ({', '.join(problem.labels[:4])}), and a ranking "
            "needs a model that gives one score",
            hint="a cross-encoder, whose num_labels is 1; or classify each pair: text and text_pair",
        )
    check_text("query", asked.query)
    if not asked.texts:
        raise InputError("there are no texts to rank", hint="a list of one text or more", field="texts")
    for text in asked.texts:
        check_text("text", text)
    limit = tokenizer.row_limit
    if len(asked.texts) > limit.rows:
        raise TooManyRows(
            f"this request ranks {counted(len(asked.texts), 'text')}, and {limit.whose} takes {limit.rows:,}",
            hint="fewer texts" + (f", or {limit.way_out}" if limit.way_out else ""),
            field="texts",
        )
