"""The keywords of token classification, and its verb: light, for the command line lists them (tasks/option.py)."""

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

from neuronbert.errors import UsageError, as_whole, positive, shown_value
from neuronbert.tasks.option import Text, Verb, option

STRATEGIES = ("none", "simple", "first", "average", "max")
WORD_STRATEGIES = ("first", "average", "max")


@dataclass(frozen=True)
class StrideOptions:
    """How a text is cut into rows for the model; all lengths in tokens. A long text is never cut off.

    stride: tokens that neighbouring rows share, transformers' keyword of this name. None is a quarter of a row and at
        most 128: where two rows meet, each token is then seen by one of them with half of that or more on either side,
        and a long text costs a third more at most. transformers without ``stride`` drops what is behind the first row.
    max_length: length of a row with special tokens. None is the limit of tokenizer and model; more is lowered to it.
    delimiter: what stands between the words of a text that is given as a list of words (transformers' pipeline calls
        that ``is_split_into_words``); places count characters of the words so joined.
    """

    stride: Optional[int] = option(
        None, "Tokens that two rows of a longer text share.  [default: a quarter of a row, at most 128]", least=0
    )
    max_length: Optional[int] = option(
        None, "Tokens that are read at once, a row, special ones included.  [default: the model's limit]", least=1
    )
    delimiter: str = " "

    def __post_init__(self) -> None:
        for name, smallest in (("stride", 0), ("max_length", 1)):
            value = getattr(self, name)
            number = as_whole(value)
            if value is not None and (number is None or number < smallest):
                raise UsageError(
                    f"{name} must be a whole number of at least {smallest}, not {shown_value(value)}",
                    hint=f"{name}={max(smallest, 32)}, or leave it out",
                    field=name,
                )
            object.__setattr__(self, name, number and positive(name, number))  # an int, whatever whole number it was
        if not isinstance(self.delimiter, str):
            raise UsageError(
                f"delimiter must be a text, not {shown_value(self.delimiter)}", hint='delimiter=" "', field="delimiter"
            )


@dataclass(frozen=True)
class EntityOptions:
    """What is made of the model's label for each token.

    aggregation_strategy: "none" gives each token by itself, with its label as ``entity``; the others join neighbours of
        one type into entities, with that type as ``entity_group``. "simple" joins tokens. The rest join whole words,
        which get one label each: that of their first token ("first"), that of the mean of their tokens' probabilities
        ("average"), or that of their surest token ("max"). What a word is, transformers guesses from white space where
        the tokenizer does not mark it (RoBERTa's does not), and so do we.
    ignore_labels: what has one of these labels, or types, is left out.
    """

    aggregation_strategy: str = option(
        "none",
        "Each token by itself, or joined into entities: token by token, or by words that get the label of their first "
        "token, of the mean over their tokens, or of their surest one.",
        choices=STRATEGIES,
        shows_default=True,
        of_output=True,
    )
    ignore_labels: Tuple[str, ...] = ("O",)

    def __post_init__(self) -> None:
        strategy = _strategy(self.aggregation_strategy)
        checked: Dict[str, object] = {"aggregation_strategy": strategy, "ignore_labels": _labels(self.ignore_labels)}
        for name, plain in checked.items():
            object.__setattr__(self, name, plain)


def _strategy(value: object) -> str:
    """The strategy of this name, whatever its case, or of transformers' member of an enum."""
    name = getattr(value, "value", value)
    if not isinstance(name, str) or name.lower() not in STRATEGIES:
        raise UsageError(
            f"there is no aggregation_strategy {shown_value(value)}",
            hint=f"one of {', '.join(STRATEGIES)}",
            field="aggregation_strategy",
        )
    return name.lower()


def _labels(value: object) -> Tuple[str, ...]:
    """Names of labels as a tuple: equal options are the same options."""
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(label, str) for label in value):
        return tuple(sorted(value)) if isinstance(value, (set, frozenset)) else tuple(value)
    raise UsageError(
        f"ignore_labels must be a list of labels, not {shown_value(value)}",
        hint='ignore_labels=["O"]',
        field="ignore_labels",
    )


ENCODE_OPTIONS = StrideOptions
DECODE_OPTIONS = EntityOptions
EVALUATION = "labelled entities (CoNLL, JSON lines): their precision, recall and F1, as seqeval counts them"
OFFERS: Tuple[str, ...] = ()
VERBS = (
    Verb(
        name="tag",
        short_help="Find the entities of a text, or of a file of them.",
        help="""Find the entities of one text, or of a file of them, with ARTIFACT.

    One text prints an entity a line; --input prints a JSON line, or with --output-format csv a row, for each line read,
    in order.
    """,
        texts=(Text("text", "One text."),),
        line='{"text"}',
    ),
)
