"""neuronbert.tasks.question_answering.spans: the best of all spans, and what a worker leaves of a batch's logits."""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from neuronbert_demo import FOLDER as DEMO

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.tasks.question_answering import spans
from neuronbert.tasks.question_answering.answers import rank_answers
from neuronbert.tasks.question_answering.options import AnswerOptions, WindowOptions
from neuronbert.tasks.question_answering.spans import END_LOGITS, FEW_SPANS, START_LOGITS, Wanted, best_spans
from neuronbert.tasks.question_answering.windows import encode_examples

TOKENIZER = Tokenizer.from_files(DEMO)
CONTEXT = "Jim Henson was a puppeteer. JIM HENSON, born in Greenville in 1936, was the creator of the Muppets. "
CONTEXTS = [CONTEXT, "Max.", "\u200b", CONTEXT * 6]


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=60),
    st.integers(1, 80),
    st.integers(1, 30),
    st.randoms(use_true_random=False),
)
@example([0, 0, 0], 5, 2, None)
@example([7], 1, 1, None)
@example([0, 0, 0, 0], 8, 4, None)
def test_best_spans_are_the_best_of_all_spans(start, count, max_answer_len, random):
    end = list(start)
    if random is not None:
        random.shuffle(end)
    start, end = np.array(start, dtype=np.float32), np.array(end, dtype=np.float32)
    firsts, lasts, scores = best_spans(start, end, count, max_answer_len)
    every = [float(start[i] * end[j]) for i in range(len(start)) for j in range(i, min(i + max_answer_len, len(start)))]
    assert scores.tolist() == sorted(every, reverse=True)[:count]
    assert scores.tolist() == (start[firsts] * end[lasts]).tolist()
    assert len({*zip(firsts.tolist(), lasts.tolist())}) == len(scores)
    assert all(0 <= last - first < max_answer_len for first, last in zip(firsts.tolist(), lasts.tolist()))


def test_equal_scores_come_in_reading_order():
    ones = np.ones(6, dtype=np.float32)
    firsts, lasts, _ = best_spans(ones, ones, 100, 3)
    assert list(zip(firsts.tolist(), lasts.tolist())) == [(i, j) for i in range(6) for j in range(i, min(i + 3, 6))]
    firsts, lasts, _ = best_spans(ones, ones, 1, 3)
    assert (firsts.tolist(), lasts.tolist()) == ([0], [0])


OPTIONS = st.builds(
    AnswerOptions,
    top_k=st.integers(1, 40),
    max_answer_len=st.integers(1, 30),
    handle_impossible_answer=st.booleans(),
    align_to_words=st.booleans(),
    ranking=st.sampled_from(["window", "document"]),
    null_threshold=st.none() | st.floats(-10, 10),
    details=st.booleans(),
)


@given(st.lists(st.tuples(st.sampled_from(CONTEXTS), OPTIONS), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_what_a_worker_leaves_of_a_batch_gives_the_same_answers_to_the_last_bit(asked: Any, seed: int) -> None:
    examples = [
        encode_examples(TOKENIZER, [("Who was Jim?", context)], WindowOptions(64, 16))[0] for context, _ in asked
    ]
    rows = [window for one in examples for window in one.windows]
    shape = len(rows), max(len(window.input_ids) for window in rows) + 3
    random = np.random.default_rng(seed)
    batch = {name: random.normal(0, 5, shape).astype(np.float32) for name in (START_LOGITS, END_LOGITS)}
    wanted = [Wanted.of(row, options) for one, (_, options) in zip(examples, asked) for row in one.windows]
    reduced = spans.reduce(batch, np.array(wanted, dtype=np.int64))
    assert all(output.fits(reduced[output.name].shape, *shape) for output in spans.OUTPUTS)

    first = 0
    for one, (_, options) in zip(examples, asked):
        numbers = range(first, first + len(one.windows))
        first = numbers.stop
        logits = [
            {name: array[number, : len(rows[number].input_ids)] for name, array in batch.items()} for number in numbers
        ]
        left = [{name: array[number] for name, array in reduced.items()} for number in numbers]
        assert rank_answers(one, left, options) == rank_answers(one, logits, options)
        mixed = [*left[:1], *logits[1:]]  # a window that was tried again beside a row of which all is wanted
        assert rank_answers(one, mixed, options) == rank_answers(one, logits, options)
        fewer = replace(options, top_k=1)  # as selection.py looks for the best alone, of what was left for more
        assert rank_answers(one, left, fewer) == rank_answers(one, logits, fewer)


@given(st.integers(1, 400), st.integers(1, 200))
def test_what_is_left_of_a_batch_takes_no_more_room_than_its_logits(top_k: int, words: int) -> None:
    options = AnswerOptions(top_k=top_k, align_to_words=False, max_answer_len=400)
    (one,) = encode_examples(TOKENIZER, [("Who?", "the " * words)], WindowOptions(400, 0))
    (window,) = one.windows
    (wanted,) = spans.wanted_of(one, options)
    if wanted is None:
        assert top_k > FEW_SPANS
        return
    assert wanted == Wanted.of(window, options)
    logits = {name: np.zeros((3, len(window.input_ids)), np.float32) for name in (START_LOGITS, END_LOGITS)}
    left = spans.reduce(logits, np.array([wanted] * 3))
    facts = left.pop(spans.FACTS)
    assert facts.shape == (3, 6)
    few = 3 * FEW_SPANS * 20
    assert sum(array.nbytes for array in left.values()) <= max(few, sum(array.nbytes for array in logits.values()))
