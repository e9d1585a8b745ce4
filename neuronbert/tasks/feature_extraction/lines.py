"""Texts as JSON lines or tables: a line's fields, and the options that it may set for itself, for tasks/lines.py."""

from typing import Any, Mapping, Optional

from neuronbert.tasks.base import Document, LineForm
from neuronbert.tasks.lines import text_fault

# The options that a line may set for itself, with their types.
_KEYWORDS: Mapping[str, type] = {
    "max_length": int,
    "long_texts": str,
    "prompt_name": str,
    "prompt": str,
    "truncate_dim": int,
    "normalize": bool,
}


def _fault(record: Document) -> Optional[str]:
    return text_fault("text", record["text"]) if "text" in record else "the key 'text' is missing"


def _text(record: Document) -> Any:
    return record["text"]


LINES = LineForm(
    noun="text",
    hint='one JSON object a line: {"text": "..."}, "id" if you like',
    example='{"text": ...}',
    keywords=_KEYWORDS,
    fault=_fault,
    input=_text,
    needs=(("text",),),
)
