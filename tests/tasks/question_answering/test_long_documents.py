"""neuronbert.tasks.question_answering.long_documents: the same questions, about more text."""

from hypothesis import given
from hypothesis import strategies as st

from neuronbert.tasks.question_answering.long_documents import BETWEEN, long_documents
from neuronbert.tasks.question_answering.squad import SquadQuestion

PARAGRAPHS = st.lists(
    st.lists(st.sampled_from(["coat", "frog", "puppet", "green"]), min_size=1, max_size=9), min_size=1, max_size=12
)


def questions_about(paragraphs):
    """Two about each; the first has an answer."""
    asked = []
    for number, words in enumerate(paragraphs):
        context = f"{number} {' '.join(words)}"
        last = words[-1]
        asked.append(SquadQuestion(f"{number}a", "What?", context, (last,), False, (len(context) - len(last),)))
        asked.append(SquadQuestion(f"{number}b", "Why?", context, (), True))
    return asked


@given(PARAGRAPHS, st.integers(1, 30))
def test_every_answer_is_still_where_it_says(paragraphs, words):
    questions = questions_about(paragraphs)
    found = long_documents(questions, words)
    for before, after in zip(questions, found):
        assert before.context in after.context.split(BETWEEN)
        assert after._replace(context="", answer_starts=()) == before._replace(context="", answer_starts=())
        for text, start in zip(after.answers, after.answer_starts):
            assert after.context[start : start + len(text)] == text


@given(PARAGRAPHS, st.integers(1, 30))
def test_documents_are_as_long_as_asked_and_hold_every_paragraph_once(paragraphs, words):
    questions = questions_about(paragraphs)
    documents = list(dict.fromkeys(question.context for question in long_documents(questions, words)))
    together = [paragraph for document in documents for paragraph in document.split(BETWEEN)]
    assert together == list(dict.fromkeys(question.context for question in questions))
    total = sum(len(paragraph.split()) for paragraph in together)
    assert all(len(document.split()) >= min(words, total) for document in documents)


def test_an_unknown_place_stays_unknown():
    """SQuAD files may say -1."""
    first = SquadQuestion("1", "What?", "one two", ("two",), False, (4,))
    second = SquadQuestion("2", "What?", "three", ("3",), False, (-1,))
    assert [found.answer_starts for found in long_documents([first, second], 9)] == [(4,), (-1,)]
