"""Reads of a long context the windows with the question's words first, and more until the best answer stays the same.

A RowSelection (tasks/base.py). windows.py has ordered them (lexical.py), where ``select_windows`` asks for that.
"""

from dataclasses import replace
from typing import Mapping, Sequence

from neuronbert.backends.outputs import Outputs
from neuronbert.tasks.question_answering.answers import rank_answers
from neuronbert.tasks.question_answering.options import AnswerOptions
from neuronbert.tasks.question_answering.windows import Example


def next_rows(example: Example, read: Mapping[int, Outputs], options: AnswerOptions) -> Sequence[int]:
    """The windows to read next; none where the second half of those read has not changed the best answer.

    Each time as many again as are read: ``select_windows`` and as many more at first. That there is no answer, two
    windows without one say too: then all are read.
    """
    selection = example.selection
    if selection is None:
        return () if read else range(len(example.windows))
    order, count = selection.order, len(read)
    if not count:
        return order[: 2 * selection.first]
    if count == len(order):
        return ()
    best = _best(example, read, order, options)
    is_stable = best != "" and best == _best(example, read, order[: count // 2], options)
    return () if is_stable else order[count : 2 * count]


def narrowed(example: Example, rows: Sequence[int]) -> Example:
    """The example with these windows alone."""
    return example._replace(windows=[example.windows[number] for number in rows])


def _best(example: Example, read: Mapping[int, Outputs], order: Sequence[int], options: AnswerOptions) -> str:
    """The best answer of those of the windows that are read, as the ranking takes texts for the same."""
    rows = sorted(number for number in order if number in read)
    if options.top_k > 1:  # the others cost as much again, and only the first counts here
        options = replace(options, top_k=1)
    best = rank_answers(narrowed(example, rows), [read[number] for number in rows], options)[0]
    return str(best["answer"]).lower()
