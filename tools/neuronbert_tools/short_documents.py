"""Cuts the paragraphs of SQuAD questions to the sentences around their answers, for make_documents.py. Pure."""

import re
from typing import List, Sequence, Tuple

from neuronbert.tasks.question_answering.squad import SquadQuestion

# After the end of a sentence, before a capital or a quotation: enough for edited prose, where "U.S. Army" is cut too.
_BETWEEN_SENTENCES = re.compile(r"""(?<=[.!?])["')\]]*\s+(?=["'(\[]?[A-Z0-9])""")

Span = Tuple[int, int]  # characters, the second is the first beyond


def short_documents(questions: Sequence[SquadQuestion], words: int) -> List[SquadQuestion]:
    """The answerable questions, each about the sentences around its first answer that are ``words`` together at most.

    A question is left out whose answer stands in longer sentences alone, or at no place of the text. Answers outside of
    the sentences are left out.
    """
    cut = [_cut(question, words) for question in questions if _has_place(question)]
    return [question for question in cut if question.answers]


def _has_place(question: SquadQuestion) -> bool:
    if question.is_impossible or not question.answer_starts:
        return False
    start = question.answer_starts[0]
    return 0 <= start and start + len(question.answers[0]) <= len(question.context)


def _cut(question: SquadQuestion, words: int) -> SquadQuestion:
    text, start = question.context, question.answer_starts[0]
    first, beyond = _around(text, (start, start + len(question.answers[0])), words)
    kept = [
        (answer, at - first)
        for answer, at in zip(question.answers, question.answer_starts)
        if first <= at and at + len(answer) <= beyond
    ]
    answers, starts = zip(*kept) if kept else ((), ())
    return question._replace(context=text[first:beyond], answers=tuple(answers), answer_starts=tuple(starts))


def _around(text: str, answer: Span, words: int) -> Span:
    """The sentences that ``answer`` stands in, and of those beside them as many as fit; (0, 0) where those do not."""
    spans = sentences(text)
    first = max(number for number, span in enumerate(spans) if span[0] <= answer[0])
    last = min(number for number, span in enumerate(spans) if span[1] >= answer[1])
    if not _fits(text, spans, first, last, words):
        return (0, 0)
    while last + 1 < len(spans) and _fits(text, spans, first, last + 1, words):
        last += 1
    while first > 0 and _fits(text, spans, first - 1, last, words):
        first -= 1
    return (spans[first][0], spans[last][1])


def _fits(text: str, spans: Sequence[Span], first: int, last: int, words: int) -> bool:
    return len(text[spans[first][0] : spans[last][1]].split()) <= words


def sentences(text: str) -> List[Span]:
    """The sentences of ``text``, one after the other; nothing but the white space between them is in none."""
    spans, start = [], 0
    for between in _BETWEEN_SENTENCES.finditer(text):
        quotes = len(between.group()) - len(between.group().lstrip("\"')]"))
        spans.append((start, between.start() + quotes))
        start = between.end()
    return [*spans, (start, len(text))]
