"""Texts, pairs and rankings as JSON lines: a line's fields, and the options that it may set, for tasks/lines.py."""

from typing import Any, Mapping, Optional

from neuronbert.tasks.base import Document, LineForm
from neuronbert.tasks.lines import shown, text_fault
from neuronbert.tasks.text_classification.inputs import as_input

# The options that a line may set for itself, with their types.
_KEYWORDS: Mapping[str, type] = {"top_k": int, "function_to_apply": str, "max_length": int, "return_texts": bool}


def _fault(record: Document) -> Optional[str]:
    if "query" in record or "texts" in record:
        return _ranking_fault(record)
    if "text" not in record:
        return "the key 'text' is missing"
    return text_fault("text", record["text"]) or _other_fault(record.get("text_pair"))


def _other_fault(text_pair: Any) -> Optional[str]:
    return None if text_pair is None else text_fault("text_pair", text_pair)


def _ranking_fault(record: Document) -> Optional[str]:
    for key in ("query", "texts"):
        if key not in record:
            return f"the key {key!r} is missing"
    texts = record["texts"]
    if not isinstance(texts, list):
        return f"texts is {shown(texts)}, not a list"
    if not texts:
        return "texts is empty"
    faults = (text_fault(f"texts[{number}]", text) for number, text in enumerate(texts))
    return text_fault("query", record["query"]) or next(filter(None, faults), None)


LINES = LineForm(
    noun="text",
    hint='one JSON object a line: {"text": "..."}, {"text": "...", "text_pair": "..."} or {"query": "...", "texts": '
    '["..."]}, "id" if you like',
    example='{"text": ...}',
    keywords=_KEYWORDS,
    fault=_fault,
    input=as_input,
    needs=(("text",), ("query", "texts")),
    lists=("texts",),
    may_have=("text_pair",),
)
