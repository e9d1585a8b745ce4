"""Puts the paragraphs of SQuAD questions together to long documents, on which selecting windows is measured."""

from itertools import accumulate
from typing import Dict, List, Sequence, Tuple

from neuronbert.tasks.question_answering.squad import SquadQuestion

BETWEEN = "\n\n"


def long_documents(questions: Sequence[SquadQuestion], words: int) -> List[SquadQuestion]:
    """The same questions, each about a document of at least ``words``: its own paragraph and those beside it.

    The paragraphs that are left at the end join the last document.
    """
    documents: List[List[str]] = [[]]
    for context in dict.fromkeys(question.context for question in questions):
        if _words(documents[-1]) >= words:
            documents.append([])
        documents[-1].append(context)
    if len(documents) > 1 and _words(documents[-1]) < words:
        documents[-2:] = [documents[-2] + documents[-1]]
    places = {context: place for document in documents for context, place in _places(document).items()}
    return [_moved(question, *places[question.context]) for question in questions]


def _places(paragraphs: Sequence[str]) -> Dict[str, Tuple[str, int]]:
    """Paragraph → the document of all of them, and its first character in it."""
    text = BETWEEN.join(paragraphs)
    starts = accumulate([0, *(len(paragraph) + len(BETWEEN) for paragraph in paragraphs)])
    return {paragraph: (text, start) for paragraph, start in zip(paragraphs, starts)}


def _moved(question: SquadQuestion, document: str, first: int) -> SquadQuestion:
    starts = tuple(first + start if start >= 0 else start for start in question.answer_starts)
    return question._replace(context=document, answer_starts=starts)


def _words(paragraphs: Sequence[str]) -> int:
    return sum(len(paragraph.split()) for paragraph in paragraphs)
