"""The keywords of text classification, and its verbs: light, for the command line lists them (tasks/option.py)."""

from dataclasses import dataclass
from typing import Optional

from neuronbert.errors import UsageError, as_whole, positive, shown_value, yes_or_no
from neuronbert.tasks.offers import LABELS, RANKING
from neuronbert.tasks.option import Text, Verb, option

FUNCTIONS = ("default", "softmax", "sigmoid", "none")


@dataclass(frozen=True)
class RowOptions:
    """How a text or a pair becomes a row.

    max_length: tokens of a row, special ones included; what does not fit is cut, of a pair the longer text first, and
        the result says ``truncated``. None is what model and tokenizer take; more than that is lowered to it.
    """

    max_length: Optional[int] = option(
        None, "Tokens of a text (of a pair together) that are read; the model's limit without it.", least=1
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_length", _count("max_length", self.max_length))


@dataclass(frozen=True)
class LabelOptions:
    """Which labels are wanted, and what their scores are.

    top_k: at most this many labels, best first; of a ranking this many texts. None is one label, or every text.
    function_to_apply: from logits to scores: "softmax", "sigmoid", "none", or "default", which is "none" for a
        regression, "sigmoid" for several labels at once or a single one, else "softmax". A ranking's default is the
        activation that the checkpoint names for sentence-transformers, where it names one.
    return_texts: a ranking has the texts too.
    """

    top_k: Optional[int] = option(
        None, "Labels for each text, best first; of a ranking, texts.  [default: 1, or all texts]", least=1,
        of_output=True,
    )  # fmt: skip
    function_to_apply: str = option(
        "default", "What makes scores of the model's logits.", choices=FUNCTIONS, shows_default=True
    )
    return_texts: bool = option(False, "A ranking has its texts too.", of_output=True)

    def __post_init__(self) -> None:
        function = self.function_to_apply
        if not isinstance(function, str) or function.lower() not in FUNCTIONS:
            raise UsageError(
                f"there is no function {shown_value(function)}",
                hint=f"one of {', '.join(FUNCTIONS)}",
                field="function_to_apply",
            )
        object.__setattr__(self, "function_to_apply", function.lower())
        object.__setattr__(self, "top_k", _count("top_k", self.top_k))
        object.__setattr__(self, "return_texts", yes_or_no("return_texts", self.return_texts))


def _count(name: str, value: Optional[int]) -> Optional[int]:
    number = as_whole(value)
    if value is not None and (number is None or number < 1):
        raise UsageError(
            f"{name} must be a whole number, 1 or more, not {shown_value(value)}", hint="or leave it out", field=name
        )
    return number and positive(name, number)


ENCODE_OPTIONS = RowOptions
DECODE_OPTIONS = LabelOptions
EVALUATION = (
    "labelled texts (CSV, TSV, JSON lines): accuracy, macro F1 and Matthews' correlation; of scores, correlations"
)
OFFERS = (LABELS, RANKING)
VERBS = (
    Verb(
        name="classify",
        short_help="Give one text a label, or a file of them.",
        help="""Give one text, or a pair of texts, its label with ARTIFACT; or a file of them.

    One text prints its label; --input prints a JSON line, or with --output-format csv a row, for each line read, in
    order.
    """,
        texts=(
            Text("text", "One text."),
            Text("text_pair", "The other text of a pair, for a model of pairs.", required=False),
        ),
        line='{"text"}, {"text", "text_pair"} or {"query", "texts"}',
    ),
    Verb(
        name="rerank",
        short_help="Order texts by how well they fit a query.",
        help="""Order texts by how well they fit a query, with ARTIFACT, a compiled cross-encoder.

    Prints the best first, each with its score and its number among the texts, from 0; --input prints a JSON line, or
    with --output-format csv a row, for each line read, in order.
    """,
        texts=(Text("query", "The query."), Text("texts", "A text to rank; repeatable.", many=True, spelling="text")),
        line='{"query", "texts"}',
    ),
)
