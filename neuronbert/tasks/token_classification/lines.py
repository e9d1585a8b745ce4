"""Texts as JSON lines: the fields of a line, and the options that it may set for itself, for tasks/lines.py to read."""

from typing import Any, Mapping, Optional, Sequence

from neuronbert.tasks.base import Document, LineForm
from neuronbert.tasks.lines import shown, surrogate_fault, text_fault

# The options that a line may set for itself, with their types.
_KEYWORDS: Mapping[str, type] = {"stride": int, "max_length": int, "aggregation_strategy": str}


def joined_text(words: Sequence[str]) -> str:
    """The text of a sentence that is given as words, as a tokenizer of texts takes it."""
    return " ".join(words)


def tokens_fault(tokens: Any) -> Optional[str]:
    """What is wrong with the words of a sentence; None: nothing."""
    if not isinstance(tokens, list) or not tokens:
        return f"tokens is {shown(tokens)}, not a list of words"
    return next(filter(None, (text_fault(f"tokens[{at}]", token) for at, token in enumerate(tokens))), None)


def _fault(record: Document) -> Optional[str]:
    if record.get("text_pair") is not None:
        return "there is a text_pair, and entities are found in one text: a line for each"
    if "text" in record:
        text = record["text"]
        # An empty text has no entities; it is nothing to stop at.
        return surrogate_fault("text", text) if isinstance(text, str) else f"text is {shown(text)}, not a string"
    return tokens_fault(record["tokens"]) if "tokens" in record else "the key 'text' is missing"


def _text(record: Document) -> str:
    return str(record["text"]) if "text" in record else joined_text(record["tokens"])


LINES = LineForm(
    noun="text",
    hint='one JSON object a line: {"text": "..."}, or {"tokens": [...]} for its words, "id" if you like',
    example='{"text": ...}',
    keywords=_KEYWORDS,
    fault=_fault,
    input=_text,
    needs=(("text",), ("tokens",)),
    lists=("tokens",),
)
