"""neuronbert.tasks.question_answering.selection: which windows are read, and when that is enough."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logits import logits
from neuronbert_demo import FOLDER as DEMO

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import UsageError
from neuronbert.tasks.question_answering import selection
from neuronbert.tasks.question_answering.answers import rank_answers
from neuronbert.tasks.question_answering.options import AnswerOptions, WindowOptions
from neuronbert.tasks.question_answering.windows import encode_examples

QUESTION = "Where is the frog?"
FILLER = "the coat is green and old and nobody knows who made it for the puppet in all those years ."
NARROW = {"max_seq_len": 32, "doc_stride": 4}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_files(DEMO)


def document(places, sentences=40):
    """Filler, with a frog in these sentences."""
    return " ".join(f"The frog {number} sits here ." if number in places else FILLER for number in range(sentences))


def example_of(tokenizer, context, **options):
    return encode_examples(tokenizer, [(QUESTION, context)], WindowOptions(**{**NARROW, **options}))[0]


def outputs_of(example, tokenizer, strength):
    """Logits that find each word of ``strength`` where a window shows it, as strongly as that says."""
    ids = {tokenizer.backend.token_to_id(word): value for word, value in strength.items()}
    found = []
    for window in example.windows:
        values = np.array([ids.get(token, 0.0) for token in window.input_ids.tolist()], dtype=np.float32)
        values[: window.context_start] = 0
        found.append(logits(values, values))
    return found


def rounds_of(example, outputs, options=AnswerOptions()):
    read, rounds = {}, []
    while True:
        numbers = selection.next_rows(example, read, options)
        if not numbers:
            return read, rounds
        rounds.append(list(numbers))
        read.update({number: outputs[number] for number in numbers})


def test_without_it_every_window_is_read_at_once(tokenizer):
    example = example_of(tokenizer, document([7]))
    read, rounds = rounds_of(example, outputs_of(example, tokenizer, {}))
    assert rounds == [list(range(len(example.windows)))] and len(read) == len(example.windows)


def test_windows_with_the_rare_words_of_the_question_come_first(tokenizer):
    example = example_of(tokenizer, document([7, 30]), select_windows=2)
    frog = tokenizer.backend.token_to_id("frog")
    shows_frog = [frog in window.input_ids[window.context_start :].tolist() for window in example.windows]
    count = sum(shows_frog)
    assert 2 <= count < len(example.windows) / 4
    assert all(shows_frog[number] for number in example.selection.order[:count])
    assert not any(shows_frog[number] for number in example.selection.order[count:])


def test_an_answer_that_more_windows_do_not_change_ends_the_reading(tokenizer):
    example = example_of(tokenizer, document([7]), select_windows=1)
    read, rounds = rounds_of(example, outputs_of(example, tokenizer, {"7": 9.0}))
    assert rounds == [list(example.selection.order[:2])]
    narrowed = selection.narrowed(example, sorted(read))
    best = rank_answers(narrowed, [read[number] for number in sorted(read)], AnswerOptions(details=True))[0]
    assert best["answer"] == "7" and best["window"] in read


def test_one_that_they_change_has_more_read_each_time_as_many_again(tokenizer):
    example = example_of(tokenizer, document([7]), select_windows=1)
    order = example.selection.order
    outputs = []
    for number in range(len(example.windows)):  # what comes later is surer, and says something else
        rank = order.index(number)
        values = np.zeros(len(example.windows[number].input_ids), dtype=np.float32)
        values[example.windows[number].context_start + rank % 5] = 3.0 + rank
        outputs.append(logits(values, values))
    read, rounds = rounds_of(example, outputs)
    sizes = [len(each) for each in rounds]
    assert sizes[0] == 2 and len(sizes) > 2
    assert all(size == sum(sizes[:index]) for index, size in enumerate(sizes[1:-1], 1))
    assert [number for each in rounds for number in each] == list(order[: sum(sizes)])


@given(st.integers(1, 20), st.lists(st.integers(0, 39), max_size=6), st.integers(0, 2**32 - 1))
def test_whatever_the_outputs_the_reading_ends_and_no_window_is_read_twice(tokenizer, first, places, seed):
    example = example_of(tokenizer, document(places), select_windows=first)
    values = np.random.default_rng(seed)
    outputs = [logits(*values.normal(size=(2, len(window.input_ids))).astype(np.float32)) for window in example.windows]
    read, rounds = rounds_of(example, outputs)
    asked = [number for each in rounds for number in each]
    assert len(asked) == len(set(asked)) == len(read) >= min(2 * first, len(example.windows))


def test_of_few_windows_and_of_no_word_in_common_all_are_read(tokenizer):
    few = example_of(tokenizer, document([1], sentences=2), select_windows=9)
    assert few.selection is None
    nothing = encode_examples(tokenizer, [("zzz", document([]))], WindowOptions(**NARROW, select_windows=1))[0]
    assert len(nothing.windows) > 10 and nothing.selection is None


def test_an_artifact_may_say_how_many_and_a_caller_says_otherwise(tokenizer):
    compiled = copy.copy(tokenizer)
    compiled.first_rows = 2
    assert example_of(compiled, document([7])).selection.first == 2
    assert example_of(compiled, document([7]), select_windows=3).selection.first == 3
    assert example_of(compiled, document([7]), select_windows=0).selection is None


def test_that_there_is_no_answer_is_said_by_all_windows_or_by_none(tokenizer):
    """Two windows without an answer both say that there is none."""
    example = example_of(tokenizer, document([7, 30]), select_windows=1)
    order, sure = example.selection.order, AnswerOptions(handle_impossible_answer=True)
    outputs = []
    for number, window in enumerate(example.windows):
        values = np.zeros(len(window.input_ids), dtype=np.float32)
        values[window.context_start + 3 if number == order[-1] else 0] = 9.0
        outputs.append(logits(values, values))
    for options in (sure, AnswerOptions(null_threshold=0.0), AnswerOptions(null_threshold=0.0, ranking="document")):
        read, _ = rounds_of(example, outputs, options)
        assert sorted(read) == list(range(len(example.windows)))
        assert rank_answers(example, outputs, options)[0]["answer"] != ""


def test_words_of_the_question_that_are_cut_select_nothing(tokenizer):
    question = "Where is the coat and also " + "the frog " * 9
    pair = [(question, document([7, 30]))]
    whole, cut = (
        encode_examples(tokenizer, pair, WindowOptions(**NARROW, max_question_len=tokens, select_windows=1))[0]
        for tokens in (8, 4)
    )
    assert whole.selection.order != cut.selection.order


@pytest.mark.parametrize("asked", [-1, 1.5, "2", float("nan")])
def test_what_is_no_number_of_windows_is_refused(asked):
    with pytest.raises(UsageError, match="select_windows parameter should be a whole number >= 0"):
        WindowOptions(select_windows=asked)
