"""neuronbert_tools.short_documents: sentences around an answer."""

from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.tasks.question_answering.squad import SquadQuestion
from neuronbert_tools.short_documents import sentences, short_documents

TEXT = "One two three. Four (five six). Seven eight nine ten! Eleven?"
SENTENCES = ["One two three.", "Four (five six).", "Seven eight nine ten!", "Eleven?"]


def question(answers: Tuple[str, ...], text: str = TEXT) -> SquadQuestion:
    return SquadQuestion("a", "what?", text, answers, not answers, tuple(text.index(answer) for answer in answers))


@pytest.mark.parametrize("start", [-1, len(TEXT) - 1, len(TEXT) + 9])
def test_an_answer_at_no_place_of_the_text_is_left_out(start: int) -> None:
    there = question(("Four",))
    assert short_documents([there._replace(answer_starts=(start,)), there], 30) == short_documents([there], 30)


def texts(text: str) -> List[str]:
    return [text[first:beyond] for first, beyond in sentences(text)]


def test_sentences_end_at_their_marks_and_behind_quotations() -> None:
    assert texts(TEXT) == SENTENCES
    assert texts('He said "no." Then 3.5 years. ') == ['He said "no."', "Then 3.5 years. "]
    assert texts("") == [""]


@given(st.text(alphabet='ab A9.!?"()\n'))
def test_only_white_space_is_in_no_sentence(text: str) -> None:
    spans = sentences(text)
    assert spans[0][0] == 0 and spans[-1][1] == len(text)
    assert all(first <= beyond for first, beyond in spans)
    between = [text[before[1] : after[0]] for before, after in zip(spans, spans[1:])]
    assert all(each and each.isspace() for each in between)


@pytest.mark.parametrize(
    "answer, words, expected",
    [
        ("nine", 4, "Seven eight nine ten!"),
        ("nine", 5, "Seven eight nine ten! Eleven?"),
        ("nine", 8, "Four (five six). Seven eight nine ten! Eleven?"),
        ("three. Four", 6, "One two three. Four (five six)."),
        ("two", 99, TEXT),
    ],
)
def test_neighbours_come_along_while_they_fit(answer: str, words: int, expected: str) -> None:
    (found,) = short_documents([question((answer,))], words)
    assert found.context == expected
    assert found.context[found.answer_starts[0] :].startswith(answer)


def test_questions_without_a_short_answer_are_left_out() -> None:
    assert short_documents([question(()), question(("nine",)), question(("three. Four",))], 3) == []


def test_other_answers_stay_where_they_are_inside() -> None:
    (found,) = short_documents([question(("nine", "eight nine", "One"))], 4)
    assert (found.answers, found.answer_starts) == (("nine", "eight nine"), (12, 6))
