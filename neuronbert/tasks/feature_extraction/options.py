"""The keywords of feature extraction, and its verb: light, for the command line lists them (tasks/option.py)."""

from dataclasses import dataclass
from typing import Optional

from neuronbert.errors import UsageError, positive, shown_value, yes_or_no
from neuronbert.tasks.offers import EMBEDDINGS
from neuronbert.tasks.option import Text, Verb, option

CUT, POOLED = "cut", "pooled"
LONG_TEXTS = (CUT, POOLED)


@dataclass(frozen=True)
class TextOptions:
    """How a text becomes a row, or several.

    max_length: tokens of a row, special ones included. None is what the checkpoint says (max_seq_length), and the model
        and the tokenizer take; more than the model takes is lowered to it.
    long_texts: what becomes of a text that does not fit a row: "cut" leaves out its end, and the result says
        ``truncated``; "pooled" makes rows of all of it, and one embedding of theirs: their mean, each as heavy as it
        has tokens, of length 1 where the model's embeddings are.
    prompt_name: the name of one of the checkpoint's prompts, which is put before the text. None is its default one.
    prompt: put before the text, instead of one with a name.
    """

    max_length: Optional[int] = option(
        None, "Tokens of a text that are read at once; the model's limit without it.", least=1
    )
    long_texts: str = option(
        CUT, "Texts that are longer: cut, or all of it read in parts and the parts' embeddings pooled.",
        choices=LONG_TEXTS, shows_default=True,
    )  # fmt: skip
    prompt_name: Optional[str] = option(None, "The checkpoint's prompt of that name before the text.")
    prompt: Optional[str] = option(None, "What is put before the text.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_length", positive("max_length", self.max_length))
        if self.long_texts not in LONG_TEXTS:
            raise UsageError(
                f"long_texts is {shown_value(self.long_texts)}",
                hint=f"one of {', '.join(LONG_TEXTS)}",
                field="long_texts",
            )
        for name in ("prompt_name", "prompt"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise UsageError(f"{name} must be text, not {shown_value(value)}", hint="or leave it out", field=name)


@dataclass(frozen=True)
class EmbeddingOptions:
    """What becomes of an embedding of a text, in this order; those of tokens stay as they are.

    truncate_dim: only its first numbers, for models that were trained for that (Matryoshka). None is what the
        checkpoint says, or all of them.
    normalize: make its length 1.
    """

    truncate_dim: Optional[int] = option(None, "Only the first numbers of an embedding.", least=1)
    normalize: bool = option(False, "Embeddings of length 1.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "truncate_dim", positive("truncate_dim", self.truncate_dim))
        object.__setattr__(self, "normalize", yes_or_no("normalize", self.normalize))


ENCODE_OPTIONS = TextOptions
DECODE_OPTIONS = EmbeddingOptions
EVALUATION = (
    "scored pairs of texts (CSV, TSV, JSON lines): Spearman's and Pearson's correlation; queries with their texts (the "
    "same, or SQuAD): recall, MRR and nDCG"
)
OFFERS = (EMBEDDINGS,)
VERBS = (
    Verb(
        name="embed",
        short_help="Give one text its embedding, or each text of a file.",
        help="""Give one text its embedding with ARTIFACT, a compiled sentence encoder; or a file of them.

    One text prints its numbers; --input prints a JSON line, or with --output-format csv a row, for each line
    read, in order.
    """,
        texts=(Text("text", "One text."),),
        line='{"text"}',
    ),
)
