"""Reads of a long context the windows with the question's words first, and more until the best answer stays the same.

A RowSelection (tasks/base.py). windows.py has ordered them (lexical.py), where ``select_windows`` asks for that.
"""

from typing import List, Mapping, Sequence

from neuronbert.backends.outputs import Outputs
from neuronbert.errors import InputError
from neuronbert.tasks.question_answering.answers import Answer, rank_answers
from neuronbert.tasks.question_answering.long_documents import long_documents
from neuronbert.tasks.question_answering.metrics import mean_f1
from neuronbert.tasks.question_answering.options import AnswerOptions
from neuronbert.tasks.question_answering.squad import SquadQuestion
from neuronbert.tasks.question_answering.windows import SELECT_KEY, Example

CONFIG_KEY = SELECT_KEY
TRIAL_QUESTIONS = 100
TRIAL_WORDS = 2500  # of a document: some 14 windows


def next_rows(example: Example, read: Mapping[int, Outputs], options: AnswerOptions) -> Sequence[int]:
    """The windows to read next; none where the second half of those read has not changed the best answer.

    Each time as many again as are read: ``select_windows`` and as many more at first.
    """
    selection = example.selection
    if selection is None:
        return () if read else range(len(example.windows))
    order, count = selection.order, len(read)
    if not count:
        return order[: 2 * selection.first]
    if count == len(order):
        return ()
    is_stable = _best(example, read, order[: count // 2], options) == _best(example, read, order, options)
    return () if is_stable else order[count : 2 * count]


def narrowed(example: Example, rows: Sequence[int]) -> Example:
    """The example with these windows alone."""
    return example._replace(windows=[example.windows[number] for number in rows])


def _best(example: Example, read: Mapping[int, Outputs], order: Sequence[int], options: AnswerOptions) -> str:
    """The best answer of those of the windows that are read, as the ranking takes texts for the same."""
    rows = sorted(number for number in order if number in read)
    best = rank_answers(narrowed(example, rows), [read[number] for number in rows], options)[0]
    return str(best["answer"]).lower()


def trial_questions(labelled: Sequence[SquadQuestion]) -> List[SquadQuestion]:
    """At most TRIAL_QUESTIONS of those that have an answer, evenly spread, about documents of TRIAL_WORDS.

    InputError where all of their text is less.
    """
    answered = [question for question in long_documents(labelled, TRIAL_WORDS) if question.answers]
    if not answered or len(answered[0].context.split()) < TRIAL_WORDS:
        raise InputError(
            f"the gate's text is too little to put a document of {TRIAL_WORDS} words together, which is what selecting "
            "windows is measured on",
            hint="--gate-data with more paragraphs, or select_windows where a question is asked",
        )
    step = max(1, -(-len(answered) // TRIAL_QUESTIONS))
    return answered[::step]


def accuracy(labelled: Sequence[SquadQuestion], results: Sequence[List[Answer]]) -> float:
    """The F1 of the best answers, in percent."""
    return 100 * mean_f1([ranked[0]["answer"] for ranked in results], [question.answers for question in labelled])
