"""Questions as JSON lines: the fields of a line, and the options that it may set, for tasks/lines.py to read."""

import json
from typing import Any, Iterable, Mapping, NamedTuple, Optional, Union

from neuronbert.tasks.base import Document, LineForm
from neuronbert.tasks.lines import LineReader, read_lines, text_fault

# The options that a line may set for itself, with their types.
_KEYWORDS: Mapping[str, type] = {
    "top_k": int,
    "doc_stride": int,
    "max_answer_len": int,
    "max_seq_len": int,
    "max_question_len": int,
    "select_windows": int,
    "handle_impossible_answer": bool,
    "align_to_words": bool,
}


class Pair(NamedTuple):
    """A question, and the text that may answer it."""

    question: str
    context: str


def _fault(record: Document) -> Optional[str]:
    for key in Pair._fields:
        fault = text_fault(key, record[key]) if key in record else f"the key {key!r} is missing"
        if fault:
            return fault
    return None


def _pair(record: Document) -> Pair:
    return Pair(record["question"], record["context"])


LINES = LineForm(
    noun="question",
    hint='one JSON object a line: {"question": "...", "context": "..."}, "id" if you like',
    example='{"question": ..., "context": ...}',
    keywords=_KEYWORDS,
    fault=_fault,
    input=_pair,
    needs=(Pair._fields,),
)


def read_questions(lines: Iterable[Union[str, bytes]], on_error: str = "fail") -> LineReader:
    """Questions from JSON lines; see tasks.lines.read_lines."""
    return read_lines(lines, LINES, on_error)


def question_line(question: str, context: str, id: Union[str, int, None] = None, **keywords: Any) -> str:
    """The JSON line, without its newline, that ``read_questions`` reads back as this question."""
    head = {} if id is None else {"id": id}
    return json.dumps({**head, "question": question, "context": context, **keywords}, ensure_ascii=False)
